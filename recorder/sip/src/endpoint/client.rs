//! Requests of our own within a dialog: non-INVITE client transactions (RFC 3261 section 17.1.2).

use std::net::SocketAddr;
use std::sync::Arc;

use super::dialog::Ending;
use super::server::Resend;
use super::{ClientId, DialogId, EndReason, Endpoint, Event, Flow, Now, Timer};
use crate::message::{CSeq, Method, Request, Response, Via};

/// One client transaction.
pub(super) struct ClientTransaction {
    branch: String,
    method: Method,
    dialog: DialogId,
    pub(super) flow: Flow,
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
        let Some(dialog) = self.dialogs.get_mut(&id) else { return false };
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
    /// confirmed, ending, or without a connection.
    pub fn update_request(
        &mut self,
        now: Now,
        id: DialogId,
        body: Option<(String, Vec<u8>)>,
        extra_headers: Vec<(String, String)>,
    ) -> bool {
        let Some(dialog) = self.dialogs.get(&id) else { return false };
        if !dialog.confirmed || dialog.ending != Ending::No || !dialog.flow_open {
            return false;
        }
        self.send_request(now, id, Method::Update, |request| {
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
        let Some(dialog) = self.dialogs.get_mut(&id) else { return };
        dialog.ending = Ending::Sent;
        if !dialog.flow_open {
            self.counters.unsendable += 1;
            self.end_dialog(now, id, EndReason::Unreachable);
            return;
        }
        self.send_request(now, id, Method::Bye, |request| {
            if let Some(reason) = reason {
                request.headers.push("Reason", reason);
            }
        });
    }

    fn send_request(&mut self, now: Now, id: DialogId, method: Method, fill: impl FnOnce(&mut Request)) -> bool {
        // The cookie tells that the branch is unique (section 8.1.1.7).
        let branch = format!("z9hG4bK{}", self.new_tag());
        let Some(dialog) = self.dialogs.get_mut(&id) else { return false };
        let mut request = dialog.request(&self.config, method.clone(), &branch);
        fill(&mut request);
        let flow = dialog.flow;
        let timers = &self.config.timers;
        let mut client = ClientTransaction {
            branch: branch.clone(),
            method,
            dialog: id,
            flow,
            hops: dialog.next_hops(),
            sent: 0,
            bytes: request.to_bytes(),
            resend: (!flow.kind.is_reliable()).then(|| Resend::start(now, timers)),
            until: now.after(timers.patience_ns()),
        };
        let (hop, bytes) = (client.next_hop(), client.bytes.clone());
        let client_id = ClientId(self.new_id());
        self.agenda.set(Timer::Client(client_id), client.due());
        self.client_branches.insert(branch, client_id);
        self.clients.insert(client_id, client);
        self.send(&flow, true, hop, bytes);
        true
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
            let due = client.due();
            self.agenda.set(Timer::Client(id), due);
        }
    }

    pub(super) fn on_client_timeout(&mut self, now: Now, id: ClientId) {
        let Some(client) = self.clients.get_mut(&id) else { return };
        if client.until <= now {
            self.finish_client(now, id, Outcome::TimedOut);
            return;
        }
        if let Some(resend) = client.resend.as_mut().filter(|resend| resend.at <= now) {
            resend.again(now, &self.config.timers);
            let (flow, hop, bytes) = (client.flow, client.next_hop(), client.bytes.clone());
            let due = client.due();
            self.agenda.set(Timer::Client(id), due);
            self.counters.retransmissions_sent += 1;
            self.send(&flow, true, hop, bytes);
        } else {
            let due = client.due();
            self.agenda.set(Timer::Client(id), due);
        }
    }

    /// Tells the session layer and forgets the transaction. A BYE ends its dialog whatever the answer: nobody is left to talk to.
    pub(super) fn finish_client(&mut self, now: Now, id: ClientId, outcome: Outcome) {
        let Some(client) = self.forget_client(id) else { return };
        let dialog = client.dialog;
        if client.method == Method::Bye {
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
