//! Tokens, the audit log, and who one is.

use callvault_access::audit::{Entry, Outcome};
use callvault_access::{Action, Caller, Level, On, Permissions, WhoMay, decide};
use callvault_catalogue::{AuditFilter, AuditHead, CatalogueError, Token};
use callvault_http::{Answer, ApiError, AuditQuery, ErrorKind, NewToken};
use jiff::{Span, Timestamp};
use rand::Rng;
use serde_json::{Value, json};
use uuid::Uuid;

use super::internal;
use crate::access;
use crate::appliance::Appliance;

/// | field | meaning |
/// |---|---|
/// | `name` | the user's e-mail, the token's name, or `operator` |
/// | `user` | the user's id, or null |
/// | `level` | the permission level that counts |
/// | `groups` | the groups whose recordings may be worked with |
/// | `through` | `control` or `token` |
/// | `may` | `delete`, `download`, `preserve`: whether one's own recordings may be deleted, taken away as files, preserved; and `administer` |
pub(super) fn me(appliance: &Appliance, caller: &Caller) -> Answer {
    let settings = appliance.access.permissions();
    let own = callvault_access::Owned { owner: caller.user, ..callvault_access::Owned::default() };
    let may = |action| decide(caller, action, On::One(own), &settings).is_ok();
    Ok(json!({
        "name": caller.name, "user": caller.user, "level": caller.rank().as_str(), "groups": caller.groups,
        "through": caller.through.as_str(),
        "may": {
            "delete": may(Action::Delete), "download": may(Action::Download), "preserve": may(Action::Preserve),
            "administer": caller.rank() == Level::Administrator,
        },
    }))
}

/// The settings of permissions that are in force, for the status.
pub(super) fn permissions_json(settings: &Permissions) -> Value {
    let word = |who| match who {
        WhoMay::Nobody => "nobody",
        WhoMay::Administrators => "administrators",
        WhoMay::GroupSupervisors => "group-supervisors",
        WhoMay::Users => "users",
    };
    let delete = if settings.never_delete { "nobody-irreversibly" } else { word(settings.delete) };
    json!({"delete": delete, "download": word(settings.download), "preserve": word(settings.preserve)})
}

fn time(at: Timestamp) -> String {
    format!("{at:.3}")
}

fn token_json(appliance: &Appliance, token: &Token) -> Value {
    let user = token.user.map(|id| appliance.access.people.by_id(id));
    let email = user.as_ref().and_then(|user| user.as_ref().map(|user| user.webex_email.clone()));
    let is_removed = user.is_some_and(|user| user.is_none_or(|user| user.removed_at.is_some()));
    let state = match () {
        () if token.revoked_at.is_some() => "revoked",
        () if !token.is_good(Timestamp::now()) => "expired",
        () if is_removed => "user-removed",
        () => "good",
    };
    json!({
        "id": token.id, "name": token.name, "level": token.level.as_str(), "user": token.user, "email": email,
        "created_at": time(token.created_at), "expires_at": token.expires_at.map(time),
        "used_on": token.used_on.map(|day| day.strftime("%Y-%m-%d").to_string()),
        "revoked_at": token.revoked_at.map(time), "state": state,
    })
}

pub(super) fn tokens(appliance: &Appliance, caller: &Caller) -> Answer {
    appliance.permit_all(caller, Action::Tokens)?;
    let tokens = appliance.catalogue.tokens().map_err(internal)?;
    Ok(json!({"tokens": tokens.iter().map(|token| token_json(appliance, token)).collect::<Vec<_>>()}))
}

/// As in the list, and `token`: the token itself, which is shown this once.
pub(super) fn create_token(appliance: &Appliance, caller: &Caller, wanted: &NewToken) -> Answer {
    let now = Timestamp::now();
    let id = Uuid::now_v7();
    let entry = appliance
        .entry(caller, Action::CreateToken)
        .with("token", id.to_string())
        .with("name", &wanted.name)
        .with("level", wanted.level.as_str())
        .with("user", wanted.user.as_deref().unwrap_or_default());
    appliance.allow(caller, Action::CreateToken, On::Everything, &entry)?;
    let unprocessable = |text: &str| ApiError::new(ErrorKind::Unprocessable, text);
    let user = match &wanted.user {
        None if wanted.level < Level::Administrator => {
            let text = "below the level administrator a token needs a user, whose recordings it is for; name one with --user EMAIL";
            return Err(unprocessable(text));
        }
        None => None,
        Some(email) => {
            let text = "no user has this e-mail; `callvaultctl users list` shows those that there are";
            Some(appliance.access.people.by_email(email).ok_or_else(|| unprocessable(text))?.id)
        }
    };
    let expires_at = wanted
        .expires_days
        .map(|days| now.checked_add(Span::new().hours(24 * i64::from(days))))
        .transpose()
        .map_err(|_| unprocessable("the token would expire in a year that no clock here knows"))?;
    let token = Token {
        id,
        name: wanted.name.clone(),
        level: wanted.level,
        user,
        created_at: now,
        expires_at,
        session: false,
        revoked_at: None,
        used_on: None,
    };
    let mut random = [0; 32];
    rand::rng().fill_bytes(&mut random);
    let (secret, hash) = access::new_token(&random);
    appliance.catalogue.create_token(&token, &hash, &entry).map_err(|error| match error {
        CatalogueError::TooManyTokens => ApiError::new(ErrorKind::Conflict, format!("failed to {error}")),
        error => internal(error),
    })?;
    tracing::info!(token = %id, "a token was made");
    let mut answer = token_json(appliance, &token);
    if let Some(fields) = answer.as_object_mut() {
        fields.insert("token".to_owned(), json!(secret));
    }
    Ok(answer)
}

