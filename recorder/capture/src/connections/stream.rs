//! One connection: made or taken over, secured where it must be, read from and written to until it ends.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use callvault_control::{ClosedBecause, HandshakeFailure};
use callvault_sip::{ConnectId, Flow, StreamItem, StreamParser};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ServerConfig};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::{Inbound, ToConnection, tune};
use crate::tls::failure;

/// How long a TLS handshake may take.
pub(super) const HANDSHAKE_WITHIN: Duration = Duration::from_secs(10);

/// How long making a connection may take, the handshake included.
pub(super) const CONNECT_WITHIN: Duration = Duration::from_secs(10);

/// How long a connection may be open before anything comes on it.
pub(super) const FIRST_WITHIN: Duration = Duration::from_secs(30);

/// How long a message may take from its first byte to its last: as long as RFC 3261 tries to get an answer (64 × T1).
pub(super) const MESSAGE_WITHIN: Duration = Duration::from_secs(32);

/// How long one write may take.
const WRITE_WITHIN: Duration = Duration::from_secs(10);

/// How long the endpoint has to answer what could not be read before the connection is closed all the same.
const LAST_ANSWER_WITHIN: Duration = Duration::from_secs(1);

/// How long, and how much, is still read after the last answer: closing while the client sends would reset the connection, and
/// the answer would be lost with it.
const LINGER_WITHIN: Duration = Duration::from_secs(2);
const LINGER_BYTES_MAX: usize = 16 << 20;

/// Bytes read at once.
const READ_BYTES: usize = 16 * 1024;

/// A connection, in the clear or not.
pub(super) trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Stream for S {}

/// Whether a connection is secured, and how.
pub(super) enum Secured {
    Not,
    AsServer(Arc<ServerConfig>),
    AsClient(Arc<ClientConfig>),
}

/// What the task of a connection holds.
pub(super) struct Connection {
    pub(super) flow: Flow,
    pub(super) idle: Duration,
    pub(super) dialogs: Arc<AtomicUsize>,
    pub(super) inbound: mpsc::Sender<Inbound>,
    pub(super) parser: StreamParser,
}

/// Whether to go on after what was read.
enum Read {
    GoOn {
        /// Whether a whole message or keep-alive was among it.
        whole: bool,
    },
    /// The framing is lost.
    Fault,
    End,
}

impl Connection {
    /// The life of a connection that a peer has opened.
    pub(super) async fn accepted(self, stream: TcpStream, secured: Secured, asked: mpsc::Receiver<ToConnection>) {
        let Secured::AsServer(config) = secured else { return self.serve(stream, asked).await };
        let done = match timeout(HANDSHAKE_WITHIN, TlsAcceptor::from(config).accept(stream)).await {
            Err(_) => Err(HandshakeFailure::TimedOut),
            Ok(done) => done.map_err(|error| failure(&error)),
        };
        let told = done.as_ref().map(|_| ()).map_err(|failure| *failure);
        self.tell(Inbound::Handshake(self.flow, told)).await;
        match done {
            Ok(stream) => self.serve(stream, asked).await,
            Err(_) => self.tell(Inbound::Closed(self.flow.id, None)).await,
        }
    }

    /// The life of a connection that we open.
    pub(super) async fn made(self, request: ConnectId, secured: Secured, asked: mpsc::Receiver<ToConnection>) {
        let Flow { local, peer, .. } = self.flow;
        let made = timeout(CONNECT_WITHIN, async {
            let stream = connect(local, peer).await.map_err(|_| None)?;
            let Secured::AsClient(config) = secured else { return Ok((Some(stream), None)) };
            let name = ServerName::IpAddress(peer.ip().into());
            let secured = TlsConnector::from(config).connect(name, stream).await;
            secured.map(|secured| (None, Some(secured))).map_err(|error| Some(failure(&error)))
        });
        let (clear, secured) = match made.await {
            Ok(Ok(made)) => made,
            failed => {
                if let Ok(Err(Some(failure))) = failed {
                    self.tell(Inbound::Handshake(self.flow, Err(failure))).await;
                }
                return self.tell(Inbound::ConnectFailed(request, self.flow.id)).await;
            }
        };
        if secured.is_some() {
            self.tell(Inbound::Handshake(self.flow, Ok(()))).await;
        }
        self.tell(Inbound::Connected(request, self.flow)).await;
        match (clear, secured) {
            (Some(stream), _) => self.serve(stream, asked).await,
            (_, Some(stream)) => self.serve(stream, asked).await,
            (None, None) => {}
        }
    }

    /// The loop is there as long as its tasks are, but for the end of the process.
    async fn tell(&self, what: Inbound) {
        let _ = self.inbound.send(what).await;
    }

