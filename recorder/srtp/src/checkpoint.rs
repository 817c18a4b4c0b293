//! What a call needs to be gone on with in another process.

use serde::{Deserialize, Serialize};

use crate::MasterKey;
use crate::sdes::SessionParams;
use crate::source::Sources;
use crate::unprotect::Counts;

/// The state of an [`Unprotector`](crate::Unprotector): keys, and for each the rollover counters and replay windows of its sources.
///
/// It serialises with its keys in the clear, so it belongs into memory (a file system in memory included) and nowhere else. Its form
/// belongs to this version: who stores it writes a version beside it.
#[derive(Debug, Serialize, Deserialize)]
pub struct Checkpoint {
    pub(crate) keys: Vec<KeyCheckpoint>,
    pub(crate) previous: Vec<KeyCheckpoint>,
    pub(crate) packets_since_change: u64,
    pub(crate) counts: Counts,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct KeyCheckpoint {
    pub(crate) master: MasterKey,
    pub(crate) mki: Vec<u8>,
    pub(crate) lifetime_packets: u64,
    pub(crate) encrypted: bool,
    pub(crate) rtp: Sources,
    pub(crate) rtcp: Sources,
}

/// The state of a [`Protector`](crate::Protector). As with [`Checkpoint`], it belongs into memory only.
#[derive(Debug, Serialize, Deserialize)]
pub struct SendingCheckpoint {
    pub(crate) master: MasterKey,
    pub(crate) mki: Vec<u8>,
    pub(crate) params: SessionParams,
    /// SSRC and newest index of each source.
    pub(crate) sources: Vec<(u32, u64)>,
    pub(crate) rtcp_index: u64,
}
