//! The files do not grow with all the work that was ever done. `JOBS=100000 cargo test -p callvault-queue --test growth -- --nocapture`
//! prints how far they do.
#![allow(clippy::unwrap_used)]

mod sut;

use callvault_queue::{Queue, Stats};
use sut::{NOW, archive, limits, with_device};

/// Puts `count` jobs through the queue, a hundred at a time, as the daemon does: looks at the files now and then, and rebuilds them when
/// that is worth it. Gives the largest size seen, and how often they were rebuilt.
fn put_through(queue: &Queue, count: u128) -> (u64, u32) {
    let (mut largest, mut rebuilt) = (0, 0);
    for hundred in 0..count / 100 {
        let jobs: Vec<_> = (hundred * 100..(hundred + 1) * 100).map(archive).collect();
        queue.enqueue(NOW, &jobs).unwrap();
        while let Some(job) = queue.claim(NOW, &limits(9, 9)).unwrap() {
            queue.complete(&job.id, NOW).unwrap();
        }
        if hundred % 10 == 9 {
            let stats = queue.stats().unwrap();
            largest = largest.max(stats.file_bytes);
            if stats.compaction_worthwhile() {
                queue.compact().unwrap();
                rebuilt += 1;
            }
        }
    }
    (largest, rebuilt)
}

#[test]
fn the_files_stay_small_whatever_went_through_them() {
    let count = std::env::var("JOBS").map_or(2_000, |text| text.parse().unwrap());
    let dir = tempfile::tempdir().unwrap();
    let (queue, _device) = with_device(dir.path());
    let (largest, rebuilt) = put_through(&queue, count);
    let before = queue.stats().unwrap();
    let after = queue.compact().unwrap();
    println!("{count} jobs: at most {largest} bytes, rebuilt {rebuilt} times; {before:?}, rebuilt {after:?}");
    assert!(largest < 80 << 20, "{largest}");
    // what is left are the jobs done last
    assert!(after.live_bytes > 0 && after.file_bytes < 4 << 20, "{after:?}");
    assert!(after.file_bytes <= before.file_bytes);
}

#[test]
fn rebuilding_is_for_files_that_are_large_and_mostly_dead() {
    let check = |live_bytes, file_bytes, expected| {
        assert_eq!(Stats { live_bytes, file_bytes }.compaction_worthwhile(), expected, "{live_bytes} of {file_bytes}");
    };
    check(0, 10 << 20, false);
    check(0, 64 << 20, true);
    check(1 << 20, 100 << 20, true);
    check(50 << 20, 100 << 20, false);
    check(50 << 20, 1 << 30, true);
}
