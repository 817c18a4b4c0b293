//! The numbers of deliveries to others.

use jiff::Timestamp;

use crate::appliance::Appliance;
use crate::deliveries::SinkKind;

/// Of the sinks that are switched on.
pub(super) fn write(metric: &mut impl FnMut(&str, &str, &str, &[(String, f64)]), appliance: &Appliance) {
    let (mut outcomes, mut waiting, mut oldest) = (Vec::new(), Vec::new(), Vec::new());
    for kind in SinkKind::ALL.into_iter().filter(|kind| kind.is_enabled(&appliance.config)) {
        let (sink, counts) = (kind.section(), appliance.deliveries.counts(kind));
        for (outcome, count) in
            [("delivered", counts.delivered), ("failed", counts.failed), ("refused", counts.refused)]
        {
            outcomes.push((format!("{{sink=\"{sink}\",outcome=\"{outcome}\"}}"), count as f64));
        }
        waiting.push((format!("{{sink=\"{sink}\"}}"), counts.waiting as f64));
        let age_ms = counts.oldest_unix_ms.map_or(0, |at| Timestamp::now().as_millisecond().saturating_sub(at).max(0));
        oldest.push((format!("{{sink=\"{sink}\"}}"), age_ms as f64 / 1000.0));
    }
    if outcomes.is_empty() {
        return;
    }
    metric(
        "deliveries_total",
        "counter",
        "Attempts at delivering a recording to others since the start: delivered, failed and tried again, or refused and parked.",
        &outcomes,
    );
    metric("deliveries_waiting", "gauge", "Recordings that are owed to others and not delivered.", &waiting);
    metric("deliveries_oldest_seconds", "gauge", "For how long the oldest of them has been owed.", &oldest);
}
