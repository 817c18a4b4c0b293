//! Starting and stopping: what is opened in which order, and how it ends.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::sync_channel;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow};
use callvault_catalogue::Catalogue;
use callvault_config::{Config, HttpListen};
use callvault_control::{CHECKPOINT_KEY_BYTES, CheckpointKey, TlsIdentity};
use callvault_http::{Entrance, Limits as HttpLimits, Listen, Server};
use callvault_queue::{JobKind, Queue, RetryPolicies, RetryPolicy, Settings};
use callvault_seal::{PublicKey, Secret};
use rand::rngs::StdRng;
use rand::{CryptoRng, Rng, SeedableRng};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, watch};
use zeroize::Zeroizing;

use crate::access::Access;
use crate::api::Control;
use crate::appliance::{Appliance, Bell, Metrics, Notes, Spool};
use crate::backlog::Worked;
use crate::certificates::{CertificateFiles, CertificateWatch, unix_s};
use crate::clock::{self, Clock};
use crate::deciding::Deciding;
use crate::deliveries::{self, Deliveries, SinkKind};
use crate::fd_store::{Brought, FdStore, Keeping};
use crate::files::{make_folder, write_whole};
use crate::imports::{self, Imports};
use crate::ingest::{Ingest, unix_ms};
use crate::journals::Shared;
use crate::lock::{FolderLock, RecorderLock};
use crate::log::events;
use crate::mailing::{self, Mailing};
use crate::moving::{self, Moving, RECORD_NOTE};
use crate::overload::Pressure;
use crate::recorder::{Driver, RecorderState, Request};
use crate::reload::Reload;
use crate::retention::Retention;
use crate::sockets::{Sockets, Wanted};
use crate::store::EXPECTED_NAME;
use crate::stores::{Record, Stores};
use crate::webex::{self, Webex};
use crate::{doctor, keys, log, recover, retention, sd_notify, told, watchdog, workers};

/// Requests to the recorder that may wait.
const REQUESTS_MAX: usize = 64;

/// How long all threads together may take to end.
const CREW_WITHIN: Duration = Duration::from_secs(8);

/// Random bytes in the control token.
const TOKEN_BYTES: usize = 32;

/// Pairs of media ports opened beyond what the sessions need, since ports rest between calls.
const PAIRS_SPARE: usize = 64;

/// Tracks that a session normally has.
const TRACKS_USUAL: usize = 2;

/// Runs the daemon until it is told to stop.
pub(crate) fn run(path: &Path) -> anyhow::Result<()> {
    // Before anything is opened, so that none of these numbers is anybody else's.
    let mut brought = Brought::take();
    let config = Config::load(path, callvault_config::environment())
        .map_err(|errors| anyhow!("use the configuration:\n{}", callvault_config::render_errors(&errors)))?;
    let set_level = log::start(&config);
    for remark in config.remarks() {
        tracing::warn!("{remark}");
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .thread_name("supervisor")
        .enable_all()
        .build()
        .context("start the runtime")?;
    // From the first moment on, so that a signal is never the end in the middle of something.
    let reload = Bell::default();
    let stop = runtime.block_on(async { watch_signals(reload.clone()) })?;
    let folder = |path: &Path, key: &str| {
        make_folder(path).map_err(|error| {
            let remedy =
                "give it, or the folder that it is to be in, to the user that callvaultd runs as, or name another one";
            anyhow!("make the folder {} ({key}): {error}; {remedy}", path.display())
        })
    };
    folder(&config.data_dir, "data_dir")?;
    folder(&config.runtime_dir, "runtime_dir")?;
    let _lock = FolderLock::take(&config.data_dir)?;
    folder(&config.journal_path(), "journal")?;
    if let Err(error) = imports::remove_leftovers(&config.journal_path()) {
        tracing::warn!("failed to remove what was being brought when callvaultd ended: {error}");
    }
    // Made now, so that it is watched.
    folder(config.portal_file().parent().unwrap_or(&config.data_dir), "the settings of the portal")?;
    if let Err(text) = doctor::room(&config) {
        tracing::error!("{text}");
    }
    let lock = RecorderLock::take(&config.data_dir)?;
    let brought_key = brought.key.take();
    let has_key = brought_key.is_some();
    let (appliance, channels) = open(config, reload, brought_key.unwrap_or_else(new_checkpoint_key))?;
    let store = FdStore::of_environment();
    let (sockets, replaces) = take_sockets(&appliance.config, brought, store.as_ref())?;
    let sockets = Arc::new(sockets);
    let keeping = store.map(|store| Keeping {
        store,
        sockets: Arc::clone(&sockets),
        key: appliance.checkpoint_key.clone(),
        replaces,
        has_key,
    });
    let (mut certificates, in_force) = CertificateWatch::new(CertificateFiles::of(&appliance.config));
    certificates.look(unix_s(), &appliance.notes, &appliance.metrics);
    if let Some(set_level) = set_level {
        let _ = appliance.settings.set_level.set(set_level);
    }
    let reload = Reload { certificates };
    let result = serve(&runtime, &appliance, (sockets, keeping, lock), channels, (reload, in_force), stop);
    runtime.shutdown_timeout(Duration::from_secs(1));
    result
}

/// How the daemon is to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stop {
    /// Calls go on with the next daemon, where the service manager keeps the sockets; otherwise they end.
    Restart,
    /// Calls end.
    End,
}

