//! Moving archives to another store: a thread that copies one after the other to the store in use, and what is told of it.
//!
//! An archive is moved so, each step durable before the next:
//!
//! 1. the catalogue notes that there may be a copy;
//! 2. the copy is written ([`Store::put`]);
//! 3. it is read back, and must be, byte by byte, the file that is on record by its SHA-256;
//! 4. the catalogue names the copy in the place of the original, and notes that there may still be the original;
//! 5. the original is removed;
//! 6. the note goes.
//!
//! Everything that must be known is in the catalogue and in `stores.json`, so whatever is killed at any of these goes on by itself, and the
//! recording can be played and deleted all the while: what is noted goes with its keys when the recording is deleted, and without, as
//! a mere copy, otherwise. A store that is away makes the move wait. An archive that is not what is on record stays where it is; it is
//! told, and the others go on.

mod answers;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::io::{self, BufWriter, Read, Write};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use callvault_catalogue::{ArchivePlace, CatalogueError, Leaving, STORED_ROWS_MAX, StoredArchive};
use callvault_policy::overload::Rank;
use sha2::{Digest, Sha256};
use uuid::Uuid;

use crate::appliance::{Appliance, Bell};
use crate::overload;
use crate::store::{Store, StoreError, StoreFile};

/// Part under which health shows that a move does not go on.
pub(crate) const NOTE: &str = "store-move";

/// Part under which health shows that it is not known which stores there are.
pub(crate) const RECORD_NOTE: &str = "store-record";

/// How often it is looked whether there is something to do.
const LOOK: Duration = Duration::from_secs(5);

/// Archives that could not be moved are tried again after this long.
const AGAIN: Duration = Duration::from_secs(600);

/// Bytes copied at once.
const BLOCK_BYTES: usize = 256 * 1024;

/// Longest sleep while it is throttled, so that a stop is not waited for.
const NAP: Duration = Duration::from_millis(200);

/// Failures that are remembered one by one.
const FAILED_MAX: usize = 1_000;

