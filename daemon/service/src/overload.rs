//! The order in which work gives way ([`callvault_policy::overload`]), put into practice: niceness and I/O priority of threads, and
//! whether a worker may begin something.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use callvault_policy::overload::{Overload, Rank, Signs, Strain};

use crate::appliance::Appliance;
use crate::headroom::Room;

/// How often somebody whose work has to wait looks again.
pub(crate) const LOOK: Duration = Duration::from_secs(1);

/// ioprio_set(2): this thread.
const IOPRIO_WHO_PROCESS: i32 = 1;
/// The best-effort class, in its lowest level of eight. The idle class gets nothing at all as long as others want the disk: then a
/// transaction of the catalogue would keep its lock for as long, and a visit to the store would pass its deadline as if the store hung.
const IOPRIO_LOWEST: i32 = 2 << 13 | 7;

/// What is known of the recorder's troubles.
#[derive(Debug)]
pub(crate) struct Pressure {
    since: Instant,
    overload: Mutex<Overload>,
}

impl Default for Pressure {
    fn default() -> Self {
        Self { since: Instant::now(), overload: Mutex::default() }
    }
}

#[cfg(test)]
impl Pressure {
    /// As after a long calm.
    pub(crate) fn forget(&self) {
        *self.overload.lock().unwrap_or_else(PoisonError::into_inner) = Overload::default();
    }
}

/// What is strained now. Asked before each piece of work that can wait.
pub(crate) fn strain(appliance: &Appliance) -> Strain {
    let signs = {
        let recorder = appliance.recorder.borrow();
        let (beat, before) = (&recorder.heartbeat, &recorder.before);
        Signs {
            dropped: beat.dropped.saturating_add(before.dropped),
            behind: beat.behind,
            too_fast: beat.transport.invites_too_fast.saturating_add(before.transport.invites_too_fast),
            deaths: recorder.deaths_total,
        }
    };
    let pressure = &appliance.pressure;
    let at = pressure.since.elapsed();
    pressure.overload.lock().unwrap_or_else(PoisonError::into_inner).see(at, signs)
}

/// Whether something may be given out now: an upload, a mail, a move to another store.
pub(crate) fn may_export(appliance: &Appliance) -> bool {
    let strain = strain(appliance);
    let recorder = appliance.recorder.borrow().clone();
    let headroom = appliance.headroom(&recorder);
    strain.exports(headroom.is_some_and(|headroom| matches!(headroom.room, Room::VeryLow | Room::None)))
}

/// Lets everything of an earlier rank go first. On Linux both priorities are a thread's own, and what a thread starts inherits them.
#[allow(unsafe_code)]
pub(crate) fn give_way(rank: Rank) {
    use nix::libc::{PRIO_PROCESS, SYS_ioprio_set, setpriority, syscall};
    // SAFETY: setpriority(2) and ioprio_set(2) take integers and touch no memory; 0 means the calling thread.
    let results = unsafe {
        [
            i64::from(setpriority(PRIO_PROCESS, 0, rank.niceness())),
            syscall(SYS_ioprio_set, IOPRIO_WHO_PROCESS, 0, IOPRIO_LOWEST),
        ]
    };
    if results != [0, 0] {
        tracing::debug!(?rank, "a thread could not be given a low priority");
    }
}
