//! Packets, reports and scripts made of them; messages of control and render.

use std::net::IpAddr;

use callvault_control::{
    CallAction, CallStanding, CallState, CheckpointKey, Decision, Heartbeat, LiveCall, Network, SocketKind, Start,
    ToDaemon, ToRecorder, encode,
};
use callvault_fuzz_targets::mutation::Mutator;
use callvault_render_protocol::{
    Codec, CodecSpec, FailureKind, FromRender, Job, Output, Packet, Stats, ToRender, TrackSpec, TrackStats, write_frame,
};
use serde::Serialize;
use uuid::Uuid;

use crate::{Seeds, add};

pub(crate) fn add_all(seeds: &mut Seeds) {
    scripts(seeds);
    reports(seeds);
    control(seeds);
    render(seeds);
}

/// Bytes that look like chance and are not.
fn noise(seed: u64, bytes: usize) -> Vec<u8> {
    let mut mutator = Mutator::new(seed);
    let mut out = Vec::new();
    while out.len() < bytes {
        out.extend(mutator.mutate(&[]));
    }
    out.truncate(bytes);
    out
}

fn scripts(seeds: &mut Seeds) {
    // Port, step, source, advance, milliseconds, first byte, payload type, marker, cycle, length.
    let packet = |port: u8, source: u8, advance: u8| [port, 0, source, advance, 20, 0, 0, 0, 0, 4, 1, 2, 3, 4];
    let one: Vec<u8> = (0..30).flat_map(|_| packet(0, 0, 0)).collect();
    let two: Vec<u8> = (0..40).flat_map(|n| packet(0, n / 20, 0)).collect();
    let both: Vec<u8> = (0..40).flat_map(|n| packet(n & 1, n & 1, 0)).collect();
    let bad: Vec<u8> = (0..40).flat_map(|n| packet(0, 0, 196 + n)).collect();
    let moved: Vec<u8> = (0..20).flat_map(|n| [&packet(n / 10, 0, 0)[..], &[0, 10]].concat()).collect();
    let paused: Vec<u8> = (0..20).flat_map(|n| [&packet(0, 0, 0)[..], &[0, 11, n]].concat()).collect();
    let resumed: Vec<u8> =
        (0..20).flat_map(|n| [&packet(0, n / 10, 0)[..], &[0, 11, 4, 1, n.wrapping_mul(7), 0, n]].concat()).collect();
    add(seeds, "rtp", "resumed", resumed);
    let scripts = [("one-source", one), ("two-sources", two), ("both-at-once", both), ("bad-path", bad)];
    for (name, script) in scripts.into_iter().chain([("moved", moved), ("paused", paused)]) {
        add(seeds, "rtp", name, script);
    }
    for n in 0..4 {
        add(seeds, "rtp", &format!("noise-{n}"), noise(n, 500));
        add(seeds, "timeline", &format!("noise-{n}"), noise(n + 10, 800));
    }
    let steady: Vec<u8> = (0..60).flat_map(|n| [n & 1, 0, 0]).collect();
    let moving: Vec<u8> = (0..60).flat_map(|n: u8| [(n & 3) | (n % 5) << 2, n, n, 0, 0]).collect();
    add(seeds, "timeline", "steady", steady);
    add(seeds, "timeline", "moving", moving);
    for suite in 0..5 {
        let mut script = vec![suite, suite % 3];
        for n in 0..12 {
            // A genuine packet of alternating kinds, one again, one changed, one foreign; now and then a later offer.
            script.extend([0, n & 3, 6, n, 1, 2, 3, 4, 5, 6, 3, n, 4, n, 1, n, 0, 2, 9, 5, 16, 0x80, 0, 0, n]);
            script.extend([0; 12]);
            script.extend(if n % 4 == 3 { [6, n / 4] } else { [7, 8] });
        }
        add(seeds, "srtp", &format!("suite-{suite}"), script);
        add(seeds, "srtp", &format!("noise-{suite}"), noise(u64::from(suite) + 20, 400));
    }
}

fn reports(seeds: &mut Seeds) {
    let sr: &[u8] =
        &[0x80, 200, 0, 6, 0, 0, 0, 7, 0xea, 1, 2, 3, 0x80, 0, 0, 0, 0, 0, 0x10, 0, 0, 0, 0, 50, 0, 0, 0x1f, 0x40];
    let rr: &[u8] = &[0x80, 201, 0, 1, 0, 0, 0, 9];
    let sdes: &[u8] = b"\x82\xca\0\x05\0\0\0\x07\x02\x01N\0\0\0\0\x09\x01\x05a@b.c\0";
    let bye: &[u8] = &[0x81, 203, 0, 1, 0, 0, 0, 7];
    let blocks: [(&str, &[&[u8]]); 6] = [
        ("sender", &[sr, sdes]),
        ("receiver", &[rr, sdes]),
        ("bye", &[rr, sdes, bye]),
        ("all", &[sr, rr, sdes, bye]),
        ("cut", &[sr, &sdes[..9]]),
        ("application", &[rr, &[0x80, 204, 0, 2, 0, 0, 0, 9, b'n', b'a', b'm', b'e']]),
    ];
    for (name, blocks) in blocks {
        add(seeds, "rtcp", name, blocks.concat());
    }
}

