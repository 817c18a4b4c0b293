//! Recordings that were made elsewhere: brought in pieces, kept as every other, refused with a reason.

use std::fs;
use std::sync::Arc;
use std::thread;

use callvault_access::{Caller, Level};
use callvault_catalogue::{Direction, Recording, Verdict};
use callvault_directory::User;
use callvault_http::{Api, ApiError, AuditQuery, ErrorKind, Import, NewImport, Piece, Whole};
use jiff::{SignedDuration, Timestamp};
use serde_json::Value;
use uuid::Uuid;

use super::rig::{Rig, Running};
use crate::api::Control;
use crate::imports::remove_leftovers;
use crate::playback::Format;

const RULE: &str = "[archive]\ncodec = \"as-received\"\n[retention]\nrule = \"12-months\"\n";

fn users() -> [User; 3] {
    [("ann", "7201"), ("bob", "7202"), ("eve", "7203")].map(|(name, number)| User {
        id: Uuid::now_v7(),
        webex_email: format!("{name}@example.com"),
        first_extension: number.into(),
        ..User::default()
    })
}

struct Sut {
    running: Running,
    control: Control,
    operator: Caller,
}

impl Sut {
    fn start(rig: &Rig) -> Self {
        let running = rig.start();
        running.appliance.access.people.set(users());
        let control = Control(Arc::clone(&running.appliance));
        Self { running, control, operator: Caller::operator("127.0.0.1") }
    }

    fn begin(&self, wanted: NewImport) -> Result<Uuid, ApiError> {
        let begun = self.control.import_recording(&self.operator, &Import::Begin(Box::new(wanted)))?;
        Ok(begun["id"].as_str().unwrap().parse().unwrap())
    }

    fn bring(&self, id: Uuid, at_samples: u64, pcm: &[u8]) -> Result<Value, ApiError> {
        let piece = Piece { at_samples, pcm: pcm.to_vec() };
        self.control.import_recording(&self.operator, &Import::Audio(id, piece))
    }

    /// Finishes it while the ingest goes on; its row.
    fn finish(&self, id: Uuid, samples: u64) -> Result<Recording, ApiError> {
        let (control, operator) = (&self.control, &self.operator);
        thread::scope(|scope| {
            let finish = Import::Finish(id, Whole { samples });
            let finishing = scope.spawn(move || control.import_recording(operator, &finish));
            while !finishing.is_finished() {
                self.running.settle();
            }
            finishing.join().unwrap().map(|_| ())
        })?;
        self.running.settle();
        Ok(self.running.row(id))
    }

    fn refused(&self, wanted: NewImport) -> (ErrorKind, String) {
        let error = self.begin(wanted).unwrap_err();
        (error.kind, error.message)
    }
}

/// A call of two at 8 kHz, an hour ago.
fn wanted() -> NewImport {
    NewImport {
        started_at: Timestamp::now() - SignedDuration::from_hours(1),
        duration_ms: None,
        rate_hz: 8_000,
        channels: 2,
        direction: Some("incoming".into()),
        local_number: Some("7201".into()),
        local_name: Some("Ann".into()),
        remote_number: Some("+390584123456".into()),
        remote_name: Some("Bob Else".into()),
        owner: None,
        call_id: Some("100".into()),
        note: None,
        is_preserved: false,
    }
}

/// Samples that say where they are.
fn pcm(samples: u32, channels: u8) -> Vec<u8> {
    let sample = |n: u32, channel: u8| (i16::try_from(n % 10_000).unwrap() + i16::from(channel)).to_le_bytes();
    (0..samples).flat_map(|n| (0..channels).flat_map(move |channel| sample(n, channel))).collect()
}

