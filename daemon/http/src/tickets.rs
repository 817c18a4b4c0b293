//! How the front tells the threads that answer who asks: by a number in a field of the request that it writes anew, which no client can
//! send. The number stands for the caller here, so nothing personal goes over the socket.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use callvault_access::Caller;

/// The field's name.
pub(crate) const TICKET: &str = "X-Callvault-Ticket";

/// The callers whose requests are on their way. As many as there are places for requests being answered.
#[derive(Default)]
pub(crate) struct Tickets(Mutex<Given>);

#[derive(Default)]
struct Given {
    last: u64,
    callers: HashMap<u64, Caller>,
}

impl Tickets {
    pub(crate) fn give(self: &Arc<Self>, caller: Caller) -> Ticket {
        let mut given = self.lock();
        given.last = given.last.wrapping_add(1);
        let number = given.last;
        given.callers.insert(number, caller);
        Ticket { number, tickets: Arc::clone(self) }
    }

    /// Whose ticket that is; only once.
    pub(crate) fn take(&self, number: &str) -> Option<Caller> {
        self.lock().callers.remove(&number.parse().ok()?)
    }

    fn lock(&self) -> MutexGuard<'_, Given> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Dropped when the request has its answer: worth nothing from then on.
pub(crate) struct Ticket {
    pub(crate) number: u64,
    tickets: Arc<Tickets>,
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.tickets.lock().callers.remove(&self.number);
    }
}
