//! From a session's facts to its row.

use std::collections::BTreeMap;

use callvault_journal::facts::{CallFacts, Direction, Flaw, SessionEvent, Started};
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use crate::call::{fold_call, main_remote};
use crate::damage::{Damage, TrackClock};
use crate::pauses::open_ns;
use crate::track::{Known, TrackSummary, ended, known_tracks};
use crate::traffic::{Traffic, traffic};
use crate::verdict::{DEGRADING_CODES, Thresholds, Verdict};

/// Most flaws in a row. More of them tell nobody more.
pub const FLAWS_MAX: usize = 64;

/// A recording's row: what the catalogue keeps and people see. The field names are those of the JSON.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// What became of the session.
    pub verdict: Verdict,
    /// The codes of those flaws that made the verdict what it is.
    pub reasons: Vec<String>,
    /// When the INVITE was answered, by the wall clock. The Unix epoch where nothing tells, with the flaw "start-unknown".
    pub started_at: Timestamp,
    /// `started_at` and the duration. A wall clock that was set during the call does not move it.
    pub ended_at: Timestamp,
    /// Length by the journal's clock, milliseconds.
    pub duration_ms: u64,
    /// The user whom it belongs to; none while the directory is empty.
    pub owner: Option<String>,
    /// Seen from the recorded user.
    pub direction: Direction,
    /// The recorded user's number.
    pub local_number: Option<String>,
    /// The recorded user's name.
    pub local_name: Option<String>,
    /// The main remote party's number.
    pub remote_number: Option<String>,
    /// The main remote party's name.
    pub remote_name: Option<String>,
    /// Whether it stayed within the organisation.
    pub traffic: Traffic,
    /// The peer's identifier of the call.
    pub call_id: Option<String>,
    /// The peer's identifier that both halves of an internal call share.
    pub tracking_id: Option<String>,
    /// The tracks by number.
    pub tracks: Vec<TrackSummary>,
    /// Everything noted, the recorder's remarks first.
    pub flaws: Vec<Flaw>,
}

/// The row of a session, by the default thresholds: see [`summarise_with`].
pub fn summarise(events: &[SessionEvent], damage: &Damage) -> Summary {
    summarise_with(events, damage, &Thresholds::default())
}

/// The row of a session.
///
/// `events` are all facts of the recording in their order; those of later segments of a resumed session follow those of the
/// first. A session without an end was cut off when the recorder died; its row says from when on audio is missing.
pub fn summarise_with(events: &[SessionEvent], damage: &Damage, thresholds: &Thresholds) -> Summary {
    let call = fold_call(events);
    let known = known_tracks(events, damage);
    let span = Span::new(events, damage);
    let findings = Findings::gather(events, damage, thresholds, &known, &span);
    let remote = main_remote(&call);
    let started_at = span.started_at();
    Summary {
        verdict: findings.verdict,
        reasons: findings.reasons,
        started_at,
        ended_at: started_at.saturating_add(milliseconds(span.duration_ms())).unwrap_or(Timestamp::MAX),
        duration_ms: span.duration_ms(),
        owner: None,
        direction: call.direction,
        local_number: call.local.number.clone(),
        local_name: call.local.name.clone(),
        remote_number: remote.and_then(|party| party.number.clone()),
        remote_name: remote.and_then(|party| party.name.clone()),
        traffic: traffic(&call),
        tracks: rows(&known, events, &call, damage, &span),
        call_id: call.call_id,
        tracking_id: call.tracking_id,
        flaws: findings.flaws,
    }
}

fn rows(
    known: &BTreeMap<u8, Known>,
    events: &[SessionEvent],
    call: &CallFacts,
    damage: &Damage,
    span: &Span,
) -> Vec<TrackSummary> {
    let all_ns = span.end_ns.saturating_sub(span.begin_ns);
    let paused_ms = |track: u8| all_ns.saturating_sub(open_ns(events, track, span.begin_ns, span.end_ns)) / 1_000_000;
    known.values().map(|track| track.summary(call, damage, span.begin_ns, paused_ms(track.facts.track))).collect()
}

fn milliseconds(ms: u64) -> SignedDuration {
    SignedDuration::from_millis(i64::try_from(ms).unwrap_or(i64::MAX))
}

/// From when to when a session lasted, in journal time and on the wall.
struct Span {
    begin_ns: u64,
    end_ns: u64,
    start_wall_ns: Option<i64>,
    has_start: bool,
    has_end: bool,
    /// The end is before the beginning: they are not on one clock.
    is_reversed: bool,
}

