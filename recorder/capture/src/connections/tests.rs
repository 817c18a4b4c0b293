//! Connections over loopback, under tokio's clock where time matters.

use std::time::Duration;

use callvault_control::{ClosedBecause, HandshakeFailure};
use callvault_sip::{FlowId, Limits, Message, ParseError, TransportKind};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::stream::{FIRST_WITHIN, MESSAGE_WITHIN};
use super::{ConnectionLimits, Connections, Inbound, Taken, WAITING_WRITES_MAX};
use crate::rig::dialogs;

/// Far longer than anything here takes; only a failing test waits for it.
const LONG: Duration = Duration::from_secs(60);

struct Rig {
    connections: Connections,
    inbound: mpsc::Receiver<Inbound>,
    listener: TcpListener,
    /// Why the last one was closed.
    because: Option<ClosedBecause>,
}

async fn rig(all_max: usize, per_peer_max: u32, idle: Duration) -> Rig {
    let (tx, inbound) = mpsc::channel(16);
    let limits = ConnectionLimits { all_max, per_peer_max, idle };
    let messages = Limits { body_bytes_max: 1_000, ..Limits::default() };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    Rig { connections: Connections::new(limits, messages, tx), inbound, listener, because: None }
}

impl Rig {
    async fn connect(&mut self) -> TcpStream {
        self.connect_over(TransportKind::Tcp).await.0
    }

    async fn connect_over(&mut self, kind: TransportKind) -> (TcpStream, Taken) {
        let client = TcpStream::connect(self.listener.local_addr().unwrap()).await.unwrap();
        let (stream, peer) = self.listener.accept().await.unwrap();
        let taken = self.connections.accept(stream, peer, kind);
        (client, taken)
    }

    /// A connection that has carried a message.
    async fn proven(&mut self) -> TcpStream {
        let mut client = self.connect().await;
        client.write_all(&request(0)).await.unwrap();
        let flow = self.message().await;
        self.connections.heard(flow);
        client
    }

    async fn next(&mut self) -> Inbound {
        timeout(LONG, self.inbound.recv()).await.unwrap().unwrap()
    }

    /// The flow of the next message.
    async fn message(&mut self) -> FlowId {
        match self.next().await {
            Inbound::Message(flow, message) => {
                assert!(matches!(*message, Message::Request(_)));
                flow.id
            }
            _ => panic!("another thing than a message came in"),
        }
    }

    async fn closed(&mut self) -> FlowId {
        match self.next().await {
            Inbound::Closed(flow, because) => {
                self.connections.closed(flow);
                self.because = because;
                flow
            }
            _ => panic!("another thing than the end came in"),
        }
    }
}

fn request(body: usize) -> Vec<u8> {
    let head = format!(
        "OPTIONS sip:a SIP/2.0\r\nVia: SIP/2.0/TCP b;branch=z9hG4bK1\r\nFrom: <sip:b>;tag=1\r\nTo: <sip:a>\r\n\
         Call-ID: c\r\nCSeq: 1 OPTIONS\r\nContent-Type: text/plain\r\nContent-Length: {body}\r\n\r\n"
    );
    [head.as_bytes(), &vec![b'x'; body]].concat()
}

async fn read_all(client: &mut TcpStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    timeout(LONG, client.read_to_end(&mut bytes)).await.unwrap().unwrap();
    bytes
}

#[tokio::test]
async fn messages_come_in_and_answers_go_out() {
    let mut rig = rig(10, 10, LONG).await;
    let mut client = rig.connect().await;
    for part in request(5).chunks(7) {
        client.write_all(part).await.unwrap();
    }
    let flow = rig.message().await;
    assert!(rig.connections.send(flow, b"answer".to_vec()));
    let mut bytes = [0; 6];
    client.read_exact(&mut bytes).await.unwrap();
    assert_eq!(&bytes, b"answer");
    drop(client);
    assert_eq!(rig.closed().await, flow);
    assert!(!rig.connections.send(flow, Vec::new()));
    assert!(rig.connections.open.is_empty() && rig.connections.per_peer.is_empty());
}

#[tokio::test]
async fn a_ping_gets_a_pong() {
    let mut rig = rig(10, 10, LONG).await;
    let mut client = rig.connect().await;
    client.write_all(b"\r\n\r\n").await.unwrap();
    let mut bytes = [0; 2];
    client.read_exact(&mut bytes).await.unwrap();
    assert_eq!(&bytes, b"\r\n");
}

#[tokio::test]
async fn there_are_no_more_than_the_limits_say() {
    for (all_max, per_peer_max) in [(2, 10), (10, 2)] {
        let mut rig = rig(all_max, per_peer_max, LONG).await;
        let first = rig.proven().await;
        let _second = rig.proven().await;
        let (mut third, taken) = rig.connect_over(TransportKind::Tcp).await;
        assert_eq!(taken, Taken::No(ClosedBecause::Full));
        assert!(read_all(&mut third).await.is_empty());
        drop(first);
        rig.closed().await;
        rig.proven().await;
    }
}

