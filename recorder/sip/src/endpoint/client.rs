//! Requests of our own within a dialog: non-INVITE client transactions (RFC 3261 section 17.1.2).

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;

use super::connects::{ConnectId, Destination};
use super::dialog::Ending;
use super::server::Resend;
use super::{DialogId, EndReason, Endpoint, Event, Flow, FlowId, Now, Timer, Timers};
use crate::message::{CSeq, Method, Request, Response, Via};

/// Names a client transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct ClientId(u64);

/// One client transaction.
pub(super) struct ClientTransaction {
    branch: String,
    method: Method,
    /// It refreshes the session and nothing else: the session layer knows nothing of it.
    refreshes: bool,
    pub(super) dialog: DialogId,
    /// What it went over; [`FlowId::NONE`] while it waits for a connection.
    pub(super) flow: Flow,
    /// The connection that is being made for it.
    pub(super) awaits: Option<ConnectId>,
    /// Where connections may still be made for it.
    pub(super) destinations: VecDeque<Destination>,
    /// Where it is sent, by turns.
    hops: Vec<SocketAddr>,
    sent: usize,
    bytes: Vec<u8>,
    /// Timer E; none on a connection.
    resend: Option<Resend>,
    /// Timer F.
    until: Now,
}

impl ClientTransaction {
    fn due(&self) -> Now {
        self.resend.map_or(self.until, |resend| resend.at.min(self.until))
    }

    fn next_hop(&mut self) -> SocketAddr {
        let hop = self.hops.get(self.sent % self.hops.len().max(1)).copied().unwrap_or(self.flow.peer);
        self.sent += 1;
        hop
    }

    /// Whether it has been on its way at least once.
    pub(super) fn is_sent(&self) -> bool {
        self.sent > 0
    }

    /// Takes this connection; gives what is to be sent over it, and for which dialog. Patience begins anew. A second connection is made
    /// only for what was never sent: whoever closes one on our request would close the next.
    pub(super) fn send_over(&mut self, now: Now, flow: Flow, timers: &Timers) -> (DialogId, Vec<u8>) {
        if self.is_sent() {
            self.destinations.clear();
        }
        self.flow = flow;
        self.awaits = None;
        self.hops = vec![flow.peer];
        self.sent += 1;
        self.until = now.after(timers.patience_ns());
        (self.dialog, self.bytes.clone())
    }
}

/// How a request of ours ended.
pub(super) enum Outcome {
    Answered(Response),
    TimedOut,
    Unreachable,
}

impl Endpoint {
    /// Ends a dialog with BYE; `reason` is the value of a Reason header (RFC 3326), such as `SIP;cause=200;text="disk full"`.
    ///
    /// A BYE may not overtake the ACK (RFC 3261 section 15): until that has come, or has failed to, it waits. A dialog that is not
    /// accepted yet is refused with 480. [`Event::Ended`] follows in every case. Returns false when there is no such dialog or it is
    /// ending already.
    pub fn bye(&mut self, now: Now, id: DialogId, reason: Option<&str>) -> bool {
        let Some(dialog) = self.dialog_mut(id) else { return false };
        if dialog.ending != Ending::No {
            return false;
        }
        if !dialog.confirmed {
            let pending = dialog.pending;
            return pending.is_some_and(|tx| self.reject(now, tx, 480, "", Vec::new()));
        }
        if dialog.unacked.is_some() {
            dialog.ending = Ending::AwaitsAck(reason.map(str::to_owned));
            return true;
        }
        self.send_bye(now, id, reason);
        true
    }

    /// Sends UPDATE within a dialog, to ask for a metadata snapshot (RFC 7866 section 9.2): Content-Type and body, and further header
    /// fields. [`Event::RequestAnswered`] follows unless the dialog ends before. Returns false when the dialog is not there, not
    /// confirmed, ending, or without a way to its peer.
    pub fn update_request(
        &mut self,
        now: Now,
        id: DialogId,
        body: Option<(String, Vec<u8>)>,
        extra_headers: Vec<(String, String)>,
    ) -> bool {
        let Some(dialog) = self.dialogs.get(&id) else { return false };
        if !dialog.confirmed || dialog.ending != Ending::No {
            return false;
        }
        self.send_request(now, id, Method::Update, false, |request| {
            for (name, value) in &extra_headers {
                request.headers.push(name, value);
            }
            if let Some((content_type, body)) = body {
                request.headers.push("Content-Type", &content_type);
                request.body = body;
            }
        })
    }

    pub(super) fn send_bye(&mut self, now: Now, id: DialogId, reason: Option<&str>) {
        let Some(dialog) = self.dialog_mut(id) else { return };
        dialog.ending = Ending::Sent(reason.map(str::to_owned));
        let sent = self.send_request(now, id, Method::Bye, false, |request| {
            if let Some(reason) = reason {
                request.headers.push("Reason", reason);
            }
        });
        if !sent {
            self.counters.unsendable += 1;
            self.end_dialog(now, id, EndReason::Unreachable);
        }
    }

