use super::*;
use crate::damage::{Anchor, HeardCodec, TrackClock};
use callvault_journal::facts::{CodecFacts, Ended, Party, Pause, SourceFacts, ToneFacts, TrackCounts, TrackFacts};
use proptest::prelude::*;

const SECOND: u64 = 1_000_000_000;
const BEGIN: u64 = 5000 * SECOND;
/// 2026-03-04T08:15:27Z.
const WALL: i64 = 1_772_612_127_000_000_000;

fn started() -> SessionEvent {
    SessionEvent::Started(Started { wall_ns: WALL, at_ns: BEGIN, ..Started::default() })
}

fn track(number: u8, codecs: &[(u8, &str)]) -> SessionEvent {
    let codecs = codecs
        .iter()
        .map(|&(payload_type, encoding)| CodecFacts {
            payload_type,
            encoding: encoding.to_owned(),
            ..CodecFacts::default()
        })
        .collect();
    SessionEvent::Track(TrackFacts {
        track: number,
        label: (number + 1).to_string(),
        local: number == 0,
        mixed: false,
        codecs,
    })
}

fn counts(track: u8, packets: u64, lost: u64, gaps_ms: u64) -> TrackCounts {
    TrackCounts { track, packets, lost, gaps_ms, ..TrackCounts::default() }
}

/// The end after this many seconds.
fn ended_after(seconds: u64, tracks: &[TrackCounts]) -> SessionEvent {
    SessionEvent::Ended(Ended {
        // A wall clock that was set during the call: it must not matter.
        wall_ns: WALL + 86_400_000_000_000,
        at_ns: BEGIN + seconds * SECOND,
        reason: "bye".to_owned(),
        tracks: tracks.to_vec(),
    })
}

fn flaw(code: &str) -> SessionEvent {
    SessionEvent::Flaw(Flaw { code: code.to_owned(), text: format!("about {code}") })
}

fn pause(paused: bool, seconds: u64) -> SessionEvent {
    let pause = Pause { track: None, at_ns: BEGIN + seconds * SECOND, by: "client".to_owned() };
    if paused { SessionEvent::Paused(pause) } else { SessionEvent::Resumed(pause) }
}

fn party(number: Option<&str>, name: Option<&str>, labels: &[&str]) -> Party {
    Party {
        number: number.map(str::to_owned),
        name: name.map(str::to_owned),
        labels: labels.iter().map(|label| label.to_string()).collect(),
        ..Party::default()
    }
}

fn call() -> CallFacts {
    CallFacts {
        shape: "broadworks".to_owned(),
        direction: Direction::Incoming,
        local: party(Some("+390505550171"), Some("Giulia Bianchi"), &["1"]),
        remotes: vec![party(Some("+14085550123"), None, &["2"])],
        call_id: Some("callhalf-1:0".to_owned()),
        tracking_id: Some("t".to_owned()),
        ..CallFacts::default()
    }
}

/// A call of 60 seconds and two tracks with these counters and further events.
fn session(tracks: &[TrackCounts], more: &[SessionEvent]) -> Vec<SessionEvent> {
    let mut events = vec![started(), SessionEvent::Call(Box::new(call()))];
    events.extend([track(0, &[(111, "opus"), (101, "telephone-event")]), track(1, &[(111, "opus")])]);
    events.extend_from_slice(more);
    events.push(ended_after(60, tracks));
    events
}

fn sound() -> [TrackCounts; 2] {
    [counts(0, 3000, 0, 0), counts(1, 3000, 0, 0)]
}

fn check(events: &[SessionEvent], damage: &Damage, verdict: Verdict, reasons: &[&str], codes: &[&str]) {
    let row = summarise(events, damage);
    assert_eq!(row.verdict, verdict, "{events:?} {damage:?}");
    assert_eq!(row.reasons, reasons, "{events:?} {damage:?}");
    let found: Vec<&str> = row.flaws.iter().map(|flaw| flaw.code.as_str()).collect();
    assert_eq!(found, codes, "{events:?} {damage:?}");
    let known = |reason: &String| codes.contains(&reason.as_str());
    assert!(row.reasons.iter().all(known), "each reason is a flaw");
}

