//! The numbers of the transports.

use callvault_control::{ClosedBecause, HandshakeFailure, TransportCounts};

/// Name, kind, help, and values with their labels.
type Put<'a> = dyn FnMut(&str, &str, &str, &[(String, f64)]) + 'a;

/// Writes them: counters from `total`, gauges from `now`.
pub(super) fn write(metric: &mut Put<'_>, total: TransportCounts, now: TransportCounts) {
    let transports = |tcp: f64, tls: f64| labelled("transport", [("tcp", tcp), ("tls", tls)]);
    metric(
        "sip_connections",
        "gauge",
        "Connections that are open now, in the handshake included.",
        &transports(f64::from(now.connections_tcp), f64::from(now.connections_tls)),
    );
    metric(
        "sip_connections_accepted_total",
        "counter",
        "Connections of clients taken.",
        &transports(total.accepted_tcp as f64, total.accepted_tls as f64),
    );
    metric(
        "sip_connections_closed_total",
        "counter",
        "Connections turned away or closed by the recorder.",
        &labelled("reason", ClosedBecause::ALL.map(|reason| (reason.name(), total.closed[reason as usize] as f64))),
    );
    let failed = HandshakeFailure::ALL.map(|why| (why.name(), total.handshakes_failed[why as usize] as f64));
    metric(
        "sip_tls_handshakes_total",
        "counter",
        "TLS handshakes by how they ended.",
        &labelled("result", [("ok", total.handshakes as f64)].into_iter().chain(failed)),
    );
    metric(
        "sip_connects_total",
        "counter",
        "Connections opened to clients for requests within a dialog.",
        &labelled("result", [("ok", total.connects as f64), ("failed", total.connects_failed as f64)]),
    );
    metric(
        "sip_datagrams_dropped_total",
        "counter",
        "Datagrams that were not answered: from outside the allow-list, or one of many that are no SIP.",
        &labelled(
            "reason",
            [("not-allowed", total.datagrams_not_allowed as f64), ("invalid", total.datagrams_unanswered as f64)],
        ),
    );
    metric(
        "sessions_limited_total",
        "counter",
        "INVITEs answered 503 for a limit on new sessions.",
        &labelled("reason", [("rate", total.invites_too_fast as f64), ("share", total.invites_over_share as f64)]),
    );
}

fn labelled(label: &str, values: impl IntoIterator<Item = (&'static str, f64)>) -> Vec<(String, f64)> {
    values.into_iter().map(|(name, value)| (format!("{{{label}=\"{name}\"}}"), value)).collect()
}
