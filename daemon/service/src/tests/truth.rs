//! The truth table: each level, each recording, each action, each setting, driven through the endpoint, answers as the permission
//! function decides. What somebody may not see is answered like what there is not.

use std::sync::Arc;

use callvault_access::{Action, Caller, Level, On, Owned, Permissions, WhoMay, decide};
use callvault_catalogue::{Author, NewRecording, Note, Preserved, Recording, Verdict};
use callvault_directory::User;
use callvault_http::{Annotate, Api, ApiError, AudioFormat, AudioPurpose, AudioRequest, ErrorKind, RecordingsQuery};
use jiff::Timestamp;
use uuid::Uuid;

use super::rig::{Rig, Running};
use crate::api::Control;
use crate::row::{KEY_LOST, nameless};

const SETTINGS: [(&str, WhoMay); 4] = [
    ("nobody", WhoMay::Nobody),
    ("administrators", WhoMay::Administrators),
    ("group-supervisors", WhoMay::GroupSupervisors),
    ("users", WhoMay::Users),
];

/// What is done about one recording.
const ACTIONS: [Action; 10] = [
    Action::Show,
    Action::Play,
    Action::Download,
    Action::Preserve,
    Action::Tag,
    Action::NoteAdd,
    Action::NoteEdit,
    Action::NoteDelete,
    Action::Unpreserve,
    // the last one, as nothing is left of what was deleted
    Action::Delete,
];

fn users() -> Vec<User> {
    let user = |n: u128, level, group: &str, additional: &str| User {
        id: Uuid::from_u128(n),
        webex_email: format!("user-{n}@example.com"),
        level,
        group: group.into(),
        supervised_groups: additional.split_whitespace().map(str::to_owned).collect(),
        ..User::default()
    };
    vec![
        user(1, Level::RecordOnly, "Sales", ""),
        user(2, Level::Base, "Sales", ""),
        user(3, Level::GroupSupervisor, "Sales", ""),
        user(4, Level::GroupSupervisor, "Legal", "Sales"),
        user(5, Level::GroupSupervisor, "", ""),
        user(6, Level::Administrator, "", ""),
        user(7, Level::Base, "", ""),
    ]
}

struct Sut {
    running: Running,
    control: Control,
}

impl Sut {
    fn start(rig: &Rig) -> Self {
        let running = rig.start();
        running.appliance.access.people.set(users());
        let control = Control(Arc::clone(&running.appliance));
        Self { running, control }
    }

    /// A recording with a note by the level `by`, who preserved it as well.
    fn recording(&self, owner: Option<&User>, by: Option<Level>) -> (Uuid, Uuid) {
        let (id, note) = (Uuid::now_v7(), Uuid::now_v7());
        let recording = Recording { owner_id: owner.map(|user| user.id), ..nameless(id, Verdict::Ok, KEY_LOST, "-") };
        let new = NewRecording { recording, lanes: Vec::new(), owed: Vec::new(), links: Vec::new() };
        let (catalogue, at) = (&self.running.appliance.catalogue, Timestamp::now());
        catalogue.ingest(&new, at).unwrap();
        if let Some(level) = by {
            let by = Author { level, ..Author::of(&Caller::operator("")) };
            let entry = self.running.appliance.entry(&Caller::operator(""), Action::Preserve);
            let added = catalogue.annotate(id, &entry, |annotations| {
                annotations.preserved = Some(Preserved { by: by.clone(), at });
                let text = "Listen".to_owned();
                annotations.notes.push(Note { id: note, at_ms: None, text, by, created_at: at, edited_at: None });
                Ok::<(), ()>(())
            });
            added.unwrap().unwrap().unwrap();
        }
        (id, note)
    }

    fn answer(&self, caller: &Caller, action: Action, id: Uuid, note: Uuid) -> Result<(), ApiError> {
        let audio = |purpose| AudioRequest { format: AudioFormat::Wav, start_ms: 0, end_ms: None, purpose };
        let annotate = |change| self.control.annotate(caller, id, &change).map(drop);
        match action {
            Action::Show => self.control.recording(caller, id).map(drop),
            Action::Play => self.control.audio(caller, id, &audio(AudioPurpose::Play)).map(drop),
            Action::Download => self.control.audio(caller, id, &audio(AudioPurpose::Download)).map(drop),
            Action::Delete => self.control.delete_recording(caller, id).map(drop),
            Action::Preserve => annotate(Annotate::Preserve),
            Action::Unpreserve => annotate(Annotate::Release),
            Action::Tag => annotate(Annotate::AddTag("seen".into())),
            Action::NoteAdd => annotate(Annotate::AddNote { text: "Here".into(), at_ms: None }),
            Action::NoteEdit => annotate(Annotate::EditNote { note, text: "There".into() }),
            Action::NoteDelete => annotate(Annotate::DeleteNote(note)),
            _ => panic!("{action} is not about one recording"),
        }
    }
}