#[test]
fn a_whole_row() {
    let tracks = [TrackCounts { duplicates: 2, late: 3, ..counts(0, 3000, 1, 20) }, counts(1, 2990, 0, 0)];
    let row = summarise(&session(&tracks, &[]), &Damage::default());
    let json = serde_json::to_value(&row).unwrap();
    let expected = serde_json::json!({
        "verdict": "ok",
        "reasons": [],
        "started_at": "2026-03-04T08:15:27Z",
        "ended_at": "2026-03-04T08:16:27Z",
        "duration_ms": 60_000,
        "owner": null,
        "direction": "incoming",
        "local_number": "+390505550171",
        "local_name": "Giulia Bianchi",
        "remote_number": "+14085550123",
        "remote_name": null,
        "traffic": "external",
        "call_id": "callhalf-1:0",
        "tracking_id": "t",
        "tracks": [
            { "label": "1", "participant": "Giulia Bianchi", "codec": "opus", "packets": 3000, "lost": 1, "duplicates": 2,
              "late": 3, "gaps_ms": 20, "jitter_ms_max": 0, "started_after_ms": null, "clock_skew_ppm": null, "tones": 0, "paused_ms": 0, "local": true },
            { "label": "2", "participant": "+14085550123", "codec": "opus", "packets": 2990, "lost": 0, "duplicates": 0,
              "late": 0, "gaps_ms": 0, "jitter_ms_max": 0, "started_after_ms": null, "clock_skew_ppm": null, "tones": 0, "paused_ms": 0, "local": false },
        ],
        "flaws": [],
    });
    assert_eq!(json, expected);
    let back: Summary = serde_json::from_value(json).unwrap();
    assert_eq!(back, row);
}

#[test]
fn verdicts_by_loss() {
    fn check_loss(packets: u64, lost: u64, gaps_ms: u64, degraded: bool) {
        let tracks = [counts(0, 3000, 0, 0), counts(1, packets, lost, gaps_ms)];
        let events = session(&tracks, &[]);
        match degraded {
            true => check(&events, &Damage::default(), Verdict::Degraded, &["packets-lost"], &["packets-lost"]),
            false => check(&events, &Damage::default(), Verdict::Ok, &[], &[]),
        }
    }
    check_loss(3000, 0, 0, false);
    check_loss(2990, 10, 200, false);
    check_loss(2971, 29, 580, false);
    check_loss(2970, 30, 600, true);
    check_loss(30, 4, 80, false);
    check_loss(30, 5, 100, true);
    check_loss(100_000, 50, 999, false);
    check_loss(100_000, 50, 1000, true);
}

#[test]
fn loss_is_told_with_figures() {
    let events = session(&[counts(0, 2850, 150, 3000), counts(1, 3000, 0, 0)], &[]);
    let row = summarise(&events, &Damage::default());
    assert_eq!(row.flaws[0].text, "track 1: 150 of 3000 packets never came (5.0 %), 3000 ms of audio are missing");
}

#[test]
fn verdicts_by_what_was_noted() {
    let none = Damage::default();
    check(&session(&sound(), &[flaw("metadata-missing")]), &none, Verdict::Ok, &[], &["metadata-missing"]);
    check(
        &session(&sound(), &[flaw("label-missing"), flaw("label-missing")]),
        &none,
        Verdict::Ok,
        &[],
        &["label-missing"],
    );
    check(
        &session(&sound(), &[flaw("audio-dropped")]),
        &none,
        Verdict::Degraded,
        &["audio-dropped"],
        &["audio-dropped"],
    );
    let source = |source, at_ns| SessionEvent::Source(SourceFacts { track: 0, source, ssrc: 7, at_ns });
    check(&session(&sound(), &[source(0, BEGIN), source(1, BEGIN + SECOND)]), &none, Verdict::Ok, &[], &[]);
    check(&session(&sound(), &[SessionEvent::Unknown]), &none, Verdict::Ok, &[], &[]);
    let mut foreign = sound();
    foreign[0].foreign = 9;
    check(&session(&foreign, &[]), &none, Verdict::Ok, &[], &["foreign-source"]);
}

