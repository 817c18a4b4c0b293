//! Starting and stopping: what is opened in which order, and how it ends.

use std::io::IsTerminal;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::sync_channel;
use std::sync::Mutex;
use std::thread;
use std::time::Duration;

use anyhow::{Context, anyhow};
use callvault_catalogue::Catalogue;
use callvault_config::{Config, HttpListen, MediaAddress};
use callvault_control::{Decision, Network, Start};
use callvault_http::{Limits as HttpLimits, Listen, Server};
use callvault_policy::{KeepVerdict, PolicySettings, keep};
use callvault_queue::{JobKind, Queue, RetryPolicies, RetryPolicy, Settings};
use callvault_seal::{PublicKey, Secret};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, watch};
use uuid::Uuid;

use crate::api::Control;
use crate::appliance::{Appliance, Bell, Metrics, Notes};
use crate::files::{make_folder, write_whole};
use crate::ingest::{Ingest, unix_ms};
use crate::journals::Journals;
use crate::keys;
use crate::lock::FolderLock;
use crate::recorder::{Driver, RecorderState, Request};
use crate::sockets::Sockets;
use crate::store::Store;
use crate::workers;

/// Requests to the recorder that may wait.
const REQUESTS_MAX: usize = 64;

/// Random bytes in the control token.
const TOKEN_BYTES: usize = 32;

/// Pairs of media ports opened beyond what the sessions need, since ports rest between calls.
const PAIRS_SPARE: usize = 64;

/// Tracks that a session normally has.
const TRACKS_USUAL: usize = 2;

/// Runs the daemon until it is told to stop.
pub(crate) fn run(path: &Path) -> anyhow::Result<()> {
    let config = Config::load(path, callvault_config::environment())
        .map_err(|errors| anyhow!("use the configuration:\n{}", callvault_config::render_errors(&errors)))?;
    start_log(&config);
    for remark in config.remarks() {
        tracing::warn!("{remark}");
    }
    let folder = |path: &Path, key: &str| {
        make_folder(path).with_context(|| format!("make the folder {} ({key})", path.display()))
    };
    folder(&config.data_dir, "data_dir")?;
    folder(&config.runtime_dir, "runtime_dir")?;
    let _lock = FolderLock::take(&config.data_dir)?;
    folder(&config.journal_path(), "journal")?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .context("start the runtime")?;
    let (appliance, sockets, channels) = open(config)?;
    let result = serve(&runtime, &appliance, sockets, channels);
    runtime.shutdown_timeout(Duration::from_secs(1));
    result
}

struct Channels {
    state: watch::Sender<RecorderState>,
    requests: mpsc::Receiver<Request>,
    wake: std::sync::mpsc::Receiver<()>,
}

/// Opens everything that is on disk or bound to an address. Nothing runs yet.
fn open(config: Config) -> anyhow::Result<(Arc<Appliance>, Sockets, Channels)> {
    let mut rng = rand::rng();
    let in_use = config.catalogue_path().exists()
        || std::fs::read_dir(config.journal_path()).is_ok_and(|mut entries| entries.next().is_some());
    let keys = keys::load_or_make(&config.keys_path(), &config.data_dir, in_use, &mut rng)?;
    if keys.made {
        tracing::warn!(
            key = %keys.keyring.public().id(),
            "A PRIVATE KEY WAS MADE: {}. BACK UP THE FOLDER {} NOW, apart from the recordings. Without it no recording can ever be opened, by anybody",
            keys.path.display(),
            config.keys_path().display()
        );
    }
    let mut recipients = vec![keys.keyring.public().clone()];
    for text in &config.keys.escrow.0 {
        recipients.push(PublicKey::from_text(text).with_context(|| "use a key of keys.escrow".to_owned())?);
    }
    let catalogue = Catalogue::open(&config.catalogue_path(), &keys.keyring, Box::new(StdRng::from_rng(&mut rng)))?;
    let (queue, report) = Queue::open(&config.queue_path(), queue_settings(&config), unix_ms())?;
    if report.missing || !report.damaged.is_empty() {
        tracing::error!(?report, "the queue was damaged; what it held is put together again from the catalogue");
    }
    // Whatever has no archive has a job: the queue is only ever as good as the catalogue says.
    let owed: Vec<_> = catalogue
        .unarchived()?
        .into_iter()
        .map(|id| callvault_queue::NewJob::new(JobKind::ARCHIVE, id))
        .filter(|job| queue.get(&job.id()).is_none())
        .collect();
    queue.enqueue(unix_ms(), &owed)?;
    let store = Store::open(&config.store_path(), &config.data_dir, Uuid::now_v7())?;
    let sockets = open_sockets(&config)?;
    let (state, recorder) = watch::channel(RecorderState::default());
    let (requests_tx, requests) = mpsc::channel(REQUESTS_MAX);
    let (wake_tx, wake) = sync_channel(1);
    let appliance = Appliance {
        journals: Mutex::new(Journals::new(&config.journal_path())),
        keyring: keys.keyring,
        current_key: keys.path,
        recipients,
        catalogue,
        queue,
        store,
        render_program: beside("callvault-render"),
        recorder,
        requests: requests_tx,
        wake_ingest: wake_tx,
        work: Bell::default(),
        notes: Notes::default(),
        draining: AtomicBool::new(false),
        stopping: AtomicBool::new(false),
        metrics: Metrics::default(),
        config,
    };
    Ok((Arc::new(appliance), sockets, Channels { state, requests, wake }))
}

