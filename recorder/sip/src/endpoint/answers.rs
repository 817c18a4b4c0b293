//! What is answered: the session layer's decisions, refusals, repetitions, and the end of transactions and dialogs.

use super::dialog::Dialog;
use super::requests::has_sdp;
use super::server::Due;
use super::{Accept, DialogId, EndReason, Endpoint, Event, Flow, Now, Timer, TransactionId, respond};
use crate::message::{Method, Request};

impl Endpoint {
    /// Answers 200. On an INVITE the dialog is confirmed, and the answer is repeated until its ACK comes. Returns false, and does
    /// nothing, when the transaction is answered already, as by a CANCEL that came before.
    pub fn accept(&mut self, now: Now, tx: TransactionId, accept: Accept) -> bool {
        let Some(transaction) = self.servers.get(&tx).filter(|transaction| transaction.is_pending()) else {
            return false;
        };
        let Some(request) = transaction.request.clone() else { return false };
        let (flow, dialog) = (transaction.flow, transaction.dialog);
        let contact = respond::contact(&self.config, &flow, &request, accept.contact_user.as_deref());
        let mut fields = accept.extra_headers;
        let offers = request.method == Method::Invite && accept.body.is_some() && !has_sdp(&request);
        if let Some(dialog) = dialog.and_then(|id| self.dialog_mut(id)) {
            dialog.accepted(tx, &request, &contact, offers);
        }
        if let (Some(id), Method::Invite | Method::Update) = (dialog, &request.method) {
            fields.extend(self.agree_on_timer(now, id, &request));
        }
        let capable = matches!(request.method, Method::Invite | Method::Update | Method::Options);
        let contact = capable.then_some(contact.as_str());
        self.answer_with(now, tx, 200, "", &fields, accept.body, contact);
        true
    }

    /// Refuses with a status of 300 to 699 (any other is a bug of the caller and becomes 500); an empty `reason` means the usual phrase.
    /// The first INVITE's dialog ends with [`Event::Ended`]. Returns false, and does nothing, when the transaction is answered already.
    pub fn reject(
        &mut self,
        now: Now,
        tx: TransactionId,
        status: u16,
        reason: &str,
        extra_headers: Vec<(String, String)>,
    ) -> bool {
        debug_assert!((300..700).contains(&status), "a refusal has a status of 300 to 699");
        let status = if (300..700).contains(&status) { status } else { 500 };
        let Some(transaction) = self.servers.get(&tx).filter(|transaction| transaction.is_pending()) else {
            return false;
        };
        let dialog = transaction.dialog;
        self.answer(now, tx, status, reason, &extra_headers, None);
        if let Some(id) = dialog {
            self.refused(now, id, tx, EndReason::Rejected { status });
        }
        true
    }

    /// Sends 100 to an INVITE whose answer will take a while. It comes by itself after 200 ms. Returns false when the INVITE is
    /// answered already.
    pub fn trying(&mut self, tx: TransactionId) -> bool {
        let Some(transaction) = self.servers.get_mut(&tx).filter(|transaction| transaction.is_pending()) else {
            return false;
        };
        let Some(request) = transaction.request.clone() else { return false };
        let (flow, open, reply_to) = (transaction.flow, transaction.flow_open, transaction.reply_to);
        let response = respond::response(&self.config, &flow, &request, 100, "", "");
        let Some(bytes) = response.map(|response| response.to_bytes()) else { return false };
        transaction.trying(bytes.clone());
        let due = transaction.due();
        self.agenda.set(Timer::Server(tx), due);
        self.send(&flow, open, reply_to, bytes);
        true
    }

    /// Answers finally and without a Contact.
    pub(super) fn answer(
        &mut self,
        now: Now,
        tx: TransactionId,
        status: u16,
        reason: &str,
        fields: &[(String, String)],
        body: Option<(String, Vec<u8>)>,
    ) {
        self.answer_with(now, tx, status, reason, fields, body, None);
    }

    #[allow(clippy::too_many_arguments)] // the one place where a response is put together
    fn answer_with(
        &mut self,
        now: Now,
        tx: TransactionId,
        status: u16,
        reason: &str,
        fields: &[(String, String)],
        body: Option<(String, Vec<u8>)>,
        contact: Option<&str>,
    ) {
        let Some(transaction) = self.servers.get_mut(&tx).filter(|transaction| transaction.is_pending()) else {
            return;
        };
        let Some(request) = transaction.request.take() else { return };
        let flow = transaction.flow;
        let response = respond::response(&self.config, &flow, &request, status, reason, &transaction.local_tag);
        // Only a request whose Via can be read gets a transaction.
        let Some(mut response) = response else { return };
        if let Some(contact) = contact {
            respond::add_capabilities(contact, &mut response);
        }
        respond::add_fields(&mut response, fields);
        if let Some((content_type, body)) = body {
            response.headers.push("Content-Type", &content_type);
            response.body = body;
        }
        transaction.answered(now, status, response.to_bytes(), &self.config.timers);
        if let Some(dialog) = transaction.dialog {
            self.dialog_mut(dialog);
        }
        self.send_answer(tx);
        self.schedule(now, tx);
    }

    /// Refuses without keeping anything: a repetition of the request is refused again. False when it cannot be answered.
    pub(super) fn refuse_stateless(
        &mut self,
        flow: &Flow,
        request: &Request,
        status: u16,
        reason: &str,
        fields: &[(String, String)],
    ) -> bool {
        let response = respond::response(&self.config, flow, request, status, reason, &self.own_tag);
        let Some(mut response) = response else { return false };
        respond::add_fields(&mut response, fields);
        let peer = respond::destination(flow, request);
        self.send(flow, true, peer, response.to_bytes());
        true
    }

