//! From what the signalling crates understood to what is written into the journal. The two vocabularies are kept apart on
//! purpose (one follows the peers, the other is a format that lasts for years); this is the one place where they meet.

use callvault_journal::facts::{self, CodecFacts, Direction, TrackFacts};
use callvault_media::{Encoding, PayloadType};
use callvault_siprec::{
    CallDirection, Flaw, HeaderParty, Metadata, NegotiatedTrack, Offer, Party, Signalling, SiprecError, TrackRole,
    session_facts,
};

use crate::sessions::Parties;

/// What is understood of a session.
pub(crate) struct Understood {
    pub(crate) call: facts::CallFacts,
    pub(crate) roles: Vec<TrackRole>,
    pub(crate) flaws: Vec<Flaw>,
}

/// The facts of the call from everything that is known of it now.
pub(crate) fn understand(
    parties: &Parties,
    offer: &Offer,
    metadata: Result<&Option<Metadata>, &SiprecError>,
) -> Understood {
    let signalling = Signalling {
        from: HeaderParty { display_name: parties.from.display_name(), uri: parties.from.uri().as_str() },
        broadworks_correlation: parties.correlation.as_deref(),
    };
    let facts = session_facts(&signalling, offer, metadata.map(Option::as_ref));
    Understood { call: call(facts.call), roles: facts.tracks, flaws: facts.flaws }
}

fn call(from: callvault_siprec::CallFacts) -> facts::CallFacts {
    facts::CallFacts {
        shape: from.shape,
        direction: match from.direction {
            CallDirection::Incoming => Direction::Incoming,
            CallDirection::Outgoing => Direction::Outgoing,
            CallDirection::Unknown => Direction::Unknown,
        },
        local: party(from.local),
        remotes: from.remotes.into_iter().map(party).collect(),
        call_id: from.call_id,
        tracking_id: from.tracking_id,
        service_provider_id: from.service_provider_id,
        group_id: from.group_id,
        recording_type: from.recording_type,
        redirected_from: from.redirected_from,
    }
}

fn party(from: Party) -> facts::Party {
    facts::Party { number: from.number, name: from.name, aor: from.aor, user_id: from.user_id, labels: from.labels }
}

/// What the journal says of a track.
pub(crate) fn track_facts(track: u8, from: &NegotiatedTrack) -> TrackFacts {
    TrackFacts {
        track,
        label: from.label.clone(),
        local: false,
        mixed: false,
        codecs: from
            .codecs
            .iter()
            .map(|c| CodecFacts {
                payload_type: c.payload_type,
                encoding: c.encoding.clone(),
                clock_rate: c.clock_rate,
                channels: c.channels,
                fmtp: c.fmtp.clone(),
            })
            .collect(),
    }
}

/// What the reception needs to know of a track.
pub(crate) fn payload_types(from: &TrackFacts) -> Vec<PayloadType> {
    from.codecs
        .iter()
        .map(|c| PayloadType {
            pt: c.payload_type,
            encoding: Encoding::named(&c.encoding),
            clock_rate: c.clock_rate,
            channels: c.channels,
        })
        .collect()
}

/// The word for a direction.
pub(crate) fn direction_name(direction: Direction) -> &'static str {
    match direction {
        Direction::Incoming => "incoming",
        Direction::Outgoing => "outgoing",
        Direction::Unknown => "unknown",
    }
}
