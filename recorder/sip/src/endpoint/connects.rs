//! Connections of our own making: for a request within a dialog whose connection is closed (RFC 3261 section 18.1.1), and for the
//! answer to an INVITE that lost its own (section 18.2.2). The driver makes them; here is who waits for which.
//!
//! One connection serves everything that goes to the same address, as RFC 5923 has it for the connections that one side opened: what
//! the peer has opened is used for the dialogs that were heard on it, since who else is behind it cannot be known.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use super::client::{ClientId, Outcome};
use super::{DialogId, Endpoint, Flow, FlowId, Now, Output, TransactionId, TransportKind};

/// Names a connection that was asked for with [`Output::Connect`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ConnectId(u64);

/// What a connection is asked for with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) struct Destination {
    pub(super) kind: TransportKind,
    pub(super) local: SocketAddr,
    pub(super) peer: SocketAddr,
}

/// Connections that are asked for or open.
#[derive(Default)]
pub(super) struct Connects {
    asked: BTreeMap<ConnectId, Asked>,
    asked_by: BTreeMap<Destination, ConnectId>,
    open: BTreeMap<Destination, Flow>,
}

/// One that the driver is making. It is forgotten when nobody waits for it any more.
struct Asked {
    destination: Destination,
    clients: Vec<ClientId>,
    answers: Vec<TransactionId>,
}

/// How something is sent to a destination.
pub(super) enum Way {
    /// The connection is open.
    Open(Flow),
    /// It is being made.
    Asked(ConnectId),
}

impl Connects {
    /// A request of ours waits no longer.
    pub(super) fn leave_request(&mut self, connect: ConnectId, id: ClientId) {
        if let Some(asked) = self.asked.get_mut(&connect) {
            asked.clients.retain(|client| *client != id);
        }
        self.forget_if_unwanted(connect);
    }

    /// An answer waits no longer.
    pub(super) fn leave_answer(&mut self, connect: ConnectId, id: TransactionId) {
        if let Some(asked) = self.asked.get_mut(&connect) {
            asked.answers.retain(|answer| *answer != id);
        }
        self.forget_if_unwanted(connect);
    }

    pub(super) fn flow_closed(&mut self, flow: FlowId) {
        self.open.retain(|_, open| open.id != flow);
    }

    fn forget_if_unwanted(&mut self, connect: ConnectId) {
        if self.asked.get(&connect).is_some_and(|asked| asked.clients.is_empty() && asked.answers.is_empty()) {
            self.take(connect);
        }
    }

    fn take(&mut self, connect: ConnectId) -> Option<Asked> {
        let asked = self.asked.remove(&connect)?;
        self.asked_by.remove(&asked.destination);
        Some(asked)
    }
}

impl Endpoint {
    /// The connection that [`Output::Connect`] asked for is there. Of `flow` the name is taken; address and transport are those that
    /// were asked for. An unknown `request` is ignored: nobody waits for it any more.
    pub fn connected(&mut self, now: Now, request: ConnectId, flow: &Flow) {
        let Some(asked) = self.connects.take(request) else { return };
        let Destination { kind, local, peer } = asked.destination;
        let flow = Flow { id: flow.id, kind, local, peer };
        self.connects.open.insert(asked.destination, flow);
        for id in asked.clients {
            self.send_waiting(now, id, flow);
        }
        for id in asked.answers {
            self.answer_over(id, flow);
        }
    }

    /// The connection that [`Output::Connect`] asked for cannot be made, or may not be. What waits for it tries its next address; a BYE
    /// that has none left ends its dialog with [`super::EndReason::Unreachable`].
    pub fn connect_failed(&mut self, now: Now, request: ConnectId) {
        let Some(asked) = self.connects.take(request) else { return };
        for id in asked.clients {
            if let Some(client) = self.clients.get_mut(&id) {
                client.awaits = None;
            }
            self.try_next_destination(now, id);
        }
        for id in asked.answers {
            if let Some(transaction) = self.servers.get_mut(&id) {
                transaction.awaits = None;
                self.counters.unsendable += 1;
            }
        }
    }

