//! The files: numbered sled folders, which one is in force, and how they reach the device.

use std::{
    collections::BTreeSet,
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    thread,
    time::Duration,
};

use crate::{QueueError, record};

/// sled's page cache. The jobs are in memory anyway; sled reads them once.
const SLED_CACHE_BYTES: u64 = 16 << 20;

/// How often, and how far apart, sled is asked again for a file whose lock its own background threads still hold for the
/// moment that it takes them to end.
const LOCK_ATTEMPTS: u32 = 100;
const LOCK_PAUSE: Duration = Duration::from_millis(20);

/// Makes what was written reach the device. Exchanged in tests, which count and fail syncs.
pub trait Device: Send + Sync + std::fmt::Debug {
    /// `fdatasync(2)` of a file or folder at `path`, through `file`.
    ///
    /// # Errors
    /// The system's.
    fn sync(&self, path: &Path, file: &File) -> io::Result<()>;
}

/// The machine's own.
#[derive(Debug, Clone, Copy, Default)]
pub struct RealDevice;

impl Device for RealDevice {
    fn sync(&self, _path: &Path, file: &File) -> io::Result<()> {
        file.sync_data()
    }
}

/// One open sled folder.
#[derive(Debug)]
pub(crate) struct Folder {
    pub(crate) number: u64,
    pub(crate) path: PathBuf,
    db: sled::Db,
    db_file: File,
    blobs_synced: Mutex<BTreeSet<std::ffi::OsString>>,
    device: Arc<dyn Device>,
}

impl Folder {
    /// Opens or makes the folder `number` and brings it to the device, its own entry in `dir` included.
    pub(crate) fn open(dir: &Path, number: u64, device: Arc<dyn Device>) -> Result<Self, QueueError> {
        let path = path(dir, number);
        let db = open_sled(&path)?;
        let db_path = path.join("db");
        let db_file = File::open(&db_path).map_err(QueueError::io("open", &db_path))?;
        let folder = Self { number, path, db, db_file, blobs_synced: Mutex::default(), device };
        folder.sync()?;
        for name in names(&folder.path)? {
            let path = folder.path.join(&name);
            if path.is_file() && name != "db" {
                sync_path(&*folder.device, &path)?;
            }
        }
        sync_path(&*folder.device, &folder.path.join("blobs"))?;
        sync_path(&*folder.device, &folder.path)?;
        sync_path(&*folder.device, dir)?;
        Ok(folder)
    }

    /// Every record: key and value.
    pub(crate) fn records(&self) -> impl Iterator<Item = Result<(sled::IVec, sled::IVec), QueueError>> {
        self.db.iter().map(|record| record.map_err(QueueError::sled("read the queue")))
    }

    /// Writes (`Some`) and removes (`None`) jobs in one go. Not durable before [`Folder::sync`].
    pub(crate) fn write<'a>(
        &self,
        jobs: impl IntoIterator<Item = (&'a crate::JobId, Option<&'a crate::Job>)>,
    ) -> Result<(), QueueError> {
        let mut batch = sled::Batch::default();
        for (id, job) in jobs {
            match job {
                Some(job) => batch.insert(id.as_str(), record::encode(job)),
                None => batch.remove(id.as_str()),
            }
        }
        self.db.apply_batch(batch).map_err(QueueError::sled("write a job"))
    }

    /// Brings everything written to the device: steps 2 to 4 of the crate's procedure.
    pub(crate) fn sync(&self) -> Result<(), QueueError> {
        self.db.flush().map_err(QueueError::sled("write the queue"))?;
        let mut synced = self.blobs_synced.lock().unwrap_or_else(PoisonError::into_inner);
        let blobs = self.path.join("blobs");
        let present: BTreeSet<_> = names(&blobs)?.into_iter().collect();
        let mut fresh = false;
        for name in present.difference(&synced) {
            let path = blobs.join(name);
            match File::open(&path) {
                Ok(file) => self.device.sync(&path, &file).map_err(QueueError::io("sync", &path))?,
                // sled collects blobs that nothing refers to any more
                Err(gone) if gone.kind() == io::ErrorKind::NotFound => {}
                Err(other) => return Err(QueueError::io("open", &path)(other)),
            }
            fresh = true;
        }
        if fresh {
            sync_path(&*self.device, &blobs)?;
        }
        *synced = present;
        drop(synced);
        let path = self.path.join("db");
        self.device.sync(&path, &self.db_file).map_err(QueueError::io("sync", &path))
    }

    /// Bytes of all its files.
    pub(crate) fn bytes(&self) -> Result<u64, QueueError> {
        let mut bytes = 0;
        for folder in [self.path.clone(), self.path.join("blobs")] {
            for name in names(&folder)? {
                // a file that vanishes meanwhile has no size
                bytes += fs::metadata(folder.join(name)).ok().filter(fs::Metadata::is_file).map_or(0, |m| m.len());
            }
        }
        Ok(bytes)
    }
}

/// Where folder `number` is.
pub(crate) fn path(dir: &Path, number: u64) -> PathBuf {
    dir.join(format!("jobs-{number}"))
}

