//! From signalling to the facts of a session: who is recorded, whom they talk to, which media line carries whom.

mod binding;
mod vendor;

use serde::Serialize;

use crate::error::SiprecError;
use crate::flaw::{Flaw, note};
use crate::metadata::{BroadworksFacts, CallLeg, DataMode, Metadata, Participant, Shape};
use crate::number::{comparable, may_be_same, number_of};
use crate::sdp::Offer;
use binding::Bindings;
use vendor::{add_built_in_bridge, add_vendor, is_calling};

/// A party as a SIP header names it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct HeaderParty<'a> {
    /// Display name, with or without its quotes.
    pub display_name: Option<&'a str>,
    /// The URI.
    pub uri: &'a str,
}

/// What the SIP headers of the session's INVITE say. They stay those of the first INVITE for the life of the dialog.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Signalling<'a> {
    /// `From`. BroadWorks and Webex put the recorded user there, whichever way the call went.
    pub from: HeaderParty<'a>,
    /// `X-BroadWorks-Correlation-Info`: the first `extTrackingID`.
    pub broadworks_correlation: Option<&'a str>,
}

/// Which way the call went, seen from the recorded user.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum CallDirection {
    /// The recorded user was called.
    Incoming,
    /// The recorded user called.
    Outgoing,
    /// Nothing in the signalling says.
    #[default]
    Unknown,
}

/// One party of a call.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Party {
    /// Number as signalled (E.164, extension), without scheme and domain.
    pub number: Option<String>,
    /// Display name.
    pub name: Option<String>,
    /// Address of record as it came.
    pub aor: Option<String>,
    /// The peer's own id of the user (BroadWorks `userID`).
    pub user_id: Option<String>,
    /// Labels of the media lines that this party sends.
    pub labels: Vec<String>,
}

/// Who talks to whom, as far as the signalling says.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct CallFacts {
    /// Shape of the metadata ([`Shape::as_str`]); empty when there was none.
    pub shape: String,
    /// Seen from the recorded user.
    pub direction: CallDirection,
    /// The recorded user.
    pub local: Party,
    /// The others: the main remote party first, those who have left last.
    pub remotes: Vec<Party>,
    /// BroadWorks `callID`; else the recorded dialog's SIP session id; else the metadata's session id.
    pub call_id: Option<String>,
    /// BroadWorks `extTrackingID`: the same for both halves of an internal call.
    pub tracking_id: Option<String>,
    /// BroadWorks `serviceProviderID` (the Webex organisation).
    pub service_provider_id: Option<String>,
    /// BroadWorks `groupID` (the Webex location).
    pub group_id: Option<String>,
    /// BroadWorks `recordingType`, as it came.
    pub recording_type: Option<String>,
    /// Number the call was first meant for, when it was redirected.
    pub redirected_from: Option<String>,
}

/// Whom a media line carries.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TrackRole {
    /// Place of the media line in the offer, from 0.
    pub media_line: usize,
    /// Its label.
    pub label: String,
    /// Whether it is the recorded user's own voice and nobody else's.
    pub local: bool,
    /// Whether all parties are mixed into it.
    pub mixed: bool,
}

/// The facts of a session, as its signalling stands now.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct SessionFacts {
    /// Who talks to whom.
    pub call: CallFacts,
    /// A role for each media line with audio, in the order of the offer.
    pub tracks: Vec<TrackRole>,
    /// What was not as it should be: in the offer, in the metadata, or between them.
    pub flaws: Vec<Flaw>,
}

/// Brings headers, offer and metadata together. To be called again, with the same headers and the merged metadata, whenever an
/// offer or metadata comes.
///
/// `metadata` is what [`Metadata::parse`] gave: `Ok(None)` where the client sent none, `Err` where it cannot be read; the
/// session has facts either way.
pub fn session_facts(
    signalling: &Signalling<'_>,
    offer: &Offer,
    metadata: Result<Option<&Metadata>, &SiprecError>,
) -> SessionFacts {
    let mut flaws = offer.flaws.clone();
    note_metadata(metadata, &mut flaws);
    note_security(offer, &mut flaws);
    let metadata = metadata.unwrap_or_default();
    let local = metadata.and_then(|known| local_participant(signalling, known));
    let bindings = Bindings::new(offer, metadata, &mut flaws);
    let mut tracks = bindings.roles(local);
    let call = match metadata {
        Some(known) => known_call(signalling, known, local, &bindings),
        None => bare_call(signalling, &mut tracks),
    };
    SessionFacts { call, tracks, flaws }
}

