//! What comes of packets that were lost or never sent: silence of the right length, or what the sender repeated.

#![allow(clippy::unwrap_used)]

mod support;

use callvault_render_protocol::*;
use support::*;

const COUNT: usize = 240_000;

/// Opus as a telephone on a bad line sends it.
fn repeating_packets(samples: &[i16], fec: bool) -> Vec<Packet> {
    let mut encoder = opus::Encoder::new(48_000, opus::Channels::Mono, opus::Application::Voip).unwrap();
    encoder.set_bitrate(opus::Bitrate::Bits(24_000)).unwrap();
    encoder.set_inband_fec(fec).unwrap();
    encoder.set_packet_loss_perc(20).unwrap();
    encoder.set_signal(opus::Signal::Voice).unwrap();
    encoder.set_max_bandwidth(opus::Bandwidth::Wideband).unwrap();
    let frames = (0..).zip(samples.chunks_exact(960));
    frames.map(|(n, frame)| packet(0, n * 960, encoder.encode_vec(frame, 1_500).unwrap())).collect()
}

fn played(spec: &TrackSpec, packets: &[Packet]) -> (Stats, Vec<i16>) {
    let job = Job { channels: 1, ..job(Output::Wav, vec![spec.clone()], COUNT as u64) };
    let rendered = render(&job, packets);
    (rendered.stats().clone(), wav(&rendered.file).1.remove(0))
}

fn error_to_signal(truth: &[i16], heard: &[i16]) -> f64 {
    let square = |x: f64| x * x;
    let error: f64 = truth.iter().zip(heard).map(|(a, b)| square(f64::from(*a) - f64::from(*b))).sum();
    error / truth.iter().map(|a| square(f64::from(*a))).sum::<f64>()
}

/// Drops the packets of each loss (first, how many); at least `recovered_min` of them come back, more like what was lost than silence is.
/// An encoder repeats only frames in which somebody speaks.
fn check_recovery(fec: bool, losses: &[(usize, usize)], recovered_min: usize) {
    let spec = track(Codec::Opus, 48_000, 0);
    let packets = repeating_packets(&voice(0, 48_000, COUNT), fec);
    let whole = played(&spec, &packets).1;
    let is_lost = |n: usize| losses.iter().any(|(first, count)| (*first..first + count).contains(&n));
    let kept: Vec<Packet> = packets.iter().enumerate().filter(|(n, _)| !is_lost(*n)).map(|(_, p)| p.clone()).collect();
    let (stats, heard) = played(&spec, &kept);
    assert_eq!(heard.len(), COUNT);
    // What cannot be repeated is silent.
    for (first, count) in losses {
        let silent = &heard[first * 960..(first + count - 1) * 960];
        assert!(silent.iter().all(|x| *x == 0), "{first}");
    }
    let ends = losses.iter().map(|(first, count)| (first + count - 1) * 960..(first + count) * 960);
    let errors = ends.map(|end| error_to_signal(&whole[end.clone()], &heard[end]));
    // Silence is exactly 1.
    let recovered: Vec<f64> = errors.filter(|error| *error != 1.0).collect();
    assert_eq!(stats.tracks[0].recovered_packets, recovered.len() as u64, "{losses:?}");
    assert!(recovered.len() >= recovered_min, "{recovered:?}");
    let alike = recovered.iter().filter(|error| **error < 0.5).count();
    assert!(alike * 10 >= recovered.len() * 7, "{recovered:?}");
}

#[test]
fn what_the_next_packet_repeats_is_heard() {
    check_recovery(true, &(10..240).step_by(7).map(|n| (n, 1)).collect::<Vec<_>>(), 15);
}

#[test]
fn nothing_is_made_up() {
    check_recovery(false, &(10..240).step_by(7).map(|n| (n, 1)).collect::<Vec<_>>(), 0);
    for count in 2..7 {
        let losses: Vec<(usize, usize)> = (10..220).step_by(13).map(|n| (n, count)).collect();
        let spec = track(Codec::Opus, 48_000, 0);
        let mut packets = repeating_packets(&voice(0, 48_000, COUNT), true);
        let is_lost = |n: usize| losses.iter().any(|(first, count)| (*first..first + count).contains(&n));
        packets.retain(|p| !is_lost(p.position as usize / 960));
        let (stats, heard) = played(&spec, &packets);
        assert_eq!(stats.tracks[0].recovered_packets, 0);
        let mut holes = losses.iter().map(|(first, count)| &heard[first * 960..(first + count) * 960]);
        assert!(holes.all(|hole| hole.iter().all(|x| *x == 0)), "{count}");
    }
}

