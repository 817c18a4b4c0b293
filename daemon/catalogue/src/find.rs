//! Lists: newest first, in pages, by what the database can compare and by what only the opened row tells.

use std::{collections::BTreeSet, fmt, str::FromStr};

use callvault_access::Visible;
use jiff::Timestamp;
use memchr::memmem;
use rusqlite::{Connection, OptionalExtension as _, types::Value};
use uuid::Uuid;

use crate::{
    Annotations, Catalogue, CatalogueError, Direction, NumberMatch, Recording, Traffic, Verdict, annotations,
    index::{Index, Query, marked, owners_of, tag_needle},
    row::{COLUMNS, StoredRow},
};

/// Recordings on a page unless asked otherwise.
pub const LIMIT_DEFAULT: usize = 100;

/// Most recordings on a page: about a megabyte of JSON.
pub const LIMIT_MAX: usize = 1000;

/// Most rows that one call opens when it searches: a few tenths of a second.
pub const SCAN_ROWS_MAX: usize = 20_000;

/// Rows fetched at once, between which others may use the connection.
const FETCH_ROWS: usize = 250;

/// Which recordings to list. Everything given must hold.
#[derive(Clone, Default)]
pub struct Filter {
    /// Started at or after.
    pub from: Option<Timestamp>,
    /// Started before.
    pub to: Option<Timestamp>,
    /// With this verdict.
    pub verdict: Option<Verdict>,
    /// In this direction.
    pub direction: Option<Direction>,
    /// Of this traffic.
    pub traffic: Option<Traffic>,
    /// At least so long.
    pub duration_min_ms: Option<u64>,
    /// At most so long.
    pub duration_max_ms: Option<u64>,
    /// Whether it is preserved.
    pub preserved: Option<bool>,
    /// With this number on either side. Separators do not count, and the end of a number is enough: `4711` finds
    /// `+49 30 1234-4711`. Begun with `+` it must be the whole number. An address that is not a number must be the same but
    /// for case. [`Filter::number_match`] says otherwise.
    pub number: Option<String>,
    /// Which part of a number `number` is.
    pub number_match: NumberMatch,
    /// Of this owner, but for case.
    pub owner: Option<String>,
    /// Of one of these owners, for example those of a group; none: of anybody or nobody.
    pub owners: Option<BTreeSet<Uuid>>,
    /// With all of these tags.
    pub tags: Vec<String>,
    /// With this text in one of its notes, but for case.
    pub note: Option<String>,
    /// Which recordings whoever asks may find at all; none: all.
    pub visible: Option<Visible>,
    /// At most so many, 1 to [`LIMIT_MAX`]; [`LIMIT_DEFAULT`] if `None`.
    pub limit: Option<usize>,
}

impl Filter {
    /// Whether it asks for more than a time, so that the index is of use.
    fn is_search(&self) -> bool {
        self.verdict.is_some()
            || self.direction.is_some()
            || self.traffic.is_some()
            || self.duration_min_ms.is_some()
            || self.duration_max_ms.is_some()
            || self.preserved.is_some()
            || self.number.is_some()
            || self.owner.is_some()
            || self.owners.is_some()
            || !self.tags.is_empty()
            || self.note.is_some()
            || self.visible.as_ref().is_some_and(|visible| *visible != Visible::All)
    }

    fn query(&self) -> Query {
        let visible = self.visible.as_ref().and_then(owners_of);
        let tags = self.tags.iter().map(|tag| tag_needle(&tag.trim().to_lowercase()));
        Query {
            from_ms: self.from.map(ceil_ms),
            to_ms: self.to.map(ceil_ms),
            verdict: self.verdict,
            direction: self.direction,
            traffic: self.traffic,
            duration_min_ms: self.duration_min_ms,
            duration_max_ms: self.duration_max_ms,
            preserved: self.preserved,
            owner_email: self.owner.as_ref().map(|owner| owner.to_lowercase()),
            owners: self.owners.iter().cloned().chain(visible).collect(),
            number: self.number.as_deref().map(|number| self.number_match.needle(number)),
            words: tags.chain(self.note.as_ref().map(|note| note.to_lowercase().into_bytes())).collect(),
        }
    }
}

impl fmt::Debug for Filter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Filter")
            .field("from", &self.from)
            .field("to", &self.to)
            .field("verdict", &self.verdict)
            .field("direction", &self.direction)
            .field("limit", &self.limit)
            .finish_non_exhaustive()
    }
}

