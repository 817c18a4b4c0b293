//! System calls on a store that may never return, made so that nobody waits for them longer than the deadline.
//!
//! Whoever wants something of the store goes on an *errand*: a thread of its own, which alone holds the descriptors that are open
//! there and makes the calls one after the other. Who asked waits for each of them up to the deadline and then goes its way. The thread stays
//! in its call, often in uninterruptible sleep, where not even SIGKILL reaches it; when the call returns it finds
//! nobody waiting, closes what it has open, and ends. It is never joined.
//!
//! Nor does it keep anything of the daemon's: it has a table of descriptors of its own. Otherwise sockets and locks would stay open, even after
//! a SIGKILL, until the call returns, and no other daemon could take the place of this one.
//!
//! As long as a call is overdue the store *hangs* and no errand is begun, so no more threads can get stuck than were at work when it
//! began. The one exception is a share that was unmounted by force and mounted anew: the calls that are stuck in the old mount say nothing of
//! the new one. Which mount is at the store's place is read from the kernel's own table, which never hangs.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use super::{StoreError, StoreState};
use crate::appliance::Bell;

/// Threads that may be stuck in mounts that are not there any more. Each is a stack and a descriptor; so many forced unmounts
/// between two starts mean that something else is wrong.
const LEFT_BEHIND_MAX: usize = 64;

/// How often somebody who waits for a call looks whether the daemon stops.
const STOP_LOOK: Duration = Duration::from_millis(100);

/// What an errand's thread has open.
#[derive(Default)]
pub(super) struct Hand {
    /// The store's folder, once it was entered: its identity was read through this very descriptor.
    pub(super) root: Option<OwnedFd>,
    /// The folder of the file at hand.
    pub(super) folder: Option<OwnedFd>,
    /// The file at hand.
    pub(super) file: Option<File>,
}

type Call = Box<dyn FnOnce(&mut Hand) + Send>;

/// A call under way.
#[derive(Debug, Clone, Copy)]
struct Underway {
    since: Instant,
    mount: Option<u64>,
}

/// Calls under way, and who may begin one.
#[derive(Debug)]
pub(super) struct Errands {
    /// The store's folder.
    path: PathBuf,
    /// How long a call may take.
    timeout: Duration,
    next: AtomicU64,
    stopping: AtomicBool,
    underway: Mutex<BTreeMap<u64, Underway>>,
    /// Rung when a call has returned that was overdue.
    pub(super) returned: Bell,
}

impl Errands {
    pub(super) fn new(path: &Path, timeout: Duration, returned: Bell) -> Arc<Self> {
        Arc::new(Self {
            path: path.to_owned(),
            timeout,
            next: AtomicU64::new(0),
            stopping: AtomicBool::new(false),
            underway: Mutex::default(),
            returned,
        })
    }

    /// Nobody waits any longer, and nothing is begun.
    pub(super) fn stop(&self) {
        self.stopping.store(true, Ordering::Relaxed);
        self.returned.ring();
    }

    /// Begins an errand, unless the store hangs.
    pub(super) fn begin(self: &Arc<Self>) -> Result<Errand, StoreError> {
        if self.stopping.load(Ordering::Relaxed) {
            return Err(StoreError::Stopping);
        }
        let mount = mount_at(&self.path);
        let (mut longest, mut left_behind) = (None, 0);
        for call in self.underway().values() {
            let taken = call.since.elapsed();
            if taken > self.timeout {
                if call.mount == mount {
                    longest = longest.max(Some(taken));
                } else {
                    left_behind += 1;
                }
            }
        }
        if let Some(taken) = longest {
            return Err(self.hung(taken));
        }
        if left_behind >= LEFT_BEHIND_MAX {
            let why = format!("{left_behind} calls are stuck in mounts that are gone; restart the service");
            return Err(StoreError::away(StoreState::Hung, &self.path, why));
        }
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let (to, calls) = channel();
        let errands = Arc::clone(self);
        let serve = move || errands.serve(number, mount, &calls);
        let thread = thread::Builder::new().name("store-errand".into()).spawn(serve);
        thread.map_err(|error| StoreError::io("begin to use", &self.path)(error))?;
        Ok(Errand { errands: Arc::clone(self), to, number, mount, lost: AtomicBool::new(false) })
    }

    /// Errands begun so far.
    #[cfg(test)]
    pub(super) fn begun(&self) -> u64 {
        self.next.load(Ordering::Relaxed)
    }

