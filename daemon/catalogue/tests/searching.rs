//! Notes, tags, preserving, and searches: by the index and without it the same as a look at every row.
#![allow(clippy::unwrap_used)]

mod sut;

use std::collections::{BTreeMap, BTreeSet};

use callvault_access::{Action, Caller, Level, Visible, audit::Entry};
use callvault_catalogue::{
    Annotations, Author, Catalogue, Cursor, Direction, Filter, NewRecording, Note, NumberMatch, Preserved, Recording,
    Traffic, Verdict, note_text, tag,
};
use proptest::{prelude::*, test_runner::FileFailurePersistence};
use sut::{at, contains, file, id, new, open};
use uuid::Uuid;

const NOTE: &str = "Asked for a Quotation, twice";

fn entry() -> Entry {
    Entry::new(&Caller::operator("unix"), Action::Tag, at(0))
}

fn author(level: Level) -> Author {
    Author { user: None, name: "ann@example.org".into(), level }
}

fn note(n: u128, text: &str) -> Note {
    Note {
        id: id(n),
        at_ms: Some(1_500),
        text: text.into(),
        by: author(Level::Base),
        created_at: at(0),
        edited_at: None,
    }
}

fn annotate(catalogue: &Catalogue, n: u128, change: impl FnOnce(&mut Annotations)) -> Annotations {
    let changed = catalogue.annotate(id(n), &entry(), |annotations| {
        change(annotations);
        Ok::<(), ()>(())
    });
    changed.unwrap().unwrap().unwrap()
}

fn build(catalogue: &Catalogue) {
    while !catalogue.build_index(3).unwrap() {}
}

#[test]
fn what_is_added_stays_and_goes_with_the_recording() {
    let folder = tempfile::tempdir().unwrap();
    let catalogue = open(folder.path());
    catalogue.ingest(&new(1), at(0)).unwrap();
    let added = annotate(&catalogue, 1, |annotations| {
        annotations.preserved = Some(Preserved { by: author(Level::Administrator), at: at(1) });
        annotations.notes.push(note(7, NOTE));
        annotations.tags.insert("zebra-crossing".into());
    });
    let catalogue = open(folder.path());
    assert_eq!(catalogue.get(id(1)).unwrap().unwrap().annotations, added);
    assert_eq!(catalogue.list(&Filter::default(), None).unwrap().recordings[0].annotations, added);
    for name in ["catalogue.db", "catalogue.db-wal"] {
        let bytes = file(folder.path(), name);
        for text in [NOTE, "zebra", "ann@example"] {
            assert!(!contains(&bytes, text.as_bytes()), "{text} is in {name}");
        }
    }
    catalogue.delete(id(1), at(2), "by hand").unwrap();
    assert!(catalogue.get(id(1)).unwrap().is_none());
    assert_eq!(catalogue.annotate(id(1), &entry(), |_| Ok::<(), ()>(())).unwrap(), None);
    // a recording that comes under the same id has nothing of it
    let db = rusqlite::Connection::open(folder.path().join("catalogue.db")).unwrap();
    let left: i64 = db.query_row("SELECT count(*) FROM annotations", [], |row| row.get(0)).unwrap();
    assert_eq!(left, 0);
}

#[test]
fn who_refuses_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let catalogue = open(folder.path());
    catalogue.ingest(&new(1), at(0)).unwrap();
    let refused = catalogue.annotate(id(1), &entry(), |annotations| {
        annotations.tags.insert("x".into());
        Err("no")
    });
    assert_eq!(refused.unwrap(), Some(Err("no")));
    assert!(catalogue.get(id(1)).unwrap().unwrap().annotations.is_empty());
    assert_eq!(catalogue.audit_head().unwrap().entries, 0);
}

#[test]
fn what_a_tag_and_a_note_may_be() {
    let check = |text: &str, expected: Option<&str>| assert_eq!(tag(text).as_deref(), expected, "{text:?}");
    check("  Complaint ", Some("complaint"));
    check("ÄRGER", Some("ärger"));
    check("", None);
    check(" \t", None);
    check("a,b", None);
    check("a\nb", None);
    check(&"x".repeat(50), Some(&"x".repeat(50)));
    check(&"x".repeat(51), None);
    let check = |text: &str, expected: Option<&str>| assert_eq!(note_text(text).as_deref(), expected, "{text:?}");
    check(" two\nlines\t", Some("two\nlines"));
    check("\u{1}", None);
    check(" ", None);
    check(&"ä".repeat(2_000), Some(&"ä".repeat(2_000)));
    check(&"ä".repeat(2_001), None);
}

