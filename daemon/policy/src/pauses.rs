//! How long a track was not paused.

use callvault_journal::facts::SessionEvent;

/// Who paused where it was not the client.
const BY_CONTROL: &str = "control";

/// Nanoseconds between two moments of journal time during which neither the track nor the session was paused.
pub(crate) fn open_ns(events: &[SessionEvent], track: u8, begin_ns: u64, end_ns: u64) -> u64 {
    // The client's pauses and those of people here overlap freely; either stops the track.
    let mut paused_by = [false; 2];
    let mut open_since = Some(begin_ns);
    let mut open_ns: u64 = 0;
    for event in events {
        let (pause, paused) = match event {
            SessionEvent::Paused(pause) => (pause, true),
            SessionEvent::Resumed(pause) => (pause, false),
            _ => continue,
        };
        // What is said of all tracks is said of each of them.
        if pause.track.is_some_and(|number| number != track) {
            continue;
        }
        paused_by[usize::from(pause.by == BY_CONTROL)] = paused;
        let at_ns = pause.at_ns.clamp(begin_ns, end_ns.max(begin_ns));
        match (open_since, paused_by.contains(&true)) {
            (Some(since), true) => {
                open_ns = open_ns.saturating_add(at_ns.saturating_sub(since));
                open_since = None;
            }
            (None, false) => open_since = Some(at_ns),
            _ => {}
        }
    }
    let rest_ns = open_since.map_or(0, |since| end_ns.saturating_sub(since));
    open_ns.saturating_add(rest_ns)
}

#[cfg(test)]
mod tests {
    use super::*;
    use callvault_journal::facts::Pause;

    #[test]
    fn open_time_is_measured() {
        /// Events as (moment, track or -1 for the session, paused); the session lasts from 100 to 200.
        fn check(events: &[(u64, i8, bool)], expected_ns: u64) {
            let events: Vec<SessionEvent> = events
                .iter()
                .map(|&(at_ns, track, paused)| {
                    let pause = Pause { track: u8::try_from(track).ok(), at_ns, by: "client".to_owned() };
                    if paused { SessionEvent::Paused(pause) } else { SessionEvent::Resumed(pause) }
                })
                .collect();
            assert_eq!(open_ns(&events, 1, 100, 200), expected_ns, "{events:?}");
        }
        check(&[], 100);
        check(&[(100, -1, true)], 0);
        check(&[(150, -1, true)], 50);
        check(&[(120, -1, true), (150, -1, false)], 70);
        check(&[(120, 1, true), (150, 1, false)], 70);
        check(&[(120, 0, true), (150, 0, false)], 100);
        check(&[(120, -1, true), (140, 1, false), (150, 0, false)], 80);
        check(&[(120, 1, true), (130, 0, true), (150, -1, false)], 70);
        check(&[(120, -1, true), (130, -1, true), (150, -1, false)], 70);
        check(&[(120, -1, false)], 100);
        check(&[(10, -1, true), (300, -1, false)], 0);
    }

    #[test]
    fn the_clients_pauses_and_those_of_people_here_do_not_end_each_other() {
        /// Events of the session as (moment, by, paused); it lasts from 100 to 200.
        fn check(events: &[(u64, &str, bool)], expected_ns: u64) {
            let events: Vec<SessionEvent> = events
                .iter()
                .map(|&(at_ns, by, paused)| {
                    let pause = Pause { track: None, at_ns, by: by.to_owned() };
                    if paused { SessionEvent::Paused(pause) } else { SessionEvent::Resumed(pause) }
                })
                .collect();
            assert_eq!(open_ns(&events, 0, 100, 200), expected_ns, "{events:?}");
        }
        check(&[(110, "control", true), (120, "client", true), (130, "client", false), (140, "control", false)], 70);
        check(&[(110, "client", true), (120, "control", true), (130, "client", false), (140, "control", false)], 70);
        check(&[(110, "client", true), (120, "control", true), (130, "control", false)], 10);
        check(&[(110, "control", true), (120, "client", false)], 10);
    }
}
