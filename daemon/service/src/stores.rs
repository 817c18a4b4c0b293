//! Which stores there are: the one that new archives go to, and those that archives may still be in.
//!
//! There is one, that of `store.path`, until somebody has its archives moved elsewhere ([`crate::moving`]). From then on the file
//! `stores.json` in the data folder says which stores there are, by names that rows of the catalogue have, and to which one new archives go.
//! It is written whole before the first row can name what is in it. Each store has an identity of its own that is expected of it.
//!
//! `store.path` is what an operator says, so a change of it is obeyed at the next start ([`Record::follow`]): where it names a store that
//! is known, new archives go there; any other path is where the store in use is found now. Either way nothing is moved by that.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, BufWriter, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use callvault_config::Config;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::appliance::Bell;
use crate::archiving::STORE_NAME;
use crate::files::write_whole;
use crate::store::{Condition, EXPECTED_NAME, Store, StoreError, StoreFile};

/// Name of the file in the data folder that says which stores there are.
pub(crate) const RECORD_NAME: &str = "stores.json";

/// Stores that are remembered. Each is a place that archives once were moved to; a hundred moves are more than a life has.
const STORES_MAX: usize = 100;

/// A store that is known.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Known {
    /// Its name in rows.
    pub(crate) name: String,
    /// Its folder.
    pub(crate) path: PathBuf,
}

impl Known {
    /// The store of `store.path`, as long as nothing was moved.
    pub(crate) fn first(config: &Config) -> Self {
        Self { name: STORE_NAME.to_owned(), path: config.store_path() }
    }
}

/// A move that somebody has asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Move {
    /// Most bytes a second; 0: as fast as it goes.
    pub(crate) rate_bytes_per_s: u64,
    /// Since when.
    pub(crate) begun_at: Timestamp,
}

/// What `stores.json` says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Record {
    /// What `store.path` said last.
    pub(crate) configured: PathBuf,
    /// Name of the store that new archives go to.
    pub(crate) current: String,
    /// All of them.
    pub(crate) stores: Vec<Known>,
    /// Whether what the others have is being moved to the current one.
    pub(crate) moving: Option<Move>,
}

impl Record {
    /// One store, that of `store.path`.
    fn one(path: &Path) -> Self {
        let known = Known { name: STORE_NAME.to_owned(), path: path.to_owned() };
        Self { configured: path.to_owned(), current: STORE_NAME.to_owned(), stores: vec![known], moving: None }
    }

    /// Reads the record in the data folder, and follows what `store.path` says now. An error is for people; there is a record all the same.
    pub(crate) fn read(config: &Config) -> (Self, Option<String>) {
        let (path, configured) = (config.data_dir.join(RECORD_NAME), config.store_path());
        let read = || match fs::read(&path) {
            Ok(text) => serde_json::from_slice::<Self>(&text).map(Some).map_err(io::Error::from),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        };
        match read() {
            Ok(Some(mut record)) if record.known(&record.current).is_some() => {
                record.follow(&configured);
                (record, None)
            }
            Ok(None) => (Self::one(&configured), None),
            other => {
                let why = other.err().map_or_else(|| "it names no store in use".to_owned(), |error| error.to_string());
                let text = format!(
                    "read which stores there are from {}: {why}; store.path is used meanwhile, and what is in other stores cannot be played. Restore that file from the backup and restart callvaultd",
                    path.display()
                );
                (Self::one(&configured), Some(text))
            }
        }
    }

    /// Writes it to the data folder, if it is not there as it is. As long as there is one store, `store.path` says all.
    pub(crate) fn keep(&self, data: &Path) -> io::Result<()> {
        let path = data.join(RECORD_NAME);
        let text = serde_json::to_vec_pretty(self)?;
        if self.stores.len() < 2 || fs::read(&path).is_ok_and(|known| known == text) {
            return Ok(());
        }
        write_whole(&path, &text)
    }

    /// What is known of a store.
    pub(crate) fn known(&self, name: &str) -> Option<&Known> {
        self.stores.iter().find(|known| known.name == name)
    }

    /// Obeys a change of `store.path`.
    fn follow(&mut self, configured: &Path) {
        if self.configured == configured {
            return;
        }
        self.configured = configured.to_owned();
        if let Some(known) = self.stores.iter().find(|known| known.path == configured) {
            if self.current != known.name {
                self.current = known.name.clone();
                // What was asked for was to bring them elsewhere.
                self.moving = None;
            }
        } else if let Some(known) = self.stores.iter_mut().find(|known| known.name == self.current) {
            known.path = configured.to_owned();
        }
    }

