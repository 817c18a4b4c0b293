//! Lists: newest first, in pages, by what the database can compare and by what only the opened row tells.

use std::{fmt, str::FromStr};

use jiff::Timestamp;
use rusqlite::types::Value;
use uuid::Uuid;

use crate::{
    Catalogue, CatalogueError, Direction, Recording, Verdict,
    row::{COLUMNS, StoredRow},
};

/// Recordings on a page unless asked otherwise.
pub const LIMIT_DEFAULT: usize = 100;

/// Most recordings on a page: about a megabyte of JSON.
pub const LIMIT_MAX: usize = 1000;

/// Most rows that one call opens when it looks for a number or an owner: a few tenths of a second.
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
    /// With this number on either side. Separators do not count, and the end of a number is enough: `4711` finds
    /// `+49 30 1234-4711`. Begun with `+` it must be the whole number. An address that is not a number must be the same but
    /// for case.
    pub number: Option<String>,
    /// Of this owner, but for case.
    pub owner: Option<String>,
    /// At most so many, 1 to [`LIMIT_MAX`]; [`LIMIT_DEFAULT`] if `None`.
    pub limit: Option<usize>,
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
}

impl Catalogue {
    /// The recordings that match, newest first, after `cursor`.
    ///
    /// # Errors
    /// Disk errors.
    pub fn list(&self, filter: &Filter, cursor: Option<Cursor>) -> Result<Page, CatalogueError> {
        let limit = filter.limit.unwrap_or(LIMIT_DEFAULT).clamp(1, LIMIT_MAX);
        let matcher = Matcher::new(filter);
        let mut page = Page { recordings: Vec::new(), next: None, damaged: Vec::new() };
        let (mut last, mut scanned) = (cursor, 0);
        loop {
            let rows = self.fetch(filter, last)?;
            let end = rows.len() < FETCH_ROWS;
            for row in rows {
                if page.recordings.len() == limit || scanned == SCAN_ROWS_MAX {
                    return Ok(Page { next: last, ..page });
                }
                scanned += 1;
                last = Some(Cursor { started_at_ms: row.started_at_ms, id: row.id });
                let id = row.id;
                match row.open(&self.sealing) {
                    Ok(mut recording) if matcher.matches(&recording) => {
                        recording.linked = self.linked(id)?;
                        page.recordings.push(recording);
                    }
                    Ok(_) => {}
                    Err(_) => page.damaged.push(id),
                }
            }
            if end {
                return Ok(page);
            }
        }
    }

    fn fetch(&self, filter: &Filter, after: Option<Cursor>) -> Result<Vec<StoredRow>, CatalogueError> {
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
            "SELECT {COLUMNS} FROM recordings WHERE {} ORDER BY started_at_ms DESC, id DESC LIMIT {FETCH_ROWS}",
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

/// What only an opened row can be asked.
struct Matcher {
    number: Option<Number>,
    owner: Option<String>,
}

enum Number {
    Whole(String),
    End(String),
    Other(String),
}

impl Matcher {
    fn new(filter: &Filter) -> Self {
        let number = filter.number.as_deref().map(|wanted| match digits(wanted) {
            Some(digits) if digits.starts_with('+') => Number::Whole(digits),
            Some(digits) => Number::End(digits),
            None => Number::Other(wanted.to_lowercase()),
        });
        Self { number, owner: filter.owner.as_ref().map(|owner| owner.to_lowercase()) }
    }

    fn matches(&self, recording: &Recording) -> bool {
        let owner = |wanted: &String| recording.owner.as_ref().is_some_and(|owner| owner.to_lowercase() == *wanted);
        let number = |wanted: &Number| {
            [&recording.local_number, &recording.remote_number].into_iter().flatten().any(|have| wanted.matches(have))
        };
        self.owner.as_ref().is_none_or(owner) && self.number.as_ref().is_none_or(number)
    }
}

impl Number {
    fn matches(&self, have: &str) -> bool {
        match self {
            Self::Other(wanted) => have.to_lowercase() == *wanted,
            Self::Whole(wanted) => digits(have).is_some_and(|have| have == *wanted),
            Self::End(wanted) => digits(have).is_some_and(|have| have.ends_with(wanted.as_str())),
        }
    }
}

/// A number without its separators (RFC 3966 section 5.1.1, and blanks), or `None` when it is no number.
fn digits(text: &str) -> Option<String> {
    let kept: String = text.chars().filter(|c| !matches!(c, ' ' | '-' | '.' | '(' | ')' | '/')).collect();
    let number = kept.strip_prefix('+').unwrap_or(&kept);
    let is_number = !number.is_empty() && number.chars().all(|c| c.is_ascii_digit() || matches!(c, '*' | '#'));
    is_number.then_some(kept)
}
