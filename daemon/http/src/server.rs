//! Starting and stopping: which threads there are, and in which order they go.

use std::{
    fmt, fs,
    os::unix::{fs::DirBuilderExt as _, net::UnixListener},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering},
        mpsc,
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use callvault_seal::Secret;

use crate::{
    Api, HttpError, Listen,
    front::{self, Front},
    listen::Listener,
    places::{Places, Room},
    sign_in::Entrance,
    snapshot::Board,
    tickets::Tickets,
    worker,
};

/// How much of everything there may be, and for how long.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Connections whose request is being read. A thread each.
    pub reading_max: usize,
    /// Requests for health, readiness and metrics being answered. A thread each.
    pub open_max: usize,
    /// Requests under `/v1/` being answered. Three threads each: the door's, tiny_http's, and the one that calls the [`Api`].
    pub api_max: usize,
    /// Milliseconds from connecting to the request's last byte.
    pub request_ms_max: u64,
    /// Milliseconds that a client may take nothing of an answer.
    pub stall_ms_max: u64,
    /// Milliseconds between two snapshots.
    pub snapshot_ms: u64,
    /// Milliseconds after which a snapshot is no longer believed.
    pub snapshot_ms_max: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            reading_max: 32,
            open_max: 16,
            api_max: 16,
            request_ms_max: 5_000,
            stall_ms_max: 60_000,
            snapshot_ms: 1_000,
            snapshot_ms_max: 10_000,
        }
    }
}

/// Threads that answer open requests: each takes microseconds.
const OPEN_WORKERS: usize = 2;

/// The running endpoint. Dropping it stops it: connections are cut, waiting threads end. A thread that is inside the [`Api`] ends
/// when that call returns; it is not waited for.
pub struct Server {
    address: Listen,
    closing: Arc<AtomicBool>,
    listener: Arc<Listener>,
    places: Arc<Places>,
    inner: Vec<(Arc<Inner>, usize)>,
    acceptor: Option<JoinHandle<()>>,
    /// Dropped to end the thread that takes snapshots.
    _snapshots: mpsc::Sender<()>,
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server").field("address", &self.address).finish_non_exhaustive()
    }
}

impl Server {
    /// Starts listening. `private_dir` is a folder (the runtime directory) in which it may make one for itself; `token` is the
    /// operator's and not empty, or nobody is the operator; all other tokens are the [`Api`]'s to know.
    ///
    /// # Errors
    /// [`HttpError::Address`] for what is not loopback; [`HttpError::InUse`]; what the system refuses.
    pub fn start(
        listen: &Listen,
        token: Secret<String>,
        api: Arc<dyn Api>,
        limits: &Limits,
        private_dir: &Path,
    ) -> Result<Self, HttpError> {
        Self::start_at(listen, Entrance::Operator(token), api, limits, private_dir)
    }

    /// The same with any entrance.
    ///
    /// # Errors
    /// As [`Server::start`].
    pub fn start_at(
        listen: &Listen,
        entrance: Entrance,
        api: Arc<dyn Api>,
        limits: &Limits,
        private_dir: &Path,
    ) -> Result<Self, HttpError> {
        let listener = Arc::new(Listener::bind(listen)?);
        let address = listener.address().map_err(HttpError::io("listen on", listen))?;
        let folder = make_folder(private_dir)?;
        let (open_path, api_path) = (folder.0.join("open"), folder.0.join("api"));
        let open = Inner::new(&open_path, &folder)?;
        let inner_api = Inner::new(&api_path, &folder)?;
        let room = Room { reading: limits.reading_max, open: limits.open_max, api: limits.api_max };
        let places = Places::new(room);
        let closing = Arc::new(AtomicBool::new(false));
        let board = Arc::new(Board::new(Duration::from_millis(limits.snapshot_ms_max)));
        let (sender, ticks) = mpsc::channel();
        // from here on, a return on error drops this and stops what was started
        let mut server = Self {
            address,
            closing: Arc::clone(&closing),
            listener: Arc::clone(&listener),
            places: Arc::clone(&places),
            inner: vec![(Arc::clone(&open), OPEN_WORKERS), (Arc::clone(&inner_api), limits.api_max)],
            acceptor: None,
            _snapshots: sender,
        };
        {
            let (api, board, every) = (Arc::clone(&api), Arc::clone(&board), Duration::from_millis(limits.snapshot_ms));
            spawn("http-snapshot", move || take_snapshots(&*api, &board, &ticks, every))?;
        }
        for _ in 0..OPEN_WORKERS {
            let (inner, board, closing) = (Arc::clone(&open), Arc::clone(&board), Arc::clone(&closing));
            spawn("http-open", move || {
                worker::serve(&inner.server, &closing, |request| worker::answer_open(&board, request));
            })?;
        }
        let tickets = Arc::new(Tickets::default());
        for _ in 0..limits.api_max {
            let (inner, api, closing) = (Arc::clone(&inner_api), Arc::clone(&api), Arc::clone(&closing));
            let tickets = Arc::clone(&tickets);
            spawn("http-api", move || {
                worker::serve(&inner.server, &closing, |request| worker::answer_api(&api, &tickets, request));
            })?;
        }
        let front = Arc::new(Front {
            places,
            entrance,
            asked: api,
            tickets,
            request_max: Duration::from_millis(limits.request_ms_max),
            stall_max: Duration::from_millis(limits.stall_ms_max),
            open: open_path,
            api: api_path,
        });
        server.acceptor = Some(spawn("http-accept", move || front::accept(&front, &listener, &closing))?);
        Ok(server)
    }

