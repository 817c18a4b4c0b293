//! Opus for the archive: what comes out of it again stands where it stood before, whatever was between.

#![allow(clippy::unwrap_used)]

mod support;

use callvault_render_protocol::*;
use support::*;

const TRACKS: Output = Output::OpusTracks { bit_rate: 24_000, complexity: 5 };

/// The job that plays what an archive job gave out.
fn playback(archived: &Rendered, channels: &[u8], end_ticks: u64) -> Job {
    let specs = archived.stats().tracks.iter().zip(channels);
    let tracks = specs
        .map(|(stats, channel)| TrackSpec { codecs: stats.output.clone().into_iter().collect(), channel: *channel });
    job(Output::Wav, tracks.collect(), end_ticks)
}

/// Archives the packets of one track and plays them; gives back both, and the rate.
fn archived_and_played(spec: TrackSpec, packets: &[Packet], end_ticks: u64) -> (Rendered, u32, Vec<i16>) {
    let archived = render(&job(TRACKS, vec![spec], end_ticks), packets);
    let played = render(&playback(&archived, &[0], end_ticks), &archived.opus);
    let (rate, mut channels) = wav(&played.file);
    (archived, rate, channels.remove(0))
}

/// What G.722 itself adds, so that only the archive's part is judged.
fn plain(spec: TrackSpec, packets: &[Packet], end_ticks: u64) -> Vec<i16> {
    wav(&render(&job(Output::Wav, vec![spec], end_ticks), packets).file).1.remove(0)
}

/// `lag_max` is one sample of the track's original rate.
fn check_restored(original: &[i16], restored: &[i16], lag_max: isize, alike_min: f64) {
    assert_eq!(original.len(), restored.len());
    let (lag, alike) = best_lag(original, restored, 200);
    assert!(lag.abs() <= lag_max && alike >= alike_min, "lag {lag}, correlation {alike}");
    // The same everywhere, not only on the average: half a second at a time, where there is speech.
    let part = original.len() / 10;
    for (a, b) in original.chunks(part).zip(restored.chunks(part)) {
        if a.iter().filter(|x| x.abs() > 1_500).count() > part / 10 {
            let (lag, alike) = best_lag(a, b, 100);
            assert!(lag.abs() <= lag_max && alike >= alike_min - 0.1, "a part: lag {lag}, correlation {alike}");
        }
    }
}

#[test]
fn g711_comes_back_where_it_was() {
    let spec = track(Codec::Pcmu, 8_000, 0);
    let packets = ulaw_packets(0, 0, &voice(0, 8_000, 40_000));
    let (archived, rate, restored) = archived_and_played(spec.clone(), &packets, 240_000);
    assert_eq!(rate, 8_000);
    check_restored(&plain(spec, &packets, 240_000), &restored, 1, 0.95);
    let own = archived.stats().tracks[0].output.clone().unwrap();
    assert_eq!((own.codec, own.clock_rate, own.channels, own.pre_skip), (Codec::Opus, 8_000, 1, 312));
    assert_eq!(archived.stats().sample_rate, 0);
    // The grid: every 20 ms from the first packet on, and one packet more to get the last samples out.
    let positions: Vec<u64> = archived.opus.iter().map(|packet| packet.position).collect();
    assert_eq!(positions, (0..251).map(|n| n * 960).collect::<Vec<_>>());
    assert!(positions[250] < 240_000 + POST_ROLL_TICKS);
}

#[test]
fn the_last_packet_carries_the_last_samples() {
    let spec = track(Codec::Pcmu, 8_000, 0);
    let packets = ulaw_packets(0, 0, &voice(0, 8_000, 8_000 * 2));
    let (archived, _, whole) = archived_and_played(spec, &packets, 96_000);
    let without_last = &archived.opus[..archived.opus.len() - 1];
    let cut = wav(&render(&playback(&archived, &[0], 96_000), without_last).file).1.remove(0);
    assert_ne!(whole[16_000 - 52..], cut[16_000 - 52..]);
    assert_eq!(cut[16_000 - 52..], [0; 52]);
    assert_eq!(whole[..16_000 - 52], cut[..16_000 - 52]);
}

