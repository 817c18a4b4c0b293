//! What clients other than BroadWorks add to say which call is recorded: Metaswitch, Oracle, Ribbon, AudioCodes, Avaya.
//!
//! Each has a place and words of its own for the same few things, so each is a named reading here and they fill one form.

use roxmltree::Node;
use serde::{Deserialize, Serialize};

use super::xml::{child, child_text, local_name, text};
use super::{CallLeg, Session, take_some};

/// What a client's own data says of the call. Parties are as they came: numbers, URIs, or whole header values.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct VendorCall {
    /// Who called.
    pub calling: Option<String>,
    /// Who was called.
    pub called: Option<String>,
    /// What was dialled, which may have prefixes that are no part of a number.
    pub dialed: Option<String>,
    /// Who is recorded.
    pub recorded: Option<String>,
    /// The name of who is recorded.
    pub recorded_name: Option<String>,
    /// Which half of the call is recorded.
    pub leg: Option<CallLeg>,
    /// The Call-ID of the recorded dialog.
    pub call_id: Option<String>,
    /// An id that all parts of a call share: a universal call id (UCID) as its 16 hexadecimal digits, or the client's own.
    pub tracking_id: Option<String>,
    /// The customer's group that the recorded user belongs to.
    pub group_id: Option<String>,
}

impl VendorCall {
    /// Reads what there is anywhere in the document; none where no client's words are known.
    pub(super) fn read(root: Node<'_, '_>, sessions: &[Session]) -> Option<VendorCall> {
        let mut call = VendorCall::default();
        for node in root.descendants().filter(Node::is_element) {
            match local_name(node).as_str() {
                "metaswitchrecordingmetadata" => call.read_metaswitch(node),
                "calldata" => call.read_ribbon(node),
                // Oracle's, and AudioCodes' name for the same.
                "ucid" | "avayaucid" => take_some(&mut call.tracking_id, text(node).map(|id| ucid(&id).unwrap_or(id))),
                _ => {}
            }
        }
        if call.tracking_id.is_none() {
            // Avaya's border element has no element for it: it is the session's id.
            call.tracking_id = sessions.iter().find_map(|session| ucid(&session.id));
        }
        (call != VendorCall::default()).then_some(call)
    }

    fn read_metaswitch(&mut self, node: Node<'_, '_>) {
        self.leg = match child_text(node, "calltype").map(|half| half.to_ascii_lowercase()).as_deref() {
            Some("originating") => Some(CallLeg::Originating),
            Some("terminating") => Some(CallLeg::Terminating),
            _ => None,
        };
        self.recorded = child_text(node, "recordedparty");
        self.recorded_name = child_text(node, "username");
        self.group_id = child_text(node, "businessgroup");
        self.calling = child_text(node, "callingpartynumber");
        self.dialed = child_text(node, "dialeddigits");
        match self.leg {
            Some(CallLeg::Originating) if self.calling.is_none() => self.calling.clone_from(&self.recorded),
            Some(CallLeg::Terminating) => self.called.clone_from(&self.recorded),
            _ => {}
        }
    }

    fn read_ribbon(&mut self, node: Node<'_, '_>) {
        take_some(&mut self.calling, child_text(node, "fromhdr"));
        take_some(&mut self.called, child_text(node, "tohdr"));
        take_some(&mut self.call_id, child_text(node, "callid"));
        take_some(&mut self.tracking_id, child_text(node, "gcid"));
    }

    /// Takes over what a later document says.
    pub(super) fn update(&mut self, later: VendorCall) {
        take_some(&mut self.calling, later.calling);
        take_some(&mut self.called, later.called);
        take_some(&mut self.dialed, later.dialed);
        take_some(&mut self.recorded, later.recorded);
        take_some(&mut self.recorded_name, later.recorded_name);
        take_some(&mut self.leg, later.leg);
        take_some(&mut self.call_id, later.call_id);
        take_some(&mut self.tracking_id, later.tracking_id);
        take_some(&mut self.group_id, later.group_id);
    }
}

/// Whether a participant is the caller, as Oracle says it of each (`callingParty` in its extension data).
pub(super) fn is_calling(participant: Node<'_, '_>) -> Option<bool> {
    let extension = child(participant, "extensiondata")?;
    match child_text(extension, "callingparty")?.to_ascii_lowercase().as_str() {
        "true" => Some(true),
        "false" => Some(false),
        _ => None,
    }
}

/// The 16 digits of a universal call id: bare, or as the user-to-user data that carries it, which is `FA`, the length `08`, and
/// `00` before it as the protocol discriminator.
fn ucid(text: &str) -> Option<String> {
    const DIGITS: usize = 16;
    let hex = text.split(';').next().unwrap_or(text).trim().to_ascii_uppercase();
    if !hex.chars().all(|c| c.is_ascii_hexdigit()) {
        return None;
    }
    let digits = hex.strip_prefix("00FA08").or_else(|| hex.strip_prefix("FA08"))?;
    (digits.len() == DIGITS).then(|| digits.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn universal_call_ids_are_found() {
        fn check(text: &str, id: Option<&str>) {
            assert_eq!(ucid(text).as_deref(), id, "{text}");
        }
        check("00FA08002A0B3C65F1D2E4;encoding=hex", Some("002A0B3C65F1D2E4"));
        check("fa08002a0b3c65f1d2e4", Some("002A0B3C65F1D2E4"));
        check("002A0B3C65F1D2E4", None);
        check("00FA08002A", None);
        check("hVpd7YQgRW2nD22h7q60JQ==", None);
        check("", None);
    }
}