#[test]
fn the_time_that_a_track_was_paused_is_told() {
    fn check(events: &[SessionEvent], expected_ms: [u64; 2]) {
        let row = summarise(&session(&sound(), events), &Damage::default());
        assert_eq!(row.tracks.iter().map(|track| track.paused_ms).collect::<Vec<_>>(), expected_ms, "{events:?}");
    }
    let of_one = |event| match event {
        SessionEvent::Paused(pause) => SessionEvent::Paused(Pause { track: Some(1), ..pause }),
        SessionEvent::Resumed(pause) => SessionEvent::Resumed(Pause { track: Some(1), ..pause }),
        other => other,
    };
    check(&[], [0, 0]);
    check(&[pause(true, 1), pause(false, 4)], [3_000, 3_000]);
    check(&[of_one(pause(true, 1)), of_one(pause(false, 4))], [0, 3_000]);
    check(&[pause(true, 50)], [10_000, 10_000]);
}

#[test]
fn verdicts_by_silence() {
    let none = Damage::default();
    let one_leg = [counts(0, 3000, 0, 0), counts(1, 0, 0, 0)];
    let nothing = [counts(0, 0, 0, 0), counts(1, 0, 0, 0)];
    check(&session(&one_leg, &[]), &none, Verdict::Degraded, &["track-silent"], &["track-silent"]);
    check(&session(&one_leg, &[pause(true, 1)]), &none, Verdict::Ok, &[], &[]);
    check(
        &session(&one_leg, &[pause(true, 1), pause(false, 59)]),
        &none,
        Verdict::Degraded,
        &["track-silent"],
        &["track-silent"],
    );
    check(&session(&nothing, &[]), &none, Verdict::NoMedia, &["no-media"], &["no-media"]);
    check(&session(&[], &[]), &none, Verdict::NoMedia, &["no-media"], &["no-media"]);
    check(
        &session(&nothing, &[flaw("audio-dropped")]),
        &none,
        Verdict::NoMedia,
        &["no-media"],
        &["audio-dropped", "no-media"],
    );
    let mut short = vec![started(), track(0, &[]), track(1, &[])];
    short.push(ended_after(1, &[counts(0, 10, 0, 0), counts(1, 0, 0, 0)]));
    check(&short, &none, Verdict::Ok, &[], &[]);
}

#[test]
fn verdicts_by_damage() {
    let whole = session(&sound(), &[]);
    let cut = &whole[..whole.len() - 1];
    let counted = |packets: u64| Damage {
        counted: vec![counts(0, packets, 0, 0), counts(1, packets, 0, 0)],
        ..Damage::default()
    };
    check(&whole, &counted(3000), Verdict::Ok, &[], &[]);
    check(&whole, &counted(2999), Verdict::Degraded, &["packets-missing"], &["packets-missing"]);
    check(&whole, &counted(0), Verdict::Failed, &["packets-missing"], &["packets-missing"]);
    check(&whole, &Damage { torn_tail: true, ..Damage::default() }, Verdict::Ok, &[], &[]);
    check(&whole, &Damage { recorder_died: true, ..Damage::default() }, Verdict::Ok, &[], &["recorder-restarted"]);
    check(
        &whole,
        &Damage { lost_frames: 2, ..Damage::default() },
        Verdict::Degraded,
        &["journal-damaged"],
        &["journal-damaged"],
    );
    check(cut, &counted(50), Verdict::Degraded, &["recorder-restarted"], &["recorder-restarted"]);
    check(cut, &counted(0), Verdict::NoMedia, &["no-media"], &["recorder-restarted", "no-media"]);
    let heard = Damage { heard: vec![HeardCodec { track: 0, payload_type: 0 }], ..Damage::default() };
    check(cut, &heard, Verdict::Degraded, &["recorder-restarted"], &["recorder-restarted"]);
    let nothing_left = Damage { lost_frames: 3, counted: vec![counts(0, 0, 0, 0)], ..Damage::default() };
    check(
        cut,
        &nothing_left,
        Verdict::Failed,
        &["recorder-restarted", "journal-damaged"],
        &["recorder-restarted", "journal-damaged"],
    );
    check(&whole[1..], &counted(3000), Verdict::Degraded, &["start-missing"], &["start-missing"]);
    check(
        &[],
        &Damage::default(),
        Verdict::NoMedia,
        &["no-media"],
        &["recorder-restarted", "start-missing", "start-unknown", "no-media"],
    );
}