impl Span {
    fn new(events: &[SessionEvent], damage: &Damage) -> Span {
        let started = events.iter().find_map(|event| match event {
            SessionEvent::Started(started) => Some(started),
            _ => None,
        });
        let ended = ended(events);
        let end_ns = ended.map(|ended| ended.at_ns).or(damage.last_ns);
        let begin_ns = started.map(|started| started.at_ns).or(damage.first_ns).or(end_ns).unwrap_or(0);
        let anchored = || {
            let anchor = damage.anchor?;
            let offset_ns = i128::from(begin_ns) - i128::from(anchor.at_ns);
            i64::try_from(i128::from(anchor.wall_ns) + offset_ns).ok()
        };
        let from_end = || {
            let ended = ended.filter(|ended| ended.wall_ns != 0)?;
            let length_ns = i64::try_from(ended.at_ns.saturating_sub(begin_ns)).ok()?;
            ended.wall_ns.checked_sub(length_ns)
        };
        let told = |started: &Started| (started.wall_ns != 0).then_some(started.wall_ns);
        Span {
            begin_ns,
            end_ns: end_ns.unwrap_or(begin_ns).max(begin_ns),
            start_wall_ns: started.and_then(told).or_else(anchored).or_else(from_end),
            has_start: started.is_some(),
            has_end: ended.is_some(),
            is_reversed: end_ns.is_some_and(|end_ns| end_ns < begin_ns),
        }
    }

    fn started_at(&self) -> Timestamp {
        let wall_ns = self.start_wall_ns.unwrap_or(0);
        Timestamp::from_nanosecond(i128::from(wall_ns)).unwrap_or(Timestamp::UNIX_EPOCH)
    }

    fn duration_ms(&self) -> u64 {
        (self.end_ns - self.begin_ns) / 1_000_000
    }
}

/// What is noted about a session, and the verdict that follows from it.
struct Findings {
    flaws: Vec<Flaw>,
    reasons: Vec<String>,
    verdict: Verdict,
}

impl Findings {
    fn gather(
        events: &[SessionEvent],
        damage: &Damage,
        thresholds: &Thresholds,
        tracks: &BTreeMap<u8, Known>,
        span: &Span,
    ) -> Findings {
        let mut findings = Findings { flaws: Vec::new(), reasons: Vec::new(), verdict: Verdict::Ok };
        for event in events {
            if let SessionEvent::Flaw(flaw) = event {
                findings.take(flaw.clone());
            }
        }
        findings.look_at_span(events, damage, tracks, span);
        findings.look_at_journal(damage, tracks);
        for track in tracks.values() {
            findings.look_at_track(events, thresholds, tracks, track, span);
            findings.look_at_clock(damage, track);
        }
        findings.conclude(events, damage, tracks, span);
        findings
    }

    /// Notes something that the recorder noted.
    fn take(&mut self, flaw: Flaw) {
        if DEGRADING_CODES.contains(&flaw.code.as_str()) {
            self.degrade(&flaw.code.clone(), flaw.text);
        } else {
            self.note(flaw);
        }
    }

    fn note(&mut self, flaw: Flaw) {
        if self.flaws.len() < FLAWS_MAX && !self.flaws.contains(&flaw) {
            self.flaws.push(flaw);
        }
    }

    fn remark(&mut self, code: &str, text: String) {
        self.note(Flaw { code: code.to_owned(), text });
    }

    /// Notes something that makes the recording a degraded one.
    fn degrade(&mut self, code: &str, text: String) {
        self.verdict = Verdict::Degraded;
        if !self.reasons.iter().any(|known| known == code) {
            self.reasons.push(code.to_owned());
        }
        self.remark(code, text);
    }

    fn look_at_span(&mut self, events: &[SessionEvent], damage: &Damage, tracks: &BTreeMap<u8, Known>, span: &Span) {
        if !span.has_end {
            let torn = if damage.torn_tail { "; the journal ends in the middle of a frame" } else { "" };
            let after = clock_time(span.duration_ms());
            self.degrade(
                "recorder-restarted",
                format!("the recorder stopped during this call: audio after {after} is missing{torn}"),
            );
        } else if damage.recorder_died || is_resumed(events) {
            self.remark("recorder-restarted", went_on(damage, tracks));
        }
        if damage.parts_unreadable > 0 {
            let parts = damage.parts_unreadable;
            let text =
                format!("{parts} parts of this call cannot be read: the recorder died before their key was written");
            self.degrade("key-lost-in-part", text);
        }
        if !span.has_start {
            self.degrade("start-missing", "the beginning of this recording cannot be read".to_owned());
        }
        if span.start_wall_ns.is_none() {
            self.remark("start-unknown", "nothing tells when this call began".to_owned());
        }
        if span.is_reversed {
            self.degrade("clock-inconsistent", "the end of this call is before its beginning".to_owned());
        }
        if ended(events).is_some_and(|ended| ended.reason == "media-timeout") {
            self.remark("media-timeout", "the client never ended this call; it ended when its audio did".to_owned());
        }
    }