fn note_metadata(metadata: Result<Option<&Metadata>, &SiprecError>, flaws: &mut Vec<Flaw>) {
    match metadata {
        Err(error @ SiprecError::MetadataMalformed { .. }) => {
            note(flaws, Flaw::new("metadata-malformed", format!("failed to {error}")));
        }
        Err(error) => note(flaws, Flaw::new("metadata-refused", format!("failed to {error}"))),
        Ok(None) => note(flaws, Flaw::new("metadata-missing", "the client sent no recording metadata")),
        Ok(Some(known)) => {
            for flaw in &known.flaws {
                note(flaws, flaw.clone());
            }
            if known.datamode == DataMode::Partial {
                note(
                    flaws,
                    Flaw::new("metadata-partial", "the client sent changes to metadata that it had not sent before"),
                );
            }
            if known.participants.is_empty() {
                note(flaws, Flaw::new("participants-missing", "the metadata names no participant"));
            } else if known.participants.iter().any(Participant::is_placeholder) {
                note(
                    flaws,
                    Flaw::new(
                        "participant-placeholder",
                        "the metadata has the client itself in the place of a participant",
                    ),
                );
            }
        }
    }
}

fn note_security(offer: &Offer, flaws: &mut Vec<Flaw>) {
    for (index, line) in offer.recordable() {
        if line.is_secure() && line.crypto.is_empty() {
            note(
                flaws,
                Flaw::new("srtp-without-key", format!("media line {} asks for SRTP and gives no key", index + 1)),
            );
        }
    }
}

/// Index of the recorded user among the participants.
fn local_participant(signalling: &Signalling<'_>, metadata: &Metadata) -> Option<usize> {
    let participants = &metadata.participants;
    let first = participants.iter().position(|participant| !participant.is_placeholder())?;
    if let Some(broadworks) = &metadata.broadworks {
        let user_id = broadworks.user_id.as_deref();
        let named = user_id.and_then(|id| position_of(participants, id));
        return Some(named.unwrap_or(first));
    }
    let recorded = metadata.vendor.as_ref().and_then(|vendor| number_of(vendor.recorded.as_deref()?));
    if let Some(index) = recorded.and_then(|number| position_of_number(participants, &number)) {
        return Some(index);
    }
    position_of(participants, signalling.from.uri)
        .or_else(|| from_number(signalling).and_then(|number| position_of_number(participants, &number)))
        .or_else(|| sole_sender_of_first(metadata))
        .or(Some(first))
}

fn position_of(participants: &[Participant], address: &str) -> Option<usize> {
    let wanted = comparable(address);
    let is_it = |participant: &Participant| participant.aors.iter().any(|aor| comparable(aor) == wanted);
    participants.iter().position(|participant| is_it(participant) && !participant.is_placeholder())
}

fn position_of_number(participants: &[Participant], number: &str) -> Option<usize> {
    participants
        .iter()
        .position(|participant| participant.aors.iter().filter_map(|aor| number_of(aor)).any(|own| own == number))
}

/// Who sends the stream with label 1, or did before going on hold, if one participant does so alone.
fn sole_sender_of_first(metadata: &Metadata) -> Option<usize> {
    let stream = metadata.streams.iter().find(|stream| stream.label.as_deref() == Some("1"))?;
    let mut senders = metadata
        .participants
        .iter()
        .enumerate()
        .filter(|(_, participant)| participant.has_sent(&stream.id) && !participant.is_gone());
    let (index, sender) = senders.next()?;
    (senders.next().is_none() && !sender.is_placeholder()).then_some(index)
}

fn from_number(signalling: &Signalling<'_>) -> Option<String> {
    number_of(signalling.from.uri)
}

fn from_name(signalling: &Signalling<'_>) -> Option<String> {
    let name = signalling.from.display_name?.trim();
    let name = match name.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')) {
        Some(quoted) => quoted.replace("\\\"", "\"").replace("\\\\", "\\"),
        None => name.to_owned(),
    };
    let name = name.trim();
    (!name.is_empty()).then(|| name.chars().take(crate::TEXT_CHARS_MAX).collect())
}

/// Without metadata the headers are all there is; their `From` is the recorded user for the clients that matter most.
fn bare_call(signalling: &Signalling<'_>, tracks: &mut [TrackRole]) -> CallFacts {
    let labels = |local: bool| {
        tracks.iter().filter(|track| track.mixed || track.local == local).map(|track| track.label.clone()).collect()
    };
    let mut call = CallFacts {
        local: Party {
            number: from_number(signalling),
            name: from_name(signalling),
            aor: aor_of(signalling),
            user_id: None,
            labels: labels(true),
        },
        tracking_id: tracking_of(signalling),
        ..CallFacts::default()
    };
    add_built_in_bridge(&mut call, tracks, signalling);
    call
}

fn aor_of(signalling: &Signalling<'_>) -> Option<String> {
    let uri = signalling.from.uri.trim();
    (!uri.is_empty()).then(|| uri.to_owned())
}

fn tracking_of(signalling: &Signalling<'_>) -> Option<String> {
    let id = signalling.broadworks_correlation?.trim();
    (!id.is_empty()).then(|| id.chars().take(crate::TEXT_CHARS_MAX).collect())
}

