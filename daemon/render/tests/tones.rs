//! Dialled digits are not to be heard in what is rendered for people, and nothing beside them is touched.

#![allow(clippy::unwrap_used)]

mod support;

use std::f64::consts::PI;

use callvault_render_protocol::*;
use support::*;

/// The digit 5.
const TONES_HZ: [f64; 2] = [770.0, 1_336.0];

/// Samples at 8 kHz before and after an event that are masked too.
const MARGIN: usize = 160;

fn dtmf(n: usize) -> f64 {
    TONES_HZ.iter().map(|hz| 8_000.0 * (2.0 * PI * hz * n as f64 / 8_000.0).sin()).sum()
}

/// A voice with the digit in it at `tone` (samples).
fn call(tone: std::ops::Range<usize>, count: usize) -> Vec<i16> {
    let spoken = voice(0, 8_000, count);
    let mixed = spoken.iter().enumerate().map(|(n, x)| match tone.contains(&n) {
        true => dtmf(n) as i16,
        false => *x,
    });
    mixed.collect()
}

/// The event as a telephone sends it (RFC 4733 section 2.5): every 20 ms with its duration so far, then the end three times; all of them with the
/// timestamp of its beginning.
fn event(digit: u8, at: usize, length: usize) -> Vec<Packet> {
    let block = |end: u8, units: usize| {
        let [high, low] = (units as u16).to_be_bytes();
        vec![digit, end | 10, high, low]
    };
    let mut payloads: Vec<_> = (1..length.div_ceil(160)).map(|n| block(0, n * 160)).collect();
    payloads.extend(vec![block(0x80, length); 3]);
    payloads.into_iter().map(|payload| Packet { codec: 1, ..packet(0, at as u64 * 6, payload) }).collect()
}

fn spec() -> TrackSpec {
    let codecs = vec![
        CodecSpec::new(Codec::Pcmu, 8_000),
        CodecSpec::new(Codec::Other("telephone-event".into()), 8_000),
        CodecSpec::new(Codec::Other("telephone-event".into()), 48_000),
    ];
    TrackSpec { codecs, channel: 0 }
}

fn rendered(packets: &[Packet], mask_tones: bool, count: usize) -> Vec<i16> {
    let job = Job { channels: 1, mask_tones, ..job(Output::Wav, vec![spec()], count as u64 * 6) };
    wav(&render(&job, packets).file).1.remove(0)
}

/// Energy at a frequency, as a part of what a full tone has there.
fn goertzel(samples: &[i16], hz: f64) -> f64 {
    let turn = 2.0 * PI * hz / 8_000.0;
    let (mut one, mut two) = (0.0, 0.0);
    for sample in samples {
        (one, two) = (f64::from(*sample) + 2.0 * turn.cos() * one - two, one);
    }
    let power = one * one + two * two - 2.0 * turn.cos() * one * two;
    power.max(0.0).sqrt() / (samples.len() as f64 * 4_000.0)
}

#[test]
fn a_digit_is_not_heard_and_all_else_is_exact() {
    const COUNT: usize = 16_000;
    // Wherever it lies among the blocks that are given out, of a quarter of a second each.
    let everywhere = (0..25).map(|n| (4_000 + n * 161, 333));
    for (at, length) in [(4_000, 800), (0, 1_600), (15_000, 1_000), (7_960, 80)].into_iter().chain(everywhere) {
        let tone = at..at + length;
        let audio = ulaw_packets(0, 0, &call(tone.clone(), COUNT));
        let packets = in_order(vec![audio.clone(), event(5, at, length)]);
        let (open, masked) = (rendered(&packets, false, COUNT), rendered(&packets, true, COUNT));
        assert!(TONES_HZ.iter().all(|hz| goertzel(&open[tone.clone()], *hz) > 0.3), "the tone is there: {at}");
        assert!(TONES_HZ.iter().all(|hz| goertzel(&masked[tone.clone()], *hz) == 0.0), "{at}");
        assert_eq!(open, rendered(&audio, true, COUNT), "without an event nothing is masked");
        let (from, to) = (at.saturating_sub(MARGIN), (at + length + MARGIN).min(COUNT));
        // One sample more on account of rounding.
        assert!(masked[from..to].iter().all(|x| *x == 0) && masked[..from] == open[..from], "{at}");
        assert_eq!(masked[(to + 1).min(COUNT)..], open[(to + 1).min(COUNT)..], "{at}");
    }
}