/// Asks for everything about a recording of `owner`, and holds the answers against what is decided.
fn check(sut: &Sut, settings: &Permissions, caller: &Caller, owner: Option<&User>, by: Option<Level>) {
    let (id, note) = sut.recording(owner, by);
    let may_see = decide(caller, Action::Show, On::One(Owned::by(owner)), settings).is_ok();
    let list = sut.control.recordings(caller, &RecordingsQuery { limit: Some(1), ..RecordingsQuery::default() });
    let is_found =
        list.is_ok_and(|list| list["recordings"].as_array().unwrap().iter().any(|row| row["id"] == id.to_string()));
    assert_eq!(is_found, may_see, "found: {caller:?} {owner:?}");
    let mut preserved_by = by;
    let mut written_by = by;
    for action in ACTIONS {
        let owned = Owned { preserved_by, ..Owned::by(owner) };
        let is_note = matches!(action, Action::NoteEdit | Action::NoteDelete);
        let on = match written_by {
            Some(level) if is_note => On::Note(owned, level),
            _ => On::One(owned),
        };
        let decided = decide(caller, action, on, settings);
        let expected = match &decided {
            _ if !may_see => Some(ErrorKind::NotFound),
            Err(_) => Some(ErrorKind::Forbidden),
            // nothing is in it to hear, and no such note is there
            Ok(()) if matches!(action, Action::Play | Action::Download) => Some(ErrorKind::Unprocessable),
            Ok(()) if is_note && written_by.is_none() => Some(ErrorKind::NotFound),
            Ok(()) => None,
        };
        let answer = sut.answer(caller, action, id, note);
        let found = answer.as_ref().err().map(|error| error.kind);
        assert_eq!(found, expected, "{action} by {caller:?} of {owner:?} preserved by {by:?} under {settings:?}");
        if !may_see {
            let missing = sut.answer(caller, action, Uuid::now_v7(), note);
            assert_eq!(answer, missing, "{action} tells that there is one");
        }
        if found.is_none() {
            let own = caller.rank();
            match action {
                Action::Preserve => preserved_by = preserved_by.max(Some(own)),
                Action::Unpreserve => preserved_by = None,
                Action::NoteEdit => written_by = written_by.max(Some(own)),
                Action::NoteDelete => written_by = None,
                _ => {}
            }
        }
    }
}

fn check_all(rig: &Rig, delete: &str, word: &str, settings: &Permissions) {
    rig.configure(&format!(
        "[archive]\ncodec = \"as-received\"\n[retention]\nrule = \"12-months\"\n\
         [permissions]\ndelete = \"{delete}\"\ndownload = \"{word}\"\npreserve = \"{word}\"\n"
    ));
    let sut = Sut::start(rig);
    assert_eq!(sut.running.appliance.access.permissions(), *settings);
    let users = users();
    // one's own, a colleague's, that of somebody in no group, and nobody's
    let owners = |own: usize| [Some(&users[own]), Some(&users[1]), Some(&users[6]), None];
    for (n, user) in users.iter().enumerate() {
        let caller = Caller::of_user(user, Level::Administrator, "192.0.2.7");
        for owner in owners(n) {
            for by in [None, Some(Level::Base), Some(Level::Administrator)] {
                check(&sut, settings, &caller, owner, by);
            }
        }
    }
}

#[test]
fn every_level_action_and_setting_is_answered_as_it_is_decided() {
    let rig = Rig::as_received();
    for (word, who) in SETTINGS {
        check_all(&rig, word, word, &Permissions { delete: who, never_delete: false, download: who, preserve: who });
    }
    let never =
        Permissions { delete: WhoMay::Nobody, never_delete: true, download: WhoMay::Users, preserve: WhoMay::Users };
    check_all(&rig, "nobody-irreversibly", "users", &never);
}