    /// The connection is closed. Its dialogs live on and move to the next connection that a request of theirs comes on. A request of
    /// ours that was under way gets one of our own making, once.
    pub fn flow_closed(&mut self, now: Now, flow: FlowId) {
        self.connects.flow_closed(flow);
        for transaction in self.servers.values_mut().filter(|transaction| transaction.flow.id == flow) {
            transaction.flow_open = false;
        }
        for dialog in self.dialogs.values_mut().filter(|dialog| dialog.flow.id == flow) {
            dialog.flow_open = false;
        }
        let under_way = self.clients.iter().filter(|(_, client)| client.flow.id == flow);
        let lost: Vec<ClientId> = under_way.map(|(id, _)| *id).collect();
        for id in lost {
            self.try_next_destination(now, id);
        }
    }

    /// Sends a request by the dialog's connection when there is one again, else by its next destination. Without either it has failed.
    pub(super) fn try_next_destination(&mut self, now: Now, id: ClientId) {
        let Some(client) = self.clients.get_mut(&id) else { return };
        client.flow.id = FlowId::NONE;
        let once = !client.is_sent() || !client.destinations.is_empty();
        let heard = self.dialogs.get(&client.dialog).filter(|dialog| dialog.flow_open && once);
        if let Some(flow) = heard.map(|dialog| dialog.flow) {
            return self.send_waiting(now, id, flow);
        }
        match client.destinations.pop_front() {
            None => self.finish_client(now, id, Outcome::Unreachable),
            Some(destination) => match self.connect(destination) {
                Way::Open(flow) => self.send_waiting(now, id, flow),
                Way::Asked(connect) => {
                    if let Some(asked) = self.connects.asked.get_mut(&connect) {
                        asked.clients.push(id);
                    }
                    if let Some(client) = self.clients.get_mut(&id) {
                        client.awaits = Some(connect);
                    }
                }
            },
        }
    }

    /// The final answer to an INVITE waits for a connection.
    pub(super) fn connect_for_answer(&mut self, id: TransactionId, destination: Destination) {
        match self.connect(destination) {
            Way::Open(flow) => self.answer_over(id, flow),
            Way::Asked(connect) => {
                if let Some(asked) = self.connects.asked.get_mut(&connect) {
                    asked.answers.push(id);
                }
                if let Some(transaction) = self.servers.get_mut(&id) {
                    transaction.awaits = Some(connect);
                }
            }
        }
    }

    /// The open connection to this destination, or the one that is asked for, if need be now.
    fn connect(&mut self, destination: Destination) -> Way {
        if let Some(flow) = self.connects.open.get(&destination) {
            return Way::Open(*flow);
        }
        if let Some(connect) = self.connects.asked_by.get(&destination) {
            return Way::Asked(*connect);
        }
        let request = ConnectId(self.new_id());
        self.connects.asked.insert(request, Asked { destination, clients: Vec::new(), answers: Vec::new() });
        self.connects.asked_by.insert(destination, request);
        let Destination { kind, local, peer } = destination;
        self.output.push_back(Output::Connect { request, kind, local, peer });
        Way::Asked(request)
    }

    fn send_waiting(&mut self, now: Now, id: ClientId, flow: Flow) {
        let Some(client) = self.clients.get_mut(&id) else { return };
        let (dialog, bytes) = client.send_over(now, flow, &self.config.timers);
        self.schedule_client(id);
        self.move_dialog(dialog, &flow);
        self.send(&flow, true, flow.peer, bytes);
    }

    fn answer_over(&mut self, id: TransactionId, flow: Flow) {
        let Some(transaction) = self.servers.get_mut(&id) else { return };
        transaction.awaits = None;
        if transaction.flow_open {
            // The peer has connected meanwhile, and has repeated its request there.
            return;
        }
        (transaction.flow, transaction.flow_open, transaction.reply_to) = (flow, true, flow.peer);
        if let Some(dialog) = transaction.dialog {
            self.move_dialog(dialog, &flow);
            // What the checkpoint holds of the transaction has changed as well.
            self.dialog_mut(dialog);
        }
        self.send_answer(id);
    }

    /// A dialog without a connection has this one now.
    fn move_dialog(&mut self, id: DialogId, flow: &Flow) {
        if self.dialogs.get(&id).is_some_and(|dialog| !dialog.flow_open) {
            self.heard(id, flow);
        }
    }
}