    /// Has new archives go to the store at `path`, and those of the others moved there. None when there is no room for another one.
    pub(crate) fn move_to(&self, path: &Path, moving: Move) -> Option<Self> {
        let mut record = self.clone();
        let name = match record.stores.iter().find(|known| known.path == path) {
            Some(known) => known.name.clone(),
            None => {
                let name = format!("store-{}", record.stores.len().saturating_add(1));
                record.stores.push(Known { name: name.clone(), path: path.to_owned() });
                name
            }
        };
        (record.current, record.moving) = (name, Some(moving));
        (record.stores.len() <= STORES_MAX).then_some(record)
    }

    /// Name of the file in the data folder that says which store is expected.
    pub(crate) fn expected_name(name: &str) -> String {
        if name == STORE_NAME { EXPECTED_NAME.to_owned() } else { format!("{name}.identity") }
    }
}

struct State {
    record: Record,
    opened: BTreeMap<String, Arc<Store>>,
    /// How many archives are being written into each store.
    writing: BTreeMap<String, u32>,
}

/// The stores. What is asked of them without a name is asked of the one that new archives go to.
pub(crate) struct Stores {
    data: PathBuf,
    timeout: Duration,
    bell: Bell,
    state: Mutex<State>,
}

/// A store that something is being written into: until this is dropped it may get archives although others go elsewhere by now.
pub(crate) struct Writing<'a> {
    stores: &'a Stores,
    /// The store.
    pub(crate) store: Arc<Store>,
    /// Its name.
    pub(crate) name: String,
}

impl Drop for Writing<'_> {
    fn drop(&mut self) {
        let mut state = self.stores.locked();
        if let Some(count) = state.writing.get_mut(&self.name) {
            *count = count.saturating_sub(1);
        }
    }
}

impl Stores {
    /// Those that the record names; none of them need be there.
    pub(crate) fn new(record: Record, data: &Path, timeout: Duration) -> Self {
        let state = State { record, opened: BTreeMap::new(), writing: BTreeMap::new() };
        Self { data: data.to_owned(), timeout, bell: Bell::default(), state: Mutex::new(state) }
    }

    fn locked(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A store that is not used yet.
    pub(crate) fn prepare(&self, known: &Known) -> Store {
        let expected = self.data.join(Record::expected_name(&known.name));
        Store::known(&known.path, expected, Uuid::now_v7(), (self.timeout, self.bell.clone()))
    }

    fn opened(&self, state: &mut State, known: &Known) -> Arc<Store> {
        let made = || Arc::new(self.prepare(known));
        Arc::clone(state.opened.entry(known.name.clone()).or_insert_with(made))
    }

    /// What is known of all of them.
    pub(crate) fn record(&self) -> Record {
        self.locked().record.clone()
    }

    /// Puts another record in the place of the one in force, durably.
    ///
    /// # Errors
    /// What writing it says; then nothing has changed.
    pub(crate) fn set_record(&self, record: Record) -> io::Result<()> {
        let mut state = self.locked();
        record.keep(&self.data)?;
        state.record = record;
        Ok(())
    }

    /// Every archive was moved from these. Where others are moved by now, nothing has ended.
    ///
    /// # Errors
    /// As [`Stores::set_record`].
    pub(crate) fn end_move(&self, sources: &[String]) -> io::Result<()> {
        let mut record = self.record();
        if self.sources() == sources {
            record.moving = None;
            self.set_record(record)?;
        }
        Ok(())
    }

    /// The store of that name.
    ///
    /// # Errors
    /// There is none.
    pub(crate) fn of(&self, name: &str) -> Result<Arc<Store>, StoreError> {
        let mut state = self.locked();
        let known = state.record.known(name).cloned().ok_or_else(|| StoreError::Io {
            what: "use the store",
            path: name.to_owned(),
            error: io::Error::other(format!("{RECORD_NAME} in the data folder does not name it; restore that file")),
        })?;
        Ok(self.opened(&mut state, &known))
    }

    /// The one that new archives go to.
    pub(crate) fn current(&self) -> Arc<Store> {
        self.for_writing().store.clone()
    }

    /// The one that new archives go to, for an archive that is written now.
    pub(crate) fn for_writing(&self) -> Writing<'_> {
        let mut state = self.locked();
        // That there is one of this name is looked at wherever a record comes from.
        let name = state.record.current.clone();
        let known = state.record.known(&name).cloned().unwrap_or(Known { name: name.clone(), path: PathBuf::new() });
        let store = self.opened(&mut state, &known);
        *state.writing.entry(name.clone()).or_default() += 1;
        drop(state);
        Writing { stores: self, store, name }
    }

