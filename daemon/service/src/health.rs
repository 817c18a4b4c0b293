//! How the appliance is: each part with its reason and what to do, and the numbers for monitoring.
//!
//! Everything here is read from what the parts have left behind; nothing is asked and waited for.

use std::time::Duration;

use callvault_http::{Component, Health, Snapshot, Status};
use callvault_queue::StateName;
use callvault_supervise::JOURNAL;

use crate::access;
use crate::appliance::Appliance;
use crate::certificates;
use crate::deliveries::SinkKind;
use crate::fd_store;
use crate::headroom::{Headroom, Room};
use crate::mailing;
use crate::metrics::metrics;
use crate::moving;
use crate::recorder::RecorderState;
use crate::retention;
use crate::watchdog;
use crate::webex;

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
    put("journal", journal_component(appliance, &recorder));
    let headroom = appliance.headroom(&recorder);
    put("spool", spool_component(appliance, headroom.as_ref()));
    put("store", store_component(appliance));
    put("queue", queue_component(appliance));
    put("catalogue", catalogue_component(appliance));
    if !appliance.config.sip.tls.0.is_empty() {
        put("certificates", certificates_component(appliance));
    }
    for kind in SinkKind::ALL.into_iter().filter(|kind| kind.is_enabled(&appliance.config)) {
        put(kind.section(), noted(appliance, &[kind.section()], Status::Degraded));
    }
    if !appliance.settings().mail.server.is_empty() {
        put("mail", noted(appliance, &[mailing::NOTE, mailing::TEMPLATES_NOTE], Status::Degraded));
    }
    put("clock", appliance.clock.component());
    if appliance.settings().webex.enabled {
        let parts = [webex::NOTE, webex::SYNC_NOTE, webex::RECORDS_NOTE, webex::MISSING_NOTE];
        put("webex", noted(appliance, &parts, Status::Degraded));
    }
    put("configuration", noted(appliance, &["configuration"], Status::Degraded));
    // Only there when it is bad: systemd is about to start the daemon again.
    if let Some(text) = appliance.notes.get(watchdog::NOTE) {
        put("watchdog", Component::new(Status::Failing, text));
    }
    put("restart", noted(appliance, &[fd_store::NOTE], Status::Degraded));
    put("audit", audit_component(appliance));
    put("permissions", noted(appliance, &[access::PERMISSIONS_NOTE], Status::Degraded));
    put("retention", noted(appliance, &[retention::FAILS_NOTE, retention::ASKS_NOTE], Status::Degraded));
    let stopped = appliance.access.stopped();
    let recording = stopped.as_ref().map(|stopped| Component::new(Status::Degraded, stopped.text()));
    put("recording", recording.unwrap_or_else(Component::ok));
    put("directory", directory_component(appliance));
    let alarm = appliance.licence_alarm(recorder.heartbeat.live);
    put("licence", alarm.map_or_else(Component::ok, |text| Component::new(Status::Degraded, text)));
    let not_ready = if let Some(stopped) = stopped {
        Some(stopped.text())
    } else if appliance.access.is_draining() {
        Some("draining: no new calls are taken".to_owned())
    } else if !recorder.up {
        Some("the recorder is not up".to_owned())
    } else {
        None
    };
    Snapshot { not_ready, metrics: metrics(appliance, &recorder, &health, headroom.as_ref()), health }
}

fn noted(appliance: &Appliance, parts: &[&str], status: Status) -> Component {
    parts
        .iter()
        .find_map(|part| appliance.notes.get(part))
        .map_or_else(Component::ok, |text| Component::new(status, text))
}

/// That nobody is known is how every appliance begins, and no fault; it is said all the same.
fn directory_component(appliance: &Appliance) -> Component {
    let damaged = noted(appliance, &[access::USERS_NOTE], Status::Degraded);
    match appliance.directory_remark() {
        Some(text) if damaged.status == Status::Ok => Component::new(Status::Ok, text),
        _ => damaged,
    }
}

