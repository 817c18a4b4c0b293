//! The audit log: a table that is only appended to, each entry sealed and chained to the one before (see [`callvault_access::audit`]).
//!
//! The entries have a key of their own, sealed like a column, and are bound to the log's id, not to the catalogue's. So a catalogue that
//! is made again takes them over byte by byte, and the chain with them. Where the log ended is also kept sealed in `meta`: who cuts the
//! end off without the key is found out by that, and who does it with an older copy of the file by whoever noted a later head.

use std::{fmt, str::FromStr};

use callvault_access::audit::{Entry, Link, Outcome, genesis, link};
use callvault_seal::{DATA_KEY_BYTES, DataKey};
use jiff::Timestamp;
use rand::CryptoRng;
use rusqlite::{Connection, OptionalExtension as _, types::Value};
use uuid::Uuid;

use crate::{Catalogue, CatalogueError, catalogue::Writer, schema, sealing::Sealing};

/// Entries on a page unless asked otherwise.
pub const AUDIT_LIMIT_DEFAULT: usize = 100;

/// Most entries on a page.
pub const AUDIT_LIMIT_MAX: usize = 1_000;

/// Most entries that one call opens when it looks for some.
const SCAN_ENTRIES_MAX: usize = 20_000;

/// Entries read at once, between which others may use the connection.
const FETCH_ENTRIES: usize = 500;

/// Findings that a check tells of; where there are more, the log is beyond telling them one by one.
pub const AUDIT_FINDINGS_MAX: usize = 100;

const KEY: &str = "audit_key";
const HEAD: &str = "audit_head";
const ENTRY: &str = "entry";

/// The log's cipher, bound to its id.
#[derive(Debug)]
pub(crate) struct Auditing {
    sealing: Sealing,
    log: Uuid,
}

impl Auditing {
    /// Reads the key, or makes one for a new log.
    pub(crate) fn open(
        db: &mut Connection,
        sealing: &Sealing,
        rng: &mut dyn CryptoRng,
    ) -> Result<Self, CatalogueError> {
        let what = CatalogueError::sql("read the key of the audit log");
        let transaction = schema::write(db).map_err(&what)?;
        let content = match schema::meta(&transaction, KEY).map_err(&what)? {
            Some(sealed) => {
                sealing.open_column(Uuid::nil(), KEY, &sealed).map_err(|_| CatalogueError::DamagedMeta(KEY))?
            }
            None => {
                let mut log = [0; 16];
                rng.fill_bytes(&mut log);
                let log = uuid::Builder::from_random_bytes(log).into_uuid();
                let content = [log.as_bytes(), DataKey::generate(rng).expose().as_slice()].concat();
                let sealed = sealing.seal(rng, Uuid::nil(), KEY, &content)?;
                schema::set_meta(&transaction, KEY, &sealed).map_err(&what)?;
                content
            }
        };
        transaction.commit().map_err(&what)?;
        Self::read(&content).ok_or(CatalogueError::DamagedMeta(KEY))
    }

    fn read(content: &[u8]) -> Option<Self> {
        let (log, key) = content.split_first_chunk::<16>()?;
        let key: [u8; DATA_KEY_BYTES] = key.try_into().ok()?;
        let log = Uuid::from_bytes(*log);
        Some(Self { sealing: Sealing::with_key(&DataKey::from_bytes(key), log), log })
    }