/// The number in `current`; `None` where there is no such file.
pub(crate) fn read_current(dir: &Path) -> Result<Option<u64>, QueueError> {
    let path = dir.join("current");
    match fs::read_to_string(&path) {
        Ok(text) => text.trim_ascii().parse().map(Some).map_err(|_| QueueError::Damaged(path)),
        Err(none) if none.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(other) => Err(QueueError::io("read", path)(other)),
    }
}

/// Puts folder `number` in force, for good.
pub(crate) fn write_current(dir: &Path, number: u64, device: &dyn Device) -> Result<(), QueueError> {
    let (new, current) = (dir.join("current.new"), dir.join("current"));
    let mut file = File::create(&new).map_err(QueueError::io("create", &new))?;
    file.write_all(format!("{number}\n").as_bytes()).map_err(QueueError::io("write", &new))?;
    device.sync(&new, &file).map_err(QueueError::io("sync", &new))?;
    fs::rename(&new, &current).map_err(QueueError::io("rename", &new))?;
    sync_path(device, dir)
}

/// Lets go of the folder in force, for good: without `current`, the next look at `dir` sets it aside.
pub(crate) fn leave(dir: &Path, device: &dyn Device) -> Result<(), QueueError> {
    let path = dir.join("current");
    match fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(QueueError::io("remove", path)(error)),
        _ => sync_path(device, dir),
    }
}

/// Folders that are set aside and kept. A disk that damages one after the other must not be filled by them as well; what is in the last
/// few is enough to find out what went wrong, and nothing is lost with the others: the catalogue has all that is owed.
const SET_ASIDE_MAX: usize = 8;

/// Removes folders other than `number`: what an interrupted compaction left. A folder found where there is no `current` at
/// all was never in force by our own doing; it is set aside, not destroyed. Answers the names set aside.
pub(crate) fn tidy(dir: &Path, number: Option<u64>) -> Result<Vec<String>, QueueError> {
    let mut aside = Vec::new();
    for name in names(dir)? {
        let Some(found) = name.to_str().and_then(|name| name.strip_prefix("jobs-")) else {
            continue;
        };
        if number.is_some_and(|number| found == number.to_string()) {
            continue;
        }
        let path = dir.join(&name);
        if number.is_some() {
            fs::remove_dir_all(&path).map_err(QueueError::io("remove", &path))?;
        } else {
            let kept = set_aside(dir)?;
            let to = set_aside_name(kept.last().map_or(1, |last| last.saturating_add(1)));
            fs::rename(&path, dir.join(&to)).map_err(QueueError::io("rename", &path))?;
            for oldest in kept.iter().rev().skip(SET_ASIDE_MAX - 1) {
                let path = dir.join(set_aside_name(*oldest));
                fs::remove_dir_all(&path).map_err(QueueError::io("remove", &path))?;
            }
            aside.push(to);
        }
    }
    Ok(aside)
}

fn set_aside_name(number: u32) -> String {
    format!("set-aside-{number}")
}

/// The numbers of the folders that are set aside, the oldest first.
fn set_aside(dir: &Path) -> Result<Vec<u32>, QueueError> {
    let names = names(dir)?;
    let number = |name: &std::ffi::OsString| name.to_str()?.strip_prefix("set-aside-")?.parse().ok();
    let mut numbers: Vec<u32> = names.iter().filter_map(number).collect();
    numbers.sort_unstable();
    Ok(numbers)
}

/// Takes the folder for this process.
pub(crate) fn lock(dir: &Path) -> Result<File, QueueError> {
    let path = dir.join("lock");
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path)
        .map_err(QueueError::io("open", &path))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(fs::TryLockError::WouldBlock) => Err(QueueError::Locked(dir.to_owned())),
        Err(fs::TryLockError::Error(source)) => Err(QueueError::io("lock", path)(source)),
    }
}

pub(crate) fn sync_path(device: &dyn Device, path: &Path) -> Result<(), QueueError> {
    let file = File::open(path).map_err(QueueError::io("open", path))?;
    device.sync(path, &file).map_err(QueueError::io("sync", path))
}

fn open_sled(path: &Path) -> Result<sled::Db, QueueError> {
    // no background flushes: every write to the disk is one that somebody waits for
    let config = sled::Config::new().path(path).cache_capacity(SLED_CACHE_BYTES).flush_every_ms(None);
    let mut attempt = 1;
    loop {
        match config.open() {
            Err(sled::Error::Io(e)) if attempt < LOCK_ATTEMPTS && e.to_string().contains("could not acquire lock") => {
                attempt += 1;
                thread::sleep(LOCK_PAUSE);
            }
            result => return result.map_err(QueueError::sled("open the queue")),
        }
    }
}

fn names(folder: &Path) -> Result<Vec<std::ffi::OsString>, QueueError> {
    fs::read_dir(folder)
        .and_then(|entries| entries.map(|entry| entry.map(|e| e.file_name())).collect())
        .map_err(QueueError::io("list", folder))
}