    fn look_at_journal(&mut self, damage: &Damage, tracks: &BTreeMap<u8, Known>) {
        if damage.lost_frames > 0 {
            let frames = damage.lost_frames;
            self.degrade("journal-damaged", format!("{frames} frames of the journal cannot be read"));
        }
        let unreadable = tracks.values().map(Known::unreadable).fold(0, u64::saturating_add);
        if unreadable > 0 {
            self.degrade("packets-missing", format!("{unreadable} packets that were kept are not in the journal"));
        }
    }

    fn look_at_track(
        &mut self,
        events: &[SessionEvent],
        thresholds: &Thresholds,
        tracks: &BTreeMap<u8, Known>,
        track: &Known,
        span: &Span,
    ) {
        let label = track.label();
        let counts = &track.counts;
        let permille = track.lost_permille();
        let is_lossy = permille >= thresholds.lost_permille && counts.lost >= thresholds.lost_packets_min;
        if is_lossy || counts.gaps_ms >= thresholds.gaps_ms {
            self.degrade(
                "packets-lost",
                format!(
                    "track {label}: {} of {} packets never came ({}.{} %), {} ms of audio are missing",
                    counts.lost,
                    counts.packets.saturating_add(counts.lost),
                    permille / 10,
                    permille % 10,
                    counts.gaps_ms
                ),
            );
        }
        if counts.foreign > 0 {
            self.remark(
                "foreign-source",
                format!("track {label}: {} packets of another source were not kept", counts.foreign),
            );
        }
        let others_heard = tracks.values().any(|other| other.packets() > 0);
        let open_ms = open_ns(events, track.facts.track, span.begin_ns, span.end_ns) / 1_000_000;
        if counts.packets == 0 && others_heard && open_ms >= thresholds.silent_ms {
            self.degrade("track-silent", format!("track {label}: nothing was received in {open_ms} ms"));
        }
    }

    fn look_at_clock(&mut self, damage: &Damage, track: &Known) {
        let is_ignored = |clock: &TrackClock| clock.track == track.facts.track && clock.reports_ignored;
        if damage.clocks.iter().any(is_ignored) {
            let label = track.label();
            self.remark(
                "sender-reports-implausible",
                format!("track {label}: what its sender reports of its clock cannot be true; the track is aligned by arrival"),
            );
        }
    }

    /// What outweighs the rest: nothing to hear, because nothing came or because nothing can be read.
    fn conclude(&mut self, events: &[SessionEvent], damage: &Damage, tracks: &BTreeMap<u8, Known>, span: &Span) {
        if tracks.values().any(|track| track.packets() > 0) {
            return;
        }
        let is_source = |event: &SessionEvent| matches!(event, SessionEvent::Source(_));
        let was_heard = !damage.heard.is_empty() || events.iter().any(is_source);
        if was_heard && !span.has_end && damage.counted.is_empty() {
            // Packets came and nobody counted them: degraded, as a session without an end is.
            return;
        }
        let was_kept = tracks.values().any(|track| track.counts.packets > 0);
        if was_kept || damage.lost_frames > 0 {
            // One of the two has been noted, and is the reason.
            self.verdict = Verdict::Failed;
            return;
        }
        self.verdict = Verdict::NoMedia;
        self.reasons = vec!["no-media".to_owned()];
        self.remark("no-media", "no audio was received".to_owned());
    }
}

/// Whether another recorder went on. Of one that could not write down anything before it died there is no part in the journal.
fn is_resumed(events: &[SessionEvent]) -> bool {
    events.iter().any(|event| matches!(event, SessionEvent::Started(started) if started.resumed.is_some()))
}

/// That the recorder was restarted, and what that cost: whether it degrades the recording is for the thresholds of any loss.
fn went_on(damage: &Damage, tracks: &BTreeMap<u8, Known>) -> String {
    let times = match damage.restarts {
        0 | 1 => String::new(),
        times => format!(" {times} times"),
    };
    let missing = damage.lost_at_restarts.iter().map(|lost| {
        let label = tracks.get(&lost.track).map_or_else(|| (u16::from(lost.track) + 1).to_string(), Known::label);
        format!("; {} ms of track {label} are missing", lost.ms)
    });
    format!("the recorder was restarted{times} during this call, which went on{}", missing.collect::<String>())
}

/// Milliseconds into a recording as hours, minutes and seconds.
fn clock_time(ms: u64) -> String {
    let seconds = ms / 1000;
    format!("{:02}:{:02}:{:02}.{:03}", seconds / 3600, seconds / 60 % 60, seconds % 60, ms % 1000)
}

#[cfg(test)]
mod tests;
