//! The index of searches, in memory: what the sealed columns hide, in a form that is looked through from end to end.
//!
//! Rows lie in blocks of up to [`BLOCK_ROWS`], by when they began. A block has the rows' plain figures (48 bytes each), and two texts: the
//! numbers of all its rows one after the other, and their tags and notes. A search for text is one search for bytes through a block's text, newest block
//! first, which is as fast as memory; what is found is a place, and the place says which row. So nothing is sorted, hashed or kept twice,
//! a million rows take about 85 bytes each, and a change moves the bytes of one block.
//!
//! The index only says where it is worth to look: whoever uses it opens the rows and asks them. Of long notes only the beginning is in it,
//! and rows that do not open are in it as rows that could be anything; both are always looked at.

use std::{
    collections::{BTreeSet, HashMap},
    ops::Range,
};

use callvault_access::Visible;
use memchr::memmem;
use uuid::Uuid;

use crate::{Direction, Recording, Traffic, Verdict, find::digits};

/// Rows of a block; one that has twice as many is divided.
const BLOCK_ROWS: usize = 4_096;

/// Bytes of tags and notes of one row that are in the index; the rest is found by opening the row.
const WORDS_BYTES_MAX: usize = 4_096;

/// Before a number or an address, and after it. What is indexed has no control characters.
const BEGIN: u8 = 1;
const END: u8 = 2;
/// Before a tag, and before a note.
const TAG: u8 = 3;
const NOTE: u8 = 4;

const PRESERVED: u16 = 1 << 12;
/// The row could be anything: it is always looked at.
const ANYTHING: u16 = 1 << 13;
/// The row has more words than the index.
const MORE_WORDS: u16 = 1 << 14;

/// The place of a row in the order of lists.
pub(crate) type Key = (i64, u128);

/// The index.
#[derive(Debug, Default)]
pub(crate) struct Index {
    /// The oldest first; none is empty.
    blocks: Vec<Block>,
    owners: Names<Uuid>,
    emails: Names<String>,
    /// Below this row nothing was read yet; none at first. Whether all was read.
    pub(crate) read_to: Option<Key>,
    pub(crate) is_built: bool,
}

/// Small numbers for what many rows share; 0 is none.
#[derive(Debug)]
struct Names<T>(HashMap<T, u32>);

impl<T> Default for Names<T> {
    fn default() -> Self {
        Self(HashMap::new())
    }
}

impl<T: std::hash::Hash + Eq> Names<T> {
    fn number(&mut self, name: Option<T>) -> u32 {
        let Some(name) = name else { return 0 };
        let next = u32::try_from(self.0.len()).unwrap_or(u32::MAX - 1) + 1;
        *self.0.entry(name).or_insert(next)
    }
}

#[derive(Debug, Default)]
struct Block {
    rows: Vec<Row>,
    numbers: Vec<u8>,
    words: Vec<u8>,
}

#[derive(Debug, Clone, Copy)]
struct Row {
    id: [u8; 16],
    started_at_ms: i64,
    /// Milliseconds, no more than fit.
    duration_ms: u32,
    owner: u32,
    email: u32,
    /// Where the row's texts end in the block.
    numbers_end: u32,
    words_end: u32,
    /// Verdict, direction and traffic, four bits each, and what else is yes or no.
    flags: u16,
}

impl Row {
    fn key(&self) -> Key {
        (self.started_at_ms, u128::from_be_bytes(self.id))
    }
}

fn place_in<T: PartialEq>(all: &[T], one: &T) -> u16 {
    all.iter().position(|known| known == one).and_then(|place| u16::try_from(place).ok()).unwrap_or(15)
}

/// What is searched for, in the index's terms.
#[derive(Debug, Default)]
pub(crate) struct Query {
    pub(crate) from_ms: Option<i64>,
    pub(crate) to_ms: Option<i64>,
    pub(crate) verdict: Option<Verdict>,
    pub(crate) direction: Option<Direction>,
    pub(crate) traffic: Option<Traffic>,
    pub(crate) duration_min_ms: Option<u64>,
    pub(crate) duration_max_ms: Option<u64>,
    pub(crate) preserved: Option<bool>,
    pub(crate) owner_email: Option<String>,
    pub(crate) owners: Vec<BTreeSet<Uuid>>,
    /// One of the texts is found in the numbers.
    pub(crate) number: Option<Vec<u8>>,
    /// Each of them is found in the words.
    pub(crate) words: Vec<Vec<u8>>,
}

