//! Session timers (RFC 4028): who refreshes a session and how often, and what happens when nobody does.
//!
//! The peer refreshes where it can: it is the one that knows whether there is a call. When it does not, the session has not ended for
//! us, since media may be arriving: [`Event::SessionExpired`] says so, and the session layer decides. When the peer wants to be
//! refreshed it gets an UPDATE without a body at half the interval; nothing else is sent for a timer's sake, so a peer that has no
//! UPDATE among what it allows gets no promise from us, and then no session of its own expires either (section 7.2).

use rand::Rng;
use serde::{Deserialize, Serialize};

use super::client::Outcome;
use super::dialog::{Dialog, Ending};
use super::{DialogId, Endpoint, EndpointConfig, Event, Now, Timer};
use crate::message::{Headers, MessageFlaw, Method, Params, Request};

const SECOND_NS: u64 = 1_000_000_000;

/// How long before the end of the interval a session that was not refreshed counts as expired, at most (section 10).
const MARGIN_S: u64 = 32;

/// Pause before a refresh that was refused for a while, or had no connection, is tried again, at least; in seconds.
const RETRY_S: u64 = 10;

/// The longest interval that a peer can impose with Min-SE in a 422: one day. What asks for more has no use for a timer.
const MIN_SE_S_MAX: u32 = 86_400;

/// What a message says about the session timer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Wish {
    /// Whether the sender has the extension: `timer` in Supported or Require.
    supported: bool,
    /// Session-Expires, in seconds; larger numbers than fit count as the largest.
    interval_s: Option<u32>,
    /// Min-SE, in seconds; 0 when there is none.
    min_se_s: u32,
    /// Whether the refresher is to be the server of this transaction (`uas`); `None` when that is left open.
    server_refreshes: Option<bool>,
}

impl Wish {
    pub(super) fn read(headers: &Headers) -> Self {
        let option = |name| headers.list(name).iter().any(|option| option.eq_ignore_ascii_case("timer"));
        let (number, params) = headers
            .get("Session-Expires")
            .map(|value| value.split_once(';').unwrap_or((value, "")))
            .unwrap_or_default();
        let refresher = Params::parse(params).get("refresher").map(str::to_ascii_lowercase);
        Self {
            supported: option("Supported") || option("Require"),
            interval_s: seconds(number),
            min_se_s: headers.get("Min-SE").and_then(seconds).unwrap_or(0),
            server_refreshes: match refresher.as_deref() {
                Some("uas") => Some(true),
                Some("uac") => Some(false),
                _ => None,
            },
        }
    }

    fn is_too_small(&self, config: &EndpointConfig) -> bool {
        self.interval_s.is_some_and(|interval_s| interval_s < config.min_se_s)
    }

    /// The interval and whether we refresh, of a request that we are about to accept (section 9); `None` for no timer.
    fn agree(&self, config: &EndpointConfig, peer_allows_update: bool) -> Option<(u32, bool)> {
        let least = self.min_se_s.max(config.min_se_s);
        let ours = config.session_expires_s;
        let interval_s = match self.interval_s {
            Some(theirs) if ours > 0 => theirs.min(ours.max(least)),
            Some(theirs) => theirs,
            None if ours > 0 && self.supported => ours.max(least),
            None => return None,
        };
        let we_refresh = match (self.supported, self.server_refreshes) {
            (true, Some(true)) => true,
            (true, _) => false,
            // A proxy asked, not the peer, and only we can do it. An interval that is too small cannot be refused to it, nor raised.
            (false, _) if config.refresh_for_others && !self.is_too_small(config) => true,
            (false, _) => return None,
        };
        (!we_refresh || peer_allows_update).then_some((interval_s.max(1), we_refresh))
    }
}

/// The number at the start of a field; `None` when there is none.
fn seconds(value: &str) -> Option<u32> {
    let value = value.split(';').next().unwrap_or("").trim();
    let digits = value.bytes().all(|byte| byte.is_ascii_digit()) && !value.is_empty();
    digits.then(|| value.parse().unwrap_or(u32::MAX))
}

