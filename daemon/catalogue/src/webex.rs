//! What is remembered of Webex: the authorisation, who came from there, what each synchronisation did.

use std::collections::{BTreeMap, BTreeSet};

use callvault_access::audit::Entry;
use callvault_directory::User;
use jiff::Timestamp;
use rand::CryptoRng;
use rusqlite::{Connection, OptionalExtension as _};
use serde::de::{IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;
use uuid::Uuid;

use crate::{Catalogue, CatalogueError, catalogue::Writer, decree, row, schema, sealing::Sealing, user};

const PERSON: &str = "webex-person";
const RUN: &str = "webex-run";

/// Under which name the authorisation is kept.
pub(crate) const GRANT: &str = "webex_grant";

/// Under which name is kept how far call detail records have been read.
pub(crate) const READ_TO: &str = "webex_records_read";

/// Under which name is kept of which death of the authorisation the administrators were told.
pub(crate) const TOLD: &str = "webex_told";

/// Runs that are remembered: a quarter of a year of days.
const RUNS_KEPT: u32 = 100;

/// What is remembered of a user who came from Webex. `Debug` shows no personal data.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct WebexPerson {
    /// The service's id of the person.
    pub person_id: String,
    /// The external identifier as it was read last; none where it never was.
    pub native: Option<String>,
    /// The mode of recording as it was read last, empty where recording was off; none where it never was.
    pub mode: Option<String>,
    /// When the person had been changed last, as the service wrote it then.
    pub last_modified: Option<String>,
    /// When that was read, in seconds since the Unix epoch.
    pub read_at_s: i64,
    /// Where the picture came from that the user has.
    pub avatar: Option<String>,
}

impl std::fmt::Debug for WebexPerson {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WebexPerson").field("read_at_s", &self.read_at_s).finish_non_exhaustive()
    }
}

/// A run of the synchronisation.
#[derive(Clone, PartialEq)]
pub struct WebexRun {
    /// Its id.
    pub id: Uuid,
    /// When it ended.
    pub at: Timestamp,
    /// What it did, or why it did nothing. Personal.
    pub report: Value,
}

impl std::fmt::Debug for WebexRun {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WebexRun").field("id", &self.id).field("at", &self.at).finish_non_exhaustive()
    }
}

/// What a synchronisation changes, all of it or nothing.
#[derive(Debug)]
pub struct Synchronised<'a> {
    /// Users that are different.
    pub users: &'a [User],
    /// All who are known from Webex afterwards.
    pub people: &'a BTreeMap<Uuid, WebexPerson>,
    /// The run.
    pub run: &'a WebexRun,
}

impl Catalogue {
    /// The authorisation as it was kept.
    ///
    /// # Errors
    /// [`CatalogueError::DamagedMeta`]; disk errors.
    pub fn webex_grant(&self) -> Result<Option<Value>, CatalogueError> {
        self.webex_state(GRANT, "read the authorisation of Webex")
    }

    /// Keeps the authorisation in the place of the one before: on the device when this returns.
    ///
    /// # Errors
    /// Disk errors: the one before is still there.
    pub fn set_webex_grant(&self, grant: &Value) -> Result<(), CatalogueError> {
        self.set_webex_state(GRANT, grant, "keep the authorisation of Webex")
    }

    /// How far call detail records have been read.
    ///
    /// # Errors
    /// As for [`Catalogue::webex_grant`].
    pub fn webex_read_to(&self) -> Result<Option<Value>, CatalogueError> {
        self.webex_state(READ_TO, "read how far call detail records were read")
    }

    /// Of which death of the authorisation the administrators were told last.
    ///
    /// # Errors
    /// As for [`Catalogue::webex_grant`].
    pub fn webex_told(&self) -> Result<Option<Value>, CatalogueError> {
        self.webex_state(TOLD, "read of what of Webex the administrators were told")
    }

    /// Keeps that the administrators were told of this.
    ///
    /// # Errors
    /// Disk errors.
    pub fn set_webex_told(&self, told: &Value) -> Result<(), CatalogueError> {
        self.set_webex_state(TOLD, told, "keep of what of Webex the administrators were told")
    }

    fn webex_state(&self, name: &'static str, what: &'static str) -> Result<Option<Value>, CatalogueError> {
        let sealed = schema::meta(&self.reader(), name).map_err(CatalogueError::sql(what))?;
        sealed.map(|sealed| decree::open(&self.sealing, name, &sealed)).transpose()
    }