/// A query that knows the numbers of names.
struct Prepared<'a> {
    query: &'a Query,
    mask: u16,
    flags: u16,
    email: Option<u32>,
    /// Which owners' numbers are wanted, for each set.
    owners: Vec<Vec<bool>>,
}

impl Index {
    /// Enters a row, or changes it.
    pub(crate) fn put(&mut self, recording: &Recording) {
        let flags = place_in(Verdict::ALL, &recording.verdict)
            | place_in(Direction::ALL, &recording.direction) << 4
            | place_in(Traffic::ALL, &recording.traffic) << 8;
        let annotations = &recording.annotations;
        let mut numbers = Vec::new();
        for number in [&recording.local_number, &recording.remote_number].into_iter().flatten() {
            numbers.extend(marked(number));
        }
        let mut words = Vec::new();
        for tag in &annotations.tags {
            words.push(TAG);
            words.extend(tag.bytes());
            words.push(END);
        }
        for note in &annotations.notes {
            words.push(NOTE);
            words.extend(note.text.to_lowercase().bytes());
        }
        let more = if words.len() > WORDS_BYTES_MAX { MORE_WORDS } else { 0 };
        words.truncate(WORDS_BYTES_MAX);
        let row = Row {
            id: *recording.id.as_bytes(),
            started_at_ms: recording.started_at.as_millisecond(),
            duration_ms: u32::try_from(recording.duration_ms).unwrap_or(u32::MAX),
            owner: self.owners.number(recording.owner_id),
            email: self.emails.number(recording.owner.as_ref().map(|owner| owner.to_lowercase())),
            numbers_end: 0,
            words_end: 0,
            flags: flags | more | if annotations.preserved.is_some() { PRESERVED } else { 0 },
        };
        self.insert(row, &numbers, &words);
    }

    /// Enters a row that does not open.
    pub(crate) fn put_damaged(&mut self, id: Uuid, started_at_ms: i64) {
        let row = Row {
            id: *id.as_bytes(),
            started_at_ms,
            duration_ms: 0,
            owner: 0,
            email: 0,
            numbers_end: 0,
            words_end: 0,
            flags: ANYTHING,
        };
        self.insert(row, &[], &[]);
    }

    /// Forgets a row.
    pub(crate) fn remove(&mut self, key: Key) {
        let at = self.block_of(key);
        let Some(block) = self.blocks.get_mut(at) else { return };
        if let Ok(place) = block.rows.binary_search_by_key(&key, Row::key) {
            block.replace(place..place + 1, None);
            if block.rows.is_empty() {
                self.blocks.remove(at);
            }
        }
    }

    /// Bytes of memory that it takes, about.
    pub(crate) fn bytes(&self) -> usize {
        let of_block = |block: &Block| {
            block.rows.capacity() * size_of::<Row>() + block.numbers.capacity() + block.words.capacity()
        };
        self.blocks.iter().map(of_block).sum()
    }

    /// Rows in it.
    pub(crate) fn rows(&self) -> usize {
        self.blocks.iter().map(|block| block.rows.len()).sum()
    }

    /// The block that has the key, or would have it.
    fn block_of(&self, key: Key) -> usize {
        let later = self.blocks.partition_point(|block| block.rows.first().is_some_and(|row| row.key() <= key));
        later.saturating_sub(1)
    }

    fn insert(&mut self, row: Row, numbers: &[u8], words: &[u8]) {
        let at = self.block_of(row.key());
        if self.blocks.is_empty() {
            self.blocks.push(Block::default());
        }
        let block = &mut self.blocks[at];
        let range = match block.rows.binary_search_by_key(&row.key(), Row::key) {
            Ok(place) => place..place + 1,
            Err(place) => place..place,
        };
        block.replace(range, Some((row, numbers, words)));
        if block.rows.len() >= 2 * BLOCK_ROWS {
            let second = block.split();
            self.blocks.insert(at + 1, second);
        }
    }

