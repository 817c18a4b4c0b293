//! Sender reports (RFC 3550 section 6.4.1): how much longer one track's path is than another's.
//!
//! By arrival a segment is placed by its least delayed packet, so a track with the longer path comes later than it was spoken. Two sources
//! whose reports are of one clock can be compared: each report says when, by that clock, a timestamp was current. Reports that were
//! made about the same time are compared in pairs, so that neither that clock's offset nor its drift against ours matters.
//! Whatever the reports say, a segment is moved by less than [`SHIFT_NS_MAX`], and only if they agree with its packets and among
//! themselves: some devices in between renew the packets and hand the reports on as they were.

use std::collections::BTreeMap;

use super::ReportHeader;
use super::segment::{NS_PER_SECOND, Segment};

/// The most that a segment is moved: half a second, above any difference of delay in which people can talk.
pub(super) const SHIFT_NS_MAX: i128 = NS_PER_SECOND as i128 / 2;
/// A report's timestamp is that of about the audio that it comes with; by so much it may be off.
const DEPARTURE_NS_MAX: i128 = NS_PER_SECOND as i128;
/// The two reports of a pair are at most so far apart.
const PAIR_NS_MAX: u64 = 60 * NS_PER_SECOND;
/// By so much what a source's reports say may differ: jitter of the reports themselves. Besides, its clock may be off by
/// 200 ppm ([`WANDER_PER`]).
const WANDER_NS_MAX: i128 = 3 * NS_PER_SECOND as i128 / 10;
const WANDER_PER: i128 = 5_000;

/// A report that fits the segment that it came in.
#[derive(Debug, Clone, Copy)]
struct Fitting {
    segment: usize,
    clock: u64,
    at_ns: u64,
    /// When its moment was by arrival, less when it was by its clock.
    lag_ns: i128,
}

/// What the reports say.
#[derive(Debug, Default)]
pub(super) struct Shifts {
    /// By how much each segment, in their order, is to begin earlier.
    pub(super) earlier_ns: Vec<i128>,
    /// Tracks whose reports were not believed.
    pub(super) ignored: Vec<u8>,
}

/// Works out the shifts. `segments` are those of each source in the order in which they were opened.
pub(super) fn shifts(segments: &[(u8, u8, Segment)], reports: &[ReportHeader]) -> Shifts {
    let mut ignored = Vec::new();
    let mut by_source: BTreeMap<(u8, u8), Vec<ReportHeader>> = BTreeMap::new();
    for report in reports.iter().filter(|report| report.clock != 0 && report.ntp != 0) {
        by_source.entry((report.track, report.source)).or_default().push(*report);
    }
    let mut fitting = Vec::new();
    for ((track, source), reports) in by_source {
        let own: Vec<usize> =
            (0..segments.len()).filter(|&number| (segments[number].0, segments[number].1) == (track, source)).collect();
        let fit: Vec<_> = reports.iter().filter_map(|report| fit(segments, &own, report)).collect();
        // A few that do not fit are those around a change.
        if fit.len() * 2 <= reports.len() || wanders(&fit) {
            ignored.push(track);
        } else {
            fitting.extend(fit);
        }
    }
    fitting.sort_by_key(|report| report.at_ns);
    let mut by_track: BTreeMap<u8, Vec<Fitting>> = BTreeMap::new();
    let mut by_segment: BTreeMap<usize, Vec<Fitting>> = BTreeMap::new();
    for report in fitting {
        by_track.entry(segments[report.segment].0).or_default().push(report);
        by_segment.entry(report.segment).or_default().push(report);
    }
    let mut known: BTreeMap<u8, Vec<(u64, i128)>> = BTreeMap::new();
    for (number, own) in by_segment {
        let (track, _, segment) = &segments[number];
        match longer_by(&by_track, *track, &own) {
            Some(ns) if ns < SHIFT_NS_MAX => known.entry(*track).or_default().push((segment.opened_ns(), ns.max(0))),
            Some(_) => ignored.push(*track),
            None => {}
        }
    }
    ignored.sort_unstable();
    ignored.dedup();
    // A segment in which no report came is on the same path as the one nearest to it in its track.
    let of_track =
        |track: u8, at_ns: u64| known.get(&track)?.iter().min_by_key(|(opened_ns, _)| opened_ns.abs_diff(at_ns));
    let earlier =
        |(track, _, segment): &(u8, u8, Segment)| of_track(*track, segment.opened_ns()).map_or(0, |&(_, ns)| ns);
    Shifts { earlier_ns: segments.iter().map(earlier).collect(), ignored }
}

/// A report with the segment in which it came, if it is about that. `own` are the segments of its source.
fn fit(segments: &[(u8, u8, Segment)], own: &[usize], report: &ReportHeader) -> Option<Fitting> {
    let after = own.partition_point(|&number| segments[number].2.opened_ns() <= report.arrival_ns);
    let number = *own.get(after.saturating_sub(1))?;
    let segment = &segments[number].2;
    let sent_ns = segment.sent_ns(segment.media_at(report.timestamp, report.arrival_ns));
    let departure = i128::from(report.arrival_ns) - sent_ns;
    let lag_ns = sent_ns - ntp_ns(report.ntp);
    let fits = departure.abs() <= DEPARTURE_NS_MAX;
    fits.then_some(Fitting { segment: number, clock: report.clock, at_ns: report.arrival_ns, lag_ns })
}

/// Whether a source's reports contradict each other.
fn wanders(reports: &[Fitting]) -> bool {
    let lags = || reports.iter().map(|report| report.lag_ns);
    let times = || reports.iter().map(|report| i128::from(report.at_ns));
    let (Some(least), Some(most)) = (lags().min(), lags().max()) else { return false };
    let span_ns = times().max().unwrap_or(0) - times().min().unwrap_or(0);
    most - least > WANDER_NS_MAX + span_ns / WANDER_PER
}

/// By how much the path of a segment with these reports is longer than that of the quickest other track, as reports made about the
/// same time say; none where there are no such.
fn longer_by(by_track: &BTreeMap<u8, Vec<Fitting>>, track: u8, own: &[Fitting]) -> Option<i128> {
    let others = by_track.iter().filter(|(other, _)| **other != track);
    let longer = others.filter_map(|(_, theirs)| {
        let pairs = own.iter().filter_map(|one| Some(one.lag_ns - nearest(theirs, one)?.lag_ns));
        let mut apart: Vec<i128> = pairs.collect();
        let middle = apart.len() / 2;
        (!apart.is_empty()).then(|| *apart.select_nth_unstable(middle).1)
    });
    longer.max()
}

/// The report of the same clock that was made at about the same time. `reports` are in the order of arrival.
fn nearest<'a>(reports: &'a [Fitting], to: &Fitting) -> Option<&'a Fitting> {
    let after = reports.partition_point(|report| report.at_ns < to.at_ns);
    let around = reports.get(after.saturating_sub(1)..(after + 1).min(reports.len()))?;
    let apart = |report: &&Fitting| report.at_ns.abs_diff(to.at_ns);
    let same = around.iter().filter(|report| report.clock == to.clock && apart(report) <= PAIR_NS_MAX);
    same.min_by_key(apart)
}

/// NTP format in nanoseconds; its origin does not matter. A clock that goes through the end of its 136 years contradicts itself, and is
/// not believed.
fn ntp_ns(ntp: u64) -> i128 {
    (i128::from(ntp) * i128::from(NS_PER_SECOND)) >> 32
}