pub(super) fn revoke_token(appliance: &Appliance, caller: &Caller, id: Uuid) -> Answer {
    let entry = appliance.entry(caller, Action::RevokeToken).with("token", id.to_string());
    appliance.allow(caller, Action::RevokeToken, On::Everything, &entry)?;
    let unknown = || {
        let text = format!("there is no token {id}; `callvaultctl tokens list` shows those that there are");
        ApiError::new(ErrorKind::NotFound, text)
    };
    let revoked = appliance.catalogue.revoke_token(id, entry.at, &entry).map_err(internal)?.ok_or_else(unknown)?;
    tracing::info!(token = %id, "a token was revoked");
    Ok(token_json(appliance, &revoked))
}

/// Of each entry: `number`, `at`, `name`, `user`, `level`, `from`, `through`, `action`, `recording` or null, `outcome` (`allowed`, `refused`,
/// `failed`), `details` (an object).
fn entry_json(number: u64, entry: &Entry) -> Value {
    let details: serde_json::Map<String, Value> =
        entry.details.iter().map(|(name, value)| (name.clone(), json!(value))).collect();
    json!({
        "number": number, "at": time(entry.at), "name": entry.name, "user": entry.user, "level": entry.level.as_str(),
        "from": entry.from, "through": entry.through.as_str(), "action": entry.action, "recording": entry.recording,
        "outcome": entry.outcome.as_str(), "details": details,
    })
}

/// `entries`, `next` (a cursor or null), and `damaged`: the numbers of entries on the way that do not open.
pub(super) fn audit(appliance: &Appliance, caller: &Caller, query: &AuditQuery) -> Answer {
    appliance.permit_all(caller, Action::Audit)?;
    let outcome = query.outcome.as_deref().map(|word| match word {
        "refused" => Outcome::Refused,
        "failed" => Outcome::Failed,
        _ => Outcome::Allowed,
    });
    let filter = AuditFilter {
        from: query.from,
        to: query.to,
        action: query.action.clone(),
        name: query.name.clone(),
        recording: query.recording,
        outcome,
        oldest_first: query.oldest_first,
        limit: query.limit,
    };
    let page = appliance.catalogue.audit_entries(&filter, query.cursor).map_err(internal)?;
    let entries: Vec<Value> = page.entries.iter().map(|(number, entry)| entry_json(*number, entry)).collect();
    Ok(json!({"entries": entries, "next": page.next.map(|next| next.to_string()), "damaged": page.damaged}))
}

/// `checked`, `head` (to be noted), `findings` (`number`, `text`).
pub(super) fn verify_audit(appliance: &Appliance, caller: &Caller, head: Option<&str>) -> Answer {
    appliance.permit_all(caller, Action::Audit)?;
    let noted: Option<AuditHead> = head
        .map(str::parse)
        .transpose()
        .map_err(|error: CatalogueError| ApiError::new(ErrorKind::BadRequest, format!("failed to {error}")))?;
    let check = appliance.catalogue.audit_check(None, noted).map_err(internal)?;
    match check.findings.first() {
        Some((number, text)) => appliance.notes.set(
            access::AUDIT_BROKEN_NOTE,
            format!("the audit log is not as it was written: entry {number}: {text}; `callvaultctl audit verify` shows everything"),
        ),
        None => appliance.notes.clear(access::AUDIT_BROKEN_NOTE),
    }
    let findings: Vec<Value> =
        check.findings.iter().map(|(number, text)| json!({"number": number, "text": text})).collect();
    Ok(json!({"checked": check.checked, "head": check.head.to_string(), "findings": findings}))
}
