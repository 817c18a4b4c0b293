//! Users: what there is, imports, changes.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use callvault_access::{Action, Caller, On};
use callvault_catalogue::Discard;
use callvault_config::LicenceModel;
use callvault_directory::{FIELDS, Field, FileForm, PictureForm, Plan, User, read};
use callvault_http::{Answer, ApiError, DiscardsQuery, ErrorKind, UserImport};
use jiff::Timestamp;
use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::internal;
use crate::appliance::Appliance;

fn user_json(user: &User) -> Value {
    let mut fields: Map<String, Value> = FIELDS
        .iter()
        .filter(|field| !field.is_secret)
        .map(|field| (field.name.to_owned(), json!(field.get(user))))
        .collect();
    fields.insert("id".to_owned(), json!(user.id));
    fields.insert("name".to_owned(), json!(user.display_name()));
    fields.insert("removed_at".to_owned(), json!(user.removed_at.map(|at| format!("{at:.3}"))));
    Value::Object(fields)
}

/// `users`: each with its fields by their names in files, `id`, `name`, and `removed_at` or null. PIN and initial password are never shown.
pub(super) fn users(appliance: &Appliance, caller: &Caller) -> Answer {
    appliance.permit_all(caller, Action::Users)?;
    let directory = appliance.access.people.now();
    let users = directory.all().iter().filter(|user| user.removed_at.is_none());
    Ok(json!({"users": users.map(|user| user_json(user)).collect::<Vec<_>>()}))
}

fn unknown(email: &str) -> ApiError {
    let text = format!("there is no user {email}; `callvaultctl users list` shows those that there are");
    ApiError::new(ErrorKind::NotFound, text)
}

pub(super) fn user(appliance: &Appliance, caller: &Caller, email: &str) -> Answer {
    appliance.permit_all(caller, Action::Users)?;
    appliance.access.people.by_email(email).map(|user| user_json(&user)).ok_or_else(|| unknown(email))
}

/// `dry_run`, `added`, `changed`, `removed` (numbers), `unchanged`, and `changes`: of each user `webex_email`, `change` (`added`, `changed`,
/// `removed`) and `fields`, those that change. What is wrong with the file is in the error, line by line.
pub(super) fn import(appliance: &Appliance, caller: &Caller, wanted: &UserImport) -> Answer {
    let entry = appliance.entry(caller, Action::ChangeUsers).with("file", &wanted.name);
    appliance.allow(caller, Action::ChangeUsers, On::Everything, &entry)?;
    let form = match wanted.name.rsplit_once('.').map(|(_, ending)| ending.to_ascii_lowercase()).as_deref() {
        Some("toml") => FileForm::Toml,
        Some("csv" | "txt") => FileForm::Csv,
        _ => {
            let text = "users are imported from a .csv or a .toml file; give the file one of these endings";
            return Err(ApiError::new(ErrorKind::BadRequest, text));
        }
    };
    let imported = read(form, &wanted.content).map_err(|errors| {
        let lines = errors.iter().map(|error| match error.line {
            0 => error.text.clone(),
            line => format!("line {line}: {}", error.text),
        });
        let lines: Vec<String> = lines.collect();
        ApiError::new(ErrorKind::Unprocessable, format!("nothing was imported: {}", lines.join("; ")))
    })?;
    let _one_at_a_time = appliance.access.changing_users();
    let users: Vec<User> = appliance.access.people.now().all().iter().map(|user| User::clone(user)).collect();
    let plan = Plan::of(&users, &imported, wanted.removes_missing, Timestamp::now(), Uuid::now_v7);
    let counts = plan.counts();
    if plan.removes_many() && !wanted.is_confirmed && !wanted.is_dry_run {
        let text = format!(
            "nothing was imported: {} of {} users would be removed, which are unusually many; look at --dry-run, and say --confirm when that is meant",
            counts.removed,
            counts.removed + counts.changed + counts.unchanged
        );
        return Err(ApiError::new(ErrorKind::Conflict, text));
    }
    if plan.catch_alls(&users) > 1 {
        let text = "nothing was imported: there can be only one catch-all user; set catch_all to no for the others";
        return Err(ApiError::new(ErrorKind::Unprocessable, text));
    }
    check_licence(appliance, &users, &plan.clone().into_users())?;
    let mut changes = Vec::new();
    let mut tell = |user: &User, change: &str, fields: &[&str]| {
        changes.push(json!({"webex_email": user.webex_email, "change": change, "fields": fields}));
    };
    plan.added.iter().for_each(|user| tell(user, "added", &[]));
    plan.changed.iter().for_each(|(user, fields)| tell(user, "changed", fields));
    plan.removed.iter().for_each(|user| tell(user, "removed", &[]));
    if !wanted.is_dry_run {
        let entry = entry
            .with("added", counts.added.to_string())
            .with("changed", counts.changed.to_string())
            .with("removed", counts.removed.to_string());
        keep(appliance, plan.into_users(), users, &entry)?;
        tracing::info!(added = counts.added, changed = counts.changed, removed = counts.removed, "users were imported");
    }
    Ok(json!({
        "dry_run": wanted.is_dry_run, "added": counts.added, "changed": counts.changed, "removed": counts.removed,
        "unchanged": counts.unchanged, "changes": changes,
    }))
}

