//! Files that are damaged: the queue opens all the same, whatever is left in it, and takes jobs.
#![allow(clippy::unwrap_used)]

mod sut;

use std::{fs, path::Path};

use callvault_queue::{Enqueued, Filter, Queue, Settings};
use sut::{NOW, archive, open};

const JOBS: u128 = 300;

/// Damages a queue of [`JOBS`] jobs; says how many are left, and whether the files were set aside.
fn check(damage: impl Fn(&Path)) -> (usize, bool) {
    let dir = tempfile::tempdir().unwrap();
    let queue = open(dir.path());
    for n in 0..JOBS / 100 {
        let jobs: Vec<_> = (n * 100..(n + 1) * 100).map(archive).collect();
        queue.enqueue(NOW, &jobs).unwrap();
    }
    drop(queue);
    damage(dir.path());
    let (queue, report) = Queue::open(dir.path(), Settings::default(), NOW).unwrap();
    assert_eq!(report.missing, !report.set_aside.is_empty(), "{report:?}");
    let left = queue.list(&Filter::default()).len();
    // it takes jobs, and they are there the next time
    assert_eq!(queue.enqueue(NOW, &[archive(9_999)]).unwrap(), [Enqueued::New]);
    drop(queue);
    let (queue, again) = Queue::open(dir.path(), Settings::default(), NOW).unwrap();
    assert!(queue.get(&archive(9_999).id()).is_some());
    assert!(!again.missing, "{again:?}");
    assert_eq!(queue.list(&Filter::default()).len(), left + 1);
    (left, report.missing)
}

/// The bytes of a file are changed.
fn change(dir: &Path, name: &str, change: impl Fn(&mut Vec<u8>)) {
    let path = dir.join(name);
    let mut bytes = fs::read(&path).unwrap();
    change(&mut bytes);
    fs::write(path, bytes).unwrap();
}

#[test]
fn sound_files_keep_every_job() {
    assert_eq!(check(|_| {}), (JOBS as usize, false));
}

#[test]
fn a_number_that_is_none_is_set_aside() {
    assert_eq!(check(|dir| change(dir, "current", |bytes| *bytes = b"x".to_vec())), (0, true));
    assert_eq!(check(|dir| change(dir, "current", Vec::clear)), (0, true));
}

#[test]
fn settings_of_sled_that_are_damaged_are_no_obstacle() {
    check(|dir| change(dir, "jobs-1/conf", |bytes| bytes.fill(0xa5)));
    check(|dir| change(dir, "jobs-1/conf", |bytes| bytes.truncate(5)));
    check(|dir| fs::remove_file(dir.join("jobs-1/conf")).unwrap());
}

#[test]
fn a_log_that_is_damaged_anywhere_opens() {
    for tenth in 0..10 {
        check(|dir| {
            change(dir, "jobs-1/db", |bytes| {
                let at = bytes.len() * tenth / 10;
                let end = (at + 4_096).min(bytes.len());
                bytes[at..end].fill(0xa5);
            });
        });
    }
    check(|dir| change(dir, "jobs-1/db", |bytes| bytes.fill(0)));
    check(|dir| change(dir, "jobs-1/db", |bytes| bytes.fill(0xff)));
    check(|dir| change(dir, "jobs-1/db", |bytes| bytes.truncate(bytes.len() / 2)));
    check(|dir| change(dir, "jobs-1/db", |bytes| bytes.truncate(7)));
    check(|dir| {
        for entry in fs::read_dir(dir.join("jobs-1")).unwrap() {
            let path = entry.unwrap().path();
            if path.file_name().unwrap().to_str().unwrap().starts_with("snap") {
                fs::write(path, b"no snapshot").unwrap();
            }
        }
    });
}
