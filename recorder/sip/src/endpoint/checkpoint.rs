//! Dialogs as data: what the next process needs in order to go on with the dialogs of this one.
//!
//! # What is in a checkpoint, and what is not
//!
//! Everything that the peer can notice: tags, sequence numbers, route set, targets, our Contact, and the final answers that it may
//! still ask for again, byte for byte with the names of their transactions. So a repeated INVITE gets the answer that it had, and
//! opens no second dialog; a 2xx without ACK goes on being repeated; a BYE of ours that was under way is sent again.
//!
//! Not in it are dialogs that are not accepted (the peer repeats its INVITE, and the next process answers it), requests that are not
//! answered yet (the same), and requests of ours other than BYE (their answers are strays; the session layer asks again).
//!
//! # Contract with the driver
//!
//! Before each [`Endpoint::poll`], [`Endpoint::take_changed_dialogs`] says whose checkpoints are to be written: then a checkpoint is
//! kept before the message that it is about is sent. A dialog that is over is not among them: [`Event::Ended`](super::Event::Ended)
//! tells of it. Times are absolute, so both processes have to count on the same clock. Nothing that a checkpoint holds makes
//! [`Endpoint::resume`] panic.

use std::collections::BTreeSet;
use std::fmt;
use std::net::SocketAddr;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::connects::Destination;
use super::dialog::{Dialog, Ending};
use super::server::{ServerTransaction, State, TransactionKey};
use super::session_timer::SessionTimer;
use super::{DialogId, Endpoint, Flow, FlowId, Now, Timer, TransactionId};
use crate::message::{Field, Uri, is_token};

/// The version of [`DialogCheckpoint`]'s content. It is kept beside a checkpoint by whoever writes it, and changes whenever one that
/// was written before could not be read, or would mean something else.
pub const DIALOG_CHECKPOINT_VERSION: u16 = 1;

/// Most answers in a checkpoint: that of the INVITE without ACK, and the latest others. One lives 32 s, and in that time a dialog sees
/// a handful of requests.
const ANSWERS_MAX: usize = 8;

/// How far our sequence numbers are moved on when a dialog is resumed, in case that the last one was used after the checkpoint. A peer
/// has to accept gaps (RFC 3261 section 12.2.2).
const CSEQ_MARGIN: u32 = 16;

/// An accepted dialog as data. It holds names, numbers and session descriptions, with the keys in them: it belongs into memory only,
/// and stays out of Debug.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DialogCheckpoint {
    call_id: Vec<u8>,
    local_tag: String,
    remote_tag: String,
    local: Vec<u8>,
    remote: Vec<u8>,
    remote_target: String,
    route_set: Vec<String>,
    local_host: String,
    contact: String,
    local_cseq: u32,
    remote_cseq: u32,
    flow: Flow,
    /// Which of the answers awaits its ACK.
    unacked: Option<u32>,
    offer_outstanding: bool,
    ending: Ending,
    session_timer: Option<SessionTimer>,
    peer_allows_update: bool,
    /// The oldest first.
    answers: Vec<AnswerCheckpoint>,
}

/// A server transaction with its final answer.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
struct AnswerCheckpoint {
    key: TransactionKey,
    flow: Flow,
    reply_to: SocketAddr,
    fallback: Option<Destination>,
    bytes: Vec<u8>,
    state: State,
}

impl fmt::Debug for DialogCheckpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DialogCheckpoint({} answers, {:?})", self.answers.len(), self.flow.kind)
    }
}

/// Why a dialog cannot be resumed. Texts fit after "failed to resume a dialog: ".
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ResumeError {
    /// There are as many dialogs as may be.
    #[error("there are {limit} dialogs already")]
    Full {
        /// The limit: [`super::EndpointConfig::dialogs_max`].
        limit: usize,
    },
    /// There is a dialog with this Call-ID and our tag: the checkpoint was resumed already.
    #[error("it is there already")]
    Duplicate,
    /// The checkpoint holds what none was made with.
    #[error("its checkpoint has a bad {what}; it is damaged, or of another version")]
    Invalid {
        /// What is wrong.
        what: &'static str,
    },
}