/// Why an archive was not moved.
#[derive(Debug, thiserror::Error)]
enum MoveError {
    #[error("{0}")]
    Store(#[from] StoreError),
    #[error("{0}")]
    Catalogue(#[from] CatalogueError),
    #[error("read the archive: {0}")]
    Read(io::Error),
    #[error("write the copy: {0}")]
    Write(io::Error),
    #[error("move the archive: the {0} is not what is on record; `callvaultctl recordings verify ID` looks at it")]
    Different(&'static str),
    #[error("go on: the daemon is stopping")]
    Stopping,
}

impl MoveError {
    /// Whether it says nothing of this archive: then the rest would fail in the same way.
    fn is_of_all(&self) -> bool {
        match self {
            Self::Store(error) => error.is_away(),
            Self::Read(error) | Self::Write(error) => crate::store::is_away(error),
            Self::Catalogue(_) | Self::Stopping => true,
            Self::Different(_) => false,
        }
    }
}

/// What is known of the move under way; all of it is lost with the process, and found again.
#[derive(Debug, Default)]
pub(crate) struct Moving {
    failed: Mutex<BTreeMap<Uuid, String>>,
    /// Archives and bytes moved since the daemon's start.
    pub(crate) moved: AtomicU64,
    pub(crate) moved_bytes: AtomicU64,
    /// Archives still to be moved, when it was last counted.
    pub(crate) left: AtomicU64,
    /// Rung when somebody asked for a move.
    pub(crate) bell: Bell,
}

impl Moving {
    fn failed(&self) -> MutexGuard<'_, BTreeMap<Uuid, String>> {
        self.failed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The thread: moves what is to be moved, and takes away what is left somewhere.
pub(crate) fn run(appliance: &Appliance) {
    overload::give_way(Rank::Exports);
    let (mut heard, mut failed_at) = (0, None::<Instant>);
    while !appliance.stopping.load(Ordering::Relaxed) {
        if failed_at.is_some_and(|at| at.elapsed() > AGAIN) {
            failed_at = None;
        }
        match pass(appliance, failed_at.is_some()) {
            Ok(()) if appliance.moving.failed().is_empty() => appliance.notes.clear(NOTE),
            Ok(()) => {
                let count = appliance.moving.failed().len();
                let text = format!(
                    "{count} archives could not be moved and stay where they are; `callvaultctl store status` names them. It is tried again by itself"
                );
                appliance.notes.set(NOTE, text);
                failed_at.get_or_insert_with(Instant::now);
            }
            Err(MoveError::Stopping | MoveError::Store(StoreError::Stopping)) => return,
            Err(error) => appliance.notes.set(NOTE, format!("failed to {error}; the move goes on when that is over")),
        }
        let rings = appliance.moving.bell.wait(heard, LOOK);
        if rings > heard {
            failed_at = None;
        }
        heard = rings;
    }
}

/// Takes away what is left, then moves all that is to be moved, but for what has failed if that is not to be `tried` again.
fn pass(appliance: &Appliance, is_tried: bool) -> Result<(), MoveError> {
    let sources = appliance.store.sources();
    take_leavings(appliance, &sources)?;
    if sources.is_empty() {
        appliance.moving.failed().clear();
        appliance.moving.left.store(0, Ordering::Relaxed);
        return Ok(());
    }
    if !is_tried {
        appliance.moving.failed().clear();
    }
    let has = appliance.catalogue.store_has()?;
    let left = sources.iter().filter_map(|name| has.get(name)).map(|has| has.archives).sum();
    appliance.moving.left.store(left, Ordering::Relaxed);
    // Looked at before the rows are: what is written from now on goes to the new store.
    let is_written = sources.iter().any(|name| appliance.store.is_written(name));
    let mut stay = 0;
    for source in &sources {
        stay += move_all(appliance, source)?;
    }
    let is_done = stay == 0 && !is_written && appliance.catalogue.leavings()?.is_empty();
    if is_done {
        appliance.store.end_move(&sources).map_err(MoveError::Write)?;
        tracing::info!("every archive is in the store {} now", appliance.store.path().display());
    }
    Ok(())
}

/// Moves the archives of one store; how many stay there.
fn move_all(appliance: &Appliance, source: &str) -> Result<u64, MoveError> {
    let (mut after, mut stay) = (None, 0);
    loop {
        let page = appliance.catalogue.archives_in(source, after)?;
        for StoredArchive { id, started_at } in &page {
            after = Some((*started_at, *id));
            while !overload::may_export(appliance) && !appliance.stopping.load(Ordering::Relaxed) {
                appliance.stop_bell.wait(0, overload::LOOK);
            }
            if appliance.stopping.load(Ordering::Relaxed) {
                return Err(MoveError::Stopping);
            }
            if !appliance.store.sources().iter().any(|one| one == source) {
                // Somebody wants them elsewhere by now; one stays at least, so that this pass does not end that move.
                return Ok(1);
            }
            if appliance.moving.failed().contains_key(id) {
                stay += 1;
                continue;
            }
            match move_one(appliance, *id) {
                Ok(()) => {}
                Err(error) if error.is_of_all() => return Err(error),
                Err(error) => {
                    stay += 1;
                    tracing::error!(recording = %id, "failed to {error}; it stays where it is");
                    let mut failed = appliance.moving.failed();
                    if failed.len() < FAILED_MAX {
                        failed.insert(*id, format!("failed to {error}"));
                    }
                }
            }
            let _ =
                appliance.moving.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1));
        }
        if page.len() < STORED_ROWS_MAX as usize {
            return Ok(stay);
        }
    }
}

/// Moves one archive to the store in use.
fn move_one(appliance: &Appliance, id: Uuid) -> Result<(), MoveError> {
    let target = appliance.store.for_writing();
    let Some(place) = appliance.catalogue.archive_place(id)?.filter(|place| place.store != target.name) else {
        return Ok(());
    };
    let source = appliance.store.of(&place.store)?;
    if !appliance.catalogue.copying(id, &place, &target.name)? {
        return Ok(());
    }
    let copied = copy(appliance, (&source, &target.store), &place);
    if let Err(error) = copied {
        // What was deleted meanwhile is no failure; what there may be of a copy is on record as such.
        let is_gone = appliance.catalogue.archive_place(id)?.as_ref() != Some(&place);
        return if is_gone { take_leavings_of(appliance, id) } else { Err(error) };
    }
    if appliance.catalogue.moved(id, &place, &target.name)? {
        appliance.moving.moved.fetch_add(1, Ordering::Relaxed);
        appliance.moving.moved_bytes.fetch_add(place.bytes, Ordering::Relaxed);
        tracing::debug!(recording = %id, from = place.store, to = target.name, "archive moved");
    }
    take_leavings_of(appliance, id)
}

/// Copies an archive and reads the copy back.
fn copy(
    appliance: &Appliance,
    (source, target): (&Arc<Store>, &Arc<Store>),
    place: &ArchivePlace,
) -> Result<(), MoveError> {
    let path = Path::new(&place.path);
    let mut pace = Pace::new(appliance);
    let mut from = source.get(path)?;
    target.put(path, |mut out: BufWriter<StoreFile>| {
        let digest = digest_of(&mut from, &mut pace, |block| out.write_all(block).map_err(MoveError::Write))?;
        if digest != (place.bytes, place.sha256) {
            return Err(MoveError::Different("archive"));
        }
        Ok((out, ()))
    })?;
    let mut back = target.get_back(path)?;
    if digest_of(&mut back, &mut pace, |_| Ok(()))? != (place.bytes, place.sha256) {
        return Err(MoveError::Different("copy, as it is read back,"));
    }
    Ok(())
}

/// Reads a file to its end: its length and SHA-256.
fn digest_of(
    from: &mut StoreFile,
    pace: &mut Pace<'_>,
    mut each: impl FnMut(&[u8]) -> Result<(), MoveError>,
) -> Result<(u64, [u8; 32]), MoveError> {
    let (mut digest, mut bytes) = (Sha256::new(), 0_u64);
    let mut block = vec![0; BLOCK_BYTES];
    loop {
        let count = from.read(&mut block).map_err(MoveError::Read)?;
        if count == 0 {
            return Ok((bytes, digest.finalize().into()));
        }
        digest.update(&block[..count]);
        bytes = bytes.saturating_add(count as u64);
        each(&block[..count])?;
        pace.take(count as u64)?;
    }
}

/// Holds the copying back to the rate that somebody asked for.
struct Pace<'a> {
    appliance: &'a Appliance,
    rate: u64,
    begun: Instant,
    bytes: u64,
}

impl<'a> Pace<'a> {
    fn new(appliance: &'a Appliance) -> Self {
        let rate = appliance.store.record().moving.map_or(0, |moving| moving.rate_bytes_per_s);
        Self { appliance, rate, begun: Instant::now(), bytes: 0 }
    }