#[test]
fn a_cut_off_session_says_from_when_on_it_is_missing() {
    let damage = Damage {
        torn_tail: true,
        recorder_died: true,
        last_ns: Some(BEGIN + 3_723_456_000_000),
        counted: vec![counts(0, 50, 0, 0)],
        ..Damage::default()
    };
    let row = summarise(&[started(), track(0, &[(0, "PCMU")])], &damage);
    assert_eq!(row.duration_ms, 3_723_456);
    assert_eq!(
        row.flaws[0].text,
        "the recorder stopped during this call: audio after 01:02:03.456 is missing; the journal ends in the middle of a frame"
    );
}

#[test]
fn times_are_found() {
    fn check(events: &[SessionEvent], damage: &Damage, started_at: &str, duration_ms: u64) {
        let row = summarise(events, damage);
        assert_eq!(row.started_at.to_string(), started_at, "{events:?} {damage:?}");
        assert_eq!(row.duration_ms, duration_ms, "{events:?} {damage:?}");
        let length = row.ended_at.duration_since(row.started_at).as_millis();
        assert_eq!(length, i128::from(duration_ms));
    }
    let read = Damage { first_ns: Some(BEGIN + SECOND), last_ns: Some(BEGIN + 9 * SECOND), ..Damage::default() };
    let anchored = Damage { anchor: Some(Anchor { wall_ns: WALL, at_ns: BEGIN }), ..read.clone() };
    let end = ended_after(60, &[]);
    check(&[started(), end.clone()], &Damage::default(), "2026-03-04T08:15:27Z", 60_000);
    check(&[started()], &read, "2026-03-04T08:15:27Z", 9_000);
    check(&[started()], &Damage::default(), "2026-03-04T08:15:27Z", 0);
    check(&[], &anchored, "2026-03-04T08:15:28Z", 8_000);
    check(std::slice::from_ref(&end), &anchored, "2026-03-04T08:15:28Z", 59_000);
    check(std::slice::from_ref(&end), &read, "2026-03-05T08:14:28Z", 59_000);
    check(&[], &read, "1970-01-01T00:00:00Z", 8_000);
    check(&[started(), started(), end], &read, "2026-03-04T08:15:27Z", 60_000);
    let early = SessionEvent::Ended(Ended { at_ns: 1, ..Ended::default() });
    check(&[started(), early], &Damage::default(), "2026-03-04T08:15:27Z", 0);
}

#[test]
fn tracks_have_their_figures() {
    let source = |track, after_ms: u64| {
        SessionEvent::Source(SourceFacts { track, at_ns: BEGIN + after_ms * 1_000_000, ..SourceFacts::default() })
    };
    let tone = |track| SessionEvent::Tone(ToneFacts { track, event: 5, ..ToneFacts::default() });
    let jittery = TrackCounts { jitter_us_max: 12_700, ..counts(0, 3_000, 0, 0) };
    let end = ended_after(60, &[jittery, counts(1, 3_000, 0, 0)]);
    let events = [
        started(),
        track(0, &[]),
        track(1, &[]),
        source(0, 180),
        tone(0),
        source(0, 30_000),
        tone(0),
        source(9, 1),
        end,
    ];
    let clocks = vec![TrackClock { track: 0, skew_ppm: Some(-87), reports_ignored: true }];
    let row = summarise(&events, &Damage { clocks, ..Damage::default() });
    let figures =
        |track: &TrackSummary| (track.jitter_ms_max, track.started_after_ms, track.clock_skew_ppm, track.tones);
    assert_eq!(row.tracks.iter().map(figures).collect::<Vec<_>>(), [(13, Some(180), Some(-87), 2), (0, None, None, 0)]);
    assert_eq!(row.verdict, Verdict::Ok);
    assert_eq!(row.flaws.iter().map(|flaw| flaw.code.as_str()).collect::<Vec<_>>(), ["sender-reports-implausible"]);
    // Of a row that an earlier version wrote.
    let mut json = serde_json::to_value(&row.tracks[0]).unwrap();
    for name in ["jitter_ms_max", "started_after_ms", "clock_skew_ppm", "tones"] {
        assert!(json.as_object_mut().unwrap().remove(name).is_some());
    }
    assert_eq!(figures(&serde_json::from_value(json).unwrap()), (0, None, None, 0));
}

