//! How much of what is limited is used, and for how long the disks last.

use callvault_access::{Action, Caller};
use callvault_catalogue::ArchivedSince;
use callvault_config::LicenceModel;
use callvault_http::Answer;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use super::internal;
use crate::appliance::Appliance;
use crate::{backlog, workers};

/// The store fills as it did in so long a time: a week has all its days in it.
const OBSERVED: SignedDuration = SignedDuration::from_hours(7 * 24);

/// From so short a time on there is a rate at all.
const OBSERVED_MIN: SignedDuration = SignedDuration::from_hours(1);

const DAY_S: u128 = 86_400;

/// Bytes of archives a day; none while there is too little to tell. `bytes` are those of recordings that began since `first`, or since
/// [`OBSERVED`] ago where that is later.
fn bytes_a_day(archived: &ArchivedSince, now: Timestamp) -> Option<u64> {
    let observed = now.duration_since(archived.first?).min(OBSERVED);
    if observed < OBSERVED_MIN {
        return None;
    }
    let seconds = u128::try_from(observed.as_secs()).ok()?;
    u64::try_from(u128::from(archived.bytes) * DAY_S / seconds).ok()
}

/// Whole days that the free bytes last; none where nothing fills them.
fn days_left(free_bytes: Option<u64>, bytes_a_day: Option<u64>) -> Option<u64> {
    free_bytes?.checked_div(bytes_a_day?)
}

/// | field | meaning |
/// |---|---|
/// | `calls` | `now`, `max` (`limits.sessions_max`), and `licensed`: `licence.channels_max`, null where calls are not licensed |
/// | `ports` | pairs of media ports: `used`, `all` |
/// | `recorder` | `up`, `restarts` since the daemon's start, `dropped`: packets that could not be stored |
/// | `journal` | `bytes` of all its files; of its disk `free_bytes`, `room_bytes` above `journal.spool_free_min`, `filling_bytes_per_s`, `headroom_hours`, as in the status |
/// | `store` | `state`, `free_bytes` or null; `bytes_a_day`: of archives, in the last seven days, and `days_left` at that, if nothing were deleted; each null where there is no figure |
/// | `archiving` | `recordings` that wait for their archive, the `duration_ms` of these calls, `speed` (seconds of calls archived in a second), `caught_up_in_s`, and how many `workers`; the figures null where they are not known |
/// | `recordings` | that there are |
/// | `jobs` | jobs by `KIND.STATE` |
pub(super) fn capacity(appliance: &Appliance, caller: &Caller) -> Answer {
    appliance.permit_all(caller, Action::Status)?;
    let recorder = appliance.recorder.borrow().clone();
    let headroom = appliance.headroom(&recorder);
    let store = appliance.store.condition();
    let now = Timestamp::now();
    let from = now.checked_sub(OBSERVED).unwrap_or(Timestamp::MIN);
    let a_day = bytes_a_day(&appliance.catalogue.archived_since(from).map_err(internal)?, now);
    let waiting = backlog::look(appliance);
    let recordings: u64 = appliance.catalogue.counts().map_err(internal)?.values().sum();
    let jobs: serde_json::Map<String, Value> =
        appliance.queue.counts().iter().map(|((kind, state), n)| (format!("{kind}.{state}"), json!(n))).collect();
    let settings = appliance.settings();
    let is_licensed = settings.licence.model == LicenceModel::Channels;
    Ok(json!({
        "calls": {
            "now": recorder.heartbeat.live, "max": appliance.config.limits.sessions_max,
            "licensed": is_licensed.then_some(settings.licence.channels_max),
        },
        "ports": {"used": recorder.heartbeat.port_pairs_used, "all": recorder.port_pairs},
        "recorder": {
            "up": recorder.up, "restarts": recorder.deaths_total,
            "dropped": recorder.heartbeat.dropped.saturating_add(recorder.before.dropped),
        },
        "journal": {
            "bytes": appliance.journals.bytes(), "free_bytes": recorder.heartbeat.spool_free_bytes,
            "room_bytes": headroom.map(|h| h.bytes),
            "filling_bytes_per_s": headroom.and_then(|h| h.filling_bytes_per_s),
            "headroom_hours": headroom.and_then(|h| h.lasts).map(|left| left.as_secs() / 3_600),
        },
        "store": {
            "state": store.state.name(), "free_bytes": store.free_bytes, "bytes_a_day": a_day,
            "days_left": days_left(store.free_bytes, a_day),
        },
        "archiving": {
            "recordings": waiting.map(|standing| standing.backlog.recordings),
            "duration_ms": waiting.map(|standing| standing.backlog.duration_ms),
            "speed": waiting.and_then(|standing| standing.speed),
            "caught_up_in_s": waiting.and_then(|standing| standing.caught_up_in_s),
            "workers": workers::count(&appliance.config),
        },
        "recordings": recordings,
        "jobs": jobs,
    }))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_store_lasts_as_long_as_it_fills_as_it_did() {
        let now: Timestamp = "2027-03-08T12:00:00Z".parse().unwrap();
        let check = |first: Option<&str>, bytes: u64, free: Option<u64>, a_day: Option<u64>, days: Option<u64>| {
            let first = first.map(|text| text.parse().unwrap());
            let found = bytes_a_day(&ArchivedSince { recordings: 1, bytes, first }, now);
            assert_eq!((found, days_left(free, found)), (a_day, days), "{first:?} {bytes} {free:?}");
        };
        check(Some("2027-03-01T12:00:00Z"), 700, Some(1_050), Some(100), Some(10));
        check(Some("2027-03-07T12:00:00Z"), 700, Some(6_999), Some(700), Some(9));
        check(Some("2027-01-01T12:00:00Z"), 700, Some(1_000), Some(100), Some(10));
        check(Some("2027-03-08T11:30:00Z"), 700, Some(1_000), None, None);
        check(Some("2027-03-09T12:00:00Z"), 700, Some(1_000), None, None);
        check(Some("2027-03-01T12:00:00Z"), 0, Some(1_000), Some(0), None);
        check(Some("2027-03-01T12:00:00Z"), u64::MAX, Some(1_000), Some(u64::MAX / 7), Some(0));
        check(Some("2027-03-01T12:00:00Z"), 700, None, Some(100), None);
        check(None, 0, Some(1_000), None, None);
    }
}
