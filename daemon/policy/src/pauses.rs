//! How long a track was not paused.

use callvault_journal::facts::SessionEvent;

/// Nanoseconds between two moments of journal time during which neither the track nor the session was paused.
pub(crate) fn open_ns(events: &[SessionEvent], track: u8, begin_ns: u64, end_ns: u64) -> u64 {
    // A track's own pause and the session's overlap freely; either stops the track.
    let mut session_paused = false;
    let mut track_paused = false;
    let mut open_since = Some(begin_ns);
    let mut open_ns: u64 = 0;
    for event in events {
        let (pause, paused) = match event {
            SessionEvent::Paused(pause) => (pause, true),
            SessionEvent::Resumed(pause) => (pause, false),
            _ => continue,
        };
        match pause.track {
            None => session_paused = paused,
            Some(number) if number == track => track_paused = paused,
            Some(_) => continue,
        }
        let at_ns = pause.at_ns.clamp(begin_ns, end_ns.max(begin_ns));
        match (open_since, session_paused || track_paused) {
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
        check(&[(120, 1, true), (130, -1, true), (140, 1, false), (150, -1, false)], 70);
        check(&[(120, -1, true), (130, -1, true), (150, -1, false)], 70);
        check(&[(120, -1, false)], 100);
        check(&[(10, -1, true), (300, -1, false)], 0);
    }
}
