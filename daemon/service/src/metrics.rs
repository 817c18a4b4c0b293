//! The numbers for monitoring, by Prometheus' conventions: base units, `_total` on counters, HELP and TYPE for each.
//!
//! They are read when they are asked for, from counters that are kept elsewhere (the recorder's heartbeat, the queue), so there is
//! no registry; what remains is a dozen lines of a format that does not change, written here by hand.

mod archiving;
mod deliveries;
mod transport;
mod webex;

use std::fmt::Write as _;
use std::sync::atomic::Ordering;

use callvault_http::Health;

use crate::appliance::Appliance;
use crate::clock::Sync;
use crate::headroom::Headroom;
use crate::recorder::RecorderState;
use crate::store::StoreState;

/// Prometheus' text form. Written here by hand: it is a dozen lines of a format that does not change.
pub(crate) fn metrics(
    appliance: &Appliance,
    recorder: &RecorderState,
    health: &Health,
    headroom: Option<&Headroom>,
) -> String {
    let mut text = String::new();
    let mut metric = |name: &str, kind: &str, help: &str, values: &[(String, f64)]| {
        let _ = writeln!(text, "# HELP callvault_{name} {help}\n# TYPE callvault_{name} {kind}");
        for (labels, value) in values {
            let _ = writeln!(text, "callvault_{name}{labels} {value}");
        }
    };
    let one = |value: f64| vec![(String::new(), value)];
    let (beat, before) = (&recorder.heartbeat, &recorder.before);
    let total = |now: u64, before: u64| one(now.saturating_add(before) as f64);
    metric("calls_live", "gauge", "Sessions being recorded now.", &one(f64::from(beat.live)));
    metric("sessions_accepted_total", "counter", "Sessions accepted.", &total(beat.accepted, before.accepted));
    metric(
        "recordings_started_again_total",
        "counter",
        "Recordings begun in a session after another was stopped. With the sessions accepted: all recordings.",
        &total(beat.started_again, before.started_again),
    );
    metric(
        "sessions_overloaded_total",
        "counter",
        "INVITEs answered 503 for a limit.",
        &total(beat.overloaded, before.overloaded),
    );
    metric(
        "sessions_refused_total",
        "counter",
        "INVITEs refused for what they are.",
        &total(beat.refused, before.refused),
    );
    metric("media_packets_total", "counter", "Media packets kept.", &total(beat.packets, before.packets));
    metric(
        "media_packets_dropped_total",
        "counter",
        "Media packets that could not be stored.",
        &total(beat.dropped, before.dropped),
    );
    metric(
        "sip_messages_invalid_total",
        "counter",
        "SIP messages that could not be read.",
        &total(beat.invalid_messages, before.invalid_messages),
    );
    metric(
        "journal_appended_bytes_total",
        "counter",
        "Bytes appended to the journal.",
        &total(beat.appended_bytes, before.appended_bytes),
    );
    metric(
        "journal_commits_total",
        "counter",
        "Commits (fdatasync) of the journal.",
        &total(beat.commits, before.commits),
    );
    metric("journal_bytes", "gauge", "Bytes of all journal files.", &one(appliance.journals.bytes() as f64));
    metric("spool_free_bytes", "gauge", "Free bytes on the journal's disk.", &one(beat.spool_free_bytes as f64));
    if let Some(rate) = headroom.and_then(|h| h.filling_bytes_per_s) {
        let help = "Bytes a second at which the journal's disk filled in the last hour; while the store is away, those written.";
        metric("spool_filling_bytes_per_second", "gauge", help, &one(rate as f64));
    }
    if let Some(lasts) = headroom.and_then(|h| h.lasts) {
        let help = "How long the space above journal.spool_free_min lasts at that rate; absent while it does not fill.";
        metric("spool_headroom_seconds", "gauge", help, &one(lasts.as_secs_f64()));
    }
    metric("media_port_pairs", "gauge", "Pairs of media ports.", &one(f64::from(recorder.port_pairs)));
    metric(
        "media_port_pairs_used",
        "gauge",
        "Pairs of media ports in use or resting.",
        &one(f64::from(beat.port_pairs_used)),
    );
    metric("recorder_up", "gauge", "Whether the recorder answers calls.", &one(f64::from(u8::from(recorder.up))));
    let stays = appliance.sockets_stay.load(Ordering::Relaxed);
    metric(
        "calls_survive_restart",
        "gauge",
        "Whether calls go on when the service is restarted: the service manager keeps the sockets.",
        &one(f64::from(u8::from(stays))),
    );
    metric(
        "recorder_restarts_total",
        "counter",
        "Deaths of the recorder since the daemon's start.",
        &one(recorder.deaths_total as f64),
    );
    let count = |counter: &std::sync::atomic::AtomicU64| one(counter.load(Ordering::Relaxed) as f64);
    metric(
        "recordings_ingested_total",
        "counter",
        "Recordings taken into the catalogue since the start.",
        &count(&appliance.metrics.ingested),
    );
    metric(
        "recordings_archived_total",
        "counter",
        "Recordings archived and verified since the start.",
        &count(&appliance.metrics.archived),
    );
    metric(
        "archived_bytes_total",
        "counter",
        "Bytes of archives written since the start.",
        &count(&appliance.metrics.archived_bytes),
    );
    metric(
        "job_failures_total",
        "counter",
        "Jobs that failed, each attempt counted.",
        &count(&appliance.metrics.job_failures),
    );
    let stopped = appliance.access.stopped().is_some();
    metric(
        "recording_stopped",
        "gauge",
        "Whether recording was stopped by an administrator: new calls are refused.",
        &one(f64::from(u8::from(stopped))),
    );
    metric(
        "access_refused_total",
        "counter",
        "Requests that were refused because whoever asked may not, or came with a token that is not good any more.",
        &count(&appliance.metrics.access_refused),
    );
    transport::write(&mut metric, before.transport.sum(beat.transport), beat.transport);
    let expires = appliance.metrics.certificate_expires_unix_s.load(Ordering::Relaxed);
    if expires > 0 {
        metric(
            "tls_certificate_expires_seconds",
            "gauge",
            "When the certificate of SIP over TLS expires, in seconds since the Unix epoch.",
            &one(expires as f64),
        );
    }
    let sync = appliance.clock.sync();
    let states = Sync::ALL.map(|state| (format!("{{state=\"{}\"}}", state.name()), f64::from(u8::from(state == sync))));
    metric("clock_state", "gauge", "1 for what is known of the machine's clock, 0 for the others.", &states);
    let [discarded, reasons, deleted] = appliance.metrics.names();
    let by = |label: &str, counts: &[(String, u64)]| -> Vec<(String, f64)> {
        counts.iter().map(|(name, n)| (format!("{{{label}=\"{name}\"}}"), *n as f64)).collect()
    };
    metric(
        "recordings_discarded_total",
        "counter",
        "Recordings that were not kept since the start, by the rule that said so.",
        &by("rule", &discarded),
    );
    metric(
        "recordings_not_ok_total",
        "counter",
        "Recordings with another verdict than ok since the start, by the flaws that made it so.",
        &by("reason", &reasons),
    );
    metric(
        "recordings_deleted_total",
        "counter",
        "Recordings deleted since the start, by the rule that said so.",
        &by("rule", &deleted),
    );
    let (due, last_run) = appliance.retention.figures();
    metric("retention_due", "gauge", "Recordings whose time had come when it was last looked.", &one(due as f64));
    if let Some(at) = last_run {
        let help = "When retention ran last, in seconds since the Unix epoch.";
        metric("retention_last_run_seconds", "gauge", help, &one(at.as_second() as f64));
    }
    let jobs: Vec<(String, f64)> = appliance
        .queue
        .counts()
        .iter()
        .map(|((kind, state), n)| (format!("{{kind=\"{kind}\",state=\"{state}\"}}"), *n as f64))
        .collect();
    metric("jobs", "gauge", "Jobs by kind and state.", &jobs);
    let mails = appliance.mailing.counts.all();
    let help = "Mails to users since the start, each attempt, by outcome; those without their attachment are among the accepted.";
    metric("mails_total", "counter", help, &mails.map(|(name, n)| (format!("{{outcome=\"{name}\"}}"), n as f64)));
    deliveries::write(&mut metric, appliance);
    webex::write(&mut metric, appliance);
    archiving::write(&mut metric, appliance);
    let store = appliance.store.condition();
    let states = StoreState::ALL
        .map(|state| (format!("{{state=\"{}\"}}", state.name()), f64::from(u8::from(state == store.state))));
    metric("store_state", "gauge", "1 for the state in which the store is, 0 for the others.", &states);
    if let Some(free) = store.free_bytes {
        metric("store_free_bytes", "gauge", "Free bytes in the store.", &one(free as f64));
    }
    let moving = &appliance.moving;
    let [left, moved, bytes] =
        [&moving.left, &moving.moved, &moving.moved_bytes].map(|n| n.load(Ordering::Relaxed) as f64);
    metric(
        "store_move_left",
        "gauge",
        "Archives still to be moved to another store, when it was last counted.",
        &one(left),
    );
    metric("store_moved_total", "counter", "Archives moved to another store since the start.", &one(moved));
    metric(
        "store_moved_bytes_total",
        "counter",
        "Bytes of archives moved to another store since the start.",
        &one(bytes),
    );
    let parts: Vec<(String, f64)> = health
        .components
        .iter()
        .map(|(name, c)| (format!("{{component=\"{name}\"}}"), c.status as u8 as f64))
        .collect();
    metric("component_status", "gauge", "0 ok, 1 degraded, 2 failing.", &parts);
    text
}
