//! What a synchronisation would do, before it is done: with guards, and for each person left out the reason.

use std::collections::{BTreeMap, BTreeSet};

use callvault_directory::{Field, Plan, User};
use jiff::Timestamp;
use uuid::Uuid;

use crate::completeness::is_ours;
use crate::person::{Gathered, Kind, Person};
use crate::rules::{Rule, Rules, value};

/// How it is synchronised.
#[derive(Debug, Clone, Default)]
pub struct SyncSettings {
    /// The table.
    pub rules: Rules,
    /// Put before numbers that have no `+`, one to three digits, or none.
    pub country_code: String,
    /// Only people with Webex Calling, which is who has a location.
    pub calling_only: bool,
    /// Only people of locations with these names; all when empty.
    pub locations: Vec<String>,
    /// Names of the recording platform by which Webex knows this appliance; when empty, every one but Webex's own.
    pub platforms: Vec<String>,
    /// An administrator has seen how many go, and means it.
    pub confirmed: bool,
}

/// Somebody whom Webex records for this appliance, and who is no user of it. `Debug` shows no personal data.
#[derive(Clone, PartialEq, Eq)]
pub struct Unknown {
    /// The e-mail, or what stands for it.
    pub address: String,
    /// The name, as it is shown.
    pub name: String,
    /// What it is.
    pub kind: Kind,
    /// Why it is no user.
    pub reason: &'static str,
}

impl std::fmt::Debug for Unknown {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Unknown").field("kind", &self.kind).field("reason", &self.reason).finish_non_exhaustive()
    }
}

/// Why nothing is done. The texts are for an administrator.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SyncError {
    /// Nobody came.
    #[error(
        "Webex named no user that is to be synchronised, while {known} are known: check the filters and the organisation; nothing was changed"
    )]
    Nobody {
        /// Users known from Webex.
        known: usize,
    },
    /// Unusually many would go.
    #[error(
        "{removed} of {known} users would be removed: look at `callvaultctl users sync --dry-run`, and confirm if it is meant; nothing was changed"
    )]
    ManyRemoved {
        /// Those that would go.
        removed: usize,
        /// Users known from Webex.
        known: usize,
    },
}

/// What would be done. `Debug` shows no personal data.
#[derive(Clone, Default)]
pub struct SyncPlan {
    /// Changes of users.
    pub plan: Plan,
    /// People left out, by reason.
    pub left_out: BTreeMap<&'static str, usize>,
    /// Values that a field does not take, by field; what was there stays.
    pub not_taken: BTreeMap<&'static str, usize>,
    /// Addresses of pictures to look at.
    pub pictures: Vec<(Uuid, String)>,
    /// Users known from Webex afterwards: the only ones that a later synchronisation may remove.
    pub synchronised: BTreeSet<Uuid>,
    /// Who is recorded at Webex and unknown here, as far as it was read how people are recorded.
    pub unknown: Vec<Unknown>,
    /// The reverse: users from Webex whose calls do not come here, and why.
    pub unrecorded: Vec<(Uuid, &'static str)>,
}

impl std::fmt::Debug for SyncPlan {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut shown = f.debug_struct("SyncPlan");
        shown.field("plan", &self.plan).field("left_out", &self.left_out).field("not_taken", &self.not_taken);
        shown.field("pictures", &self.pictures.len()).finish_non_exhaustive()
    }
}

