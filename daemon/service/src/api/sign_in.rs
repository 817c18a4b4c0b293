//! Signing in at the portal, and the sessions that come of it. A session is a token of its user, which the portal hands to a browser.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use callvault_access::audit::Entry;
use callvault_access::password::{self, Attempts};
use callvault_access::{Action, Caller, Level, Refusal, Through};
use callvault_catalogue::{CatalogueError, Token};
use callvault_directory::User;
use callvault_http::{Answer, ApiError, ErrorKind, SignIn};
use jiff::{SignedDuration, Timestamp};
use rand::Rng;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::internal;
use crate::access;
use crate::appliance::Appliance;

/// Sessions of one user; beyond it nobody signs in until one has ended.
const SESSIONS_MAX: usize = 20;

/// That a name has to wait is in the audit log no oftener than this.
const WAITED_AGAIN_MS: i64 = 60_000;

/// Names that are remembered for that; beyond it all are forgotten, and some entries are there too often.
const WAITED_MAX: usize = 1_000;

/// What signing in shares: who failed lately, and a turn to hash, which takes some 19 MiB and a core for a moment. One at a time leaves the
/// calls what they need.
#[derive(Debug, Default)]
pub(crate) struct Door {
    attempts: Mutex<Attempts>,
    turn: Mutex<()>,
    /// Names that had to wait, and when that was last in the audit log, in milliseconds since 1970.
    waited: Mutex<HashMap<String, i64>>,
    pub(super) elsewhere: super::elsewhere::Provider,
}

impl Door {
    /// Begins an attempt, unless that name has to wait: then for how many milliseconds.
    pub(crate) fn begin(&self, name: &str, now: Timestamp) -> Result<(), i64> {
        let mut attempts = self.attempts.lock().unwrap_or_else(PoisonError::into_inner);
        match attempts.wait_ms(name, now.as_millisecond()) {
            Some(left_ms) => Err(left_ms),
            None => {
                attempts.begun(name, now.as_millisecond());
                Ok(())
            }
        }
    }

    /// Whether it is to be in the audit log that this name has to wait: once a minute, as whoever has to wait may ask without end.
    fn is_news(&self, name: &str, now: Timestamp) -> bool {
        let mut waited = self.waited.lock().unwrap_or_else(PoisonError::into_inner);
        let now_ms = now.as_millisecond();
        if waited.get(name).is_some_and(|at_ms| now_ms.saturating_sub(*at_ms) < WAITED_AGAIN_MS) {
            return false;
        }
        if waited.len() >= WAITED_MAX {
            waited.clear();
        }
        waited.insert(name.to_owned(), now_ms);
        true
    }

    fn succeeded(&self, name: &str) {
        self.attempts.lock().unwrap_or_else(PoisonError::into_inner).succeeded(name);
    }