    /// Where it listens; with the port that it got, if 0 was asked for.
    pub fn address(&self) -> &Listen {
        &self.address
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.closing.store(true, Ordering::Release);
        self.listener.close();
        self.places.close();
        if let Some(acceptor) = self.acceptor.take() {
            // it only accepts and starts threads: it ends at once
            let _ = acceptor.join();
        }
        for (inner, workers) in &self.inner {
            for _ in 0..*workers {
                inner.server.unblock();
            }
        }
    }
}

/// A folder that is removed with the last that uses it.
#[derive(Debug)]
struct Folder(PathBuf);

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// One tiny_http. Its own end needs its socket to be there, so the folder goes after it.
struct Inner {
    server: tiny_http::Server,
    _folder: Arc<Folder>,
}

impl Inner {
    fn new(path: &Path, folder: &Arc<Folder>) -> Result<Arc<Self>, HttpError> {
        let failed = || HttpError::io("listen on", path.display());
        let listener = UnixListener::bind(path).map_err(failed())?;
        let server =
            tiny_http::Server::from_listener(listener, None).map_err(|error| failed()(std::io::Error::other(error)))?;
        Ok(Arc::new(Self { server, _folder: Arc::clone(folder) }))
    }
}

fn take_snapshots(api: &dyn Api, board: &Board, ticks: &mpsc::Receiver<()>, every: Duration) {
    loop {
        board.publish(api.snapshot());
        if ticks.recv_timeout(every) == Err(mpsc::RecvTimeoutError::Disconnected) {
            return;
        }
    }
}

/// A folder that only this user may enter, and away with those of processes that were killed.
fn make_folder(private_dir: &Path) -> Result<Arc<Folder>, HttpError> {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let place = private_dir.display();
    fs::create_dir_all(private_dir).map_err(HttpError::io("create", &place))?;
    for entry in fs::read_dir(private_dir).map_err(HttpError::io("read", &place))?.flatten() {
        let name = entry.file_name();
        let pid = name.to_str().and_then(|name| name.strip_prefix("http-")).and_then(|rest| rest.split_once('-'));
        if let Some((pid, _)) = pid
            && pid.parse::<u32>().is_ok()
            && !Path::new("/proc").join(pid).exists()
        {
            // a leftover that cannot be removed does no harm
            let _ = fs::remove_dir_all(entry.path());
        }
    }
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let folder = private_dir.join(format!("http-{}-{number}", std::process::id()));
    let _ = fs::remove_dir_all(&folder);
    fs::DirBuilder::new().mode(0o700).create(&folder).map_err(HttpError::io("create", folder.display()))?;
    Ok(Arc::new(Folder(folder)))
}

fn spawn(name: &str, run: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>, HttpError> {
    thread::Builder::new().name(name.into()).spawn(run).map_err(HttpError::io("start the thread", name))
}
