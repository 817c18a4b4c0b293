//! What signalling changes: everything that is remembered of a session.

use std::collections::BTreeMap;
use std::net::IpAddr;

use callvault_control::Decision;
use callvault_journal::facts::{CallFacts, Ended, SessionEvent, Started, TrackFacts};
use callvault_sip::DialogCheckpoint;
use callvault_siprec::{Metadata, Offer};
use callvault_srtp::MasterKey;
use serde::{Deserialize, Serialize};
use uuid::Uuid;
use zeroize::Zeroizing;

use super::form::{self, FormError, Kind};

/// See [the module](super). It is JSON, so that fields can be added without another version: those that are not there have defaults.
#[derive(Serialize, Deserialize)]
pub(crate) struct SessionCheckpoint {
    /// Names the time since the machine was started: journal time means something only within it.
    pub(crate) boot: Uuid,
    pub(crate) recording: Uuid,
    /// None once the session has ended.
    pub(crate) dialog: Option<DialogCheckpoint>,
    /// How it ended, until its end is durable.
    pub(crate) ended: Option<Ended>,
    pub(crate) started: Started,
    /// `From` of the INVITE.
    pub(crate) from: String,
    pub(crate) correlation: Option<String>,
    pub(crate) offer: Option<Offer>,
    /// `Err` where metadata came that could not be understood.
    pub(crate) metadata: Result<Option<Metadata>, ()>,
    pub(crate) call: CallFacts,
    pub(crate) tracks: Vec<SessionTrackCheckpoint>,
    pub(crate) answer: Option<AnswerCheckpoint>,
    pub(crate) raw_bodies: u32,
    pub(crate) raw_bytes: usize,
    pub(crate) flaws: Vec<String>,
    /// What becomes of the recording, once that is known.
    pub(crate) decision: Option<Decision>,
    /// The number of the last fact.
    pub(crate) facts: u64,
    /// Facts that are not known to be in the journal, with their numbers.
    pub(crate) unwritten: Vec<(u64, SessionEvent)>,
}

/// A track as the signalling sees it.
#[derive(Serialize, Deserialize)]
pub(crate) struct SessionTrackCheckpoint {
    pub(crate) media_line: usize,
    pub(crate) number: u8,
    /// The even port of its pair.
    pub(crate) port: u16,
    pub(crate) facts: TrackFacts,
    pub(crate) paused: bool,
    /// Journal time since when it is paused, or is not.
    pub(crate) since_ns: u64,
    pub(crate) remote: (Option<String>, u16),
    pub(crate) secured: bool,
}

/// What all answers of a dialog have in common.
#[derive(Serialize, Deserialize)]
pub(crate) struct AnswerCheckpoint {
    pub(crate) session_id: u64,
    pub(crate) version: u64,
    pub(crate) address: IpAddr,
    pub(crate) last: String,
    /// Our own SRTP keys by media line.
    pub(crate) own_keys: BTreeMap<usize, MasterKey>,
}

impl SessionCheckpoint {
    /// The bytes of the file.
    pub(super) fn pack(&self) -> Option<Zeroizing<Vec<u8>>> {
        let content = Zeroizing::new(serde_json::to_vec(self).ok()?);
        form::pack(Kind::Session, 0, &content)
    }

    /// Reads the bytes of a file that was written since the machine was started.
    pub(super) fn unpack(bytes: &[u8], boot: Uuid) -> Result<Self, FormError> {
        let (_, content) = form::unpack(Kind::Session, bytes)?;
        let session: Self = serde_json::from_slice(content).map_err(|_| FormError::Content("its fields"))?;
        if session.boot != boot {
            return Err(FormError::OtherBoot);
        }
        if session.dialog.is_none() && session.ended.is_none() {
            return Err(FormError::Content("neither a dialog nor an end"));
        }
        if session.dialog.is_some() && (session.offer.is_none() || session.answer.is_none()) {
            return Err(FormError::Content("a dialog without a session description"));
        }
        Ok(session)
    }

    /// Whether it holds keys that must not reach a disk.
    pub(super) fn holds_keys(&self) -> bool {
        let secured = self.tracks.iter().any(|track| track.secured);
        secured || self.answer.as_ref().is_some_and(|answer| !answer.own_keys.is_empty())
    }
}
