//! The key that checkpoints are sealed under.

use std::fmt;

use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

/// Length of the key in bytes.
pub const CHECKPOINT_KEY_BYTES: usize = 32;

/// The key that checkpoints are sealed under: it is in the memory of the daemon and of its recorder and nowhere else, is wiped when dropped, and
/// never shown.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckpointKey(Zeroizing<[u8; CHECKPOINT_KEY_BYTES]>);

impl CheckpointKey {
    /// The key that these bytes are; the copy the caller holds is the caller's to wipe.
    #[must_use]
    pub fn from_bytes(bytes: [u8; CHECKPOINT_KEY_BYTES]) -> Self {
        Self(Zeroizing::new(bytes))
    }

    /// The bytes.
    #[must_use]
    pub fn expose(&self) -> &[u8; CHECKPOINT_KEY_BYTES] {
        &self.0
    }
}

impl fmt::Debug for CheckpointKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[secret]")
    }
}