    /// Sends a request over the dialog's flow or, where that is closed, over a connection that is made for it. False when neither is
    /// possible.
    pub(super) fn send_request(
        &mut self,
        now: Now,
        id: DialogId,
        method: Method,
        refreshes: bool,
        fill: impl FnOnce(&mut Request),
    ) -> bool {
        // The cookie tells that the branch is unique (section 8.1.1.7).
        let branch = format!("z9hG4bK{}", self.new_tag());
        let client_id = ClientId(self.new_id());
        self.changed.insert(id);
        let (Some(dialog), config) = (self.dialogs.get_mut(&id), &self.config) else { return false };
        let (flow, open) = (dialog.flow, dialog.flow_open);
        let destinations: VecDeque<Destination> = dialog.destinations().into();
        if !open && destinations.is_empty() {
            return false;
        }
        let kind = if open { flow.kind } else { destinations.front().map_or(flow.kind, |first| first.kind) };
        let hops = dialog.next_hops();
        let mut request = dialog.request(config, method.clone(), &branch, kind);
        fill(&mut request);
        let timers = &config.timers;
        let client = ClientTransaction {
            branch: branch.clone(),
            method,
            refreshes,
            dialog: id,
            flow: if open { flow } else { Flow { id: FlowId::NONE, ..flow } },
            awaits: None,
            destinations,
            hops,
            sent: 0,
            bytes: request.to_bytes(),
            resend: (!kind.is_reliable()).then(|| Resend::start(now, timers)),
            until: now.after(timers.patience_ns()),
        };
        self.client_branches.insert(branch, client_id);
        self.clients.insert(client_id, client);
        self.schedule_client(client_id);
        if open {
            self.send_again(client_id);
        } else {
            self.try_next_destination(now, client_id);
        }
        true
    }

    /// Sends a request to its next hop.
    fn send_again(&mut self, id: ClientId) {
        let Some(client) = self.clients.get_mut(&id) else { return };
        let (flow, hop, bytes) = (client.flow, client.next_hop(), client.bytes.clone());
        self.send(&flow, true, hop, bytes);
    }

    pub(super) fn schedule_client(&mut self, id: ClientId) {
        if let Some(client) = self.clients.get(&id) {
            self.agenda.set(Timer::Client(id), client.due());
        }
    }

    pub(super) fn on_response(&mut self, now: Now, response: Response) {
        let branch = Via::topmost(&response.headers).and_then(|via| via.branch().map(str::to_owned));
        let id = branch.and_then(|branch| self.client_branches.get(&branch).copied());
        let Some((id, client)) = id.and_then(|id| Some((id, self.clients.get_mut(&id)?))) else {
            self.counters.strays += 1;
            return;
        };
        let method = response.headers.get("CSeq").and_then(CSeq::parse).map(|cseq| cseq.method);
        if method.is_some_and(|method| method != client.method.as_str()) {
            self.counters.strays += 1;
            return;
        }
        if response.status >= 200 {
            self.finish_client(now, id, Outcome::Answered(response));
        } else if let Some(resend) = &mut client.resend {
            // Proceeding: T2 from now on.
            resend.interval_ns = self.config.timers.t2_ns;
            resend.at = now.after(resend.interval_ns);
            self.schedule_client(id);
        }
    }

    pub(super) fn on_client_timeout(&mut self, now: Now, id: ClientId) {
        let Some(client) = self.clients.get_mut(&id) else { return };
        if client.until <= now {
            let outcome = if client.awaits.is_some() { Outcome::Unreachable } else { Outcome::TimedOut };
            self.finish_client(now, id, outcome);
            return;
        }
        let again = client.resend.as_mut().filter(|resend| resend.at <= now);
        if let Some(resend) = again {
            resend.again(now, &self.config.timers);
            self.counters.retransmissions_sent += 1;
            self.send_again(id);
        }
        self.schedule_client(id);
    }

    /// Tells the session layer and forgets the transaction. A BYE ends its dialog whatever the answer: nobody is left to talk to.
    pub(super) fn finish_client(&mut self, now: Now, id: ClientId, outcome: Outcome) {
        let Some(client) = self.forget_client(id) else { return };
        let dialog = client.dialog;
        if matches!(outcome, Outcome::Unreachable) {
            self.counters.unsendable += 1;
        }
        if let (Outcome::Answered(response), Some(dialog)) = (&outcome, self.dialog_mut(dialog)) {
            dialog.note_answer(response);
        }
        if client.refreshes {
            self.refreshed(now, dialog, &outcome);
        } else if client.method == Method::Bye {
            let why = match outcome {
                Outcome::Answered(response) => EndReason::OwnBye { status: Some(response.status) },
                Outcome::TimedOut => EndReason::OwnBye { status: None },
                Outcome::Unreachable => EndReason::Unreachable,
            };
            self.end_dialog(now, dialog, why);
        } else {
            let response = match outcome {
                Outcome::Answered(response) => Some(Arc::new(response)),
                Outcome::TimedOut | Outcome::Unreachable => None,
            };
            self.event(Event::RequestAnswered { dialog, method: client.method, response });
        }
    }

    pub(super) fn forget_client(&mut self, id: ClientId) -> Option<ClientTransaction> {
        self.agenda.clear(Timer::Client(id));
        let client = self.clients.remove(&id)?;
        self.client_branches.remove(&client.branch);
        if let Some(connect) = client.awaits {
            self.connects.leave_request(connect, id);
        }
        Some(client)
    }

    pub(super) fn forget_clients_of(&mut self, dialog: DialogId) {
        let ids: Vec<ClientId> =
            self.clients.iter().filter(|(_, client)| client.dialog == dialog).map(|(id, _)| *id).collect();
        for id in ids {
            self.forget_client(id);
        }
    }
}
