//! The users, and what was not kept.

use std::collections::BTreeMap;

use callvault_access::{Action, Caller, On};
use callvault_catalogue::Discard;
use callvault_config::LicenceModel;
use callvault_directory::{Directory, FIELDS, Field, FileForm, LineError, Plan, User, read};
use callvault_http::{Answer, ApiError, DiscardsQuery, ErrorKind, UsersImport};
use jiff::Timestamp;
use serde_json::{Value, json};
use uuid::Uuid;

use super::internal;
use crate::appliance::Appliance;

fn unprocessable(text: impl Into<String>) -> ApiError {
    ApiError::new(ErrorKind::Unprocessable, text)
}

/// Every field by its name but the secrets, of which it is only said whether there is one: `has_pin`, `has_initial_password`; and `id`,
/// `display_name`, `removed_at`.
fn user_json(user: &User) -> Value {
    let mut value = serde_json::to_value(user).unwrap_or_default();
    if let Some(fields) = value.as_object_mut() {
        for field in FIELDS.iter().filter(|field| field.is_secret) {
            fields.remove(field.name);
            fields.insert(format!("has_{}", field.name), json!(!field.get(user).is_empty()));
        }
        fields.insert("display_name".to_owned(), json!(user.display_name()));
        fields.insert("removed_at".to_owned(), json!(user.removed_at.map(|at| format!("{at:.3}"))));
    }
    value
}

/// `users`, by e-mail; removed ones only where they are asked for.
pub(super) fn users(appliance: &Appliance, caller: &Caller, with_removed: bool) -> Answer {
    appliance.permit_all(caller, Action::Users)?;
    let directory = appliance.access.people.directory();
    let is_wanted = |user: &&User| with_removed || user.removed_at.is_none();
    let mut users: Vec<&User> = directory.all().iter().map(AsRef::as_ref).filter(is_wanted).collect();
    users.sort_by(|a, b| a.webex_email.cmp(&b.webex_email));
    Ok(json!({"users": users.into_iter().map(user_json).collect::<Vec<_>>()}))
}

/// A user that was removed is found too.
fn known(directory: &Directory, email: &str) -> Option<User> {
    let there = directory.by_email(email).map(|user| User::clone(user));
    let email = email.trim().to_lowercase();
    there.or_else(|| directory.all().iter().find(|user| user.webex_email == email).map(|user| User::clone(user)))
}

fn not_found() -> ApiError {
    ApiError::new(ErrorKind::NotFound, "no user has this e-mail; `callvaultctl users list` shows those that there are")
}

pub(super) fn user(appliance: &Appliance, caller: &Caller, email: &str) -> Answer {
    appliance.permit_all(caller, Action::Users)?;
    known(&appliance.access.people.directory(), email).map(|user| user_json(&user)).ok_or_else(not_found)
}

/// As `GET`, and `changed`: the names of the fields that are different now. A user that is not there is made.
pub(super) fn set_user(
    appliance: &Appliance,
    caller: &Caller,
    email: &str,
    values: &BTreeMap<String, String>,
) -> Answer {
    let entry = appliance.entry(caller, Action::ChangeUsers);
    appliance.allow(caller, Action::ChangeUsers, On::Everything, &entry)?;
    let _changing = appliance.access.people.change();
    let directory = appliance.access.people.directory();
    let before = known(&directory, email);
    let mut after = before.clone().unwrap_or_else(|| User { id: Uuid::now_v7(), ..User::default() });
    after.removed_at = None;
    let key = Field::named("webex_email").ok_or_else(|| internal("find the field of the key"))?;
    key.set(&mut after, email).map_err(unprocessable)?;
    for (name, value) in values {
        let field = Field::named(name).ok_or_else(|| {
            let names: Vec<&str> = FIELDS.iter().map(|field| field.name).collect();
            unprocessable(format!("a user has no such field; there are {}", names.join(", ")))
        })?;
        if field.name == key.name && value.trim().to_lowercase() != after.webex_email {
            let text = "the Webex e-mail is what a user is known by and cannot be changed: make another user, and remove this one";
            return Err(unprocessable(text));
        }
        field.set(&mut after, value).map_err(unprocessable)?;
    }
    let empty = User::default();
    let of = before.as_ref().unwrap_or(&empty);
    let changed = FIELDS.iter().filter(|field| field.get(of) != field.get(&after)).map(|field| field.name);
    let changed: Vec<&str> = changed.collect();
    let comes = before.as_ref().is_none_or(|user| user.removed_at.is_some());
    if comes || !changed.is_empty() {
        check_all(appliance, &directory, std::slice::from_ref(&after))?;
        let entry = entry.with("user", after.id.to_string()).with("fields", changed.join(" "));
        apply(appliance, &directory, vec![after.clone()], &entry)?;
    }
    let mut answer = user_json(&after);
    if let Some(fields) = answer.as_object_mut() {
        fields.insert("changed".to_owned(), json!(changed));
    }
    Ok(answer)
}

/// The user goes; the recordings stay.
pub(super) fn remove_user(appliance: &Appliance, caller: &Caller, email: &str) -> Answer {
    let entry = appliance.entry(caller, Action::ChangeUsers);
    appliance.allow(caller, Action::ChangeUsers, On::Everything, &entry)?;
    let _changing = appliance.access.people.change();
    let directory = appliance.access.people.directory();
    let user = directory.by_email(email).ok_or_else(not_found)?;
    let gone = User { removed_at: Some(Timestamp::now()), ..User::clone(user) };
    let entry = entry.with("user", gone.id.to_string()).with("removed", "yes");
    apply(appliance, &directory, vec![gone.clone()], &entry)?;
    Ok(user_json(&gone))
}