#[test]
fn what_is_brought_in_pieces_is_a_recording_like_every_other() {
    let rig = Rig::as_received();
    rig.configure(RULE);
    let sut = Sut::start(&rig);
    let note = Some("Taken over".to_owned());
    let wanted = NewImport { note, is_preserved: true, owner: Some("eve".into()), ..wanted() };
    let began = wanted.started_at;
    let id = sut.begin(wanted).unwrap();
    // Neither a multiple of a packet nor of anything else; the last packet is a short one.
    let all = pcm(20_001, 2);
    let mut at = 0;
    for piece in all.chunks(4 * 777) {
        let answer = sut.bring(id, at, piece).unwrap();
        at = answer["samples"].as_u64().unwrap();
    }
    assert_eq!(at, 20_001);
    let row = sut.finish(id, at).unwrap();
    assert_eq!((row.verdict, row.direction), (Verdict::Ok, Direction::Incoming), "{:?}", row.flaws);
    assert_eq!((row.started_at.as_millisecond(), row.duration_ms), (began.as_millisecond(), 2_500));
    assert_eq!(row.owner.as_deref(), Some("eve@example.com"), "who is named goes before the number, which is Ann's");
    assert_eq!(row.remote_name.as_deref(), Some("Bob Else"));
    assert_eq!(row.tracks.iter().map(|track| track.packets).collect::<Vec<_>>(), [126, 126]);
    assert!(row.tracks[0].local && !row.tracks[1].local);
    assert_eq!(row.annotations.notes[0].text, "Taken over");
    assert!(row.annotations.preserved.is_some());
    assert!(row.archive.place().is_some());
    // Every sample is heard at its place, left and right.
    let wav = sut.running.play(&row, Format::Wav).unwrap();
    let heard = &wav[wav.len() - all.len()..];
    assert_eq!(heard, all);
    // The journal has let it go, as it does with calls; and the log has who brought it.
    assert_eq!(rig.journal_files(), 0);
    let audit = sut.control.audit(&sut.operator, &AuditQuery::default()).unwrap();
    let entries = audit["entries"].as_array().unwrap();
    assert_eq!(entries.iter().filter(|entry| entry["action"] == "import-recording").count(), 1);
}

#[test]
fn one_channel_is_everybody_and_the_number_tells_whose_it_is() {
    let rig = Rig::as_received();
    let sut = Sut::start(&rig);
    let id = sut.begin(NewImport { channels: 1, rate_hz: 48_000, duration_ms: Some(9_000), ..wanted() }).unwrap();
    sut.bring(id, 0, &pcm(48_000, 1)).unwrap();
    let row = sut.finish(id, 48_000).unwrap();
    assert_eq!(row.owner.as_deref(), Some("ann@example.com"));
    assert_eq!(row.tracks.len(), 1);
    assert_eq!(row.verdict, Verdict::Degraded);
    assert_eq!(row.flaws.iter().map(|flaw| flaw.code.as_str()).collect::<Vec<_>>(), ["import-shorter"]);
    assert!(row.flaws[0].text.contains("1 s of audio") && row.flaws[0].text.contains("9 s"), "{}", row.flaws[0].text);
}

