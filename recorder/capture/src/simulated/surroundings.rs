//! What a simulated recorder has around it: clocks, sockets, the journal's disk, the folder of the checkpoints, and the moment at which
//! it dies.
//!
//! Clocks and sockets are of the thread: simulations on different threads know nothing of each other.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::fs::File;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::appender::folder;
use crate::checkpoint::{Files, OpenFile};
use crate::clock::wall_ns;
use crate::ports::PortPair;
use crate::receive::Datagram;

/// Datagrams that a socket's buffer holds, about: beyond it they are lost, as in the kernel.
const SOCKET_DATAGRAMS_MAX: usize = 400;

thread_local! {
    static CLOCK: Cell<Option<(u64, i64)>> = const { Cell::new(None) };
    static NETWORK: RefCell<Network> = RefCell::new(Network::default());
}

/// What waits at the media sockets, by port; and which descriptor is which port.
#[derive(Default)]
struct Network {
    ports: HashMap<RawFd, u16>,
    waiting: HashMap<u16, VecDeque<(SocketAddr, i64, Vec<u8>)>>,
}

/// Sets both clocks of this thread: journal time and wall clock, in nanoseconds.
pub fn set_clocks(journal_ns: u64, wall_ns: i64) {
    CLOCK.set(Some((journal_ns, wall_ns)));
}

/// Empties all sockets of this thread: another world begins.
pub fn reset_network() {
    NETWORK.with_borrow_mut(|network| *network = Network::default());
}

/// A datagram arrives at a media port, whoever reads it and when: the sockets outlive recorders. False: its buffer is full.
pub fn arrive(port: u16, from: SocketAddr, bytes: Vec<u8>) -> bool {
    let stamp_ns = wall_ns();
    NETWORK.with_borrow_mut(|network| {
        let waiting = network.waiting.entry(port).or_default();
        let fits = waiting.len() < SOCKET_DATAGRAMS_MAX;
        if fits {
            waiting.push_back((from, stamp_ns, bytes));
        }
        fits
    })
}

/// What waits at a pair of ports is gone: the machine was started again.
pub fn empty(port: u16) {
    NETWORK.with_borrow_mut(|network| {
        network.waiting.remove(&port);
        network.waiting.remove(&port.saturating_add(1));
    });
}

/// Everything that waits is gone.
pub(super) fn empty_all() {
    NETWORK.with_borrow_mut(|network| network.waiting.clear());
}

pub(crate) fn clock_ns(wall: bool) -> Option<i64> {
    let (journal_ns, wall_ns) = CLOCK.get()?;
    Some(if wall { wall_ns } else { i64::try_from(journal_ns).unwrap_or(i64::MAX) })
}

/// In place of `recvmmsg`; none for a socket that is a real one.
pub(crate) fn receive(socket: RawFd, most: usize, each: &mut impl FnMut(Datagram<'_>)) -> Option<usize> {
    let got: Vec<_> = NETWORK.with_borrow_mut(|network| {
        let port = network.ports.get(&socket)?;
        let waiting = network.waiting.entry(*port).or_default();
        Some(waiting.drain(..most.min(waiting.len())).collect())
    })?;
    let count = got.len();
    for (from, stamp_ns, mut bytes) in got {
        each(Datagram { bytes: &mut bytes, from, stamp_ns: Some(stamp_ns), cut: false });
    }
    Some(count)
}

/// A pair of descriptors that stand for sockets. What they are open on does not matter: nothing is read from them.
pub(super) fn pair(port: u16) -> io::Result<PortPair> {
    let rtp = File::open("/dev/null")?;
    let rtcp = File::open("/dev/null")?;
    NETWORK.with_borrow_mut(|network| {
        network.ports.insert(rtp.as_raw_fd(), port);
        network.ports.insert(rtcp.as_raw_fd(), port.saturating_add(1));
    });
    Ok(PortPair { port, rtp: rtp.into(), rtcp: rtcp.into() })
}

/// The life of one recorder, which may end at any of its steps: a write to the journal or to a checkpoint, a message that leaves.
#[derive(Clone)]
pub struct Life(Arc<AtomicU64>);

/// What becomes of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// It is done.
    Whole,
    /// The recorder dies in the middle of it.
    Half,
    /// It was dead before.
    Not,
}

/// The value of a life that is over; one step that is left is 1.
const OVER: u64 = 0;

impl Life {
    /// A recorder that dies in the middle of the step after so many; none: never by itself.
    #[must_use]
    pub fn new(steps: Option<u64>) -> Self {
        Self(Arc::new(AtomicU64::new(steps.unwrap_or(u64::MAX - 1).saturating_add(1))))
    }

    /// Whether it is dead.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.0.load(Ordering::Relaxed) == OVER
    }

    /// One step.
    #[must_use]
    pub fn step(&self) -> Step {
        match self.0.load(Ordering::Relaxed) {
            OVER => Step::Not,
            left => {
                self.0.store(left - 1, Ordering::Relaxed);
                if left == 1 { Step::Half } else { Step::Whole }
            }
        }
    }

    /// The error of every system call of a process that is dead.
    #[must_use]
    pub fn over() -> io::Error {
        io::Error::other("the process has died")
    }
}

/// A file of the journal.
pub trait JournalFile: Send + Sync {
    /// Writes all of `bytes` at `offset`.
    ///
    /// # Errors
    /// What the disk says.
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;
    /// Makes durable what was written.
    ///
    /// # Errors
    /// What the disk says.
    fn sync(&self) -> io::Result<()>;
}