    /// Appends an entry within the transaction `db`.
    pub(crate) fn append(
        &self,
        db: &Connection,
        rng: &mut dyn CryptoRng,
        entry: &Entry,
    ) -> Result<AuditHead, CatalogueError> {
        let what = CatalogueError::sql("write to the audit log");
        let before = self.head(db).map_err(&what)?;
        // Where the end was cut off, its numbers are not given again: the gap stays to be seen.
        let kept = self.kept_head(db).map_err(&what)?.flatten().map_or(0, |kept| kept.entries);
        let number =
            before.entries.max(kept).checked_add(1).ok_or(CatalogueError::Range("the number of an audit entry"))?;
        let content = serde_json::to_vec(entry).map_err(|_| CatalogueError::Range("an audit entry"))?;
        let sealed = self.sealing.seal(rng, row_id(number), ENTRY, &content)?;
        let at_ms = entry.at.as_millisecond();
        let head = AuditHead { entries: number, link: link(&before.link, number, at_ms, &sealed) };
        let sql = "INSERT INTO audit (number, at_ms, sealed, link) VALUES (?1, ?2, ?3, ?4)";
        let stored = i64::try_from(number).map_err(|_| CatalogueError::Range("the number of an audit entry"))?;
        db.execute(sql, (stored, at_ms, sealed, head.link.as_slice())).map_err(&what)?;
        let sealed = self.sealing.seal(rng, Uuid::nil(), HEAD, &head.to_bytes())?;
        schema::set_meta(db, HEAD, &sealed).map_err(&what)?;
        Ok(head)
    }

    /// Where the log ended when it was written last: none where that is not kept, and within it none where it does not open.
    fn kept_head(&self, db: &Connection) -> rusqlite::Result<Option<Option<AuditHead>>> {
        let sealed = schema::meta(db, HEAD)?;
        Ok(sealed.map(|sealed| {
            let content = self.sealing.open_column(Uuid::nil(), HEAD, &sealed).ok()?;
            AuditHead::from_bytes(&content)
        }))
    }

    fn head(&self, db: &Connection) -> rusqlite::Result<AuditHead> {
        let sql = "SELECT number, link FROM audit ORDER BY number DESC LIMIT 1";
        let last = db.query_row(sql, [], |row| Ok(AuditHead { entries: number(row, 0)?, link: link_of(row, 1)? }));
        Ok(last.optional()?.unwrap_or(AuditHead { entries: 0, link: genesis(self.log) }))
    }
}

/// Where the log ends: noted somewhere else, it shows later that nothing up to here was changed or cut off. As text `NUMBER:LINK`, the
/// link in hexadecimal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AuditHead {
    /// Entries in it, which is the last one's number.
    pub entries: u64,
    /// The last one's link.
    pub link: Link,
}

impl AuditHead {
    fn to_bytes(self) -> Vec<u8> {
        [self.entries.to_be_bytes().as_slice(), &self.link].concat()
    }

    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (entries, link) = bytes.split_first_chunk::<8>()?;
        Some(Self { entries: u64::from_be_bytes(*entries), link: link.try_into().ok()? })
    }
}

impl fmt::Display for AuditHead {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", self.entries)?;
        self.link.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl FromStr for AuditHead {
    type Err = CatalogueError;
    fn from_str(text: &str) -> Result<Self, CatalogueError> {
        let parse = || -> Option<Self> {
            let (entries, hex) = text.trim().split_once(':')?;
            let digits: Vec<u32> = hex.chars().map(|digit| digit.to_digit(16)).collect::<Option<_>>()?;
            let bytes = digits.chunks_exact(2).map(|two| u8::try_from(two[0] * 16 + two[1]));
            let bytes: Vec<u8> = bytes.collect::<Result<_, _>>().ok()?;
            let is_whole = digits.len() == 64;
            is_whole.then_some(Self { entries: entries.parse().ok()?, link: bytes.try_into().ok()? })
        };
        parse().ok_or(CatalogueError::BadHead)
    }
}

/// Which entries to list. Everything given must hold.
#[derive(Clone, Default)]
pub struct AuditFilter {
    /// At or after.
    pub from: Option<Timestamp>,
    /// Before.
    pub to: Option<Timestamp>,
    /// Only this action.
    pub action: Option<String>,
    /// Only what this one did: a name as the log has it, but for case.
    pub name: Option<String>,
    /// Only what was done to this recording.
    pub recording: Option<Uuid>,
    /// Only what went so.
    pub outcome: Option<Outcome>,
    /// The oldest first instead of the newest.
    pub oldest_first: bool,
    /// At most so many, 1 to [`AUDIT_LIMIT_MAX`]; [`AUDIT_LIMIT_DEFAULT`] if `None`.
    pub limit: Option<usize>,
}

impl AuditFilter {
    fn matches(&self, entry: &Entry) -> bool {
        let name = |wanted: &String| entry.name.to_lowercase() == wanted.to_lowercase();
        self.action.as_ref().is_none_or(|wanted| entry.action == *wanted)
            && self.name.as_ref().is_none_or(name)
            && self.recording.is_none_or(|wanted| entry.recording == Some(wanted))
            && self.outcome.is_none_or(|wanted| entry.outcome == wanted)
    }
}

/// Part of the log.
#[derive(Debug, Clone, Default)]
pub struct AuditPage {
    /// The entries with their numbers.
    pub entries: Vec<(u64, Entry)>,
    /// After which entry to go on, if there may be more. A page may be empty and still have a next one.
    pub next: Option<u64>,
    /// Entries on the way that do not open, because they were changed.
    pub damaged: Vec<u64>,
}

/// What a check of the log showed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditCheck {
    /// Entries looked at.
    pub checked: u64,
    /// Where the log ends.
    pub head: AuditHead,
    /// What is wrong: the entry's number and a sentence; at most [`AUDIT_FINDINGS_MAX`].
    pub findings: Vec<(u64, String)>,
}