impl Endpoint {
    /// The dialog as data. `None` for one that is not accepted yet, or over. It is complete from [`Endpoint::accept`] on, before the
    /// answer has been polled.
    #[must_use]
    pub fn checkpoint(&self, id: DialogId) -> Option<DialogCheckpoint> {
        let dialog = self.dialogs.get(&id).filter(|dialog| dialog.confirmed)?;
        let kept = self.kept_answers(dialog);
        let answer = |(_, transaction): &(TransactionId, &ServerTransaction)| AnswerCheckpoint {
            key: transaction.key.clone(),
            flow: transaction.flow,
            reply_to: transaction.reply_to,
            fallback: transaction.fallback,
            bytes: transaction.answer.clone().unwrap_or_default(),
            state: transaction.state.clone(),
        };
        let unacked = dialog.unacked.and_then(|tx| kept.iter().position(|(id, _)| *id == tx));
        Some(DialogCheckpoint {
            call_id: dialog.call_id.wire_value().to_vec(),
            local_tag: dialog.local_tag.clone(),
            remote_tag: dialog.remote_tag.clone(),
            local: dialog.local.wire_value().to_vec(),
            remote: dialog.remote.wire_value().to_vec(),
            remote_target: dialog.remote_target.as_str().to_owned(),
            route_set: dialog.route_set.clone(),
            local_host: dialog.local_host.clone(),
            contact: dialog.contact.clone(),
            local_cseq: dialog.local_cseq,
            remote_cseq: dialog.remote_cseq,
            flow: dialog.flow,
            unacked: unacked.and_then(|index| u32::try_from(index).ok()),
            offer_outstanding: dialog.offer_outstanding,
            ending: dialog.ending.clone(),
            session_timer: dialog.session_timer,
            peer_allows_update: dialog.peer_allows_update,
            answers: kept.iter().map(answer).collect(),
        })
    }

    /// The accepted dialogs whose checkpoint is no longer what it was when they were last given here, each once. What passes by itself
    /// is not a change: that an answer was repeated, or is too old to be asked for.
    pub fn take_changed_dialogs(&mut self) -> impl Iterator<Item = DialogId> {
        let changed = std::mem::take(&mut self.changed);
        changed.into_iter().filter(|id| self.dialogs.get(id).is_some_and(|dialog| dialog.confirmed))
    }

    /// Goes on with a dialog of an earlier process. It has a new name; nothing is told of it until something happens in it, and it ends
    /// in one [`Event::Ended`](super::Event::Ended) like any other.
    ///
    /// `flow` gives for a flow of the earlier driver that of this one: for datagrams the same listener under its present name, for a
    /// connection `None`. A dialog without a flow gets one with the next request of its peer, or a connection when it has something to
    /// say itself.
    ///
    /// # Errors
    /// All of [`ResumeError`]; the endpoint is then as it was.
    pub fn resume(
        &mut self,
        now: Now,
        checkpoint: DialogCheckpoint,
        flow: impl Fn(&Flow) -> Option<Flow>,
    ) -> Result<DialogId, ResumeError> {
        if self.dialogs.len() >= self.config.dialogs_max {
            return Err(ResumeError::Full { limit: self.config.dialogs_max });
        }
        let (dialog, unacked, answers) = checkpoint.into_dialog(&flow)?;
        let key = (dialog.call_id.value().to_owned(), dialog.local_tag.clone());
        if self.dialog_keys.contains_key(&key) {
            return Err(ResumeError::Duplicate);
        }
        let id = DialogId(self.new_id());
        self.dialog_keys.insert(key, id);
        self.dialogs.insert(id, Box::new(dialog));
        for (index, answer) in answers.into_iter().take(ANSWERS_MAX).enumerate() {
            let tx = self.resume_answer(now, id, answer, &flow);
            if let (Some(dialog), true) = (self.dialogs.get_mut(&id), unacked == Some(index)) {
                dialog.unacked = tx;
            }
        }
        let timer = self.dialogs.get(&id).and_then(|dialog| dialog.session_timer);
        self.set_session_timer(id, timer.map(|timer| timer.resumed(now)));
        self.resume_ending(now, id);
        Ok(id)
    }

    /// The answers that a checkpoint holds: that of the INVITE without ACK, and the latest others.
    fn kept_answers(&self, dialog: &Dialog) -> Vec<(TransactionId, &ServerTransaction)> {
        let answered = |id: &TransactionId| {
            Some((*id, self.servers.get(id).map(Box::as_ref).filter(|transaction| !transaction.is_pending())?))
        };
        let unacked = dialog.unacked.as_ref().and_then(answered);
        let others = dialog.transactions.iter().rev().filter(|id| dialog.unacked != Some(**id)).filter_map(answered);
        let mut kept: Vec<_> = unacked.into_iter().chain(others).take(ANSWERS_MAX).collect();
        kept.sort_by_key(|(id, _)| *id);
        kept
    }