/// A place in the list: after this recording. As text it is opaque, and it stays valid when recordings come and go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cursor {
    started_at_ms: i64,
    id: Uuid,
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}_{}", self.started_at_ms, self.id.simple())
    }
}

impl FromStr for Cursor {
    type Err = CatalogueError;
    fn from_str(text: &str) -> Result<Self, CatalogueError> {
        let parse = || -> Option<Self> {
            let (started_at_ms, id) = text.split_once('_')?;
            Some(Self { started_at_ms: started_at_ms.parse().ok()?, id: Uuid::try_parse(id).ok()? })
        };
        parse().ok_or(CatalogueError::BadCursor)
    }
}

/// Part of a list.
#[derive(Debug, Clone)]
pub struct Page {
    /// The recordings, newest first, without their facts.
    pub recordings: Vec<Recording>,
    /// Where to go on, if there may be more. A page can be shorter than asked for, even empty, and still have a next one: when
    /// a search has opened as many rows as one call may.
    pub next: Option<Cursor>,
    /// Recordings on the way that do not open, because their row was changed or damaged: [`Catalogue::get`] says what is
    /// wrong with each. They do not keep the others from being found.
    pub damaged: Vec<Uuid>,
    /// The search looked at rows one by one and stopped before the page was full: `next` goes on. So it is while the index is being
    /// built after a start.
    pub partial: bool,
}

impl Catalogue {
    /// The recordings that match, newest first, after `cursor`.
    ///
    /// # Errors
    /// Disk errors.
    pub fn list(&self, filter: &Filter, cursor: Option<Cursor>) -> Result<Page, CatalogueError> {
        let matcher = Matcher::new(filter);
        if filter.is_search() && self.index().is_built {
            return self.list_indexed(filter, &matcher, cursor);
        }
        let mut paging = Paging::new(filter, cursor);
        loop {
            let rows = self.fetch(filter, paging.last)?;
            let end = rows.len() < FETCH_ROWS;
            for row in rows {
                if !self.take(&mut paging, &matcher, row)? {
                    return Ok(paging.cut());
                }
            }
            if end {
                return Ok(paging.page);
            }
        }
    }

    /// The same by the index: only rows that it names are opened.
    fn list_indexed(
        &self,
        filter: &Filter,
        matcher: &Matcher<'_>,
        cursor: Option<Cursor>,
    ) -> Result<Page, CatalogueError> {
        let query = filter.query();
        let mut paging = Paging::new(filter, cursor);
        loop {
            // One more than fits, so that a page that is full knows whether there is a next one.
            let wanted = (paging.limit - paging.page.recordings.len() + 1).max(FETCH_ROWS.min(paging.limit + 1));
            let after = paging.last.map(|last| (last.started_at_ms, last.id.as_u128()));
            let keys = self.index().find(&query, after, wanted);
            let end = keys.len() < wanted;
            for (started_at_ms, id) in keys {
                let (id, before) = (Uuid::from_u128(id), paging.last);
                let Some(row) = self.stored(id)? else {
                    paging.last = Some(Cursor { started_at_ms, id });
                    continue;
                };
                if !self.take(&mut paging, matcher, row)? {
                    paging.last = before;
                    return Ok(paging.cut());
                }
            }
            if end {
                return Ok(paging.page);
            }
        }
    }

    /// Looks at a row. False: the page can take no more, and the row was not looked at.
    fn take(&self, paging: &mut Paging, matcher: &Matcher<'_>, row: StoredRow) -> Result<bool, CatalogueError> {
        if paging.page.recordings.len() == paging.limit || paging.scanned == SCAN_ROWS_MAX {
            return Ok(false);
        }
        paging.scanned += 1;
        paging.last = Some(Cursor { started_at_ms: row.started_at_ms, id: row.id });
        let id = row.id;
        match row.open(&self.sealing) {
            Ok(mut recording) if matcher.matches(&recording) => {
                let Ok(annotations) = annotations::read(&self.reader(), &self.sealing, id) else {
                    paging.page.damaged.push(id);
                    return Ok(true);
                };
                if matcher.matches_annotations(&annotations) {
                    recording.annotations = annotations;
                    recording.linked = self.linked(id)?;
                    paging.page.recordings.push(recording);
                }
            }
            Ok(_) => {}
            Err(_) => paging.page.damaged.push(id),
        }
        Ok(true)
    }