    /// So many bytes went.
    fn take(&mut self, bytes: u64) -> Result<(), MoveError> {
        self.bytes = self.bytes.saturating_add(bytes);
        loop {
            if self.appliance.stopping.load(Ordering::Relaxed) {
                return Err(MoveError::Stopping);
            }
            let due = due_after(self.bytes, self.rate);
            let ahead = due.saturating_sub(self.begun.elapsed());
            if ahead.is_zero() {
                return Ok(());
            }
            thread::sleep(ahead.min(NAP));
        }
    }
}

/// How long so many bytes take at a rate; 0: no time at all.
fn due_after(bytes: u64, rate_bytes_per_s: u64) -> Duration {
    let micros = u128::from(bytes).saturating_mul(1_000_000).checked_div(u128::from(rate_bytes_per_s)).unwrap_or(0);
    Duration::from_micros(u64::try_from(micros).unwrap_or(u64::MAX))
}

fn take_leavings_of(appliance: &Appliance, id: Uuid) -> Result<(), MoveError> {
    for leaving in appliance.catalogue.leavings_of(id)? {
        take_leaving(appliance, &leaving)?;
    }
    Ok(())
}

/// Takes away what is left in stores. A store that is away keeps what it has until it is back; where nothing is moved from or to it, that
/// is no trouble of the move's.
fn take_leavings(appliance: &Appliance, sources: &[String]) -> Result<(), MoveError> {
    let mut trouble = None;
    for leaving in appliance.catalogue.leavings()? {
        match take_leaving(appliance, &leaving) {
            Ok(()) => {}
            Err(error @ (MoveError::Catalogue(_) | MoveError::Stopping)) => return Err(error),
            Err(error) => {
                let concerns = sources.contains(&leaving.store) || leaving.store == appliance.store.record().current;
                trouble = trouble.or_else(|| concerns.then_some(error));
            }
        }
    }
    trouble.map_or(Ok(()), Err)
}

fn take_leaving(appliance: &Appliance, leaving: &Leaving) -> Result<(), MoveError> {
    let on_record = appliance.catalogue.archive_place(leaving.id)?;
    // It cannot be, but what is on record is never taken away.
    if on_record.is_none_or(|place| (place.store.as_str(), place.path.as_str()) != (&*leaving.store, &*leaving.path)) {
        let store = appliance.store.of(&leaving.store)?;
        let path = Path::new(&leaving.path);
        if appliance.catalogue.is_deleted(leaving.id)? { store.remove(path)? } else { store.discard(path)? }
    }
    Ok(appliance.catalogue.left_nothing(leaving)?)
}