    /// Calls under way.
    #[cfg(test)]
    pub(super) fn waits(&self) -> usize {
        self.underway().len()
    }

    fn serve(&self, number: u64, mount: Option<u64>, calls: &Receiver<Call>) {
        part_from_descriptors();
        let mut hand = Hand::default();
        for call in calls {
            call(&mut hand);
        }
        // Closing a file may take as long as any other call.
        let _under = self.under_way(number, mount, Instant::now());
        drop(hand);
    }

    fn underway(&self) -> MutexGuard<'_, BTreeMap<u64, Underway>> {
        self.underway.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn under_way(&self, number: u64, mount: Option<u64>, since: Instant) -> UnderWay<'_> {
        self.underway().insert(number, Underway { since, mount });
        UnderWay { errands: self, number }
    }

    fn hung(&self, taken: Duration) -> StoreError {
        let why = format!("it has not answered for {} s", taken.as_secs());
        StoreError::away(StoreState::Hung, &self.path, why)
    }
}

/// Gives this thread a table of descriptors of its own, with the standard ones alone in it. What it opens from now on is known to no other
/// thread, and nothing that others open is known to it: no descriptor may go from the one to the other.
#[allow(unsafe_code)]
fn part_from_descriptors() {
    use nix::libc::{CLOSE_RANGE_UNSHARE, SYS_close_range, c_int, c_uint, syscall};
    // SAFETY: close_range(2) takes three integers and touches no memory. With this flag the descriptors are closed in a table that this
    // thread alone has. Those that others own stay open in theirs, and none of them is used here: what a call works with is in `Hand`,
    // which was opened on this thread.
    let result = unsafe { syscall(SYS_close_range, 3 as c_uint, c_uint::MAX, CLOSE_RANGE_UNSHARE as c_int) };
    if result != 0 {
        tracing::debug!(
            "the kernel cannot give a thread descriptors of its own; a share that hangs may delay a restart"
        );
    }
}

/// A call is under way until this is dropped, also by a panic.
struct UnderWay<'a> {
    errands: &'a Errands,
    number: u64,
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        let call = self.errands.underway().remove(&self.number);
        if call.is_some_and(|call| call.since.elapsed() > self.errands.timeout) {
            self.errands.returned.ring();
        }
    }
}

/// One errand. When it is dropped, its thread closes what it has open and ends.
#[derive(Debug)]
pub(super) struct Errand {
    errands: Arc<Errands>,
    to: Sender<Call>,
    number: u64,
    mount: Option<u64>,
    /// A call did not return in time; its thread is not asked for anything any more.
    lost: AtomicBool,
}

impl Errand {
    /// Whether a call of it did not return in time, so that it makes no other.
    pub(super) fn is_lost(&self) -> bool {
        self.lost.load(Ordering::Relaxed)
    }

    /// Has `call` made and waits for it, up to the deadline.
    ///
    /// # Errors
    /// What the call says; hung, when it does not return in time; [`StoreError::Stopping`].
    pub(super) fn run<T: Send + 'static>(
        &self,
        call: impl FnOnce(&mut Hand) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let timeout = self.errands.timeout;
        if self.is_lost() {
            return Err(self.errands.hung(timeout));
        }
        let (answer, answered) = sync_channel(1);
        let (errands, number, mount) = (Arc::clone(&self.errands), self.number, self.mount);
        // It counts from when it was asked for: when that is too long ago for who asked, it is overdue for everybody.
        let begun = Instant::now();
        let made: Call = Box::new(move |hand| {
            let under_way = errands.under_way(number, mount, begun);
            let result = call(hand);
            drop(under_way);
            // Nobody may be waiting any more.
            let _ = answer.send(result);
        });
        let broken =
            || StoreError::io("use", &self.errands.path)(std::io::Error::other("an internal error, see the log"));
        self.to.send(made).map_err(|_| broken())?;
        loop {
            let left = timeout.saturating_sub(begun.elapsed());
            match answered.recv_timeout(left.min(STOP_LOOK)) {
                Ok(result) => return result,
                Err(RecvTimeoutError::Disconnected) => return Err(broken()),
                Err(RecvTimeoutError::Timeout) => {}
            }
            let is_stopping = self.errands.stopping.load(Ordering::Relaxed);
            if is_stopping || begun.elapsed() > timeout {
                self.lost.store(true, Ordering::Relaxed);
                return Err(if is_stopping { StoreError::Stopping } else { self.errands.hung(begun.elapsed()) });
            }
        }
    }
}

