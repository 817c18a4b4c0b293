//! The framing: what is written is read, and nothing else is believed.

#![allow(clippy::unwrap_used)]

use callvault_render_protocol::*;
use proptest::prelude::*;
use proptest::test_runner::FileFailurePersistence;

fn job() -> Job {
    let codecs = vec![
        CodecSpec::new(Codec::Pcmu, 8_000),
        CodecSpec { fmtp: Some("useinbandfec=1".into()), channels: 2, ..CodecSpec::new(Codec::Opus, 48_000) },
        CodecSpec::new(Codec::Other("G729".into()), 8_000),
    ];
    Job {
        output: Output::OggOpus { bit_rate: 24_000, complexity: 5 },
        tracks: vec![TrackSpec { codecs, channel: 0 }, TrackSpec { codecs: vec![], channel: 1 }],
        channels: 2,
        start_ticks: 7,
        end_ticks: 48_000,
        mask_tones: true,
        measured: vec![1],
        ffmpeg: Some("/usr/bin/ffmpeg".into()),
    }
}

fn to_render() -> impl Strategy<Value = ToRender> {
    let packet = (any::<u8>(), any::<u8>(), any::<u64>(), prop::collection::vec(any::<u8>(), 0..400))
        .prop_map(|(track, codec, position, payload)| ToRender::Packet(Packet { track, codec, position, payload }));
    prop_oneof![8 => packet, 1 => Just(ToRender::End), 1 => Just(ToRender::Job(job()))]
}

fn written(messages: &[ToRender]) -> Vec<u8> {
    let (mut bytes, mut scratch) = (Vec::new(), Vec::new());
    for message in messages {
        write_frame(&mut bytes, message, &mut scratch).unwrap();
    }
    bytes
}

fn read_all(mut bytes: &[u8]) -> Result<Vec<ToRender>, RenderError> {
    let (mut messages, mut scratch) = (Vec::new(), Vec::new());
    while let Some(message) = read_frame(&mut bytes, &mut scratch)? {
        messages.push(message);
    }
    Ok(messages)
}

/// Failing seeds are kept beside this file.
fn kept() -> ProptestConfig {
    let beside = FileFailurePersistence::WithSource("proptest-regressions");
    ProptestConfig { failure_persistence: Some(Box::new(beside)), ..ProptestConfig::default() }
}

proptest! {
    #![proptest_config(kept())]

    #[test]
    fn what_is_written_is_read(messages in prop::collection::vec(to_render(), 0..20), step in 1_usize..500) {
        let bytes = written(&messages);
        prop_assert_eq!(&read_all(&bytes).unwrap(), &messages);

        let (mut buffer, mut seen) = (FrameBuffer::default(), Vec::new());
        for piece in bytes.chunks(step) {
            buffer.extend(piece);
            while let Some(message) = buffer.next::<ToRender>().unwrap() {
                seen.push(message);
            }
        }
        prop_assert!(buffer.is_empty());
        prop_assert_eq!(seen, messages);
    }

    #[test]
    fn any_bytes_give_messages_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
        let whole = read_all(&bytes);
        let mut buffer = FrameBuffer::default();
        buffer.extend(&bytes);
        let mut count = 0;
        let broken = loop {
            match buffer.next::<ToRender>() {
                Ok(Some(_)) => count += 1,
                Ok(None) => break false,
                Err(_) => break true,
            }
        };
        match whole {
            Ok(messages) => prop_assert!(messages.len() == count && !broken && buffer.is_empty()),
            Err(RenderError::Truncated) => prop_assert!(!broken && !buffer.is_empty()),
            Err(_) => prop_assert!(broken),
        }
    }

    #[test]
    fn a_cut_is_noticed_except_between_frames(messages in prop::collection::vec(to_render(), 1..6), at in any::<prop::sample::Index>()) {
        let bytes = written(&messages);
        let ends: Vec<usize> = (0..=messages.len()).map(|n| written(&messages[..n]).len()).collect();
        let cut = at.index(bytes.len());
        match read_all(&bytes[..cut]) {
            Ok(read) => prop_assert_eq!(ends[read.len()], cut),
            Err(error) => prop_assert!(matches!(error, RenderError::Truncated) && !ends.contains(&cut)),
        }
    }
}

fn check_refused(bytes: &[u8], text: &str) {
    let error = read_all(bytes).unwrap_err().to_string();
    assert!(error.contains(text), "{error} should contain {text}");
}

#[test]
fn what_is_no_frame_is_refused() {
    let end = written(&[ToRender::End]);
    assert_eq!(end, [2, 0, 0, 0, PROTOCOL_VERSION, 2]);
    check_refused(&[0, 0, 0, 0], "empty frame");
    check_refused(&[255, 255, 255, 255, 1, 2], "limit");
    check_refused(&[2, 0, 0, 0, 9, 2], "version 9");
    check_refused(&[3, 0, 0, 0, PROTOCOL_VERSION, 2, 0], "bytes after");
    check_refused(&[2, 0, 0, 0, PROTOCOL_VERSION, 77], "no message");
    check_refused(&[1, 0, 0, 0, PROTOCOL_VERSION], "no message");
    check_refused(&end[..5], "ended early");
}