#[test]
fn what_is_wrong_is_refused_before_any_audio_comes() {
    let rig = Rig::as_received();
    rig.configure(RULE);
    let sut = Sut::start(&rig);
    let check = |wanted: NewImport, kind: ErrorKind, text: &str| {
        let (found, message) = sut.refused(wanted);
        assert_eq!(found, kind, "{message}");
        assert!(message.contains(text), "{message}");
    };
    let bad = ErrorKind::BadRequest;
    check(NewImport { rate_hz: 44_100, ..wanted() }, bad, "8000, 12000, 16000, 24000, 48000");
    check(NewImport { channels: 3, ..wanted() }, bad, "1 or 2");
    check(NewImport { direction: Some("up".into()), ..wanted() }, bad, "incoming, outgoing or unknown");
    check(NewImport { owner: Some("mallory".into()), ..wanted() }, bad, "nobody here");
    check(NewImport { local_name: Some("a\nb".into()), ..wanted() }, bad, "\"local_name\"");
    check(NewImport { note: Some("x".repeat(2_001)), ..wanted() }, bad, "\"note\"");
    let ago = |days: i64| Timestamp::now() - SignedDuration::from_hours(24 * days);
    check(NewImport { started_at: ago(-1), ..wanted() }, bad, "future");
    check(NewImport { started_at: ago(400), ..wanted() }, ErrorKind::Conflict, "older than retention keeps");
    // A preserved one stays.
    sut.begin(NewImport { started_at: ago(400), is_preserved: true, ..wanted() }).unwrap();
    for _ in 1..4 {
        sut.begin(wanted()).unwrap();
    }
    check(wanted(), ErrorKind::Unavailable, "already");
    for level in [Level::RecordOnly, Level::Base, Level::GroupSupervisor] {
        let caller = Caller::of_token("script", level, "127.0.0.1");
        let refused = sut.control.import_recording(&caller, &Import::Begin(Box::new(wanted()))).unwrap_err();
        assert_eq!(refused.kind, ErrorKind::Forbidden);
    }
}

#[test]
fn pieces_that_do_not_follow_and_ends_that_are_none_are_refused_and_nothing_is_lost() {
    let rig = Rig::as_received();
    let sut = Sut::start(&rig);
    let id = sut.begin(wanted()).unwrap();
    let kind = |result: Result<Value, ApiError>| result.map_err(|error| error.kind);
    assert_eq!(sut.finish(id, 0).map_err(|error| error.kind), Err(ErrorKind::Unprocessable));
    let some = pcm(160, 2);
    sut.bring(id, 0, &some).unwrap();
    assert_eq!(kind(sut.bring(id, 0, &some)), Err(ErrorKind::Conflict), "the same once more");
    assert_eq!(kind(sut.bring(id, 320, &some)), Err(ErrorKind::Conflict), "one that is ahead");
    assert_eq!(kind(sut.bring(id, 160, &some[1..])), Err(ErrorKind::BadRequest), "half a sample");
    assert_eq!(sut.finish(id, 320).map_err(|error| error.kind), Err(ErrorKind::Conflict), "some are missing");
    // Another administrator's program knows nothing of it.
    let other = Caller { name: "other".into(), ..Caller::of_token("other", Level::Administrator, "127.0.0.1") };
    let stolen = sut.control.import_recording(&other, &Import::GiveUp(id));
    assert_eq!(kind(stolen), Err(ErrorKind::NotFound));
    assert_eq!(sut.finish(id, 160).unwrap().duration_ms, 20);
    assert_eq!(kind(sut.bring(id, 160, &some)), Err(ErrorKind::NotFound), "it is a recording now");
}

#[test]
fn what_breaks_off_leaves_nothing() {
    let rig = Rig::as_received();
    {
        let sut = Sut::start(&rig);
        let given_up = sut.begin(wanted()).unwrap();
        sut.bring(given_up, 0, &pcm(80_000, 2)).unwrap();
        assert_eq!(rig.journal_files(), 1);
        sut.control.import_recording(&sut.operator, &Import::GiveUp(given_up)).unwrap();
        assert_eq!(rig.journal_files(), 0);
        assert!(sut.running.recordings().is_empty());
    }
    // A daemon that was killed leaves the file; what is in it is read by nobody, and the next one removes it.
    let name = callvault_journal::file_name(Uuid::now_v7(), 0);
    let (left, journal) = (rig.path(&format!("data/journal/{name}.tmp")), rig.path(&format!("data/journal/{name}")));
    fs::write(&left, b"half").unwrap();
    fs::write(&journal, b"").unwrap();
    let sut = Sut::start(&rig);
    sut.running.settle();
    assert!(sut.running.recordings().is_empty());
    remove_leftovers(&rig.path("data/journal")).unwrap();
    assert!(!left.exists());
}