fn audit_component(appliance: &Appliance) -> Component {
    let failing = noted(appliance, &[access::AUDIT_NOTE], Status::Failing);
    if failing.status != Status::Ok {
        return failing;
    }
    noted(appliance, &[access::AUDIT_BROKEN_NOTE], Status::Degraded)
}

fn certificates_component(appliance: &Appliance) -> Component {
    let failing = noted(appliance, &certificates::FAILING_PARTS, Status::Failing);
    if failing.status != Status::Ok {
        return failing;
    }
    noted(appliance, &certificates::DEGRADED_PARTS, Status::Degraded)
}

fn journal_component(appliance: &Appliance, recorder: &RecorderState) -> Component {
    if recorder.still.is_some_and(|(part, _)| part == JOURNAL) {
        let text = if recorder.waits_for_disk {
            "nothing is written to the journal: the disk of data_dir does not answer. What is heard is kept in memory as long as there is room; see the kernel's log"
        } else {
            "nothing is written to the journal; the recorder is about to be restarted"
        };
        return Component::new(Status::Failing, text);
    }
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
    noted(appliance, &["catalogue-lost", "promises", "catalogue-rows"], Status::Degraded)
}

fn recorder_component(recorder: &RecorderState) -> Component {
    if let Some(text) = recorder.start_error.as_ref().filter(|_| !recorder.up) {
        return Component::new(
            Status::Failing,
            format!("{text} (calls are not recorded; it is tried again by itself)"),
        );
    }
    if !recorder.up {
        let why = recorder
            .killed
            .as_ref()
            .map_or_else(|| "the log says why".to_owned(), |why| format!("it was killed as {why}; the log says more"));
        let text = format!("the recorder is not up; calls are not recorded, and it is started again by itself ({why})");
        return Component::new(Status::Failing, text);
    }
    // A process that does not run says nothing, and then this is as old as its silence.
    let is_silent = recorder.beat_at.is_some_and(|at| at.elapsed() > BEAT_WITHIN);
    if let Some((part, since)) = recorder.still.filter(|_| !is_silent) {
        let what_next = if recorder.waits_for_disk {
            "the disk of data_dir does not answer, and what is heard is kept in memory; the kernel's log says more"
        } else {
            "the recorder is about to be restarted, and its calls go on"
        };
        let text = format!("the recorder's {part} has not moved for {} s; {what_next}", since.elapsed().as_secs());
        return Component::new(Status::Failing, text);
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

fn spool_component(appliance: &Appliance, headroom: Option<&Headroom>) -> Component {
    let floor_mib = appliance.config.journal.spool_free_min.0 >> 20;
    let Some(headroom) = headroom else { return Component::ok() };
    let status = match headroom.room {
        Room::None => {
            let text = format!(
                "less is free for the journal than journal.spool_free_min ({floor_mib} MiB): new calls are refused. Free space in data_dir"
            );
            return Component::new(Status::Failing, text);
        }
        Room::VeryLow => Status::Failing,
        Room::Low => Status::Degraded,
        // However slowly it fills, one large file of somebody else's would do.
        Room::Enough if headroom.bytes < floor_mib << 20 => Status::Degraded,
        Room::Enough => return Component::ok(),
    };
    let how_long = match headroom.lasts {
        Some(left) if left < Duration::from_secs(48 * 3_600) => {
            format!("at the rate of the last hour that lasts for {:.1} hours", left.as_secs_f64() / 3_600.0)
        }
        _ => "at the rate of the last hour that lasts for days, but it is not much".to_owned(),
    };
    let text = format!(
        "{} MiB are free for the journal above journal.spool_free_min ({floor_mib} MiB); {how_long}. Then new calls are refused. Free space in data_dir, and see whether archives are made",
        headroom.bytes >> 20
    );
    Component::new(status, text)
}

fn store_component(appliance: &Appliance) -> Component {
    let condition = appliance.store.condition();
    match condition.away {
        Some(text) => {
            let state = condition.state.name();
            Component::new(Status::Degraded, format!("{state}: {text} (recordings wait in the journal meanwhile)"))
        }
        None => noted(appliance, &[moving::RECORD_NOTE, moving::NOTE], Status::Degraded),
    }
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
