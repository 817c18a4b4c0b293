//! The files, as a program that is not ours reads them: ffmpeg.

#![allow(clippy::unwrap_used)]

mod support;

use callvault_render_protocol::*;
use support::*;

const SECONDS: usize = 4;
const END: u64 = SECONDS as u64 * 48_000;

fn two_voices() -> ([Vec<i16>; 2], Vec<TrackSpec>, Vec<Packet>) {
    let voices = [voice(0, 8_000, SECONDS * 8_000), voice(1, 8_000, SECONDS * 8_000)];
    let packets = in_order(vec![ulaw_packets(0, 0, &voices[0]), ulaw_packets(1, 0, &voices[1])]);
    (voices, vec![track(Codec::Pcmu, 8_000, 0), track(Codec::Pcmu, 8_000, 1)], packets)
}

/// The file as ffmpeg decodes it at 8 kHz, channel by channel.
fn decoded(file: &[u8], channels: usize) -> Vec<Vec<i16>> {
    channels_of(&ffmpeg(&[], file, &["-f", "s16le", "-ar", "8000", "-ac", &channels.to_string()]), channels)
}

/// Each channel is its speaker's, `lag` samples late at most, and `apart` from the other's.
fn check_channels(voices: &[Vec<i16>; 2], channels: &[Vec<i16>], lag_max: isize, alike: f64, apart: f64) {
    for own in 0..2 {
        let (lag, likeness) = best_lag(&voices[own], &channels[own], lag_max);
        assert!(likeness > alike, "channel {own}: {likeness} at {lag}");
        let other = correlation(&voices[1 - own], &channels[own], lag).abs();
        assert!(other < apart, "channel {own} has {other} of the other");
    }
}

#[test]
fn wav_is_read_exactly() {
    let (_, tracks, packets) = two_voices();
    let file = render(&job(Output::Wav, tracks, END), &packets).file;
    assert_eq!(decoded(&file, 2), wav(&file).1);
}

#[test]
fn ogg_opus_is_read_in_time_and_in_length() {
    let (voices, tracks, packets) = two_voices();
    let output = Output::OggOpus { bit_rate: 24_000, complexity: 5 };
    let file = render(&job(output, tracks, END), &packets).file;
    let at_48k = ffmpeg(&[], &file, &["-f", "s16le", "-ar", "48000", "-ac", "2"]);
    assert_eq!(at_48k.len(), SECONDS * 48_000 * 4, "the length is exact: pre-skip and end are trimmed");
    let channels = decoded(&file, 2);
    check_channels(&voices, &channels, 2, 0.95, 0.1);
}

#[test]
fn ogg_opus_with_one_silent_speaker_has_nothing_in_the_other_channel() {
    let (_, tracks, packets) = two_voices();
    let packets: Vec<Packet> = packets.into_iter().filter(|packet| packet.track == 0).collect();
    let file = render(&job(Output::OggOpus { bit_rate: 0, complexity: 5 }, tracks, END), &packets).file;
    let channels = decoded(&file, 2);
    assert!(channels[1].iter().all(|x| x.unsigned_abs() <= 1));
}

/// A range of `ticks` has exactly that length, also where it is no multiple of a packet.
fn check_ogg_length(ticks: u64, channels: u8) {
    let (_, tracks, packets) = two_voices();
    let tracks = tracks.into_iter().map(|track| TrackSpec { channel: 0, ..track }).collect();
    let job = Job {
        start_ticks: 960,
        end_ticks: 960 + ticks,
        channels,
        ..job(Output::OggOpus { bit_rate: 0, complexity: 0 }, tracks, 0)
    };
    let file = render(&job, &packets).file;
    let raw = ffmpeg(&[], &file, &["-f", "s16le", "-ar", "48000", "-ac", &channels.to_string()]);
    assert_eq!(raw.len() as u64, ticks * 2 * u64::from(channels));
}

