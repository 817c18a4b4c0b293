//! Server transactions: the state of one, and when it acts (RFC 3261 section 17.2, RFC 6026 section 7.1). What it decides,
//! the endpoint does.

use std::net::SocketAddr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::connects::{ConnectId, Destination};
use super::{DialogId, Flow, Now, PENDING_NS_MAX, TRYING_AFTER_NS, Timers};
use crate::message::{CSeq, Method, NameAddr, Request, Via};

/// The fields of a request without which it cannot be answered or matched.
#[derive(Clone, Debug)]
pub(super) struct Core {
    pub(super) branch: String,
    pub(super) sent_by: String,
    pub(super) call_id: String,
    pub(super) from_tag: String,
    pub(super) to_tag: Option<String>,
    pub(super) cseq: u32,
}

impl Core {
    /// Reads them, or names the one that is missing, contradicts itself (RFC 3261 section 7.3.1: each may stand there once), or the method.
    pub(super) fn read(request: &Request) -> Result<Self, &'static str> {
        let headers = &request.headers;
        // Twice the same is a slip; two different ones leave open which request this is.
        let present = |name: &'static str| {
            let value = headers.get(name).filter(|value| !value.is_empty())?;
            headers.all(name).all(|field| field.value() == value).then_some(value)
        };
        let via = Via::topmost(headers).ok_or("Via")?;
        let from = NameAddr::parse(present("From").ok_or("From")?);
        let to = NameAddr::parse(present("To").ok_or("To")?);
        let call_id = present("Call-ID").ok_or("Call-ID")?.to_owned();
        let cseq =
            present("CSeq").and_then(CSeq::parse).filter(|cseq| is_of(cseq, &request.method)).ok_or("CSeq")?.number;
        Ok(Self {
            branch: via.branch().unwrap_or("").to_owned(),
            sent_by: via.sent_by(),
            call_id,
            from_tag: from.tag().unwrap_or("").to_owned(),
            to_tag: to.tag().map(str::to_owned),
            cseq,
        })
    }

    /// The key of the transaction that a request with this method opens or repeats.
    pub(super) fn key(&self, method: &Method) -> TransactionKey {
        TransactionKey {
            branch: self.branch.clone(),
            sent_by: self.sent_by.clone(),
            call: self.call(),
            method: method.clone(),
        }
    }

    pub(super) fn call(&self) -> CallKey {
        CallKey { call_id: self.call_id.clone(), from_tag: self.from_tag.clone(), cseq: self.cseq }
    }
}

/// Whether the CSeq is that of this method (section 8.1.1.5). ACK, CANCEL and BYE are what a call is ended with, and are taken with that
/// of the INVITE too; so is a CSeq without a method.
fn is_of(cseq: &CSeq, method: &Method) -> bool {
    matches!(method, Method::Ack | Method::Cancel | Method::Bye)
        || cseq.method.is_empty()
        || cseq.method.eq_ignore_ascii_case(method.as_str())
}

/// What names a transaction. Branch, sent-by and method would do (RFC 3261 section 17.2.3); Call-ID, From tag and CSeq number, which
/// are the same in every repetition, tell apart the requests of peers that reuse a branch, or have none (RFC 2543).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) struct TransactionKey {
    pub(super) call: CallKey,
    branch: String,
    sent_by: String,
    pub(super) method: Method,
}

/// What names a request wherever it travels.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) struct CallKey {
    call_id: String,
    from_tag: String,
    cseq: u32,
}

/// The shortest pause between retransmissions whatever the timers say, so that a timer of zero cannot loop: 1 ms.
const RESEND_NS_MIN: u64 = 1_000_000;

/// A message that is sent again and again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Resend {
    pub(super) at: Now,
    pub(super) interval_ns: u64,
}

impl Resend {
    pub(super) fn start(now: Now, timers: &Timers) -> Self {
        let interval_ns = timers.t1_ns.max(RESEND_NS_MIN);
        Self { at: now.after(interval_ns), interval_ns }
    }

