//! What the peer asks: from a request to a transaction, a dialog and an event.

use std::sync::Arc;

use super::dialog::{Dialog, Ending};
use super::server::{Acked, Core, Opening, ServerTransaction};
use super::{
    DialogId, EndReason, Endpoint, Event, Flow, Now, RETRY_AFTER_S, TRANSACTIONS_RESERVE, Timer, TransactionId,
    UnknownRequire, respond,
};
use crate::message::{Method, Request};
use crate::multipart::bodies;
use crate::recognition::{is_recording_session, unknown_required};

/// Methods that are known but not served, and so answered 405 where an unknown one is answered 501 (RFC 3261 section 8.2.1).
const NOT_ALLOWED: [&str; 7] = ["REGISTER", "SUBSCRIBE", "NOTIFY", "MESSAGE", "REFER", "PRACK", "PUBLISH"];

/// The longest pause asked for before an INVITE or UPDATE is repeated that came while another was pending, in seconds. (RFC 3261
/// section 14.2 allows up to 10; our answers take milliseconds.)
const OVERLAP_RETRY_AFTER_S_MAX: u64 = 3;

impl Endpoint {
    pub(super) fn on_request(&mut self, now: Now, flow: &Flow, request: Request) {
        self.counters.requests += 1;
        let core = match Core::read(&request) {
            Ok(core) => core,
            Err(missing) => return self.refuse_incomplete(flow, &request, missing),
        };
        if request.method == Method::Ack {
            return self.on_ack(now, flow, &core, request);
        }
        let key = core.key(&request.method);
        if let Some(id) = self.server_keys.get(&key).copied() {
            return self.on_repetition(flow, id, &request);
        }
        if !self.has_room(core.to_tag.is_some() || request.method == Method::Cancel) {
            self.counters.refused_transactions += 1;
            self.refuse_overload(flow, &request);
            return;
        }
        match (&request.method, &core.to_tag) {
            (Method::Cancel, _) => self.on_cancel(now, flow, core, request),
            (_, Some(tag)) => {
                let key = (core.call_id.clone(), tag.clone());
                let known = self.dialog_keys.get(&key).copied();
                let ours = |id: &DialogId| self.dialogs.get(id).is_some_and(|d| d.remote_tag == core.from_tag);
                match known.filter(ours) {
                    Some(dialog) => self.on_dialog_request(now, flow, core, request, dialog),
                    None => self.refuse(now, flow, core, request, None, 481),
                }
            }
            (_, None) => self.on_fresh_request(now, flow, core, request),
        }
    }

    fn refuse_incomplete(&mut self, flow: &Flow, request: &Request, missing: &str) {
        self.counters.invalid += 1;
        let answer = request.method != Method::Ack;
        if answer && self.refuse_stateless(flow, request, 400, &format!("Missing or Malformed {missing}"), &[]) {
            self.counters.invalid_answered += 1;
        }
    }

    fn refuse_overload(&mut self, flow: &Flow, request: &Request) {
        let retry = [("Retry-After".to_owned(), RETRY_AFTER_S.to_string())];
        self.refuse_stateless(flow, request, 503, "", &retry);
    }

    fn has_room(&self, within_dialog: bool) -> bool {
        let reserve = if within_dialog { TRANSACTIONS_RESERVE } else { 0 };
        self.servers.len() < self.config.transactions_max.saturating_add(reserve)
    }

    /// The same request again: the same answer again, on the flow on which it came, which may be a new connection or a new port.
    fn on_repetition(&mut self, flow: &Flow, id: TransactionId, request: &Request) {
        self.counters.retransmissions_received += 1;
        let Some(transaction) = self.servers.get_mut(&id) else { return };
        let reply_to = respond::destination(flow, request);
        let moved = transaction.flow != *flow || transaction.reply_to != reply_to;
        transaction.flow = *flow;
        transaction.flow_open = true;
        transaction.reply_to = reply_to;
        let answer = transaction.repeat().map(<[u8]>::to_vec);
        if let Some(dialog) = transaction.dialog {
            self.heard(dialog, flow);
            if moved {
                self.dialog_mut(dialog);
            }
        }
        if let Some(bytes) = answer {
            self.counters.retransmissions_sent += 1;
            self.send(flow, true, reply_to, bytes);
        }
    }

