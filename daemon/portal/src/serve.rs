//! Connections: accepted, counted, wrapped in TLS, timed.

use std::{
    collections::HashMap,
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use axum::Extension;
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto,
    service::TowerToHyperService,
};
use tokio::{
    net::{TcpListener, TcpStream},
    time::{interval, sleep, timeout},
};
use tokio_rustls::TlsAcceptor;

use crate::{app::App, tls::Certificate};

/// Connections at once. Each costs some ten kilobytes, and a task.
pub const CONNECTIONS_MAX: usize = 2_000;

/// Connections of one address: an office may be behind one.
pub const CONNECTIONS_OF_ONE_MAX: usize = 300;

/// Time of a handshake.
pub const HANDSHAKE_MAX: Duration = Duration::from_secs(10);

/// Time to send a request's head, which is also how long a connection may be idle between two.
pub const HEAD_MAX: Duration = Duration::from_secs(20);

/// Bytes of a request's head.
const HEAD_BYTES_MAX: usize = 16 << 10;

/// Header fields of a request.
const HEADERS_MAX: usize = 64;

/// Requests at once on one connection of HTTP/2.
const STREAMS_MAX: u32 = 64;

/// How often a silent connection of HTTP/2 is asked whether it is there still, and for how long.
const PING: Duration = Duration::from_secs(20);
const PONG_MAX: Duration = Duration::from_secs(10);

/// How often the certificate's files are looked at.
const LOOK: Duration = Duration::from_secs(10);

/// How long to wait after accept failed (no descriptors left, for example).
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Where a request came from.
#[derive(Debug, Clone, Copy)]
pub struct Peer(pub IpAddr);

/// Who the connections are of.
#[derive(Debug, Default)]
struct Guests {
    all: usize,
    of: HashMap<IpAddr, usize>,
}

/// A connection that is counted until this is dropped.
#[derive(Debug)]
struct Guest {
    guests: Arc<Mutex<Guests>>,
    address: IpAddr,
}

impl Guest {
    fn enter(guests: &Arc<Mutex<Guests>>, address: IpAddr) -> Option<Self> {
        let mut now = guests.lock().unwrap_or_else(PoisonError::into_inner);
        let of_one = now.of.get(&address).copied().unwrap_or(0);
        if now.all >= CONNECTIONS_MAX || of_one >= CONNECTIONS_OF_ONE_MAX {
            return None;
        }
        now.all += 1;
        now.of.insert(address, of_one + 1);
        Some(Self { guests: Arc::clone(guests), address })
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        let mut now = self.guests.lock().unwrap_or_else(PoisonError::into_inner);
        now.all = now.all.saturating_sub(1);
        match now.of.get_mut(&self.address) {
            Some(count) if *count > 1 => *count -= 1,
            _ => drop(now.of.remove(&self.address)),
        }
    }
}

/// Serves until it is dropped.
pub async fn serve(listener: TcpListener, certificate: impl Into<Arc<Certificate>>, app: Arc<App>) {
    let certificate = certificate.into();
    let guests = Arc::new(Mutex::new(Guests::default()));
    let mut looks = interval(LOOK);
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = looks.tick() => {
                certificate.look_again();
                continue;
            }
        };
        match accepted {
            Ok((stream, from)) => {
                let Some(guest) = Guest::enter(&guests, from.ip().to_canonical()) else { continue };
                let (acceptor, app) = (TlsAcceptor::from(certificate.config()), Arc::clone(&app));
                tokio::spawn(async move {
                    attend(stream, from, acceptor, app).await;
                    drop(guest);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "failed to accept a connection");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn attend(stream: TcpStream, from: SocketAddr, acceptor: TlsAcceptor, app: Arc<App>) {
    // Without it, small answers wait for each other.
    let _ = stream.set_nodelay(true);
    let Ok(Ok(stream)) = timeout(HANDSHAKE_MAX, acceptor.accept(stream)).await else { return };
    let router = app.router().layer(Extension(Peer(from.ip().to_canonical())));
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_MAX)
        .max_headers(HEADERS_MAX)
        .max_buf_size(HEAD_BYTES_MAX);
    builder
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(PING)
        .keep_alive_timeout(PONG_MAX)
        .max_concurrent_streams(STREAMS_MAX)
        .max_header_list_size(16 << 10);
    let served = builder.serve_connection(TokioIo::new(stream), TowerToHyperService::new(router)).await;
    if let Err(error) = served {
        tracing::debug!(error = %error, "a connection broke");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_of_one_and_of_all_are_counted_and_given_back() {
        let guests = Arc::new(Mutex::new(Guests::default()));
        let at = |n: u32| IpAddr::V4(n.into());
        let mut of_one: Vec<_> = (0..CONNECTIONS_OF_ONE_MAX).map(|_| Guest::enter(&guests, at(1)).unwrap()).collect();
        assert!(Guest::enter(&guests, at(1)).is_none());
        of_one.pop();
        assert!(Guest::enter(&guests, at(1)).is_some());
        let others: Vec<_> = (2..).map_while(|n| Guest::enter(&guests, at(n))).collect();
        assert_eq!(of_one.len() + others.len(), CONNECTIONS_MAX);
        drop((of_one, others));
        let now = guests.lock().unwrap();
        assert!(now.all == 0 && now.of.is_empty());
    }
}