#[test]
fn a_search_for_a_number_takes_the_part_that_was_meant() {
    let folder = tempfile::tempdir().unwrap();
    let catalogue = open(folder.path());
    for (n, number) in [(1, "+49 30 1234-4711"), (2, "030 4711 99"), (3, "Zoe@Example.org")] {
        let mut one = new(n);
        one.recording.remote_number = Some(number.into());
        one.recording.local_number = None;
        catalogue.ingest(&one, at(0)).unwrap();
    }
    let check = |number: &str, number_match: NumberMatch, expected: &[u128]| {
        let filter = Filter { number: Some(number.into()), number_match, ..Filter::default() };
        let page = catalogue.list(&filter, None).unwrap();
        let found: Vec<Uuid> = page.recordings.iter().map(|recording| recording.id).collect();
        assert_eq!(found, expected.iter().map(|n| id(*n)).collect::<Vec<_>>(), "{number} {number_match:?}");
    };
    for _ in 0..2 {
        check("4711", NumberMatch::Usual, &[1]);
        check("+493012344711", NumberMatch::Usual, &[1]);
        check("+4930", NumberMatch::Usual, &[]);
        check("+49 30", NumberMatch::Prefix, &[1]);
        check("30", NumberMatch::Prefix, &[]);
        check("030", NumberMatch::Prefix, &[2]);
        check("47-11", NumberMatch::Part, &[2, 1]);
        check("4711", NumberMatch::Suffix, &[1]);
        check("zoe@example.ORG", NumberMatch::Usual, &[3]);
        check("zoe", NumberMatch::Usual, &[]);
        check("zoe", NumberMatch::Prefix, &[3]);
        check("example", NumberMatch::Part, &[3]);
        build(&catalogue);
    }
}

#[test]
fn long_notes_are_found_to_their_end() {
    let folder = tempfile::tempdir().unwrap();
    let catalogue = open(folder.path());
    catalogue.ingest(&new(1), at(0)).unwrap();
    build(&catalogue);
    annotate(&catalogue, 1, |annotations| {
        (0..9).for_each(|n| annotations.notes.push(note(n, &"x".repeat(1_900))));
        annotations.notes.push(note(9, "The Needle"));
    });
    let find = |text: &str| catalogue.list(&Filter { note: Some(text.into()), ..Filter::default() }, None).unwrap();
    assert_eq!(find("needle").recordings.len(), 1);
    assert!(find("haystack").recordings.is_empty());
}

#[test]
fn a_damaged_row_is_told_by_the_index_too() {
    let folder = tempfile::tempdir().unwrap();
    let catalogue = open(folder.path());
    for n in 1..=3 {
        catalogue.ingest(&new(n), at(0)).unwrap();
    }
    let db = rusqlite::Connection::open(folder.path().join("catalogue.db")).unwrap();
    db.execute("UPDATE recordings SET details = zeroblob(50) WHERE id = ?1", [id(2).to_string()]).unwrap();
    build(&catalogue);
    let page = catalogue.list(&Filter { number: Some("0003".into()), ..Filter::default() }, None).unwrap();
    assert_eq!((page.recordings.len(), page.damaged), (1, vec![id(2)]));
}

/// What happens to a catalogue.
#[derive(Debug, Clone)]
enum Step {
    Ingest { n: u128, minutes: i64, number: usize, owner: Option<u128>, seconds: u64 },
    Delete(u128),
    Tag(u128, usize),
    Untag(u128, usize),
    Note(u128, usize),
    Preserve(u128, bool),
    Build,
    Reopen,
}

const NUMBERS: &[&str] = &["+49301234", "1234", "030-12", "+39 02 1234", "Zoe@example.org", ""];
const TAGS: &[&str] = &["red", "reddish", "blue"];
const TEXTS: &[&str] = &["Red herring", "a quotation", "GREEN"];

fn step() -> impl Strategy<Value = Step> {
    let n = 0..12_u128;
    prop_oneof![
        6 => (n.clone(), 0..5_i64, 0..NUMBERS.len(), proptest::option::of(0..3_u128), 0..4_u64)
            .prop_map(|(n, minutes, number, owner, seconds)| Step::Ingest { n, minutes, number, owner, seconds }),
        1 => n.clone().prop_map(Step::Delete),
        2 => (n.clone(), 0..TAGS.len()).prop_map(|(n, tag)| Step::Tag(n, tag)),
        1 => (n.clone(), 0..TAGS.len()).prop_map(|(n, tag)| Step::Untag(n, tag)),
        2 => (n.clone(), 0..TEXTS.len()).prop_map(|(n, text)| Step::Note(n, text)),
        1 => (n, any::<bool>()).prop_map(|(n, is_so)| Step::Preserve(n, is_so)),
        2 => Just(Step::Build),
        1 => Just(Step::Reopen),
    ]
}

