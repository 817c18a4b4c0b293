//! Starting and stopping: what is opened in which order, and how it ends.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::mpsc::sync_channel;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow};
use callvault_catalogue::Catalogue;
use callvault_config::{Config, HttpListen};
use callvault_control::{CHECKPOINT_KEY_BYTES, CheckpointKey, TlsIdentity};
use callvault_http::{Limits as HttpLimits, Listen, Server};
use callvault_queue::{JobKind, Queue, RetryPolicies, RetryPolicy, Settings};
use callvault_seal::{PublicKey, Secret};
use rand::rngs::StdRng;
use rand::{CryptoRng, Rng, SeedableRng};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, watch};
use uuid::Uuid;

use crate::api::Control;
use crate::appliance::{Appliance, Bell, Metrics, Notes};
use crate::certificates::{CertificateFiles, CertificateWatch, unix_s};
use crate::files::{make_folder, write_whole};
use crate::ingest::{Ingest, unix_ms};
use crate::journals::Shared;
use crate::lock::FolderLock;
use crate::recorder::{Driver, RecorderState, Request};
use crate::reload::Reload;
use crate::sockets::Sockets;
use crate::store::Store;
use crate::{keys, log, told, workers};

/// Requests to the recorder that may wait.
const REQUESTS_MAX: usize = 64;

/// How long all threads together may take to end.
const CREW_WITHIN: Duration = Duration::from_secs(8);

/// Random bytes in the control token.
const TOKEN_BYTES: usize = 32;

/// Pairs of media ports opened beyond what the sessions need, since ports rest between calls.
const PAIRS_SPARE: usize = 64;

/// How long addresses that are in use are waited for.
const SOCKETS_WITHIN: Duration = Duration::from_secs(3);

/// Tracks that a session normally has.
const TRACKS_USUAL: usize = 2;

