//! What is known of a call after all that was said of it.

use callvault_journal::facts::{CallFacts, Direction, Party, SessionEvent};

/// Brings the `Call` events of a session together: a later one replaces an earlier one field by field where it says more. The
/// list of remote parties is one field.
pub fn fold_call(events: &[SessionEvent]) -> CallFacts {
    let mut known = CallFacts::default();
    for event in events {
        if let SessionEvent::Call(later) = event {
            update(&mut known, later);
        }
    }
    known
}

fn update(known: &mut CallFacts, later: &CallFacts) {
    if !later.shape.is_empty() {
        known.shape.clone_from(&later.shape);
    }
    if later.direction != Direction::Unknown {
        known.direction = later.direction;
    }
    update_party(&mut known.local, &later.local);
    if !later.remotes.is_empty() {
        known.remotes.clone_from(&later.remotes);
    }
    take_some(&mut known.call_id, &later.call_id);
    take_some(&mut known.tracking_id, &later.tracking_id);
    take_some(&mut known.service_provider_id, &later.service_provider_id);
    take_some(&mut known.group_id, &later.group_id);
    take_some(&mut known.recording_type, &later.recording_type);
    take_some(&mut known.redirected_from, &later.redirected_from);
}

fn update_party(known: &mut Party, later: &Party) {
    take_some(&mut known.number, &later.number);
    take_some(&mut known.name, &later.name);
    take_some(&mut known.aor, &later.aor);
    take_some(&mut known.user_id, &later.user_id);
    if !later.labels.is_empty() {
        known.labels.clone_from(&later.labels);
    }
}

fn take_some(known: &mut Option<String>, later: &Option<String>) {
    if later.as_deref().is_some_and(|text| !text.is_empty()) {
        known.clone_from(later);
    }
}

/// The party that a row shows as the remote one: the first that has a number or a name. After a conference that may be one who
/// has left, which says more than an opaque id of one who stayed.
pub(crate) fn main_remote(call: &CallFacts) -> Option<&Party> {
    let shown = |party: &&Party| party.number.is_some() || party.name.is_some();
    call.remotes.iter().find(shown).or(call.remotes.first())
}

/// How a party is shown: by name, else by number.
pub(crate) fn display(party: &Party) -> Option<&str> {
    party.name.as_deref().or(party.number.as_deref())
}