/// A row as it is stored.
struct Stored {
    number: u64,
    at_ms: i64,
    sealed: Vec<u8>,
    link: Vec<u8>,
}

impl Stored {
    fn read(row: &rusqlite::Row<'_>) -> rusqlite::Result<Self> {
        Ok(Self { number: number(row, 0)?, at_ms: row.get(1)?, sealed: row.get(2)?, link: row.get(3)? })
    }
}

const COLUMNS: &str = "number, at_ms, sealed, link";

impl Catalogue {
    /// Appends to the audit log; on the device when it returns.
    ///
    /// # Errors
    /// Disk errors: whatever was to be done must not be done then.
    pub fn audit(&self, entry: &Entry) -> Result<AuditHead, CatalogueError> {
        let what = CatalogueError::sql("write to the audit log");
        let Writer { db, rng } = &mut *self.writer();
        let transaction = schema::write(db).map_err(&what)?;
        let head = self.auditing.append(&transaction, &mut **rng, entry)?;
        transaction.commit().map_err(&what)?;
        Ok(head)
    }

    /// Where the audit log ends now.
    ///
    /// # Errors
    /// Disk errors.
    pub fn audit_head(&self) -> Result<AuditHead, CatalogueError> {
        self.auditing.head(&self.reader()).map_err(CatalogueError::sql("read the audit log"))
    }

    /// The entries that match, after the one with the number `after`.
    ///
    /// # Errors
    /// Disk errors.
    pub fn audit_entries(&self, filter: &AuditFilter, after: Option<u64>) -> Result<AuditPage, CatalogueError> {
        let limit = filter.limit.unwrap_or(AUDIT_LIMIT_DEFAULT).clamp(1, AUDIT_LIMIT_MAX);
        let (mut page, mut last, mut scanned) = (AuditPage::default(), after, 0);
        loop {
            let rows = self.fetch_audit(filter, last)?;
            let is_end = rows.len() < FETCH_ENTRIES;
            for row in rows {
                if page.entries.len() == limit || scanned == SCAN_ENTRIES_MAX {
                    return Ok(AuditPage { next: last, ..page });
                }
                scanned += 1;
                last = Some(row.number);
                match self.open_entry(&row) {
                    Some(entry) if filter.matches(&entry) => page.entries.push((row.number, entry)),
                    Some(_) => {}
                    None => page.damaged.push(row.number),
                }
            }
            if is_end {
                return Ok(page);
            }
        }
    }