fn queue_settings(config: &Config) -> Settings {
    let ms = |d: Duration| u64::try_from(d.as_millis()).unwrap_or(u64::MAX);
    let policy = RetryPolicy {
        base_ms: ms(config.queue.backoff_min),
        cap_ms: ms(config.queue.backoff_max),
        attempts_max: Some(config.queue.attempts_max),
        age_ms_max: None,
    };
    Settings { retry: RetryPolicies { default: policy, kinds: [].into() }, ..Settings::default() }
}

fn open_sockets(config: &Config) -> anyhow::Result<Sockets> {
    let range = config.media.ports;
    let pairs = (config.limits.sessions_max as usize).saturating_mul(TRACKS_USUAL).saturating_add(PAIRS_SPARE);
    let sockets = Sockets::open(
        &config.sip.udp.0,
        &config.sip.tcp.0,
        media_bound(config),
        range.first..=range.last,
        pairs,
        usize::try_from(config.media.receive_buffer_bytes.0).unwrap_or(usize::MAX),
    )?;
    let opened = sockets.media.len() / 2;
    if sockets.taken_pairs > 0 {
        tracing::warn!(taken = sockets.taken_pairs, "some ports of media.ports are in use by other programs; they are passed over");
    }
    tracing::info!(pairs = opened, "media ports open");
    Ok(sockets)
}

fn media_bound(config: &Config) -> IpAddr {
    match config.media.address {
        MediaAddress::Ip(ip) => ip,
        MediaAddress::Auto => match config.sip.udp.0.iter().chain(&config.sip.tcp.0).next() {
            Some(listener) => listener.ip(),
            None => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        },
    }
}

/// Runs everything until the signal to stop.
fn serve(
    runtime: &tokio::runtime::Runtime,
    appliance: &Arc<Appliance>,
    sockets: Sockets,
    channels: Channels,
) -> anyhow::Result<()> {
    let ingest = {
        let appliance = Arc::clone(appliance);
        thread::Builder::new().name("ingest".into()).spawn(move || Ingest::new(&appliance).run(&channels.wake))
    }
    .context("start the ingest")?;
    let mut crew = Vec::new();
    for number in 0..appliance.config.render.parallel.max(1) {
        let appliance = Arc::clone(appliance);
        let worker = thread::Builder::new().name(format!("worker-{number}")).spawn(move || workers::run(&appliance));
        crew.push(worker.context("start a job worker")?);
    }
    let listen = match &appliance.config.http.listen {
        HttpListen::Tcp(address) => Listen::Tcp(*address),
        HttpListen::Unix(path) => Listen::Unix(path.clone()),
    };
    let token = control_token(&appliance.config.control_token_path())?;
    let limits =
        HttpLimits { reading_max: appliance.config.limits.http_connections_max as usize, ..HttpLimits::default() };
    let control = Arc::new(Control(Arc::clone(appliance)));
    let server = Server::start(&listen, token, control, &limits, &appliance.config.runtime_dir)?;
    tracing::info!("health and control on {}", server.address());

    let driver = Driver {
        program: beside("callvault-recorder"),
        start: settings(appliance, &sockets),
        sockets: Arc::new(sockets),
        decide: Arc::new(decide),
        wake: appliance.wake_ingest.clone(),
        state: channels.state,
    };
    runtime.block_on(async {
        let mut terminate = signal(SignalKind::terminate()).context("wait for SIGTERM")?;
        let mut interrupt = signal(SignalKind::interrupt()).context("wait for SIGINT")?;
        let running = tokio::spawn(driver.run(channels.requests));
        tell_systemd(appliance.recorder.clone());
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        tracing::info!("stopping");
        let _ = systemd::daemon::notify([(systemd::daemon::STATE_STOPPING, "1")].iter());
        let _ = appliance.requests.send(Request::Stop).await;
        running.await.context("stop the recorder")
    })?;
    appliance.stopping.store(true, Ordering::Relaxed);
    let _ = appliance.wake_ingest.try_send(());
    appliance.work.ring();
    let _ = ingest.join();
    for worker in crew {
        let _ = worker.join();
    }
    drop(server);
    tracing::info!("stopped; nothing is left undone that the next start would not find");
    Ok(())
}