    /// Up to `limit` rows that may be what is wanted, the newest first, among those before `after`.
    pub(crate) fn find(&self, query: &Query, after: Option<Key>, limit: usize) -> Vec<Key> {
        let mut found = Vec::new();
        let prepared = self.prepare(query);
        let first = after.map_or(self.blocks.len(), |key| self.block_of(key) + 1).min(self.blocks.len());
        for block in self.blocks[..first].iter().rev() {
            if block.rows.first().is_some_and(|row| query.to_ms.is_some_and(|to| row.started_at_ms >= to)) {
                continue;
            }
            if block.rows.last().is_some_and(|row| query.from_ms.is_some_and(|from| row.started_at_ms < from)) {
                break;
            }
            block.find(&prepared, after, limit, &mut found);
            if found.len() >= limit {
                break;
            }
        }
        found
    }

    fn prepare<'a>(&self, query: &'a Query) -> Prepared<'a> {
        let (mut mask, mut flags) = (0, 0);
        let mut want = |bits: u16, value: u16| {
            mask |= bits;
            flags |= value;
        };
        if let Some(verdict) = &query.verdict {
            want(0xf, place_in(Verdict::ALL, verdict));
        }
        if let Some(direction) = &query.direction {
            want(0xf0, place_in(Direction::ALL, direction) << 4);
        }
        if let Some(traffic) = &query.traffic {
            want(0xf00, place_in(Traffic::ALL, traffic) << 8);
        }
        if let Some(preserved) = query.preserved {
            want(PRESERVED, if preserved { PRESERVED } else { 0 });
        }
        // A number that no row has stands for a name that none has.
        let email = query.owner_email.as_ref().map(|email| self.emails.0.get(email).copied().unwrap_or(u32::MAX));
        let wanted = |set: &BTreeSet<Uuid>| {
            let mut wanted = vec![false; self.owners.0.len() + 1];
            for number in set.iter().filter_map(|owner| self.owners.0.get(owner)) {
                if let Some(one) = usize::try_from(*number).ok().and_then(|number| wanted.get_mut(number)) {
                    *one = true;
                }
            }
            wanted
        };
        Prepared { query, mask, flags, email, owners: query.owners.iter().map(wanted).collect() }
    }
}

impl Block {
    fn ends(&self, place: usize) -> (usize, usize) {
        let before = place.checked_sub(1).and_then(|before| self.rows.get(before));
        before.map_or((0, 0), |row| (row.numbers_end as usize, row.words_end as usize))
    }

    /// Puts one row or none into the place of one or none.
    fn replace(&mut self, range: Range<usize>, new: Option<(Row, &[u8], &[u8])>) {
        let ((numbers_from, words_from), (numbers_to, words_to)) = (self.ends(range.start), self.ends(range.end));
        let (numbers, words) = new.map_or((&[][..], &[][..]), |(_, numbers, words)| (numbers, words));
        self.numbers.splice(numbers_from..numbers_to, numbers.iter().copied());
        self.words.splice(words_from..words_to, words.iter().copied());
        let start = range.start;
        let added = new.map(|(row, ..)| Row { numbers_end: numbers_from as u32, words_end: words_from as u32, ..row });
        let later = range.start + usize::from(added.is_some());
        self.rows.splice(range, added);
        let numbers_more = numbers.len() as i64 - (numbers_to - numbers_from) as i64;
        let words_more = words.len() as i64 - (words_to - words_from) as i64;
        if let Some(row) = self.rows.get_mut(start).filter(|_| later > start) {
            row.numbers_end += numbers.len() as u32;
            row.words_end += words.len() as u32;
        }
        for row in &mut self.rows[later..] {
            row.numbers_end = (i64::from(row.numbers_end) + numbers_more) as u32;
            row.words_end = (i64::from(row.words_end) + words_more) as u32;
        }
    }

    /// Keeps the older half and gives the other.
    fn split(&mut self) -> Self {
        let half = self.rows.len() / 2;
        let (numbers, words) = self.ends(half);
        let mut rows = self.rows.split_off(half);
        for row in &mut rows {
            row.numbers_end -= numbers as u32;
            row.words_end -= words as u32;
        }
        Self { rows, numbers: self.numbers.split_off(numbers), words: self.words.split_off(words) }
    }