fn filter() -> impl Strategy<Value = Filter> {
    let texts = (
        proptest::option::of(proptest::sample::select(vec!["1234", "+49", "12", "zoe", "+49301234"])),
        proptest::sample::select(vec![NumberMatch::Usual, NumberMatch::Prefix, NumberMatch::Suffix, NumberMatch::Part]),
        proptest::collection::vec(proptest::sample::select(TAGS.to_vec()), 0..2),
        proptest::option::weighted(0.2, proptest::sample::select(vec!["red", "quot", "green", "nothing"])),
    );
    let owners = || proptest::option::weighted(0.3, proptest::collection::btree_set((0..3_u128).prop_map(id), 0..3));
    let plain = (
        proptest::option::weighted(0.2, 0..5_i64),
        proptest::option::weighted(0.2, 0..3_000_u64),
        proptest::option::weighted(0.2, 0..3_000_u64),
        proptest::option::weighted(0.2, any::<bool>()),
        proptest::option::weighted(0.1, Just(Direction::Outgoing)),
        proptest::option::weighted(0.2, proptest::sample::select(Verdict::ALL.to_vec())),
    );
    (texts, owners(), owners(), plain, 1..5_usize).prop_map(|(texts, owners, visible, plain, limit)| Filter {
        from: plain.0.map(|minutes| at(minutes * 60_000)),
        duration_min_ms: plain.1,
        duration_max_ms: plain.2,
        preserved: plain.3,
        direction: plain.4,
        verdict: plain.5,
        number: texts.0.map(str::to_owned),
        number_match: texts.1,
        tags: texts.2.into_iter().map(str::to_owned).collect(),
        note: texts.3.map(str::to_owned),
        owners,
        visible: visible.map(Visible::Of),
        limit: Some(limit),
        ..Filter::default()
    })
}

/// By the letter of what [`Filter`] says.
fn matches(filter: &Filter, recording: &Recording) -> bool {
    let plain = |text: &str| -> String {
        let kept: String = text.chars().filter(|c| !" -".contains(*c)).collect();
        let is_number = !kept.is_empty() && kept.chars().all(|c| c == '+' || c.is_ascii_digit());
        if is_number { kept } else { text.to_lowercase() }
    };
    let number = |wanted: &String| {
        let wanted = plain(wanted);
        [&recording.local_number, &recording.remote_number].into_iter().flatten().map(|have| plain(have)).any(|have| {
            match filter.number_match {
                NumberMatch::Usual if wanted.starts_with(|c: char| c.is_ascii_digit()) => have.ends_with(&wanted),
                NumberMatch::Usual => have == wanted,
                NumberMatch::Prefix => have.starts_with(&wanted),
                NumberMatch::Suffix => have.ends_with(&wanted),
                NumberMatch::Part => have.contains(&wanted),
            }
        })
    };
    let annotations = &recording.annotations;
    filter.from.is_none_or(|from| recording.started_at >= from)
        && filter.duration_min_ms.is_none_or(|min| recording.duration_ms >= min)
        && filter.duration_max_ms.is_none_or(|max| recording.duration_ms <= max)
        && filter.preserved.is_none_or(|preserved| preserved == annotations.preserved.is_some())
        && filter.direction.is_none_or(|direction| direction == recording.direction)
        && filter.verdict.is_none_or(|verdict| verdict == recording.verdict)
        && filter.number.as_ref().is_none_or(number)
        && filter.tags.iter().all(|tag| annotations.tags.contains(tag))
        && filter
            .note
            .as_ref()
            .is_none_or(|text| annotations.notes.iter().any(|note| note.text.to_lowercase().contains(text.as_str())))
        && filter.owners.as_ref().is_none_or(|owners| recording.owner_id.is_some_and(|owner| owners.contains(&owner)))
        && filter.visible.as_ref().is_none_or(|visible| visible.has(recording.owner_id))
}

fn all_pages(catalogue: &Catalogue, filter: &Filter) -> Vec<Uuid> {
    let (mut found, mut cursor) = (Vec::new(), None);
    loop {
        let page = catalogue.list(filter, cursor).unwrap();
        assert!(page.recordings.len() <= filter.limit.unwrap());
        found.extend(page.recordings.iter().map(|recording| recording.id));
        match page.next {
            Some(next) => cursor = Some(next.to_string().parse::<Cursor>().unwrap()),
            None => return found,
        }
    }
}

