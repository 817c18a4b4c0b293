//! How the appliance is: each part with its reason and what to do, and the numbers for monitoring.
//!
//! Everything here is read from what the parts have left behind; nothing is asked and waited for.

use std::fmt::Write as _;
use std::sync::atomic::Ordering;
use std::time::Duration;

use callvault_http::{Component, Health, Snapshot, Status};
use callvault_queue::StateName;
use nix::sys::statvfs::statvfs;

use crate::appliance::Appliance;
use crate::recorder::RecorderState;

/// A heartbeat older than this is none.
const BEAT_WITHIN: Duration = Duration::from_secs(3);

/// How things stand now.
pub(crate) fn snapshot(appliance: &Appliance) -> Snapshot {
    let recorder = appliance.recorder.borrow().clone();
    let mut health = Health::default();
    let mut put = |name: &str, component: Component| {
        health.components.insert(name.to_owned(), component);
    };
    put("recorder", recorder_component(&recorder));
    put("journal", noted(appliance, &["ingest", "recordings"], Status::Failing));
    put("spool", spool_component(appliance, &recorder));
    put("store", store_component(appliance));
    put("queue", queue_component(appliance));
    put("catalogue", noted(appliance, &["catalogue"], Status::Failing));
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
    parts.iter().find_map(|part| appliance.notes.get(part)).map_or_else(Component::ok, |text| Component::new(status, text))
}

fn recorder_component(recorder: &RecorderState) -> Component {
    if !recorder.up {
        return Component::new(Status::Failing, "the recorder is not up; calls are not recorded. The log says why; it is started again by itself");
    }
    if recorder.beat_at.is_some_and(|at| at.elapsed() > BEAT_WITHIN) {
        return Component::new(Status::Failing, "the recorder has given no sign of life for some seconds; it is about to be restarted");
    }
    if recorder.deaths > 0 {
        return Component::new(
            Status::Degraded,
            format!("the recorder died {} times in the last minute or in a row; the log says why", recorder.deaths),
        );
    }
    if recorder.heartbeat.dropped > 0 {
        return Component::new(
            Status::Degraded,
            format!("{} packets could not be stored because the journal's disk did not keep up", recorder.heartbeat.dropped),
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
            format!("{} MiB are free for the journal, less than journal.spool_free_min ({} MiB): new calls are refused. Free space in data_dir", mib(free), mib(floor)),
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
    if let Some(text) = appliance.notes.get("store") {
        return Component::new(Status::Degraded, format!("{text}. Recordings wait in the journal meanwhile"));
    }
    Component::ok()
}

fn queue_component(appliance: &Appliance) -> Component {
    if let Some(text) = appliance.notes.get("queue").or_else(|| appliance.queue.broken()) {
        return Component::new(Status::Failing, text);
    }
    let parked: usize =
        appliance.queue.counts().iter().filter(|((_, state), _)| *state == StateName::Parked).map(|(_, n)| n).sum();
    if parked > 0 {
        return Component::new(
            Status::Degraded,
            format!("{parked} jobs are parked; `callvaultctl jobs list` shows why, `callvaultctl jobs retry ID` drives one again"),
        );
    }
    Component::ok()
}

/// Prometheus' text form. Written here by hand: it is a dozen lines of a format that does not change.
fn metrics(appliance: &Appliance, recorder: &RecorderState, health: &Health) -> String {
    let mut text = String::new();
    let mut metric = |name: &str, kind: &str, help: &str, values: &[(String, f64)]| {
        let _ = writeln!(text, "# HELP callvault_{name} {help}\n# TYPE callvault_{name} {kind}");
        for (labels, value) in values {
            let _ = writeln!(text, "callvault_{name}{labels} {value}");
        }
    };
    let one = |value: f64| vec![(String::new(), value)];
    let (beat, before) = (&recorder.heartbeat, &recorder.before);
    let total = |now: u64, before: u64| one((now + before) as f64);
    metric("calls_live", "gauge", "Sessions being recorded now.", &one(f64::from(beat.live)));
    metric("sessions_accepted_total", "counter", "Sessions accepted.", &total(beat.accepted, before.accepted));
    metric("sessions_overloaded_total", "counter", "INVITEs answered 503 for a limit.", &total(beat.overloaded, before.overloaded));
    metric("sessions_refused_total", "counter", "INVITEs refused for what they are.", &total(beat.refused, before.refused));
    metric("media_packets_total", "counter", "Media packets kept.", &total(beat.packets, before.packets));
    metric("media_packets_dropped_total", "counter", "Media packets that could not be stored.", &total(beat.dropped, before.dropped));
    metric("sip_messages_invalid_total", "counter", "SIP messages that could not be read.", &total(beat.invalid_messages, before.invalid_messages));
    metric("journal_appended_bytes_total", "counter", "Bytes appended to the journal.", &total(beat.appended_bytes, before.appended_bytes));
    metric("journal_commits_total", "counter", "Commits (fdatasync) of the journal.", &total(beat.commits, before.commits));
    metric("journal_bytes", "gauge", "Bytes of all journal files.", &one(appliance.journals().bytes() as f64));
    metric("spool_free_bytes", "gauge", "Free bytes on the journal's disk.", &one(beat.spool_free_bytes as f64));
    metric("media_port_pairs", "gauge", "Pairs of media ports.", &one(f64::from(recorder.port_pairs)));
    metric("media_port_pairs_used", "gauge", "Pairs of media ports in use or resting.", &one(f64::from(beat.port_pairs_used)));
    metric("recorder_up", "gauge", "Whether the recorder answers calls.", &one(f64::from(u8::from(recorder.up))));
    metric("recorder_restarts_total", "counter", "Deaths of the recorder since the daemon's start.", &one(recorder.deaths_total as f64));
    let count = |counter: &std::sync::atomic::AtomicU64| one(counter.load(Ordering::Relaxed) as f64);
    metric("recordings_ingested_total", "counter", "Recordings taken into the catalogue since the start.", &count(&appliance.metrics.ingested));
    metric("recordings_archived_total", "counter", "Recordings archived and verified since the start.", &count(&appliance.metrics.archived));
    metric("archived_bytes_total", "counter", "Bytes of archives written since the start.", &count(&appliance.metrics.archived_bytes));
    metric("job_failures_total", "counter", "Jobs that failed, each attempt counted.", &count(&appliance.metrics.job_failures));
    let jobs: Vec<(String, f64)> = appliance
        .queue
        .counts()
        .iter()
        .map(|((kind, state), n)| (format!("{{kind=\"{kind}\",state=\"{state}\"}}"), *n as f64))
        .collect();
    metric("jobs", "gauge", "Jobs by kind and state.", &jobs);
    if let Ok(about) = statvfs(appliance.store.path()) {
        let free = about.blocks_available().saturating_mul(about.fragment_size());
        metric("store_free_bytes", "gauge", "Free bytes in the store.", &one(free as f64));
    }
    let parts: Vec<(String, f64)> = health
        .components
        .iter()
        .map(|(name, c)| (format!("{{component=\"{name}\"}}"), c.status as u8 as f64))
        .collect();
    metric("component_status", "gauge", "0 ok, 1 degraded, 2 failing.", &parts);
    text
}