    /// Doubles the pause up to T2. A late caller is not made to catch up.
    pub(super) fn again(&mut self, now: Now, timers: &Timers) {
        self.interval_ns = self.interval_ns.saturating_mul(2).min(timers.t2_ns.max(RESEND_NS_MIN));
        self.at = now.after(self.interval_ns);
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum State {
    /// No final answer yet: Trying or Proceeding.
    Pending { trying_at: Option<Now>, until: Now },
    /// INVITE answered with 2xx: Accepted of RFC 6026. Retransmission until the ACK is the core's duty (RFC 3261 section 13.3.1.4) and
    /// happens on every transport.
    Accepted { acked: bool, resend: Resend, until: Now },
    /// INVITE answered otherwise, ACK awaited: Completed.
    Rejected { resend: Option<Resend>, until: Now },
    /// Nothing left but to absorb what is repeated: Confirmed of an INVITE, Completed of others.
    Settled { until: Now },
}

impl State {
    /// The state in a later process: times that are further away than any that is set here are drawn near, so that nothing is kept for
    /// ever. `None` for what has no answer, or is over.
    pub(super) fn resumed(mut self, now: Now, timers: &Timers) -> Option<Self> {
        let furthest = now.after(timers.patience_ns());
        match &mut self {
            Self::Pending { .. } => return None,
            Self::Accepted { until, resend, .. } => {
                *until = furthest.min(*until);
                resend.at = furthest.min(resend.at);
            }
            Self::Rejected { until, .. } | Self::Settled { until } => {
                *until = furthest.min(*until);
                if *until <= now {
                    return None;
                }
            }
        }
        Some(self)
    }

    pub(super) fn awaits_ack_of_2xx(&self) -> bool {
        matches!(self, Self::Accepted { acked: false, .. })
    }
}

/// What a transaction wants done when its time has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Due {
    /// Nothing yet.
    Wait,
    /// Send 100.
    Trying,
    /// Send the last answer again.
    Resend,
    /// The session layer never answered: answer 500 or forget it.
    GiveUp,
    /// It is over, and no ACK came for its 2xx.
    AckMissing,
    /// It is over.
    Over,
}

/// What an ACK did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Acked {
    /// Confirmed a 2xx, for the first time.
    Accepted,
    /// Confirmed a refusal, for the first time.
    Rejected,
    /// Was expected no longer, or not yet.
    Nothing,
}

/// One server transaction.
pub(super) struct ServerTransaction {
    pub(super) key: TransactionKey,
    pub(super) call: CallKey,
    pub(super) method: Method,
    pub(super) flow: Flow,
    pub(super) flow_open: bool,
    /// Where answers go.
    pub(super) reply_to: SocketAddr,
    /// Where a connection may be made for the final answer to an INVITE whose own is closed.
    pub(super) fallback: Option<Destination>,
    /// The connection that is being made for it.
    pub(super) awaits: Option<ConnectId>,
    /// Our tag in the answers, unless the request's To has one.
    pub(super) local_tag: String,
    pub(super) dialog: Option<DialogId>,
    /// The request, until it is answered.
    pub(super) request: Option<Arc<Request>>,
    /// The last answer, for repetitions.
    pub(super) answer: Option<Vec<u8>>,
    pub(super) state: State,
}

/// What a new transaction is made of.
pub(super) struct Opening {
    pub(super) core: Core,
    pub(super) flow: Flow,
    pub(super) reply_to: SocketAddr,
    pub(super) fallback: Option<Destination>,
    pub(super) local_tag: String,
    pub(super) dialog: Option<DialogId>,
    pub(super) request: Arc<Request>,
}

impl ServerTransaction {
    pub(super) fn open(now: Now, opening: Opening, timers: &Timers) -> Self {
        let Opening { core, flow, reply_to, fallback, local_tag, dialog, request } = opening;
        let method = request.method.clone();
        let state = match method {
            Method::Invite => {
                State::Pending { trying_at: Some(now.after(TRYING_AFTER_NS)), until: now.after(PENDING_NS_MAX) }
            }
            _ => State::Pending { trying_at: None, until: now.after(timers.patience_ns()) },
        };
        Self {
            key: core.key(&method),
            call: core.call(),
            method,
            flow,
            flow_open: true,
            reply_to,
            fallback,
            awaits: None,
            local_tag,
            dialog,
            request: Some(request),
            answer: None,
            state,
        }
    }

