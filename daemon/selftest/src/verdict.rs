//! After the calls: finds their recordings, waits for the archives, exports and judges.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};
use serde_json::Value;

use crate::compare::{Likeness, compare};
use crate::dialog::Held;
use crate::plan::{CallPlan, Shape};
use crate::report::{CallReport, ChannelReport};
use crate::voice::{FRAME, RATE};
use crate::wav::Wav;
use crate::{Appliance, Progress, SelftestParams, Stage};

/// Between two looks at the list of recordings.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// Pages of the list to look through: enough for the greatest run beside a busy appliance's own calls.
const PAGES_MAX: usize = 200;

/// How far the appliance's clock may be behind ours before a recording looks like one of an earlier run.
const CLOCK_TOLERANCE: SignedDuration = SignedDuration::from_secs(60);

/// Likeness that a lossy archive must reach over a whole call.
const CORRELATION_MIN: f64 = 0.8;

/// Likeness above which the places that differ are worth telling.
const PLACES_MIN: f64 = 0.5;

/// Likeness to the other party above which the channels count as mixed.
const CROSSTALK_MAX: f64 = 0.4;

/// A channel may begin so much later than the other: two frames, for the time between the two first packets.
const LAG_MS_MAX: f64 = 40.0;

/// The export may be longer or shorter than the call by so much: the shift and one frame at each end.
const LENGTH_MS_MAX: u64 = 80;

/// The duration in the facts is taken from arrivals; a busy machine's scheduling is in it.
const DURATION_MS_MAX: u64 = 500;

/// The recordings of the run, by the index of their call, as the list last told them.
type Found = HashMap<usize, (Value, Option<Duration>)>;

/// Judges every call of the run.
pub(crate) fn judge(
    params: &SelftestParams,
    plans: &[CallPlan],
    held: Vec<Result<Held, String>>,
    started_at: Timestamp,
    appliance: &dyn Appliance,
    progress: &mut dyn FnMut(Progress),
) -> Vec<CallReport> {
    let wanted: Vec<&CallPlan> =
        plans.iter().zip(&held).filter(|(_, held)| held.is_ok()).map(|(plan, _)| plan).collect();
    let (found, trouble) = wait_for_archives(params, &wanted, started_at, appliance, progress);
    let total = plans.len() as u64;
    let mut calls = Vec::with_capacity(plans.len());
    for (plan, held) in plans.iter().zip(held) {
        progress(Progress { stage: Stage::Comparing, done: plan.index as u64, total });
        calls.push(judge_call(params, plan, held, found.get(&plan.index), trouble.as_deref(), appliance));
    }
    progress(Progress { stage: Stage::Comparing, done: total, total });
    calls
}

/// Looks at the list until every wanted recording is archived, or the time is up. Gives what was found, and the last
/// trouble with the list itself.
fn wait_for_archives(
    params: &SelftestParams,
    wanted: &[&CallPlan],
    started_at: Timestamp,
    appliance: &dyn Appliance,
    progress: &mut dyn FnMut(Progress),
) -> (Found, Option<String>) {
    let began = Instant::now();
    let (mut found, mut trouble) = (Found::new(), None);
    let total = wanted.len() as u64;
    while !wanted.is_empty() {
        trouble = look(wanted, started_at, appliance, &mut found, began).err();
        let settled = found.values().filter(|(_, settled)| settled.is_some()).count() as u64;
        progress(Progress { stage: Stage::Archiving, done: settled, total });
        if settled == total || began.elapsed() >= params.archive_wait {
            break;
        }
        std::thread::sleep(LOOK_EVERY);
    }
    (found, trouble)
}

/// One look through the list, newest first, until all are found or it goes back before the run.
fn look(
    wanted: &[&CallPlan],
    started_at: Timestamp,
    appliance: &dyn Appliance,
    found: &mut Found,
    began: Instant,
) -> Result<(), String> {
    let earliest = started_at - CLOCK_TOLERANCE;
    let mut cursor: Option<String> = None;
    let mut seen = 0;
    for _ in 0..PAGES_MAX {
        let page = appliance.recordings(cursor.as_deref())?;
        let recordings = page["recordings"].as_array().ok_or("the list of recordings has no `recordings`")?;
        let mut all_earlier = !recordings.is_empty();
        for recording in recordings {
            let began_at = recording["started_at"].as_str().and_then(|at| at.parse::<Timestamp>().ok());
            if began_at.is_some_and(|at| at < earliest) {
                continue;
            }
            all_earlier = false;
            if let Some(plan) = wanted.iter().find(|plan| is_of(plan, recording)) {
                seen += 1;
                let state = recording["archive"]["state"].as_str().unwrap_or_default();
                let entry = found.entry(plan.index).or_insert_with(|| (Value::Null, None));
                entry.0 = recording.clone();
                if matches!(state, "archived" | "failed") && entry.1.is_none() {
                    entry.1 = Some(began.elapsed());
                }
            }
        }
        cursor = page["next"].as_str().map(str::to_owned);
        if cursor.is_none() || all_earlier || seen >= wanted.len() {
            return Ok(());
        }
    }
    Ok(())
}

