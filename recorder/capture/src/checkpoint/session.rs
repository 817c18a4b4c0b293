//! What signalling changes: everything that is remembered of a session, and of a recording that has ended and whose end is not durable.
//!
//! The content is JSON, so that fields can be added without another version: in newer versions they have defaults. A session's has the
//! dialog behind it: the length of the JSON (u32), the JSON, the version of the dialog's content (u16), and that content (postcard).

use std::collections::BTreeMap;
use std::net::IpAddr;

use callvault_journal::facts::{CallFacts, Ended, SessionEvent, Started, TrackFacts};
use callvault_sip::{DIALOG_CHECKPOINT_VERSION, DialogCheckpoint};
use callvault_siprec::{Metadata, Offer};
use callvault_srtp::MasterKey;
use serde::{Deserialize, Serialize};
use uuid::Uuid;
use zeroize::Zeroizing;

use super::form::{FormError, Kind, Seal};
use crate::sessions::{Kept, SnapshotRequests};

/// A session that lives.
#[derive(Serialize, Deserialize)]
pub(crate) struct SessionCheckpoint {
    /// Names the time since the machine was started: journal time means something only within it.
    pub(crate) boot: Uuid,
    #[serde(skip)]
    pub(crate) dialog: Option<DialogCheckpoint>,
    /// The recording that is made, or was last made.
    pub(crate) recording: RecordingCheckpoint,
    pub(crate) recordings: Vec<Uuid>,
    pub(crate) origin: Started,
    pub(crate) stopped: bool,
    pub(crate) held_back: bool,
    /// When it was last changed what is paused or stopped.
    pub(crate) changed_ns: u64,
    pub(crate) snapshots: SnapshotRequests,
    /// Journal time and wall clock of the INVITE.
    pub(crate) started: (u64, i64),
    /// `From` of the INVITE.
    pub(crate) from: String,
    pub(crate) correlation: Option<String>,
    pub(crate) offer: Offer,
    /// `Err` where metadata came that could not be understood.
    pub(crate) metadata: Result<Option<Metadata>, ()>,
    pub(crate) tracks: Vec<SessionTrackCheckpoint>,
    pub(crate) answer: AnswerCheckpoint,
    pub(crate) raw_bodies: u32,
    pub(crate) raw_bytes: usize,
    pub(crate) flaws: Vec<String>,
}

/// A recording that has ended, until its end is durable.
#[derive(Serialize, Deserialize)]
pub(crate) struct EndedCheckpoint {
    pub(crate) boot: Uuid,
    pub(crate) recording: RecordingCheckpoint,
    pub(crate) ended: Ended,
    /// The tracks whose sockets are to be emptied; none where the session went on.
    pub(crate) tracks: Vec<SessionTrackCheckpoint>,
    pub(crate) changed_ns: u64,
}

/// A recording as the signalling sees it.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct RecordingCheckpoint {
    pub(crate) recording: Uuid,
    /// How often it was gone on with.
    pub(crate) segment: u16,
    pub(crate) kept: Kept,
    pub(crate) started: Started,
    pub(crate) call: CallFacts,
    /// The number of the last fact.
    pub(crate) facts: u64,
    /// Facts that are not known to be in the journal, with their numbers.
    pub(crate) unwritten: Vec<(u64, SessionEvent)>,
}

/// A track as the signalling sees it.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct SessionTrackCheckpoint {
    pub(crate) media_line: usize,
    pub(crate) number: u8,
    /// The even port of its pair.
    pub(crate) port: u16,
    pub(crate) facts: TrackFacts,
    pub(crate) paused: bool,
    pub(crate) remote: (Option<String>, u16),
    pub(crate) remote_ports: (u16, Option<u16>),
    pub(crate) secured: bool,
}

/// What all answers of a dialog have in common.
#[derive(Serialize, Deserialize)]
pub(crate) struct AnswerCheckpoint {
    pub(crate) session_id: u64,
    pub(crate) version: u64,
    pub(crate) address: IpAddr,
    pub(crate) last: String,
    /// Whether that was an offer of ours, whose answer is to come.
    pub(crate) is_offer: bool,
    /// Our own SRTP keys by media line.
    pub(crate) own_keys: BTreeMap<usize, MasterKey>,
}

impl SessionCheckpoint {
    /// The name of its file: the first of its recordings.
    pub(crate) fn name(&self) -> Uuid {
        self.recordings.first().copied().unwrap_or(self.recording.recording)
    }

    /// The bytes of the file.
    pub(super) fn pack(&self, seal: &Seal) -> Option<Vec<u8>> {
        let json = Zeroizing::new(serde_json::to_vec(self).ok()?);
        let mut content = Zeroizing::new(Vec::with_capacity(json.len() + 4_096));
        content.extend_from_slice(&u32::try_from(json.len()).ok()?.to_le_bytes());
        content.extend_from_slice(&json);
        content.extend_from_slice(&DIALOG_CHECKPOINT_VERSION.to_le_bytes());
        content.extend_from_slice(&Zeroizing::new(postcard::to_allocvec(self.dialog.as_ref()?).ok()?));
        seal.pack(Kind::Session, 0, &content)
    }

    /// Reads the bytes of a file that was written since the machine was started.
    pub(super) fn unpack(seal: &Seal, bytes: &[u8], boot: Uuid) -> Result<Self, FormError> {
        let (_, content) = seal.unpack(Kind::Session, bytes)?;
        let (length, rest) = content.split_first_chunk::<4>().ok_or(FormError::Damaged)?;
        let length = usize::try_from(u32::from_le_bytes(*length)).map_err(|_| FormError::Damaged)?;
        let (json, rest) = rest.split_at_checked(length).ok_or(FormError::Damaged)?;
        let (version, dialog) = rest.split_first_chunk::<2>().ok_or(FormError::Damaged)?;
        let found = u16::from_le_bytes(*version);
        if found != DIALOG_CHECKPOINT_VERSION {
            return Err(FormError::Version { found });
        }
        let mut session: Self = serde_json::from_slice(json).map_err(|_| FormError::Content("its fields"))?;
        if session.boot != boot {
            return Err(FormError::OtherBoot);
        }
        session.dialog = Some(postcard::from_bytes(dialog).map_err(|_| FormError::Content("its dialog"))?);
        Ok(session)
    }
}

impl EndedCheckpoint {
    /// The bytes of the file.
    pub(super) fn pack(&self, seal: &Seal) -> Option<Vec<u8>> {
        let content = Zeroizing::new(serde_json::to_vec(self).ok()?);
        seal.pack(Kind::Ended, 0, &content)
    }

    /// Reads the bytes of a file that was written since the machine was started.
    pub(super) fn unpack(seal: &Seal, bytes: &[u8], boot: Uuid) -> Result<Self, FormError> {
        let (_, content) = seal.unpack(Kind::Ended, bytes)?;
        let ended: Self = serde_json::from_slice(&content).map_err(|_| FormError::Content("its fields"))?;
        if ended.boot == boot { Ok(ended) } else { Err(FormError::OtherBoot) }
    }
}
