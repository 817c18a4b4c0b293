//! What holds for every rendering: samples stand where their packets say, exactly, and nothing else moves them.

#![allow(clippy::unwrap_used)]

mod support;

use callvault_render_protocol::*;
use proptest::prelude::*;
use proptest::test_runner::FileFailurePersistence;
use support::*;

fn pcmu(channel: u8) -> TrackSpec {
    track(Codec::Pcmu, 8_000, channel)
}

fn values(codes: &[u8]) -> Vec<i16> {
    codes.iter().map(|code| ulaw_value(*code)).collect()
}

#[test]
fn every_code_of_g711_comes_out_exactly() {
    let codes: Vec<u8> = (0..=255).collect();
    let rendered = render(&job(Output::Wav, vec![pcmu(0), pcmu(1)], 256 * 6), &[packet(0, 0, codes.clone())]);
    let (rate, channels) = wav(&rendered.file);
    assert_eq!(rate, 8_000);
    assert!(channels[0] == values(&codes));
    assert_eq!(channels[1], vec![0; 256]);
    let stats = rendered.stats();
    assert_eq!(
        (stats.ticks, stats.sample_rate, stats.tracks[0].packets, stats.tracks[1].packets),
        (256 * 6, 8_000, 1, 0)
    );
}

#[test]
fn channels_are_where_the_job_says() {
    let packets = [packet(0, 0, vec![0x80; 8]), packet(1, 0, vec![0x00; 8])];
    for (left, right) in [(0, 1), (1, 0)] {
        let rendered = render(&job(Output::Wav, vec![pcmu(left), pcmu(right)], 48), &packets);
        let channels = wav(&rendered.file).1;
        assert_eq!(channels[usize::from(left)], vec![32_124; 8]);
        assert_eq!(channels[usize::from(right)], vec![-32_124; 8]);
    }
}

#[test]
fn tracks_on_one_channel_are_added_within_16_bits() {
    let tracks = vec![pcmu(1), pcmu(1), pcmu(1)];
    let packets = [
        packet(0, 0, vec![0x80, 0x00, 0x8f]),
        packet(1, 0, vec![0x80, 0x00, 0x0f]),
        packet(2, 0, vec![0xff, 0xff, 0xfe]),
    ];
    let channels = wav(&render(&job(Output::Wav, tracks, 18), &packets).file).1;
    assert_eq!(channels, [vec![0, 0, 0], vec![32_767, -32_768, 8]]);
}

/// Packets as (position in samples, codes), and the samples that come of them.
fn check_placement(packets: &[(u64, &[u8])], expected: &[u8]) {
    let packets: Vec<Packet> = packets.iter().map(|(at, codes)| packet(0, at * 6, codes.to_vec())).collect();
    let mut job = job(Output::Wav, vec![pcmu(0)], expected.len() as u64 * 6);
    job.channels = 1;
    assert_eq!(wav(&render(&job, &packets).file).1, [values(expected)], "{packets:?}");
}

#[test]
fn holes_are_silent_and_the_earlier_wins_where_packets_overlap() {
    const S: u8 = 0xff;
    check_placement(&[(0, &[1, 2]), (2, &[3, 4])], &[1, 2, 3, 4]);
    check_placement(&[(2, &[1, 2])], &[S, S, 1, 2, S]);
    check_placement(&[(0, &[1; 3]), (20, &[2; 2])], &[&[1; 3][..], &[S; 17], &[2; 2]].concat());
    check_placement(&[(0, &[1; 30]), (10, &[2; 30])], &[[1; 30], [2; 30]].concat()[..40]);
    check_placement(&[(0, &[1; 30]), (5, &[2; 10]), (30, &[3; 2])], &[&[1; 30][..], &[3; 2]].concat());
    check_placement(&[(0, &[1; 30]), (0, &[2; 30])], &[1; 30]);
    check_placement(&[(0, &[])], &[S, S]);
    check_placement(&[(0, &[1; 9])], &[1; 3]);
}