    /// Whether an archive is being written into that store.
    pub(crate) fn is_written(&self, name: &str) -> bool {
        self.locked().writing.get(name).is_some_and(|count| *count > 0)
    }

    /// Names of the stores that archives are moved away from; none where nothing is moved.
    pub(crate) fn sources(&self) -> Vec<String> {
        let record = self.record();
        let others = record.stores.iter().filter(|known| known.name != record.current && record.moving.is_some());
        others.map(|known| known.name.clone()).collect()
    }

    /// Whether the store can be used; at the very first use it is made.
    pub(crate) fn check(&self) -> Result<(), StoreError> {
        self.current().check()
    }

    /// How it is, as far as is known.
    pub(crate) fn condition(&self) -> Condition {
        self.current().condition()
    }

    /// Whether it can be used, as far as is known.
    pub(crate) fn is_ok(&self) -> bool {
        self.current().is_ok()
    }

    /// Looks how it is. Gives whether it is back.
    pub(crate) fn look(&self) -> bool {
        self.current().look()
    }

    /// Its folder.
    pub(crate) fn path(&self) -> PathBuf {
        self.current().path().to_owned()
    }

    /// Rung when one of them is worth a look before its time.
    pub(crate) fn bell(&self) -> &Bell {
        &self.bell
    }

    /// Lets everybody go who waits for one of them: the daemon stops.
    pub(crate) fn stop(&self) {
        let opened: Vec<Arc<Store>> = self.locked().opened.values().cloned().collect();
        opened.iter().for_each(|store| store.stop());
        self.bell.ring();
    }

    /// As [`Store::put`].
    pub(crate) fn put<T, E: From<StoreError>>(
        &self,
        name: &Path,
        write: impl FnOnce(BufWriter<StoreFile>) -> Result<(BufWriter<StoreFile>, T), E>,
    ) -> Result<T, E> {
        self.current().put(name, write)
    }

    /// As [`Store::get`].
    pub(crate) fn get(&self, name: &Path) -> Result<StoreFile, StoreError> {
        self.current().get(name)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::path::Path;

    use jiff::Timestamp;

    use super::{Move, Record};

    fn moving() -> Move {
        Move { rate_bytes_per_s: 0, begun_at: Timestamp::UNIX_EPOCH }
    }

    fn moved() -> Record {
        Record::one(Path::new("/a")).move_to(Path::new("/b"), moving()).unwrap()
    }

    fn check(mut record: Record, configured: &str, current: &str, path: &str, moves: bool) {
        record.follow(Path::new(configured));
        record.follow(Path::new(configured));
        let known = record.known(&record.current).unwrap();
        assert_eq!((known.name.as_str(), known.path.as_path()), (current, Path::new(path)), "{configured}");
        assert_eq!(record.moving.is_some(), moves, "{configured}");
    }

    #[test]
    fn a_path_that_changes_is_obeyed() {
        check(Record::one(Path::new("/a")), "/a", "default", "/a", false);
        check(Record::one(Path::new("/a")), "/elsewhere", "default", "/elsewhere", false);
        // Behind a move the file of settings still names the old store, which means nothing.
        check(moved(), "/a", "store-2", "/b", true);
        check(moved(), "/b", "store-2", "/b", true);
        check(moved(), "/c", "store-2", "/c", true);
    }

    #[test]
    fn a_path_that_goes_back_stops_the_move() {
        let mut record = moved();
        record.follow(Path::new("/b"));
        check(record, "/a", "default", "/a", false);
    }

    #[test]
    fn a_store_that_is_known_keeps_its_name() {
        let back = moved().move_to(Path::new("/a"), moving()).unwrap();
        assert_eq!((back.current.as_str(), back.stores.len()), ("default", 2));
    }

    #[test]
    fn there_are_only_so_many() {
        let mut record = Record::one(Path::new("/a"));
        for n in 2..=super::STORES_MAX {
            record = record.move_to(Path::new(&format!("/{n}")), moving()).unwrap();
        }
        assert_eq!(record.move_to(Path::new("/more"), moving()), None);
        assert!(record.move_to(Path::new("/a"), moving()).is_some());
    }
}
