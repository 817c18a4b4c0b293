//! What a search costs among a million recordings: the first page, for searches that find nothing, only the oldest, or much.
//!
//! The floor is a walk through as many bytes as the index has, which is the least that a search that looks at everything can do.

#![allow(clippy::unwrap_used)]

mod floor;

use std::{
    collections::BTreeSet,
    path::Path,
    time::{Duration, Instant},
};

use callvault_access::{Level, Visible};
use callvault_catalogue::{
    Annotations, Archive, Author, Catalogue, Direction, Filter, Note, NumberMatch, Preserved, Recording, Restored,
    Traffic, Verdict,
};
use callvault_seal::{Keyring, PrivateKey};
use floor::{Bench, Row, Turn, time};
use jiff::Timestamp;
use rand::{SeedableRng as _, rngs::StdRng};
use uuid::Uuid;

/// When the first call began; one comes every second after it.
const BEGAN_MS: i64 = 1_800_000_000_000;
/// Users.
const OWNERS: usize = 2_000;
/// One recording in so many has a note and tags.
const ANNOTATED: usize = 10;
/// Rows written in one transaction.
const BATCH: usize = 10_000;
/// Recordings that are due in a retention run.
const DUE: usize = 10_000;

fn main() {
    let bench = Bench::begin("catalogue: the first page of a search");
    let rows = bench.pick(1_000_000, 3_000);
    let folder = tempfile::tempdir().unwrap();
    fill(folder.path(), rows);
    let began = Instant::now();
    let catalogue = open(folder.path());
    let opened = began.elapsed();
    let began = Instant::now();
    while !catalogue.build_index(10_000).unwrap() {}
    let built = began.elapsed();
    let (indexed, bytes) = catalogue.index_size();
    assert_eq!(indexed, rows);
    println!(
        "{rows} recordings: opened in {}, index built in {}, {} bytes a recording in memory",
        shown(opened),
        shown(built),
        bytes / rows
    );
    let memory = vec![1_u8; bytes];
    for (what, filter, expected) in searches() {
        // What is there to be found is found, at every size.
        assert_eq!(catalogue.list(&filter, None).unwrap().recordings.len(), expected, "{what}");
        let mut state = ();
        let subject = |(): &mut ()| Turn::timed(1, || catalogue.list(&filter, None).unwrap());
        let walk = |(): &mut ()| Turn::timed(1, || memory.iter().map(|byte| u64::from(*byte)).sum::<u64>());
        let row = Row { what, unit: "first page", floor: "a walk through the index's bytes" };
        bench.compare(&row, &mut state, subject, walk);
    }
    due(&catalogue, rows);
}

/// What a retention run begins with: the recordings before a day that are not preserved.
fn due(catalogue: &Catalogue, rows: usize) {
    let wanted = DUE.min(rows / 2);
    let to = Timestamp::from_millisecond(BEGAN_MS + wanted as i64 * 1_000).unwrap();
    let filter = Filter { to: Some(to), preserved: Some(false), limit: Some(1_000), ..Filter::default() };
    let (mut found, mut cursor) = (0, None);
    let began = Instant::now();
    loop {
        let page = catalogue.list(&filter, cursor).unwrap();
        found += page.recordings.len();
        match page.next {
            Some(next) => cursor = Some(next),
            None => break,
        }
    }
    // the oldest is preserved
    assert_eq!(found, wanted - 1);
    println!("{found} recordings before a day found, read and opened in {}", shown(began.elapsed()));
}

