//! A disk with a page cache: what processes see, and what a power cut leaves.
//!
//! A write changes the cache. A sync that succeeds brings a file's dirty sectors to the device; one that fails forgets that they
//! were dirty, as Linux does: the cache goes on showing what the device does not have. Names are made, changed and removed in the
//! cache, and reach the device in their order, when their folder is synced or by themselves. A power cut leaves the device with any
//! choice of the dirty sectors, and with the first of the waiting changes of names, however many.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use callvault_journal::ReadAt;

use crate::dice::Dice;

/// What a disk writes whole or not at all.
const SECTOR_BYTES: usize = 512;

/// Names a file for ever, whatever its name.
pub(crate) type Inode = u64;

#[derive(Default)]
struct Content {
    cache: Vec<u8>,
    device: Vec<u8>,
    dirty: BTreeSet<usize>,
    /// Syncs that have failed: each open file hears of each once, whoever asked.
    failures: u32,
}

/// What an open file has heard of failed syncs.
pub(crate) type Heard = AtomicU32;

enum Change {
    Made(String, Inode),
    Moved(String, String),
    Removed(String),
}

#[derive(Default)]
struct State {
    files: BTreeMap<Inode, Content>,
    names: BTreeMap<String, Inode>,
    device_names: BTreeMap<String, Inode>,
    changes: VecDeque<Change>,
    next: Inode,
    room: u64,
    syncs_that_fail: u32,
    creates_that_fail: u32,
    bits_that_flip: u32,
    /// Folder syncs do nothing: a planted mistake.
    ignores_folder_syncs: bool,
}

/// A disk, shared by all who use it.
#[derive(Clone)]
pub(crate) struct Device(Arc<Mutex<State>>);