    fn fetch_audit(&self, filter: &AuditFilter, after: Option<u64>) -> Result<Vec<Stored>, CatalogueError> {
        let (mut conditions, mut values) = (vec!["1 = 1"], Vec::<Value>::new());
        let mut add = |condition, value: i64| {
            conditions.push(condition);
            values.push(value.into());
        };
        if let Some(from) = filter.from {
            add("at_ms >= ?", from.as_millisecond());
        }
        if let Some(to) = filter.to {
            add("at_ms < ?", to.as_millisecond());
        }
        if let Some(after) = after {
            let after = i64::try_from(after).unwrap_or(i64::MAX);
            add(if filter.oldest_first { "number > ?" } else { "number < ?" }, after);
        }
        let order = if filter.oldest_first { "ASC" } else { "DESC" };
        let conditions = conditions.join(" AND ");
        let sql =
            format!("SELECT {COLUMNS} FROM audit WHERE {conditions} ORDER BY number {order} LIMIT {FETCH_ENTRIES}");
        let read = || -> rusqlite::Result<Vec<Stored>> {
            let db = self.reader();
            let mut statement = db.prepare_cached(&sql)?;
            let rows = statement.query_map(rusqlite::params_from_iter(values), Stored::read)?;
            rows.collect()
        };
        read().map_err(CatalogueError::sql("read the audit log"))
    }

    fn open_entry(&self, row: &Stored) -> Option<Entry> {
        let content = self.auditing.sealing.open_column(row_id(row.number), ENTRY, &row.sealed).ok()?;
        serde_json::from_slice(&content).ok()
    }

    /// Checks the chain, and that the log ends where it should: the last `tail` entries, or all of them. `noted` is a head that somebody
    /// noted; it has to be in it.
    ///
    /// # Errors
    /// Disk errors. A finding is no error.
    pub fn audit_check(&self, tail: Option<u64>, noted: Option<AuditHead>) -> Result<AuditCheck, CatalogueError> {
        let head = self.audit_head()?;
        let first = tail.map_or(0, |tail| head.entries.saturating_sub(tail));
        let mut chain = Chain { before: None, checked: 0, findings: Vec::new(), noted };
        if first == 0 {
            chain.before = Some((0, genesis(self.auditing.log)));
        }
        let filter = AuditFilter { oldest_first: true, ..AuditFilter::default() };
        // The entry before the first is what that is chained to.
        let mut last = first.checked_sub(1);
        loop {
            let rows = self.fetch_audit(&filter, last)?;
            let is_end = rows.len() < FETCH_ENTRIES;
            for row in rows.into_iter().take_while(|row| row.number <= head.entries) {
                last = Some(row.number);
                let opens = self.open_entry(&row).is_some();
                chain.take(&row, opens);
            }
            if is_end || last.is_some_and(|last| last >= head.entries) {
                break;
            }
        }
        self.check_end(&mut chain, head, tail.is_none())?;
        Ok(AuditCheck { checked: chain.checked, head, findings: chain.findings })
    }

    /// Whether it ends where it ended when it was written last, and has what was noted.
    fn check_end(&self, chain: &mut Chain, head: AuditHead, whole: bool) -> Result<(), CatalogueError> {
        let what = CatalogueError::sql("read the audit log");
        let kept = self.auditing.kept_head(&self.reader()).map_err(&what)?;
        match kept {
            // Another entry may have been written since the first look.
            Some(Some(kept)) if kept.entries < head.entries || kept == head => {}
            Some(Some(kept)) if kept.entries > head.entries && self.audit_head()?.entries >= kept.entries => {}
            Some(Some(kept)) if kept.entries > head.entries => {
                chain.find(kept.entries, "the end was cut off: the log had entries up to this one");
            }
            None if head.entries == 0 => {}
            Some(Some(kept)) => chain.find(kept.entries, "the last entry is not the one that was written"),
            Some(None) | None => chain.find(head.entries, "what was kept of the log's end is missing or was changed"),
        }
        if let Some(noted) = chain.noted.filter(|noted| whole || noted.entries > head.entries)
            && noted.entries > 0
        {
            chain.find(
                noted.entries,
                "this entry was noted and is not there: the end was cut off, or an older copy put in place",
            );
        }
        Ok(())
    }
}

