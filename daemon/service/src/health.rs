//! How the appliance is: each part with its reason and what to do, and the numbers for monitoring.
//!
//! Everything here is read from what the parts have left behind; nothing is asked and waited for.

use std::sync::atomic::Ordering;
use std::time::Duration;

use callvault_http::{Component, Health, Snapshot, Status};
use callvault_queue::StateName;

use crate::appliance::Appliance;
use crate::certificates;
use crate::metrics::metrics;
use crate::recorder::RecorderState;

/// A heartbeat older than this is none.
const BEAT_WITHIN: Duration = Duration::from_secs(3);

/// How long an alarm of the recorder is shown.
const ALARM_SHOWN: Duration = Duration::from_secs(600);

/// How things stand now.
pub(crate) fn snapshot(appliance: &Appliance) -> Snapshot {
    let recorder = appliance.recorder.borrow().clone();
    let mut health = Health::default();
    let mut put = |name: &str, component: Component| {
        health.components.insert(name.to_owned(), component);
    };
    put("recorder", recorder_component(&recorder));
    put("journal", journal_component(appliance));
    put("spool", spool_component(appliance, &recorder));
    put("store", store_component(appliance));
    put("queue", queue_component(appliance));
    put("catalogue", catalogue_component(appliance));
    if !appliance.config.sip.tls.0.is_empty() {
        put("certificates", certificates_component(appliance));
    }
    put("configuration", noted(appliance, &["configuration"], Status::Degraded));
    let draining = appliance.draining.load(Ordering::Relaxed);
    let not_ready = if draining {
        Some("draining: no new calls are taken".to_owned())
    } else if !recorder.up {
        Some("the recorder is not up".to_owned())
    } else {
        None
    };
    Snapshot { not_ready, metrics: metrics(appliance, &recorder, &health), health }
}

fn noted(appliance: &Appliance, parts: &[&str], status: Status) -> Component {
    parts
        .iter()
        .find_map(|part| appliance.notes.get(part))
        .map_or_else(Component::ok, |text| Component::new(status, text))
}

fn certificates_component(appliance: &Appliance) -> Component {
    let failing = noted(appliance, &certificates::FAILING_PARTS, Status::Failing);
    if failing.status != Status::Ok {
        return failing;
    }
    noted(appliance, &certificates::DEGRADED_PARTS, Status::Degraded)
}

fn journal_component(appliance: &Appliance) -> Component {
    let failing = noted(appliance, &["ingest", "recordings"], Status::Failing);
    if failing.status != Status::Ok {
        return failing;
    }
    noted(appliance, &["journal-files"], Status::Degraded)
}

fn catalogue_component(appliance: &Appliance) -> Component {
    let failing = noted(appliance, &["catalogue"], Status::Failing);
    if failing.status != Status::Ok {
        return failing;
    }
    noted(appliance, &["catalogue-rows"], Status::Degraded)
}

fn recorder_component(recorder: &RecorderState) -> Component {
    if let Some(text) = recorder.start_error.as_ref().filter(|_| !recorder.up) {
        return Component::new(
            Status::Failing,
            format!("{text} (calls are not recorded; it is tried again by itself)"),
        );
    }
    if !recorder.up {
        return Component::new(
            Status::Failing,
            "the recorder is not up; calls are not recorded. The log says why; it is started again by itself",
        );
    }
    if recorder.beat_at.is_some_and(|at| at.elapsed() > BEAT_WITHIN) {
        return Component::new(
            Status::Failing,
            "the recorder has given no sign of life for some seconds; it is about to be restarted",
        );
    }
    if recorder.deaths > 0 {
        return Component::new(
            Status::Degraded,
            format!(
                "the recorder died {} lately and was started again; the log says why",
                if recorder.deaths == 1 { "once".to_owned() } else { format!("{} times", recorder.deaths) }
            ),
        );
    }
    if let Some((_, text)) = recorder.alarm.as_ref().filter(|(at, _)| at.elapsed() < ALARM_SHOWN) {
        return Component::new(Status::Degraded, text);
    }
    if recorder.heartbeat.dropped > 0 {
        return Component::new(
            Status::Degraded,
            format!(
                "{} packets could not be stored because the journal's disk did not keep up",
                recorder.heartbeat.dropped
            ),
        );
    }
    Component::ok()
}

fn spool_component(appliance: &Appliance, recorder: &RecorderState) -> Component {
    let floor = appliance.config.journal.spool_free_min.0;
    let free = recorder.heartbeat.spool_free_bytes;
    if recorder.beat_at.is_none() || free == 0 && recorder.heartbeat.append_rounds == 0 {
        return Component::ok();
    }
    let mib = |bytes: u64| bytes >> 20;
    if free < floor {
        return Component::new(
            Status::Failing,
            format!(
                "{} MiB are free for the journal, less than journal.spool_free_min ({} MiB): new calls are refused. Free space in data_dir",
                mib(free),
                mib(floor)
            ),
        );
    }
    if free < floor.saturating_mul(2) {
        return Component::new(
            Status::Degraded,
            format!("{} MiB are free for the journal; below {} MiB new calls are refused", mib(free), mib(floor)),
        );
    }
    Component::ok()
}

fn store_component(appliance: &Appliance) -> Component {
    if let Some(text) = appliance.store.condition().away {
        return Component::new(Status::Degraded, format!("{text} (recordings wait in the journal meanwhile)"));
    }
    Component::ok()
}

fn queue_component(appliance: &Appliance) -> Component {
    if let Some(text) = appliance.notes.get("queue").or_else(|| appliance.queue.broken()) {
        return Component::new(Status::Failing, text);
    }
    if let Some(text) = appliance.notes.get("outbox") {
        return Component::new(Status::Degraded, text);
    }
    let parked: usize =
        appliance.queue.counts().iter().filter(|((_, state), _)| *state == StateName::Parked).map(|(_, n)| n).sum();
    if parked > 0 {
        return Component::new(
            Status::Degraded,
            format!(
                "{parked} jobs are parked; `callvaultctl jobs list` shows why, `callvaultctl jobs retry ID` drives one again"
            ),
        );
    }
    Component::ok()
}