/// Keeps those that changed, and lets everybody see them.
fn keep(
    appliance: &Appliance,
    changed: Vec<User>,
    users: Vec<User>,
    entry: &callvault_access::audit::Entry,
) -> Result<(), ApiError> {
    appliance.catalogue.put_users(&changed, entry).map_err(internal)?;
    in_place(appliance, changed, users);
    Ok(())
}

/// Lets everybody see users that were kept, among those that there were.
pub(crate) fn in_place(appliance: &Appliance, changed: Vec<User>, mut users: Vec<User>) {
    let ids: std::collections::BTreeSet<Uuid> = changed.iter().map(|user| user.id).collect();
    users.retain(|user| !ids.contains(&user.id));
    users.extend(changed);
    appliance.access.people.set(users);
}

/// As one user of the list. A user that is not there is made.
pub(super) fn set(appliance: &Appliance, caller: &Caller, email: &str, fields: &[(String, String)]) -> Answer {
    let names: Vec<&str> = fields.iter().map(|(name, _)| name.as_str()).collect();
    let entry = appliance.entry(caller, Action::ChangeUsers).with("user", email).with("fields", names.join(","));
    appliance.allow(caller, Action::ChangeUsers, On::Everything, &entry)?;
    let bad = |text: String| ApiError::new(ErrorKind::Unprocessable, text);
    let _one_at_a_time = appliance.access.changing_users();
    let directory = appliance.access.people.now();
    // Who comes back is who it was.
    let removed = || directory.all().iter().find(|user| user.webex_email.eq_ignore_ascii_case(email.trim()));
    let mut user = match directory.by_email(email).or_else(removed) {
        Some(user) => User { removed_at: None, ..User::clone(user) },
        None => {
            let mut user = User { id: Uuid::now_v7(), ..User::default() };
            let key = Field::named("webex_email").ok_or_else(|| bad("there is no such field".to_owned()))?;
            key.set(&mut user, email).map_err(bad)?;
            user
        }
    };
    for (name, value) in fields {
        let known: Vec<&str> = FIELDS.iter().map(|field| field.name).collect();
        let field = Field::named(name)
            .ok_or_else(|| bad(format!("there is no field {name:?}; there are {}", known.join(", "))))?;
        if field.name == "webex_email" {
            return Err(bad(
                "the Webex e-mail names the user and cannot be changed: another one is another user".to_owned()
            ));
        }
        field.set(&mut user, value).map_err(bad)?;
    }
    let users: Vec<User> = directory.all().iter().map(|user| User::clone(user)).collect();
    if user.catch_all && users.iter().any(|other| other.catch_all && other.id != user.id && other.removed_at.is_none())
    {
        return Err(bad("there can be only one catch-all user".to_owned()));
    }
    check_licence(appliance, &users, std::slice::from_ref(&user))?;
    keep(appliance, vec![user.clone()], users, &entry)?;
    Ok(user_json(&user))
}

/// `type`, `bytes` and `base64`.
pub(super) fn picture(appliance: &Appliance, caller: &Caller, email: &str) -> Answer {
    appliance.permit_all(caller, Action::Users)?;
    let user = appliance.access.people.by_email(email).ok_or_else(|| unknown(email))?;
    let bytes = appliance.catalogue.user_picture(user.id).map_err(internal)?.ok_or_else(|| {
        let text = format!("{email} has no picture; `callvaultctl users set {email} --picture FILE` gives one");
        ApiError::new(ErrorKind::NotFound, text)
    })?;
    // What was kept was looked at before; what a later version knows is bytes to this one.
    let media_type = PictureForm::of(&bytes).map_or("application/octet-stream", PictureForm::media_type);
    Ok(json!({"type": media_type, "bytes": bytes.len(), "base64": STANDARD.encode(&bytes)}))
}