fn control(seeds: &mut Seeds) {
    let recording = Uuid::from_u128(7);
    let start = Start {
        generation: recording,
        journal_dir: "/var/lib/callvault/journal".into(),
        checkpoint_dir: Some("/run/callvault/checkpoints".into()),
        checkpoint_key: CheckpointKey::from_bytes([0; 32]),
        boot: recording,
        sockets_stay: true,
        recipients: vec!["public".to_owned()],
        media_address: Some(IpAddr::from([192, 0, 2, 1])),
        media_bound: IpAddr::from([0; 16]),
        sip_listeners: vec![([192, 0, 2, 1], 5060).into()],
        allowed_peers: vec![Network { address: IpAddr::from([10, 0, 0, 0]), prefix: 8 }],
        server_name: "callvault".to_owned(),
        session_expires_s: 1_800,
        session_expires_min_s: 90,
        sessions_max: 400,
        retry_after_s: 5,
        tracks_per_session_max: 8,
        sessions_per_peer_max: 0,
        invites_per_second: 300,
        invites_per_peer_per_second: 200,
        connections_max: 500,
        connections_per_peer_max: 50,
        connection_idle_s: 60,
        body_bytes_max: 65_536,
        media_timeout_s: 60,
        paused_timeout_s: 3_600,
        receiver_reports: true,
        commit_interval_ms: 1_000,
        batch_interval_ms: 200,
        file_bytes_max: 1 << 28,
        file_age_max_s: 600,
        spool_free_min_bytes: 1 << 30,
    };
    let standing = CallStanding {
        recording,
        state: CallState::Recording,
        kept: Some(true),
        paused_by_client: false,
        paused_by_control: false,
    };
    let call = LiveCall {
        standing,
        started_unix_ms: 1,
        duration_ms: 2,
        local_number: Some("+15551230100".to_owned()),
        remote_number: None,
        remote_name: None,
        direction: "incoming".to_owned(),
        tracks: 2,
        packets: 3,
    };
    let discard = Decision::Discard { rule: "internal".to_owned() };
    let mut put = |name: &str, message: &[u8]| add(seeds, "control", name, message.to_vec());
    let sockets = vec![SocketKind::SipUdp, SocketKind::SipTcp, SocketKind::Media { port: 20_000 }];
    put("sockets", &encode(&ToRecorder::Sockets(sockets)).unwrap());
    put("start", &encode(&ToRecorder::Start(Box::new(start))).unwrap());
    put("verdict", &encode(&ToRecorder::Verdict { recording, decision: discard }).unwrap());
    put("control", &encode(&ToRecorder::Control { request: 2, recording, action: CallAction::Keep }).unwrap());
    put("stop", &encode(&ToRecorder::Stop { end_calls: true }).unwrap());
    put("ready", &encode(&ToDaemon::Ready { generation: recording, port_pairs: 9 }).unwrap());
    put(
        "heartbeat",
        &encode(&ToDaemon::Heartbeat(Box::new(Heartbeat { packets: 1 << 40, ..Heartbeat::default() }))).unwrap(),
    );
    put("decide", &encode(&ToDaemon::Decide { recording, facts: Box::default() }).unwrap());
    put("calls", &encode(&ToDaemon::Calls { request: 1, last: true, calls: vec![call] }).unwrap());
    put("alarm", &encode(&ToDaemon::Alarm { code: "c".to_owned(), text: "t".to_owned() }).unwrap());
}

fn frames<M: Serialize>(messages: &[M]) -> Vec<u8> {
    let (mut bytes, mut scratch) = (Vec::new(), Vec::new());
    for message in messages {
        write_frame(&mut bytes, message, &mut scratch).unwrap();
    }
    bytes
}

fn render(seeds: &mut Seeds) {
    let codec = CodecSpec { fmtp: Some("useinbandfec=1".to_owned()), ..CodecSpec::new(Codec::Opus, 48_000) };
    let track = TrackSpec { codecs: vec![CodecSpec::new(Codec::Pcmu, 8_000), codec.clone()], channel: 0 };
    let job = Job {
        output: Output::Wav,
        tracks: vec![track],
        channels: 1,
        start_ticks: 0,
        end_ticks: 48_000,
        mask_tones: true,
        measured: Vec::new(),
        ffmpeg: None,
    };
    let packet = Packet { track: 0, codec: 1, position: 960, payload: vec![0xf8; 9] };
    add(seeds, "render", "job", frames(&[ToRender::Job(job), ToRender::Packet(packet), ToRender::End]));
    let stats = TrackStats { output: Some(codec), packets: 3, ..TrackStats::default() };
    let done = FromRender::Done(Stats { ticks: 48_000, sample_rate: 48_000, tracks: vec![stats] });
    let opus = FromRender::OpusPacket { track: 0, position: 960, payload: vec![0xf8; 9] };
    add(seeds, "render", "done", frames(&[FromRender::Data(vec![1, 2, 3]), opus, done]));
    let undecodable = FromRender::Undecodable { track: 0, encoding: "G729".to_owned(), text: "no decoder".to_owned() };
    let failed = FromRender::Failed { kind: FailureKind::Encoder, text: "no memory".to_owned() };
    add(seeds, "render", "failed", frames(&[undecodable, failed]));
}
