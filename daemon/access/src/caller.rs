//! Who asks.

use std::fmt;

use callvault_directory::{Level, User};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// By which way somebody came.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Through {
    /// With the control token, which who operates the machine can read.
    Control,
    /// With a token that was made for a program or a person.
    Token,
    /// With a session of the portal, or to begin one.
    Portal,
    /// Nobody came: the appliance does it by itself, by a rule.
    Appliance,
}

impl Through {
    /// Its name in the audit log.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Control => "control",
            Self::Token => "token",
            Self::Portal => "portal",
            Self::Appliance => "appliance",
        }
    }
}

/// Somebody who asks for something, as far as permissions and the audit log need to know. `Debug` shows nothing personal.
#[derive(Clone, PartialEq, Eq)]
pub struct Caller {
    /// What they may do.
    pub level: Level,
    /// Which user they are; none for the operator and for tokens that are nobody's.
    pub user: Option<Uuid>,
    /// The groups whose recordings they may work with besides their own; empty unless they are supervisors. Never a blank one.
    pub groups: Vec<String>,
    /// The user's e-mail, the token's name, or `operator`. Personal: only for the audit log and for themselves.
    pub name: String,
    /// Where they spoke from: an IP address, `unix` for a Unix socket, or empty for the appliance itself.
    pub from: String,
    /// The way by which they came.
    pub through: Through,
    /// The token, or session, that they came with.
    pub token: Option<Uuid>,
}

impl Caller {
    /// Who has the control token: an administrator who is nobody of the directory.
    pub fn operator(from: impl Into<String>) -> Self {
        Self {
            level: Level::Administrator,
            user: None,
            groups: Vec::new(),
            name: "operator".to_owned(),
            from: from.into(),
            through: Through::Control,
            token: None,
        }
    }

    /// The appliance itself, doing what `rule` says, for example `retention`.
    pub fn appliance(rule: impl Into<String>) -> Self {
        Self { name: rule.into(), from: String::new(), through: Through::Appliance, ..Self::operator("") }
    }

    /// `user`, with a token that gives `level` at most. What is changed about the user changes what the token may, at once.
    pub fn of_user(user: &User, level: Level, from: impl Into<String>) -> Self {
        let level = level.min(user.level);
        let user_now = User { level, ..user.clone() };
        let groups = [&user.group].into_iter().chain(&user.supervised_groups);
        Self {
            level,
            user: Some(user.id),
            groups: groups.filter(|group| user_now.supervises(group)).map(|group| group.trim().to_owned()).collect(),
            name: user.webex_email.clone(),
            from: from.into(),
            through: Through::Token,
            token: None,
        }
    }

    /// Somebody before the portal's door, who wants to sign in as the user of that name and may do nothing else.
    pub fn visitor(name: impl Into<String>, from: impl Into<String>) -> Self {
        Self { through: Through::Portal, ..Self::of_token(name, Level::RecordOnly, from) }
    }

    /// A token that belongs to no user: it owns nothing and supervises nothing, so that only an administrator's gives access to
    /// recordings.
    pub fn of_token(name: impl Into<String>, level: Level, from: impl Into<String>) -> Self {
        Self { level, name: name.into(), through: Through::Token, ..Self::operator(from) }
    }

    /// The level that counts: a group supervisor without a group is none.
    pub fn rank(&self) -> Level {
        match self.level {
            Level::GroupSupervisor if self.groups.iter().all(|group| group.trim().is_empty()) => Level::Base,
            level => level,
        }
    }

    /// Whether `group` is one that they supervise. A blank one is nobody's (requirement C4).
    pub fn supervises(&self, group: &str) -> bool {
        let group = group.trim();
        !group.is_empty()
            && self.level >= Level::GroupSupervisor
            && self.groups.iter().any(|own| own.eq_ignore_ascii_case(group))
    }
}

impl fmt::Debug for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Caller")
            .field("level", &self.level)
            .field("user", &self.user)
            .field("through", &self.through)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use callvault_directory::groups_in;

    use super::*;

    #[test]
    fn a_token_gives_no_more_than_its_user_has_and_no_more_than_it_was_made_for() {
        let check = |of_user: Level, of_token: Level, level: Level, groups: &[&str]| {
            let user = User {
                level: of_user,
                group: " Sales ".into(),
                supervised_groups: groups_in("Legal; "),
                ..User::default()
            };
            let caller = Caller::of_user(&user, of_token, "127.0.0.1");
            assert_eq!(
                (caller.level, caller.groups.as_slice()),
                (level, &groups.iter().map(|&g| g.to_owned()).collect::<Vec<_>>()[..])
            );
        };
        check(Level::Base, Level::Administrator, Level::Base, &[]);
        check(Level::Administrator, Level::Base, Level::Base, &[]);
        check(Level::GroupSupervisor, Level::Administrator, Level::GroupSupervisor, &["Sales", "Legal"]);
        check(Level::GroupSupervisor, Level::RecordOnly, Level::RecordOnly, &[]);
    }

    #[test]
    fn nothing_personal_is_in_debug() {
        let user = User { webex_email: "ann@example.com".into(), ..User::default() };
        let text = format!("{:?}", Caller::of_user(&user, Level::Base, "192.0.2.7"));
        assert!(!text.contains("ann") && !text.contains("192"), "{text}");
    }
}