    fn stored(&self, id: Uuid) -> Result<Option<StoredRow>, CatalogueError> {
        let db = self.reader();
        let sql = format!("SELECT {COLUMNS} FROM recordings WHERE id = ?1");
        let read = || db.prepare_cached(&sql)?.query_row([id.to_string()], StoredRow::read).optional();
        read().map_err(CatalogueError::sql("list recordings"))
    }

    /// Reads another `rows` rows into the index, the newest first. True once it has all of them: then searches use it. Meanwhile they open
    /// rows one by one. Called again and again by a thread that has nothing else to do, after the start.
    ///
    /// # Errors
    /// Disk errors.
    pub fn build_index(&self, rows: usize) -> Result<bool, CatalogueError> {
        // Held while it is read and entered: what changes meanwhile is entered after it.
        let mut index = self.index();
        if index.is_built {
            return Ok(true);
        }
        let after = index.read_to.map(|(started_at_ms, id)| Cursor { started_at_ms, id: Uuid::from_u128(id) });
        let found = self.fetch_rows(&Filter::default(), after, rows.max(1))?;
        index.is_built = found.len() < rows.max(1);
        for row in found {
            let (id, started_at_ms) = (row.id, row.started_at_ms);
            index.read_to = Some((started_at_ms, id.as_u128()));
            self.enter(&mut index, &self.reader(), row);
        }
        Ok(index.is_built)
    }

    /// How many rows the index has, and about how many bytes of memory it takes.
    pub fn index_size(&self) -> (usize, usize) {
        let index = self.index();
        (index.rows(), index.bytes())
    }

    fn enter(&self, index: &mut Index, db: &Connection, row: StoredRow) {
        let (id, started_at_ms) = (row.id, row.started_at_ms);
        let opened = row.open(&self.sealing).and_then(|recording| {
            Ok(Recording { annotations: annotations::read(db, &self.sealing, id)?, ..recording })
        });
        match opened {
            Ok(recording) => index.put(&recording),
            Err(_) => index.put_damaged(id, started_at_ms),
        }
    }

    /// A row was entered or changed, in a transaction that is over; `db` is the connection that did it.
    pub(crate) fn reindex(&self, db: &Connection, id: Uuid) {
        let sql = format!("SELECT {COLUMNS} FROM recordings WHERE id = ?1");
        let read = || db.prepare_cached(&sql)?.query_row([id.to_string()], StoredRow::read);
        // A row that cannot be read just after it was written: the next start finds it, or what is wrong with it.
        if let Ok(row) = read() {
            self.enter(&mut self.index(), db, row);
        }
    }

    /// A row is going: what the index calls it.
    pub(crate) fn index_key(db: &Connection, id: Uuid) -> Option<(i64, u128)> {
        let sql = "SELECT started_at_ms FROM recordings WHERE id = ?1";
        db.query_row(sql, [id.to_string()], |row| row.get(0)).ok().map(|started_at_ms| (started_at_ms, id.as_u128()))
    }

    fn fetch(&self, filter: &Filter, after: Option<Cursor>) -> Result<Vec<StoredRow>, CatalogueError> {
        self.fetch_rows(filter, after, FETCH_ROWS)
    }

    fn fetch_rows(
        &self,
        filter: &Filter,
        after: Option<Cursor>,
        rows: usize,
    ) -> Result<Vec<StoredRow>, CatalogueError> {
        let mut conditions = vec!["1 = 1"];
        let mut values = Vec::new();
        let mut add = |condition, value: Value| {
            conditions.push(condition);
            values.push(value);
        };
        if let Some(from) = filter.from {
            // a moment between two milliseconds excludes the earlier one
            add("started_at_ms >= ?", ceil_ms(from).into());
        }
        if let Some(to) = filter.to {
            add("started_at_ms < ?", ceil_ms(to).into());
        }
        if let Some(verdict) = filter.verdict {
            add("verdict = ?", verdict.as_str().to_owned().into());
        }
        if let Some(direction) = filter.direction {
            add("direction = ?", direction.as_str().to_owned().into());
        }
        if let Some(after) = after {
            conditions.push("(started_at_ms, id) < (?, ?)");
            values.extend([after.started_at_ms.into(), after.id.to_string().into()]);
        }
        let sql = format!(
            "SELECT {COLUMNS} FROM recordings WHERE {} ORDER BY started_at_ms DESC, id DESC LIMIT {rows}",
            conditions.join(" AND ")
        );
        let read = || -> rusqlite::Result<Vec<StoredRow>> {
            let db = self.reader();
            let mut statement = db.prepare_cached(&sql)?;
            let rows = statement.query_map(rusqlite::params_from_iter(values), StoredRow::read)?;
            rows.collect()
        };
        read().map_err(CatalogueError::sql("list recordings"))
    }
}

