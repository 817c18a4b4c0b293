//! The driver: jobs in memory, sled behind them, group commit between.

use std::{
    fs::{self, File},
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard},
};

use crate::{
    Counts, Device, Enqueued, Failure, Filter, Job, JobId, KindLimits, NewJob, Next, QueueError, RealDevice,
    RetryPolicies, State,
    commit::Commit,
    folder::{self, Folder},
    machine::Machine,
    record::{self, Unreadable},
};

/// Below this size the files are not worth rebuilding, whatever they hold.
const COMPACT_BYTES_MIN: u64 = 64 << 20;

/// Files this many times larger than what lives in them are worth rebuilding.
const COMPACT_RATIO: u64 = 8;

/// How the queue behaves.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Retries of each kind.
    pub retry: RetryPolicies,
    /// What makes writes durable; [`RealDevice`] except in tests.
    pub device: Arc<dyn Device>,
}

impl Default for Settings {
    fn default() -> Self {
        Self { retry: RetryPolicies::default(), device: Arc::new(RealDevice) }
    }
}

/// What opening found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OpenReport {
    /// Jobs read, done ones included.
    pub jobs: usize,
    /// Jobs that ran when the last process ended, and are ready again.
    pub resumed: usize,
    /// Keys of records that are no jobs; they are left where they are. What they stood for is found again from the catalogue.
    pub damaged: Vec<String>,
    /// The folder in force was gone, or damaged beyond reading, and an empty one was made: what is owed is found again from the
    /// catalogue.
    pub missing: bool,
    /// Folders found without `current`, or damaged beyond reading, renamed out of the way.
    pub set_aside: Vec<String>,
}

/// How much of the files is alive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stats {
    /// Bytes of the jobs' records.
    pub live_bytes: u64,
    /// Bytes of the files.
    pub file_bytes: u64,
}

impl Stats {
    /// Whether [`Queue::compact`] is worth its writes.
    pub fn compaction_worthwhile(&self) -> bool {
        self.file_bytes >= COMPACT_BYTES_MIN && self.file_bytes / COMPACT_RATIO > self.live_bytes
    }
}

/// The queue. One per folder and machine; share it by reference. Every call that changes something blocks for a sync, except
/// [`Queue::claim`]; see the crate's doc.
#[derive(Debug)]
pub struct Queue {
    dir: PathBuf,
    settings: Settings,
    /// Guards the jobs and the order in which they are written. Taken before the commit's own lock, never after it.
    machine: Mutex<Machine>,
    commit: Commit,
    _lock: File,
}

impl Queue {
    /// Opens the queue in `dir`, making it if need be. Files that are damaged beyond reading are set aside and an empty queue is
    /// made: what was in it is owed by the catalogue.
    ///
    /// # Errors
    /// [`QueueError::Locked`] when another process has it; [`QueueError::Newer`]; disk errors.
    pub fn open(dir: &Path, settings: Settings, now_unix_ms: u64) -> Result<(Self, OpenReport), QueueError> {
        fs::create_dir_all(dir).map_err(QueueError::io("create", dir))?;
        if let Some(parent) = dir.parent().filter(|parent| !parent.as_os_str().is_empty()) {
            folder::sync_path(&*settings.device, parent)?;
        }
        let lock = folder::lock(dir)?;
        let (folder, machine, report) = open_whole(dir, &settings, now_unix_ms)?;
        let commit = Commit::new(Arc::new(folder));
        let queue = Self { dir: dir.to_owned(), settings, machine: Mutex::new(machine), commit, _lock: lock };
        Ok((queue, report))
    }

    /// Adds the jobs that are not there yet, all or none, and says for each what was found. On the device when it returns.
    ///
    /// # Errors
    /// [`QueueError::Full`], [`QueueError::TooLarge`] (nothing was added); [`QueueError::Broken`] and disk errors (assume
    /// nothing: after [`Queue::reopen`] enqueue again, it is the same as once).
    pub fn enqueue(&self, now_unix_ms: u64, jobs: &[NewJob]) -> Result<Vec<Enqueued>, QueueError> {
        self.change(|machine| machine.enqueue(now_unix_ms, jobs))
    }

    /// The next job to run, now marked as running, or none. Does not wait for the disk.
    ///
    /// # Errors
    /// [`QueueError::Broken`], disk errors.
    pub fn claim(&self, now_unix_ms: u64, limits: &KindLimits) -> Result<Option<Job>, QueueError> {
        let mut machine = self.lock();
        let folder = self.commit.folder()?;
        let Some(job) = machine.claim(now_unix_ms, limits) else {
            return Ok(None);
        };
        self.write(&folder, &machine, std::slice::from_ref(&job.id))?;
        Ok(Some(job))
    }

