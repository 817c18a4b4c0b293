//! Handshakes over loopback, in both directions, with certificates that are right and wrong in every way.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use callvault_control::{HandshakeFailure, KeyPem, TlsIdentity};
use callvault_sip::{
    Accept, ConnectId, Endpoint, EndpointConfig, Event, Flow, FlowId, Limits, Now, Output, TransportKind,
    parse_datagram,
};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, date_time_ymd};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::{Tls, VERSIONS};
use crate::connections::{ConnectionLimits, Connections, Inbound, Taken};

/// Far longer than anything here takes; only a failing test waits for it.
const LONG: Duration = Duration::from_secs(60);

/// An authority.
struct Authority(CertifiedIssuer<'static, KeyPair>);

/// A certificate and its key, in PEM.
#[derive(Clone)]
struct Pair {
    chain: String,
    key: String,
}

impl Authority {
    fn new() -> Self {
        static LAST: AtomicU32 = AtomicU32::new(0);
        Self::named(&format!("authority {}", LAST.fetch_add(1, Ordering::Relaxed)))
    }

    fn named(name: &str) -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    fn pem(&self) -> String {
        self.0.pem()
    }

    /// A certificate that is valid until the end of this year.
    fn sign(&self, until: i32) -> Pair {
        let mut params = CertificateParams::new(vec!["recorder.example".into()]).unwrap();
        params.not_before = date_time_ymd(2020, 1, 1);
        params.not_after = date_time_ymd(until, 12, 31);
        let key = KeyPair::generate().unwrap();
        Pair { chain: params.signed_by(&key, &self.0).unwrap().pem(), key: key.serialize_pem() }
    }
}

const GOOD: i32 = 4_000;
const EXPIRED: i32 = 2_021;

fn identity(pair: &Pair, client_ca: Option<&Authority>, optional: bool) -> TlsIdentity {
    TlsIdentity {
        chain_pem: pair.chain.clone().into(),
        key_pem: KeyPem::new(pair.key.clone().into()),
        client_ca_pem: client_ca.map(Authority::pem).unwrap_or_default().into(),
        client_certificate_optional: optional,
    }
}

/// A client that trusts this authority and shows this certificate.
fn client(
    trusted: &Authority,
    shown: Option<&Pair>,
    version: &'static rustls::SupportedProtocolVersion,
) -> TlsConnector {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(trusted.pem().as_bytes()).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_protocol_versions(&[version]).unwrap();
    let builder = builder.with_root_certificates(roots);
    let config = match shown {
        None => builder.with_no_client_auth(),
        Some(pair) => {
            let chain = vec![CertificateDer::from_pem_slice(pair.chain.as_bytes()).unwrap()];
            builder.with_client_auth_cert(chain, PrivateKeyDer::from_pem_slice(pair.key.as_bytes()).unwrap()).unwrap()
        }
    };
    TlsConnector::from(Arc::new(config))
}

struct Rig {
    connections: Connections,
    inbound: mpsc::Receiver<Inbound>,
    listener: TcpListener,
}

async fn rig(identity: Option<&TlsIdentity>) -> Rig {
    let (tx, inbound) = mpsc::channel(16);
    let limits = ConnectionLimits { all_max: 10, per_peer_max: 10, idle: LONG };
    let mut connections = Connections::new(limits, Limits::default(), tx);
    connections.secure_with(identity.map(|identity| Tls::new(identity).unwrap()));
    Rig { connections, inbound, listener: TcpListener::bind("127.0.0.1:0").await.unwrap() }
}

impl Rig {
    fn address(&self) -> SocketAddr {
        self.listener.local_addr().unwrap()
    }

    async fn accept(&mut self) -> Taken {
        let (stream, peer) = timeout(LONG, self.listener.accept()).await.unwrap().unwrap();
        self.connections.accept(stream, peer, TransportKind::Tls)
    }

    /// How the next handshake ends.
    async fn handshake(&mut self) -> Result<(), HandshakeFailure> {
        match timeout(LONG, self.inbound.recv()).await.unwrap().unwrap() {
            Inbound::Handshake(flow, done) => {
                assert_eq!(flow.kind, TransportKind::Tls);
                done
            }
            _ => panic!("another thing than a handshake came in"),
        }
    }
}

/// A message that the client sends arrives, and its answer, over the right TLS; otherwise the reason is this.
async fn check(ours: &TlsIdentity, client: TlsConnector, expected: Result<(), HandshakeFailure>) {
    let mut rig = rig(Some(ours)).await;
    let address = rig.address();
    let talk = tokio::spawn(async move {
        let stream = TcpStream::connect(address).await.unwrap();
        let name = ServerName::try_from("recorder.example").unwrap();
        let mut stream = client.connect(name, stream).await?;
        stream
            .write_all(b"OPTIONS sip:a SIP/2.0\r\nVia: SIP/2.0/TLS b;branch=z9hG4bK1\r\nContent-Length: 0\r\n\r\n")
            .await?;
        stream.flush().await?;
        let mut bytes = [0; 6];
        stream.read_exact(&mut bytes).await?;
        Ok::<_, std::io::Error>(bytes)
    });
    assert_eq!(rig.accept().await, Taken::Yes);
    assert_eq!(rig.handshake().await, expected);
    match timeout(LONG, rig.inbound.recv()).await.unwrap().unwrap() {
        Inbound::Message(flow, _) if expected.is_ok() => {
            assert!(rig.connections.send(flow.id, b"answer".to_vec()));
            assert_eq!(&talk.await.unwrap().unwrap(), b"answer");
        }
        Inbound::Closed(flow, None) if expected.is_err() => {
            rig.connections.closed(flow);
            assert!(talk.await.unwrap().is_err());
            assert_eq!(rig.connections.count(TransportKind::Tls), 0);
        }
        _ => panic!("another thing came in"),
    }
}

#[tokio::test]
async fn handshakes() {
    let (ours, theirs, others) = (Authority::new(), Authority::named("theirs"), Authority::new());
    let namesake = Authority::named("theirs");
    let server = ours.sign(GOOD);
    let plain = identity(&server, None, false);
    let mutual = identity(&server, Some(&theirs), false);
    let optional = identity(&server, Some(&theirs), true);
    let [v13, v12] = VERSIONS;
    for version in [v12, v13] {
        check(&plain, client(&ours, None, version), Ok(())).await;
        check(&plain, client(&others, None, version), Err(HandshakeFailure::RefusedByPeer)).await;
        check(&mutual, client(&ours, Some(&theirs.sign(GOOD)), version), Ok(())).await;
        check(&mutual, client(&ours, None, version), Err(HandshakeFailure::NoClientCertificate)).await;
        check(&mutual, client(&ours, Some(&others.sign(GOOD)), version), Err(HandshakeFailure::UnknownAuthority)).await;
        let impostor = client(&ours, Some(&namesake.sign(GOOD)), version);
        check(&mutual, impostor, Err(HandshakeFailure::UnknownAuthority)).await;
        check(&mutual, client(&ours, Some(&theirs.sign(EXPIRED)), version), Err(HandshakeFailure::Expired)).await;
        check(&optional, client(&ours, None, version), Ok(())).await;
        check(&optional, client(&ours, Some(&others.sign(GOOD)), version), Err(HandshakeFailure::UnknownAuthority))
            .await;
        let expired = identity(&ours.sign(EXPIRED), None, false);
        check(&expired, client(&ours, None, version), Err(HandshakeFailure::RefusedByPeer)).await;
    }
}

/// What the other end makes of bytes that are no TLS.
async fn check_bytes(bytes: &'static [u8], then_close: bool, expected: HandshakeFailure) {
    let mut rig = rig(Some(&identity(&Authority::new().sign(GOOD), None, false))).await;
    let mut client = TcpStream::connect(rig.address()).await.unwrap();
    client.write_all(bytes).await.unwrap();
    if then_close {
        client.shutdown().await.unwrap();
    }
    assert_eq!(rig.accept().await, Taken::Yes);
    if !then_close && expected == HandshakeFailure::TimedOut {
        tokio::time::sleep(Duration::from_millis(50)).await;
        tokio::time::pause();
    }
    assert_eq!(rig.handshake().await, Err(expected));
}

#[tokio::test]
async fn what_is_no_handshake() {
    check_bytes(b"OPTIONS sip:a SIP/2.0\r\n\r\n", false, HandshakeFailure::Plaintext).await;
    check_bytes(b"\r\n\r\n\r\n\r\n", false, HandshakeFailure::Plaintext).await;
    check_bytes(b"", true, HandshakeFailure::Closed).await;
    check_bytes(b"\x16\x03\x01\x02\x00", true, HandshakeFailure::Closed).await;
    check_bytes(b"\x16\x03\x01\x02\x00", false, HandshakeFailure::TimedOut).await;
    tokio::time::resume();
    check_bytes(b"", false, HandshakeFailure::TimedOut).await;
}

#[tokio::test]
async fn without_a_certificate_nobody_is_taken() {
    let mut rig = rig(None).await;
    let _client = TcpStream::connect(rig.address()).await.unwrap();
    assert_eq!(rig.accept().await, Taken::NoCertificate);
}

#[tokio::test]
async fn a_new_certificate_is_for_new_connections() {
    let ours = Authority::new();
    let [v13, _] = VERSIONS;
    let mut rig = rig(Some(&identity(&ours.sign(GOOD), None, false))).await;
    let mut seen = Vec::new();
    let mut open = Vec::new();
    for round in 0..2 {
        if round == 1 {
            rig.connections.secure_with(Some(Tls::new(&identity(&ours.sign(GOOD), None, false)).unwrap()));
        }
        let (address, connector) = (rig.address(), client(&ours, None, v13));
        let talk = tokio::spawn(async move {
            let stream = TcpStream::connect(address).await.unwrap();
            connector.connect(ServerName::try_from("recorder.example").unwrap(), stream).await.unwrap()
        });
        assert_eq!(rig.accept().await, Taken::Yes);
        assert_eq!(rig.handshake().await, Ok(()));
        let stream = talk.await.unwrap();
        seen.push(stream.get_ref().1.peer_certificates().unwrap()[0].to_vec());
        open.push(stream);
    }
    assert_ne!(seen[0], seen[1]);
    // The first connection goes on.
    open[0].write_all(b"\r\n\r\n").await.unwrap();
    let mut pong = [0; 2];
    open[0].read_exact(&mut pong).await.unwrap();
    assert_eq!(&pong, b"\r\n");
}

/// What the endpoint asks a connection with, when the client's is gone and there is a BYE to say.
fn asked(peer: SocketAddr, kind: TransportKind) -> (ConnectId, TransportKind, SocketAddr, SocketAddr) {
    let mut endpoint = Endpoint::new(EndpointConfig::new("x"), [1; 32]);
    let (transport, local) = (kind.via_name(), "127.0.0.1:5061".parse().unwrap());
    let flow = Flow { id: FlowId(1 << 32), kind, local, peer: SocketAddr::new(peer.ip(), 40_000) };
    let request = |method: &str, to: &str| {
        let text = format!(
            "{method} sip:a SIP/2.0\r\nVia: SIP/2.0/{transport} {peer};branch=z9hG4bK{method}\r\nFrom: <sip:b>;tag=1\r\nTo: <sip:a>{to}\r\n\
             Contact: <sip:{peer};transport={}>\r\nCall-ID: c\r\nCSeq: 1 {method}\r\n\r\n",
            kind.param_name()
        );
        parse_datagram(text.as_bytes(), &Limits::default()).unwrap().unwrap()
    };
    endpoint.receive(Now(0), &flow, request("INVITE", ""));
    let mut made = None;
    while let Some(output) = endpoint.poll() {
        if let Output::Event(Event::Invite { tx, dialog, .. }) = output {
            endpoint.accept(Now(0), tx, Accept::default());
            made = Some(dialog);
        }
        if let Output::Send { bytes, .. } = output {
            let text = String::from_utf8(bytes).unwrap();
            if let Some((_, tag)) = text.split_once("To: <sip:a>") {
                let to = tag.lines().next().unwrap();
                endpoint.receive(Now(0), &flow, request("ACK", to));
            }
        }
    }
    endpoint.flow_closed(Now(1), flow.id);
    endpoint.bye(Now(1), made.unwrap(), None);
    while let Some(output) = endpoint.poll() {
        if let Output::Connect { request, kind, local, peer } = output {
            return (request, kind, local, peer);
        }
    }
    panic!("the endpoint asks for no connection");
}

/// A connection of our own to a peer with this certificate, which wants one of ours or not.
async fn check_own(ours: &TlsIdentity, theirs: &TlsIdentity, expected: Result<(), Option<HandshakeFailure>>) {
    let mut rig = rig(Some(ours)).await;
    let peer = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let acceptor = TlsAcceptor::from(Tls::new(theirs).unwrap().server);
    let (request, kind, local, to) = asked(peer.local_addr().unwrap(), TransportKind::Tls);
    assert_eq!(to, peer.local_addr().unwrap());
    assert_eq!(rig.connections.connect(request, kind, local, to), Taken::Yes);
    assert!(rig.connections.is_connecting());
    let taking = tokio::spawn(async move {
        let (stream, from) = peer.accept().await.unwrap();
        assert_eq!(from.ip(), local.ip());
        let mut stream = acceptor.accept(stream).await?;
        let mut bytes = [0; 3];
        stream.read_exact(&mut bytes).await?;
        Ok::<_, std::io::Error>(bytes)
    });
    match expected {
        Ok(()) => {
            assert_eq!(rig.handshake().await, Ok(()));
            let Inbound::Connected(told, flow) = timeout(LONG, rig.inbound.recv()).await.unwrap().unwrap() else {
                panic!("another thing came in")
            };
            assert_eq!((told, flow.kind, flow.local, flow.peer), (request, TransportKind::Tls, local, to));
            rig.connections.connected(flow.id);
            assert!(!rig.connections.is_connecting());
            assert!(rig.connections.send(flow.id, b"BYE".to_vec()));
            assert_eq!(&taking.await.unwrap().unwrap(), b"BYE");
        }
        Err(failure) => {
            if let Some(failure) = failure {
                assert_eq!(rig.handshake().await, Err(failure));
            }
            let Inbound::ConnectFailed(told, flow) = timeout(LONG, rig.inbound.recv()).await.unwrap().unwrap() else {
                panic!("another thing came in")
            };
            assert_eq!(told, request);
            rig.connections.closed(flow);
            assert!(!rig.connections.is_connecting());
            assert!(taking.await.unwrap().is_err());
        }
    }
}

#[tokio::test]
async fn connections_of_our_own() {
    let (ours, theirs, others) = (Authority::new(), Authority::new(), Authority::new());
    let server = ours.sign(GOOD);
    // Whom the certificate names is not looked at, who signed it is.
    let mutual = identity(&server, Some(&theirs), false);
    check_own(&mutual, &identity(&theirs.sign(GOOD), Some(&ours), false), Ok(())).await;
    let unknown = Err(Some(HandshakeFailure::UnknownAuthority));
    check_own(&mutual, &identity(&others.sign(GOOD), None, false), unknown).await;
    let expired = Err(Some(HandshakeFailure::Expired));
    check_own(&mutual, &identity(&theirs.sign(EXPIRED), None, false), expired).await;
    // Without authorities any will do.
    let plain = identity(&server, None, false);
    check_own(&plain, &identity(&others.sign(EXPIRED), None, false), Ok(())).await;
}

#[tokio::test]
async fn nobody_is_there() {
    let mut rig = rig(None).await;
    let closed = {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.local_addr().unwrap()
    };
    let (request, kind, local, to) = asked(closed, TransportKind::Tcp);
    assert_eq!(rig.connections.connect(request, kind, local, to), Taken::Yes);
    assert!(
        matches!(timeout(LONG, rig.inbound.recv()).await.unwrap(), Some(Inbound::ConnectFailed(told, _)) if told == request)
    );
    let (request, _, local, to) = asked(closed, TransportKind::Tls);
    assert_eq!(rig.connections.connect(request, TransportKind::Tls, local, to), Taken::NoCertificate);
}

#[test]
fn what_is_no_certificate_is_an_error_and_no_secret_is_in_it() {
    let good = identity(&Authority::new().sign(GOOD), None, false);
    fn check(identity: &TlsIdentity, said: &str) {
        let error = Tls::new(identity).err().unwrap().to_string();
        assert!(error.contains(said), "{error}");
    }
    check(&TlsIdentity { chain_pem: b"-----BEGIN CERTIFICATE-----\n!".to_vec(), ..good.clone() }, "the chain");
    check(&TlsIdentity { chain_pem: Vec::new(), ..good.clone() }, "the TLS certificates");
    check(&TlsIdentity { key_pem: KeyPem::new(b"secret".to_vec()), ..good.clone() }, "the key is no PEM");
    let other = Authority::new().sign(GOOD);
    check(&TlsIdentity { key_pem: KeyPem::new(other.key.into()), ..good.clone() }, "the TLS certificates");
    assert!(!format!("{good:?}").contains("PRIVATE KEY"));
}