/// Whether a recording is that of a planned call: by its call id, or by its pair of numbers.
fn is_of(plan: &CallPlan, recording: &Value) -> bool {
    let text = |field: &str| recording[field].as_str().unwrap_or_default();
    let call_id = text("call_id");
    if call_id == plan.call_id || call_id == plan.call_half {
        return true;
    }
    // Another self-test's call has another id; its numbers may be the same.
    let foreign = call_id.starts_with("selftest-") || call_id.starts_with("callhalf-");
    !foreign && text("local_number") == plan.numbers[0] && text("remote_number") == plan.numbers[1]
}

fn judge_call(
    params: &SelftestParams,
    plan: &CallPlan,
    held: Result<Held, String>,
    found: Option<&(Value, Option<Duration>)>,
    trouble: Option<&str>,
    appliance: &dyn Appliance,
) -> CallReport {
    let mut report = CallReport {
        call: plan.index + 1,
        shape: plan.shape,
        call_id: plan.call_id.clone(),
        ok: false,
        problems: Vec::new(),
        answered_in_ms: None,
        packets_sent: 0,
        recording: None,
        verdict: None,
        archive_state: None,
        archived_after_ms: None,
        left: None,
        right: None,
    };
    match held {
        Err(reason) => report.problems.push(reason),
        Ok(held) => {
            report.answered_in_ms = Some(held.answered_in.as_secs_f64() * 1000.0);
            report.packets_sent = 2 * u64::from(held.packets);
            match found {
                None => report.problems.push(missing(params, trouble)),
                Some((listed, archived_after)) => {
                    judge_recording(plan, listed, *archived_after, appliance, &mut report)
                }
            }
        }
    }
    report.ok = report.problems.is_empty();
    report
}

fn missing(params: &SelftestParams, trouble: Option<&str>) -> String {
    match trouble {
        Some(trouble) => format!("the list of recordings could not be read: {trouble}"),
        None => format!(
            "no recording of this call appeared within {} s after the last call; see `callvaultctl status` and the log of callvaultd",
            params.archive_wait.as_secs()
        ),
    }
}

fn judge_recording(
    plan: &CallPlan,
    listed: &Value,
    archived_after: Option<Duration>,
    appliance: &dyn Appliance,
    report: &mut CallReport,
) {
    let Some(id) = listed["id"].as_str() else {
        report.problems.push("the recording has no id".into());
        return;
    };
    report.recording = Some(id.to_owned());
    report.archived_after_ms = archived_after.map(|after| u64::try_from(after.as_millis()).unwrap_or(u64::MAX));
    match appliance.recording(id) {
        Ok(recording) => {
            report.verdict = recording["verdict"].as_str().map(str::to_owned);
            report.archive_state = recording["archive"]["state"].as_str().map(str::to_owned);
            report.problems.extend(wrong_facts(plan, &recording));
        }
        Err(error) => report.problems.push(format!("its facts could not be read: {error}")),
    }
    let exported = appliance.wav(id).and_then(|bytes| Wav::read(&bytes));
    match exported {
        Ok(wav) => judge_audio(plan, &wav, report),
        Err(error) => report.problems.push(format!("its audio could not be exported: {error}")),
    }
}

/// What the recording says about the call that is not so.
fn wrong_facts(plan: &CallPlan, recording: &Value) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut expect = |field: &str, expected: &str| {
        let said = recording[field].as_str().unwrap_or("nothing");
        if said != expected {
            wrong.push(format!("{field} is {said}; it was {expected}"));
        }
    };
    expect("verdict", "ok");
    expect("direction", plan.direction.as_str());
    expect("local_number", &plan.numbers[0]);
    expect("remote_number", &plan.numbers[1]);
    if plan.shape == Shape::Rfc {
        expect("remote_name", &plan.names[1]);
    }
    match recording["archive"]["state"].as_str() {
        Some("archived") => {}
        Some("failed") => wrong.push("its archive failed; `callvaultctl jobs list` says why".into()),
        state => wrong.push(format!(
            "it is not archived yet (state {}); the appliance is slow or its queue is stuck",
            state.unwrap_or("unknown")
        )),
    }
    let (duration, expected) = (recording["duration_ms"].as_u64(), u64::from(plan.frames) * 20);
    if duration.is_none_or(|duration| duration.abs_diff(expected) > DURATION_MS_MAX) {
        wrong.push(format!("duration_ms is {}; the call had {expected}", recording["duration_ms"]));
    }
    wrong.extend(wrong_tracks(plan, recording));
    if let Some(flaws) = recording["flaws"].as_array().filter(|flaws| !flaws.is_empty()) {
        let flaws: Vec<String> = flaws.iter().map(flaw_text).collect();
        wrong.push(format!("it is flawed: {}", flaws.join("; ")));
    }
    wrong
}