    /// Opens a transaction. The request must have passed [`Self::on_request`]'s look for a repetition.
    pub(super) fn open(
        &mut self,
        now: Now,
        flow: &Flow,
        core: Core,
        request: Arc<Request>,
        dialog: Option<DialogId>,
    ) -> TransactionId {
        // A merged INVITE, about to be refused, must not take the first one's place: its ACK is found by this.
        let leads = request.method == Method::Invite && !self.is_merged(&core);
        let id = TransactionId(self.new_id());
        let local_tag = match dialog.and_then(|dialog| self.dialogs.get(&dialog)) {
            Some(dialog) => dialog.local_tag.clone(),
            None => self.own_tag.clone(),
        };
        let reply_to = respond::destination(flow, &request);
        let fallback = respond::fallback(flow, &request);
        let opening = Opening { core, flow: *flow, reply_to, fallback, local_tag, dialog, request };
        let transaction = ServerTransaction::open(now, opening, &self.config.timers);
        self.agenda.set(Timer::Server(id), transaction.due());
        self.server_keys.insert(transaction.key.clone(), id);
        if leads {
            self.invites.insert(transaction.call.clone(), id);
        }
        self.servers.insert(id, Box::new(transaction));
        if let Some(dialog) = dialog.and_then(|dialog| self.dialog_mut(dialog)) {
            dialog.transactions.insert(id);
        }
        id
    }

    /// Opens a transaction and refuses it at once.
    fn refuse(&mut self, now: Now, flow: &Flow, core: Core, request: Request, dialog: Option<DialogId>, status: u16) {
        self.refuse_with(now, flow, core, request, dialog, status, Vec::new());
    }

    #[allow(clippy::too_many_arguments)] // the one place where a request and its refusal meet
    fn refuse_with(
        &mut self,
        now: Now,
        flow: &Flow,
        core: Core,
        request: Request,
        dialog: Option<DialogId>,
        status: u16,
        fields: Vec<(String, String)>,
    ) {
        let tx = self.open(now, flow, core, Arc::new(request), dialog);
        self.answer(now, tx, status, "", &fields, None);
    }

    fn refuse_method(&mut self, now: Now, flow: &Flow, core: Core, request: Request, dialog: Option<DialogId>) {
        let status = if NOT_ALLOWED.contains(&request.method.as_str()) { 405 } else { 501 };
        let allow = vec![("Allow".to_owned(), respond::ALLOW.to_owned())];
        self.refuse_with(now, flow, core, request, dialog, status, allow);
    }

    fn refuse_extensions(&mut self, now: Now, flow: &Flow, core: Core, request: Request) {
        let unsupported = vec![("Unsupported".to_owned(), unknown_required(&request).join(", "))];
        self.refuse_with(now, flow, core, request, None, 420, unsupported);
    }

    /// A request outside any dialog.
    fn on_fresh_request(&mut self, now: Now, flow: &Flow, core: Core, request: Request) {
        match request.method {
            Method::Invite => self.on_invite(now, flow, core, request),
            Method::Options if !is_ours(&request) => self.refuse(now, flow, core, request, None, 416),
            Method::Options if !unknown_required(&request).is_empty() => {
                self.refuse_extensions(now, flow, core, request);
            }
            Method::Options => {
                let request = Arc::new(request);
                let tx = self.open(now, flow, core, request.clone(), None);
                self.event(Event::Options { tx, request, flow: *flow });
            }
            Method::Other(_) => self.refuse_method(now, flow, core, request, None),
            _ => self.refuse(now, flow, core, request, None, 481),
        }
    }