#[test]
fn g722_comes_back_where_it_was() {
    let spec = track(Codec::G722, 8_000, 0);
    let packets = g722_packets(0, 0, &voice(0, 16_000, 80_000));
    let (archived, rate, restored) = archived_and_played(spec.clone(), &packets, 240_000);
    assert_eq!((rate, archived.stats().tracks[0].output.as_ref().unwrap().pre_skip), (16_000, 312));
    check_restored(&plain(spec, &packets, 240_000), &restored, 1, 0.93);
}

#[test]
fn a_track_that_changes_its_codec_comes_back_where_it_was() {
    let (slow, fast) = (voice(0, 8_000, 16_000), voice(0, 48_000, 240_000));
    let spec = TrackSpec {
        codecs: vec![
            CodecSpec::new(Codec::Pcmu, 8_000),
            CodecSpec { channels: 2, ..CodecSpec::new(Codec::Opus, 48_000) },
        ],
        channel: 0,
    };
    let mut packets = ulaw_packets(0, 0, &slow);
    packets.extend(opus_packets(0, 96_000, &fast[96_000..]).into_iter().map(|packet| Packet { codec: 1, ..packet }));
    let (_, rate, restored) = archived_and_played(spec.clone(), &packets, 240_000);
    assert_eq!(rate, 48_000);
    check_restored(&plain(spec, &packets, 240_000), &restored, 6, 0.9);
    // And the first part is still in step with the speaker.
    assert!(best_lag(&fast[..96_000], &restored[..96_000], 60).0.abs() <= 6);
}

#[test]
fn a_range_from_the_middle_agrees_after_the_pre_roll() {
    let packets = ulaw_packets(0, 0, &voice(0, 8_000, 40_000));
    let (archived, _, whole) = archived_and_played(track(Codec::Pcmu, 8_000, 0), &packets, 240_000);
    for start in [48_000_u64, 50_006, 100_321, 200_000] {
        let end = start + 36_000;
        let given =
            archived.opus.iter().filter(|p| p.position + PRE_ROLL_TICKS >= start && p.position < end + POST_ROLL_TICKS);
        let job = Job { start_ticks: start, end_ticks: end, ..playback(&archived, &[0], 0) };
        let part = wav(&render(&job, &given.cloned().collect::<Vec<_>>()).file).1.remove(0);
        let expected = &whole[(start / 6) as usize..(end / 6) as usize];
        assert!(best_lag(expected, &part, 50).0 == 0 && correlation(expected, &part, 0) > 0.99, "{start}");
    }
}

/// Removes the packets in `hole` (numbers of 20 ms packets); tells into how many runs the archive then falls.
fn check_runs(hole: std::ops::Range<usize>, runs: usize) {
    let spec = track(Codec::Pcmu, 8_000, 0);
    let mut packets = ulaw_packets(0, 480, &voice(0, 8_000, 48_000));
    packets.drain(hole.clone());
    let (archived, _, restored) = archived_and_played(spec.clone(), &packets, 288_480);
    let breaks = archived.opus.windows(2).filter(|pair| pair[1].position - pair[0].position != 960);
    let breaks: Vec<u64> = breaks.map(|pair| pair[1].position).collect();
    assert_eq!(breaks.len() + 1, runs, "{hole:?}");
    assert!(breaks.iter().all(|position| *position == 480 + hole.end as u64 * 960));
    let original = plain(spec, &packets, 288_480);
    check_restored(&original, &restored, 1, 0.93);
    let silent = 80 + hole.start * 160 + 240..(80 + hole.end * 160).saturating_sub(240);
    if !silent.is_empty() {
        let loudest = restored[silent].iter().map(|x| x.unsigned_abs()).max().unwrap();
        assert!(loudest < 300, "{hole:?}: {loudest} in the hole");
    }
}

#[test]
fn a_short_hole_is_encoded_and_a_long_one_begins_a_new_run() {
    check_runs(100..101, 1);
    check_runs(100..110, 1);
    check_runs(100..150, 1);
    check_runs(100..151, 2);
    check_runs(60..200, 2);
}