#[test]
fn silence_that_a_sender_leaves_out_has_its_length() {
    // G.711 with comfort noise packets; Opus with a packet each 400 ms.
    let spec = TrackSpec {
        codecs: vec![CodecSpec::new(Codec::Pcmu, 8_000), CodecSpec::new(Codec::Other("CN".into()), 8_000)],
        channel: 0,
    };
    let mut packets = ulaw_packets(0, 0, &voice(0, 8_000, 40_000));
    let whole = played(&spec, &packets).1;
    packets.retain(|p| !(48_000..144_000).contains(&p.position));
    packets.push(Packet { codec: 1, ..packet(0, 48_000, vec![60]) });
    packets.push(Packet { codec: 1, ..packet(0, 96_000, vec![58, 3, 4]) });
    packets.sort_by_key(|p| p.position);
    let (stats, heard) = played(&spec, &packets);
    assert_eq!(stats.tracks[0].silent_packets, 2);
    assert_eq!((&heard[..8_000], &heard[24_000..]), (&whole[..8_000], &whole[24_000..]));
    assert!(heard[8_000..24_000].iter().all(|x| *x == 0));

    let spec = track(Codec::Opus, 48_000, 0);
    let packets = opus_packets(0, 0, &voice(0, 48_000, COUNT));
    let whole = played(&spec, &packets).1;
    let sparse: Vec<Packet> =
        packets.into_iter().filter(|p| !(48_000..144_000).contains(&p.position) || p.position % 19_200 == 0).collect();
    let heard = played(&spec, &sparse).1;
    assert_eq!(heard[..48_000], whole[..48_000]);
    assert!(best_lag(&whole[150_000..], &heard[150_000..], 20).0 == 0);
    assert!(correlation(&whole[150_000..], &heard[150_000..], 0) > 0.98);
}

#[test]
fn figures_of_what_is_heard_come_with_an_archive() {
    let mut loud = voice(0, 8_000, 16_000);
    loud.extend([32_767; 800]);
    loud.extend([0; 8_000]);
    let packets = in_order(vec![ulaw_packets(0, 0, &loud), ulaw_packets(1, 0, &[0; 24_800])]);
    let tracks = vec![track(Codec::Pcmu, 8_000, 0), track(Codec::Pcmu, 8_000, 0)];
    let output = Output::OpusTracks { bit_rate: 0, complexity: 0 };
    let both = render(&job(output, tracks.clone(), 148_800), &packets);
    let [voice, silence] = [0, 1].map(|n| both.stats().tracks[n].heard);
    assert_eq!((voice.audio_ms, voice.clipped_ms), (3_100, 100));
    assert!((1_000..1_700).contains(&voice.silent_ms) && voice.active_ms > 700, "{voice:?}");
    assert!(voice.level_dbfs.is_some_and(|level| (-25..=-5).contains(&level)), "{voice:?}");
    assert_eq!(silence, Heard { audio_ms: 3_100, silent_ms: 3_100, ..Heard::default() });
    // The same for a track of which no packets are wanted.
    let measured = render(&Job { measured: vec![1], ..job(output, tracks, 148_800) }, &packets);
    assert_eq!([0, 1].map(|n| measured.stats().tracks[n].heard), [voice, silence]);
    assert!(measured.opus.iter().all(|p| p.track == 0) && measured.opus.len() == 156);
    assert_eq!(measured.stats().tracks[1].output, None);
}

#[test]
fn uncompressed_samples_come_out_exactly() {
    let samples = voice(1, 16_000, 3_200);
    let bytes: Vec<u8> = samples.iter().flat_map(|x| x.to_be_bytes()).collect();
    let packets: Vec<Packet> = (0..).zip(bytes.chunks(640)).map(|(n, b)| packet(0, n * 960, b.to_vec())).collect();
    let job = Job { channels: 1, ..job(Output::Wav, vec![track(Codec::L16, 16_000, 0)], 9_600) };
    assert_eq!(wav(&render(&job, &packets).file), (16_000, vec![samples]));
}