    fn on_invite(&mut self, now: Now, flow: &Flow, core: Core, request: Request) {
        if self.is_merged(&core) {
            return self.refuse(now, flow, core, request, None, 482);
        }
        if self.dialogs.len() >= self.config.dialogs_max {
            self.counters.refused_dialogs += 1;
            return self.refuse_overload(flow, &request);
        }
        let mut request = request;
        if let Some(min_se_s) = self.refuse_interval(&mut request) {
            return self.refuse_with(now, flow, core, request, None, 422, min_se(min_se_s));
        }
        let hints = is_recording_session(&request);
        let lenient = self.config.unknown_require == UnknownRequire::AcceptForRecording;
        let forgiven = lenient && hints.is_recording();
        if !hints.is_recording() && !is_ours(&request) {
            return self.refuse(now, flow, core, request, None, 416);
        }
        if !hints.unknown_required.is_empty() && !forgiven {
            return self.refuse_extensions(now, flow, core, request);
        }
        let encoding = request.headers.get("Content-Encoding").unwrap_or("").to_ascii_lowercase();
        if !matches!(encoding.as_str(), "" | "identity") {
            let accept = vec![("Accept-Encoding".to_owned(), "identity".to_owned())];
            return self.refuse_with(now, flow, core, request, None, 415, accept);
        }
        let id = DialogId(self.new_id());
        let tag = self.new_tag();
        let dialog = Dialog::from_invite(&self.config, &request, flow, &core, &tag);
        self.dialog_keys.insert((core.call_id.clone(), tag), id);
        self.dialogs.insert(id, Box::new(dialog));
        let request = Arc::new(request);
        let tx = self.open(now, flow, core, request.clone(), Some(id));
        self.set_pending(id, Some(tx));
        self.event(Event::Invite { tx, dialog: id, request, flow: *flow, hints });
    }

    /// Whether the INVITE is one that reached us by another way too (section 8.2.2.2). It is not when the earlier one was refused or
    /// came on a connection that is gone: then the peer tries again, and a call is at stake.
    fn is_merged(&self, core: &Core) -> bool {
        let earlier = self.invites.get(&core.call()).and_then(|id| self.servers.get(id));
        earlier.is_some_and(|transaction| !transaction.is_rejected() && transaction.flow_open)
    }

    fn on_dialog_request(&mut self, now: Now, flow: &Flow, core: Core, request: Request, id: DialogId) {
        self.heard(id, flow);
        let Some(dialog) = self.dialogs.get_mut(&id) else { return };
        if request.method == Method::Bye {
            return self.on_bye(now, flow, core, request, id);
        }
        if matches!(dialog.ending, Ending::Sent(_)) {
            return self.refuse(now, flow, core, request, Some(id), 481);
        }
        if core.cseq < dialog.remote_cseq {
            return self.refuse(now, flow, core, request, Some(id), 500);
        }
        dialog.remote_cseq = core.cseq;
        self.changed.insert(id);
        let changes = matches!(request.method, Method::Invite | Method::Update);
        if changes && dialog.pending.is_some() {
            let seconds = 1 + rand::Rng::next_u64(&mut self.random) % OVERLAP_RETRY_AFTER_S_MAX;
            let retry = vec![("Retry-After".to_owned(), seconds.to_string())];
            return self.refuse_with(now, flow, core, request, Some(id), 500, retry);
        }
        // The peer offers, or asks for another offer, while ours awaits its answer (RFC 3311 section 5.2, RFC 3261 section 14.2).
        let offers = request.method == Method::Invite || has_sdp(&request);
        if changes && dialog.offer_outstanding && offers {
            return self.refuse(now, flow, core, request, Some(id), 491);
        }
        let mut request = request;
        if changes && let Some(min_se_s) = self.refuse_interval(&mut request) {
            return self.refuse_with(now, flow, core, request, Some(id), 422, min_se(min_se_s));
        }
        match request.method {
            Method::Invite | Method::Update | Method::Info => {}
            Method::Options => {
                // A check that the dialog lives: it does, whether or not there is room for others.
                let tx = self.open(now, flow, core, Arc::new(request), Some(id));
                self.accept(now, tx, super::Accept::default());
                return;
            }
            _ => return self.refuse_method(now, flow, core, request, Some(id)),
        }
        let request = Arc::new(request);
        let tx = self.open(now, flow, core, request.clone(), Some(id));
        if changes {
            self.set_pending(id, Some(tx));
        }
        let dialog = id;
        self.event(match request.method {
            Method::Invite => Event::Reinvite { tx, dialog, request },
            Method::Update => Event::Update { tx, dialog, request },
            _ => Event::Info { tx, dialog, request },
        });
    }

