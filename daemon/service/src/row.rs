//! Rows of the catalogue: what the policy made of a session, or what there is to say when nothing can be read of it.

use callvault_catalogue::{
    Annotations, Archive, Author, Direction, Flaw, Note, Preserved, Recording, Track, Traffic, Verdict,
};
use callvault_directory::{Directory, Level, MatchedBy};
use callvault_journal::facts::{CallFacts, SessionEvent};
use callvault_policy::{Owner, Ownership, Summary, TrackHeard, flaws_heard, owner, traffic_by};
use callvault_render_protocol::Heard;
use jiff::Timestamp;
use uuid::Uuid;

/// Whether there is anything of it to archive or to play. A session that was discarded, or whose key was never written, has a row
/// and nothing else.
pub(crate) fn has_audio(row: &Recording) -> bool {
    row.verdict != Verdict::Discarded && !row.flaws.iter().any(|f| WITHOUT_AUDIO.contains(&f.code.as_str()))
}

/// Flaw of a session whose key was never written.
pub(crate) const KEY_LOST: &str = "key-lost";

/// Flaw of a session of which not even the id can be read.
pub(crate) const UNNAMED: &str = "id-lost";

/// Flaw of a recording of which several users could be the owner.
const OWNER_AMBIGUOUS: &str = "owner-ambiguous";

/// Flaws that leave nothing to be heard.
const WITHOUT_AUDIO: [&str; 2] = [KEY_LOST, UNNAMED];

/// Whose a recording is, and whether the other side belongs to the organisation, as the directory has it now.
pub(crate) fn belongs(recording: &mut Recording, call: &CallFacts, directory: &Directory) {
    recording.traffic = traffic_word(traffic_by(call, directory));
    match owner(call, directory) {
        Ownership::Of(Owner { user, by }) => {
            recording.owner = Some(user.webex_email.clone());
            recording.owner_id = Some(user.id);
            recording.owner_name = Some(user.display_name());
            recording.matched_by = Some(by.as_str().to_owned());
        }
        Ownership::Ambiguous => recording.flaws.push(Flaw {
            code: OWNER_AMBIGUOUS.to_owned(),
            text: "several users have what the client calls the recorded user by; it is for administrators only"
                .to_owned(),
        }),
        Ownership::Nobody => {}
    }
}

/// What came with a recording that was made elsewhere: whose it is, a note, that it is to be kept longer.
pub(crate) fn imported(recording: &mut Recording, events: &[SessionEvent], directory: &Directory) {
    let Some(import) = events.iter().find_map(|event| match event {
        SessionEvent::Imported(import) => Some(import),
        _ => None,
    }) else {
        return;
    };
    if let Some(user) = import.owner.as_deref().and_then(|email| directory.by_email(email)) {
        recording.owner = Some(user.webex_email.clone());
        recording.owner_id = Some(user.id);
        recording.owner_name = Some(user.display_name());
        recording.matched_by = Some(MatchedBy::Email.as_str().to_owned());
        recording.flaws.retain(|flaw| flaw.code != OWNER_AMBIGUOUS);
    }
    let at = Timestamp::from_nanosecond(import.wall_ns.into()).unwrap_or_default();
    let level = import.by_level.parse().unwrap_or(Level::Administrator);
    let by = Author { user: import.by_user, name: import.by_name.clone(), level };
    if let (Some(text), Some(id)) = (&import.note, import.note_id) {
        let note = Note { id, at_ms: None, text: text.clone(), by: by.clone(), created_at: at, edited_at: None };
        recording.annotations.notes.push(note);
    }
    if import.preserved {
        recording.annotations.preserved = Some(Preserved { by, at });
    }
}

/// Whether it was made elsewhere, by the facts of its row.
pub(crate) fn is_import(recording: &Recording) -> bool {
    let is_one = |event: &serde_json::Value| event.get("event").is_some_and(|name| name == "imported");
    recording.facts.as_array().is_some_and(|events| events.iter().any(is_one))
}

/// The catalogue's word for it.
pub(crate) fn traffic_word(traffic: callvault_policy::Traffic) -> Traffic {
    match traffic {
        callvault_policy::Traffic::Internal => Traffic::Internal,
        callvault_policy::Traffic::External => Traffic::External,
        callvault_policy::Traffic::Unknown => Traffic::Unknown,
    }
}