/// Runs the daemon until it is told to stop.
pub(crate) fn run(path: &Path) -> anyhow::Result<()> {
    let config = Config::load(path, callvault_config::environment())
        .map_err(|errors| anyhow!("use the configuration:\n{}", callvault_config::render_errors(&errors)))?;
    let set_level = log::start(&config);
    for remark in config.remarks() {
        tracing::warn!("{remark}");
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .context("start the runtime")?;
    // From the first moment on, so that a signal is never the end in the middle of something.
    let reload = Bell::default();
    let stop = runtime.block_on(async { watch_signals(reload.clone()) })?;
    let folder = |path: &Path, key: &str| {
        make_folder(path).with_context(|| format!("make the folder {} ({key})", path.display()))
    };
    folder(&config.data_dir, "data_dir")?;
    folder(&config.runtime_dir, "runtime_dir")?;
    let _lock = FolderLock::take(&config.data_dir)?;
    folder(&config.journal_path(), "journal")?;
    let (appliance, channels) = open(config, reload)?;
    let sockets = open_sockets(&appliance.config)?;
    let (mut certificates, in_force) = CertificateWatch::new(CertificateFiles::of(&appliance.config));
    certificates.look(unix_s(), &appliance.notes, &appliance.metrics);
    let reload = Reload { path: path.to_owned(), set_level, certificates };
    let result = serve(&runtime, &appliance, sockets, channels, (reload, in_force), stop);
    runtime.shutdown_timeout(Duration::from_secs(1));
    result
}

/// SIGTERM and SIGINT stop the daemon, SIGHUP has the configuration looked at. The receiver says when to stop.
fn watch_signals(reload: Bell) -> anyhow::Result<watch::Receiver<bool>> {
    let mut terminate = signal(SignalKind::terminate()).context("wait for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("wait for SIGINT")?;
    let mut hangup = signal(SignalKind::hangup()).context("wait for SIGHUP")?;
    let (stop, stopped) = watch::channel(false);
    tokio::spawn(async move {
        loop {
            tokio::select! {
                _ = terminate.recv() => { let _ = stop.send(true); }
                _ = interrupt.recv() => { let _ = stop.send(true); }
                _ = hangup.recv() => reload.ring(),
            }
        }
    });
    Ok(stopped)
}

/// The other ends of what the appliance tells.
pub(crate) struct Channels {
    pub(crate) state: watch::Sender<RecorderState>,
    requests: mpsc::Receiver<Request>,
    wake: std::sync::mpsc::Receiver<()>,
}

/// Opens everything that is on this machine's disk. Nothing runs yet, and the store is not touched: it may be a share that is not
/// there.
pub(crate) fn open(config: Config, reload: Bell) -> anyhow::Result<(Arc<Appliance>, Channels)> {
    let mut rng = rand::rng();
    let keys = open_keys(&config, &mut rng)?;
    let mut recipients = vec![keys.keyring.public().clone()];
    for text in &config.keys.escrow.0 {
        recipients.push(PublicKey::from_text(text).context("use a key of keys.escrow")?);
    }
    let catalogue = Catalogue::open(&config.catalogue_path(), &keys.keyring, Box::new(StdRng::from_rng(&mut rng)))?;
    let (queue, report) = Queue::open(&config.queue_path(), queue_settings(&config), unix_ms())?;
    if report.missing || !report.damaged.is_empty() {
        tracing::error!(?report, "the queue was damaged; what it held is put together again from the catalogue");
    }
    let (state, recorder) = watch::channel(RecorderState::default());
    let (requests_tx, requests) = mpsc::channel(REQUESTS_MAX);
    let (wake_tx, wake) = sync_channel(1);
    let appliance = Appliance {
        journals: Shared::new(&config.journal_path()),
        keyring: keys.keyring,
        current_key: keys.path,
        recipients,
        checkpoint_key: new_checkpoint_key(&mut rng),
        catalogue,
        queue,
        store: Store::new(&config.store_path(), &config.data_dir, Uuid::now_v7()),
        render_program: beside("callvault-render"),
        recorder,
        requests: requests_tx,
        wake_ingest: wake_tx,
        work: Bell::default(),
        stop_bell: Bell::default(),
        reload,
        notes: Notes::default(),
        draining: AtomicBool::new(false),
        stopping: AtomicBool::new(false),
        metrics: Metrics::default(),
        config,
    };
    Ok((Arc::new(appliance), Channels { state, requests, wake }))
}

fn new_checkpoint_key(rng: &mut dyn CryptoRng) -> CheckpointKey {
    let mut bytes = [0; CHECKPOINT_KEY_BYTES];
    rng.fill_bytes(&mut bytes);
    CheckpointKey::from_bytes(bytes)
}

fn open_keys(config: &Config, rng: &mut dyn CryptoRng) -> anyhow::Result<keys::Keys> {
    let in_use = config.catalogue_path().exists()
        || std::fs::read_dir(config.journal_path()).is_ok_and(|mut entries| entries.next().is_some());
    let keys = keys::load_or_make(&config.keys_path(), &config.data_dir, in_use, rng)?;
    if keys.made {
        tracing::warn!(
            key = %keys.keyring.public().id(),
            "A PRIVATE KEY WAS MADE: {}. BACK UP THE FOLDER {} NOW, apart from the recordings. Without it no recording can ever be opened, by anybody",
            keys.path.display(),
            config.keys_path().display()
        );
    }
    Ok(keys)
}

fn queue_settings(config: &Config) -> Settings {
    let ms = |d: Duration| u64::try_from(d.as_millis()).unwrap_or(u64::MAX);
    let policy = RetryPolicy {
        base_ms: ms(config.queue.backoff_min),
        cap_ms: ms(config.queue.backoff_max),
        attempts_max: Some(config.queue.attempts_max),
        age_ms_max: None,
    };
    // What data depends on is never given up: an archive is owed, and so is the end of what was deleted.
    let patient = RetryPolicy { attempts_max: None, ..policy };
    let kinds = [(JobKind::ARCHIVE, patient), (JobKind::DELETE, patient)].into();
    Settings { retry: RetryPolicies { default: policy, kinds }, ..Settings::default() }
}

fn open_sockets(config: &Config) -> anyhow::Result<Sockets> {
    let range = config.media.ports;
    let pairs = (config.limits.sessions_max as usize).saturating_mul(TRACKS_USUAL).saturating_add(PAIRS_SPARE);
    let open = || {
        Sockets::open(
            &config.sip.udp.0,
            &config.sip.tcp.0,
            &config.sip.tls.0,
            told::media_bound(config),
            range.first..=range.last,
            pairs,
            usize::try_from(config.media.receive_buffer_bytes.0).unwrap_or(usize::MAX),
        )
    };
    // The recorder of a daemon that was killed has the sockets for as long as it takes it to end its sessions.
    let begun = Instant::now();
    let sockets = loop {
        match open() {
            Err(error) if error.is_taken() && begun.elapsed() < SOCKETS_WITHIN => {
                thread::sleep(Duration::from_millis(100));
            }
            other => break other?,
        }
    };
    let opened = sockets.media.len() / 2;
    if sockets.taken_pairs > 0 {
        tracing::warn!(
            taken = sockets.taken_pairs,
            "some ports of media.ports are in use by other programs; they are passed over"
        );
    }
    tracing::info!(pairs = opened, "media ports open");
    Ok(sockets)
}

/// The threads beside the runtime.
#[derive(Default)]
struct Crew(Vec<JoinHandle<()>>);

impl Crew {
    fn hire(
        &mut self,
        appliance: &Arc<Appliance>,
        name: &str,
        work: impl FnOnce(&Appliance) + Send + 'static,
    ) -> anyhow::Result<()> {
        let appliance = Arc::clone(appliance);
        let thread = thread::Builder::new().name(name.to_owned()).spawn(move || work(&appliance));
        self.0.push(thread.with_context(|| format!("start the thread {name}"))?);
        Ok(())
    }

    /// Waits for all of them, but not for ever: one may be stuck in a share that hangs, and what it was doing is done again by the
    /// next start.
    fn dismiss(self) {
        let until = Instant::now() + CREW_WITHIN;
        for thread in self.0 {
            while !thread.is_finished() && Instant::now() < until {
                thread::sleep(Duration::from_millis(10));
            }
            if thread.is_finished() {
                let _ = thread.join();
            } else {
                tracing::warn!(
                    thread = thread.thread().name(),
                    "a thread did not end in time; its work is done again after the next start"
                );
            }
        }
    }
}

/// Runs everything until the signal to stop.
fn serve(
    runtime: &tokio::runtime::Runtime,
    appliance: &Arc<Appliance>,
    sockets: Sockets,
    channels: Channels,
    (reload, certificates): (Reload, watch::Receiver<Option<Arc<TlsIdentity>>>),
    mut stop: watch::Receiver<bool>,
) -> anyhow::Result<()> {
    let server = start_server(appliance)?;
    let mut crew = Crew::default();
    crew.hire(appliance, "ingest", move |a| Ingest::new(a).run(&channels.wake))?;
    crew.hire(appliance, "store", workers::watch_store)?;
    crew.hire(appliance, "configuration", move |a| reload.run(a))?;
    for number in 0..appliance.config.render.parallel.max(1) {
        crew.hire(appliance, &format!("worker-{number}"), workers::run)?;
    }
    let policy = told::policy(&appliance.config);
    let driver = Driver {
        program: beside("callvault-recorder"),
        start: told::settings(appliance, &sockets),
        sockets: Arc::new(sockets),
        certificates,
        decide: Arc::new(move |facts| told::decide(facts, &policy)),
        wake: appliance.wake_ingest.clone(),
        state: channels.state,
    };
    let ran = runtime.block_on(async {
        let mut running = tokio::spawn(driver.run(channels.requests));
        tell_systemd(appliance.recorder.clone());
        tokio::select! {
            _ = stop.wait_for(|stop| *stop) => {}
            ended = &mut running => return ended.context("supervise the recorder"),
        }
        tracing::info!("stopping");
        let _ = systemd::daemon::notify([(systemd::daemon::STATE_STOPPING, "1")].iter());
        let _ = appliance.requests.send(Request::Stop { end_calls: true }).await;
        running.await.context("stop the recorder")
    });
    appliance.stop();
    crew.dismiss();
    drop(server);
    ran?;
    tracing::info!("stopped; nothing is left undone that the next start would not find");
    Ok(())
}

fn start_server(appliance: &Arc<Appliance>) -> anyhow::Result<Server> {
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
    Ok(server)
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