/// The folder of the journal.
pub trait JournalFolder: Send {
    /// Creates a file that was not there, and makes its name durable.
    ///
    /// # Errors
    /// What the disk says.
    fn create(&self, name: &str) -> io::Result<Box<dyn JournalFile>>;
    /// Bytes that can still be written.
    fn free_bytes(&self) -> u64;
}

/// The journal's folder as the appender has it; after each write, checkpoints that were held back are written.
pub(super) struct Journal {
    pub(super) folder: Box<dyn JournalFolder>,
    pub(super) shelf: LivingShelf,
}

struct JournalOpen {
    file: Box<dyn JournalFile>,
    shelf: LivingShelf,
}

impl folder::JournalFolder for Journal {
    fn create(&self, name: &str) -> io::Result<Arc<dyn folder::JournalFile>> {
        Ok(Arc::new(JournalOpen { file: self.folder.create(name)?, shelf: self.shelf.clone() }))
    }

    fn free_bytes(&self) -> Option<u64> {
        Some(self.folder.free_bytes())
    }
}

impl folder::JournalFile for JournalOpen {
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.file.write_at(bytes, offset)?;
        self.shelf.write_late();
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        self.file.sync()
    }
}

/// What was written at each offset of a file.
type Parts = BTreeMap<u64, Vec<u8>>;

/// The folder of the checkpoints: in memory, so that it outlives recorders and daemons and no power cut.
#[derive(Clone, Default)]
pub struct Shelf(Arc<Mutex<BTreeMap<String, Parts>>>);

impl Shelf {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Parts>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The power goes.
    pub fn clear(&self) {
        self.lock().clear();
    }

    /// The names of what is there.
    #[must_use]
    pub fn names(&self) -> Vec<String> {
        self.lock().keys().cloned().collect()
    }
}

/// A write that is held back: file, offset, bytes.
type Late = Arc<Mutex<Vec<(String, u64, Vec<u8>)>>>;

/// The folder as one recorder has it.
#[derive(Clone)]
pub(super) struct LivingShelf {
    pub(super) shelf: Shelf,
    pub(super) life: Life,
    /// Where slots wait until the frames that they speak of are written: a planted mistake.
    pub(super) late: Option<Late>,
    /// Sessions are never forgotten: another.
    pub(super) keeps_sessions: bool,
}

struct ShelfFile {
    shelf: LivingShelf,
    name: String,
}

impl LivingShelf {
    fn write(&self, name: &str, bytes: &[u8], offset: u64) -> io::Result<()> {
        let step = self.life.step();
        let length = match step {
            Step::Whole => bytes.len(),
            Step::Half => bytes.len() / 2,
            Step::Not => return Err(Life::over()),
        };
        let mut files = self.shelf.lock();
        let part = files.entry(name.to_owned()).or_default().entry(offset).or_default();
        if part.len() < length {
            part.resize(length, 0);
        }
        part[..length].copy_from_slice(&bytes[..length]);
        if step == Step::Whole { Ok(()) } else { Err(Life::over()) }
    }

    /// Writes what was held back.
    fn write_late(&self) {
        let Some(late) = &self.late else { return };
        let held = std::mem::take(&mut *late.lock().unwrap_or_else(PoisonError::into_inner));
        for (name, offset, bytes) in held {
            let _ = self.write(&name, &bytes, offset);
        }
    }
}

impl Files for LivingShelf {
    fn replace(&self, name: &str, new: &str, bytes: &[u8]) -> io::Result<()> {
        self.shelf.lock().remove(new);
        self.write(new, bytes, 0)?;
        self.rename(new, name)
    }

    fn open(&self, name: &str) -> io::Result<Box<dyn OpenFile>> {
        if self.life.is_over() {
            return Err(Life::over());
        }
        self.shelf.lock().entry(name.to_owned()).or_default();
        Ok(Box::new(ShelfFile { shelf: self.clone(), name: name.to_owned() }))
    }

    fn read(&self, name: &str, _bytes_max: u64) -> io::Result<Vec<u8>> {
        let files = self.shelf.lock();
        let parts = files.get(name).ok_or(io::ErrorKind::NotFound)?;
        Ok(parts.get(&0).cloned().unwrap_or_default())
    }

    fn read_at(&self, name: &str, bytes: &mut [u8], offset: u64) -> io::Result<()> {
        let files = self.shelf.lock();
        let parts = files.get(name).ok_or(io::ErrorKind::NotFound)?;
        let part = parts.get(&offset).and_then(|part| part.get(..bytes.len())).ok_or(io::ErrorKind::UnexpectedEof)?;
        bytes.copy_from_slice(part);
        Ok(())
    }

    fn names(&self) -> io::Result<Vec<String>> {
        Ok(self.shelf.names())
    }

    fn rename(&self, name: &str, to: &str) -> io::Result<()> {
        if self.life.step() != Step::Whole {
            return Err(Life::over());
        }
        let mut files = self.shelf.lock();
        let parts = files.remove(name).ok_or(io::ErrorKind::NotFound)?;
        files.insert(to.to_owned(), parts);
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        if self.keeps_sessions && name.ends_with(".session") {
            return Ok(());
        }
        if self.life.step() != Step::Whole {
            return Err(Life::over());
        }
        self.shelf.lock().remove(name).map(drop).ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

impl OpenFile for ShelfFile {
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        match &self.shelf.late {
            Some(late) => {
                late.lock().unwrap_or_else(PoisonError::into_inner).push((self.name.clone(), offset, bytes.to_vec()));
                Ok(())
            }
            None => {
                // A file that was removed meanwhile has no name any more: what is written to it is nowhere.
                if self.shelf.shelf.lock().contains_key(&self.name) {
                    self.shelf.write(&self.name, bytes, offset)
                } else {
                    Ok(())
                }
            }
        }
    }
}