/// Whether a payload of the codec with that index masks anything at 0.5 s of a second, and up to where (samples).
fn check_event(codec: u8, payload: &[u8], to: Option<usize>) {
    let audio = ulaw_packets(0, 0, &[8_000; 8_000]);
    let told = Packet { codec, ..packet(0, 24_000, payload.to_vec()) };
    let heard = rendered(&in_order(vec![audio, vec![told]]), true, 8_000);
    let silent: Vec<usize> = (0..8_000).filter(|n| heard[*n] == 0).collect();
    assert_eq!(silent.last().map(|last| last + 1), to, "{payload:?}");
    assert_eq!(silent.first().copied(), to.map(|_| 4_000 - MARGIN), "{payload:?}");
    assert!(to.is_none_or(|to| silent.len() == to + MARGIN - 4_000), "one stretch: {payload:?}");
}

#[test]
fn events_are_what_the_rfc_says() {
    check_event(1, &[5, 0x8a, 0x03, 0x20], Some(4_961));
    check_event(1, &[15, 0, 0x03, 0x20], Some(4_961));
    check_event(1, &[11, 0, 0, 0], Some(4_161));
    // The longest there is reaches beyond the end.
    check_event(1, &[0, 0, 0xff, 0xff], Some(8_000));
    // In units of 48 kHz, 100 ms again.
    check_event(2, &[5, 0, 0x12, 0xc0], Some(4_961));
    // More in one payload: the first counts.
    check_event(1, &[5, 0, 0x03, 0x20, 6, 0, 0, 0], Some(4_961));
    // A flash and a modem are no digits; broken ones are nothing.
    check_event(1, &[16, 0, 0x03, 0x20], None);
    check_event(1, &[32, 0, 0x03, 0x20], None);
    check_event(1, &[5, 0, 0x03], None);
    check_event(1, &[], None);
}

#[test]
fn other_tracks_on_the_same_channel_are_heard_meanwhile() {
    let audio = in_order(vec![
        ulaw_packets(0, 0, &call(2_000..3_000, 8_000)),
        event(5, 2_000, 1_000),
        ulaw_packets(1, 0, &voice(1, 8_000, 8_000)),
    ]);
    let tracks = vec![spec(), track(Codec::Pcmu, 8_000, 0)];
    let both = Job { channels: 1, mask_tones: true, ..job(Output::Wav, tracks, 48_000) };
    let mixed = wav(&render(&both, &audio).file).1.remove(0);
    let other: Vec<Packet> = audio.iter().filter(|p| p.track == 1).map(|p| Packet { track: 0, ..p.clone() }).collect();
    assert_eq!(mixed[2_000..3_000], rendered(&other, true, 8_000)[2_000..3_000]);
}

#[test]
fn what_was_archived_as_opus_is_masked_when_it_is_played() {
    let audio = ulaw_packets(0, 0, &call(8_000..10_000, 24_000));
    let events = event(5, 8_000, 2_000);
    let archive =
        Job { mask_tones: true, ..job(Output::OpusTracks { bit_rate: 0, complexity: 5 }, vec![spec()], 144_000) };
    let archived = render(&archive, &in_order(vec![audio, events.clone()]));
    let own = archived.stats().tracks[0].output.clone().unwrap();
    let codecs = vec![own, spec().codecs.remove(1)];
    let packets = in_order(vec![archived.opus, events]);
    let play = |mask_tones| {
        let track = TrackSpec { codecs: codecs.clone(), channel: 0 };
        let job = Job { channels: 1, mask_tones, ..job(Output::Wav, vec![track], 144_000) };
        wav(&render(&job, &packets).file).1.remove(0)
    };
    let (open, masked) = (play(false), play(true));
    let around = 8_000 - MARGIN..10_000 + MARGIN;
    assert!(goertzel(&open[around.clone()], TONES_HZ[0]) > 0.3, "the archive has it as it was");
    assert!(masked[around].iter().all(|x| *x == 0));
    assert_eq!(masked[..8_000 - MARGIN], open[..8_000 - MARGIN]);
    assert_eq!(masked[10_000 + MARGIN + 1..], open[10_000 + MARGIN + 1..]);
}

#[test]
fn a_stretch_that_begins_within_a_digit_is_masked_to_its_end() {
    let audio = ulaw_packets(0, 0, &call(4_000..12_000, 24_000));
    let packets = in_order(vec![audio, event(5, 4_000, 8_000)]);
    let range = Job { channels: 1, mask_tones: true, start_ticks: 48_000, ..job(Output::Wav, vec![spec()], 144_000) };
    let given: Vec<Packet> =
        packets.iter().filter(|p| p.codec != 0 || p.position + PRE_ROLL_TICKS >= 48_000).cloned().collect();
    let part = wav(&render(&range, &given).file).1.remove(0);
    assert_eq!(part, rendered(&packets, true, 24_000)[8_000..]);
    assert!(part[..4_000].iter().all(|x| *x == 0) && part[4_000 + MARGIN + 1..].iter().any(|x| *x != 0));
}
