//! Whether a request asks for a recording.

use crate::message::{NameAddr, Request};
use crate::multipart::bodies;

/// The extensions (RFC 3261 section 20.32) that a request may require of us.
///
/// `100rel` is among them because we send no provisional response but 100, which the rule does not touch; `record-aware` because it
/// asks nothing of a recording server.
pub const OPTIONS_UNDERSTOOD: [&str; 4] = ["siprec", "timer", "100rel", "record-aware"];

/// What in a request speaks for a recording session. RFC 7866 section 6.2 asks for the feature tag and the option tag together;
/// clients in the field send either, both, misspelt, or neither.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RecordingHints {
    /// `Require: siprec`.
    pub required: bool,
    /// `Supported: siprec`. Tells nothing alone (RFC 7866 section 11.1.1), and does not count.
    pub supported: bool,
    /// `+sip.src`, `src` or `+sip-src` on the Contact or, misplaced, inside its URI.
    pub contact_tag: bool,
    /// A body part with recording metadata.
    pub metadata: bool,
    /// `X-Cisco-Recording-Participant`: recording without SIPREC, from Cisco's network-based recording.
    pub cisco_participant: bool,
    /// Extensions that the request requires and that are not among [`OPTIONS_UNDERSTOOD`].
    pub unknown_required: Vec<String>,
}

impl RecordingHints {
    /// Whether the request asks for a recording: any of the signs is enough.
    #[must_use]
    pub fn is_recording(&self) -> bool {
        self.required || self.contact_tag || self.metadata || self.cisco_participant
    }
}

/// Collects what in the request speaks for a recording session. Whether its source may record is not asked here.
#[must_use]
pub fn is_recording_session(request: &Request) -> RecordingHints {
    let headers = &request.headers;
    let contact_tag = headers.list("Contact").into_iter().any(|contact| {
        let contact = NameAddr::parse(contact);
        ["+sip.src", "src", "+sip-src"].into_iter().any(|tag| contact.has_param(tag))
    });
    let names = |header: &str, option: &str| headers.list(header).iter().any(|item| item.eq_ignore_ascii_case(option));
    RecordingHints {
        required: names("Require", "siprec"),
        supported: names("Supported", "siprec"),
        contact_tag,
        metadata: bodies(request).is_ok_and(|bodies| bodies.recording_metadata().is_some()),
        cisco_participant: headers.get("X-Cisco-Recording-Participant").is_some(),
        unknown_required: unknown_required(request),
    }
}

/// The extensions that the request requires and that we do not have.
pub(crate) fn unknown_required(request: &Request) -> Vec<String> {
    let understood = |item: &&str| OPTIONS_UNDERSTOOD.iter().any(|known| known.eq_ignore_ascii_case(item));
    request.headers.list("Require").into_iter().filter(|item| !understood(item)).map(str::to_owned).collect()
}
