//! Who may do what, applied: every call of the endpoint asks here first, and the audit log has it before it is answered.
//!
//! What can only be done with the word of the log is not done without it: when the log cannot be written, access is refused until it can
//! be. Live calls are the exception, as recording comes first: what is done about them is done, and the missing entry is said aloud.

mod latch;
mod pause;
mod people;
mod settings;

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use callvault_access::audit::Entry;
use callvault_access::{Action, Caller, On, Owned, Permissions, Scope, Through, Visible, WhoMay, decide, visible};
use callvault_catalogue::{Catalogue, Recording, Token, TokenHash};
use callvault_config::{Config, WhoDeletes};
use callvault_http::{ApiError, ErrorKind};
use jiff::Timestamp;
use sha2::{Digest, Sha256};
use tokio::sync::watch;
use uuid::Uuid;

use crate::api::Door;
use crate::appliance::{Appliance, Notes};
pub(crate) use latch::{FILE_NAME as NEVER_DELETE_NAME, keep_in_store};
pub(crate) use pause::Stopped;
pub(crate) use people::People;

/// Part under which health shows that the audit log cannot be written, or was changed.
pub(crate) const AUDIT_NOTE: &str = "audit";

/// The same for a log of which something was changed or is missing.
pub(crate) const AUDIT_BROKEN_NOTE: &str = "audit-chain";

/// Part under which health shows that the settings are overruled.
pub(crate) const PERMISSIONS_NOTE: &str = "permissions";

/// Part under which health shows that users cannot be read.
pub(crate) const USERS_NOTE: &str = "users";

/// Entries at the end of the audit log that are checked at every start: about a second's work at most.
const TAIL_ENTRIES: u64 = 10_000;

/// A token that is not good any more and is used all the same is in the audit log no oftener than this.
const REFUSED_AGAIN_MS: i64 = 60_000;

/// Such tokens that are remembered for that; beyond it all are forgotten, and some entries are there too often.
const REFUSED_MAX: usize = 1_000;

/// What a token begins with, so that it is recognised where it does not belong.
const TOKEN_PREFIX: &str = "cvt-";

/// What access is decided by.
#[derive(Debug)]
pub(crate) struct Access {
    settings: Permissions,
    never_delete: AtomicBool,
    /// Whether no new sessions are taken, for the recorder's driver.
    closed: watch::Sender<bool>,
    draining: AtomicBool,
    stopped: Mutex<Option<Stopped>>,
    pub(crate) people: People,
    /// Held while users change: what is changed is read first.
    changing_users: Mutex<()>,
    pub(crate) door: Door,
    /// Tokens refused lately, and when.
    refused: Mutex<HashMap<Uuid, i64>>,
    /// Whether the store has been asked what it knows of deletions by hand.
    store_asked: AtomicBool,
}

impl Access {
    /// Another store is used: what it says is to be brought together with what is known here.
    pub(crate) fn ask_store_again(&self) {
        self.store_asked.store(false, Ordering::Relaxed);
    }

    /// Reads what was decided, and enters what the settings decide for good.
    ///
    /// # Errors
    /// The catalogue or the data folder cannot be used.
    pub(crate) fn open(config: &Config, catalogue: &Catalogue, notes: &Notes) -> anyhow::Result<Self> {
        check_tail(catalogue, notes)?;
        settings::note_changes(config, catalogue)?;
        let never_delete = latch::open(config, catalogue, notes)?;
        let stopped = Stopped::read(catalogue)?;
        let (users, damaged) = catalogue.users()?;
        if !damaged.is_empty() {
            let text = format!(
                "{} users cannot be read, their rows are damaged; import the users again, `callvaultctl users import`",
                damaged.len()
            );
            notes.set(USERS_NOTE, text);
        }
        let people = People::new(users, crate::told::numbering_plan(config));
        Ok(Self {
            settings: permissions(config),
            never_delete: AtomicBool::new(never_delete),
            closed: watch::Sender::new(stopped.is_some()),
            draining: AtomicBool::new(false),
            stopped: Mutex::new(stopped),
            people,
            changing_users: Mutex::default(),
            door: Door::default(),
            refused: Mutex::default(),
            store_asked: AtomicBool::new(false),
        })
    }

    /// The settings in force.
    pub(crate) fn permissions(&self) -> Permissions {
        Permissions { never_delete: self.never_delete.load(Ordering::Relaxed), ..self.settings }
    }

    /// To be held while users are read, changed and kept.
    pub(crate) fn changing_users(&self) -> MutexGuard<'_, ()> {
        self.changing_users.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether new sessions are refused, as it changes.
    pub(crate) fn closed(&self) -> watch::Receiver<bool> {
        self.closed.subscribe()
    }

