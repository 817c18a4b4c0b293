//! The authorisation's life: when its token is used, when it is renewed, when it is dead and somebody has to authorise again.
//!
//! Lifetimes are what the service says of each token, never constants. Our clock renews and never pronounces dead: only the service's
//! answer does that. A token that was received is used only after it is stored, so a process that dies in between still has one that
//! the service knows, and what it had is let go by the write that replaces it.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use zeroize::{Zeroize, ZeroizeOnDrop};

use crate::record::later;

/// Characters of a token at most; those of the service have some hundreds.
const TOKEN_CHARS_MAX: usize = 8_192;

/// Longest life that is believed, in seconds: ten years.
const LIFETIME_S_MAX: i64 = 10 * 365 * 24 * 3600;

/// By how much the clock may have gone back before a token's age is not believed any more, in milliseconds.
const CLOCK_BACK_MS: i64 = 5 * 60 * 1000;

/// First pause between two attempts at renewal, and the longest, in milliseconds.
const RETRY_MS: std::ops::RangeInclusive<i64> = 60_000..=3_600_000;

/// What an authorisation gave: secrets with their lives. What is stored of it is this as JSON, sealed by the caller.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, Zeroize, ZeroizeOnDrop)]
pub struct Grant {
    /// The token for requests.
    pub access: String,
    /// The one by which a new one is had.
    pub refresh: String,
    /// When it was given.
    #[zeroize(skip)]
    pub given_at: Timestamp,
    /// For how long the token for requests lives, in seconds.
    pub access_s: i64,
    /// For how long the other lives, in seconds, where the service says so.
    pub refresh_s: Option<i64>,
}

impl std::fmt::Debug for Grant {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Grant")
            .field("given_at", &self.given_at)
            .field("access_s", &self.access_s)
            .finish_non_exhaustive()
    }
}

#[derive(Deserialize)]
struct Told {
    access_token: String,
    expires_in: i64,
    refresh_token: Option<String>,
    refresh_token_expires_in: Option<i64>,
}

impl Grant {
    /// Reads the answer of the token's address (RFC 6749 section 5.1). One that names no new token for renewal keeps `before`'s.
    ///
    /// # Errors
    /// A sentence without anything of the answer, where it is not what it must be.
    pub fn read(body: &[u8], before: Option<&Self>, now: Timestamp) -> Result<Self, &'static str> {
        let told: Told = serde_json::from_slice(body).map_err(|_| "the answer is not that of a token's address")?;
        let refresh = told.refresh_token.or_else(|| before.map(|before| before.refresh.clone()));
        let refresh = refresh.ok_or("the answer has no token to renew it with; ask for the scopes again")?;
        let is_token = |text: &str| {
            !text.is_empty() && text.len() <= TOKEN_CHARS_MAX && text.bytes().all(|byte| byte.is_ascii_graphic())
        };
        if !is_token(&told.access_token) || !is_token(&refresh) {
            return Err("the answer has a token with characters that no token has");
        }
        if !(1..=LIFETIME_S_MAX).contains(&told.expires_in) {
            return Err("the answer gives its token a life that is none");
        }
        let refresh_s = told.refresh_token_expires_in.map(|s| s.clamp(0, LIFETIME_S_MAX));
        Ok(Self { access: told.access_token, refresh, given_at: now, access_s: told.expires_in, refresh_s })
    }

    /// When the token for requests ends by our clock.
    pub fn ends_at(&self) -> Timestamp {
        later(self.given_at, self.access_s.saturating_mul(1000))
    }

    fn is_due(&self, now: Timestamp) -> bool {
        // Half of its life: the other half is for everything that can be in the way.
        let half = later(self.given_at, self.access_s.saturating_mul(500));
        now >= half || later(now, CLOCK_BACK_MS) < self.given_at
    }
}

/// Why there is no authorisation. The texts are for an administrator.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Dead {
    /// 400 for the token of renewal.
    #[error(
        "Webex has withdrawn the authorisation (password changed, account disabled, or revoked): authorise again, nothing else changes"
    )]
    Withdrawn,
    /// The client's id or secret is wrong.
    #[error("Webex does not know the integration: correct its id and its secret, then authorise again")]
    Client,
    /// A token that was just given is refused.
    #[error(
        "Webex refuses a token that it has just given: the authorising administrator has lost a role; authorise again"
    )]
    Refused,
}