#[test]
fn an_end_before_the_beginning_is_a_flaw() {
    let early = SessionEvent::Ended(Ended { at_ns: 1, tracks: vec![counts(0, 5, 0, 0)], ..Ended::default() });
    check(
        &[started(), track(0, &[]), early],
        &Damage::default(),
        Verdict::Degraded,
        &["clock-inconsistent"],
        &["clock-inconsistent"],
    );
}

#[test]
fn parties_are_folded() {
    fn check(later: CallFacts, local: &str, remote: (Option<&str>, Option<&str>), tracking_id: &str) {
        let events = [started(), SessionEvent::Call(Box::new(call())), SessionEvent::Call(Box::new(later.clone()))];
        let row = summarise(&events, &Damage::default());
        assert_eq!(row.local_number.as_deref(), Some(local), "{later:?}");
        assert_eq!((row.remote_number.as_deref(), row.remote_name.as_deref()), remote, "{later:?}");
        assert_eq!(row.tracking_id.as_deref(), Some(tracking_id), "{later:?}");
        assert_eq!(row.direction, Direction::Incoming);
        assert_eq!(row.call_id.as_deref(), Some("callhalf-1:0"));
    }
    let own = "+390505550171";
    let first = (Some("+14085550123"), None);
    check(CallFacts::default(), own, first, "t");
    check(
        CallFacts { tracking_id: Some("u".to_owned()), call_id: Some(String::new()), ..CallFacts::default() },
        own,
        first,
        "u",
    );
    let moved = CallFacts { remotes: vec![party(Some("7744"), Some("Bo"), &[])], ..CallFacts::default() };
    check(moved, own, (Some("7744"), Some("Bo")), "t");
    let left =
        CallFacts { remotes: vec![party(None, None, &["2"]), party(Some("7711"), None, &[])], ..CallFacts::default() };
    check(left, own, (Some("7711"), None), "t");
    let renumbered = CallFacts { local: party(Some("2044"), None, &[]), ..CallFacts::default() };
    check(renumbered, "2044", first, "t");
}

#[test]
fn tracks_name_who_is_heard() {
    fn check(call: CallFacts, local: bool, mixed: bool, participant: Option<&str>) {
        let facts = TrackFacts { label: "2".to_owned(), local, mixed, ..TrackFacts::default() };
        let events = [SessionEvent::Call(Box::new(call.clone())), SessionEvent::Track(facts)];
        let row = summarise(&events, &Damage::default());
        assert_eq!(row.tracks[0].participant.as_deref(), participant, "{call:?}");
    }
    let with = |remotes: Vec<Party>| CallFacts { remotes, ..call() };
    check(call(), false, false, Some("+14085550123"));
    check(call(), true, false, Some("Giulia Bianchi"));
    check(call(), false, true, Some("Giulia Bianchi, +14085550123"));
    check(with(vec![party(None, Some("Bo"), &["2"]), party(Some("7"), None, &["2"])]), false, false, Some("Bo, 7"));
    check(with(vec![party(Some("7"), None, &["9"])]), false, false, None);
    check(with(vec![party(Some("7"), None, &[])]), false, false, Some("7"));
    check(with(vec![]), false, false, None);
}

#[test]
fn tracks_name_the_codec_that_was_heard() {
    fn check(descriptions: &[&[(u8, &str)]], heard: Option<u8>, codec: &str) {
        let events: Vec<SessionEvent> = descriptions.iter().map(|codecs| track(0, codecs)).collect();
        let heard = heard.map(|payload_type| HeardCodec { track: 0, payload_type });
        let damage = Damage { heard: heard.into_iter().collect(), ..Damage::default() };
        assert_eq!(summarise(&events, &damage).tracks[0].codec, codec, "{descriptions:?}");
    }
    const OFFER: &[(u8, &str)] = &[(101, "telephone-event"), (111, "opus"), (0, "PCMU")];
    check(&[OFFER], None, "opus");
    check(&[OFFER], Some(0), "PCMU");
    check(&[OFFER], Some(77), "opus");
    check(&[OFFER, &[(9, "G722")]], None, "G722");
    check(&[OFFER, &[(9, "G722")]], Some(111), "opus");
    check(&[&[(101, "telephone-event")]], None, "");
}