fn searches() -> Vec<(&'static str, Filter, usize)> {
    let number = |number: &str, number_match| Filter { number: Some(number.into()), number_match, ..Filter::default() };
    let tag = |tag: &str| Filter { tags: vec![tag.into()], ..Filter::default() };
    let note = |note: &str| Filter { note: Some(note.into()), ..Filter::default() };
    let of = |owners: BTreeSet<Uuid>| Filter { visible: Some(Visible::Of(owners)), ..Filter::default() };
    vec![
        ("part of a number: nothing", number("00000000000", NumberMatch::Part), 0),
        ("beginning of a number: nothing", number("+7", NumberMatch::Prefix), 0),
        ("part of a number: the oldest", number("88888888", NumberMatch::Part), 1),
        ("end of a number: the oldest", number("88888888", NumberMatch::Usual), 1),
        ("part of a number: most", number("4930", NumberMatch::Part), 100),
        ("tag: nothing", tag("never"), 0),
        ("tag: the oldest", tag("oldest"), 1),
        ("text in notes: nothing", note("never written"), 0),
        ("text in notes: the oldest", note("first of all"), 1),
        ("preserved: the oldest", Filter { preserved: Some(true), ..Filter::default() }, 1),
        ("duration: nothing", Filter { duration_min_ms: Some(u64::from(u32::MAX) - 1), ..Filter::default() }, 0),
        ("verdict: the oldest", Filter { verdict: Some(Verdict::Failed), ..Filter::default() }, 1),
        (
            "traffic and direction: nothing",
            Filter { traffic: Some(Traffic::Unknown), direction: Some(Direction::Unknown), ..Filter::default() },
            0,
        ),
        ("owner: nothing", Filter { owner: Some("nobody@example.org".into()), ..Filter::default() }, 0),
        ("visible to nobody", of(BTreeSet::new()), 0),
        ("visible: the oldest", of((OWNERS..OWNERS + 1_000).map(owner).collect()), 1),
        (
            "text in notes of one's own: nothing",
            Filter { note: Some("quotation".into()), ..of([owner(OWNERS)].into()) },
            0,
        ),
    ]
}

fn open(folder: &Path) -> Catalogue {
    let key = PrivateKey::generate(&mut StdRng::seed_from_u64(1));
    let keyring = Keyring::new(key, Vec::new()).unwrap();
    Catalogue::open(&folder.join("catalogue.db"), &keyring, Box::new(rand::make_rng::<StdRng>())).unwrap()
}

fn fill(folder: &Path, rows: usize) {
    let catalogue = open(folder);
    let now = Timestamp::from_millisecond(BEGAN_MS).unwrap();
    for first in (0..rows).step_by(BATCH) {
        let batch: Vec<Restored> = (first..rows.min(first + BATCH)).map(restored).collect();
        catalogue.restore(&batch, now).unwrap();
    }
}

fn owner(n: usize) -> Uuid {
    Uuid::from_u128(0xa000_0000 + n as u128)
}

/// Recording `n`; the oldest, 0, is unlike the others.
fn restored(n: usize) -> Restored {
    let is_oldest = n == 0;
    let started_at = Timestamp::from_millisecond(BEGAN_MS + n as i64 * 1_000).unwrap();
    let whose = if is_oldest { OWNERS } else { n % OWNERS };
    let recording = Recording {
        id: Uuid::from_u128(((BEGAN_MS as u128 + n as u128 * 1_000) << 80) | 0x7000_8000_0000_0000_0000 | n as u128),
        verdict: if is_oldest { Verdict::Failed } else { Verdict::Ok },
        started_at,
        ended_at: started_at,
        duration_ms: 1_000 + (n as u64 * 7_919) % 600_000,
        owner: Some(format!("user{whose}@example.org")),
        owner_id: Some(owner(whose)),
        owner_name: None,
        matched_by: None,
        direction: if n.is_multiple_of(2) { Direction::Incoming } else { Direction::Outgoing },
        local_number: Some(format!("+49301{:04}", n % OWNERS)),
        local_name: Some("Zoë Quarterstaff".into()),
        remote_number: Some(if is_oldest { "+3988888888".into() } else { format!("+4930{:07}", n % 7_000_000) }),
        remote_name: None,
        traffic: Traffic::External,
        call_id: Some(format!("call-{n}")),
        tracks: Vec::new(),
        flaws: Vec::new(),
        archive: Archive::journal(),
        linked: Vec::new(),
        annotations: annotations(n, started_at),
        tracking_id: None,
        facts: serde_json::Value::Null,
    };
    Restored { recording, lanes: Vec::new(), owed: Vec::new(), links: Vec::new() }
}

fn annotations(n: usize, at: Timestamp) -> Annotations {
    if !n.is_multiple_of(ANNOTATED) {
        return Annotations::default();
    }
    let by = Author { user: None, name: "ann@example.org".into(), level: Level::Base };
    let (text, tag) = match n {
        0 => ("The first of all, to be kept", "oldest"),
        _ => ("Asked for a quotation twice, and wants to be called back on Monday", "callback"),
    };
    Annotations {
        preserved: (n == 0).then(|| Preserved { by: by.clone(), at }),
        notes: vec![Note {
            id: Uuid::from_u128(n as u128),
            at_ms: None,
            text: text.into(),
            by,
            created_at: at,
            edited_at: None,
        }],
        tags: [tag.to_owned(), "sales".to_owned()].into(),
    }
}

fn shown(took: Duration) -> String {
    time(took.as_nanos() as f64)
}
