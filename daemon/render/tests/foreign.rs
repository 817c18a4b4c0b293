//! Codecs that ffmpeg decodes: each packet's audio stands where the packet stands.

#![allow(clippy::unwrap_used)]

mod support;

use callvault_render_protocol::*;
use support::*;

const FFMPEG: &str = "/usr/bin/ffmpeg";

fn spec(name: &str, fmtp: &str) -> TrackSpec {
    let rate = if name == "AMR-WB" { 16_000 } else { 8_000 };
    let mut spec = track(Codec::from_encoding(name), rate, 0);
    spec.codecs[0].fmtp = Some(fmtp.to_owned()).filter(|fmtp| !fmtp.is_empty());
    spec
}

fn rendered(spec: &TrackSpec, packets: &[Packet], ticks: u64) -> (u32, Vec<i16>, TrackStats) {
    let job = Job { channels: 1, ffmpeg: Some(FFMPEG.into()), ..job(Output::Wav, vec![spec.clone()], ticks) };
    let rendered = render(&job, packets);
    let (rate, mut channels) = wav(&rendered.file);
    (rate, channels.remove(0), rendered.stats().tracks[0].clone())
}

/// Packets of as many bytes, each 20 ms.
fn packets_of(stream: &[u8], bytes: usize) -> Vec<Packet> {
    (0..).zip(stream.chunks_exact(bytes)).map(|(n, payload)| packet(0, n * 960, payload.to_vec())).collect()
}

/// What ffmpeg encodes comes back, where it was, also beside packets that are missing.
fn check_restored(name: &str, encoder: &[&str], bytes: usize, alike_min: f64) {
    // More than is decoded at once.
    let original = voice(0, 8_000, 280_000);
    let raw: Vec<u8> = original.iter().flat_map(|x| x.to_le_bytes()).collect();
    let stream = ffmpeg(&["-f", "s16le", "-ar", "8000", "-ac", "1"], &raw, encoder);
    let mut packets = packets_of(&stream, bytes);
    assert!(packets.len() >= 1_749, "{name}: {}", packets.len());
    let (rate, whole, stats) = rendered(&spec(name, ""), &packets, 280_000 * 6);
    assert_eq!((rate, stats.decode_errors, stats.undecodable_packets), (8_000, 0, 0), "{name}");
    for (a, b) in original.chunks(28_000).zip(whole.chunks(28_000)) {
        let (lag, alike) = best_lag(a, b, 40);
        assert!(lag.abs() <= 1 && alike > alike_min, "{name}: {lag} {alike}");
    }
    packets.retain(|packet| !(48_000..96_000).contains(&packet.position));
    let (_, holed, _) = rendered(&spec(name, ""), &packets, 280_000 * 6);
    assert_eq!(holed[..8_000], whole[..8_000], "{name}");
    assert!(holed[8_000..16_000].iter().all(|x| *x == 0), "{name}");
    assert!(correlation(&whole[20_000..], &holed[20_000..], 0) > 0.95, "{name}");
}

#[test]
fn what_ffmpeg_encodes_comes_back_where_it_was() {
    for (bits, alike_min) in [(2, 0.6), (3, 0.85), (4, 0.95), (5, 0.98)] {
        let bit_rate = format!("{}k", bits * 8);
        let options = |codec| ["-c:a", codec, "-b:a", bit_rate.as_str(), "-f", codec];
        check_restored(&format!("G726-{}", bits * 8), &options("g726le"), bits * 20, alike_min);
        if bits == 4 {
            check_restored("AAL2-G726-32", &options("g726"), 80, alike_min);
        }
    }
    check_restored("GSM", &["-c:a", "libgsm", "-f", "gsm"], 33, 0.8);
}

