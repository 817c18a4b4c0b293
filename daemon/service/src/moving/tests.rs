//! The pace of a move; the move itself is tested from end to end.

use std::time::Duration;

use super::due_after;

fn check(bytes: u64, rate: u64, expected_ms: u64) {
    assert_eq!(due_after(bytes, rate), Duration::from_millis(expected_ms), "{bytes} bytes at {rate}");
}

#[test]
fn a_rate_says_how_long_bytes_take() {
    check(0, 0, 0);
    check(u64::MAX, 0, 0);
    check(1_000, 1_000, 1_000);
    check(500_000, 1_000_000, 500);
    check(20_000_000, 10_000_000, 2_000);
    assert!(due_after(u64::MAX, 1) > Duration::from_secs(1_000_000));
}