#[test]
fn a_slip_of_a_sample_is_no_hole() {
    check_placement(&[(0, &[1, 2, 3]), (4, &[4, 5])], &[1, 2, 3, 3, 4, 5]);
    check_placement(&[(0, &[1, 2, 3]), (2, &[4, 5])], &[1, 2, 3, 5]);
}

#[test]
fn a_change_of_codec_leaves_no_seam() {
    let spec =
        TrackSpec { codecs: vec![CodecSpec::new(Codec::Pcmu, 8_000), CodecSpec::new(Codec::Pcma, 8_000)], channel: 0 };
    let packets = [
        packet(0, 0, vec![0x80; 4]),
        Packet { codec: 1, ..packet(0, 24, vec![0xaa; 4]) },
        packet(0, 48, vec![0x00; 4]),
    ];
    let channels = wav(&render(&job(Output::Wav, vec![spec], 72), &packets).file).1;
    assert_eq!(channels[0], [[32_124; 4], [32_256; 4], [-32_124; 4]].concat());
}

#[test]
fn a_range_is_a_slice_of_the_whole() {
    let samples = [voice(0, 8_000, 24_000), voice(1, 8_000, 24_000)];
    let packets = in_order(vec![ulaw_packets(0, 0, &samples[0]), ulaw_packets(1, 480, &samples[1])]);
    let whole_job = job(Output::Wav, vec![pcmu(0), pcmu(1)], 3 * 48_000);
    let whole = wav(&render(&whole_job, &packets).file).1;
    for (start, end) in [(0, 48_000), (1, 7), (7, 7), (50_000, 120_001), (143_990, 144_000), (100_000, 200_000)] {
        let part_job = Job { start_ticks: start, end_ticks: end, ..whole_job.clone() };
        let given: Vec<Packet> = packets
            .iter()
            .filter(|packet| packet.position + PRE_ROLL_TICKS >= start && packet.position < end + POST_ROLL_TICKS)
            .cloned()
            .collect();
        let part = wav(&render(&part_job, &given).file).1;
        let (from, to) = ((start / 6) as usize, (end / 6) as usize);
        for channel in 0..2 {
            let mut expected = whole[channel][from.min(24_000)..to.min(24_000)].to_vec();
            expected.resize(to - from, 0);
            // The second track goes on for 10 ms after the whole's end.
            let known = expected.len().min(24_000 - from.min(24_000));
            assert!(part[channel].len() == to - from && part[channel][..known] == expected[..known], "{start}..{end}");
        }
    }
}

#[test]
fn a_range_of_a_codec_with_memory_agrees_after_the_pre_roll() {
    let samples = voice(0, 16_000, 48_000);
    let packets = g722_packets(0, 0, &samples);
    let whole_job = job(Output::Wav, vec![track(Codec::G722, 8_000, 0)], 3 * 48_000);
    let whole = wav(&render(&whole_job, &packets).file);
    assert_eq!(whole.0, 16_000);
    let (start, end) = (60_000, 120_000);
    let given: Vec<Packet> = packets.into_iter().filter(|packet| packet.position + PRE_ROLL_TICKS >= start).collect();
    let part = wav(&render(&Job { start_ticks: start, end_ticks: end, ..whole_job }, &given).file).1;
    assert!(correlation(&whole.1[0][20_000..40_000], &part[0], 0) > 0.999);
}

/// How like the quarter of a second after a hole of `lost` packets is to the same without loss.
fn check_healing(lost: usize, alike_min: f64) {
    let mut packets = g722_packets(0, 0, &voice(1, 16_000, 32_000));
    let job = job(Output::Wav, vec![track(Codec::G722, 8_000, 0)], 96_000);
    let whole = wav(&render(&job, &packets).file).1.remove(0);
    packets.drain(40..40 + lost);
    let damaged = wav(&render(&job, &packets).file).1.remove(0);
    assert_eq!(whole[..12_800], damaged[..12_800]);
    let after = (40 + lost) * 320;
    assert!(damaged[12_800..after].iter().all(|x| *x == 0));
    let alike = correlation(&whole[after..after + 4_000], &damaged[after..after + 4_000], 0);
    assert!(alike > alike_min, "after {lost}: {alike}");
}

