//! What BroadWorks and Webex Calling add in `broadWorksRecordingMetadata` (versions 1.0 to 3.0).

use roxmltree::Node;
use serde::{Deserialize, Serialize};

use super::take_some;
use super::xml::{attribute, child, child_text};

/// Which half of the call is recorded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum CallLeg {
    /// `origCall`: the recorded user called.
    Originating,
    /// `termCall`: the recorded user was called.
    Terminating,
}

/// BroadWorks' data. Texts are as they came; party numbers are SIP URIs or numbers.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BroadworksFacts {
    /// Version of the data, "1.0" to "3.0".
    pub version: Option<String>,
    /// `extTrackingID`: the same for both halves of an internal call; new after a transfer.
    pub ext_tracking_id: Option<String>,
    /// `serviceProviderID`: the Webex organisation.
    pub service_provider_id: Option<String>,
    /// `groupID`: the Webex location, or free text.
    pub group_id: Option<String>,
    /// `userID` of the recorded user.
    pub user_id: Option<String>,
    /// `callID`: the same for the whole life of this half of the call.
    pub call_id: Option<String>,
    /// Which half is recorded.
    pub leg: Option<CallLeg>,
    /// `callingPartyNumber`.
    pub calling_number: Option<String>,
    /// `calledPartyNumber`.
    pub called_number: Option<String>,
    /// `dialedDigits`, for calls that the recorded user made.
    pub dialed_digits: Option<String>,
    /// `lastRedirectNumber` of a forwarded call.
    pub last_redirect_number: Option<String>,
    /// `origCalledNumber` of a forwarded call: whom it was first meant for.
    pub orig_called_number: Option<String>,
    /// `numOfRedirections` of a forwarded call.
    pub redirections: Option<u32>,
    /// `recordingType`; only "on" was ever seen.
    pub recording_type: Option<String>,
    /// A transfer that made this call what it is.
    pub redirected_call: Option<RedirectedCall>,
    /// The queue that the call came through.
    pub acd: Option<Acd>,
}

/// `redirectedCall`: the call was transferred.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RedirectedCall {
    /// `newExtTrackingID` of the call that goes on.
    pub new_ext_tracking_id: Option<String>,
    /// `redirectedFromPartyNumber`.
    pub from_number: Option<String>,
    /// `redirectedToPartynumber` (that is how it is spelled).
    pub to_number: Option<String>,
}

/// `acd`: a call centre's queue.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Acd {
    /// `acdUserId`.
    pub user_id: Option<String>,
    /// `acdName`.
    pub name: Option<String>,
    /// `acdNumber`.
    pub number: Option<String>,
}

impl BroadworksFacts {
    /// Reads the `broadWorksRecordingMetadata` element.
    pub(super) fn read(node: Node<'_, '_>) -> BroadworksFacts {
        let call_type = child(node, "calltype");
        let leg = call_type.and_then(|call_type| {
            child(call_type, "origcall")
                .map(|half| (CallLeg::Originating, half))
                .or_else(|| child(call_type, "termcall").map(|half| (CallLeg::Terminating, half)))
        });
        let half = leg.map(|(_, half)| half);
        let of_half = |name| half.and_then(|half| child_text(half, name));
        let redirect = half.and_then(|half| child(half, "redirectinfo"));
        let of_redirect = |name| redirect.and_then(|info| child_text(info, name));
        BroadworksFacts {
            version: attribute(node, &["version"]),
            ext_tracking_id: child_text(node, "exttrackingid"),
            service_provider_id: child_text(node, "serviceproviderid"),
            group_id: child_text(node, "groupid"),
            user_id: child_text(node, "userid"),
            call_id: child_text(node, "callid"),
            leg: leg.map(|(leg, _)| leg),
            calling_number: of_half("callingpartynumber"),
            called_number: of_half("calledpartynumber"),
            dialed_digits: of_half("dialeddigits"),
            last_redirect_number: of_redirect("lastredirectnumber"),
            orig_called_number: of_redirect("origcallednumber"),
            redirections: of_redirect("numofredirections").and_then(|text| text.parse().ok()),
            recording_type: child_text(node, "recordingtype"),
            redirected_call: child(node, "redirectedcall").map(|call| RedirectedCall {
                new_ext_tracking_id: child_text(call, "newexttrackingid"),
                from_number: child_text(call, "redirectedfrompartynumber"),
                to_number: child_text(call, "redirectedtopartynumber"),
            }),
            acd: child(node, "acd").map(|acd| Acd {
                user_id: child_text(acd, "acduserid"),
                name: child_text(acd, "acdname"),
                number: child_text(acd, "acdnumber"),
            }),
        }
    }

    /// Takes over what a partial document says.
    pub(super) fn update(&mut self, later: BroadworksFacts) {
        take_some(&mut self.version, later.version);
        take_some(&mut self.ext_tracking_id, later.ext_tracking_id);
        take_some(&mut self.service_provider_id, later.service_provider_id);
        take_some(&mut self.group_id, later.group_id);
        take_some(&mut self.user_id, later.user_id);
        take_some(&mut self.call_id, later.call_id);
        take_some(&mut self.leg, later.leg);
        take_some(&mut self.calling_number, later.calling_number);
        take_some(&mut self.called_number, later.called_number);
        take_some(&mut self.dialed_digits, later.dialed_digits);
        take_some(&mut self.last_redirect_number, later.last_redirect_number);
        take_some(&mut self.orig_called_number, later.orig_called_number);
        take_some(&mut self.redirections, later.redirections);
        take_some(&mut self.recording_type, later.recording_type);
        take_some(&mut self.redirected_call, later.redirected_call);
        take_some(&mut self.acd, later.acd);
    }
}
