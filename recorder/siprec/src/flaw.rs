//! Flaws: what was not as it should be, and did not stop the recording.

use serde::Serialize;

/// Most flaws that one body or one session is noted with: a peer must not be able to make a recording's facts grow at will.
const FLAWS_MAX: usize = 32;

/// Something noted that does not stop the recording.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Flaw {
    /// Stable short name, for example "metadata-missing".
    pub code: &'static str,
    /// One sentence for people, without personal data.
    pub text: String,
}

impl Flaw {
    /// A flaw with this code and text.
    pub fn new(code: &'static str, text: impl Into<String>) -> Self {
        Flaw { code, text: text.into() }
    }
}

/// Adds a flaw once: the same one again, or one above the limit, is dropped.
pub(crate) fn note(flaws: &mut Vec<Flaw>, flaw: Flaw) {
    if flaws.len() < FLAWS_MAX && !flaws.contains(&flaw) {
        flaws.push(flaw);
    }
}