    pub(super) fn is_pending(&self) -> bool {
        matches!(self.state, State::Pending { .. })
    }

    pub(super) fn is_rejected(&self) -> bool {
        matches!(self.state, State::Rejected { .. } | State::Settled { .. })
    }

    /// A provisional answer was sent.
    pub(super) fn trying(&mut self, bytes: Vec<u8>) {
        if let State::Pending { trying_at, .. } = &mut self.state {
            *trying_at = None;
            self.answer = Some(bytes);
        }
    }

    /// The final answer was sent. The request is no longer needed.
    pub(super) fn answered(&mut self, now: Now, status: u16, bytes: Vec<u8>, timers: &Timers) {
        self.request = None;
        self.answer = Some(bytes);
        let (reliable, until) = (self.flow.kind.is_reliable(), now.after(timers.patience_ns()));
        let resend = Resend::start(now, timers);
        self.state = match (&self.method, status) {
            (Method::Invite, 200..300) => State::Accepted { acked: false, resend, until },
            (Method::Invite, _) => State::Rejected { resend: (!reliable).then_some(resend), until },
            // Timer J is zero where nothing is repeated.
            _ => State::Settled { until: if reliable { now } else { until } },
        };
    }

    /// What answers a repetition of the request; nothing where silence is right.
    pub(super) fn repeat(&self) -> Option<&[u8]> {
        let silent = match self.state {
            State::Accepted { acked, .. } => acked,
            State::Settled { .. } => self.method == Method::Invite,
            State::Pending { .. } | State::Rejected { .. } => false,
        };
        self.answer.as_deref().filter(|_| !silent)
    }

    pub(super) fn ack(&mut self, now: Now, timers: &Timers) -> Acked {
        match &mut self.state {
            State::Accepted { acked, .. } if !*acked => {
                *acked = true;
                Acked::Accepted
            }
            State::Rejected { .. } => {
                // Timer I.
                let reliable = self.flow.kind.is_reliable();
                self.state = State::Settled { until: if reliable { now } else { now.after(timers.t4_ns) } };
                Acked::Rejected
            }
            _ => Acked::Nothing,
        }
    }

    /// No ACK is awaited any more: the dialog is over.
    pub(super) fn stop_resending(&mut self) {
        if let State::Accepted { acked, .. } = &mut self.state {
            *acked = true;
        }
    }

    /// Whether nothing is left to do or to absorb.
    pub(super) fn is_over(&self, now: Now) -> bool {
        matches!(self.state, State::Settled { until } if until <= now)
    }

    /// When [`Self::take_due`] has something to say.
    pub(super) fn due(&self) -> Now {
        match self.state {
            State::Pending { trying_at, until } => trying_at.map_or(until, |at| at.min(until)),
            State::Accepted { acked: false, resend, until } => resend.at.min(until),
            State::Rejected { resend: Some(resend), until } => resend.at.min(until),
            State::Accepted { until, .. } | State::Rejected { until, .. } | State::Settled { until } => until,
        }
    }

    /// What is due, and sets the next time.
    pub(super) fn take_due(&mut self, now: Now, timers: &Timers) -> Due {
        match &mut self.state {
            State::Pending { until, .. } if *until <= now => Due::GiveUp,
            State::Pending { trying_at, .. } if trying_at.is_some_and(|at| at <= now) => {
                *trying_at = None;
                Due::Trying
            }
            State::Accepted { acked: false, until, .. } if *until <= now => Due::AckMissing,
            State::Accepted { until, .. } | State::Rejected { until, .. } | State::Settled { until }
                if *until <= now =>
            {
                Due::Over
            }
            State::Accepted { acked: false, resend, .. } | State::Rejected { resend: Some(resend), .. }
                if resend.at <= now =>
            {
                resend.again(now, timers);
                Due::Resend
            }
            _ => Due::Wait,
        }
    }
}