    pub(super) fn on_server_timeout(&mut self, now: Now, id: TransactionId) {
        let Some(transaction) = self.servers.get_mut(&id) else { return };
        match transaction.take_due(now, &self.config.timers) {
            Due::Wait => {}
            Due::Trying => {
                self.trying(id);
            }
            Due::Resend => self.resend(id),
            Due::GiveUp => return self.give_up(now, id),
            Due::AckMissing => {
                let dialog = transaction.dialog;
                self.forget_transaction(id);
                return self.ack_missing(now, id, dialog);
            }
            Due::Over => {
                self.forget_transaction(id);
                return;
            }
        }
        self.schedule(now, id);
    }

    fn resend(&mut self, id: TransactionId) {
        self.counters.retransmissions_sent += 1;
        self.send_answer(id);
    }

    /// Sends a transaction's last answer. The final one to an INVITE whose connection is closed gets a new one, once.
    pub(super) fn send_answer(&mut self, id: TransactionId) {
        let Some(transaction) = self.servers.get_mut(&id) else { return };
        let (flow, open, reply_to) = (transaction.flow, transaction.flow_open, transaction.reply_to);
        if !open && transaction.awaits.is_some() {
            return;
        }
        let fallback = transaction.fallback.take_if(|_| !open && transaction.request.is_none());
        let answer = transaction.answer.clone();
        match (fallback, answer) {
            (Some(destination), _) => self.connect_for_answer(id, destination),
            (None, Some(bytes)) => self.send(&flow, open, reply_to, bytes),
            (None, None) => {}
        }
    }

    /// The session layer has not answered. The peer of an INVITE is told; of anything else, it has given up too (RFC 4320 section 4.2).
    fn give_up(&mut self, now: Now, id: TransactionId) {
        let Some(transaction) = self.servers.get(&id) else { return };
        let (invite, dialog) = (transaction.method == Method::Invite, transaction.dialog);
        if invite {
            self.answer(now, id, 500, "", &[], None);
        } else {
            self.forget_transaction(id);
        }
        if let Some(dialog) = dialog {
            self.refused(now, dialog, id, EndReason::GivenUp);
        }
    }

    fn ack_missing(&mut self, now: Now, tx: TransactionId, dialog: Option<DialogId>) {
        let Some((id, dialog)) = dialog.and_then(|id| Some((id, self.dialog_mut(id)?))) else { return };
        if dialog.unacked != Some(tx) {
            // A later INVITE was accepted since: the peer is there.
            return;
        }
        dialog.unacked = None;
        dialog.offer_outstanding = false;
        if !self.send_waiting_bye(now, id) {
            self.event(Event::AckTimeout { dialog: id });
        }
    }

    /// A transaction of the dialog was refused. The dialog lives on if it was confirmed before.
    fn refused(&mut self, now: Now, id: DialogId, tx: TransactionId, why: EndReason) {
        let Some(dialog) = self.dialogs.get_mut(&id) else { return };
        if dialog.pending == Some(tx) {
            dialog.pending = None;
            if !dialog.confirmed {
                self.end_dialog(now, id, why);
            }
        }
    }

    /// Sets the transaction's next deadline, or forgets it when that has come already.
    pub(super) fn schedule(&mut self, now: Now, id: TransactionId) {
        let Some(transaction) = self.servers.get(&id) else { return };
        let due = transaction.due();
        if due <= now && transaction.is_over(now) {
            self.forget_transaction(id);
        } else {
            self.agenda.set(Timer::Server(id), due);
        }
    }

    fn forget_transaction(&mut self, id: TransactionId) {
        self.agenda.clear(Timer::Server(id));
        let Some(transaction) = self.servers.remove(&id) else { return };
        self.server_keys.remove(&transaction.key);
        if let Some(connect) = transaction.awaits {
            self.connects.leave_answer(connect, id);
        }
        if let Some(dialog) = transaction.dialog.and_then(|id| self.dialogs.get_mut(&id)) {
            dialog.transactions.remove(&id);
        }
        if self.invites.get(&transaction.call) == Some(&id) {
            self.invites.remove(&transaction.call);
        }
    }

    /// Forgets the dialog and everything that is under way in it, and says so.
    pub(super) fn end_dialog(&mut self, now: Now, id: DialogId, why: EndReason) {
        let Some(dialog) = self.dialogs.remove(&id) else { return };
        self.changed.remove(&id);
        self.agenda.clear(Timer::Dialog(id));
        if let Some(pending) = dialog.pending {
            self.answer(now, pending, 487, "", &[], None);
        }
        self.dialog_keys.remove(&(dialog.call_id.value().to_owned(), dialog.local_tag));
        self.forget_clients_of(id);
        if let Some(transaction) = dialog.unacked.and_then(|tx| self.servers.get_mut(&tx)) {
            transaction.stop_resending();
        }
        self.event(Event::Ended { dialog: id, why });
    }
}

impl Dialog {
    /// The session layer has accepted a request of this dialog.
    fn accepted(&mut self, tx: TransactionId, request: &Request, contact: &str, offers: bool) {
        if !matches!(request.method, Method::Invite | Method::Update) {
            return;
        }
        if self.pending == Some(tx) {
            self.pending = None;
        }
        self.refresh_target(&request.headers);
        self.note_allowed(&request.headers);
        self.contact = contact.to_owned();
        if request.method == Method::Invite {
            self.confirmed = true;
            self.unacked = Some(tx);
            self.offer_outstanding = offers;
        }
    }
}