/// A walk along the chain.
struct Chain {
    /// Number and link of the entry before; none where there is nothing to compare with.
    before: Option<(u64, Link)>,
    checked: u64,
    findings: Vec<(u64, String)>,
    /// What was noted and has not been passed yet.
    noted: Option<AuditHead>,
}

impl Chain {
    fn find(&mut self, number: u64, text: &str) {
        if self.findings.len() < AUDIT_FINDINGS_MAX {
            self.findings.push((number, text.to_owned()));
        }
    }

    fn take(&mut self, row: &Stored, opens: bool) {
        self.checked += 1;
        if let Some((number, before)) = self.before {
            if number.checked_add(1) != Some(row.number) {
                self.find(row.number, "entries before this one are missing");
            } else if link(&before, row.number, row.at_ms, &row.sealed).as_slice() != row.link {
                self.find(row.number, "this entry, or the one before it, was changed");
            }
        }
        if !opens {
            self.find(row.number, "this entry does not open: it was changed, or written without the key");
        }
        if self.noted.is_some_and(|noted| noted.entries == row.number) {
            let noted = self.noted.take().map(|noted| noted.link);
            if noted.is_some_and(|noted| noted.as_slice() != row.link) {
                self.find(row.number, "this entry is not the one that was noted");
            }
        }
        let stored: Option<Link> = row.link.as_slice().try_into().ok();
        self.before = stored.map(|link| (row.number, link));
    }
}

/// Copies the log of `old`, entries, key and all, into `new`, which has none yet. Gives the number of entries.
pub(crate) fn carry_over(
    (old, of_old): (&Connection, &Sealing),
    (new, of_new): (&Connection, &Sealing),
    rng: &mut dyn CryptoRng,
) -> Result<u64, CatalogueError> {
    let what = CatalogueError::sql("take over the audit log");
    let Some(sealed) = schema::meta(old, KEY).map_err(&what)? else { return Ok(0) };
    let content = of_old.open_column(Uuid::nil(), KEY, &sealed).map_err(|_| CatalogueError::DamagedMeta(KEY))?;
    schema::set_meta(new, KEY, &of_new.seal(rng, Uuid::nil(), KEY, &content)?).map_err(&what)?;
    if let Some(head) = schema::meta(old, HEAD).map_err(&what)? {
        schema::set_meta(new, HEAD, &head).map_err(&what)?;
    }
    let mut count = 0;
    let mut statement = old.prepare(&format!("SELECT {COLUMNS} FROM audit ORDER BY number")).map_err(&what)?;
    let mut rows = statement.query([]).map_err(&what)?;
    // Up to the first that the database cannot give: what is missing then is found by the check.
    while let Ok(Some(row)) = rows.next() {
        let Ok(Stored { number, at_ms, sealed, link }) = Stored::read(row) else { continue };
        let sql = "INSERT INTO audit (number, at_ms, sealed, link) VALUES (?1, ?2, ?3, ?4)";
        let number = i64::try_from(number).map_err(|_| CatalogueError::Range("the number of an audit entry"))?;
        new.execute(sql, (number, at_ms, sealed, link)).map_err(&what)?;
        count += 1;
    }
    Ok(count)
}

/// The row's id, which what is in it is bound to.
fn row_id(number: u64) -> Uuid {
    Uuid::from_u128(u128::from(number))
}

fn number(row: &rusqlite::Row<'_>, column: usize) -> rusqlite::Result<u64> {
    let number: i64 = row.get(column)?;
    u64::try_from(number).map_err(|_| rusqlite::Error::IntegralValueOutOfRange(column, number))
}

fn link_of(row: &rusqlite::Row<'_>, column: usize) -> rusqlite::Result<Link> {
    let bytes: Vec<u8> = row.get(column)?;
    // a link that is none is not the one that the next is chained to: the check tells
    Ok(bytes.try_into().unwrap_or_default())
}
