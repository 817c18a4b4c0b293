//! What clients other than BroadWorks say of the call itself, brought to the facts.

use crate::metadata::{CallLeg, Metadata, VendorCall};
use crate::number::{may_be_same, number_of, uri_param};

use super::{CallDirection, CallFacts, Signalling, TrackRole, from_name, name_main_remote};

/// Fills in what the client's own data says. `calling` is whether the recorded user is said to have called.
/// `active_count`: how many of the remotes, from the first, still take part.
pub(super) fn add_vendor(call: &mut CallFacts, vendor: &VendorCall, calling: Option<bool>, active_count: usize) {
    call.direction = direction(call, vendor, calling);
    let (own, other) = match call.direction {
        CallDirection::Outgoing => (&vendor.calling, &vendor.called),
        CallDirection::Incoming => (&vendor.called, &vendor.calling),
        CallDirection::Unknown => (&None, &None),
    };
    let own_number = vendor.recorded.as_deref().or(own.as_deref()).and_then(number_of);
    if call.local.number.is_none() {
        call.local.number = own_number;
    }
    let own_name = vendor.recorded_name.clone().or_else(|| own.as_deref().and_then(name_of));
    call.local.name = call.local.name.take().or(own_name);
    let is_unnumbered = call.remotes.first().is_none_or(|main| main.number.is_none());
    let dialed = vendor.dialed.as_deref().filter(|_| is_unnumbered && call.direction == CallDirection::Outgoing);
    if let Some(number) = other.as_deref().or(dialed).and_then(number_of) {
        name_main_remote(&mut call.remotes, active_count, number);
    }
    if let (Some(main), Some(name)) = (call.remotes.first_mut(), other.as_deref().and_then(name_of)) {
        let is_other = main.number != other.as_deref().and_then(number_of);
        if main.name.is_none() && !is_other {
            main.name = Some(name);
        }
    }
    call.call_id = vendor.call_id.clone().or(call.call_id.take());
    call.tracking_id = call.tracking_id.take().or(vendor.tracking_id.clone());
    call.group_id = vendor.group_id.clone();
}

fn direction(call: &CallFacts, vendor: &VendorCall, calling: Option<bool>) -> CallDirection {
    match (vendor.leg, calling) {
        (Some(CallLeg::Originating), _) | (None, Some(true)) => return CallDirection::Outgoing,
        (Some(CallLeg::Terminating), _) | (None, Some(false)) => return CallDirection::Incoming,
        (None, None) => {}
    }
    // Of a call between two numbers, the recorded user's own is one.
    let is_own = |address: &Option<String>| {
        let number = address.as_deref().and_then(number_of);
        number.zip(call.local.number.as_deref()).is_some_and(|(number, own)| may_be_same(&number, own))
    };
    match (is_own(&vendor.calling), is_own(&vendor.called)) {
        (true, false) => CallDirection::Outgoing,
        (false, true) => CallDirection::Incoming,
        _ => CallDirection::Unknown,
    }
}

/// The display name before an address.
fn name_of(address: &str) -> Option<String> {
    let (name, _) = address.split_once('<')?;
    let name = name.trim().trim_matches('"').trim();
    (!name.is_empty()).then(|| name.to_owned())
}

/// Whether the recorded user called, by what the client says of each participant.
pub(super) fn is_calling(metadata: &Metadata, local: Option<usize>) -> Option<bool> {
    let own = local.and_then(|index| metadata.participants.get(index)?.calling);
    own.or_else(|| {
        // Said of the others only: whom one of them called, has not called.
        let others = metadata.participants.iter().enumerate().filter(|(index, _)| Some(*index) != local);
        let said: Vec<bool> = others.filter_map(|(_, participant)| participant.calling).collect();
        (!said.is_empty()).then(|| !said.contains(&true))
    })
}

/// One end of a call forked by a Cisco phone's built-in bridge: one recording session for each voice, told apart by parameters
/// of the `From` URI. Without metadata this is all that is known.
pub(super) fn add_built_in_bridge(call: &mut CallFacts, tracks: &mut [TrackRole], signalling: &Signalling<'_>) {
    let uri = signalling.from.uri;
    let is_near = uri_param(uri, "x-nearend").is_some();
    if !is_near && uri_param(uri, "x-farend").is_none() {
        return;
    }
    let [track] = tracks else {
        return;
    };
    track.mixed = false;
    track.local = is_near;
    let labels = vec![track.label.clone()];
    let far = uri_param(uri, "x-farendaddr").and_then(number_of);
    let mut remote = super::Party { number: far, ..super::Party::default() };
    let local_labels = if is_near {
        labels
    } else {
        remote.labels = labels;
        Vec::new()
    };
    call.local.labels = local_labels;
    call.local.name = from_name(signalling);
    call.remotes.push(remote);
    call.tracking_id = call.tracking_id.take().or_else(|| legs_of(uri));
}

/// What the sessions of one call have in common: the references of its two legs, in an order that does not depend on whose phone it
/// was. Both sessions of a phone have the same near and far leg; at the other party's phone, if that is recorded too, they change
/// places.
fn legs_of(uri: &str) -> Option<String> {
    let leg = |reference: &str, cluster: &str| {
        let reference = uri_param(uri, reference).filter(|reference| !reference.is_empty())?;
        Some(format!("{reference}@{}", uri_param(uri, cluster).unwrap_or_default().to_lowercase()))
    };
    let near = leg("x-refci", "x-nearendclusterid")?;
    let Some(far) = leg("x-farendrefci", "x-farendclusterid") else { return Some(near) };
    Some(if near <= far { format!("{near} {far}") } else { format!("{far} {near}") })
}