    /// Whether somebody asked for calls to end.
    pub(crate) fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }

    /// Takes no new sessions until the daemon is restarted or told otherwise.
    pub(crate) fn drain(&self, wanted: bool) {
        self.draining.store(wanted, Ordering::Relaxed);
        self.settle();
    }

    /// Why recording is stopped, if it is.
    pub(crate) fn stopped(&self) -> Option<Stopped> {
        self.stopped.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set_stopped(&self, stopped: Option<Stopped>) {
        *self.stopped.lock().unwrap_or_else(PoisonError::into_inner) = stopped;
        self.settle();
    }

    fn settle(&self) {
        let is_closed = self.is_draining() || self.stopped().is_some();
        self.closed.send_if_modified(|closed| std::mem::replace(closed, is_closed) != is_closed);
    }
}

/// Checks the end of the audit log and says what is wrong with it. A log that was changed does not stop the appliance: its calls would be
/// lost too.
fn check_tail(catalogue: &Catalogue, notes: &Notes) -> anyhow::Result<()> {
    let found = catalogue.audit_check(Some(TAIL_ENTRIES), None)?;
    if let Some((number, text)) = found.findings.first() {
        let text = format!(
            "the audit log is not as it was written: entry {number}: {text}; `callvaultctl audit verify` shows everything, and who had access to {} is to be asked",
            "the catalogue"
        );
        notes.set(AUDIT_BROKEN_NOTE, text);
    }
    Ok(())
}

fn permissions(config: &Config) -> Permissions {
    let who = |who| match who {
        callvault_config::WhoMay::Nobody => WhoMay::Nobody,
        callvault_config::WhoMay::Administrators => WhoMay::Administrators,
        callvault_config::WhoMay::GroupSupervisors => WhoMay::GroupSupervisors,
        callvault_config::WhoMay::Users => WhoMay::Users,
    };
    let delete = match config.permissions.delete {
        WhoDeletes::Nobody | WhoDeletes::NobodyIrreversibly => WhoMay::Nobody,
        WhoDeletes::Administrators => WhoMay::Administrators,
        WhoDeletes::GroupSupervisors => WhoMay::GroupSupervisors,
        WhoDeletes::Users => WhoMay::Users,
    };
    let (download, preserve) = (who(config.permissions.download), who(config.permissions.preserve));
    Permissions { delete, never_delete: false, download, preserve }
}

/// A new token, and what is kept of it.
pub(crate) fn new_token(random: &[u8; 32]) -> (String, TokenHash) {
    let token = random.iter().fold(TOKEN_PREFIX.to_owned(), |text, byte| text + &format!("{byte:02x}"));
    let hash = hash_of(&token);
    (token, hash)
}

fn hash_of(token: &str) -> TokenHash {
    Sha256::digest(token.as_bytes()).into()
}

impl Appliance {
    /// Begins an entry of the audit log: now, and by this caller.
    pub(crate) fn entry(&self, caller: &Caller, action: Action) -> Entry {
        Entry::new(caller, action, Timestamp::now())
    }

    /// Writes to the audit log.
    ///
    /// # Errors
    /// [`ErrorKind::Unavailable`]: what was to be done must not be done.
    pub(crate) fn audit(&self, entry: &Entry) -> Result<(), ApiError> {
        match self.catalogue.audit(entry) {
            Ok(_) => {
                self.notes.clear(AUDIT_NOTE);
                Ok(())
            }
            Err(error) => {
                self.notes.set(
                    AUDIT_NOTE,
                    format!("failed to {error}; until it can be written, access to recordings and settings is refused"),
                );
                let text = "the audit log cannot be written, and without it nothing is shown or done; the operator sees why in health";
                Err(ApiError::new(ErrorKind::Unavailable, text))
            }
        }
    }

    /// Whether the caller may; a refusal is in the audit log. Nothing is written where it is allowed: that goes with what is done.
    ///
    /// # Errors
    /// [`ErrorKind::Forbidden`], with who may and what to do.
    pub(crate) fn allow(&self, caller: &Caller, action: Action, on: On<'_>, entry: &Entry) -> Result<(), ApiError> {
        let Err(refusal) = decide(caller, action, on, &self.access.permissions()) else { return Ok(()) };
        self.metrics.access_refused.fetch_add(1, Ordering::Relaxed);
        // It is refused either way.
        let _ = self.audit(&entry.clone().refused(&refusal));
        Err(ApiError::new(ErrorKind::Forbidden, refusal.to_string()))
    }

