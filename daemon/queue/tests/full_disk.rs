//! A disk that is full, a real one: what was acknowledged stays, and when there is room again the queue goes on.
#![allow(clippy::unwrap_used)]

mod sut;

use std::{fs, path::Path, process::Command};

use callvault_queue::{Filter, NewJob, Queue};
use sut::{NOW, archive, open};

const CHILD_DIR: &str = "QUEUE_FULL_DISK";

/// Bytes of the file that takes the room, and of the disk.
const BALLAST: usize = 8 << 20;
const DISK: usize = 16 << 20;

/// Enqueues until the disk takes no more; says which were acknowledged.
fn fill(queue: &Queue, first: u128) -> Vec<u128> {
    let mut acknowledged = Vec::new();
    for n in first..first + 20_000 {
        let job = NewJob { payload: "x".repeat(3_000).into(), ..archive(n) };
        if queue.enqueue(NOW, &[job]).is_err() {
            return acknowledged;
        }
        acknowledged.push(n);
    }
    panic!("the disk is not full after {} jobs", acknowledged.len());
}

fn check_there(queue: &Queue, acknowledged: &[u128]) {
    let missing = acknowledged.iter().filter(|n| queue.get(&archive(**n).id()).is_none()).count();
    assert_eq!(missing, 0, "of {} acknowledged", acknowledged.len());
}

/// What happens on the small disk.
fn child(disk: &Path) {
    let (dir, ballast) = (disk.join("queue"), disk.join("ballast"));
    fs::write(&ballast, vec![1; BALLAST]).unwrap();
    let queue = open(&dir);
    let mut acknowledged = fill(&queue, 0);
    assert!(!acknowledged.is_empty());
    assert!(queue.broken().is_some());
    // still full: it may open or not, but loses nothing and says no more than it can keep
    let _ = queue.reopen(NOW);
    if queue.broken().is_none() {
        acknowledged.extend(fill(&queue, 100_000));
    }
    fs::remove_file(&ballast).unwrap();
    queue.reopen(NOW).unwrap();
    check_there(&queue, &acknowledged);
    queue.enqueue(NOW, &[archive(999_999)]).unwrap();
    acknowledged.push(999_999);
    drop(queue);
    let queue = open(&dir);
    check_there(&queue, &acknowledged);
    assert!(queue.list(&Filter::default()).len() >= acknowledged.len());
    println!("{} jobs kept", acknowledged.len());
}

#[test]
fn what_was_acknowledged_stays_when_the_disk_is_full_and_it_goes_on_when_there_is_room() {
    if let Some(disk) = std::env::var_os(CHILD_DIR) {
        return child(Path::new(&disk));
    }
    let disk = tempfile::tempdir().unwrap();
    let test = "what_was_acknowledged_stays_when_the_disk_is_full_and_it_goes_on_when_there_is_room";
    // A file system in memory that only this test's own process sees. Root may make one; others need a user namespace, which in turn
    // cannot be had below a chroot(2).
    let namespaces: [&[&str]; 2] = [&["--mount"], &["--user", "--map-root-user", "--mount"]];
    let can = |options: &&&[&str]| {
        Command::new("unshare").args(**options).arg("true").output().is_ok_and(|out| out.status.success())
    };
    let Some(options) = namespaces.iter().find(can) else {
        eprintln!("SKIPPED: a small disk cannot be mounted: neither root's rights nor user namespaces are here");
        return;
    };
    let script = format!("mount -t tmpfs -o size={DISK} none \"$1\" && exec \"$2\" --exact {test} --nocapture");
    let out = Command::new("unshare")
        .args(*options)
        .args(["sh", "-c", &script, "sh"])
        .arg(disk.path())
        .arg(std::env::current_exe().unwrap())
        .env(CHILD_DIR, disk.path())
        .output()
        .expect("this test needs unshare(1) of util-linux");
    let (said, wrong) = (String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
    assert!(out.status.success() && said.contains("jobs kept"), "{said}\n{wrong}");
}
