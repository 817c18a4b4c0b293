//! Messages and sockets survive the way between two ends; what is malformed is refused with a reason.
#![allow(clippy::unwrap_used)]

use std::net::UdpSocket;
use std::os::fd::AsFd;
use std::os::unix::net::UnixDatagram;

use callvault_control::{
    CHAIN_BYTES_MAX, CLIENT_CA_BYTES_MAX, Channel, ClosedBecause, ControlError, Decision, HandshakeFailure,
    KEY_BYTES_MAX, KeyPem, Network, SocketKind, TlsIdentity, ToDaemon, ToRecorder, TransportCounts,
};
use uuid::Uuid;

#[test]
fn sockets_arrive_with_their_meaning_and_work() {
    let (a, b) = Channel::pair().unwrap();
    let sockets: Vec<UdpSocket> = (0..250).map(|_| UdpSocket::bind("127.0.0.1:0").unwrap()).collect();
    let kinds = sockets.iter().map(|s| SocketKind::Media { port: s.local_addr().unwrap().port() }).collect();
    let fds: Vec<_> = sockets.iter().map(AsFd::as_fd).collect();
    a.send(&ToRecorder::Sockets(kinds), &fds).unwrap();

    let (message, received) = b.receive::<ToRecorder>().unwrap();
    let ToRecorder::Sockets(kinds) = message else { panic!("another message came") };
    assert_eq!(received.len(), 250);
    for (kind, fd) in kinds.iter().zip(received) {
        let socket = UdpSocket::from(fd);
        assert_eq!(*kind, SocketKind::Media { port: socket.local_addr().unwrap().port() });
    }
}

#[test]
fn each_datagram_is_one_message() {
    let (a, b) = Channel::pair().unwrap();
    let recording = Uuid::from_u128(7);
    a.send(&ToDaemon::Ended { recording }, &[]).unwrap();
    a.send(&ToDaemon::Rotated { closed_file: 3 }, &[]).unwrap();
    assert_eq!(b.receive::<ToDaemon>().unwrap().0, ToDaemon::Ended { recording });
    assert_eq!(b.receive::<ToDaemon>().unwrap().0, ToDaemon::Rotated { closed_file: 3 });
}

#[test]
fn a_closed_end_is_told_from_an_empty_one() {
    let (a, b) = Channel::pair().unwrap();
    drop(a);
    assert!(matches!(b.receive::<ToDaemon>(), Err(ControlError::Closed)));
    let gone = b.send(&ToRecorder::Verdict { recording: Uuid::nil(), decision: Decision::Keep }, &[]);
    assert!(matches!(gone, Err(ControlError::Closed)));
}

#[test]
fn another_version_and_garbage_are_refused() {
    fn check(bytes: &[u8], expected: &str) {
        let (a, b) = Channel::pair().unwrap();
        UnixDatagram::from(a.into_fd()).send(bytes).unwrap();
        let said = b.receive::<ToRecorder>().unwrap_err().to_string();
        assert!(said.contains(expected), "{said}");
    }
    check(&[9, 0], "version 9");
    check(&[1], "control message of 1 bytes");
    check(&[1, 200, 200, 200, 200, 200, 200], "control message of 7 bytes");
}

#[test]
fn networks() {
    fn check(network: &str, prefix: u8, address: &str, inside: bool) {
        let network = Network { address: network.parse().unwrap(), prefix };
        assert_eq!(network.contains(address.parse().unwrap()), inside, "{network:?} {address}");
    }
    check("10.0.0.0", 8, "10.255.1.2", true);
    check("10.0.0.0", 8, "11.0.0.1", false);
    check("192.0.2.128", 25, "192.0.2.127", false);
    check("192.0.2.128", 25, "192.0.2.255", true);
    check("0.0.0.0", 0, "203.0.113.9", true);
    check("0.0.0.0", 0, "2001:db8::1", false);
    check("2001:db8::", 32, "2001:db8:1::1", true);
    check("127.0.0.1", 32, "::ffff:127.0.0.1", true);
    check("127.0.0.1", 40, "127.0.0.1", false);
}

#[test]
fn the_largest_certificates_fit_and_the_key_is_never_shown() {
    let (a, b) = Channel::pair().unwrap();
    let identity = TlsIdentity {
        chain_pem: vec![b'c'; CHAIN_BYTES_MAX],
        key_pem: KeyPem::new(vec![b'k'; KEY_BYTES_MAX]),
        client_ca_pem: vec![b'a'; CLIENT_CA_BYTES_MAX],
        client_certificate_optional: true,
    };
    let message = ToRecorder::Certificates(Some(Box::new(identity)));
    a.send(&message, &[]).unwrap();
    let received = b.receive::<ToRecorder>().unwrap().0;
    assert!(received == message, "it came as another");
    assert!(
        format!("{:?}", KeyPem::new(b"kkk".to_vec())) == "[secret]" && !format!("{received:?}").contains("107, 107")
    );
}

#[test]
fn counters_have_their_names_in_their_order() {
    for (index, reason) in HandshakeFailure::ALL.into_iter().enumerate() {
        assert_eq!(reason as usize, index, "{}", reason.name());
    }
    for (index, reason) in ClosedBecause::ALL.into_iter().enumerate() {
        assert_eq!(reason as usize, index, "{}", reason.name());
    }
    let mut counts = TransportCounts { connections_tls: 3, handshakes: 2, ..TransportCounts::default() };
    counts.closed[ClosedBecause::Idle as usize] = 4;
    let sum = counts.sum(counts);
    assert_eq!((sum.handshakes, sum.closed[ClosedBecause::Idle as usize], sum.connections_tls), (4, 8, 0));
}
