//! The command line, and the life of the process.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
    time::SystemTime,
};

use callvault_confine::{keep_memory, refuse_escapes, to_read};
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
    // Before there is another thread, and before the first byte of a stranger's.
    confine(&[&arguments.certificate, &arguments.key]);
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return failed(&format!("start the runtime: {error}")),
    };
    match runtime.block_on(run(arguments)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(text) => failed(&text),
    }
}

/// Gives up all files but those beside these, which are read again when they change, and every program. What a kernel cannot do is said and is
/// no reason not to serve.
fn confine(files: &[&Path]) {
    let lies_in = |path: &Path| path.parent().map(|folder| Path::new(".").join(folder));
    // What is a link lies somewhere else too.
    let folders =
        files.iter().flat_map(|file| [lies_in(file), file.canonicalize().ok().and_then(|file| lies_in(&file))]);
    let folders: Vec<PathBuf> = folders.flatten().collect();
    match to_read(&folders.iter().map(PathBuf::as_path).collect::<Vec<_>>()) {
        Ok(true) => {}
        Ok(false) => tracing::warn!(
            "there is no Landlock, as the kernel has none or a filter around this service refuses it: other files could be read from here"
        ),
        Err(error) => tracing::error!("failed to give up the file system: {error}"),
    }
    if let Err(error) = keep_memory() {
        tracing::error!("failed to keep the memory out of core dumps: {error}");
    }
    if let Err(error) = refuse_escapes() {
        tracing::error!("failed to give up system calls: {error}");
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