/// SIGTERM and SIGINT stop the daemon, SIGHUP has the configuration looked at. The receiver says when to stop.
///
/// A service manager says SIGTERM to restart as it does to stop, so it is told in advance when it is to stop: SIGUSR1 says that calls
/// end with the next SIGTERM. SIGINT is a person at a terminal, and ends them.
fn watch_signals(reload: Bell) -> anyhow::Result<watch::Receiver<Option<Stop>>> {
    let mut terminate = signal(SignalKind::terminate()).context("wait for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("wait for SIGINT")?;
    let mut hangup = signal(SignalKind::hangup()).context("wait for SIGHUP")?;
    let mut ending = signal(SignalKind::user_defined1()).context("wait for SIGUSR1")?;
    let (stop, stopped) = watch::channel(None);
    tokio::spawn(async move {
        let mut terminated = Stop::Restart;
        loop {
            tokio::select! {
                // Both may be there at once, in whatever order they were sent.
                biased;
                _ = ending.recv() => terminated = Stop::End,
                _ = terminate.recv() => { let _ = stop.send(Some(terminated)); }
                _ = interrupt.recv() => { let _ = stop.send(Some(Stop::End)); }
                _ = hangup.recv() => {
                    sd_notify::reloading();
                    reload.ring();
                }
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
pub(crate) fn open(
    config: Config,
    reload: Bell,
    checkpoint_key: CheckpointKey,
) -> anyhow::Result<(Arc<Appliance>, Channels)> {
    let mut rng = rand::rng();
    let keys = open_keys(&config, &mut rng)?;
    let mut recipients = vec![keys.keyring.public().clone()];
    for text in &config.keys.escrow.0 {
        recipients.push(PublicKey::from_text(text).context("use a key of keys.escrow")?);
    }
    recover::check_not_interrupted(&config)?;
    let lost_catalogue = !config.catalogue_path().exists() && config.data_dir.join(EXPECTED_NAME).exists();
    let catalogue = Catalogue::open(&config.catalogue_path(), &keys.keyring, Box::new(StdRng::from_rng(&mut rng)))?;
    let notes = Notes::default();
    let access = Access::open(&config, &catalogue, &notes)?;
    let retention = Retention::open(&config, &catalogue).context("prepare retention")?;
    let (record, trouble) = Record::read(&config);
    match trouble {
        Some(text) => notes.set(RECORD_NOTE, format!("failed to {text}")),
        None => record.keep(&config.data_dir).context("write which stores there are")?,
    }
    let stores = Stores::new(record, &config.data_dir, config.store.timeout);
    let (queue, report) = Queue::open(&config.queue_path(), queue_settings(&config), unix_ms())?;
    if report.missing || !report.damaged.is_empty() {
        tracing::error!(?report, "the queue was damaged; what it held is put together again from the catalogue");
    }
    let (state, recorder) = watch::channel(RecorderState::default());
    let (requests_tx, requests) = mpsc::channel(REQUESTS_MAX);
    let (wake_tx, wake) = sync_channel(1);
    let webex = Webex::open(&catalogue);
    let appliance = Appliance {
        webex,
        journals: Shared::new(&config.journal_path()),
        keyring: keys.keyring,
        current_key: keys.path,
        recipients,
        checkpoint_key,
        catalogue,
        queue,
        store: stores,
        moving: Moving::default(),
        render_program: beside("callvault-render"),
        players: Arc::default(),
        turns: Arc::default(),
        recorder,
        requests: requests_tx,
        wake_ingest: wake_tx,
        work: Bell::default(),
        stop_bell: Bell::default(),
        reload,
        access,
        deciding: Deciding::default(),
        retention,
        imports: Imports::default(),
        notes,
        sockets_stay: AtomicBool::new(false),
        stopping: AtomicBool::new(false),
        metrics: Metrics::default(),
        mailing: Mailing::default(),
        spool: Spool::default(),
        clock: Clock::default(),
        worked: Worked::default(),
        pressure: Pressure::default(),
        deliveries: Deliveries::new(&config),
        settings: crate::settings::Settings::new(&config),
        config,
    };
    if lost_catalogue {
        let text = "the catalogue was missing and an empty one was made, though there is a store; calls are recorded, but to have the earlier recordings again, stop callvaultd and run `callvaultctl recover`";
        appliance.notes.set("catalogue-lost", text.to_owned());
    }
    Ok((Arc::new(appliance), Channels { state, requests, wake }))
}

fn new_checkpoint_key() -> CheckpointKey {
    let mut bytes = Zeroizing::new([0; CHECKPOINT_KEY_BYTES]);
    rand::rng().fill_bytes(&mut *bytes);
    CheckpointKey::from_bytes(*bytes)
}

fn open_keys(config: &Config, rng: &mut dyn CryptoRng) -> anyhow::Result<keys::Keys> {
    let in_use = config.catalogue_path().exists()
        || std::fs::read_dir(config.journal_path()).is_ok_and(|mut entries| entries.next().is_some());
    let keys = keys::load_or_make(&config.keys_path(), &config.data_dir, in_use, rng)?;
    if let Some(text) = keys::open_to_others(&keys.path) {
        tracing::error!("{text}");
    }
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

/// What is to be bound.
pub(crate) fn wanted_sockets(config: &Config) -> Wanted<'_> {
    let range = config.media.ports;
    Wanted {
        udp: &config.sip.udp.0,
        tcp: &config.sip.tcp.0,
        tls: &config.sip.tls.0,
        media_address: told::media_bound(config),
        media_ports: range.first..=range.last,
        pairs_max: (config.limits.sessions_max as usize).saturating_mul(TRACKS_USUAL).saturating_add(PAIRS_SPARE),
        buffer_bytes: usize::try_from(config.media.receive_buffer_bytes.0).unwrap_or(usize::MAX),
    }
}

/// Takes the sockets that an earlier daemon brought, and opens what is missing. Says which names of the store are to go once it has the
/// sockets anew; none where all were brought, and nothing else.
fn take_sockets(
    config: &Config,
    mut brought: Brought,
    store: Option<&FdStore>,
) -> anyhow::Result<(Sockets, Option<BTreeSet<String>>)> {
    let wanted = wanted_sockets(config);
    let count = brought.sockets.len();
    let unwanted = brought.retain(|place, fd| wanted.has(place, fd));
    if unwanted > 0 {
        tracing::warn!(
            unwanted,
            "{unwanted} sockets that the service manager kept are not configured any more, or none of ours; they are closed"
        );
        // Before anything is bound: they may have the addresses that are wanted now.
        if let Some(Err(error)) = store.map(|store| store.clear(&mut brought)) {
            tracing::error!(%error, "failed to {error}");
        }
    }
    let sockets = Sockets::open(&wanted, &mut brought)?;
    if count > 0 {
        let taken = sockets.listed().len().saturating_sub(sockets.opened);
        tracing::info!(taken, opened = sockets.opened, "{taken} sockets were taken over from the daemon before");
    }
    let names = brought.into_names();
    let is_whole = count > 0 && unwanted == 0 && sockets.opened == 0 && names.len() == 1;
    let opened = sockets.media.len() / 2;
    if sockets.taken_pairs > 0 {
        tracing::warn!(
            taken = sockets.taken_pairs,
            "some ports of media.ports are in use by other programs; they are passed over"
        );
    }
    tracing::info!(pairs = opened, "media ports open");
    Ok((sockets, (!is_whole).then_some(names)))
}

/// Rows that are read into the index at once: some milliseconds, for which what comes in waits.
const INDEX_ROWS: usize = 500;

/// The rest after them, in which what waits goes first.
const INDEX_REST: Duration = Duration::from_millis(1);

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

/// Reads the catalogue into the index of searches; until it has, they look at rows one by one.
fn build_index(appliance: &Appliance) {
    let begun = Instant::now();
    while !appliance.stopping.load(Ordering::Relaxed) {
        match appliance.catalogue.build_index(INDEX_ROWS) {
            Ok(false) => thread::sleep(INDEX_REST),
            Ok(true) => {
                let (rows, bytes) = appliance.catalogue.index_size();
                let took_ms = begun.elapsed().as_millis();
                tracing::debug!(rows, bytes, took_ms, "the index of searches is built");
                return;
            }
            Err(error) => {
                tracing::error!("failed to {error}; searches stay slow until the next start");
                return;
            }
        }
    }
}

/// Runs everything until the signal to stop.
fn serve(
    runtime: &tokio::runtime::Runtime,
    appliance: &Arc<Appliance>,
    (sockets, keeping, lock): (Arc<Sockets>, Option<Keeping>, RecorderLock),
    channels: Channels,
    (reload, certificates): (Reload, watch::Receiver<Option<Arc<TlsIdentity>>>),
    mut stop: watch::Receiver<Option<Stop>>,
) -> anyhow::Result<()> {
    let server = start_server(appliance)?;
    let portal = start_portal(appliance)?;
    let mut crew = Crew::default();
    crew.hire(appliance, "index", build_index)?;
    crew.hire(appliance, "ingest", move |a| Ingest::new(a).run(&channels.wake))?;
    crew.hire(appliance, "store", workers::watch_store)?;
    crew.hire(appliance, "retention", retention::run)?;
    crew.hire(appliance, "store-move", moving::run)?;
    crew.hire(appliance, "configuration", move |a| reload.run(a))?;
    for number in 0..workers::count(&appliance.config) {
        crew.hire(appliance, &format!("worker-{number}"), workers::run)?;
    }
    for kind in SinkKind::ALL.into_iter().filter(|kind| kind.is_enabled(&appliance.config)) {
        let threads = if kind == SinkKind::Folder { 1 } else { appliance.config.uploads.parallel.max(1) };
        for number in 0..threads {
            let of_thread = Arc::clone(appliance);
            // A thread's name has 15 characters at most.
            let name = format!("{}-{number}", kind.job_kind());
            crew.hire(appliance, &name, move |_| deliveries::run(&of_thread, kind))?;
        }
    }
    let of_mail = Arc::clone(appliance);
    crew.hire(appliance, "mail", move |_| mailing::run(&of_mail))?;
    let of_webex = Arc::clone(appliance);
    crew.hire(appliance, "webex", move |_| webex::run(&of_webex))?;
    // What came from the store is there still.
    let is_kept = keeping.as_ref().is_some_and(|keeping| keeping.replaces.is_none() && keeping.has_key);
    appliance.sockets_stay.store(is_kept, Ordering::Relaxed);
    let (stay, stays) = watch::channel(is_kept);
    if let Some(keeping) = keeping {
        crew.hire(appliance, "fd-store", move |a| keeping.run(a, &stay))?;
    }
    crew.hire(appliance, "clock", clock::run)?;
    if let Some(every) = watchdog::wanted() {
        crew.hire(appliance, "watchdog", move |a| watchdog::run(a, every))?;
    }
    let decides_for = Arc::clone(appliance);
    let driver = Driver {
        program: beside("callvault-recorder"),
        start: told::settings(appliance, &sockets),
        sockets,
        lock,
        rounds: Arc::clone(&appliance.metrics.supervisor_rounds),
        stays,
        closed: appliance.access.closed(),
        certificates,
        decide: Arc::new(move |id, facts| decides_for.decide(id, facts)),
        wake: appliance.wake_ingest.clone(),
        state: channels.state,
    };
    let mut running = runtime.spawn(driver.run(channels.requests));
    let wanted = runtime.block_on(async {
        tell_systemd(appliance.recorder.clone());
        tokio::select! {
            stop = stop.wait_for(Option::is_some) => Ok(stop.ok().and_then(|stop| *stop).unwrap_or(Stop::End)),
            ended = &mut running => Err(ended),
        }
    });
    let ran = match wanted {
        Ok(wanted) => {
            let leaves = wanted == Stop::Restart && appliance.sockets_stay.load(Ordering::Relaxed);
            tracing::info!(leaves, "stopping{}", if leaves { "; calls go on with the next start" } else { "" });
            sd_notify::stopping();
            if leaves {
                // What else is going on ends first: until then calls are recorded, and their packets wait for the next daemon alone.
                appliance.stop();
                std::mem::take(&mut crew).dismiss();
            }
            runtime.block_on(async {
                let _ = appliance.requests.send(Request::Stop { end_calls: !leaves }).await;
                running.await.context("stop the recorder")
            })
        }
        Err(ended) => ended.context("supervise the recorder"),
    };
    appliance.stop();
    crew.dismiss();
    drop((server, portal));
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

/// The portal's socket, if there is to be one.
fn start_portal(appliance: &Arc<Appliance>) -> anyhow::Result<Option<Server>> {
    let portal = &appliance.config.portal;
    let Some(path) = portal.socket.clone() else { return Ok(None) };
    let mut users = vec![nix::unistd::geteuid().as_raw()];
    let named = match portal.user.parse() {
        Ok(number) => Some(number),
        Err(_) => nix::unistd::User::from_name(&portal.user).ok().flatten().map(|user| user.uid.as_raw()),
    };
    match named {
        Some(number) => users.push(number),
        None => tracing::warn!(
            "there is no user \"{}\" (portal.user): the portal can run as the daemon's user alone",
            portal.user
        ),
    }
    let limits = HttpLimits { api_max: portal.requests_max as usize, ..HttpLimits::default() };
    let control = Arc::new(Control(Arc::clone(appliance)));
    let runtime = &appliance.config.runtime_dir;
    let server = Server::start_at(&Listen::Unix(path), Entrance::Portal(users), control, &limits, runtime)?;
    tracing::info!("the portal is served on {}", server.address());
    Ok(Some(server))
}

/// Tells systemd, if it started us, when the recorder answers calls.
fn tell_systemd(mut recorder: watch::Receiver<RecorderState>) {
    tokio::spawn(async move {
        if recorder.wait_for(|state| state.up).await.is_ok() {
            sd_notify::ready();
            tracing::info!(event = events::READY, "ready: calls are recorded");
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
pub(crate) fn beside(name: &str) -> PathBuf {
    std::env::current_exe().ok().and_then(|p| p.parent().map(|folder| folder.join(name))).unwrap_or_else(|| name.into())
}
