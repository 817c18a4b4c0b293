//! Verdicts, and from where on something counts as degraded.

use serde::{Deserialize, Serialize};

/// What became of a session. Every session has exactly one; the flaws of its row say why.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// Everything that was sent was kept.
    Ok,
    /// It can be heard, and something of it is missing.
    Degraded,
    /// There was audio, and none of it can be read.
    Failed,
    /// Nothing was sent.
    NoMedia,
    /// It was not to be kept.
    Discarded,
}

impl Verdict {
    /// The name under which it is stored and shown.
    pub fn as_str(self) -> &'static str {
        match self {
            Verdict::Ok => "ok",
            Verdict::Degraded => "degraded",
            Verdict::Failed => "failed",
            Verdict::NoMedia => "no-media",
            Verdict::Discarded => "discarded",
        }
    }
}

/// Flaws noted by the recorder that mean missing or misplaced audio, hence a degraded recording. All others are remarks.
pub const DEGRADING_CODES: &[&str] = &[
    // The kernel or the recorder dropped packets that had arrived.
    "audio-dropped",
    // Packets that could not be decrypted or authenticated.
    "audio-undecipherable",
    // A media line was refused for want of a port.
    "ports-exhausted",
    // Journal time moved in a way that tracks cannot be aligned by.
    "clock-jump",
    // A journal could not be written for a while.
    "journal-write-failed",
    // A recorder died, and the next one does not know what it had received.
    "media-state-lost",
    // The session could not be resumed after a restart.
    "session-lost",
    // Less audio was brought than the recording is said to have.
    "import-shorter",
];

/// From where on a figure means a degraded recording.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Thresholds {
    /// Packets lost of a thousand sent. Codecs conceal less than a hundredth without anybody noticing.
    pub lost_permille: u64,
    /// Packets lost, below which a share means nothing: one of the thirty of a very short call is 3 %.
    pub lost_packets_min: u64,
    /// Milliseconds of audio missing in a track, whatever its share: a second is a word or two.
    pub gaps_ms: u64,
    /// Milliseconds that a track may stay without any packet, pauses apart, before its silence is a flaw. An offer is answered
    /// before media flows, and very short calls may have ended by then.
    pub silent_ms: u64,
}

impl Default for Thresholds {
    fn default() -> Self {
        Thresholds { lost_permille: 10, lost_packets_min: 5, gaps_ms: 1000, silent_ms: 2000 }
    }
}