/// Plans what `gathered`, which has to be whole, does to `users`, removed ones among them. Of those only the ones in `synchronised`,
/// which came from Webex before, are removed; who was made by hand or from a file stays. `new_id` gives ids.
///
/// # Errors
/// When a guard says no.
pub fn plan(
    users: &[User],
    synchronised: &BTreeSet<Uuid>,
    gathered: &Gathered,
    settings: &SyncSettings,
    now: Timestamp,
    mut new_id: impl FnMut() -> Uuid,
) -> Result<SyncPlan, SyncError> {
    let mut left: BTreeMap<&str, &User> = BTreeMap::new();
    for user in users {
        // One that is there goes before one that was removed.
        let known = left.entry(&user.webex_email).or_insert(user);
        if known.removed_at.is_some() {
            *known = user;
        }
    }
    let is_known = |user: &&User| user.removed_at.is_none() && synchronised.contains(&user.id) && !user.catch_all;
    let known = users.iter().filter(is_known).count();
    let (mut made, mut named) = (SyncPlan::default(), BTreeSet::new());
    for person in &gathered.people {
        let email = person.address();
        let taken = || named.contains(&email).then_some("another person has the e-mail");
        let unrecorded = unrecorded(person, gathered, settings);
        if let Some(reason) = left_out(person, &email, gathered, settings).or_else(taken) {
            *made.left_out.entry(reason).or_default() += 1;
            if unrecorded == Some(None) {
                let names = [&person.first_name, &person.last_name].map(|name| name.as_deref().unwrap_or_default());
                let name = names.join(" ").trim().to_owned();
                made.unknown.push(Unknown { address: email, name, kind: person.kind, reason });
            }
            continue;
        }
        named.insert(email.clone());
        let before = left.remove(email.as_str());
        let is_new = before.is_none();
        let base = before.cloned().unwrap_or_else(|| User { id: new_id(), webex_email: email, ..User::default() });
        let after = made.ruled(User { removed_at: None, ..base }, is_new, person, gathered, settings);
        made.synchronised.insert(after.id);
        made.unrecorded.extend(unrecorded.flatten().map(|reason| (after.id, reason)));
        match before {
            Some(before) if before.removed_at.is_none() => made.plan.change(before, after),
            _ => made.plan.added.push(after),
        }
    }
    if named.is_empty() && known > 0 {
        return Err(SyncError::Nobody { known });
    }
    for user in left.into_values().filter(|user| user.removed_at.is_none()) {
        if is_known(&user) {
            made.plan.removed.push(User { removed_at: Some(now), ..user.clone() });
        } else {
            made.plan.unchanged += 1;
        }
    }
    let removed = made.plan.removed.len();
    if made.removes_many(known) && !settings.confirmed {
        return Err(SyncError::ManyRemoved { removed, known });
    }
    Ok(made)
}

/// Users that may go without a question, whatever the share.
const REMOVED_FREELY: usize = 5;

/// Fields with which people sign in.
const SECRETS: [&str; 2] = ["pin", "initial_password"];

/// The share of those known from Webex, in hundredths, that may go beyond that.
const REMOVED_PERCENT_MAX: usize = 10;

/// Why somebody's calls do not come here, none where they do; nothing where it is not known.
fn unrecorded(person: &Person, gathered: &Gathered, settings: &SyncSettings) -> Option<Option<&'static str>> {
    let recording = gathered.recording.get(&person.id)?;
    let platform = person.location_id.as_ref().and_then(|id| gathered.platforms.get(id));
    Some(if !recording.is_recording() {
        Some("recording is off in Webex")
    } else if platform.is_some_and(|platform| !is_ours(&settings.platforms, platform)) {
        Some("another platform records")
    } else {
        None
    })
}

/// Why somebody is not a user here; none for who is.
fn left_out(person: &Person, email: &str, gathered: &Gathered, settings: &SyncSettings) -> Option<&'static str> {
    let is_person = person.r#type.as_deref().is_none_or(|kind| kind.eq_ignore_ascii_case("person"));
    let location = person.location_id.as_ref().and_then(|id| gathered.locations.get(id));
    let is_there =
        || location.is_some_and(|name| settings.locations.iter().any(|wanted| wanted.eq_ignore_ascii_case(name)));
    if !is_person {
        Some("not a person")
    } else if Field::named("webex_email").is_none_or(|field| field.set(&mut User::default(), email).is_err()) {
        Some("no e-mail")
    } else if settings.calling_only && person.location_id.is_none() {
        Some("no Webex Calling")
    } else if !settings.locations.is_empty() && !is_there() {
        Some("another location")
    } else {
        None
    }
}

impl SyncPlan {
    /// Of the users known from Webex alone: those made by hand do not make a large share smaller.
    fn removes_many(&self, known: usize) -> bool {
        let removed = self.plan.removed.len();
        removed > REMOVED_FREELY && removed * 100 > known * REMOVED_PERCENT_MAX
    }

    fn ruled(
        &mut self,
        mut user: User,
        is_new: bool,
        person: &Person,
        gathered: &Gathered,
        settings: &SyncSettings,
    ) -> User {
        for (name, rule) in settings.rules.iter() {
            let told = match rule {
                Rule::Keep => None,
                // A place does not sign in.
                Rule::WhenAdding(_) if person.kind != Kind::Person && SECRETS.contains(&name) => None,
                Rule::WhenAdding(value) => is_new.then(|| value.clone()),
                Rule::EveryTime(sources) => value(sources, person, gathered, &settings.country_code),
            };
            let Some(told) = told else { continue };
            let Some(field) = Field::named(name) else {
                // The picture is the one that is no field: it is fetched and looked at first.
                if !told.is_empty() {
                    self.pictures.push((user.id, told));
                }
                continue;
            };
            let mut changed = user.clone();
            match field.set(&mut changed, &told) {
                Ok(()) => user = changed,
                Err(_) => *self.not_taken.entry(field.name).or_default() += 1,
            }
        }
        user
    }
}