    fn set_webex_state(&self, name: &'static str, value: &Value, what: &'static str) -> Result<(), CatalogueError> {
        let what = CatalogueError::sql(what);
        let Writer { db, rng } = &mut *self.writer();
        let transaction = schema::write(db).map_err(&what)?;
        decree::put(&transaction, &self.sealing, &mut **rng, name, value)?;
        transaction.commit().map_err(&what)
    }

    /// Who came from Webex.
    ///
    /// # Errors
    /// [`CatalogueError::Damaged`]; disk errors.
    pub fn webex_people(&self) -> Result<BTreeMap<Uuid, WebexPerson>, CatalogueError> {
        let rows = rows(&self.reader(), "SELECT user_id, details FROM webex_people")
            .map_err(CatalogueError::sql("read who came from Webex"))?;
        rows.into_iter().map(|(id, sealed)| Ok((id, open(&self.sealing, id, PERSON, &sealed)?))).collect()
    }

    /// Keeps what a synchronisation changed, its report, and the entry of the audit log, in one transaction.
    ///
    /// # Errors
    /// Disk errors: nothing is changed then.
    pub fn put_synchronised(&self, change: &Synchronised<'_>, entry: &Entry) -> Result<(), CatalogueError> {
        let before = self.webex_people().unwrap_or_default();
        let what = CatalogueError::sql("keep what was synchronised");
        let Writer { db, rng } = &mut *self.writer();
        let transaction = schema::write(db).map_err(&what)?;
        for user in change.users {
            user::put(&transaction, &self.sealing, &mut **rng, user)?;
            if user.removed_at.is_some() {
                user::remove_picture(&transaction, user.id).map_err(&what)?;
            }
        }
        let stays: BTreeSet<String> = change.people.keys().map(Uuid::to_string).collect();
        for id in before.keys().map(Uuid::to_string).filter(|id| !stays.contains(id)) {
            transaction.execute("DELETE FROM webex_people WHERE user_id = ?1", [id]).map_err(&what)?;
        }
        for (id, person) in change.people.iter().filter(|(id, person)| before.get(*id) != Some(*person)) {
            put_person(&transaction, &self.sealing, &mut **rng, *id, person)?;
        }
        put_run(&transaction, &self.sealing, &mut **rng, change.run)?;
        self.auditing.append(&transaction, &mut **rng, entry)?;
        transaction.commit().map_err(&what)
    }

    /// Keeps what is known of one who came from Webex.
    ///
    /// # Errors
    /// Disk errors.
    pub fn put_webex_person(&self, id: Uuid, person: &WebexPerson) -> Result<(), CatalogueError> {
        let Writer { db, rng } = &mut *self.writer();
        put_person(db, &self.sealing, &mut **rng, id, person)
    }

    /// Keeps the report of a run, in the place of an earlier one of the same run.
    ///
    /// # Errors
    /// Disk errors.
    pub fn put_webex_run(&self, run: &WebexRun) -> Result<(), CatalogueError> {
        let Writer { db, rng } = &mut *self.writer();
        put_run(db, &self.sealing, &mut **rng, run)
    }

    /// The last runs, the newest first, their reports without `changes`, `unknown` and `unrecorded`. Those that do not open are left out.
    ///
    /// # Errors
    /// Disk errors.
    pub fn webex_runs(&self, limit: u32) -> Result<Vec<WebexRun>, CatalogueError> {
        let what = CatalogueError::sql("read the runs of the synchronisation");
        let db = self.reader();
        let sql = "SELECT id, at_ms, details FROM webex_runs ORDER BY at_ms DESC, id DESC LIMIT ?1";
        let mut statement = db.prepare_cached(sql).map_err(&what)?;
        // One after the other: a report can be megabytes.
        let rows = statement.query_map([limit], |row| Ok((row::uuid(row, 0)?, row.get(1)?, row.get::<_, Vec<u8>>(2)?)));
        let one = |(id, at_ms, sealed): (Uuid, i64, Vec<u8>)| {
            let report: Head = open(&self.sealing, id, RUN, &sealed).ok()?;
            Some(WebexRun { id, at: Timestamp::from_millisecond(at_ms).ok()?, report: Value::Object(report.0) })
        };
        let opened = rows.map_err(&what)?.filter_map(|row| row.map(one).transpose());
        opened.collect::<rusqlite::Result<_>>().map_err(&what)
    }