#[test]
fn g722_heals_after_a_loss() {
    // The code itself needs a while to find its way back. A fresh start after short holes would make 0.71, 0.48 and 0.55 of the first.
    check_healing(1, 0.78);
    check_healing(3, 0.56);
    check_healing(4, 0.58);
    check_healing(6, 0.85);
    check_healing(20, 0.8);
}

#[test]
fn different_rates_stay_aligned() {
    // The same voice on both channels, once at 8 kHz and once at 16 kHz.
    let (slow, fast) = (voice(0, 8_000, 16_000), voice(0, 16_000, 32_000));
    let packets = in_order(vec![ulaw_packets(0, 0, &slow), g722_packets(1, 0, &fast)]);
    let tracks = vec![pcmu(0), track(Codec::G722, 8_000, 1)];
    let (rate, channels) = wav(&render(&job(Output::Wav, tracks, 96_000), &packets).file);
    assert_eq!(rate, 16_000);
    // G.722's filters delay it by 22 samples, sender and receiver together.
    let (lag, alike) = best_lag(&channels[0], &channels[1], 40);
    assert!((lag - 22).abs() <= 1 && alike > 0.97, "{lag} {alike}");
    assert_eq!(best_lag(&fast, &channels[0], 40).0, 0);
}

#[test]
fn a_resampled_track_with_losses_does_not_slide() {
    let samples = voice(0, 8_000, 40_000);
    let kept =
        ulaw_packets(0, 0, &samples).into_iter().enumerate().filter(|(n, _)| n % 7 != 3 && !(100..150).contains(n));
    let packets: Vec<Packet> = kept.map(|(_, packet)| packet).collect();
    // A silent wide-band track makes the output 16 kHz.
    let wide = job(Output::Wav, vec![pcmu(0), track(Codec::G722, 8_000, 1)], 5 * 48_000);
    let narrow = job(Output::Wav, vec![pcmu(0)], 5 * 48_000);
    let wide = wav(&render(&wide, &packets).file).1;
    let narrow = wav(&render(&narrow, &packets).file).1;
    let halved: Vec<i16> = wide[0].iter().step_by(2).copied().collect();
    assert_eq!(halved.len(), narrow[0].len());
    for at in (0..narrow[0].len() - 800).step_by(800) {
        let (a, b) = (&narrow[0][at..at + 800], &halved[at..at + 800]);
        if a.iter().any(|x| x.abs() > 1_000) {
            let (lag, alike) = best_lag(a, b, 8);
            assert!(lag == 0 && alike > 0.95, "{at}: {lag} {alike}");
        }
    }
    assert!(wide[0][2 * 100 * 160 + 200..2 * 150 * 160 - 200].iter().all(|x| *x == 0), "the hole is silent");
}

fn other(name: &str) -> TrackSpec {
    track(Codec::Other(name.into()), 8_000, 0)
}

#[test]
fn a_codec_without_decoder_is_said_once_and_silent() {
    let packets = in_order(vec![
        (0..5).map(|n| packet(0, n * 960, vec![0; 20])).collect(),
        (0..5).map(|n| packet(1, n * 960, vec![0x80; 160])).collect(),
    ]);
    let rendered = render(&job(Output::Wav, vec![other("G729"), pcmu(1)], 4_800), &packets);
    assert_eq!(rendered.undecodable, [(0, "G729".to_owned())]);
    let stats = rendered.stats();
    assert_eq!((stats.tracks[0].undecodable_packets, stats.tracks[0].packets, stats.tracks[1].packets), (5, 0, 5));
    let channels = wav(&rendered.file).1;
    assert_eq!(channels, [vec![0; 800], vec![32_124; 800]]);
}

fn check_failure(job: &Job, packets: &[Packet], kind: FailureKind, text: &str) {
    let (found, said) = render(job, packets).end.unwrap_err();
    assert!(found == kind && said.contains(text), "{found:?} {said}");
}