    /// Takes over a transaction; gives its name when it may be awaiting the ACK of a 2xx.
    fn resume_answer(
        &mut self,
        now: Now,
        dialog: DialogId,
        answer: AnswerCheckpoint,
        flow: &impl Fn(&Flow) -> Option<Flow>,
    ) -> Option<TransactionId> {
        let local_tag = self.dialogs.get(&dialog)?.local_tag.clone();
        let AnswerCheckpoint { key, flow: old, reply_to, fallback, bytes, state } = answer;
        let state = state.resumed(now, &self.config.timers)?;
        if self.server_keys.contains_key(&key) || bytes.is_empty() {
            return None;
        }
        let (flow, flow_open) = moved(old, flow);
        let tx = TransactionId(self.new_id());
        let awaits_ack = state.awaits_ack_of_2xx();
        let transaction = ServerTransaction {
            call: key.call.clone(),
            method: key.method.clone(),
            key,
            flow,
            flow_open,
            reply_to,
            fallback,
            awaits: None,
            local_tag,
            dialog: Some(dialog),
            request: None,
            answer: Some(bytes),
            state,
        };
        self.server_keys.insert(transaction.key.clone(), tx);
        if transaction.method == crate::message::Method::Invite {
            self.invites.insert(transaction.call.clone(), tx);
        }
        self.agenda.set(Timer::Server(tx), transaction.due());
        self.servers.insert(tx, Box::new(transaction));
        self.dialog_mut(dialog)?.transactions.insert(tx);
        awaits_ack.then_some(tx)
    }

    /// A BYE of ours that was under way is sent again, and one that has no ACK to wait for any more is sent now.
    fn resume_ending(&mut self, now: Now, id: DialogId) {
        let Some(dialog) = self.dialog_mut(id) else { return };
        match (dialog.ending.clone(), dialog.unacked) {
            (Ending::No, _) | (Ending::AwaitsAck(_), Some(_)) => {}
            (Ending::AwaitsAck(reason) | Ending::Sent(reason), _) => self.send_bye(now, id, reason.as_deref()),
        }
    }
}

impl DialogCheckpoint {
    /// The dialog, which of the answers awaits its ACK, and the answers.
    fn into_dialog(
        self,
        flow: &impl Fn(&Flow) -> Option<Flow>,
    ) -> Result<(Dialog, Option<usize>, Vec<AnswerCheckpoint>), ResumeError> {
        // It goes into header fields as it is.
        if self.local_tag.is_empty() || !self.local_tag.bytes().all(is_token) {
            return Err(ResumeError::Invalid { what: "tag" });
        }
        let call_id = Field::from_wire("Call-ID", &self.call_id);
        if call_id.value().is_empty() {
            return Err(ResumeError::Invalid { what: "Call-ID" });
        }
        let (flow, flow_open) = moved(self.flow, flow);
        let dialog = Dialog {
            call_id,
            remote_tag: self.remote_tag,
            local: Field::from_wire("From", &self.local),
            remote: Field::from_wire("To", &self.remote),
            remote_target: Uri::parse(&self.remote_target),
            route_set: self.route_set,
            local_host: self.local_host,
            contact: self.contact,
            local_cseq: self.local_cseq.saturating_add(CSEQ_MARGIN),
            remote_cseq: self.remote_cseq,
            flow,
            flow_open,
            confirmed: true,
            pending: None,
            unacked: None,
            offer_outstanding: self.offer_outstanding,
            ending: self.ending,
            session_timer: self.session_timer,
            peer_allows_update: self.peer_allows_update,
            transactions: BTreeSet::new(),
            local_tag: self.local_tag,
        };
        Ok((dialog, self.unacked.and_then(|index| usize::try_from(index).ok()), self.answers))
    }
}

/// The flow in this process, and whether it is open.
fn moved(old: Flow, flow: &impl Fn(&Flow) -> Option<Flow>) -> (Flow, bool) {
    match flow(&old) {
        Some(flow) => (flow, true),
        None => (Flow { id: FlowId::NONE, ..old }, false),
    }
}