/// `dry_run`, `added`, `changed`, `removed` (lists of `email`, and `fields` of those that changed), and `unchanged`: how many.
pub(super) fn import_users(appliance: &Appliance, caller: &Caller, import: &UsersImport) -> Answer {
    let entry = appliance.entry(caller, Action::ChangeUsers);
    appliance.allow(caller, Action::ChangeUsers, On::Everything, &entry)?;
    let max = appliance.config.directory.import_bytes_max.0;
    if import.file.len() as u64 > max {
        return Err(unprocessable(format!("the file has more than {max} bytes, which is directory.import_bytes_max")));
    }
    let form = if import.is_toml { FileForm::Toml } else { FileForm::Csv };
    let imported = read(form, &import.file).map_err(|errors| unprocessable(told(&errors)))?;
    let _changing = appliance.access.people.change();
    let directory = appliance.access.people.directory();
    let before: Vec<User> = directory.all().iter().map(|user| User::clone(user)).collect();
    let plan = Plan::of(&before, &imported, import.removes_missing, entry.at, Uuid::now_v7);
    let counts = plan.counts();
    if plan.removes_many() && !import.removes_many && !import.is_dry_run {
        let text = format!(
            "this file would remove {} of {} users; look with --dry-run whether it is the right file, and add --remove-many if it is",
            counts.removed,
            directory.len()
        );
        return Err(ApiError::new(ErrorKind::Conflict, text));
    }
    let emails = |users: &[User]| users.iter().map(|user| json!({"email": user.webex_email})).collect::<Vec<_>>();
    let changed = plan.changed.iter().map(|(user, fields)| json!({"email": user.webex_email, "fields": fields}));
    let answer = json!({
        "dry_run": import.is_dry_run, "added": emails(&plan.added), "changed": changed.collect::<Vec<_>>(),
        "removed": emails(&plan.removed), "unchanged": counts.unchanged,
    });
    let users = plan.into_users();
    check_all(appliance, &directory, &users)?;
    if !import.is_dry_run && !users.is_empty() {
        let entry = entry
            .with("added", counts.added.to_string())
            .with("changed", counts.changed.to_string())
            .with("removed", counts.removed.to_string());
        apply(appliance, &directory, users, &entry)?;
    }
    Ok(answer)
}

/// Everything that is wrong with a file, a line each.
fn told(errors: &[LineError]) -> String {
    let lines = errors.iter().map(|LineError { line, text }| match line {
        0 => text.clone(),
        line => format!("line {line}: {text}"),
    });
    format!("nothing was changed. {}", lines.collect::<Vec<_>>().join("; "))
}

/// All users as they are after a change.
fn merged(directory: &Directory, changed: &[User]) -> Vec<User> {
    let mut all: BTreeMap<Uuid, User> = directory.all().iter().map(|user| (user.id, User::clone(user))).collect();
    all.extend(changed.iter().map(|user| (user.id, user.clone())));
    all.into_values().collect()
}

/// Whether the users may be so all together.
fn check_all(appliance: &Appliance, directory: &Directory, changed: &[User]) -> Result<(), ApiError> {
    let after = merged(directory, changed);
    let catch_alls = after.iter().filter(|user| user.catch_all && user.removed_at.is_none()).count();
    if catch_alls > 1 {
        let text = "more than one user would be the catch-all; first set catch_all=no for the one that is";
        return Err(ApiError::new(ErrorKind::Conflict, text));
    }
    let licence = &appliance.config.licence;
    let (count, max) = (Appliance::licensed_users(&after), licence.users_max as usize);
    let before = Appliance::licensed_users(directory.all().iter().map(AsRef::as_ref));
    if licence.model == LicenceModel::Users && count > max && count > before {
        let text = format!(
            "there would be {count} users whose calls are recorded, and licence.users_max is {max}: raise it, remove users, or set their recording_mode to never"
        );
        return Err(ApiError::new(ErrorKind::Conflict, text));
    }
    Ok(())
}

/// Into the catalogue, then before everybody's eyes.
fn apply(
    appliance: &Appliance,
    directory: &Directory,
    users: Vec<User>,
    entry: &callvault_access::audit::Entry,
) -> Result<(), ApiError> {
    appliance.catalogue.put_users(&users, entry).map_err(internal)?;
    appliance.access.people.set(merged(directory, &users));
    tracing::info!(users = users.len(), "users were changed");
    Ok(())
}

/// `discards`, the newest first: `id`, `at`, `rule`, `owner`, `direction`, `traffic`, `local_number`, `remote_number`.
pub(super) fn discards(appliance: &Appliance, caller: &Caller, query: &DiscardsQuery) -> Answer {
    appliance.permit_all(caller, Action::Discards)?;
    let found = appliance.catalogue.discards(query.rule.as_deref(), query.limit).map_err(internal)?;
    let json = |discard: Discard| {
        json!({
            "id": discard.id, "at": format!("{:.3}", discard.at), "rule": discard.rule, "owner": discard.owner,
            "direction": discard.direction.as_str(), "traffic": discard.traffic.as_str(),
            "local_number": discard.local_number, "remote_number": discard.remote_number,
        })
    };
    Ok(json!({"discards": found.into_iter().map(json).collect::<Vec<_>>()}))
}
