//! What the tests share: ids, jobs, and a device that counts, fails and takes pictures.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used)]

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use callvault_queue::{Device, JobKind, KindLimits, NewJob, Queue, Settings};
use uuid::Uuid;

pub const NOW: u64 = 1_800_000_000_000;

pub fn job(kind: &JobKind, n: u128) -> NewJob {
    NewJob::new(kind.clone(), Uuid::from_u128(n))
}

pub fn archive(n: u128) -> NewJob {
    job(&JobKind::ARCHIVE, n)
}

pub fn limits(archive: usize, upload: usize) -> KindLimits {
    [(JobKind::ARCHIVE, archive), (JobKind::UPLOAD, upload)].into()
}

pub fn open(dir: &Path) -> Queue {
    Queue::open(dir, Settings::default(), NOW).unwrap().0
}

/// Counts syncs of `db`, fails them on demand, and copies the queue's folder at each one: what a power cut at
/// that moment would leave at least.
#[derive(Debug, Default)]
pub struct TestDevice {
    pub db_syncs: AtomicUsize,
    pub paths: Mutex<Vec<PathBuf>>,
    pub failing: AtomicBool,
    pub picture: Mutex<Option<(PathBuf, PathBuf)>>,
    pub gate: Mutex<()>,
}

impl Device for TestDevice {
    fn sync(&self, path: &Path, _file: &File) -> io::Result<()> {
        let _gate = self.gate.lock().unwrap();
        if self.failing.load(Ordering::SeqCst) {
            return Err(io::Error::other("the test says so"));
        }
        self.paths.lock().unwrap().push(path.to_owned());
        if path.ends_with("db") {
            self.db_syncs.fetch_add(1, Ordering::SeqCst);
            if let Some((from, to)) = &*self.picture.lock().unwrap() {
                copy(from, to);
            }
        }
        Ok(())
    }
}

pub fn with_device(dir: &Path) -> (Queue, Arc<TestDevice>) {
    let device = Arc::new(TestDevice::default());
    let settings = Settings { device: device.clone(), ..Settings::default() };
    (Queue::open(dir, settings, NOW).unwrap().0, device)
}

fn copy(from: &Path, to: &Path) {
    let _ = fs::remove_dir_all(to);
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &to);
        } else {
            fs::copy(entry.path(), to).unwrap();
        }
    }
}