#[test]
fn ogg_opus_has_the_length_of_the_range() {
    check_ogg_length(48_000, 1);
    check_ogg_length(48_000, 2);
    check_ogg_length(960, 1);
    check_ogg_length(961, 2);
    check_ogg_length(48_000 + 647, 1);
    check_ogg_length(48_000 + 648, 1);
    check_ogg_length(48_000 + 649, 1);
}

#[test]
fn mp3_is_read_with_each_speaker_in_place() {
    let (voices, tracks, packets) = two_voices();
    let rendered = render(&job(Output::Mp3 { bit_rate_kbps: 0, quick: false }, tracks, END), &packets);
    assert_eq!(rendered.stats().sample_rate, 16_000);
    let channels = decoded(&rendered.file, 2);
    // The format has no place for the encoder's and the decoder's delay of 70 ms together.
    check_channels(&voices, &channels, 800, 0.95, 0.1);
    let length = channels[0].len();
    assert!((SECONDS * 8_000..SECONDS * 8_000 + 1_600).contains(&length), "{length}");
    // Constant bit rate: 48 kbit/s.
    let expected = SECONDS * 48_000 / 8;
    assert!((expected..expected + 1_500).contains(&rendered.file.len()), "{}", rendered.file.len());
}

#[test]
fn mp3_of_wide_band_audio_is_written_at_24_khz() {
    let samples = voice(0, 48_000, 96_000);
    let packets = opus_packets(0, 0, &samples);
    let job = Job {
        channels: 1,
        ..job(Output::Mp3 { bit_rate_kbps: 64, quick: false }, vec![track(Codec::Opus, 48_000, 0)], 96_000)
    };
    let rendered = render(&job, &packets);
    assert_eq!(rendered.stats().sample_rate, 24_000);
    let raw = ffmpeg(&[], &rendered.file, &["-f", "s16le", "-ar", "48000", "-ac", "1"]);
    assert!(best_lag(&samples, &channels_of(&raw, 1)[0], 5_000).1 > 0.95);
}

/// All codes of G.711, by ffmpeg's decoder and by ours.
fn check_g711(codec: Codec, name: &str) {
    let codes: Vec<u8> = (0..=255).collect();
    let job = Job { channels: 1, ..job(Output::Wav, vec![track(codec, 8_000, 0)], 256 * 6) };
    let ours = wav(&render(&job, &[packet(0, 0, codes.clone())]).file).1;
    let theirs = channels_of(
        &ffmpeg(&["-f", name, "-ar", "8000", "-ac", "1"], &codes, &["-f", "s16le", "-c:a", "pcm_s16le"]),
        1,
    );
    assert!(ours == theirs, "{name}");
}

#[test]
fn g711_is_decoded_as_ffmpeg_decodes_it() {
    check_g711(Codec::Pcmu, "mulaw");
    check_g711(Codec::Pcma, "alaw");
}

#[test]
fn g722_is_decoded_as_ffmpeg_decodes_it() {
    let samples: Vec<u8> = voice(0, 16_000, 64_000).iter().flat_map(|x| x.to_le_bytes()).collect();
    let stream = ffmpeg(&["-f", "s16le", "-ar", "16000", "-ac", "1"], &samples, &["-f", "g722"]);
    let packets: Vec<Packet> =
        (0..).zip(stream.chunks(160)).map(|(n, part)| packet(0, n * 960, part.to_vec())).collect();
    let job = Job { channels: 1, ..job(Output::Wav, vec![track(Codec::G722, 8_000, 0)], END) };
    let ours = wav(&render(&job, &packets).file).1.remove(0);
    let theirs = channels_of(&ffmpeg(&["-f", "g722"], &stream, &["-f", "s16le"]), 1).remove(0);
    assert_eq!(ours.len(), theirs.len());
    assert!(ours == theirs, "first at {:?}", ours.iter().zip(&theirs).position(|(a, b)| a != b));
}
