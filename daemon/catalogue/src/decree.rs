//! What was decided about the whole appliance and must outlive restarts and the files of settings.

use callvault_access::audit::Entry;
use rand::CryptoRng;
use rusqlite::Connection;
use serde_json::Value;
use uuid::Uuid;

use crate::webex;
use crate::{
    Catalogue, CatalogueError, archive_keys, audit, catalogue::Writer, password, schema, sealing::Sealing, stores,
    token, user, waveform,
};

/// Something that was decided. What is kept with it is JSON, sealed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decree {
    /// Nobody deletes by hand, ever. It cannot be taken back.
    NeverDelete,
    /// No new calls are recorded until somebody starts it again.
    RecordingStopped,
}

impl Decree {
    const ALL: [Self; 2] = [Self::NeverDelete, Self::RecordingStopped];

    fn name(self) -> &'static str {
        match self {
            Self::NeverDelete => "never_delete",
            Self::RecordingStopped => "recording_stopped",
        }
    }
}

/// The settings of the last start.
const SETTINGS: &str = "settings_seen";

impl Catalogue {
    /// What was kept with a decree that is in force; `None` when it is not.
    ///
    /// # Errors
    /// [`CatalogueError::DamagedMeta`] when it is there and was changed: it is in force then. Disk errors.
    pub fn decreed(&self, decree: Decree) -> Result<Option<Value>, CatalogueError> {
        let name = decree.name();
        let sealed = schema::meta(&self.reader(), name).map_err(CatalogueError::sql("read what was decided"))?;
        sealed.map(|sealed| open(&self.sealing, name, &sealed)).transpose()
    }

    /// Puts a decree in force, and the entry into the audit log that says so.
    ///
    /// # Errors
    /// [`CatalogueError::TooLarge`]; disk errors.
    pub fn decree(&self, decree: Decree, about: &Value, entry: &Entry) -> Result<(), CatalogueError> {
        let what = CatalogueError::sql("keep what was decided");
        let Writer { db, rng } = &mut *self.writer();
        let transaction = schema::write(db).map_err(&what)?;
        put(&transaction, &self.sealing, &mut **rng, decree.name(), about)?;
        self.auditing.append(&transaction, &mut **rng, entry)?;
        transaction.commit().map_err(&what)
    }

    /// Lets recording be started again; the only decree that can be taken back.
    ///
    /// # Errors
    /// Disk errors.
    pub fn lift_recording_stopped(&self, entry: &Entry) -> Result<(), CatalogueError> {
        let what = CatalogueError::sql("take back what was decided");
        let Writer { db, rng } = &mut *self.writer();
        let transaction = schema::write(db).map_err(&what)?;
        let name = Decree::RecordingStopped.name();
        transaction.execute("DELETE FROM meta WHERE name = ?1", [name]).map_err(&what)?;
        self.auditing.append(&transaction, &mut **rng, entry)?;
        transaction.commit().map_err(&what)
    }

    /// The settings as they were when this was last said, in whatever form they were given; `None` when it never was, or cannot be read.
    ///
    /// # Errors
    /// Disk errors.
    pub fn settings_seen(&self) -> Result<Option<Value>, CatalogueError> {
        let sealed =
            schema::meta(&self.reader(), SETTINGS).map_err(CatalogueError::sql("read the settings of before"))?;
        Ok(sealed.and_then(|sealed| open(&self.sealing, SETTINGS, &sealed).ok()))
    }

    /// Remembers the settings, with the entry of the audit log that says that they are others.
    ///
    /// # Errors
    /// [`CatalogueError::TooLarge`]; disk errors.
    pub fn see_settings(&self, settings: &Value, entry: Option<&Entry>) -> Result<(), CatalogueError> {
        let what = CatalogueError::sql("remember the settings");
        let Writer { db, rng } = &mut *self.writer();
        let transaction = schema::write(db).map_err(&what)?;
        put(&transaction, &self.sealing, &mut **rng, SETTINGS, settings)?;
        if let Some(entry) = entry {
            self.auditing.append(&transaction, &mut **rng, entry)?;
        }
        transaction.commit().map_err(&what)
    }

    /// Takes over from `old`, whose rows are being restored into this one, which is new: the audit log, the tokens and what was decided, as
    /// far as they can be read. This catalogue has to be opened again before anything is written to the audit log. What could not be taken
    /// over is said.
    ///
    /// # Errors
    /// Disk errors of this one.
    pub fn take_over(&self, old: &Self) -> Result<Vec<String>, CatalogueError> {
        let what = CatalogueError::sql("take over what was decided");
        let mut lost = Vec::new();
        let Writer { db, rng } = &mut *self.writer();
        let from = old.reader();
        for (part, copy) in PARTS {
            let transaction = schema::write(db).map_err(&what)?;
            let done = copy((&from, &old.sealing), (&transaction, &self.sealing), &mut **rng);
            match done {
                Ok(()) => transaction.commit().map_err(&what)?,
                Err(error) => lost.push(format!("{part}: failed to {error}")),
            }
        }
        Ok(lost)
    }
}

type Copy = fn((&Connection, &Sealing), (&Connection, &Sealing), &mut dyn CryptoRng) -> Result<(), CatalogueError>;

/// What is taken over, each by itself: one that is damaged does not keep the others.
const PARTS: [(&str, Copy); 9] = [
    ("the keys of archives", archive_keys::carry_over),
    ("what is left in stores", stores::carry_over),
    ("the audit log", |old, new, rng| audit::carry_over(old, new, rng).map(drop)),
    ("the users", user::carry_over),
    ("the passwords", password::carry_over),
    ("what is known of Webex", webex::carry_over),
    ("the tokens", token::carry_over),
    ("waveforms", waveform::carry_over),
    ("what was decided", carry_over),
];

fn carry_over(
    (old, of_old): (&Connection, &Sealing),
    (new, of_new): (&Connection, &Sealing),
    rng: &mut dyn CryptoRng,
) -> Result<(), CatalogueError> {
    for name in Decree::ALL.map(Decree::name).into_iter().chain([SETTINGS]) {
        let Some(sealed) = schema::meta(old, name).map_err(CatalogueError::sql("read what was decided"))? else {
            continue;
        };
        // what was changed is in force, and stays
        let about = open(of_old, name, &sealed).unwrap_or(Value::Null);
        put(new, of_new, rng, name, &about)?;
    }
    Ok(())
}

pub(crate) fn open(sealing: &Sealing, name: &'static str, sealed: &[u8]) -> Result<Value, CatalogueError> {
    let damaged = || CatalogueError::DamagedMeta(name);
    let json = sealing.open_column(Uuid::nil(), name, sealed).map_err(|_| damaged())?;
    serde_json::from_slice(&json).map_err(|_| damaged())
}

pub(crate) fn put(
    db: &Connection,
    sealing: &Sealing,
    rng: &mut dyn CryptoRng,
    name: &'static str,
    about: &Value,
) -> Result<(), CatalogueError> {
    let sealed = sealing.seal(rng, Uuid::nil(), name, about.to_string().as_bytes())?;
    schema::set_meta(db, name, &sealed).map_err(CatalogueError::sql("keep what was decided"))
}