fn ceil_ms(time: Timestamp) -> i64 {
    let ms = time.as_millisecond();
    if Timestamp::from_millisecond(ms).is_ok_and(|floor| floor < time) { ms + 1 } else { ms }
}

/// A page that is being filled.
struct Paging {
    page: Page,
    limit: usize,
    last: Option<Cursor>,
    scanned: usize,
}

impl Paging {
    fn new(filter: &Filter, cursor: Option<Cursor>) -> Self {
        let limit = filter.limit.unwrap_or(LIMIT_DEFAULT).clamp(1, LIMIT_MAX);
        let page = Page { recordings: Vec::new(), next: None, damaged: Vec::new(), partial: false };
        Self { page, limit, last: cursor, scanned: 0 }
    }

    /// There is more, from the last row that was looked at.
    fn cut(self) -> Page {
        let partial = self.page.recordings.len() < self.limit;
        Page { next: self.last, partial, ..self.page }
    }
}

/// What an opened row is asked.
struct Matcher<'a> {
    filter: &'a Filter,
    number: Option<Vec<u8>>,
    owner: Option<String>,
    tags: Vec<String>,
    note: Option<String>,
}

impl<'a> Matcher<'a> {
    fn new(filter: &'a Filter) -> Self {
        Self {
            filter,
            number: filter.number.as_deref().map(|number| filter.number_match.needle(number)),
            owner: filter.owner.as_ref().map(|owner| owner.to_lowercase()),
            tags: filter.tags.iter().map(|tag| tag.trim().to_lowercase()).collect(),
            note: filter.note.as_ref().map(|note| note.to_lowercase()),
        }
    }

    fn matches(&self, recording: &Recording) -> bool {
        let filter = self.filter;
        let owner = |wanted: &String| recording.owner.as_ref().is_some_and(|owner| owner.to_lowercase() == *wanted);
        let owners = |set: &BTreeSet<Uuid>| recording.owner_id.is_some_and(|owner| set.contains(&owner));
        let number = |wanted: &Vec<u8>| {
            let has = |have: &String| memmem::find(&marked(have), wanted).is_some();
            [&recording.local_number, &recording.remote_number].into_iter().flatten().any(has)
        };
        filter.verdict.is_none_or(|verdict| verdict == recording.verdict)
            && filter.direction.is_none_or(|direction| direction == recording.direction)
            && filter.traffic.is_none_or(|traffic| traffic == recording.traffic)
            && filter.duration_min_ms.is_none_or(|min| recording.duration_ms >= min)
            && filter.duration_max_ms.is_none_or(|max| recording.duration_ms <= max)
            && self.owner.as_ref().is_none_or(owner)
            && filter.owners.as_ref().is_none_or(owners)
            && filter.visible.as_ref().is_none_or(|visible| visible.has(recording.owner_id))
            && self.number.as_ref().is_none_or(number)
    }

    fn matches_annotations(&self, annotations: &Annotations) -> bool {
        let note = |wanted: &String| annotations.notes.iter().any(|note| note.text.to_lowercase().contains(wanted));
        self.filter.preserved.is_none_or(|preserved| preserved == annotations.preserved.is_some())
            && self.tags.iter().all(|tag| annotations.tags.contains(tag))
            && self.note.as_ref().is_none_or(note)
    }
}

/// A number without its separators (RFC 3966 section 5.1.1, and blanks), or `None` when it is no number.
pub(crate) fn digits(text: &str) -> Option<String> {
    let kept: String = text.chars().filter(|c| !matches!(c, ' ' | '-' | '.' | '(' | ')' | '/')).collect();
    let number = kept.strip_prefix('+').unwrap_or(&kept);
    let is_number = !number.is_empty() && number.chars().all(|c| c.is_ascii_digit() || matches!(c, '*' | '#'));
    is_number.then_some(kept)
}