    /// Whether the caller may, and the entry in the audit log that says that they did.
    ///
    /// # Errors
    /// [`ErrorKind::Forbidden`]; [`ErrorKind::Unavailable`] when the log cannot be written, but for live calls.
    pub(crate) fn permit(&self, caller: &Caller, action: Action, on: On<'_>, entry: &Entry) -> Result<(), ApiError> {
        self.allow(caller, action, on, entry)?;
        if !action.is_audited() {
            return Ok(());
        }
        match self.audit(entry) {
            Err(_) if action.scope() == Scope::Call => {
                tracing::error!(
                    action = action.as_str(),
                    "something was done about a live call that the audit log does not have"
                );
                Ok(())
            }
            done => done,
        }
    }

    /// Whether the caller may do something that is about the appliance.
    ///
    /// # Errors
    /// As [`Appliance::permit`].
    pub(crate) fn permit_all(&self, caller: &Caller, action: Action) -> Result<(), ApiError> {
        self.permit(caller, action, On::Everything, &self.entry(caller, action))
    }

    /// Calls `then` with what decides about a recording.
    pub(crate) fn owned<T>(&self, row: &Recording, then: impl FnOnce(Owned<'_>) -> T) -> T {
        let owner = row.owner_id.and_then(|id| self.access.people.by_id(id));
        // A user that the directory does not have any more still owns it, and is in no group.
        let preserved_by = row.annotations.preserved.as_ref().map(|preserved| preserved.by.level);
        then(Owned { owner: row.owner_id, preserved_by, ..Owned::by(owner.as_deref()) })
    }

    /// Which recordings the caller may find.
    pub(crate) fn visible(&self, caller: &Caller) -> Visible {
        visible(caller, self.access.people.now().all().iter().map(AsRef::as_ref))
    }

    /// Whose token that is.
    ///
    /// # Errors
    /// [`ErrorKind::Unauthorized`] with what to do; [`ErrorKind::Unavailable`] when it cannot be told.
    pub(crate) fn authenticate(&self, token: &str, from: &str) -> Result<Caller, ApiError> {
        let refuse = |text: &str| ApiError::new(ErrorKind::Unauthorized, text);
        let cannot_tell = |error| {
            tracing::error!("failed to {error}");
            ApiError::new(ErrorKind::Unavailable, "whose token that is cannot be told now; try again")
        };
        // By its hash: what the time of the search tells is nothing of the token.
        let found = self.catalogue.token_of(&hash_of(token)).map_err(cannot_tell)?;
        let Some(kept) = found else {
            return Err(refuse(
                "this token is not known, or was revoked; ask an administrator for another (`callvaultctl tokens create`)",
            ));
        };
        let now = Timestamp::now();
        let refused = |text: &str| {
            self.refused_token(&kept, from, now);
            Err(refuse(text))
        };
        if !kept.is_good(now) {
            return refused("this token has expired; ask an administrator for another (`callvaultctl tokens create`)");
        }
        let caller = match kept.user {
            None => Caller::of_token(&kept.name, kept.level, from),
            Some(id) => match self.access.people.by_id(id) {
                Some(user) if user.removed_at.is_none() => Caller::of_user(&user, kept.level, from),
                _ => return refused("the user of this token was removed; ask an administrator"),
            },
        };
        self.used_token(&kept, now);
        let through = if kept.session { Through::Portal } else { caller.through };
        Ok(Caller { through, token: Some(kept.id), ..caller })
    }

    /// Notes the day on which a token was used, when it is another one.
    fn used_token(&self, token: &Token, now: Timestamp) {
        let is_news = token.used_on.is_none_or(|day| now.duration_since(day).as_hours() >= 24);
        if is_news && let Err(error) = self.catalogue.token_used(token.id, now) {
            tracing::warn!("failed to {error}");
        }
    }

    /// Somebody came with a token that is not good any more.
    fn refused_token(&self, token: &Token, from: &str, now: Timestamp) {
        self.metrics.access_refused.fetch_add(1, Ordering::Relaxed);
        let now_ms = now.as_millisecond();
        {
            let mut refused = self.access.refused.lock().unwrap_or_else(PoisonError::into_inner);
            if refused.get(&token.id).is_some_and(|at| now_ms.saturating_sub(*at) < REFUSED_AGAIN_MS) {
                return;
            }
            if refused.len() >= REFUSED_MAX {
                refused.clear();
            }
            refused.insert(token.id, now_ms);
        }
        let caller = Caller::of_token(&token.name, token.level, from);
        let refusal =
            callvault_access::Refusal { rule: "token", who_may: String::new(), what_to_do: "ask for another token" };
        let entry = self.entry(&caller, Action::SignIn).with("token", token.id.to_string()).refused(&refusal);
        let _ = self.audit(&entry);
    }
}