/// Keeps a picture of a user, or none.
pub(super) fn set_picture(appliance: &Appliance, caller: &Caller, email: &str, base64: Option<&str>) -> Answer {
    let fields = if base64.is_some() { "picture" } else { "no picture" };
    let entry = appliance.entry(caller, Action::ChangeUsers).with("user", email).with("fields", fields);
    appliance.allow(caller, Action::ChangeUsers, On::Everything, &entry)?;
    let bad = |text: String| ApiError::new(ErrorKind::Unprocessable, text);
    let picture = base64
        .map(|text| STANDARD.decode(text).map_err(|_| bad("the picture is not in base64 (RFC 4648)".to_owned())))
        .transpose()?;
    if let Some(bytes) = &picture {
        let max = appliance.config.directory.picture_max.0;
        if u64::try_from(bytes.len()).unwrap_or(u64::MAX) > max {
            let (kib, max_kib) = (bytes.len().div_ceil(1024), max >> 10);
            return Err(bad(format!(
                "the picture has {kib} KiB, and directory.picture_max allows {max_kib} KiB: make it smaller"
            )));
        }
        if PictureForm::of(bytes).is_none() {
            return Err(bad("this is no PNG, JPEG or BMP file, whatever its name says".to_owned()));
        }
    }
    let _one_at_a_time = appliance.access.changing_users();
    let user = appliance.access.people.by_email(email).ok_or_else(|| unknown(email))?;
    appliance.catalogue.put_user_picture(user.id, picture.as_deref(), &entry).map_err(internal)?;
    Ok(user_json(&user))
}

/// The user goes, and the recordings stay.
pub(super) fn remove(appliance: &Appliance, caller: &Caller, email: &str) -> Answer {
    let entry = appliance.entry(caller, Action::ChangeUsers).with("removed", email);
    appliance.allow(caller, Action::ChangeUsers, On::Everything, &entry)?;
    let _one_at_a_time = appliance.access.changing_users();
    let directory = appliance.access.people.now();
    let user = directory.by_email(email).ok_or_else(|| unknown(email))?;
    let removed = User { removed_at: Some(Timestamp::now()), ..User::clone(user) };
    let users = directory.all().iter().map(|user| User::clone(user)).collect();
    keep(appliance, vec![removed.clone()], users, &entry)?;
    tracing::info!(user = %removed.id, "a user was removed");
    Ok(user_json(&removed))
}

/// Whether as many users may be recorded as there are after a change.
pub(crate) fn check_licence(appliance: &Appliance, users: &[User], changed: &[User]) -> Result<(), ApiError> {
    let licence = &appliance.config.licence;
    let ids: std::collections::BTreeSet<Uuid> = changed.iter().map(|user| user.id).collect();
    let stay = users.iter().filter(|user| !ids.contains(&user.id));
    let (count, max) = (Appliance::licensed_users(stay.chain(changed)), licence.users_max as usize);
    if licence.model != LicenceModel::Users || count <= max || count <= Appliance::licensed_users(users) {
        return Ok(());
    }
    let text = format!(
        "nothing was changed: there would be {count} users whose calls are recorded, and licence.users_max is {max}; raise it, remove users, or set their recording_mode to never"
    );
    Err(ApiError::new(ErrorKind::Conflict, text))
}

/// `discards`, the newest first: `id`, `at`, `rule`, `owner`, `direction`, `traffic`, `local_number`, `remote_number`, `call_id`.
pub(super) fn discards(appliance: &Appliance, caller: &Caller, query: &DiscardsQuery) -> Answer {
    appliance.permit_all(caller, Action::Discards)?;
    let within = (query.from, query.to);
    let found = appliance.catalogue.discards(query.rule.as_deref(), within, query.limit).map_err(internal)?;
    let json = |discard: Discard| {
        json!({
            "id": discard.id, "at": format!("{:.3}", discard.at), "rule": discard.rule, "owner": discard.owner,
            "direction": discard.direction.as_str(), "traffic": discard.traffic.as_str(),
            "local_number": discard.local_number, "remote_number": discard.remote_number, "call_id": discard.call_id,
        })
    };
    Ok(json!({"discards": found.into_iter().map(json).collect::<Vec<_>>()}))
}
