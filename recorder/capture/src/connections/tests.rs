//! Connections over loopback, under tokio's clock where time matters.

use std::time::Duration;

use callvault_sip::{FlowId, Limits, Message, ParseError};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::{ConnectionLimits, Connections, Inbound, WAITING_WRITES_MAX};

/// Far longer than anything here takes; only a failing test waits for it.
const LONG: Duration = Duration::from_secs(60);

struct Rig {
    connections: Connections,
    inbound: mpsc::Receiver<Inbound>,
    listener: TcpListener,
}

async fn rig(all_max: usize, per_peer_max: u32, idle: Duration) -> Rig {
    let (tx, inbound) = mpsc::channel(16);
    let limits = ConnectionLimits { all_max, per_peer_max, idle };
    let messages = Limits { body_bytes_max: 1_000, ..Limits::default() };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    Rig { connections: Connections::new(limits, messages, tx), inbound, listener }
}

impl Rig {
    async fn connect(&mut self) -> TcpStream {
        let client = TcpStream::connect(self.listener.local_addr().unwrap()).await.unwrap();
        let (stream, peer) = self.listener.accept().await.unwrap();
        self.connections.accept(stream, peer);
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
            Inbound::Closed(flow) => {
                self.connections.closed(flow);
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
        let first = rig.connect().await;
        let _second = rig.connect().await;
        let mut third = rig.connect().await;
        assert!(read_all(&mut third).await.is_empty());
        drop(first);
        rig.closed().await;
        let mut fourth = rig.connect().await;
        fourth.write_all(&request(0)).await.unwrap();
        rig.message().await;
    }
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
    let (dialog, other) = dialogs();
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

/// Two dialogs, as only the endpoint makes them.
fn dialogs() -> (callvault_sip::DialogId, callvault_sip::DialogId) {
    use callvault_sip::{Endpoint, EndpointConfig, Event, Flow, Now, Output, TransportKind, parse_datagram};
    let mut endpoint = Endpoint::new(EndpointConfig::new("x"), [1; 32]);
    let address = "127.0.0.1:5060".parse().unwrap();
    let flow = Flow { id: FlowId(0), kind: TransportKind::Udp, local: address, peer: address };
    let mut made = Vec::new();
    for call in ["a", "b"] {
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
    (made[0], made[1])
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