#[test]
fn thresholds_are_settings() {
    let events = session(&[counts(0, 3000, 1, 20), counts(1, 3000, 0, 0)], &[]);
    let strict = Thresholds { lost_permille: 0, lost_packets_min: 1, ..Thresholds::default() };
    assert_eq!(summarise(&events, &Damage::default()).verdict, Verdict::Ok);
    assert_eq!(summarise_with(&events, &Damage::default(), &strict).verdict, Verdict::Degraded);
}

#[test]
fn verdicts_have_one_name() {
    fn check(verdict: Verdict, name: &str) {
        assert_eq!(verdict.as_str(), name);
        assert_eq!(serde_json::to_value(verdict).unwrap(), name);
    }
    check(Verdict::Ok, "ok");
    check(Verdict::Degraded, "degraded");
    check(Verdict::Failed, "failed");
    check(Verdict::NoMedia, "no-media");
    check(Verdict::Discarded, "discarded");
}

#[test]
fn flaws_do_not_grow_without_end() {
    let many: Vec<SessionEvent> = (0..FLAWS_MAX + 9).map(|n| flaw(&format!("f{n}"))).collect();
    assert_eq!(summarise(&session(&sound(), &many), &Damage::default()).flaws.len(), FLAWS_MAX);
}

/// Any event with any figures.
fn any_event() -> impl Strategy<Value = SessionEvent> {
    let moment = prop_oneof![any::<u64>(), BEGIN..BEGIN + 100 * SECOND];
    let number = prop_oneof![0..3_u8, any::<u8>()];
    let figure = prop_oneof![any::<u64>(), 0..5000_u64];
    let counted =
        (number.clone(), figure.clone(), figure).prop_map(|(track, packets, lost)| counts(track, packets, lost, lost));
    prop_oneof![
        (any::<i64>(), moment.clone()).prop_map(|(wall_ns, at_ns)| SessionEvent::Started(Started {
            wall_ns,
            at_ns,
            ..Started::default()
        })),
        Just(SessionEvent::Call(Box::new(call()))),
        number.clone().prop_map(|number| track(number.min(254), &[(0, "PCMU")])),
        (proptest::option::of(number), moment.clone(), any::<bool>()).prop_map(|(track, at_ns, paused)| {
            let pause = Pause { track, at_ns, by: String::new() };
            if paused { SessionEvent::Paused(pause) } else { SessionEvent::Resumed(pause) }
        }),
        "[a-z-]{0,12}".prop_map(|code| flaw(&code)),
        (any::<i64>(), moment, proptest::collection::vec(counted, 0..3)).prop_map(|(wall_ns, at_ns, tracks)| {
            SessionEvent::Ended(Ended { wall_ns, at_ns, reason: "bye".to_owned(), tracks })
        }),
    ]
}

proptest! {
    #[test]
    fn any_facts_give_a_row(
        events in proptest::collection::vec(any_event(), 0..12),
        lost_frames in prop_oneof![Just(0), any::<u64>()],
        last_ns in proptest::option::of(any::<u64>()),
        anchor in proptest::option::of((any::<i64>(), any::<u64>())),
    ) {
        let anchor = anchor.map(|(wall_ns, at_ns)| Anchor { wall_ns, at_ns });
        let damage = Damage { lost_frames, last_ns, anchor, ..Damage::default() };
        let row = summarise(&events, &damage);
        prop_assert!(row.ended_at >= row.started_at);
        prop_assert_eq!(row.reasons.is_empty(), row.verdict == Verdict::Ok);
        prop_assert!(row.flaws.len() <= FLAWS_MAX);
        let has_end = events.iter().any(|event| matches!(event, SessionEvent::Ended(_)));
        prop_assert!(has_end || row.verdict != Verdict::Ok);
        prop_assert_eq!(summarise(&events, &damage), row);
    }
}