/// Tells systemd, if it started us, when the recorder answers calls.
fn tell_systemd(mut recorder: watch::Receiver<RecorderState>) {
    tokio::spawn(async move {
        if recorder.wait_for(|state| state.up).await.is_ok() {
            let _ = systemd::daemon::notify(
                [(systemd::daemon::STATE_READY, "1"), (systemd::daemon::STATE_STATUS, "recording")].iter(),
            );
            tracing::info!("ready: calls are recorded");
        }
    });
}

/// What becomes of a call, by the rules of the policy.
fn decide(facts: &callvault_journal::facts::CallFacts) -> Decision {
    match keep(facts, &PolicySettings::default()) {
        // Nobody can ask for a call yet, so none waits to be asked for.
        KeepVerdict::Keep | KeepVerdict::OnDemand => Decision::Keep,
        KeepVerdict::Discard { rule } => Decision::Discard { rule },
    }
}

/// What a recorder is told.
fn settings(appliance: &Appliance, sockets: &Sockets) -> Start {
    let config = &appliance.config;
    let u32_of = |value: u64| u32::try_from(value).unwrap_or(u32::MAX);
    let ms = |d: Duration| u32_of(u64::try_from(d.as_millis()).unwrap_or(u64::MAX));
    let bound = media_bound(config);
    Start {
        generation: Uuid::nil(),
        journal_dir: config.journal_path(),
        recipients: appliance.recipients.iter().map(PublicKey::to_text).collect(),
        media_address: Some(bound).filter(|ip| !ip.is_unspecified()),
        media_bound: bound,
        sip_listeners: sockets.sip_addresses(),
        allowed_peers: config
            .sip
            .allowed_peers
            .0
            .iter()
            .map(|n| Network { address: n.address(), prefix: n.prefix_bits() })
            .collect(),
        server_name: config.sip.server_name.clone(),
        sessions_max: config.limits.sessions_max,
        retry_after_s: u32_of(config.limits.retry_after.as_secs().max(1)),
        tracks_per_session_max: u8::try_from(config.limits.tracks_per_session_max).unwrap_or(u8::MAX),
        connections_max: config.limits.connections_max,
        connections_per_peer_max: config.limits.connections_max,
        connection_idle_s: 3_600,
        body_bytes_max: u32_of(config.limits.message_bytes_max.0),
        media_timeout_s: u32_of(config.media.timeout.as_secs()),
        commit_interval_ms: ms(config.journal.commit_interval),
        batch_interval_ms: ms(config.journal.batch_interval),
        file_bytes_max: config.journal.file_bytes_max.0,
        file_age_max_s: u32_of(config.journal.file_age_max.as_secs()),
        spool_free_min_bytes: config.journal.spool_free_min.0,
    }
}

/// The token that the control endpoint asks for: made once, readable by this user only.
fn control_token(path: &PathBuf) -> anyhow::Result<Secret<String>> {
    match std::fs::read_to_string(path) {
        Ok(token) if token.trim().len() >= TOKEN_BYTES => return Ok(Secret::new(token.trim().to_owned())),
        Ok(_) => tracing::warn!("{} held no usable token; a new one is made", path.display()),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
        Err(e) => return Err(e).with_context(|| format!("read the control token {}", path.display())),
    }
    let mut bytes = [0; TOKEN_BYTES];
    rand::rng().fill_bytes(&mut bytes);
    let token: String = bytes.iter().map(|b| format!("{b:02x}")).collect();
    write_whole(path, token.as_bytes()).with_context(|| format!("write the control token {}", path.display()))?;
    Ok(Secret::new(token))
}

/// A program of this package: beside this one.
fn beside(name: &str) -> PathBuf {
    std::env::current_exe().ok().and_then(|p| p.parent().map(|folder| folder.join(name))).unwrap_or_else(|| name.into())
}

fn start_log(config: &Config) {
    use tracing_subscriber::EnvFilter;
    let filter = EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| EnvFilter::new(config.log.level.as_str()));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_target(false)
        .init();
}
