//! What recordings of one call have in common.

use callvault_journal::facts::SessionEvent;

use crate::call::fold_call;

/// Identifiers of a call that are looked at: each transfer gives it another.
const TRACKING_IDS_MAX: usize = 32;

/// Texts that every recording of the same call has too, and no other. They are personal data and mean nothing but that.
///
/// `recording` is the recording's id. The first recording of a session stands for the session, so that those which were begun in it
/// later, after a stop, are found; and each identifier that the client gave the call at any time stands for the call, within the
/// organisation that gave it.
pub fn links(recording: &str, events: &[SessionEvent]) -> Vec<String> {
    let first = events.iter().find_map(|event| match event {
        SessionEvent::Started(started) => started.follows,
        _ => None,
    });
    let mut links = vec![first.map_or_else(|| format!("session\0{recording}"), |first| format!("session\0{first}"))];
    let provider = fold_call(events).service_provider_id.unwrap_or_default();
    for event in events {
        let SessionEvent::Call(call) = event else { continue };
        let Some(id) = call.tracking_id.as_deref().map(str::trim).filter(|id| !id.is_empty()) else { continue };
        let link = format!("tracking\0{provider}\0{id}");
        if links.len() <= TRACKING_IDS_MAX && !links.contains(&link) {
            links.push(link);
        }
    }
    links
}

#[cfg(test)]
mod tests {
    use super::*;
    use callvault_journal::facts::{CallFacts, Started};

    /// Whether two recordings have something in common; each is the first recording of its session where it is not its own, and
    /// the identifiers that it had one after the other, with those of the organisation.
    #[test]
    fn recordings_of_one_call_are_told_by_what_they_share() {
        type One<'a> = (u128, Option<u128>, &'a [(&'a str, &'a str)]);
        fn texts((id, follows, calls): One<'_>) -> Vec<String> {
            let id = uuid::Uuid::from_u128(id);
            let follows = follows.map(uuid::Uuid::from_u128);
            let started = SessionEvent::Started(Started { follows, ..Started::default() });
            let call = |(tracking, provider): &(&str, &str)| {
                let some = |text: &str| (!text.is_empty()).then(|| text.to_owned());
                let call = CallFacts {
                    tracking_id: some(tracking),
                    service_provider_id: some(provider),
                    ..CallFacts::default()
                };
                SessionEvent::Call(Box::new(call))
            };
            let events: Vec<_> = std::iter::once(started).chain(calls.iter().map(call)).collect();
            links(&id.to_string(), &events)
        }
        fn check(one: One<'_>, other: One<'_>, expected: bool) {
            let other_texts = texts(other);
            let shared = texts(one).iter().any(|text| other_texts.contains(text));
            assert_eq!(shared, expected, "{one:?} {other:?}");
        }
        check((1, None, &[("t", "p")]), (2, None, &[("t", "p")]), true);
        check((1, None, &[("t", "p")]), (2, None, &[("t", "q")]), false);
        check((1, None, &[("t", "p")]), (2, None, &[("u", "p")]), false);
        check((1, None, &[]), (2, None, &[]), false);
        check((1, None, &[("", "p")]), (2, None, &[("", "p")]), false);
        // A transfer brings another identifier.
        check((1, None, &[("t", "p"), ("u", "")]), (2, None, &[("u", "p")]), true);
        check((1, None, &[("t", "p"), ("u", "p")]), (2, None, &[("t", "p")]), true);
        // The header tells the identifier before the metadata tells the organisation.
        check((1, None, &[("t", ""), ("t", "p")]), (2, None, &[("t", "p")]), true);
        check((1, None, &[]), (2, Some(1), &[]), true);
        check((2, Some(1), &[]), (3, Some(1), &[]), true);
        check((2, Some(1), &[]), (3, None, &[]), false);
    }

    #[test]
    fn a_call_that_goes_round_has_a_bounded_number_of_identifiers() {
        let call = |n: u32| CallFacts { tracking_id: Some(n.to_string()), ..CallFacts::default() };
        let events: Vec<_> = (0..1_000).map(|n| SessionEvent::Call(Box::new(call(n)))).collect();
        assert_eq!(links("id", &events).len(), 1 + TRACKING_IDS_MAX);
    }
}
