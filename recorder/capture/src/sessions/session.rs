//! What is remembered of a session.

use std::borrow::Cow;
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use callvault_journal::facts::{self, CallFacts};
use callvault_sip::Accept;
use callvault_siprec::{
    AnswerParams, DEFAULT_PREFERENCE, Metadata, NegotiatedTrack, Offer, SiprecError, answer_secured,
};
use callvault_srtp::Unprotector;
use callvault_srtp::sdes::CryptoAttribute;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::keys::{Agreed, OwnKeys};
use super::told::SnapshotRequests;
use super::{Moment, Parties, Todo};
use crate::convert;
use crate::ports::PortPair;
use crate::sweep::{Command, Counters, NewTrack};

/// One session: a dialog and the recording that comes of it.
pub(super) struct Session {
    /// The recording that is made, or was last made.
    pub(super) recording: Uuid,
    /// All of them, the first one first.
    pub(super) recordings: Vec<Uuid>,
    /// How the session began, for the recordings that begin later.
    pub(super) origin: facts::Started,
    /// What becomes of the recording.
    pub(super) kept: Kept,
    /// The recording has ended before the session.
    pub(super) stopped: bool,
    /// Nothing is stored for now because somebody asked for that here.
    pub(super) held_back: bool,
    /// When it was last changed what is paused or stopped, in journal time.
    pub(super) changed_ns: u64,
    pub(super) snapshots: SnapshotRequests,
    pub(super) started: Moment,
    pub(super) parties: Parties,
    pub(super) offer: Offer,
    pub(super) metadata: Result<Option<Metadata>, SiprecError>,
    pub(super) call: CallFacts,
    pub(super) tracks: Vec<SessionTrack>,
    pub(super) sdp: AnswerState,
    pub(super) raw_bodies: u32,
    /// Their bytes.
    pub(super) raw_bytes: usize,
    pub(super) flaws: Vec<Cow<'static, str>>,
    pub(super) counters: Arc<Counters>,
}

/// What becomes of a recording.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Kept {
    /// The daemon has not said.
    Undecided,
    /// It is kept.
    Yes,
    /// It is kept if somebody asks.
    OnDemand,
    /// Nobody can read it any more.
    Discarded,
}

/// A media line that is recorded.
pub(super) struct SessionTrack {
    pub(super) media_line: usize,
    pub(super) number: u8,
    pub(super) pair: Arc<PortPair>,
    pub(super) facts: facts::TrackFacts,
    /// Whether its facts are in the journal.
    pub(super) told: bool,
    /// Nothing is sent on it for now, by what the client signalled.
    pub(super) paused: bool,
    /// Where the client said it sends from.
    pub(super) remote: (Option<String>, u16),
    /// Its ports for RTP and RTCP when the track began.
    pub(super) remote_ports: (u16, Option<u16>),
    /// Whether what comes is SRTP.
    pub(super) secured: bool,
}

/// What all answers of a dialog have in common.
pub(super) struct AnswerState {
    pub(super) session_id: u64,
    pub(super) version: u64,
    pub(super) address: IpAddr,
    /// It may hold our keys: it is for the client alone.
    pub(super) last: String,
    /// It was an offer of ours, which the client's ACK answers.
    pub(super) is_offer: bool,
    pub(super) own_keys: OwnKeys,
}

impl Session {
    /// Whether nothing is sent on any track for now.
    pub(super) fn is_paused(&self) -> bool {
        self.tracks.iter().all(|track| track.paused)
    }

    /// Whether media has come in the session, in whichever of its recordings.
    pub(super) fn had_media(&self) -> bool {
        self.recordings.len() > 1 || self.counters.packets.load(Ordering::Relaxed) > 0
    }

    pub(super) fn add_track(&mut self, negotiated: &NegotiatedTrack, pair: Arc<PortPair>) -> &SessionTrack {
        let number = u8::try_from(self.tracks.len()).unwrap_or(u8::MAX);
        self.tracks.push(SessionTrack {
            media_line: negotiated.media_line,
            number,
            pair,
            facts: convert::track_facts(number, negotiated),
            told: false,
            paused: negotiated.paused,
            remote: remote(negotiated),
            remote_ports: (negotiated.remote_port, negotiated.remote_rtcp_port),
            secured: negotiated.secured,
        });
        &self.tracks[self.tracks.len() - 1]
    }
}

impl SessionTrack {
    /// For the sweep; `agreed` are the keys that it begins with.
    pub(super) fn to_new(&self, agreed: Option<&mut Agreed>, held_back: bool) -> NewTrack {
        let agreed = agreed.filter(|_| self.secured);
        let (unprotector, protector) =
            agreed.map_or((None, None), |agreed| (Some(agreed.unprotector()), agreed.take_protector()));
        NewTrack {
            number: self.number,
            pair: Arc::clone(&self.pair),
            payload_types: convert::payload_types(&self.facts),
            paused: self.paused || held_back,
            unprotector,
            protector,
            remote_ports: self.remote_ports,
        }
    }

