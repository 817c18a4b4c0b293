//! Who may be at the door and inside at once.

use std::{
    collections::BTreeMap,
    net::Shutdown,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use crate::listen::Stream;

/// How long a request waits for another to be answered before it is told that there are too many.
const TURN_WAIT: Duration = Duration::from_secs(2);

/// How long a new connection waits for those that were cut off to be gone. Their threads only have to notice.
const LEAVE_WAIT: Duration = Duration::from_secs(1);

/// Where a connection is on its way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stage {
    /// Its request is being read.
    Reading,
    /// Its answer is being made or sent: health, readiness, metrics.
    Open,
    /// The same, under `/v1/`.
    Api,
    /// The same, where the answer is sound, which lasts as long as somebody listens.
    Sound,
    /// It waits for a place at one of the two above.
    Waiting,
}

/// How many may be at each stage.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Room {
    pub(crate) reading: usize,
    pub(crate) open: usize,
    pub(crate) api: usize,
}

impl Room {
    /// Whether one more may be answered. A quarter of all places is never taken by sound, so that nobody who listens keeps others from
    /// finding something.
    fn admits(&self, stage: Stage, connections: &BTreeMap<u64, (Stage, Stream)>) -> bool {
        let at = |stage: Stage| connections.values().filter(|(at, _)| *at == stage).count();
        let sounds = at(Stage::Sound);
        match stage {
            Stage::Reading => at(stage) < self.reading,
            Stage::Open => at(stage) < self.open,
            Stage::Api => at(stage) + sounds < self.api,
            Stage::Sound => at(Stage::Api) + sounds < self.api && sounds < (self.api - self.api / 4),
            Stage::Waiting => at(stage) < self.api,
        }
    }
}

#[derive(Debug, Default)]
struct State {
    closed: bool,
    next: u64,
    connections: BTreeMap<u64, (Stage, Stream)>,
    /// Cut off, their threads not yet ended.
    leaving: usize,
}

/// All connections. The lock guards its state only; nothing under it blocks.
#[derive(Debug)]
pub(crate) struct Places {
    room: Room,
    state: Mutex<State>,
    left: Condvar,
}

/// A connection's place, given back when it is dropped.
#[derive(Debug)]
pub(crate) struct Place {
    places: Arc<Places>,
    number: u64,
}

impl Places {
    pub(crate) fn new(room: Room) -> Arc<Self> {
        Arc::new(Self { room, state: Mutex::default(), left: Condvar::new() })
    }

    /// A place for a new connection. When too many are being read, the oldest of them is cut off: whoever is slow makes room for
    /// whoever comes, so a crowd of half requests cannot keep monitoring out. When many are cut off at once it waits for
    /// their threads to end. `None` when these do not, and when all is being closed.
    pub(crate) fn enter(self: &Arc<Self>, stream: &Stream) -> Option<Place> {
        let handle = stream.try_clone().ok()?;
        let crowded = |state: &mut State| !state.closed && state.leaving >= self.room.reading;
        let waited = self.left.wait_timeout_while(self.lock(), LEAVE_WAIT, crowded);
        let (mut state, timeout) = waited.unwrap_or_else(PoisonError::into_inner);
        if state.closed || timeout.timed_out() {
            return None;
        }
        let reading = state.connections.values().filter(|(stage, _)| *stage == Stage::Reading).count();
        if reading >= self.room.reading {
            let oldest = state.connections.iter().find(|(_, (stage, _))| *stage == Stage::Reading);
            if let Some(number) = oldest.map(|(number, _)| *number)
                && let Some((_, slow)) = state.connections.remove(&number)
            {
                slow.shutdown(Shutdown::Both);
                state.leaving += 1;
            }
        }
        let number = state.next;
        state.next += 1;
        state.connections.insert(number, (Stage::Reading, handle));
        Some(Place { places: Arc::clone(self), number })
    }

    /// Cuts everyone off and lets nobody in any more.
    pub(crate) fn close(&self) {
        let mut state = self.lock();
        state.closed = true;
        self.left.notify_all();
        for (_, stream) in state.connections.values() {
            stream.shutdown(Shutdown::Both);
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Place {
    /// Goes on to be answered, if there is room: under `/v1/` it waits a little for it.
    pub(crate) fn advance(&self, stage: Stage) -> bool {
        let mut state = self.places.lock();
        if self.moves(&mut state, stage) {
            return true;
        }
        if !matches!(stage, Stage::Api | Stage::Sound) || !self.moves(&mut state, Stage::Waiting) {
            return false;
        }
        let waits = |state: &mut State| !state.closed && !self.moves(state, stage);
        let waited = self.places.left.wait_timeout_while(state, TURN_WAIT, waits);
        let (state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        state.connections.get(&self.number).is_some_and(|(at, _)| *at == stage)
    }

    fn moves(&self, state: &mut State, stage: Stage) -> bool {
        let is_admitted = self.places.room.admits(stage, &state.connections);
        match state.connections.get_mut(&self.number) {
            Some((at, _)) if is_admitted => {
                *at = stage;
                true
            }
            _ => false,
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut state = self.places.lock();
        if state.connections.remove(&self.number).is_none() {
            state.leaving = state.leaving.saturating_sub(1);
        }
        self.places.left.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::{io::Read as _, os::unix::net::UnixStream};

    use super::*;

    fn pair() -> (Stream, UnixStream) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        (Stream::Unix(ours), theirs)
    }

    #[test]
    fn the_slowest_makes_room_for_the_next() {
        let places = Places::new(Room { reading: 2, open: 1, api: 1 });
        let (a, mut a_peer) = pair();
        let (b, mut b_peer) = pair();
        let (c, _c_peer) = pair();
        let first = places.enter(&a).unwrap();
        let second = places.enter(&b).unwrap();
        let _third = places.enter(&c).unwrap();
        assert_eq!(a_peer.read(&mut [0]).unwrap(), 0, "the first was cut off");
        assert!(!first.advance(Stage::Api), "and does not come in");
        assert!(second.advance(Stage::Api));
        b_peer.set_nonblocking(true).unwrap();
        assert!(b_peer.read(&mut [0]).is_err(), "the second was not");
    }

    #[test]
    fn each_stage_has_its_own_room() {
        let places = Places::new(Room { reading: 9, open: 1, api: 2 });
        let streams: Vec<_> = (0..5).map(|_| pair()).collect();
        let mut at: Vec<_> = streams.iter().map(|(stream, _)| places.enter(stream).unwrap()).collect();
        assert!(at[0].advance(Stage::Api));
        assert!(at[1].advance(Stage::Api));
        assert!(!at[2].advance(Stage::Api));
        assert!(at[3].advance(Stage::Open));
        assert!(!at[4].advance(Stage::Open));
        at.remove(0);
        assert!(at[1].advance(Stage::Api));
    }

    #[test]
    fn threads_that_do_not_leave_keep_others_out() {
        let places = Places::new(Room { reading: 1, open: 1, api: 1 });
        let (a, _a) = pair();
        let slow = places.enter(&a).unwrap();
        let (b, _b) = pair();
        let _next = places.enter(&b).unwrap();
        assert!(places.enter(&a).is_none());
        drop(slow);
        assert!(places.enter(&a).is_some());
    }
}