fn flaw_text(flaw: &Value) -> String {
    flaw.as_str().map_or_else(|| flaw.to_string(), str::to_owned)
}

fn wrong_tracks(plan: &CallPlan, recording: &Value) -> Vec<String> {
    let Some(tracks) = recording["tracks"].as_array() else { return vec!["it has no tracks".into()] };
    if tracks.len() != 2 {
        return vec![format!("it has {} tracks; the call had 2", tracks.len())];
    }
    let mut wrong = Vec::new();
    for track in tracks {
        let label = track["label"].as_str().unwrap_or("?");
        let mut expect = |field: &str, expected: u64| {
            if track[field].as_u64() != Some(expected) {
                wrong.push(format!("track {label}: {field} is {}; it was {expected}", track[field]));
            }
        };
        expect("packets", u64::from(plan.frames));
        expect("lost", 0);
        expect("duplicates", 0);
    }
    wrong
}

/// Holds the exported channels against what was sent.
fn judge_audio(plan: &CallPlan, wav: &Wav, report: &mut CallReport) {
    if wav.rate != RATE || wav.channels.len() != 2 {
        report.problems.push(format!(
            "the WAV file has {} channels at {} Hz; expected 2 at {RATE}",
            wav.channels.len(),
            wav.rate
        ));
        return;
    }
    let (length, expected) = (wav.channels[0].len() as u64, u64::from(plan.frames) * FRAME as u64);
    let off_ms = length.abs_diff(expected) * 1000 / u64::from(RATE);
    if off_ms > LENGTH_MS_MAX {
        let direction = if length < expected { "shorter" } else { "longer" };
        report.problems.push(format!("the WAV file is {off_ms} ms {direction} than the call"));
    }
    let sent = [plan.expected(0), plan.expected(1)];
    for (track, side) in [(0, "left"), (1, "right")] {
        let own = compare(&wav.channels[track], &sent[track]);
        let other = compare(&wav.channels[track], &sent[1 - track]);
        report.problems.extend(wrong_channel(side, &own, &other));
        let channel = ChannelReport {
            codec: if plan.laws[track].payload_type() == 0 { "PCMU" } else { "PCMA" }.into(),
            exact: own.exact,
            correlation: own.correlation,
            crosstalk: other.correlation,
            lag_ms: milliseconds(own.lag),
        };
        *(if track == 0 { &mut report.left } else { &mut report.right }) = Some(channel);
    }
}

fn milliseconds(samples: i64) -> f64 {
    samples as f64 * 1000.0 / f64::from(RATE)
}

fn wrong_channel(side: &str, own: &Likeness, other: &Likeness) -> Vec<String> {
    if own.correlation < CORRELATION_MIN && other.correlation >= CORRELATION_MIN {
        return vec![format!(
            "the {side} channel holds the other party (likeness {:.3}): the tracks are swapped",
            other.correlation
        )];
    }
    let mut wrong = Vec::new();
    if own.correlation < CORRELATION_MIN {
        wrong.push(format!(
            "the {side} channel is not what was sent (likeness {:.3}, expected {CORRELATION_MIN} or more)",
            own.correlation
        ));
    }
    if other.correlation > CROSSTALK_MAX {
        wrong.push(format!("the other party is heard on the {side} channel (likeness {:.3})", other.correlation));
    }
    if milliseconds(own.lag).abs() > LAG_MS_MAX {
        wrong.push(format!("the {side} channel is shifted by {:.1} ms", milliseconds(own.lag)));
    }
    // Of a channel that is wrong altogether the places need not be told.
    if !own.exact && own.correlation >= PLACES_MIN {
        for (from, to) in &own.differing_ms {
            wrong.push(format!(
                "the {side} channel differs from what was sent between {:.1} s and {:.1} s",
                *from as f64 / 1000.0,
                *to as f64 / 1000.0
            ));
        }
    }
    wrong
}