    /// For the sweep, when it goes on; `keys` are those of the last offer.
    pub(super) fn to_resume(&self, keys: &[(u8, CryptoAttribute)], held_back: bool) -> NewTrack {
        let theirs = keys.iter().find(|(number, _)| *number == self.number);
        let unprotector = theirs.and_then(|(_, theirs)| Unprotector::new(theirs).ok());
        NewTrack { unprotector, ..self.to_new(None, held_back) }
    }

    /// The keys of a later offer, where the track has some or had some. They are told even when they stay: whether they do is for
    /// who holds them to see.
    pub(super) fn rekey(&mut self, recording: Uuid, secured: bool, agreed: Option<Agreed>) -> Option<Todo> {
        let was_secured = std::mem::replace(&mut self.secured, secured);
        let (keys, protector) = agreed.filter(|_| secured).map(Agreed::into_parts).unzip();
        let (keys, protector) = (keys.map(Box::new), protector.flatten());
        (was_secured || secured).then(|| Todo::Media(Command::Rekey { recording, track: self.number, keys, protector }))
    }

    /// A later offer describes the track. Where it says something new, the reception is to know.
    pub(super) fn change(&mut self, recording: Uuid, negotiated: &NegotiatedTrack) -> Option<Todo> {
        let mut later = convert::track_facts(self.number, negotiated);
        (later.local, later.mixed) = (self.facts.local, self.facts.mixed);
        let moved = std::mem::replace(&mut self.remote, remote(negotiated)) != remote(negotiated);
        let described = later != self.facts;
        if described {
            self.facts = later;
            self.told = false;
        }
        (moved || described).then(|| self.announce(recording))
    }

    /// Tells the reception that another source may send from now on.
    pub(super) fn announce(&self, recording: Uuid) -> Todo {
        let payload_types = convert::payload_types(&self.facts);
        Todo::Media(Command::Describe { recording, track: self.number, payload_types })
    }
}

fn remote(negotiated: &NegotiatedTrack) -> (Option<String>, u16) {
    (negotiated.remote_address.clone(), negotiated.remote_port)
}

impl AnswerState {
    pub(super) fn new(session_id: u64, address: IpAddr) -> Self {
        Self { session_id, version: 1, address, last: String::new(), is_offer: false, own_keys: OwnKeys::default() }
    }

    /// Offers what was said last (RFC 3261 section 14.2), but for pauses: whether the client sends is for it to say, and one that is
    /// offered `inactive` could never resume.
    pub(super) fn offer(&mut self) -> &str {
        self.is_offer = true;
        let text = self.last.replace("\r\na=inactive\r\n", "\r\na=recvonly\r\n");
        if text != self.last {
            let origin = |version| format!("o=callvault {} {version} ", self.session_id);
            self.last = text.replacen(&origin(self.version), &origin(self.version + 1), 1);
            self.version += 1;
        }
        &self.last
    }

    /// What the client's answer to an offer of ours describes. What we said stays as it is.
    pub(super) fn read_answer(
        &mut self,
        answer: &Offer,
        given: &HashMap<usize, Arc<PortPair>>,
        agreed: &HashMap<usize, Agreed>,
    ) -> Vec<NegotiatedTrack> {
        let (last, version) = (self.last.clone(), self.version);
        let tracks = self.answer(answer, given, agreed);
        (self.last, self.version) = (last, version);
        tracks
    }

    /// Answers an offer; the text is in `last`. Lines are taken that have a pair of ports.
    pub(super) fn answer(
        &mut self,
        offer: &Offer,
        given: &HashMap<usize, Arc<PortPair>>,
        agreed: &HashMap<usize, Agreed>,
    ) -> Vec<NegotiatedTrack> {
        let crypto: Vec<Option<&str>> =
            (0..offer.media.len()).map(|line| agreed.get(&line).map(Agreed::text)).collect();
        let ports: Vec<Option<(u16, u16)>> = (0..offer.media.len())
            .map(|line| given.get(&line).map(|pair| (pair.port, pair.port.saturating_add(1))))
            .collect();
        let say = |version| {
            let (address, session_id) = (self.address, self.session_id);
            let params = AnswerParams { address, session_id, version, ports: &ports, prefer: DEFAULT_PREFERENCE };
            answer_secured(offer, &params, &crypto)
        };
        let (mut text, tracks) = say(self.version);
        // The version rises only when something changed (RFC 3264 section 8).
        if !self.last.is_empty() && text != self.last {
            self.version += 1;
            text = say(self.version).0;
        }
        self.last = text;
        tracks
    }
}

/// A 200 with a session description.
pub(super) fn with_sdp(sdp: &str) -> Accept {
    Accept { body: Some(("application/sdp".to_owned(), sdp.as_bytes().to_vec())), ..Accept::default() }
}