    /// BYE is obeyed whatever its CSeq: refusing it would leave a recording open that the peer has left.
    fn on_bye(&mut self, now: Now, flow: &Flow, core: Core, request: Request, id: DialogId) {
        let request = Arc::new(request);
        let tx = self.open(now, flow, core, request.clone(), Some(id));
        self.answer(now, tx, 200, "", &[], None);
        self.event(Event::Bye { dialog: id, request });
        self.end_dialog(now, id, EndReason::PeerBye);
    }

    fn on_cancel(&mut self, now: Now, flow: &Flow, core: Core, request: Request) {
        let invite_key = core.key(&Method::Invite);
        let by_branch = self.server_keys.get(&invite_key).or_else(|| self.invites.get(&core.call())).copied();
        let found = by_branch.and_then(|id| Some((id, self.servers.get(&id)?)));
        let Some((invite, transaction)) = found else {
            return self.refuse(now, flow, core, request, None, 481);
        };
        let (pending, dialog) = (transaction.is_pending(), transaction.dialog);
        let tx = self.open(now, flow, core, Arc::new(request), dialog);
        self.answer(now, tx, 200, "", &[], None);
        if !pending {
            return;
        }
        self.answer(now, invite, 487, "", &[], None);
        let Some(dialog) = dialog else { return };
        self.set_pending(dialog, None);
        self.event(Event::Cancelled { tx: invite, dialog });
        if self.dialogs.get(&dialog).is_some_and(|dialog| !dialog.confirmed) {
            self.end_dialog(now, dialog, EndReason::Cancelled);
        }
    }

    /// An ACK belongs to an INVITE by its branch when that was refused (section 17.1.1.3), by Call-ID, tags and CSeq when it was
    /// accepted, and here by the latter in either case.
    fn on_ack(&mut self, now: Now, flow: &Flow, core: &Core, request: Request) {
        let key = core.key(&Method::Invite);
        let id = self.server_keys.get(&key).or_else(|| self.invites.get(&core.call())).copied();
        let found = id.and_then(|id| Some((id, self.servers.get_mut(&id)?)));
        let Some((id, transaction)) = found else {
            self.counters.strays += 1;
            return;
        };
        if core.to_tag.as_ref().is_some_and(|tag| *tag != transaction.local_tag) {
            self.counters.strays += 1;
            return;
        }
        let acked = transaction.ack(now, &self.config.timers);
        let dialog = transaction.dialog;
        self.schedule(now, id);
        if let (Some(dialog), Acked::Accepted | Acked::Rejected) = (dialog, acked) {
            self.dialog_mut(dialog);
        }
        let Some(dialog_id) = dialog.filter(|_| acked == Acked::Accepted) else { return };
        self.heard(dialog_id, flow);
        let Some(dialog) = self.dialog_mut(dialog_id) else { return };
        if dialog.unacked == Some(id) {
            dialog.unacked = None;
            dialog.offer_outstanding = false;
        }
        self.event(Event::Acked { dialog: dialog_id, request: Arc::new(request) });
        self.send_waiting_bye(now, dialog_id);
    }

    /// Sends the BYE that waited for the ACK; false when none did, or when another ACK is still to come.
    pub(super) fn send_waiting_bye(&mut self, now: Now, id: DialogId) -> bool {
        let Some(dialog) = self.dialogs.get(&id).filter(|dialog| dialog.unacked.is_none()) else { return false };
        let Ending::AwaitsAck(reason) = dialog.ending.clone() else { return false };
        self.send_bye(now, id, reason.as_deref());
        true
    }

    fn set_pending(&mut self, id: DialogId, tx: Option<TransactionId>) {
        if let Some(dialog) = self.dialogs.get_mut(&id) {
            dialog.pending = tx;
        }
    }
}

/// Whether the Request-URI is of a scheme that a recorder can be reached by (section 8.2.2.1), or of none, as sloppy peers write it.
fn is_ours(request: &Request) -> bool {
    matches!(request.uri.scheme(), "" | "sip" | "sips" | "tel")
}

/// The field that says which interval would do (RFC 4028 section 9).
fn min_se(seconds: u32) -> Vec<(String, String)> {
    vec![("Min-SE".to_owned(), seconds.to_string())]
}

/// Whether the request has an offer or an answer.
pub(super) fn has_sdp(request: &Request) -> bool {
    bodies(request).is_ok_and(|bodies| bodies.sdp().is_some())
}
