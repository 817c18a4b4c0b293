//! A user, field by field.

use std::{fmt, str::FromStr};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// What a user may do, each level what those before it may and more. The order is that of the hierarchy: who preserved a recording or
/// wrote a note at a higher level is not overruled by a lower one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Level {
    /// Starts, stops, pauses and resumes the recording of own calls; sees no recording.
    RecordOnly,
    /// Own recordings.
    #[default]
    Base,
    /// Those of the own group and of the additional groups; without a group of one's own, no more than [`Level::Base`].
    GroupSupervisor,
    /// All recordings, all settings.
    Administrator,
}

impl Level {
    /// All of them, lowest first.
    pub const ALL: [Self; 4] = [Self::RecordOnly, Self::Base, Self::GroupSupervisor, Self::Administrator];

    /// Its name in files, in JSON and on the command line.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::RecordOnly => "record-only",
            Self::Base => "base",
            Self::GroupSupervisor => "group-supervisor",
            Self::Administrator => "administrator",
        }
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Level {
    type Err = ();
    fn from_str(text: &str) -> Result<Self, ()> {
        Self::ALL.into_iter().find(|level| level.as_str() == text).ok_or(())
    }
}

/// When a user's calls are recorded and kept. Webex has these modes for each of its users and decides by them which sessions it
/// opens; for clients that send everything they are set here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RecordingMode {
    /// All calls.
    Always,
    /// All calls, and the user may pause and resume.
    AlwaysWithPause,
    /// Recorded from the call's start, kept only when asked for.
    OnDemand,
    /// Recorded from when the user starts it.
    OnDemandUserStart,
    /// None.
    Never,
}

impl RecordingMode {
    /// All of them.
    pub const ALL: [Self; 5] =
        [Self::Always, Self::AlwaysWithPause, Self::OnDemand, Self::OnDemandUserStart, Self::Never];

    /// Its name in files, in JSON and on the command line.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Always => "always",
            Self::AlwaysWithPause => "always-with-pause",
            Self::OnDemand => "on-demand",
            Self::OnDemandUserStart => "on-demand-user-start",
            Self::Never => "never",
        }
    }
}

impl FromStr for RecordingMode {
    type Err = ();
    fn from_str(text: &str) -> Result<Self, ()> {
        Self::ALL.into_iter().find(|mode| mode.as_str() == text).ok_or(())
    }
}

/// A user. Almost all of it is personal data: `Debug` shows the id alone.
///
/// The Webex e-mail is the key by which files and Webex name a user; two users never have the same, but for case. The id is ours,
/// and never given again: an e-mail that changed is another user (the recordings of the first stay with it).
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct User {
    /// Ours, a UUIDv7.
    pub id: Uuid,
    /// The key: the Webex e-mail, in lower case.
    pub webex_email: String,
    /// The half of the e-mail before the `@`, unless set.
    pub user_name: String,
    /// The half after it, unless set.
    pub domain: String,
    /// Given name.
    pub first_name: String,
    /// Family name.
    pub last_name: String,
    /// BCP 47, for example `en` or `it`.
    pub preferred_language: String,
    /// Digits for telephone sign-in; never shown.
    pub pin: String,
    /// To be changed at the first sign-in; never shown. Empty when it was.
    pub initial_password: String,
    /// E.164 where there is one, else the extension.
    pub first_extension: String,
    /// Another number or name by which SIPREC clients may call the user.
    pub extension_alias: String,
    /// The client's id of the user: BroadWorks' user id, which Webex's interface calls the external identifier.
    pub device_name: String,
    /// As `device_name`, for the device that the user prefers.
    pub preferred_device_name: String,
    /// Where mail goes; the Webex e-mail unless set.
    pub email: String,
    /// Department.
    pub department: String,
    /// Cost centre.
    pub cost_centre: String,
    /// Office location.
    pub office_location: String,
    /// Presence URI.
    pub presence_uri: String,
    /// Microsoft URI.
    pub microsoft_uri: String,
    /// Webex URI.
    pub webex_uri: String,
    /// The picture, PNG, JPEG or BMP; empty where there is none. Kept apart by the catalogue.
    #[serde(skip)]
    pub picture: Vec<u8>,
    /// The group; blank: the user's recordings are seen by the user and administrators alone.
    pub group: String,
    /// Groups that a group supervisor supervises besides the own one.
    pub supervised_groups: Vec<String>,
    /// Whether a mail tells of each recording.
    pub notify: bool,
    /// Whether that mail has the audio with it.
    pub attach: bool,
    /// What the user may do.
    pub level: Level,
    /// When the user's calls are kept; the setting for all users where it is not said.
    pub recording_mode: Option<RecordingMode>,
    /// Numeric user id of the telephone system, for those who migrate.
    pub numeric_user_id: Option<u64>,
    /// Partition id of the telephone system, for those who migrate.
    pub partition_id: Option<u64>,
    /// Owns what nobody else owns; one user at most, and never a named person's account.
    pub catch_all: bool,
    /// When the user was removed: nothing is matched to it any more, its recordings stay.
    pub removed_at: Option<Timestamp>,
}