    fn turn(&self) -> std::sync::MutexGuard<'_, ()> {
        self.turn.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// See [`callvault_http::Api::sign_in`].
pub(super) fn sign_in(appliance: &Appliance, caller: &Caller, wanted: &SignIn) -> Answer {
    if caller.through != Through::Portal || caller.token.is_some() {
        return Err(ApiError::new(ErrorKind::Forbidden, "people sign in at the portal; programs use a token"));
    }
    let now = Timestamp::now();
    let caller = Caller::visitor(&wanted.user, &caller.from);
    if let Err(left_ms) = appliance.access.door.begin(&wanted.user, now) {
        if appliance.access.door.is_news(&wanted.user, now) {
            refuse(appliance, &caller, "too-many-attempts");
        }
        let text = format!("there were too many attempts; try again in {} s", left_ms.unsigned_abs().div_ceil(1_000));
        return Err(ApiError::new(ErrorKind::Unavailable, text));
    }
    let (user, is_first) = verified(appliance, wanted)?.ok_or_else(|| {
        refuse(appliance, &caller, "password");
        ApiError::new(ErrorKind::Unauthorized, "name and password do not go together")
    })?;
    appliance.access.door.succeeded(&wanted.user);
    match &wanted.new_password {
        None if is_first => return Ok(json!({"change": true})),
        Some(new) => change(appliance, &caller, &user, &wanted.password, new)?,
        None => {}
    }
    begin_session(appliance, &caller, &user, "password")
}

/// The user whose password that is, and whether it is their first. Takes as long whether or not there is such a user.
fn verified(appliance: &Appliance, wanted: &SignIn) -> Result<Option<(User, bool)>, ApiError> {
    let user = appliance.access.people.by_email(&wanted.user).filter(|user| user.removed_at.is_none());
    let first = user.as_ref().map(|user| user.initial_password.as_str()).filter(|first| !first.is_empty());
    let kept = match &user {
        Some(user) if first.is_none() => appliance.catalogue.password_of(user.id).map_err(internal)?,
        _ => None,
    };
    let is_kept = {
        let _turn = appliance.access.door.turn();
        password::verify(&wanted.password, kept.as_deref())
    };
    // Digests differ everywhere where the texts differ anywhere: the time tells nothing.
    let is_first = first.is_some_and(|first| Sha256::digest(first) == Sha256::digest(&wanted.password));
    Ok(user.filter(|_| is_kept || is_first).map(|user| ((*user).clone(), is_first)))
}

/// Notes that somebody was not let in.
pub(super) fn refuse(appliance: &Appliance, caller: &Caller, rule: &'static str) {
    appliance.metrics.access_refused.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    let refusal = Refusal { rule, who_may: String::new(), what_to_do: "ask an administrator for a new first password" };
    // It is refused either way.
    let _ = appliance.audit(&appliance.entry(caller, Action::SignIn).refused(&refusal));
}

/// Another password; sessions that were begun with the old one end.
fn change(appliance: &Appliance, caller: &Caller, user: &User, old: &str, new: &str) -> Result<(), ApiError> {
    password::check(new, &user.webex_email, old)
        .map_err(|weak| ApiError::new(ErrorKind::Unprocessable, weak.to_string()))?;
    let mut salt = [0; 16];
    rand::rng().fill_bytes(&mut salt);
    let phc = {
        let _turn = appliance.access.door.turn();
        password::hash(new, &salt).map_err(internal)?
    };
    let entry = of(appliance, caller, user).with("what", "password changed");
    let _changing = appliance.access.changing_users();
    let (mut users, _) = appliance.catalogue.users().map_err(internal)?;
    let gone = || ApiError::new(ErrorKind::Unauthorized, "name and password do not go together");
    let now = users.iter_mut().find(|one| one.id == user.id).ok_or_else(gone)?;
    now.initial_password.clear();
    appliance.catalogue.set_password(now, &phc, &entry).map_err(internal)?;
    appliance.access.people.set(users);
    for session in of_user(appliance, user.id)? {
        let entry = of(appliance, caller, user).with("what", "session ended").with("token", session.id.to_string());
        appliance.catalogue.revoke_token(session.id, Timestamp::now(), &entry).map_err(internal)?;
    }
    Ok(())
}

/// A session for that user, who proved by `by` who they are.
pub(super) fn begin_session(appliance: &Appliance, caller: &Caller, user: &User, by: &'static str) -> Answer {
    let now = Timestamp::now();
    appliance.catalogue.forget_sessions(now).map_err(internal)?;
    if of_user(appliance, user.id)?.len() >= SESSIONS_MAX {
        let text = "you are signed in too often; sign out somewhere, or ask an administrator to end your sessions (`callvaultctl tokens revoke`)";
        return Err(ApiError::new(ErrorKind::Conflict, text));
    }
    let length = appliance.config.portal.session_max;
    let session = Token {
        id: Uuid::now_v7(),
        name: "portal".to_owned(),
        // What the user may is asked at each request.
        level: Level::Administrator,
        user: Some(user.id),
        created_at: now,
        expires_at: SignedDuration::try_from(length).ok().and_then(|length| now.checked_add(length).ok()),
        session: true,
        revoked_at: None,
        used_on: None,
    };
    let mut random = [0; 32];
    rand::rng().fill_bytes(&mut random);
    let (secret, hash) = access::new_token(&random);
    let entry = of(appliance, caller, user).with("by", by).with("token", session.id.to_string());
    appliance.catalogue.create_token(&session, &hash, &entry).map_err(|error| match error {
        CatalogueError::TooManyTokens => ApiError::new(ErrorKind::Conflict, format!("failed to {error}")),
        error => internal(error),
    })?;
    Ok(json!({"session": secret, "seconds": length.as_secs()}))
}

/// An entry of the audit log about somebody who signed in, as themselves.
fn of(appliance: &Appliance, caller: &Caller, user: &User) -> Entry {
    let caller = Caller { through: Through::Portal, ..Caller::of_user(user, Level::Administrator, &caller.from) };
    appliance.entry(&caller, Action::SignIn)
}

/// The sessions of a user that are worth something.
fn of_user(appliance: &Appliance, user: Uuid) -> Result<Vec<Token>, ApiError> {
    let now = Timestamp::now();
    let tokens = appliance.catalogue.tokens().map_err(internal)?;
    Ok(tokens.into_iter().filter(|token| token.session && token.user == Some(user) && token.is_good(now)).collect())
}

/// See [`callvault_http::Api::sign_out`].
pub(super) fn sign_out(appliance: &Appliance, caller: &Caller) -> Answer {
    let id = caller.token.filter(|_| caller.through == Through::Portal).ok_or_else(no_session)?;
    end(appliance, caller, id)
}

/// See [`callvault_http::Api::end_session`].
pub(super) fn end_session(appliance: &Appliance, caller: &Caller, id: Uuid) -> Answer {
    let own = of_user(appliance, caller.user.ok_or_else(no_session)?)?;
    if own.iter().all(|session| session.id != id) {
        return Err(no_session());
    }
    end(appliance, caller, id)
}

fn no_session() -> ApiError {
    ApiError::new(ErrorKind::NotFound, "there is no such session of yours; the portal shows those that there are")
}

fn end(appliance: &Appliance, caller: &Caller, id: Uuid) -> Answer {
    let entry = appliance.entry(caller, Action::SignIn).with("what", "session ended").with("token", id.to_string());
    appliance.catalogue.revoke_token(id, entry.at, &entry).map_err(internal)?;
    Ok(json!({"ended": id}))
}

/// See [`callvault_http::Api::sessions`]. Of each: `id`, `created_at`, `expires_at`, `current`: whether it is the one that asks.
pub(super) fn sessions(appliance: &Appliance, caller: &Caller) -> Answer {
    let own = of_user(appliance, caller.user.ok_or_else(no_session)?)?;
    let session = |token: &Token| -> Value {
        json!({
            "id": token.id, "created_at": format!("{:.3}", token.created_at),
            "expires_at": token.expires_at.map(|at| format!("{at:.3}")), "current": caller.token == Some(token.id),
        })
    };
    Ok(json!({"sessions": own.iter().map(session).collect::<Vec<_>>()}))
}