#[test]
fn jobs_that_cannot_be_done_say_why() {
    let packets = [packet(0, 0, vec![0; 20])];
    let g729 = job(Output::Wav, vec![other("G729"), other("AMR-WB")], 960);
    check_failure(
        &g729,
        &packets,
        FailureKind::Unsupported,
        "no decoder for AMR-WB here, there is no decoder for G729 here",
    );
    let listed = TrackSpec {
        codecs: vec![CodecSpec::new(Codec::Other("G729".into()), 8_000), CodecSpec::new(Codec::Pcmu, 8_000)],
        channel: 0,
    };
    check_failure(&job(Output::Wav, vec![listed], 960), &packets, FailureKind::Unsupported, "no track can be decoded");
    let ordinary = job(Output::Wav, vec![pcmu(0)], 960);
    check_failure(&Job { channels: 3, ..ordinary.clone() }, &packets, FailureKind::BadJob, "1 or 2 output channels");
    check_failure(&ordinary, &[packet(1, 0, vec![])], FailureKind::BadJob, "names a track");
    check_failure(&ordinary, &[Packet { codec: 1, ..packet(0, 0, vec![]) }], FailureKind::BadJob, "names a codec");
    check_failure(&ordinary, &[packet(0, 960, vec![]), packet(0, 0, vec![])], FailureKind::BadJob, "order of position");
}

#[test]
fn events_without_speech_are_silent_and_disturb_nothing() {
    let codecs = vec![
        CodecSpec::new(Codec::Pcmu, 8_000),
        CodecSpec::new(Codec::Other("telephone-event".into()), 8_000),
        CodecSpec::new(Codec::Other("CN".into()), 8_000),
    ];
    let packets = [
        packet(0, 0, vec![0x80; 4]),
        Packet { codec: 1, ..packet(0, 0, vec![1, 2, 3, 4]) },
        packet(0, 24, vec![0x80; 4]),
        Packet { codec: 2, ..packet(0, 48, vec![40]) },
    ];
    let rendered = render(&job(Output::Wav, vec![TrackSpec { codecs, channel: 0 }], 96), &packets);
    assert_eq!(wav(&rendered.file).1[0], [[32_124; 8], [0; 8]].concat());
    assert_eq!((rendered.stats().tracks[0].silent_packets, rendered.undecodable.len()), (2, 0));
}

#[test]
fn one_process_serves_several_jobs_and_outlives_their_failures() {
    let good = (job(Output::Wav, vec![pcmu(0)], 24), vec![packet(0, 0, vec![0x80; 4])]);
    let bad = (job(Output::Wav, vec![other("G729")], 24), vec![packet(0, 0, vec![1]); 50]);
    let broken = (job(Output::Wav, vec![pcmu(0)], 24), vec![packet(9, 0, vec![]), packet(0, 0, vec![0x80; 4])]);
    let all = converse(&[good.clone(), bad, broken, good]);
    assert_eq!(all.iter().map(|rendered| rendered.end.is_ok()).collect::<Vec<_>>(), [true, false, false, true]);
    assert_eq!(all[0].file, all[3].file);
}

fn check_conversation(messages: &[ToRender], cut: usize, expected: &str) {
    let (mut input, mut scratch) = (Vec::new(), Vec::new());
    for message in messages {
        write_frame(&mut input, message, &mut scratch).unwrap();
    }
    input.truncate(input.len() - cut);
    let error = callvault_render::serve(&mut input.as_slice(), &mut Vec::new()).unwrap_err().to_string();
    assert!(error.contains(expected), "{error}");
}

#[test]
fn an_input_that_ends_or_errs_within_a_job_is_an_error() {
    let job = ToRender::Job(job(Output::Wav, vec![pcmu(0)], 960));
    let packet = ToRender::Packet(packet(0, 0, vec![1]));
    check_conversation(std::slice::from_ref(&job), 0, "ended early");
    check_conversation(&[job.clone(), packet.clone(), ToRender::End], 1, "ended early");
    check_conversation(&[job.clone(), job], 0, "a job within a job");
    check_conversation(&[packet], 0, "without a job");
}

/// Failing seeds are kept beside this file.
fn kept(cases: u32) -> ProptestConfig {
    let beside = FileFailurePersistence::WithSource("proptest-regressions");
    ProptestConfig { cases, failure_persistence: Some(Box::new(beside)), ..ProptestConfig::default() }
}