/// What came of asking for renewal.
#[derive(Debug)]
pub enum Renewal<'a> {
    /// Status and body.
    Answer(u16, &'a [u8]),
    /// No whole answer.
    None,
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Next {
    /// Nothing; the token is good.
    Use,
    /// Renew it, now; until then what there is may be used.
    Renew,
    /// Store what was received, then say so by [`Authorisation::stored`].
    Store(Grant),
    /// Not before this moment. What there is may be used meanwhile.
    Wait(Timestamp),
    /// An administrator has to authorise.
    Authorise(Option<Dead>),
}

/// An authorisation.
#[derive(Debug, Default)]
pub struct Authorisation {
    grant: Option<Grant>,
    received: Option<Grant>,
    dead: Option<Dead>,
    failures: u32,
    not_before: Option<Timestamp>,
    /// The token was refused by a request, and which one it was.
    refused_given_at: Option<Timestamp>,
}

impl Authorisation {
    /// With what is stored.
    pub fn new(grant: Option<Grant>) -> Self {
        Self { grant, ..Self::default() }
    }

    /// The token for requests. There may be one although the authorisation is dead: it lives until it ends.
    pub fn token(&self, now: Timestamp) -> Option<&str> {
        let grant = self.grant.as_ref()?;
        (now < grant.ends_at() && self.refused_given_at != Some(grant.given_at)).then_some(grant.access.as_str())
    }

    /// The token by which a new one is had.
    pub fn refresh(&self) -> Option<&str> {
        self.grant.as_ref().map(|grant| grant.refresh.as_str())
    }

    /// Why it is dead; none while it lives, or when there never was one.
    pub fn dead(&self) -> Option<Dead> {
        self.dead
    }

    /// What is to be done now.
    pub fn next(&self, now: Timestamp) -> Next {
        if let Some(received) = &self.received {
            return Next::Store(received.clone());
        }
        let Some(grant) = self.grant.as_ref().filter(|_| self.dead.is_none()) else {
            return Next::Authorise(self.dead);
        };
        if !grant.is_due(now) && self.refused_given_at != Some(grant.given_at) {
            return Next::Use;
        }
        // A pause that is longer than the longest is one of a clock that went back.
        let pause = self.not_before.filter(|until| *until > now && *until <= later(now, *RETRY_MS.end()));
        pause.map_or(Next::Renew, Next::Wait)
    }

    /// An administrator has authorised: what the service gave for the code. It has to be stored.
    pub fn authorised(&mut self, grant: Grant) {
        *self = Self { grant: self.grant.take(), received: Some(grant), ..Self::default() };
    }

    /// What came of asking for renewal.
    pub fn renewed(&mut self, renewal: &Renewal<'_>, now: Timestamp) {
        match renewal {
            Renewal::Answer(200..=299, body) => match Grant::read(body, self.grant.as_ref(), now) {
                Ok(grant) => self.received = Some(grant),
                Err(_) => self.failed(now),
            },
            Renewal::Answer(400 | 401, body) => self.dead = Some(death(body)),
            Renewal::Answer(..) | Renewal::None => self.failed(now),
        }
    }

    fn failed(&mut self, now: Timestamp) {
        let pause_ms = (*RETRY_MS.start() << self.failures.min(10)).min(*RETRY_MS.end());
        self.failures = self.failures.saturating_add(1);
        self.not_before = Some(later(now, pause_ms));
    }

    /// What [`Next::Store`] asked for is on the device. Only now what was there before is let go.
    pub fn stored(&mut self) {
        if let Some(received) = self.received.take() {
            let was_refused = self.refused_given_at.is_some();
            *self = Self { grant: Some(received), ..Self::default() };
            // A second refusal in a row is not about the token's age.
            self.failures = u32::from(was_refused);
        }
    }

    /// A request with the token was answered with 401.
    pub fn refused(&mut self) {
        let Some(grant) = &self.grant else { return };
        if self.failures > 0 && self.refused_given_at.is_none() && self.not_before.is_none() {
            self.dead = Some(Dead::Refused);
        }
        self.refused_given_at = Some(grant.given_at);
    }

    /// A request with the token was answered as it should be.
    pub fn accepted(&mut self) {
        if self.not_before.is_none() {
            self.failures = 0;
        }
    }
}

/// What a refusal of renewal says (RFC 6749 section 5.2).
fn death(body: &[u8]) -> Dead {
    let value: serde_json::Value = serde_json::from_slice(body).unwrap_or_default();
    match value.get("error").and_then(serde_json::Value::as_str) {
        Some("invalid_client" | "unauthorized_client") => Dead::Client,
        _ => Dead::Withdrawn,
    }
}
