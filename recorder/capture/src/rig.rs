//! What the tests of several modules need.

use std::net::{IpAddr, Ipv4Addr, UdpSocket};
use std::path::PathBuf;
use std::sync::Arc;

use callvault_control::{CheckpointKey, Network, Start};
use callvault_seal::{Keyring, PrivateKey};
use callvault_sip::{
    DialogId, Endpoint, EndpointConfig, Event, Flow, FlowId, Limits, Now, Output, TransportKind, parse_datagram,
};
use nix::sys::socket::{setsockopt, sockopt::ReceiveTimestampns};
use uuid::Uuid;

use crate::ports::PortPair;

pub(crate) const GENERATION: Uuid = Uuid::from_u128(0x0190_0000_0000_7000_8000_0000_0000_0001);

/// Settings under which nothing ends by itself.
pub(crate) fn settings() -> Start {
    let local = IpAddr::V4(Ipv4Addr::LOCALHOST);
    Start {
        generation: GENERATION,
        journal_dir: PathBuf::from("/nonexistent"),
        checkpoint_dir: None,
        checkpoint_key: CheckpointKey::from_bytes([0; 32]),
        boot: Uuid::nil(),
        sockets_stay: false,
        recipients: Vec::new(),
        media_address: None,
        media_bound: local,
        sip_listeners: Vec::new(),
        allowed_peers: vec![Network { address: local, prefix: 8 }],
        server_name: "callvault".into(),
        session_expires_s: 1_800,
        session_expires_min_s: 90,
        sessions_max: 100,
        retry_after_s: 7,
        tracks_per_session_max: 4,
        sessions_per_peer_max: 0,
        invites_per_second: 0,
        invites_per_peer_per_second: 0,
        connections_max: 10,
        connections_per_peer_max: 10,
        connection_idle_s: 60,
        body_bytes_max: 64 * 1024,
        media_timeout_s: 0,
        paused_timeout_s: 86_400,
        receiver_reports: true,
        commit_interval_ms: 1_000,
        batch_interval_ms: 200,
        file_bytes_max: 256 << 20,
        file_age_max_s: 3_600,
        spool_free_min_bytes: 0,
    }
}

/// A key pair: what opens, and the text to seal to.
pub(crate) fn keys() -> (Keyring, String) {
    let private = PrivateKey::generate(&mut rand::rng());
    let public = private.public().to_text();
    (Keyring::new(private, Vec::new()).unwrap(), public)
}

/// Dialogs, as only the endpoint makes them.
pub(crate) fn dialogs(count: usize) -> Vec<DialogId> {
    let mut endpoint = Endpoint::new(EndpointConfig::new("x"), [1; 32]);
    let address = "127.0.0.1:5060".parse().unwrap();
    let flow = Flow { id: FlowId(0), kind: TransportKind::Udp, local: address, peer: address };
    let mut made = Vec::new();
    for call in 0..count {
        let text = format!(
            "INVITE sip:a SIP/2.0\r\nVia: SIP/2.0/UDP b;branch=z9hG4bK{call}\r\nFrom: <sip:b>;tag=1\r\nTo: <sip:a>\r\n\
             Call-ID: {call}\r\nCSeq: 1 INVITE\r\n\r\n"
        );
        let message = parse_datagram(text.as_bytes(), &Limits::default()).unwrap().unwrap();
        endpoint.receive(Now(0), &flow, message);
        while let Some(output) = endpoint.poll() {
            if let Output::Event(Event::Invite { dialog, .. }) = output {
                made.push(dialog);
            }
        }
    }
    made
}

/// A pair of media ports on loopback, with timestamps as the daemon sets them.
pub(crate) fn pair() -> PortPair {
    let bind = || {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        setsockopt(&socket, ReceiveTimestampns, &true).unwrap();
        socket
    };
    let rtp = bind();
    let port = rtp.local_addr().unwrap().port();
    PortPair { port, rtp: rtp.into(), rtcp: bind().into() }
}

/// The same, shared.
pub(crate) fn shared_pair() -> Arc<PortPair> {
    Arc::new(pair())
}