proptest! {
    #![proptest_config(kept(40))]

    /// Against a naive model: each sample comes from the first packet that covers it.
    #[test]
    fn g711_is_sample_exact_under_holes_and_overlaps(
        packets in prop::collection::vec((0_u64..40, 0_usize..20, any::<u8>()), 0..60),
        start in 0_u64..9_000,
        length in 0_u64..9_000,
    ) {
        // Starts and ends lie on a grid that is wider than a slip.
        let mut packets: Vec<(u64, Vec<u8>)> = packets.into_iter().map(|(at, length, code)| (at * 240, vec![code; length * 20])).collect();
        packets.sort_by_key(|(at, _)| *at);
        let mut model = vec![None; 20_000];
        for (at, codes) in &packets {
            // A packet that overlaps gives what lies after everything before it.
            let covered = model.iter().rposition(Option::is_some).map_or(0, |last| last + 1);
            for (n, code) in codes.iter().enumerate() {
                let place = *at as usize + n;
                if place >= covered {
                    model[place] = Some(ulaw_value(*code));
                }
            }
        }
        let given: Vec<Packet> = packets.iter().map(|(at, codes)| packet(0, at * 6, codes.clone())).collect();
        let job = Job { channels: 1, start_ticks: start * 6, end_ticks: (start + length) * 6, ..job(Output::Wav, vec![pcmu(0)], 0) };
        let channels = wav(&render(&job, &given).file).1;
        let expected: Vec<i16> = model[start as usize..(start + length) as usize].iter().map(|x| x.unwrap_or(0)).collect();
        prop_assert!(channels[0] == expected, "samples differ");
    }

    /// Whatever a caller sends, the process ends its job in order and the file has the length that it announced.
    #[test]
    fn hostile_packets_cannot_end_the_process(
        packets in prop::collection::vec((0_u8..3, 0_u8..5, 0_u64..2_000, prop::collection::vec(any::<u8>(), 0..200)), 0..60),
        far in prop::option::of(any::<u64>()),
        output in prop_oneof![
            Just(Output::Wav),
            Just(Output::Mp3 { bit_rate_kbps: 0, quick: false }),
            Just(Output::OggOpus { bit_rate: 0, complexity: 0 }),
            Just(Output::OpusTracks { bit_rate: 0, complexity: 0 }),
        ],
        pre_skip in prop_oneof![Just(0), Just(312), any::<u16>()],
    ) {
        let own = CodecSpec { pre_skip, ..CodecSpec::new(Codec::Opus, 16_000) };
        let codecs = vec![
            CodecSpec::new(Codec::Pcmu, 8_000),
            CodecSpec::new(Codec::Opus, 48_000),
            CodecSpec::new(Codec::G722, 8_000),
            own,
            CodecSpec::new(Codec::Other("X".into()), 1),
        ];
        let tracks = (0..3).map(|n| TrackSpec { codecs: codecs.clone(), channel: n % 2 }).collect();
        let mut packets: Vec<Packet> =
            packets.into_iter().map(|(track, codec, at, payload)| Packet { track, codec, position: at * 48, payload }).collect();
        packets.sort_by_key(|packet| packet.position);
        packets.extend(far.filter(|far| *far > 96_000).map(|far| packet(0, far, vec![0x80; 160])));
        let job = Job { start_ticks: 480, ..job(output, tracks, 48_000) };
        let rendered = render(&job, &packets);
        match &rendered.end {
            Ok(stats) => prop_assert_eq!(stats.ticks, 47_520),
            Err((kind, _)) => prop_assert_eq!(*kind, FailureKind::Unsupported),
        }
        if output == Output::Wav && rendered.end.is_ok() {
            prop_assert_eq!(wav(&rendered.file).1[0].len(), 47_520);
        }
        prop_assert!(rendered.opus.is_sorted_by_key(|packet| packet.position));
        prop_assert!(rendered.opus.iter().all(|packet| packet.position < 48_000 + POST_ROLL_TICKS));
    }
}