/// The row of a recording from its summary.
pub(crate) fn recording(id: Uuid, summary: Summary, events: &[SessionEvent]) -> Recording {
    Recording {
        id,
        verdict: summary.verdict.as_str().parse().unwrap_or(Verdict::Failed),
        started_at: summary.started_at,
        ended_at: summary.ended_at,
        duration_ms: summary.duration_ms,
        owner: summary.owner,
        owner_id: None,
        owner_name: None,
        matched_by: None,
        direction: match summary.direction {
            callvault_journal::facts::Direction::Incoming => Direction::Incoming,
            callvault_journal::facts::Direction::Outgoing => Direction::Outgoing,
            callvault_journal::facts::Direction::Unknown => Direction::Unknown,
        },
        local_number: summary.local_number,
        local_name: summary.local_name,
        remote_number: summary.remote_number,
        remote_name: summary.remote_name,
        traffic: traffic_word(summary.traffic),
        call_id: summary.call_id,
        tracks: summary
            .tracks
            .into_iter()
            .map(|t| Track {
                label: t.label,
                participant: t.participant,
                codec: t.codec,
                packets: t.packets,
                lost: t.lost,
                duplicates: t.duplicates,
                late: t.late,
                gaps_ms: t.gaps_ms,
                jitter_ms_max: t.jitter_ms_max,
                started_after_ms: t.started_after_ms,
                clock_skew_ppm: t.clock_skew_ppm,
                tones: t.tones,
                paused_ms: t.paused_ms,
                local: t.local,
                ..Track::default()
            })
            .collect(),
        flaws: summary.flaws.into_iter().map(|f| Flaw { code: f.code, text: f.text }).collect(),
        archive: Archive::journal(),
        linked: Vec::new(),
        annotations: Annotations::default(),
        tracking_id: summary.tracking_id,
        facts: serde_json::to_value(events).unwrap_or_default(),
    }
}

/// Puts into a row what is heard on its tracks, by their place. Done twice it is the same as once.
pub(crate) fn listen(row: &mut Recording, heard: &[(usize, Heard)]) {
    let mut tracks = Vec::new();
    for (place, heard) in heard {
        let Some(track) = row.tracks.get_mut(*place) else { continue };
        track.silent_ms = Some(heard.silent_ms);
        track.clipped_ms = Some(heard.clipped_ms);
        track.level_dbfs = heard.level_dbfs;
        let Heard { audio_ms, silent_ms, active_ms, .. } = *heard;
        tracks.push(TrackHeard { label: track.label.clone(), audio_ms, silent_ms, active_ms });
    }
    for flaw in flaws_heard(&tracks) {
        let flaw = Flaw { code: flaw.code, text: flaw.text };
        if row.verdict == Verdict::Ok {
            row.verdict = Verdict::Degraded;
        }
        if !row.flaws.contains(&flaw) && row.flaws.len() < callvault_policy::FLAWS_MAX {
            row.flaws.push(flaw);
        }
    }
}

/// The row of a session of which nothing can be read: its id alone says when it was. It has neither facts nor tracks.
pub(crate) fn nameless(id: Uuid, verdict: Verdict, code: &str, text: &str) -> Recording {
    let (seconds, nanos) = id.get_timestamp().map_or((0, 0), |t| t.to_unix());
    let at = Timestamp::new(i64::try_from(seconds).unwrap_or(0), i32::try_from(nanos).unwrap_or(0)).unwrap_or_default();
    Recording {
        id,
        verdict,
        started_at: at,
        ended_at: at,
        duration_ms: 0,
        owner: None,
        owner_id: None,
        owner_name: None,
        matched_by: None,
        direction: Direction::Unknown,
        local_number: None,
        local_name: None,
        remote_number: None,
        remote_name: None,
        traffic: Traffic::Unknown,
        call_id: None,
        tracks: Vec::new(),
        flaws: vec![Flaw { code: code.to_owned(), text: text.to_owned() }],
        archive: Archive::journal(),
        linked: Vec::new(),
        annotations: Annotations::default(),
        tracking_id: None,
        facts: serde_json::Value::Null,
    }
}

/// An id for a lane of which no frame that names its recording is readable: always the same for the same lane, so that it is
/// entered once. Time and random bits are the generation's, so it sorts to when the recorder ran.
pub(crate) fn unnamed_id(generation: Uuid, lane: u32) -> Uuid {
    let mut bytes = *generation.as_bytes();
    for (byte, of_lane) in bytes[12..].iter_mut().zip(lane.to_be_bytes()) {
        *byte ^= of_lane;
    }
    Uuid::from_bytes(bytes)
}