fn known_call(
    signalling: &Signalling<'_>,
    metadata: &Metadata,
    local: Option<usize>,
    bindings: &Bindings<'_>,
) -> CallFacts {
    let party = |(index, participant): (usize, &Participant)| Party {
        number: participant.aors.iter().find_map(|aor| number_of(aor)),
        name: participant.name().map(str::to_owned),
        aor: participant.aors.first().cloned(),
        user_id: None,
        labels: bindings.labels_of(index),
    };
    let others = || {
        let all = metadata.participants.iter().enumerate();
        all.filter(move |(index, participant)| Some(*index) != local && !participant.is_placeholder())
    };
    let active = others().filter(|(_, participant)| participant.is_active());
    let gone = others().filter(|(_, participant)| !participant.is_active());
    let active_count = active.clone().count();
    let mut call = CallFacts {
        shape: metadata.shape.as_str().to_owned(),
        local: local.and_then(|index| Some((index, metadata.participants.get(index)?))).map(party).unwrap_or_default(),
        remotes: active.chain(gone).map(party).collect(),
        call_id: call_id_of(metadata),
        tracking_id: tracking_of(signalling),
        ..CallFacts::default()
    };
    match &metadata.broadworks {
        Some(broadworks) => add_broadworks(&mut call, signalling, broadworks, active_count),
        None => {
            add_header(&mut call, signalling, metadata.shape);
            let vendor = metadata.vendor.clone().unwrap_or_default();
            add_vendor(&mut call, &vendor, is_calling(metadata, local), active_count);
        }
    }
    call
}

/// The recorded dialog's own id where the metadata tells it, else that of the metadata's session.
fn call_id_of(metadata: &Metadata) -> Option<String> {
    let sessions = &metadata.sessions;
    let told = sessions.iter().find_map(|session| session.sip_session_ids.first());
    told.or_else(|| sessions.first().map(|session| &session.id)).cloned()
}

/// Fills in from the headers what the metadata leaves open about a local party that the headers name too.
fn add_header(call: &mut CallFacts, signalling: &Signalling<'_>, shape: Shape) {
    let same = call.local.aor.as_deref().is_some_and(|aor| comparable(aor) == comparable(signalling.from.uri));
    let number = from_number(signalling);
    if call.local.aor.is_none() && call.remotes.is_empty() {
        // The metadata names nobody: as good as none.
        call.local.number = number;
        call.local.name = from_name(signalling);
        call.local.aor = aor_of(signalling);
    } else if same || (number.is_some() && number == call.local.number && shape != Shape::Unknown) {
        call.local.name = call.local.name.take().or_else(|| from_name(signalling));
    }
}

/// `active_count`: how many of the remotes, from the first, still take part.
fn add_broadworks(
    call: &mut CallFacts,
    signalling: &Signalling<'_>,
    broadworks: &BroadworksFacts,
    active_count: usize,
) {
    let number = |text: &Option<String>| text.as_deref().and_then(number_of);
    let calling = number(&broadworks.calling_number);
    let called = number(&broadworks.called_number);
    let (direction, own, other) = match broadworks.leg {
        Some(CallLeg::Originating) => {
            let called = called.or_else(|| number(&broadworks.dialed_digits));
            (CallDirection::Outgoing, calling, called)
        }
        Some(CallLeg::Terminating) => (CallDirection::Incoming, called, calling),
        None => (CallDirection::Unknown, None, None),
    };
    call.direction = direction;
    call.local.number = from_number(signalling).or(own).or(call.local.number.take());
    call.local.name = from_name(signalling).or(call.local.name.take());
    call.local.user_id = broadworks.user_id.clone();
    if let Some(other) = other {
        name_main_remote(&mut call.remotes, active_count, other);
    }
    call.call_id = broadworks.call_id.clone().or(call.call_id.take());
    call.tracking_id = broadworks.ext_tracking_id.clone().or(call.tracking_id.take());
    call.service_provider_id = broadworks.service_provider_id.clone();
    call.group_id = broadworks.group_id.clone();
    call.recording_type = broadworks.recording_type.clone();
    call.redirected_from =
        number(&broadworks.orig_called_number).or_else(|| number(&broadworks.last_redirect_number)).or_else(|| {
            let transfer = broadworks.redirected_call.as_ref()?;
            number(&transfer.from_number)
        });
}

/// Puts the party that has the call's other number first, and gives it that number: the participants' own addresses are
/// often internal ones. When that party has left, the others keep what they have.
fn name_main_remote(remotes: &mut Vec<Party>, active_count: usize, number: String) {
    let has_number = |party: &Party| party.number.as_deref().is_some_and(|own| may_be_same(own, &number));
    let main = match remotes.iter().position(has_number) {
        Some(index) => index,
        None if remotes.is_empty() => {
            remotes.push(Party { number: Some(number), ..Party::default() });
            return;
        }
        None => 0,
    };
    // Two different full numbers are two people: the call has moved on to someone else.
    let is_other = remotes[main]
        .number
        .as_deref()
        .is_some_and(|own| own.starts_with('+') && number.starts_with('+') && own != number);
    if !is_other {
        remotes[main].number = Some(number);
    }
    if main < active_count {
        remotes[..=main].rotate_right(1);
    }
}

#[cfg(test)]
mod tests;