    /// A running job is done.
    ///
    /// # Errors
    /// [`QueueError::Unknown`], [`QueueError::WrongState`]; [`QueueError::Broken`] and disk errors: it will run again.
    pub fn complete(&self, id: &JobId, now_unix_ms: u64) -> Result<(), QueueError> {
        self.change(|machine| Ok(((), machine.complete(id, now_unix_ms)?)))
    }

    /// A running job failed: tells what becomes of it. `error` must hold no personal data; `random` is uniform over `u64`.
    ///
    /// # Errors
    /// As [`Queue::complete`].
    pub fn fail(
        &self,
        id: &JobId,
        now_unix_ms: u64,
        failure: Failure,
        error: &str,
        random: u64,
    ) -> Result<Next, QueueError> {
        self.change(|machine| machine.fail(id, now_unix_ms, failure, error, random))
    }

    /// Puts a job that does not run aside. Parking a parked one changes nothing.
    ///
    /// # Errors
    /// As [`Queue::complete`].
    pub fn park(&self, id: &JobId, now_unix_ms: u64) -> Result<(), QueueError> {
        self.change(|machine| Ok(((), machine.park(id, now_unix_ms)?)))
    }

    /// Drives a job that does not run again, now, with fresh counters.
    ///
    /// # Errors
    /// As [`Queue::complete`], and [`QueueError::Full`] for one that was done.
    pub fn retry(&self, id: &JobId, now_unix_ms: u64) -> Result<(), QueueError> {
        self.change(|machine| Ok(((), machine.retry(id, now_unix_ms)?)))
    }

    /// Drops a job that does not run. An unknown one is no error.
    ///
    /// # Errors
    /// [`QueueError::WrongState`], [`QueueError::Broken`], disk errors.
    pub fn forget(&self, id: &JobId) -> Result<(), QueueError> {
        self.change(|machine| Ok(((), machine.forget(id)?)))
    }

    /// The job of that name.
    pub fn get(&self, id: &JobId) -> Option<Job> {
        self.lock().get(id).cloned()
    }

    /// Jobs that match: the oldest first, and after them those that are done, the latest first.
    pub fn list(&self, filter: &Filter) -> Vec<Job> {
        self.lock().list(filter)
    }

    /// When a job of these kinds is due next (it may be past), if one waits whose kind has room.
    pub fn next_due(&self, limits: &KindLimits) -> Option<u64> {
        self.lock().next_due(limits)
    }

    /// Numbers by kind and state.
    pub fn counts(&self) -> Counts {
        self.lock().counts()
    }

    /// Why the queue refuses changes, if it does: time for [`Queue::reopen`].
    pub fn broken(&self) -> Option<String> {
        self.commit.broken()
    }

    /// How large the files are, and how much of that is alive.
    ///
    /// # Errors
    /// [`QueueError::Broken`], disk errors.
    pub fn stats(&self) -> Result<Stats, QueueError> {
        let folder = self.commit.folder()?;
        let live_bytes = self.lock().jobs().map(|job| (job.id.as_str().len() + record::encode(job).len()) as u64).sum();
        Ok(Stats { live_bytes, file_bytes: folder.bytes()? })
    }

    /// Closes the files and reads the jobs back from them: after a failed write, when there may be room again. Jobs that
    /// run go on running. May be called at any time; if it fails, the queue refuses changes and it may be called again.
    ///
    /// # Errors
    /// As [`Queue::open`].
    pub fn reopen(&self, now_unix_ms: u64) -> Result<OpenReport, QueueError> {
        let mut machine = self.lock();
        let running: Vec<Job> =
            machine.jobs().filter(|job| matches!(job.state, State::Running { .. })).cloned().collect();
        let lead = self.commit.lead();
        // sled lets go of its file when the last handle is dropped, which this is: only a leader takes one out of the lock
        drop(lead.close("it was opened again before this was on the disk"));
        let opened = open_whole(&self.dir, &self.settings, now_unix_ms).and_then(|(folder, mut fresh, report)| {
            fresh.keep_running(&running);
            folder.write(running.iter().map(|job| (&job.id, fresh.get(&job.id))))?;
            Ok((folder, fresh, report))
        });
        match opened {
            Ok((folder, fresh, report)) => {
                *machine = fresh;
                lead.replace(Arc::new(folder), Err("it was opened again before this was on the disk".into()));
                Ok(OpenReport { resumed: 0, ..report })
            }
            Err(error) => {
                lead.finish(Some(&error));
                Err(error)
            }
        }
    }

