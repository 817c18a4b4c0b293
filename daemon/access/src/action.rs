//! What can be asked for.

use std::fmt;

use callvault_directory::Level;

/// On what an action is done, which decides who may.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// On a live call.
    Call,
    /// On a recording, or on a set of them.
    Recording,
    /// On the appliance.
    Appliance,
}

macro_rules! actions {
    ($( $(#[doc = $doc:literal])* $variant:ident = $word:literal in $scope:ident $(, $audited:ident)? ;)*) => {
        /// Something that is asked for.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Action {
            $( $(#[doc = $doc])* $variant, )*
        }

        impl Action {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$variant),*];

            /// Its name in the audit log, which never changes.
            pub fn as_str(self) -> &'static str {
                match self { $( Self::$variant => $word, )* }
            }

            /// On what it is done.
            pub fn scope(self) -> Scope {
                match self { $( Self::$variant => Scope::$scope, )* }
            }

            /// Whether the audit log has it when it is allowed. A refusal is always there.
            pub fn is_audited(self) -> bool {
                match self { $( Self::$variant => true $(&& actions!(@ $audited))?, )* }
            }
        }
    };
    (@ unaudited) => { false };
}

actions! {
    /// See that a call is being recorded, and how.
    SeeCalls = "calls" in Call, unaudited;
    /// Store nothing of a live call for now.
    Pause = "pause" in Call;
    /// Store a live call again.
    Resume = "resume" in Call;
    /// End the recording of a live call.
    Stop = "stop" in Call;
    /// Begin another recording of a live call, or keep it.
    Start = "start" in Call;
    /// Keep what is recorded on demand.
    Keep = "keep" in Call;

    /// Look for recordings; what is found is limited to what [`crate::Visible`] says.
    Search = "search" in Recording;
    /// See all that is known about one recording.
    Show = "show" in Recording;
    /// Hear a recording.
    Play = "play" in Recording;
    /// Take a recording's audio away as a file.
    Download = "download" in Recording;
    /// Take several recordings away, with what is known about them.
    Export = "export" in Recording;
    /// Delete a recording by hand.
    Delete = "delete" in Recording;
    /// Keep a recording beyond its time.
    Preserve = "preserve" in Recording;
    /// Let a preserved recording go with its time again.
    Unpreserve = "unpreserve" in Recording;
    /// Write a note on a recording.
    NoteAdd = "note-add" in Recording;
    /// Change a note.
    NoteEdit = "note-edit" in Recording;
    /// Delete a note.
    NoteDelete = "note-delete" in Recording;
    /// Change the tags of a recording.
    Tag = "tag" in Recording;

    /// See how the appliance is.
    Status = "status" in Appliance, unaudited;
    /// See what waits, runs or is parked.
    Jobs = "jobs" in Appliance, unaudited;
    /// Drive a job again.
    RetryJob = "retry-job" in Appliance;
    /// See the public keys.
    Keys = "keys" in Appliance, unaudited;
    /// Make a new key.
    RotateKeys = "rotate-keys" in Appliance;
    /// Check that recordings are whole.
    Verify = "verify" in Appliance;
    /// Take no new calls, or take them again.
    Drain = "drain" in Appliance;
    /// Stop recording altogether.
    StopRecording = "stop-recording" in Appliance;
    /// Start it again.
    StartRecording = "start-recording" in Appliance;
    /// See the users.
    Users = "users" in Appliance;
    /// See which calls were not kept.
    Discards = "discards" in Appliance;
    /// Change users.
    ChangeUsers = "change-users" in Appliance;
    /// Change a setting, or confirm what a setting asks to be confirmed.
    Settings = "settings" in Appliance;
    /// See the settings.
    SeeSettings = "see-settings" in Appliance, unaudited;
    /// Send a mail to see whether mails are sent.
    TryMail = "try-mail" in Appliance;
    /// Tell a recording's owner by mail, which the appliance does by itself.
    Mail = "mail" in Appliance;
    /// See what retention would do.
    Retention = "retention" in Appliance, unaudited;
    /// Move archives between stores, or confirm a large deletion.
    ChangeStore = "change-store" in Appliance;
    /// See the tokens.
    Tokens = "tokens" in Appliance;
    /// Make a token.
    CreateToken = "create-token" in Appliance;
    /// Make a token worthless.
    RevokeToken = "revoke-token" in Appliance;
    /// Come with a token; only refusals are in the log.
    SignIn = "sign-in" in Appliance, unaudited;
    /// Take in a recording that was made elsewhere.
    ImportRecording = "import-recording" in Appliance;
    /// Read or check the audit log.
    Audit = "audit" in Appliance;
}

impl Action {
    /// The lowest level that may ever do it, whatever the settings.
    pub fn level_min(self) -> Level {
        match self.scope() {
            Scope::Call => Level::RecordOnly,
            Scope::Recording => Level::Base,
            Scope::Appliance => Level::Administrator,
        }
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