/// The session timer of a dialog.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct SessionTimer {
    interval_s: u32,
    /// What Min-SE in our refreshes says, in seconds.
    min_se_s: u32,
    we_refresh: bool,
    /// When the session counts as expired.
    until: Now,
    /// When something is to be done: a refresh, or saying that it is expired.
    due: Now,
}

impl SessionTimer {
    fn start(now: Now, interval_s: u32, min_se_s: u32, we_refresh: bool) -> Self {
        let interval_s64 = u64::from(interval_s);
        let ns = |seconds: u64| seconds.saturating_mul(SECOND_NS);
        let until = now.after(ns(interval_s64 - MARGIN_S.min(interval_s64 / 3)));
        let due = if we_refresh { now.after(ns(interval_s64) / 2).min(until) } else { until };
        Self { interval_s, min_se_s, we_refresh, until, due }
    }

    pub(super) fn due(&self) -> Now {
        self.due
    }

    /// The timer in a later process: nothing is due later than a whole interval from now. A refresh whose answer may have gone to the
    /// process before is sent again soon.
    pub(super) fn resumed(mut self, now: Now) -> Self {
        let furthest = now.after(u64::from(self.interval_s).saturating_mul(SECOND_NS));
        self.until = self.until.min(furthest);
        if self.we_refresh && self.due >= self.until {
            self.due = now.after(RETRY_S * SECOND_NS);
        }
        self.due = self.due.min(self.until);
        self
    }
}

impl Endpoint {
    /// The value of Min-SE in the 422 that an INVITE or UPDATE gets for too small an interval. Only who has the extension can be
    /// answered so (section 9); from others it is taken as it is, and noted.
    pub(super) fn refuse_interval(&self, request: &mut Request) -> Option<u32> {
        let wish = Wish::read(&request.headers);
        if !wish.is_too_small(&self.config) {
            return None;
        }
        if wish.supported {
            return Some(self.config.min_se_s);
        }
        request.flaws.push(MessageFlaw::SessionIntervalTooSmall);
        None
    }

    /// Starts, restarts or stops the timer of a dialog whose INVITE or UPDATE is being accepted; gives the fields that say so.
    pub(super) fn agree_on_timer(&mut self, now: Now, id: DialogId, request: &Request) -> Vec<(String, String)> {
        let wish = Wish::read(&request.headers);
        let min_se_s = wish.min_se_s.max(self.config.min_se_s).min(MIN_SE_S_MAX);
        let Some(dialog) = self.dialogs.get(&id) else { return Vec::new() };
        let agreed = wish.agree(&self.config, dialog.peer_allows_update);
        let timer = agreed.map(|(interval_s, we_refresh)| SessionTimer::start(now, interval_s, min_se_s, we_refresh));
        self.set_session_timer(id, timer);
        let Some((interval_s, we_refresh)) = agreed else { return Vec::new() };
        let refresher = if we_refresh { "uas" } else { "uac" };
        let mut fields = vec![("Session-Expires".to_owned(), format!("{interval_s};refresher={refresher}"))];
        if !we_refresh {
            fields.push(("Require".to_owned(), "timer".to_owned()));
        }
        fields
    }

    pub(super) fn set_session_timer(&mut self, id: DialogId, timer: Option<SessionTimer>) {
        let Some(dialog) = self.dialog_mut(id) else { return };
        dialog.session_timer = timer;
        match timer {
            Some(timer) => self.agenda.set(Timer::Dialog(id), timer.due()),
            None => self.agenda.clear(Timer::Dialog(id)),
        }
    }

    pub(super) fn on_session_timeout(&mut self, now: Now, id: DialogId) {
        let Some(dialog) = self.dialogs.get(&id) else { return };
        let Some(timer) = dialog.session_timer else { return };
        if dialog.ending != Ending::No {
            return self.set_session_timer(id, None);
        }
        if now < timer.due {
            return self.set_session_timer(id, Some(timer));
        }
        if !timer.we_refresh || timer.until <= now {
            return self.session_expired(id);
        }
        // Whatever becomes of the refresh, the next thing to do is at the end, or earlier if its answer says so.
        self.set_session_timer(id, Some(SessionTimer { due: timer.until, ..timer }));
        self.refresh(now, id, timer);
    }

