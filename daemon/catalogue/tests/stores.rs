//! Archives that are moved between stores: what is on record, and what may be left elsewhere, after any step.
#![allow(clippy::unwrap_used)]

mod sut;

use callvault_catalogue::{ArchivePlace, Catalogue, Leaving, StoreHas};
use sut::{at, id, new, open};

const PATH: &str = "2026/11/23/x.cva";

fn place(store: &str) -> ArchivePlace {
    ArchivePlace { bytes: 70, store: store.into(), path: PATH.into(), sha256: [7; 32] }
}

fn archived(n: u128) -> (tempfile::TempDir, Catalogue) {
    let folder = tempfile::tempdir().unwrap();
    let catalogue = open(folder.path());
    catalogue.ingest(&new(n), at(0)).unwrap();
    catalogue.set_archiving(id(n)).unwrap();
    catalogue.archived(id(n), &place("default"), &[], at(1)).unwrap();
    (folder, catalogue)
}

fn left(store: &str) -> Leaving {
    Leaving { id: id(1), store: store.into(), path: PATH.into() }
}

#[test]
fn a_move_leaves_word_of_every_file_that_there_may_be() {
    let (_folder, catalogue) = archived(1);
    let (from, to) = (place("default"), "store-2");
    assert!(catalogue.copying(id(1), &from, to).unwrap());
    assert!(catalogue.copying(id(1), &from, to).unwrap(), "once more, after a crash");
    assert_eq!(
        (catalogue.archive_place(id(1)).unwrap(), catalogue.leavings().unwrap()),
        (Some(from.clone()), vec![left(to)])
    );
    assert!(catalogue.moved(id(1), &from, to).unwrap());
    assert_eq!(
        (catalogue.archive_place(id(1)).unwrap(), catalogue.leavings().unwrap()),
        (Some(place(to)), vec![left("default")])
    );
    assert!(!catalogue.moved(id(1), &from, to).unwrap(), "it is not there any more");
    assert!(!catalogue.copying(id(1), &from, to).unwrap());
    catalogue.left_nothing(&left("default")).unwrap();
    assert_eq!(catalogue.leavings().unwrap(), []);
    let has = catalogue.store_has().unwrap();
    assert_eq!(has.into_iter().collect::<Vec<_>>(), [(to.to_owned(), StoreHas { archives: 1, bytes: 70 })]);
}

#[test]
fn what_is_deleted_in_the_middle_leaves_word_of_its_copy() {
    let (_folder, catalogue) = archived(1);
    let from = place("default");
    assert!(catalogue.copying(id(1), &from, "store-2").unwrap());
    catalogue.delete(id(1), at(2), "by hand").unwrap();
    assert!(!catalogue.moved(id(1), &from, "store-2").unwrap());
    assert!(catalogue.is_deleted(id(1)).unwrap());
    assert_eq!(catalogue.leavings().unwrap(), [left("store-2")]);
    assert_eq!(
        (catalogue.leavings_of(id(1)).unwrap(), catalogue.leavings_of(id(2)).unwrap()),
        (vec![left("store-2")], vec![])
    );
    // The deletion itself knows of the original.
    assert_eq!(catalogue.deletions_owed().unwrap()[0].payload["store"], "default");
}

#[test]
fn archives_of_a_store_come_in_order_and_page_by_page() {
    let folder = tempfile::tempdir().unwrap();
    let catalogue = open(folder.path());
    for n in 1..=5 {
        catalogue.ingest(&new(n), at(0)).unwrap();
        catalogue.set_archiving(id(n)).unwrap();
        let store = if n == 3 { "store-2" } else { "default" };
        catalogue.archived(id(n), &place(store), &[], at(1)).unwrap();
    }
    let all = catalogue.archives_in("default", None).unwrap();
    let mut expected = [1, 2, 4, 5].map(id).to_vec();
    expected.sort();
    let mut ids: Vec<_> = all.iter().map(|one| one.id).collect();
    assert!(all.is_sorted_by_key(|one| (one.started_at, one.id)));
    ids.sort();
    assert_eq!(ids, expected);
    let after = all.get(1).map(|one| (one.started_at, one.id));
    assert_eq!(catalogue.archives_in("default", after).unwrap(), all[2..]);
    assert_eq!(catalogue.archives_in("none", None).unwrap(), []);
}