impl Device {
    pub(crate) fn new(room: u64) -> Self {
        Self(Arc::new(Mutex::new(State { room, ..State::default() })))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn set_room(&self, room: u64) {
        self.lock().room = room;
    }

    pub(crate) fn room(&self) -> u64 {
        self.lock().room
    }

    pub(crate) fn fail_syncs(&self, count: u32) {
        self.lock().syncs_that_fail = count;
    }

    pub(crate) fn fail_creates(&self, count: u32) {
        self.lock().creates_that_fail = count;
    }

    /// The next so many writes are kept with one bit changed.
    pub(crate) fn flip_bits(&self, count: u32) {
        self.lock().bits_that_flip = count;
    }

    pub(crate) fn ignore_folder_syncs(&self) {
        self.lock().ignores_folder_syncs = true;
    }

    pub(crate) fn heal(&self, room: u64) {
        let mut state = self.lock();
        (state.room, state.syncs_that_fail, state.creates_that_fail, state.bits_that_flip) = (room, 0, 0, 0);
    }

    /// Makes a file. What is there under that name is an error, unless it is to be emptied.
    pub(crate) fn create(&self, name: &str, truncate: bool) -> io::Result<Inode> {
        let mut state = self.lock();
        if state.creates_that_fail > 0 {
            state.creates_that_fail -= 1;
            return Err(io::ErrorKind::StorageFull.into());
        }
        if let Some(&inode) = state.names.get(name) {
            let content = state.files.entry(inode).or_default();
            if truncate || content.cache.is_empty() {
                content.cache.clear();
                content.dirty.clear();
                content.device.clear();
                return Ok(inode);
            }
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let inode = state.next;
        state.next += 1;
        state.files.insert(inode, Content::default());
        state.names.insert(name.to_owned(), inode);
        state.changes.push_back(Change::Made(name.to_owned(), inode));
        Ok(inode)
    }

    pub(crate) fn write_at(&self, inode: Inode, bytes: &[u8], offset: u64) -> io::Result<()> {
        let mut state = self.lock();
        let fits = bytes.len().min(usize::try_from(state.room).unwrap_or(usize::MAX));
        state.room -= fits as u64;
        let flips = state.bits_that_flip > 0;
        state.bits_that_flip = state.bits_that_flip.saturating_sub(1);
        let content = state.files.get_mut(&inode).ok_or(io::ErrorKind::NotFound)?;
        let from = usize::try_from(offset).unwrap_or(usize::MAX);
        let end = from + fits;
        if content.cache.len() < end {
            content.cache.resize(end, 0);
        }
        content.cache[from..end].copy_from_slice(&bytes[..fits]);
        if flips && fits > 0 {
            content.cache[from + fits / 2] ^= 0x10;
        }
        if fits > 0 {
            content.dirty.extend(from / SECTOR_BYTES..=(end - 1) / SECTOR_BYTES);
        }
        if fits < bytes.len() { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
    }

    /// Opens a file: nothing that failed before concerns who does.
    pub(crate) fn heard(&self, inode: Inode) -> Heard {
        AtomicU32::new(self.lock().files.get(&inode).map_or(0, |content| content.failures))
    }

    /// Whether a sync of it has ever failed.
    pub(crate) fn has_failed(&self, inode: Inode) -> bool {
        self.lock().files.get(&inode).is_some_and(|content| content.failures > 0)
    }

    /// What a process does that opens a file only to sync it.
    pub(crate) fn open_and_sync(&self, inode: Inode) -> io::Result<()> {
        self.sync(inode, &self.heard(inode))
    }

    pub(crate) fn sync(&self, inode: Inode, heard: &Heard) -> io::Result<()> {
        let mut state = self.lock();
        let fails = state.syncs_that_fail > 0;
        state.syncs_that_fail = state.syncs_that_fail.saturating_sub(1);
        let content = state.files.get_mut(&inode).ok_or(io::ErrorKind::NotFound)?;
        if fails {
            content.dirty.clear();
            content.failures += 1;
        } else {
            content.reach_device(|_| true);
        }
        if heard.swap(content.failures, Ordering::Relaxed) < content.failures {
            return Err(io::Error::from_raw_os_error(5));
        }
        Ok(())
    }

    pub(crate) fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut state = self.lock();
        let inode = state.names.remove(from).ok_or(io::ErrorKind::NotFound)?;
        state.names.insert(to.to_owned(), inode);
        state.changes.push_back(Change::Moved(from.to_owned(), to.to_owned()));
        Ok(())
    }

    pub(crate) fn remove(&self, name: &str) {
        let mut state = self.lock();
        if let Some(inode) = state.names.remove(name) {
            let freed = state.files.get(&inode).map_or(0, |content| content.cache.len() as u64);
            state.room = state.room.saturating_add(freed);
            state.changes.push_back(Change::Removed(name.to_owned()));
        }
    }

    pub(crate) fn sync_folder(&self) {
        let mut state = self.lock();
        if !state.ignores_folder_syncs {
            let count = state.changes.len();
            state.names_reach_device(count);
        }
    }

    pub(crate) fn names(&self) -> Vec<String> {
        self.lock().names.keys().cloned().collect()
    }

    pub(crate) fn inode(&self, name: &str) -> Option<Inode> {
        self.lock().names.get(name).copied()
    }

    pub(crate) fn read(&self, name: &str) -> Option<Vec<u8>> {
        let state = self.lock();
        state.names.get(name).and_then(|inode| state.files.get(inode)).map(|content| content.cache.clone())
    }

    /// Whether what a process sees of these bytes is on the device, under a name that is.
    pub(crate) fn is_durable(&self, inode: Inode, offset: usize, length: usize) -> bool {
        let state = self.lock();
        let range = offset..offset + length;
        let named = state.device_names.values().any(|known| *known == inode);
        let same = state.files.get(&inode).is_some_and(|content| {
            content.device.get(range.clone()).is_some_and(|bytes| Some(bytes) == content.cache.get(range))
        });
        named && same
    }

    /// The power goes, and comes back.
    pub(crate) fn power_cut(&self, dice: &mut Dice) {
        let mut state = self.lock();
        let count = dice.below(state.changes.len() as u64 + 1) as usize;
        state.names_reach_device(count);
        state.changes.clear();
        state.names = state.device_names.clone();
        let kept: BTreeSet<Inode> = state.names.values().copied().collect();
        state.files.retain(|inode, _| kept.contains(inode));
        for content in state.files.values_mut() {
            let (manner, first) = (dice.below(4), content.dirty.first().copied().unwrap_or(0));
            let upto = first + dice.below(content.dirty.len() as u64 + 1) as usize;
            content.reach_device(|sector| match manner {
                0 => false,
                1 => true,
                2 => sector < upto,
                _ => dice.one_in(2),
            });
            content.cache = content.device.clone();
        }
    }

    /// Something to read a file by.
    pub(crate) fn reading(&self, name: &str) -> Option<Reading> {
        self.inode(name).map(|inode| Reading { device: self.clone(), inode })
    }
}

impl State {
    fn names_reach_device(&mut self, count: usize) {
        for change in self.changes.drain(..count) {
            match change {
                Change::Made(name, inode) => _ = self.device_names.insert(name, inode),
                Change::Moved(from, to) => {
                    if let Some(inode) = self.device_names.remove(&from) {
                        self.device_names.insert(to, inode);
                    }
                }
                Change::Removed(name) => _ = self.device_names.remove(&name),
            }
        }
    }
}

impl Content {
    /// Brings those of the dirty sectors to the device that are chosen. None is dirty afterwards.
    fn reach_device(&mut self, mut chosen: impl FnMut(usize) -> bool) {
        for sector in std::mem::take(&mut self.dirty) {
            let range = sector * SECTOR_BYTES..((sector + 1) * SECTOR_BYTES).min(self.cache.len());
            if range.is_empty() || !chosen(sector) {
                continue;
            }
            if self.device.len() < range.end {
                self.device.resize(range.end, 0);
            }
            self.device[range.clone()].copy_from_slice(&self.cache[range]);
        }
    }
}

/// An open file, read as a process sees it.
pub(crate) struct Reading {
    device: Device,
    inode: Inode,
}

impl ReadAt for Reading {
    fn len(&mut self) -> io::Result<u64> {
        let state = self.device.lock();
        state
            .files
            .get(&self.inode)
            .map(|content| content.cache.len() as u64)
            .ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn read_at(&mut self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        let state = self.device.lock();
        let content = state.files.get(&self.inode).ok_or(io::ErrorKind::NotFound)?;
        let mut bytes: &[u8] = &content.cache;
        bytes.read_at(offset, buf)
    }
}