impl User {
    /// First and last name, or the Webex e-mail where there is none.
    pub fn display_name(&self) -> String {
        let name = format!("{} {}", self.first_name, self.last_name);
        match name.trim() {
            "" => self.webex_email.clone(),
            name => name.to_owned(),
        }
    }

    /// Where mail for this user goes.
    pub fn mail_address(&self) -> &str {
        if self.email.is_empty() { &self.webex_email } else { &self.email }
    }

    /// Whether this user supervises `group`: not a blank one, and nobody without a group of their own (requirement C1).
    pub fn supervises(&self, group: &str) -> bool {
        let same = |own: &str| !own.trim().is_empty() && own.trim().eq_ignore_ascii_case(group.trim());
        self.level >= Level::GroupSupervisor
            && !self.group.trim().is_empty()
            && (same(&self.group) || self.supervised_groups.iter().any(|own| same(own)))
    }
}

impl fmt::Debug for User {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("User").field("id", &self.id).field("level", &self.level).finish_non_exhaustive()
    }
}

/// The groups of a semicolon-separated list, without blanks around them and without empty ones.
pub fn groups_in(list: &str) -> Vec<String> {
    list.split(';').map(str::trim).filter(|group| !group.is_empty()).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_supervises_a_group() {
        fn check(level: Level, own: &str, additional: &str, group: &str, expected: bool) {
            let user = User { level, group: own.into(), supervised_groups: groups_in(additional), ..User::default() };
            assert_eq!(user.supervises(group), expected, "{level} {own:?} {additional:?} {group:?}");
        }
        check(Level::GroupSupervisor, "Sales", "", "sales", true);
        check(Level::GroupSupervisor, "Sales", "", " Sales ", true);
        check(Level::GroupSupervisor, "Sales", "Support; Legal;", "Legal", true);
        check(Level::GroupSupervisor, "Sales", "Support", "Legal", false);
        check(Level::GroupSupervisor, "", "Support", "Support", false);
        check(Level::GroupSupervisor, "Sales", " ; ", "", false);
        check(Level::GroupSupervisor, " ", "", "", false);
        check(Level::Base, "Sales", "Support", "Sales", false);
        check(Level::Administrator, "Sales", "", "Sales", true);
    }

    #[test]
    fn names_are_read_as_they_are_written() {
        for level in Level::ALL {
            assert_eq!(level.as_str().parse(), Ok(level));
            assert_eq!(serde_json::to_value(level).unwrap(), level.as_str());
        }
        for mode in RecordingMode::ALL {
            assert_eq!(mode.as_str().parse(), Ok(mode));
            assert_eq!(serde_json::to_value(mode).unwrap(), mode.as_str());
        }
    }

    #[test]
    fn nothing_personal_is_in_debug() {
        let user = User { webex_email: "ann@example.com".into(), pin: "1234".into(), ..User::default() };
        let text = format!("{user:?}");
        assert!(!text.contains("ann") && !text.contains("1234"), "{text}");
    }
}