fn ingested(n: u128, minutes: i64, number: usize, owner: Option<u128>, seconds: u64) -> NewRecording {
    let mut one = new(n);
    let recording = &mut one.recording;
    recording.started_at = at(minutes * 60_000);
    recording.remote_number = Some(NUMBERS[number].into());
    recording.local_number = None;
    recording.owner_id = owner.map(id);
    recording.duration_ms = seconds * 1_000;
    recording.verdict = Verdict::ALL[n as usize % Verdict::ALL.len()];
    recording.traffic = Traffic::ALL[n as usize % Traffic::ALL.len()];
    one
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 48,
        failure_persistence: Some(Box::new(FileFailurePersistence::WithSource("regressions"))),
        ..ProptestConfig::default()
    })]

    #[test]
    fn a_search_finds_what_a_look_at_every_row_finds(
        steps in proptest::collection::vec(step(), 1..40),
        filters in proptest::collection::vec(filter(), 6),
    ) {
        let folder = tempfile::tempdir().unwrap();
        let mut catalogue = open(folder.path());
        let mut model: BTreeMap<Uuid, Recording> = BTreeMap::new();
        let mut gone = BTreeSet::new();
        for step in steps {
            let mut change = |n: u128, change: &dyn Fn(&mut Annotations)| {
                if let Some(recording) = model.get_mut(&id(n)) {
                    change(&mut recording.annotations);
                    annotate(&catalogue, n, change);
                }
            };
            match step {
                Step::Ingest { n, minutes, number, owner, seconds } => {
                    let one = ingested(n, minutes, number, owner, seconds);
                    if !gone.contains(&n) && !model.contains_key(&id(n)) {
                        catalogue.ingest(&one, at(0)).unwrap();
                        model.insert(id(n), one.recording);
                    }
                }
                Step::Delete(n) => {
                    catalogue.delete(id(n), at(0), "x").unwrap();
                    if model.remove(&id(n)).is_some() {
                        gone.insert(n);
                    }
                }
                Step::Tag(n, tag) => change(n, &|a| a.tags.extend([TAGS[tag].to_owned()])),
                Step::Untag(n, tag) => change(n, &|a| a.tags.retain(|have| have != TAGS[tag])),
                Step::Note(n, text) => change(n, &|a| a.notes.push(note(100, TEXTS[text]))),
                Step::Preserve(n, is_so) => change(n, &|a| {
                    a.preserved = is_so.then(|| Preserved { by: author(Level::Base), at: at(0) });
                }),
                Step::Build => {
                    catalogue.build_index(2).unwrap();
                }
                Step::Reopen => {
                    drop(catalogue);
                    catalogue = open(folder.path());
                }
            }
        }
        for is_built in [false, true] {
            if is_built {
                build(&catalogue);
                prop_assert_eq!(catalogue.index_size().0, model.len());
            }
            for filter in &filters {
                let mut expected: Vec<&Recording> = model.values().filter(|one| matches(filter, one)).collect();
                expected.sort_by_key(|one| std::cmp::Reverse((one.started_at, one.id)));
                let expected: Vec<Uuid> = expected.into_iter().map(|one| one.id).collect();
                prop_assert_eq!(all_pages(&catalogue, filter), expected, "built: {}", is_built);
            }
        }
    }
}

#[test]
fn retention_knows_what_is_preserved() {
    let folder = tempfile::tempdir().unwrap();
    let catalogue = open(folder.path());
    for n in 1..=2 {
        catalogue.ingest(&new(n), at(0)).unwrap();
    }
    let check = |expected: [bool; 2]| {
        let rows = catalogue.retention_rows(jiff::Timestamp::MAX, None).unwrap();
        assert_eq!([rows[0].is_preserved, rows[1].is_preserved], expected);
        // Also in the transaction in which it would go.
        let seen = std::cell::Cell::new(None);
        let keep = |row: &callvault_catalogue::RetentionRow| {
            seen.set(Some(row.is_preserved));
            false
        };
        catalogue.delete_if(id(2), (at(9), "a rule"), None, &keep).unwrap();
        assert_eq!(seen.get(), Some(expected[1]));
    };
    check([false, false]);
    annotate(&catalogue, 2, |a| a.preserved = Some(Preserved { by: author(Level::Base), at: at(0) }));
    check([false, true]);
    annotate(&catalogue, 2, |a| a.preserved = None);
    check([false, false]);
}
