//! The numbers of Webex.

use std::sync::atomic::Ordering;

use crate::appliance::Appliance;

/// Where it is switched on.
pub(super) fn write(metric: &mut impl FnMut(&str, &str, &str, &[(String, f64)]), appliance: &Appliance) {
    let settings = appliance.settings();
    if !settings.webex.enabled {
        return;
    }
    let (webex, counts) = (&appliance.webex, &appliance.webex.counts);
    let one = |value: f64| vec![(String::new(), value)];
    let help = "Whether Webex is authorised: 0 until an administrator authorises, or authorises again.";
    metric("webex_authorised", "gauge", help, &one(f64::from(u8::from(webex.is_authorised()))));
    let total = |counter: &std::sync::atomic::AtomicU64| one(counter.load(Ordering::Relaxed) as f64);
    metric(
        "webex_syncs_total",
        "counter",
        "Synchronisations of users since the start, without dry runs.",
        &total(&counts.syncs),
    );
    metric("webex_syncs_failed_total", "counter", "Those that changed nothing.", &total(&counts.syncs_failed));
    metric(
        "webex_requests_total",
        "counter",
        "Requests to Webex since the start that were part of something whole.",
        &total(&counts.requests),
    );
    let synced_at = counts.synced_at_s.load(Ordering::Relaxed);
    if synced_at > 0 {
        let help = "When users were synchronised last, in seconds since the Unix epoch.";
        metric("webex_synced_seconds", "gauge", help, &one(synced_at as f64));
        let help = "Recorded at Webex and no users here, as the last synchronisation found them.";
        metric("webex_unknown_users", "gauge", help, &total(&counts.unknown));
        let help = "Users from Webex whose calls it does not send, as the last synchronisation found them.";
        metric("webex_unrecorded_users", "gauge", help, &total(&counts.unrecorded));
    }
    if !settings.webex.records {
        return;
    }
    metric("webex_records_total", "counter", "Call detail records read since the start.", &total(&counts.records));
    let read_to = counts.read_to_s.load(Ordering::Relaxed);
    if read_to > 0 {
        let help = "Up to when call detail records have been read, in seconds since the Unix epoch.";
        metric("webex_records_read_seconds", "gauge", help, &one(read_to as f64));
    }
    if let Some((_, sums)) = webex.compared() {
        let calls: Vec<(String, f64)> =
            sums.iter().map(|(verdict, count)| (format!("{{verdict=\"{verdict}\"}}"), *count as f64)).collect();
        metric(
            "webex_calls",
            "gauge",
            "Calls of the last day by what is said of them, as they were compared last.",
            &calls,
        );
    }
}