/// The kernel's number for the mount that a path is on, by the table of mounts: no file system is asked. None where the table cannot
/// be read.
fn mount_at(path: &Path) -> Option<u64> {
    mount_in(&fs::read_to_string("/proc/self/mountinfo").ok()?, path)
}

/// [`mount_at`] by a table in the form of proc_pid_mountinfo(5).
fn mount_in(table: &str, path: &Path) -> Option<u64> {
    let mounts = table.lines().filter_map(|line| {
        let mut fields = line.split(' ');
        let (number, point) = (fields.next()?.parse().ok()?, fields.nth(3)?);
        let point = PathBuf::from(unescaped(point));
        path.starts_with(&point).then(|| (point.components().count(), number))
    });
    // Of those at the same place the last one covers the others.
    mounts.max_by_key(|(depth, _)| *depth).map(|(_, number)| number)
}

/// Whether a table of file systems in the form of fstab(5) has one for `path` or a folder above it, the root left out, that a table
/// of mounts does not have. It is where the store must not be made, because it would be made on the disk below.
pub(super) fn unmounted_in(fstab: &str, mounts: &str, path: &Path) -> Option<PathBuf> {
    let mounted: Vec<String> = mounts.lines().filter_map(|line| line.split(' ').nth(4).map(unescaped)).collect();
    let listed = fstab.lines().map(str::trim).filter(|line| !line.starts_with('#'));
    let points = listed.filter_map(|line| line.split_whitespace().nth(1)).map(unescaped);
    points
        .filter(|point| {
            point.len() > 1 && path.starts_with(point) && !mounted.iter().any(|m| Path::new(m) == Path::new(point))
        })
        .map(PathBuf::from)
        .next()
}

/// [`unmounted_in`] by this machine's tables.
pub(super) fn unmounted_above(path: &Path) -> Option<PathBuf> {
    let fstab = fs::read_to_string("/etc/fstab").ok()?;
    unmounted_in(&fstab, &fs::read_to_string("/proc/self/mountinfo").ok()?, path)
}

/// Spaces and the like stand in these tables as a backslash and three octal digits.
fn unescaped(text: &str) -> String {
    [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")]
        .iter()
        .fold(text.to_owned(), |text, (code, character)| text.replace(code, character))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::{mount_in, unmounted_in};

    const MOUNTS: &str = "\
22 1 254:1 / / rw,relatime shared:1 - ext4 /dev/vda1 rw
50 22 0:44 / /mnt/share rw,relatime - nfs4 server:/x rw
61 22 0:45 / /mnt/my\\040share rw - cifs //server/x rw
70 22 0:46 / /mnt/share rw,relatime - nfs4 server:/x rw
";

    fn check_mount(path: &str, expected: u64) {
        assert_eq!(mount_in(MOUNTS, Path::new(path)), Some(expected), "{path}");
    }

    #[test]
    fn the_mount_of_a_path_is_the_deepest_and_last() {
        check_mount("/var/lib/callvault/store", 22);
        check_mount("/mnt/share", 70);
        check_mount("/mnt/share/callvault", 70);
        check_mount("/mnt/shared", 22);
        check_mount("/mnt/my share/store", 61);
        assert_eq!(mount_in("nonsense\n", Path::new("/")), None);
    }

    fn check_unmounted(fstab: &str, path: &str, expected: Option<&str>) {
        assert_eq!(unmounted_in(fstab, MOUNTS, Path::new(path)).as_deref(), expected.map(Path::new), "{path}");
    }

    #[test]
    fn a_share_that_should_be_mounted_is_missed() {
        let fstab = "# server:/w /mnt/none nfs defaults 0 0\nUUID=1 / ext4 defaults 0 1\nserver:/x /mnt/share nfs defaults 0 0\n\
                     server:/y\t/mnt/other\tnfs defaults 0 0\n//server/z /mnt/an\\040other/ cifs x 0 0\nUUID=2 none swap sw 0 0\n";
        check_unmounted(fstab, "/mnt/share/store", None);
        check_unmounted(fstab, "/mnt/other/store", Some("/mnt/other"));
        check_unmounted(fstab, "/mnt/an other", Some("/mnt/an other"));
        check_unmounted(fstab, "/mnt/none", None);
        check_unmounted(fstab, "/var/lib/callvault/store", None);
    }
}
