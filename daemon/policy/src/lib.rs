//! What the daemon decides about a call, as pure functions over facts: the row that a recording has in the catalogue, with its
//! verdict, from what the recorder wrote into the journal ([`summarise`]); and whether a call is kept ([`keep()`]). It has no
//! clock, no file, no database and no settings file: facts and settings come in as values, so the same facts give the same
//! row on every machine and in every year, and a catalogue can be rebuilt from journals and archives. How long a recording stays is
//! decided by [`retention`].
//!
//! Everything that happens to a session ends in exactly one [`Verdict`], so that the number of sessions accepted equals the sum
//! of the verdicts; what lies behind a verdict is in the row's flaws, with figures. Nothing fails here: facts that are missing,
//! contradictory or of a newer version give a row that says so.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod call;
mod damage;
mod heard;
mod keep;
mod link;
pub mod overload;
mod owner;
mod pauses;
pub mod retention;
mod summary;
mod track;
mod traffic;
mod verdict;

pub use call::fold_call;
pub use damage::{Anchor, Damage, HeardCodec, RestartLoss, TrackClock};
pub use heard::{LISTENED_MS_MIN, TrackHeard, flaws_heard};
pub use keep::{Filters, KeepVerdict, PolicySettings, RecordingMode, keep, rules};
pub use link::links;
pub use owner::{Owner, Ownership, owner, traffic_by};
pub use summary::{FLAWS_MAX, Summary, summarise, summarise_with};
pub use track::TrackSummary;
pub use traffic::{EXTENSION_DIGITS_MAX, Traffic, traffic};
pub use verdict::{DEGRADING_CODES, Thresholds, Verdict};