    /// Rebuilds the files from the living jobs. Everyone else waits meanwhile. A failure leaves the old files in force.
    ///
    /// # Errors
    /// [`QueueError::Broken`], disk errors.
    pub fn compact(&self) -> Result<Stats, QueueError> {
        let machine = self.lock();
        let old = self.commit.folder()?;
        let lead = self.commit.lead();
        if let Some(why) = self.commit.broken() {
            // memory may be ahead of what callers were told: only the disk knows
            let error = QueueError::Broken(why);
            lead.finish(Some(&error));
            return Err(error);
        }
        let number = old.number + 1;
        let device = Arc::clone(&self.settings.device);
        let built = Folder::open(&self.dir, number, device).and_then(|folder| {
            folder.write(machine.jobs().map(|job| (&job.id, Some(job))))?;
            folder.sync()?;
            Ok(folder)
        });
        let folder = match built {
            Ok(folder) => folder,
            Err(error) => {
                // the new folder is a leftover that the next open removes; those who wait get their sync from the old one
                let synced = old.sync();
                lead.finish(synced.as_ref().err());
                return Err(error);
            }
        };
        if let Err(error) = folder::write_current(&self.dir, number, &*self.settings.device) {
            // which of the two is in force is known only to the disk
            lead.finish(Some(&error));
            return Err(error);
        }
        lead.replace(Arc::new(folder), Ok(()));
        drop(machine);
        let path = old.path.clone();
        drop(old);
        fs::remove_dir_all(&path).map_err(QueueError::io("remove", path))?;
        self.stats()
    }

    fn change<T>(
        &self,
        decide: impl FnOnce(&mut Machine) -> Result<(T, Vec<JobId>), QueueError>,
    ) -> Result<T, QueueError> {
        let mut machine = self.lock();
        let folder = self.commit.folder()?;
        let (answer, touched) = decide(&mut machine)?;
        self.write(&folder, &machine, &touched)?;
        // also where nothing was touched: what the caller was told is there may be part of a commit still under way
        let batch = self.commit.join();
        drop((folder, machine));
        self.commit.wait(&batch)?;
        Ok(answer)
    }

    /// Writes what the machine touched; a failure breaks the queue, because memory is ahead of the disk then.
    fn write(&self, folder: &Folder, machine: &Machine, touched: &[JobId]) -> Result<(), QueueError> {
        if touched.is_empty() {
            return Ok(());
        }
        folder.write(touched.iter().map(|id| (id, machine.get(id)))).inspect_err(|error| self.commit.break_off(error))
    }

    fn lock(&self) -> MutexGuard<'_, Machine> {
        self.machine.lock().unwrap_or_else(|poisoned| {
            // a bug, here or in sled, ended a change half way: the disk knows the truth, reopen reads it
            self.commit.break_off(&QueueError::Broken("an internal error".into()));
            self.machine.clear_poison();
            poisoned.into_inner()
        })
    }
}

/// Opens the folder in force and reads its jobs; where it is damaged beyond reading, sets it aside and makes an empty one.
fn open_whole(dir: &Path, settings: &Settings, now_unix_ms: u64) -> Result<(Folder, Machine, OpenReport), QueueError> {
    let open = || {
        let (folder, found) = open_folder(dir, settings)?;
        let (machine, report) = load(&folder, settings, now_unix_ms, found)?;
        Ok((folder, machine, report))
    };
    // sled asserts what it finds in its files: a damaged one can end in a panic, which is no bug of ours to die of
    let guarded = catch_unwind(AssertUnwindSafe(open));
    match guarded.unwrap_or_else(|_| Err(QueueError::beyond_reading())) {
        Err(error) if error.is_damage() => {
            folder::leave(dir, &*settings.device)?;
            let (folder, machine, report) = open()?;
            Ok((folder, machine, OpenReport { missing: true, ..report }))
        }
        other => other,
    }
}

/// Opens the folder in force; the report has what was found on the way.
fn open_folder(dir: &Path, settings: &Settings) -> Result<(Folder, OpenReport), QueueError> {
    let current = folder::read_current(dir)?;
    let set_aside = folder::tidy(dir, current)?;
    let number = current.unwrap_or(1);
    let missing = current.is_some() && !folder::path(dir, number).exists();
    let folder = Folder::open(dir, number, Arc::clone(&settings.device))?;
    if current.is_none() {
        folder::write_current(dir, number, &*settings.device)?;
    }
    Ok((folder, OpenReport { set_aside, missing, ..OpenReport::default() }))
}

/// Reads all jobs; those that ran are ready again, on the disk as well.
fn load(
    folder: &Folder,
    settings: &Settings,
    now_unix_ms: u64,
    mut report: OpenReport,
) -> Result<(Machine, OpenReport), QueueError> {
    let mut jobs = Vec::new();
    for record in folder.records() {
        let (key, value) = record?;
        match record::decode(&key, &value) {
            Ok(job) => jobs.push(job),
            Err(Unreadable::Newer(version)) => return Err(Unreadable::newer(version, &key)),
            Err(Unreadable::Damaged) => report.damaged.push(String::from_utf8_lossy(&key).into_owned()),
        }
    }
    report.jobs = jobs.len();
    let (machine, resumed, touched) = Machine::load(settings.retry.clone(), jobs, now_unix_ms);
    report.resumed = resumed;
    folder.write(touched.iter().map(|id| (id, machine.get(id))))?;
    folder.sync()?;
    Ok((machine, report))
}
