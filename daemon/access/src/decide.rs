//! The one place that decides who may do what (requirements C1 to C4).

use std::fmt;

use callvault_directory::{Level, User};
use uuid::Uuid;

use crate::{Action, Caller, Scope, Visible};

/// To whom something is open that the organisation decides about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum WhoMay {
    /// Nobody at all.
    Nobody,
    /// Administrators.
    Administrators,
    /// Group supervisors and above.
    GroupSupervisors,
    /// Everybody who may see the recording.
    Users,
}

impl WhoMay {
    /// The lowest level that may; none: nobody.
    fn level_min(self) -> Option<Level> {
        match self {
            Self::Nobody => None,
            Self::Administrators => Some(Level::Administrator),
            Self::GroupSupervisors => Some(Level::GroupSupervisor),
            Self::Users => Some(Level::Base),
        }
    }
}

/// The settings that decide.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Permissions {
    /// `permissions.delete`.
    pub delete: WhoMay,
    /// That `permissions.delete` was once `nobody-irreversibly`. It wins over `delete`.
    pub never_delete: bool,
    /// `permissions.download`, for files and exports.
    pub download: WhoMay,
    /// `permissions.preserve`.
    pub preserve: WhoMay,
}

/// What of a recording, or of a live call, decides who may work with it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Owned<'a> {
    /// The user that it belongs to; none: administrators alone see it.
    pub owner: Option<Uuid>,
    /// The group that its owner is in now; of a removed user the one that they were in last. Blank: none.
    pub group: &'a str,
    /// The level of who preserved it, if anybody did.
    pub preserved_by: Option<Level>,
}

impl<'a> Owned<'a> {
    /// What belongs to `owner` (as the directory has them, removed or not).
    pub fn by(owner: Option<&'a User>) -> Self {
        Self {
            owner: owner.map(|user| user.id),
            group: owner.map_or("", |user| user.group.as_str()),
            preserved_by: None,
        }
    }
}

/// What something is done to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum On<'a> {
    /// The appliance, or whatever of recordings the caller may see.
    Everything,
    /// A recording or a live call.
    One(Owned<'a>),
    /// A note on a recording, with the level of who wrote it.
    Note(Owned<'a>, Level),
}

/// Why somebody may not, and what then. Nothing personal is in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// Which rule refused: a stable word for the audit log.
    pub rule: &'static str,
    /// Who may, fit after "only" or as "nobody …".
    pub who_may: String,
    /// What to do instead.
    pub what_to_do: &'static str,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { who_may, what_to_do, .. } = self;
        write!(f, "this is not yours to do: {who_may} may; {what_to_do}")
    }
}

impl std::error::Error for Refusal {}

fn refusal(rule: &'static str, who_may: impl Into<String>, what_to_do: &'static str) -> Refusal {
    Refusal { rule, who_may: who_may.into(), what_to_do }
}

const ASK_ADMINISTRATOR: &str = "ask an administrator";

/// Whether `caller` may do `action` on `on`.
///
/// # Errors
/// [`Refusal`]: who may, and what to do.
pub fn decide(caller: &Caller, action: Action, on: On<'_>, settings: &Permissions) -> Result<(), Refusal> {
    level(caller, action)?;
    // What nobody may is said before whose it is: to be somebody else would not help.
    setting(caller, action, settings)?;
    match on {
        // Without a word of which recording, only what concerns all that one may see.
        On::Everything if action.scope() == Scope::Appliance || is_of_many(action) => Ok(()),
        On::Everything => whose(caller, action, &Owned::default()),
        On::One(owned) => {
            whose(caller, action, &owned)?;
            preserved(caller, action, &owned)
        }
        On::Note(owned, written_by) => {
            whose(caller, action, &owned)?;
            preserved(caller, action, &owned)?;
            note(caller, action, written_by)
        }
    }
}