#[test]
fn a_long_hold_costs_nothing() {
    let part = ulaw_packets(0, 0, &voice(0, 8_000, 8_000));
    let later = part.iter().map(|p| packet(0, p.position + 3_600 * 48_000, p.payload.clone()));
    let packets: Vec<Packet> = part.iter().cloned().chain(later).collect();
    let archived = render(&job(TRACKS, vec![track(Codec::Pcmu, 8_000, 0)], 3_601 * 48_000), &packets);
    assert_eq!(archived.opus.len(), 2 * 51);
}

#[test]
fn packets_of_all_tracks_come_in_order() {
    let long = voice(0, 8_000, 80_000);
    let mut first = ulaw_packets(0, 0, &long);
    first.drain(100..300);
    let second = ulaw_packets(1, 4_800, &voice(1, 8_000, 80_000));
    let third = g722_packets(2, 290_880, &voice(2, 16_000, 32_000));
    let tracks = vec![track(Codec::Pcmu, 8_000, 0), track(Codec::Pcmu, 8_000, 1), track(Codec::G722, 8_000, 1)];
    let packets = in_order(vec![first, second, third]);
    let archived = render(&job(TRACKS, tracks, 484_800), &packets);
    assert!(archived.opus.is_sorted_by_key(|packet| packet.position));
    let count = |track| archived.opus.iter().filter(|packet| packet.track == track).count();
    assert_eq!((count(0), count(1), count(2)), (101 + 201, 501, 101));
    assert_eq!(archived.opus.iter().find(|packet| packet.track == 1).unwrap().position, 4_800);
}

#[test]
fn speakers_stay_on_their_own_channels() {
    let voices = [voice(0, 8_000, 80_000), voice(1, 8_000, 80_000)];
    let packets = in_order(vec![ulaw_packets(0, 0, &voices[0]), ulaw_packets(1, 0, &voices[1])]);
    let archived =
        render(&job(TRACKS, vec![track(Codec::Pcmu, 8_000, 0), track(Codec::Pcmu, 8_000, 1)], 480_000), &packets);
    let channels = wav(&render(&playback(&archived, &[0, 1], 480_000), &archived.opus).file).1;
    for own in 0..2 {
        assert!(correlation(&voices[own], &channels[own], 0) > 0.95);
        assert!(correlation(&voices[1 - own], &channels[own], 0).abs() < 0.1);
    }
}

#[test]
fn a_lost_packet_of_the_archive_is_a_hole_and_nothing_moves() {
    let packets = ulaw_packets(0, 0, &voice(0, 8_000, 40_000));
    let (archived, _, whole) = archived_and_played(track(Codec::Pcmu, 8_000, 0), &packets, 240_000);
    let damaged: Vec<Packet> =
        archived.opus.iter().enumerate().filter(|(n, _)| !(100..110).contains(n)).map(|(_, p)| p.clone()).collect();
    let played = wav(&render(&playback(&archived, &[0], 240_000), &damaged).file).1.remove(0);
    assert_eq!(played[..100 * 160 - 52], whole[..100 * 160 - 52]);
    assert!(played[100 * 160..110 * 160].iter().all(|x| *x == 0));
    assert!(correlation(&whole[115 * 160..], &played[115 * 160..], 0) > 0.99);
}

#[test]
fn opus_of_a_telephone_survives_a_loss() {
    let samples = voice(0, 48_000, 240_000);
    let spec = track(Codec::Opus, 48_000, 0);
    let mut packets = opus_packets(0, 0, &samples);
    let whole = plain(spec.clone(), &packets, 240_000);
    packets.drain(100..102);
    let played = plain(spec, &packets, 240_000);
    assert_eq!(played[..96_000], whole[..96_000]);
    assert!(played[96_000..97_920].iter().all(|x| *x == 0), "a loss is silence, not invention");
    assert!(correlation(&whole[99_840..], &played[99_840..], 0) > 0.98);
}

#[test]
fn an_archive_job_for_silent_tracks_gives_nothing() {
    let archived =
        render(&job(TRACKS, vec![track(Codec::Pcmu, 8_000, 0), TrackSpec { codecs: vec![], channel: 1 }], 48_000), &[]);
    assert!(archived.opus.is_empty() && archived.stats().tracks.iter().all(|track| track.output.is_none()));
}
