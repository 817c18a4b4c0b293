//! The numbers of archives that are still to be made, and of what holds them up.

use callvault_policy::overload::Strain;

use crate::appliance::Appliance;
use crate::{backlog, overload};

/// How much waits, how fast it is done, and what gives way to what.
pub(super) fn write(metric: &mut impl FnMut(&str, &str, &str, &[(String, f64)]), appliance: &Appliance) {
    let one = |value: f64| [(String::new(), value)];
    if let Some(standing) = backlog::look(appliance) {
        let waiting = standing.backlog;
        metric("archive_backlog", "gauge", "Recordings without an archive.", &one(waiting.recordings as f64));
        let help = "How long they are together. 3600: an hour of calls waits.";
        metric("archive_backlog_seconds", "gauge", help, &one(waiting.duration_ms as f64 / 1_000.0));
        if let Some(speed) = standing.speed {
            let help = "Seconds of calls that are archived in a second of work of all workers, in the last hour.";
            metric("archive_speed", "gauge", help, &one(speed));
        }
        if let Some(seconds) = standing.caught_up_in_s {
            let help = "How long what waits takes at that speed; absent while the speed is not known.";
            metric("archive_catch_up_seconds", "gauge", help, &one(seconds));
        }
    }
    let strain = overload::strain(appliance);
    let states = Strain::ALL.map(|one| (format!("{{of=\"{}\"}}", one.name()), f64::from(u8::from(one == strain))));
    let help = "1 for what is strained, 0 for the others: other work waits for it.";
    metric("overload_state", "gauge", help, &states);
}