/// Frames of which nothing is known but that they are such: as many samples as there should be come of them, packet by packet.
fn check_length(name: &str, fmtp: &str, payload: impl Fn(u64) -> Vec<u8>, packet_ticks: u64) {
    let packets: Vec<Packet> = (0..40).map(|n| packet(0, n * 2 * packet_ticks, payload(n))).collect();
    let (rate, samples, stats) = rendered(&spec(name, fmtp), &packets, 80 * packet_ticks);
    assert_eq!((stats.packets, stats.decode_errors, stats.undecodable_packets), (40, 0, 0), "{name} {fmtp}");
    let length = (packet_ticks * u64::from(rate) / 48_000) as usize;
    for (n, part) in samples.chunks(length).enumerate() {
        assert!(n % 2 == 0 || part.iter().all(|x| *x == 0), "{name}: audio beside packet {n}");
    }
    let loud = samples.chunks(length).filter(|part| part.iter().any(|x| *x != 0)).count();
    assert!(loud >= 30, "{name} {fmtp}: {loud}");
}

fn noise(seed: u64, count: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let next = move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    };
    std::iter::repeat_with(next).take(count).collect()
}

#[test]
fn packets_keep_their_places() {
    check_length("G729", "", |n| noise(n, 20), 960);
    // With a silence descriptor at the end.
    check_length("G729", "annexb=yes", |n| noise(n, 12), 960);
    check_length("iLBC", "mode=20", |n| noise(n, 38), 960);
    check_length("iLBC", "", |n| noise(n, 50), 1_440);
    check_length("G723", "", |n| [&[noise(n, 1)[0] & 0xfc], &noise(n + 100, 23)[..]].concat(), 1_440);
    check_length("AMR", "octet-align=1", |n| [&[0xf0, 0x3c], &noise(n, 31)[..]].concat(), 960);
    check_length("AMR", "", |n| [&[0xf3, 0xc0 | noise(n, 1)[0] & 0x3f], &noise(n, 30)[..]].concat(), 960);
    check_length("AMR-WB", "octet-align=1", |n| [&[0xf0, 0x44], &noise(n, 60)[..]].concat(), 960);
}

#[test]
fn what_cannot_be_taken_apart_is_counted_and_silent() {
    let good = |n: u64| packet(0, n * 960, noise(n, 20));
    let broken = packet(0, 2 * 960, vec![1; 7]);
    let (_, samples, stats) = rendered(&spec("G729", ""), &[good(0), good(1), broken, good(3)], 4 * 960);
    assert_eq!((stats.packets, stats.decode_errors), (3, 1));
    assert!(samples[320..480].iter().all(|x| *x == 0) && samples[480..].iter().any(|x| *x != 0));
}

#[test]
fn without_ffmpeg_it_is_said_so() {
    let packets = [packet(0, 0, noise(1, 20))];
    for ffmpeg in [None, Some("/nonexistent/ffmpeg".to_owned())] {
        let is_there = ffmpeg.is_some();
        let job = Job { channels: 1, ffmpeg, ..job(Output::Wav, vec![spec("G729", "")], 960) };
        let rendered = render(&job, &packets);
        match rendered.end {
            Err((FailureKind::Unsupported, text)) => assert!(!is_there && text.contains("G729"), "{text}"),
            Ok(stats) => assert!(is_there && stats.tracks[0].decode_errors == 1),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn other_tracks_are_what_they_are_without_it() {
    let spoken = voice(1, 8_000, 16_000);
    let mut packets: Vec<Packet> = (0..100).map(|n| packet(0, n * 960, noise(n, 20))).collect();
    packets.extend(ulaw_packets(1, 0, &spoken));
    packets.sort_by_key(|packet| packet.position);
    let tracks = vec![spec("G729", ""), track(Codec::Pcmu, 8_000, 1)];
    let job = Job { ffmpeg: Some(FFMPEG.into()), ..job(Output::Wav, tracks, 96_000) };
    let channels = wav(&render(&job, &packets).file).1;
    let expected: Vec<i16> = ulaw(&spoken).iter().map(|code| ulaw_value(*code)).collect();
    assert_eq!(channels[1], expected);
    assert!(channels[0].iter().any(|x| *x != 0));
}