#[test]
fn a_message_above_the_limit_is_not_written() {
    let mut bytes = Vec::new();
    let packet = Packet { track: 0, codec: 0, position: 0, payload: vec![0; FRAME_BYTES_MAX] };
    let error = write_frame(&mut bytes, &ToRender::Packet(packet), &mut Vec::new()).unwrap_err();
    assert!(matches!(error, RenderError::TooLong(_)) && error.is_permanent() && bytes.is_empty());
}

#[test]
fn the_largest_legal_messages_fit() {
    let codec = CodecSpec { fmtp: Some("x".repeat(256)), ..CodecSpec::new(Codec::Other("y".repeat(256)), u32::MAX) };
    let tracks = vec![TrackSpec { codecs: vec![codec; CODECS_PER_TRACK_MAX], channel: 0 }; TRACKS_MAX];
    let largest = Job { tracks, end_ticks: JOB_TICKS_MAX, ..job() };
    largest.check().unwrap();
    let packet = Packet { track: 255, codec: 255, position: u64::MAX, payload: vec![255; PAYLOAD_BYTES_MAX] };
    let messages = [ToRender::Job(largest), ToRender::Packet(packet)];
    assert_eq!(read_all(&written(&messages)).unwrap(), messages);
    let data = FromRender::Data(vec![0; DATA_BYTES_MAX]);
    write_frame(&mut Vec::new(), &data, &mut Vec::new()).unwrap();
}

fn check_job(change: impl FnOnce(&mut Job), refused: Option<&str>) {
    let mut job = job();
    change(&mut job);
    match (job.check(), refused) {
        (Ok(()), None) => {}
        (Err(error), Some(text)) => assert!(error.to_string().contains(text) && error.is_permanent(), "{error}"),
        (result, _) => panic!("{result:?} for {job:?}"),
    }
}

#[test]
fn a_job_keeps_the_rules() {
    check_job(|_| {}, None);
    check_job(|job| job.end_ticks = 6, Some("before it starts"));
    check_job(|job| job.end_ticks = 7, None);
    check_job(|job| job.end_ticks = JOB_TICKS_MAX + 1, Some("beyond a week"));
    check_job(|job| job.channels = 0, Some("1 or 2 output channels"));
    check_job(|job| job.channels = 3, Some("1 or 2 output channels"));
    check_job(|job| job.channels = 1, Some("channel does not exist"));
    check_job(|job| job.tracks = vec![job.tracks[0].clone(); TRACKS_MAX + 1], Some("more than 32 tracks"));
    check_job(|job| job.tracks[1].codecs = vec![CodecSpec::new(Codec::Pcmu, 8_000); 33], Some("more than 32 codecs"));
    check_job(|job| job.tracks[0].codecs[2].codec = Codec::Other("x".repeat(257)), Some("longer than 256 bytes"));
    check_job(|job| job.output = Output::OggOpus { bit_rate: 0, complexity: 11 }, Some("complexity"));
    check_job(|job| job.output = Output::OpusTracks { bit_rate: 100, complexity: 1 }, Some("Opus bit rate"));
    check_job(|job| job.output = Output::Mp3 { bit_rate_kbps: 320, quick: false }, Some("MP3 bit rate"));
    check_job(|job| job.output = Output::Mp3 { bit_rate_kbps: 0, quick: false }, None);
}

fn check_rate(codec: Codec, clock_rate: u32, audio_rate: Option<u32>) {
    assert_eq!(CodecSpec::new(codec, clock_rate).audio_rate(), audio_rate);
}

#[test]
fn the_audio_rate_is_known() {
    check_rate(Codec::Pcmu, 8_000, Some(8_000));
    check_rate(Codec::Pcma, 16_000, Some(16_000));
    check_rate(Codec::Pcma, 11_025, None);
    check_rate(Codec::G722, 8_000, Some(16_000));
    check_rate(Codec::Opus, 48_000, Some(48_000));
    check_rate(Codec::Opus, 8_000, Some(8_000));
    check_rate(Codec::Opus, 90_000, Some(48_000));
    check_rate(Codec::Other("G729".into()), 8_000, None);
}

#[test]
fn encoding_names_are_case_insensitive() {
    for (name, codec) in [("pcmu", Codec::Pcmu), ("PCMA", Codec::Pcma), ("g722", Codec::G722), ("Opus", Codec::Opus)] {
        assert_eq!(Codec::from_encoding(name), codec);
        assert_eq!(codec.encoding().to_lowercase(), name.to_lowercase());
    }
    assert_eq!(Codec::from_encoding("G729"), Codec::Other("G729".into()));
}