/// Which recordings `caller` may find. `users` are all that the directory has, those that were removed among them, whose recordings
/// are still their group's.
pub fn visible<'a>(caller: &Caller, users: impl IntoIterator<Item = &'a User>) -> Visible {
    match caller.rank() {
        Level::Administrator => Visible::All,
        Level::RecordOnly => Visible::nothing(),
        Level::Base => Visible::Of(caller.user.into_iter().collect()),
        Level::GroupSupervisor => {
            let of_groups = users.into_iter().filter(|user| caller.supervises(&user.group)).map(|user| user.id);
            Visible::Of(caller.user.into_iter().chain(of_groups).collect())
        }
    }
}

/// Whether `caller` may undo what somebody of the level `by` did: preserve, or write a note (requirement C3).
pub fn outranks(caller: &Caller, by: Level) -> bool {
    caller.rank() >= by
}

fn is_of_many(action: Action) -> bool {
    matches!(action, Action::Search | Action::SeeCalls | Action::Export)
}

fn level(caller: &Caller, action: Action) -> Result<(), Refusal> {
    if caller.rank() >= action.level_min() {
        return Ok(());
    }
    Err(match action.scope() {
        Scope::Appliance => refusal("level", "only an administrator", ASK_ADMINISTRATOR),
        _ => refusal(
            "record-only",
            "only somebody whose permission level is base or higher",
            "ask an administrator for another permission level",
        ),
    })
}

fn setting(caller: &Caller, action: Action, settings: &Permissions) -> Result<(), Refusal> {
    let (who, key) = match action {
        Action::Delete if settings.never_delete => {
            let what_to_do = "deleting by hand was switched off for ever (permissions.delete = \"nobody-irreversibly\"); retention deletes when the time has come";
            return Err(refusal("delete-never", "nobody, now or ever,", what_to_do));
        }
        Action::Delete => (settings.delete, "permissions.delete"),
        Action::Download | Action::Export => (settings.download, "permissions.download"),
        Action::Preserve | Action::Unpreserve => (settings.preserve, "permissions.preserve"),
        _ => return Ok(()),
    };
    let change = match key {
        "permissions.delete" => "the setting permissions.delete says who; retention deletes when the time has come",
        "permissions.download" => "the setting permissions.download says who; recordings can be played",
        _ => "the setting permissions.preserve says who",
    };
    let who_may = match who.level_min() {
        Some(least) if caller.rank() >= least => return Ok(()),
        None => "nobody",
        Some(Level::GroupSupervisor) => "only a group supervisor or an administrator",
        Some(_) => "only an administrator",
    };
    Err(refusal("setting", who_may, change))
}

fn whose(caller: &Caller, action: Action, owned: &Owned<'_>) -> Result<(), Refusal> {
    let is_own = owned.owner.is_some() && owned.owner == caller.user;
    if caller.rank() == Level::Administrator || is_own || owned.owner.is_some() && caller.supervises(owned.group) {
        return Ok(());
    }
    let what = if action.scope() == Scope::Call { "call" } else { "recording" };
    Err(match (owned.owner, owned.group.trim()) {
        (None, _) => refusal("unowned", format!("only an administrator (this {what} is no user's)"), ASK_ADMINISTRATOR),
        (_, "") => refusal(
            "not-own",
            format!("only its owner or an administrator (the owner of this {what} is in no group)"),
            ASK_ADMINISTRATOR,
        ),
        _ => refusal(
            "not-own",
            "only its owner, a supervisor of the owner's group or an administrator",
            "ask one of them",
        ),
    })
}

fn preserved(caller: &Caller, action: Action, owned: &Owned<'_>) -> Result<(), Refusal> {
    match owned.preserved_by {
        Some(by) if matches!(action, Action::Delete | Action::Unpreserve) && !outranks(caller, by) => Err(refusal(
            "preserved-higher",
            format!("only somebody of the permission level {by} or higher, by whom it was preserved,"),
            "ask one of them to let it go first",
        )),
        _ => Ok(()),
    }
}

fn note(caller: &Caller, action: Action, written_by: Level) -> Result<(), Refusal> {
    if !matches!(action, Action::NoteEdit | Action::NoteDelete) || outranks(caller, written_by) {
        return Ok(());
    }
    Err(refusal(
        "note-higher",
        format!("only somebody of the permission level {written_by} or higher, by whom it was written,"),
        "write a note of your own",
    ))
}