    /// A run with its whole report, if there is one that opens.
    ///
    /// # Errors
    /// Disk errors.
    pub fn webex_run(&self, id: Uuid) -> Result<Option<WebexRun>, CatalogueError> {
        let sql = "SELECT at_ms, details FROM webex_runs WHERE id = ?1";
        let found: Option<(i64, Vec<u8>)> = self
            .reader()
            .query_row(sql, [id.to_string()], |row| Ok((row.get(0)?, row.get(1)?)))
            .optional()
            .map_err(CatalogueError::sql("read a run of the synchronisation"))?;
        let Some((at_ms, sealed)) = found else { return Ok(None) };
        let run = |report| Some(WebexRun { id, at: Timestamp::from_millisecond(at_ms).ok()?, report });
        Ok(open(&self.sealing, id, RUN, &sealed).ok().and_then(run))
    }
}

/// What a report has thousands of.
const LISTS: [&str; 3] = ["changes", "unknown", "unrecorded"];

/// A report without its lists, which are passed over and never in memory.
struct Head(serde_json::Map<String, Value>);

impl<'de> Deserialize<'de> for Head {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Fields;
        impl<'de> Visitor<'de> for Fields {
            type Value = Head;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a report")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<Head, A::Error> {
                let mut head = serde_json::Map::new();
                while let Some(name) = fields.next_key::<String>()? {
                    if LISTS.contains(&name.as_str()) {
                        fields.next_value::<IgnoredAny>()?;
                    } else {
                        head.insert(name, fields.next_value()?);
                    }
                }
                Ok(Head(head))
            }
        }
        deserializer.deserialize_map(Fields)
    }
}

fn rows(db: &Connection, sql: &str) -> rusqlite::Result<Vec<(Uuid, Vec<u8>)>> {
    let mut statement = db.prepare_cached(sql)?;
    let rows = statement.query_map([], |row| Ok((row::uuid(row, 0)?, row.get(1)?)))?;
    rows.collect()
}

fn open<T: serde::de::DeserializeOwned>(
    sealing: &Sealing,
    id: Uuid,
    column: &'static str,
    sealed: &[u8],
) -> Result<T, CatalogueError> {
    let json = sealing.open_column(id, column, sealed)?;
    serde_json::from_slice(&json).map_err(|_| CatalogueError::Damaged { id, column })
}

fn put_person(
    db: &Connection,
    sealing: &Sealing,
    rng: &mut dyn CryptoRng,
    id: Uuid,
    person: &WebexPerson,
) -> Result<(), CatalogueError> {
    let json = serde_json::to_vec(person).map_err(|_| CatalogueError::Range("a person"))?;
    let sealed = sealing.seal(rng, id, PERSON, &json)?;
    let sql = "INSERT INTO webex_people (user_id, details) VALUES (?1, ?2) \
               ON CONFLICT (user_id) DO UPDATE SET details = excluded.details";
    let kept = db.execute(sql, (id.to_string(), sealed));
    kept.map(drop).map_err(CatalogueError::sql("keep who came from Webex"))
}

fn put_run(db: &Connection, sealing: &Sealing, rng: &mut dyn CryptoRng, run: &WebexRun) -> Result<(), CatalogueError> {
    let what = CatalogueError::sql("keep the report of a synchronisation");
    let sealed = sealing.seal(rng, run.id, RUN, run.report.to_string().as_bytes())?;
    let sql = "INSERT INTO webex_runs (id, at_ms, details) VALUES (?1, ?2, ?3) \
               ON CONFLICT (id) DO UPDATE SET at_ms = excluded.at_ms, details = excluded.details";
    db.execute(sql, (run.id.to_string(), run.at.as_millisecond(), sealed)).map_err(&what)?;
    let sql = "DELETE FROM webex_runs WHERE id NOT IN \
               (SELECT id FROM webex_runs ORDER BY at_ms DESC, id DESC LIMIT ?1)";
    db.execute(sql, [RUNS_KEPT]).map(drop).map_err(&what)
}

/// Copies authorisation and people of `old` that open into `new`. Reports and records are not taken over: they are made again.
pub(crate) fn carry_over(
    (old, of_old): (&Connection, &Sealing),
    (new, of_new): (&Connection, &Sealing),
    rng: &mut dyn CryptoRng,
) -> Result<(), CatalogueError> {
    let what = CatalogueError::sql("take over what is known of Webex");
    if let Some(grant) = schema::meta(old, GRANT).map_err(&what)?
        && let Ok(grant) = decree::open(of_old, GRANT, &grant)
    {
        decree::put(new, of_new, rng, GRANT, &grant)?;
    }
    for (id, sealed) in rows(old, "SELECT user_id, details FROM webex_people").map_err(&what)? {
        if let Ok(person) = open::<WebexPerson>(of_old, id, PERSON, &sealed) {
            put_person(new, of_new, rng, id, &person)?;
        }
    }
    Ok(())
}