    fn refresh(&mut self, now: Now, id: DialogId, timer: SessionTimer) {
        let sent = self.send_request(now, id, Method::Update, true, |request| {
            request.headers.push("Supported", "timer");
            request.headers.push("Session-Expires", &format!("{};refresher=uac", timer.interval_s));
            request.headers.push("Min-SE", &timer.min_se_s.to_string());
        });
        if !sent {
            self.refresh_later(now, id, RETRY_S * SECOND_NS);
        }
    }

    /// Our refresh has its answer, or will have none.
    pub(super) fn refreshed(&mut self, now: Now, id: DialogId, outcome: &Outcome) {
        let Some(timer) = self.dialogs.get(&id).and_then(|dialog| dialog.session_timer) else { return };
        if !timer.we_refresh {
            // The peer has taken it over with a request of its own meanwhile.
            return;
        }
        let response = match outcome {
            Outcome::Answered(response) => response,
            Outcome::TimedOut => return self.session_expired(id),
            Outcome::Unreachable => return self.refresh_later(now, id, RETRY_S * SECOND_NS),
        };
        let wish = Wish::read(&response.headers);
        match response.status {
            200..300 => {
                let restarted = wish.interval_s.map(|interval_s| {
                    let we_refresh = wish.server_refreshes != Some(true);
                    SessionTimer::start(now, interval_s.max(1), timer.min_se_s, we_refresh)
                });
                self.set_session_timer(id, restarted);
            }
            422 if timer.min_se_s < wish.min_se_s && wish.min_se_s <= MIN_SE_S_MAX => {
                let interval_s = timer.interval_s.max(wish.min_se_s);
                let timer = SessionTimer { interval_s, min_se_s: wish.min_se_s, ..timer };
                self.set_session_timer(id, Some(timer));
                self.refresh(now, id, timer);
            }
            // Nobody there knows the session (section 10).
            408 | 481 => self.session_expired(id),
            // Requests have crossed; we did not make the Call-ID (RFC 3261 section 14.1).
            491 => {
                let wait_ns = self.random.next_u64() % 201 * 10_000_000;
                self.refresh_later(now, id, wait_ns);
            }
            500 | 503 | 504 => {
                let asked_s = response.headers.get("Retry-After").and_then(|value| seconds(first_word(value)));
                self.refresh_later(now, id, u64::from(asked_s.unwrap_or(0)).max(RETRY_S).saturating_mul(SECOND_NS));
            }
            // It is there, and will not be refreshed this way.
            _ => {}
        }
    }

    fn refresh_later(&mut self, now: Now, id: DialogId, wait_ns: u64) {
        let Some(timer) = self.dialogs.get(&id).and_then(|dialog| dialog.session_timer) else { return };
        let due = now.after(wait_ns.max(1)).min(timer.until);
        self.set_session_timer(id, Some(SessionTimer { due, ..timer }));
    }

    fn session_expired(&mut self, id: DialogId) {
        self.set_session_timer(id, None);
        if self.dialogs.get(&id).is_some_and(|dialog| dialog.ending == Ending::No) {
            self.event(Event::SessionExpired { dialog: id });
        }
    }
}

/// Retry-After may have a comment or a parameter behind its number.
fn first_word(value: &str) -> &str {
    value.split([' ', '\t', '(', ';']).next().unwrap_or("")
}

impl Dialog {
    /// Notes whether the peer takes UPDATE, when a message of its says what it allows.
    pub(super) fn note_allowed(&mut self, headers: &Headers) {
        if headers.get("Allow").is_some() {
            self.peer_allows_update = headers.list("Allow").iter().any(|method| method.eq_ignore_ascii_case("UPDATE"));
        }
    }
}