#[tokio::test]
async fn the_oldest_that_never_carried_a_message_makes_room() {
    let first = super::FIRST_CONNECTION;
    for (all_max, per_peer_max) in [(3, 10), (10, 3)] {
        let mut rig = rig(all_max, per_peer_max, LONG).await;
        let _proven = rig.proven().await;
        let mut silent = rig.connect().await;
        let _also_silent = rig.connect().await;
        let (_, taken) = rig.connect_over(TransportKind::Tcp).await;
        assert_eq!(taken, Taken::Instead(FlowId(first + 1)));
        assert!(read_all(&mut silent).await.is_empty());
        let (_, taken) = rig.connect_over(TransportKind::Tcp).await;
        assert_eq!(taken, Taken::Instead(FlowId(first + 2)));
        assert!(rig.connections.is_open(FlowId(first)));
        assert_eq!((rig.connections.open.len(), rig.connections.unproven.len()), (3, 2));
    }
}

/// A connection on which this happens is closed after so long, for this reason.
async fn check_patience(sent: &[u8], within: Duration, because: ClosedBecause) {
    let idle = Duration::from_secs(600);
    let mut rig = rig(10, 10, idle).await;
    let mut client = rig.connect().await;
    client.write_all(sent).await.unwrap();
    // What was sent has arrived before the clock begins to jump from one timer to the next.
    tokio::time::sleep(Duration::from_millis(50)).await;
    tokio::time::pause();
    let begun = tokio::time::Instant::now();
    loop {
        match rig.inbound.recv().await.unwrap() {
            Inbound::Closed(_, closed) => {
                assert_eq!(closed, Some(because));
                break;
            }
            Inbound::Handshake(_, done) => assert_eq!(done, Err(HandshakeFailure::TimedOut)),
            _ => {}
        }
    }
    let waited = begun.elapsed();
    assert!(waited <= within && waited + Duration::from_secs(1) >= within, "{waited:?}");
    drop(client);
}

#[tokio::test]
async fn patience_has_an_end() {
    check_patience(b"", FIRST_WITHIN, ClosedBecause::Silent).await;
    tokio::time::resume();
    check_patience(b"OPTIONS sip:a SI", MESSAGE_WITHIN, ClosedBecause::Slow).await;
    tokio::time::resume();
    check_patience(&[request(0), b"OPTIONS".to_vec()].concat(), MESSAGE_WITHIN, ClosedBecause::Slow).await;
    tokio::time::resume();
    check_patience(&request(0), Duration::from_secs(600), ClosedBecause::Idle).await;
    tokio::time::resume();
    check_patience(b"\r\n\r\n", Duration::from_secs(600), ClosedBecause::Idle).await;
}

#[tokio::test]
async fn what_is_too_large_is_answered_and_then_the_connection_is_closed() {
    let mut rig = rig(10, 10, LONG).await;
    let mut client = rig.connect().await;
    // The whole of it is on its way before anybody reads an answer.
    let sending = async {
        client.write_all(&request(2_000_000)).await.unwrap();
        read_all(&mut client).await
    };
    let answering = async {
        let Inbound::Invalid(flow, raw, error) = timeout(LONG, rig.inbound.recv()).await.unwrap().unwrap() else {
            panic!("another thing came in")
        };
        assert!(raw.starts_with(b"OPTIONS") && matches!(error, ParseError::BodyBytes { .. }));
        assert!(rig.connections.send(flow.id, b"413".to_vec()));
        rig.connections.close(flow.id);
    };
    let (answer, ()) = tokio::join!(sending, answering);
    assert_eq!(answer, b"413");
    rig.closed().await;
}

#[tokio::test]
async fn an_idle_connection_is_closed_unless_a_dialog_lives_on_it() {
    let mut rig = rig(10, 10, Duration::from_millis(20)).await;
    let mut idle = rig.connect().await;
    let mut busy = rig.connect().await;
    busy.write_all(&request(0)).await.unwrap();
    // Which of the two is heard of first is open: the dialog is put on its connection from outside.
    let flow = FlowId(super::FIRST_CONNECTION + 1);
    let [dialog, other] = dialogs(2)[..] else { panic!("two were asked for") };
    rig.connections.dialog_heard(dialog, flow);
    rig.connections.dialog_heard(dialog, flow);
    rig.connections.dialog_heard(other, flow);
    rig.message().await;
    assert_eq!(rig.closed().await, FlowId(super::FIRST_CONNECTION));
    assert!(read_all(&mut idle).await.is_empty());
    // Ten times as long, and still there.
    assert!(timeout(Duration::from_millis(200), rig.inbound.recv()).await.is_err());
    rig.connections.dialog_ended(dialog);
    assert!(timeout(Duration::from_millis(200), rig.inbound.recv()).await.is_err());
    rig.connections.dialog_ended(other);
    rig.connections.dialog_ended(other);
    assert_eq!(rig.closed().await, flow);
}

#[tokio::test]
async fn a_reader_that_does_not_read_is_cut() {
    let mut rig = rig(10, 10, LONG).await;
    let mut client = rig.connect().await;
    client.write_all(&request(0)).await.unwrap();
    let flow = rig.message().await;
    // The kernel takes some, the queue takes some, then it is over.
    let mut sent = 0;
    while rig.connections.send(flow, vec![0; 1 << 20]) {
        sent += 1;
        assert!(sent < 10 * WAITING_WRITES_MAX);
        tokio::task::yield_now().await;
    }
    assert!(rig.connections.cut(flow));
    assert!(!rig.connections.cut(flow));
    assert!(rig.connections.open.is_empty() && rig.connections.per_peer.is_empty());
}
