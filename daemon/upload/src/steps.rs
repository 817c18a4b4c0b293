//! The steps of a delivery to Voice Analytics, as a pure machine: it says what to do next and is told what came of it.
//!
//! ```text
//! nothing known ──▶ token ──▶ create ──▶ note (durable) ──▶ put ──▶ delivered
//!                    ▲  401, once │                          │ refused, once
//!                    └────────────┴──────────────────────────┘
//! noted before a crash ─────────────────────────────────▶ put
//! ```
//!
//! What was created is noted before anything is put, so whoever goes on after a crash puts to the same place again. A URL that is
//! refused is forgotten and another is made: at once if it came from an earlier attempt (they expire), at most once an attempt, and
//! at most [`REFUSALS_MAX`] times in a row for ones that were fresh.

use serde::{Deserialize, Serialize};

use crate::{Created, Meaning, Trouble};

/// Fresh URLs that may refuse a recording one after the other before it is taken for refused.
pub const REFUSALS_MAX: u32 = 5;

/// What is remembered of a delivery from its first step on. `Debug` shows nothing that is a permission.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Begun {
    /// The other side's identifier of the recording.
    pub remote_id: String,
    /// Goes into the header `x-amz-meta-state`.
    pub state: String,
    /// Where the audio is to be put; empty once it is not to be used any more.
    pub url: String,
    /// MD5 of the audio that was announced, in base64.
    pub md5: String,
    /// Fresh URLs that refused the audio in a row.
    pub refusals: u32,
}

impl std::fmt::Debug for Begun {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Begun").field("refusals", &self.refusals).finish_non_exhaustive()
    }
}

/// What to do next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Get an access token; with `renew`, another than the one that was refused. Then [`Delivery::has_token`].
    Token {
        /// Whether the one in use was refused.
        renew: bool,
    },
    /// Create the recording. Then [`Delivery::created`].
    Create,
    /// Remember this, durably. Then [`Delivery::noted`].
    Note(Begun),
    /// Put the audio. Then [`Delivery::put`].
    Put(Begun),
    /// It is delivered: remember this, and that it is.
    Delivered(Begun),
    /// It is not, this time.
    Stop(Trouble),
}

/// Where a delivery stands.
#[derive(Debug, Clone)]
pub struct Delivery {
    next: Action,
    begun: Begun,
    /// A token was refused and another was got.
    renewed: bool,
    /// A URL was refused in this attempt and another was made.
    again: bool,
    /// The URL in use was made in this attempt.
    fresh: bool,
}

impl Delivery {
    /// An attempt at delivering audio with this MD5 (base64), of which that much was done before.
    pub fn new(before: Option<Begun>, md5: &str) -> Self {
        let mut begun = before.unwrap_or_default();
        if begun.refusals >= REFUSALS_MAX {
            // It was given up for that, and somebody wants it tried again.
            begun.refusals = 0;
        }
        let goes_on = !begun.url.is_empty() && begun.md5 == md5;
        begun.md5 = md5.to_owned();
        let next = if goes_on { Action::Put(begun.clone()) } else { Action::Token { renew: false } };
        Self { next, begun, renewed: false, again: false, fresh: false }
    }

    /// What to do.
    pub fn next(&self) -> &Action {
        &self.next
    }

    /// There is a token now.
    pub fn has_token(&mut self) {
        self.next = Action::Create;
    }

    /// The answer to a create: what it means, how it is told in an error ("answered 400"), and what it gave when it is good.
    pub fn created(&mut self, meaning: Meaning, said: &str, gave: Result<Created, &'static str>) {
        self.next = match meaning {
            Meaning::Good => match gave {
                Ok(Created { presigned_url, state, recording_id }) => {
                    (self.begun.url, self.begun.state, self.begun.remote_id) = (presigned_url, state, recording_id);
                    self.fresh = true;
                    Action::Note(self.begun.clone())
                }
                Err(wrong) => {
                    Action::Stop(Trouble::Recording(format!("create the recording: the service answered, but {wrong}")))
                }
            },
            Meaning::Unauthorised if !self.renewed => {
                self.renewed = true;
                Action::Token { renew: true }
            }
            Meaning::Unauthorised => {
                let text = format!(
                    "create the recording: the service {said} to a fresh token; see analytics.scope and which rights the client has"
                );
                Action::Stop(Trouble::sink(text))
            }
            Meaning::Busy { wait_ms } => {
                let text = format!("create the recording: the service {said}; it is tried again by itself");
                Action::Stop(Trouble::Sink { wait_ms, text })
            }
            Meaning::Elsewhere => {
                let text =
                    format!("create the recording: the service {said}; is analytics.url (or analytics.proxy) right?");
                Action::Stop(Trouble::sink(text))
            }
            Meaning::Failed => Action::Stop(Trouble::Recording(format!("create the recording: the service {said}"))),
            Meaning::Refused => {
                let text = format!(
                    "create the recording: the service {said}, and will not have it; see that the owner is known there, then `callvaultctl jobs retry`"
                );
                Action::Stop(Trouble::Refused(text))
            }
        };
    }

    /// What was created, or given up, is on the disk.
    pub fn noted(&mut self) {
        self.next =
            if self.begun.url.is_empty() { Action::Token { renew: false } } else { Action::Put(self.begun.clone()) };
    }

    /// The answer to a put.
    pub fn put(&mut self, meaning: Meaning, said: &str) {
        self.next = match meaning {
            Meaning::Good => {
                // It is of no more use, and may still be a permission.
                self.begun.url.clear();
                Action::Delivered(self.begun.clone())
            }
            Meaning::Busy { wait_ms } => {
                let text = format!("put the audio: the service {said}; it is tried again by itself");
                Action::Stop(Trouble::Sink { wait_ms, text })
            }
            Meaning::Failed => Action::Stop(Trouble::Recording(format!("put the audio: the service {said}"))),
            Meaning::Unauthorised | Meaning::Elsewhere | Meaning::Refused => self.url_refused(said),
        };
    }

    fn url_refused(&mut self, said: &str) -> Action {
        self.begun.url.clear();
        if self.fresh {
            self.begun.refusals = self.begun.refusals.saturating_add(1);
        }
        if self.begun.refusals >= REFUSALS_MAX {
            let text = format!(
                "put the audio: the service {said}, {REFUSALS_MAX} times in a row with a URL that it had just given"
            );
            return Action::Stop(Trouble::Refused(text));
        }
        if self.again {
            return Action::Stop(Trouble::Recording(format!("put the audio: the service {said}")));
        }
        self.again = true;
        self.fresh = false;
        Action::Note(self.begun.clone())
    }

    /// What is to be remembered when it stops: a URL that was refused is not to be used again.
    pub fn begun(&self) -> &Begun {
        &self.begun
    }
}

#[cfg(test)]
mod tests;