    fn find(&self, prepared: &Prepared<'_>, after: Option<Key>, limit: usize, found: &mut Vec<Key>) {
        let texts = prepared.query.number.iter().map(|needle| (needle, false));
        let texts = texts.chain(prepared.query.words.iter().map(|needle| (needle, true)));
        let mut hits: Option<Vec<bool>> = None;
        for (needle, is_words) in texts {
            let own = self.hits(needle, is_words);
            hits = Some(match hits {
                None => own,
                Some(before) => before.iter().zip(own).map(|(before, own)| *before && own).collect(),
            });
        }
        for (place, row) in self.rows.iter().enumerate().rev() {
            if found.len() >= limit {
                return;
            }
            let is_after = after.is_none_or(|after| row.key() < after);
            let is_text = hits.as_ref().is_none_or(|hits| hits[place]);
            if is_after && (is_text || row.flags & ANYTHING != 0) && row.is_wanted(prepared) {
                found.push(row.key());
            }
        }
    }

    /// Which rows have the text, or more of it than is here.
    fn hits(&self, needle: &[u8], is_words: bool) -> Vec<bool> {
        let text = if is_words { &self.words } else { &self.numbers };
        let more = |row: &Row| is_words && row.flags & MORE_WORDS != 0;
        let mut hits: Vec<bool> = self.rows.iter().map(more).collect();
        let end = |row: &Row| if is_words { row.words_end } else { row.numbers_end } as usize;
        for at in memmem::find_iter(text, needle) {
            let place = self.rows.partition_point(|row| end(row) <= at);
            // A text of a note cannot begin in one row and end in the next: each begins with a mark.
            if let Some(hit) = hits.get_mut(place) {
                *hit = true;
            }
        }
        hits
    }
}

impl Row {
    fn is_wanted(&self, prepared: &Prepared<'_>) -> bool {
        let query = prepared.query;
        let at = self.started_at_ms;
        if query.from_ms.is_some_and(|from| at < from) || query.to_ms.is_some_and(|to| at >= to) {
            return false;
        }
        let duration = u64::from(self.duration_ms);
        let is_long = self.duration_ms == u32::MAX;
        let owner = usize::try_from(self.owner).unwrap_or(0);
        self.flags & ANYTHING != 0
            || self.flags & prepared.mask == prepared.flags
                && query.duration_min_ms.is_none_or(|min| duration >= min || is_long)
                && query.duration_max_ms.is_none_or(|max| duration <= max || is_long)
                && prepared.email.is_none_or(|email| email == self.email)
                && prepared.owners.iter().all(|wanted| self.owner != 0 && wanted.get(owner) == Some(&true))
    }
}

/// A number as it is looked for: without separators; an address in small letters.
pub(crate) fn normal(number: &str) -> String {
    let text = digits(number).unwrap_or_else(|| number.to_lowercase());
    text.chars().filter(|c| !c.is_control()).collect()
}

/// A number between its marks.
pub(crate) fn marked(number: &str) -> Vec<u8> {
    [BEGIN].into_iter().chain(normal(number).into_bytes()).chain([END]).collect()
}

/// How a number is looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum NumberMatch {
    /// The whole number where it begins with `+`, else its end.
    #[default]
    Usual,
    /// Its beginning.
    Prefix,
    /// Its end.
    Suffix,
    /// Anywhere in it.
    Part,
}

impl NumberMatch {
    /// What is looked for among the numbers.
    pub(crate) fn needle(self, number: &str) -> Vec<u8> {
        let is_number = digits(number).is_some();
        let text = normal(number);
        let (begins, ends) = match self {
            Self::Usual => (!is_number || text.starts_with('+'), true),
            Self::Prefix => (true, false),
            Self::Suffix => (false, true),
            Self::Part => (false, false),
        };
        let begin = begins.then_some(BEGIN).into_iter();
        begin.chain(text.into_bytes()).chain(ends.then_some(END)).collect()
    }
}

/// What is looked for among the words: a tag, or a part of a note.
pub(crate) fn tag_needle(tag: &str) -> Vec<u8> {
    [TAG].into_iter().chain(tag.bytes()).chain([END]).collect()
}

/// The owners of what may be found; none: all.
pub(crate) fn owners_of(visible: &Visible) -> Option<BTreeSet<Uuid>> {
    match visible {
        Visible::All => None,
        Visible::Of(owners) => Some(owners.clone()),
    }
}
