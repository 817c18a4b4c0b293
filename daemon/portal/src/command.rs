//! The command line, and the life of the process.

use std::{net::SocketAddr, path::PathBuf, process::ExitCode, sync::Arc, time::SystemTime};

use clap::Parser;
use tokio::net::TcpListener;
use tracing_subscriber::EnvFilter;

use crate::{app::App, daemon::Daemon, serve, tls::Certificate};

/// The portal of callvault: pages for people, over HTTPS.
#[derive(Debug, Parser)]
#[command(name = "callvault-portal", version)]
struct Arguments {
    /// Where to listen
    #[arg(long, default_value = "[::]:8443")]
    listen: SocketAddr,
    /// The certificate and those between it and its root, PEM; read again when it changes
    #[arg(long, value_name = "FILE")]
    certificate: PathBuf,
    /// The certificate's private key, PEM
    #[arg(long, value_name = "FILE")]
    key: PathBuf,
    /// The daemon's socket for the portal, `portal.socket` in its settings
    #[arg(long, value_name = "SOCKET", default_value = "/run/callvault-portal/daemon")]
    daemon: PathBuf,
}

/// Runs the portal until it is told to end (SIGTERM, SIGINT).
pub fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt().with_env_filter(filter).with_target(false).with_writer(std::io::stderr).init();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return failed(&format!("start the runtime: {error}")),
    };
    match runtime.block_on(run(arguments)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(text) => failed(&text),
    }
}

fn failed(text: &str) -> ExitCode {
    tracing::error!("failed to {text}");
    ExitCode::FAILURE
}

async fn run(arguments: Arguments) -> Result<(), String> {
    let Arguments { listen, certificate, key, daemon } = arguments;
    let certificate = Arc::new(Certificate::load(certificate, key).map_err(|error| error.to_string())?);
    let listener = TcpListener::bind(listen).await.map_err(|error| format!("listen on {listen}: {error}"))?;
    let address = listener.local_addr().map_err(|error| format!("listen on {listen}: {error}"))?;
    let app = Arc::new(App::new(Daemon::new(daemon)).served_by(Arc::clone(&certificate)));
    tracing::info!("the portal is on https://{address}");
    if let Some(remark) = certificate.remark(SystemTime::now()) {
        tracing::warn!("the certificate is {}: browsers warn of it, and Webex will not open the gadget", remark.code());
    }
    tokio::select! {
        () = serve::serve(listener, certificate, app) => Ok(()),
        done = ended() => done.map_err(|error| format!("wait for a signal: {error}")),
    }
}

async fn ended() -> std::io::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::select! {
        _ = terminate.recv() => Ok(()),
        _ = interrupt.recv() => Ok(()),
    }
}
