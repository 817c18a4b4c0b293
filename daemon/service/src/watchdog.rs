//! Tells the service manager that the daemon is alive (systemd: `WatchdogSec=`, sd_notify(3)), for as long as what recording depends on
//! moves. When it stops doing so it says why, in the log and in the health, and systemd starts the daemon again, which costs no call.
//!
//! It is the second line. A recorder that stands still is killed by its supervisor within seconds, whichever of its threads it is; what
//! is seen here is a supervisor that does not do that, or does not move itself. The thread has no part in what it watches.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crate::appliance::Appliance;
use crate::sd_notify;

/// The part of the appliance that notes are about.
pub(crate) const NOTE: &str = "watchdog";

/// How long each sign may stand still. Longer than anything that a supervisor or a start waits for (5 s for a recorder that takes no
/// message, 10 s for one that does not become ready or does not stop), so that what mends itself is not disturbed.
const STILL_MAX: Duration = Duration::from_secs(20);

/// The same for taking recordings out of the journal, whose rounds read whole recordings and may have a day's worth to read after a
/// start. What is too slow there costs no call, so there is time.
const INGEST_STILL_MAX: Duration = Duration::from_secs(30 * 60);

/// The signs, and how long each may stand still.
const SIGNS: [(&str, Duration); 5] = [
    ("the supervisor of the recorder", STILL_MAX),
    ("the recorder's signalling, and its supervisor has not ended it", STILL_MAX),
    ("the recorder's media sweep, and its supervisor has not ended it", STILL_MAX),
    ("the recorder's journal, and its supervisor has not ended it", STILL_MAX),
    ("what takes recordings out of the journal", INGEST_STILL_MAX),
];

/// What is counted: each number is another one when something moved.
type Counts = [u64; SIGNS.len()];

/// What was seen last, and when it was another.
struct Seen {
    signs: [(u64, Duration); SIGNS.len()],
}

impl Seen {
    fn new(counts: Counts, now: Duration) -> Self {
        Self { signs: counts.map(|count| (count, now)) }
    }

    /// Looks at the counts of now. What stands still for too long is an error, which says what it is.
    fn look(&mut self, counts: Counts, now: Duration) -> Result<(), String> {
        for (seen, count) in self.signs.iter_mut().zip(counts) {
            if seen.0 != count {
                *seen = (count, now);
            }
        }
        let stuck = self.signs.iter().zip(SIGNS).find_map(|((_, moved), (what, most))| {
            let still = now.saturating_sub(*moved);
            (still >= most).then(|| format!("{what} (it has not moved for {} s)", still.as_secs()))
        });
        match stuck {
            Some(what) => Err(format!("stuck: {what}; callvaultd is started again by systemd, and live calls go on")),
            None => Ok(()),
        }
    }
}

/// How often to tell, where the service manager wants to be told: four times in the time that it waits.
pub(crate) fn wanted() -> Option<Duration> {
    sd_notify::patience().map(|patience| patience / 4)
}

/// Tells, until the daemon stops.
pub(crate) fn run(appliance: &Appliance, every: Duration) {
    let begun = Instant::now();
    let mut standing_in = 0;
    let mut seen = Seen::new(counts(appliance, standing_in), Duration::ZERO);
    let mut heard = 0;
    while !appliance.stopping.load(Ordering::Relaxed) {
        // A recorder that is not up is its supervisor's business, whose next try may be seconds away; and one that waits for its disk is
        // let wait, as another start would not make the disk answer.
        let is_supervised = {
            let recorder = appliance.recorder.borrow();
            !recorder.up || recorder.waits_for_disk
        };
        if is_supervised {
            standing_in += 1;
        }
        match seen.look(counts(appliance, standing_in), begun.elapsed()) {
            Ok(()) => {
                appliance.notes.clear(NOTE);
                sd_notify::alive();
            }
            Err(text) => appliance.notes.set(NOTE, text),
        }
        heard = appliance.stop_bell.wait(heard, every);
    }
}

fn counts(appliance: &Appliance, standing_in: u64) -> Counts {
    let recorder = appliance.recorder.borrow();
    let beat = &recorder.heartbeat;
    [
        appliance.metrics.supervisor_rounds.load(Ordering::Relaxed),
        beat.signalling_rounds.wrapping_add(standing_in),
        beat.sweeps.wrapping_add(standing_in),
        beat.append_rounds.wrapping_add(standing_in),
        appliance.metrics.ingest_rounds.load(Ordering::Relaxed),
    ]
}

#[cfg(test)]
mod tests {
    use super::{Counts, INGEST_STILL_MAX, STILL_MAX, Seen};
    use std::time::Duration;

    /// The signs move each second, but for one from the tenth on; when it is said to be stuck, and as what.
    fn said_at(stands: usize) -> (Duration, String) {
        let mut seen = Seen::new([0; 5], Duration::ZERO);
        let mut counts: Counts = [0; 5];
        for second in 1..10_000 {
            let now = Duration::from_secs(second);
            for (number, count) in counts.iter_mut().enumerate() {
                *count += u64::from(number != stands || second <= 10);
            }
            if let Err(text) = seen.look(counts, now) {
                return (now, text);
            }
        }
        (Duration::MAX, String::new())
    }

    #[test]
    fn each_sign_that_stands_still_is_said_in_time() {
        fn check(stands: usize, most: Duration, what: &str) {
            let (at, text) = said_at(stands);
            assert_eq!(at, Duration::from_secs(10) + most, "{text}");
            assert!(text.contains(what), "{text}");
        }
        check(0, STILL_MAX, "supervisor");
        check(1, STILL_MAX, "signalling");
        check(2, STILL_MAX, "media sweep");
        check(3, STILL_MAX, "recorder's journal");
        check(4, INGEST_STILL_MAX, "out of the journal");
        assert_eq!(said_at(5).0, Duration::MAX, "nothing stands still");
    }

    #[test]
    fn what_moves_again_is_well_again() {
        let mut seen = Seen::new([0; 5], Duration::ZERO);
        assert!(seen.look([1, 1, 1, 0, 1], STILL_MAX).is_err());
        assert!(seen.look([1, 1, 1, 1, 1], STILL_MAX).is_ok());
    }
}