    async fn serve(mut self, mut stream: impl Stream, mut asked: mpsc::Receiver<ToConnection>) {
        let because = self.exchange(&mut stream, &mut asked).await;
        let _ = timeout(WRITE_WITHIN, stream.shutdown()).await;
        self.tell(Inbound::Closed(self.flow.id, because)).await;
    }

    /// Reads and writes until the connection is to be closed; says why, when that is for nothing that came.
    async fn exchange(
        &mut self,
        stream: &mut impl Stream,
        asked: &mut mpsc::Receiver<ToConnection>,
    ) -> Option<ClosedBecause> {
        let mut buffer = vec![0; READ_BYTES];
        // When the message began whose end is awaited.
        let mut begun: Option<Instant> = None;
        let opened = Instant::now();
        let (mut last, mut came) = (opened, false);
        loop {
            let quiet = if came { last + self.idle } else { (last + self.idle).min(opened + FIRST_WITHIN) };
            let deadline = begun.map_or(quiet, |begun| begun + MESSAGE_WITHIN);
            tokio::select! {
                read = stream.read(&mut buffer) => {
                    let Ok(count @ 1..) = read else { return None };
                    last = Instant::now();
                    match self.take(stream, &buffer[..count]).await {
                        Read::GoOn { whole } => {
                            came |= whole;
                            let since = begun.filter(|_| !whole).unwrap_or(last);
                            begun = self.parser.is_within_message().then_some(since);
                        }
                        Read::Fault => {
                            drain_writes(stream, asked).await;
                            linger(stream, &mut buffer).await;
                            return None;
                        }
                        Read::End => return None,
                    }
                },
                request = asked.recv() => match request {
                    Some(ToConnection::Send(bytes)) => {
                        (last, came) = (Instant::now(), true);
                        if !write(stream, &bytes).await {
                            return None;
                        }
                    }
                    Some(ToConnection::Close) | None => return None,
                },
                () = tokio::time::sleep_until(deadline) => {
                    if begun.is_some() {
                        return Some(ClosedBecause::Slow);
                    }
                    if self.dialogs.load(Ordering::Relaxed) == 0 {
                        return Some(if came { ClosedBecause::Idle } else { ClosedBecause::Silent });
                    }
                    // A call lives on it, and may say nothing for hours.
                    last = Instant::now();
                },
            }
        }
    }

    /// Takes what was read.
    async fn take(&mut self, stream: &mut impl Stream, bytes: &[u8]) -> Read {
        self.parser.push(bytes);
        let mut whole = false;
        loop {
            match self.parser.poll() {
                Ok(Some(StreamItem::Message(message))) => {
                    whole = true;
                    if self.inbound.send(Inbound::Message(self.flow, Box::new(message))).await.is_err() {
                        return Read::End;
                    }
                }
                Ok(Some(StreamItem::Ping)) => {
                    whole = true;
                    if !write(stream, StreamParser::PONG).await {
                        return Read::End;
                    }
                }
                Ok(None) => return Read::GoOn { whole },
                Err(fault) => {
                    // The endpoint answers where it can, and asks for the connection to be closed.
                    self.tell(Inbound::Invalid(self.flow, fault.raw, fault.error)).await;
                    return Read::Fault;
                }
            }
        }
    }
}

/// Connects from the address that the peer knows, with a port that the kernel chooses.
async fn connect(local: SocketAddr, peer: SocketAddr) -> io::Result<TcpStream> {
    let socket = if peer.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    if !local.ip().is_unspecified() && local.is_ipv4() == peer.is_ipv4() {
        socket.bind(SocketAddr::new(local.ip(), 0))?;
    }
    let stream = socket.connect(peer).await?;
    tune(&stream);
    Ok(stream)
}

/// Writes what the endpoint still has to say, until it closes the connection.
async fn drain_writes(stream: &mut impl Stream, asked: &mut mpsc::Receiver<ToConnection>) {
    while let Ok(Some(ToConnection::Send(bytes))) = timeout(LAST_ANSWER_WITHIN, asked.recv()).await {
        if !write(stream, &bytes).await {
            return;
        }
    }
}

/// Says that nothing more will be written, and reads and forgets what the client is still sending, within bounds.
async fn linger(stream: &mut impl Stream, buffer: &mut [u8]) {
    let rest = async {
        let _ = stream.shutdown().await;
        let mut bytes = 0;
        while bytes < LINGER_BYTES_MAX {
            match stream.read(buffer).await {
                Ok(count @ 1..) => bytes += count,
                _ => return,
            }
        }
    };
    let _ = timeout(LINGER_WITHIN, rest).await;
}

/// Writes all of it. TLS keeps back what the socket does not take at once: only a flush sees it through.
async fn write(stream: &mut impl Stream, bytes: &[u8]) -> bool {
    let writing = async {
        stream.write_all(bytes).await?;
        stream.flush().await
    };
    matches!(timeout(WRITE_WITHIN, writing).await, Ok(Ok(())))
}
