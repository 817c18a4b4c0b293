//! What comes out of the endpoint: bytes to send, connections to make and close, and events for the session layer.

use std::net::SocketAddr;
use std::sync::Arc;

use super::connects::ConnectId;
use super::{DialogId, Flow, FlowId, TransactionId, TransportKind};
use crate::message::{Method, Request, Response};
use crate::recognition::RecordingHints;

/// What the driver and the session layer have to do.
#[derive(Clone)]
#[allow(clippy::large_enum_variant)] // taken out of the queue one at a time, never stored in numbers
pub enum Output {
    /// Send these bytes. On a connection `peer` is its other end.
    Send {
        /// On which flow.
        flow: FlowId,
        /// To which address.
        peer: SocketAddr,
        /// A whole message.
        bytes: Vec<u8>,
    },
    /// Close the connection once everything is sent: its framing is lost.
    CloseFlow {
        /// Which.
        flow: FlowId,
    },
    /// Make a connection: a request of ours, or the answer to an INVITE, has lost the one that it belonged on (RFC 3261 sections
    /// 18.1.1 and 18.2.2). Every one is answered by one [`super::Endpoint::connected`] or [`super::Endpoint::connect_failed`]. The
    /// address comes from the peer: whether it may be connected to is for the driver to decide.
    Connect {
        /// To answer.
        request: ConnectId,
        /// TCP or TLS.
        kind: TransportKind,
        /// Our address as the peer knows it. The connection comes from its IP address (not its port, which is a listener's), and its
        /// [`Flow::local`] is this.
        local: SocketAddr,
        /// Where to.
        peer: SocketAddr,
    },
    /// Something for the session layer.
    Event(Event),
}

impl std::fmt::Debug for Output {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Send { flow, peer, bytes } => write!(f, "Send {{ {flow:?}, {peer}, {} bytes }}", bytes.len()),
            Self::CloseFlow { flow } => write!(f, "CloseFlow {{ {flow:?} }}"),
            Self::Connect { request, kind, peer, .. } => write!(f, "Connect {{ {request:?}, {kind:?} {peer} }}"),
            Self::Event(event) => event.fmt(f),
        }
    }
}

/// What happened.
#[derive(Clone, Debug)]
pub enum Event {
    /// A new dialog is asked for.
    Invite {
        /// To answer.
        tx: TransactionId,
        /// The dialog, early until it is accepted.
        dialog: DialogId,
        /// The request.
        request: Arc<Request>,
        /// Where it came from.
        flow: Flow,
        /// What speaks for a recording session.
        hints: RecordingHints,
    },
    /// INVITE within a dialog.
    Reinvite {
        /// To answer.
        tx: TransactionId,
        /// The dialog.
        dialog: DialogId,
        /// The request.
        request: Arc<Request>,
    },
    /// UPDATE within a dialog.
    Update {
        /// To answer.
        tx: TransactionId,
        /// The dialog.
        dialog: DialogId,
        /// The request.
        request: Arc<Request>,
    },
    /// INFO within a dialog.
    Info {
        /// To answer.
        tx: TransactionId,
        /// The dialog.
        dialog: DialogId,
        /// The request.
        request: Arc<Request>,
    },
    /// OPTIONS outside any dialog: are we there, and have we room? (Within a dialog it is answered here.)
    Options {
        /// To answer.
        tx: TransactionId,
        /// The request.
        request: Arc<Request>,
        /// Where it came from.
        flow: Flow,
    },
    /// Our 200 to an INVITE of this dialog has arrived.
    Acked {
        /// The dialog.
        dialog: DialogId,
        /// The ACK, which carries the answer when the offer was ours.
        request: Arc<Request>,
    },
    /// No ACK came within 64 × T1. Nothing was done about it: RFC 3261 section 13.3.1.4 wants [`super::Endpoint::bye`], but while media arrives
    /// there is something to record. The session layer decides.
    AckTimeout {
        /// The dialog, which goes on.
        dialog: DialogId,
    },
    /// The session was not refreshed in time, or our refresh was answered 408, 481 or not at all. Nothing was done about it: RFC 4028
    /// section 10 wants [`super::Endpoint::bye`], but while media arrives there is something to record. The session layer decides. A
    /// request that is accepted later starts the timer again.
    SessionExpired {
        /// The dialog, which goes on.
        dialog: DialogId,
    },
    /// An INVITE was withdrawn before its answer. Its transaction is over; [`Event::Ended`] follows when it was the first of its dialog.
    Cancelled {
        /// The INVITE's transaction.
        tx: TransactionId,
        /// The dialog.
        dialog: DialogId,
    },
    /// The peer has ended the dialog and was answered. [`Event::Ended`] follows.
    Bye {
        /// The dialog.
        dialog: DialogId,
        /// The request, which may carry last metadata.
        request: Arc<Request>,
    },
    /// A request of ours, not a BYE, is done.
    RequestAnswered {
        /// The dialog.
        dialog: DialogId,
        /// What was asked.
        method: Method,
        /// The final answer; `None` when none came.
        response: Option<Arc<Response>>,
    },
    /// The dialog is over. This is the last event that names it.
    Ended {
        /// The dialog.
        dialog: DialogId,
        /// Why.
        why: EndReason,
    },
}

/// Why a dialog is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EndReason {
    /// The peer said BYE.
    PeerBye,
    /// We said BYE; `status` is the answer, `None` when none came.
    OwnBye {
        /// The final status code.
        status: Option<u16>,
    },
    /// The peer withdrew the INVITE before it was answered.
    Cancelled,
    /// The INVITE was refused with this status code.
    Rejected {
        /// The status code.
        status: u16,
    },
    /// The INVITE was not answered by the session layer within [`super::PENDING_NS_MAX`].
    GivenUp,
    /// A BYE of ours has no way to the peer: the connection is closed, and none could be made.
    Unreachable,
}

/// What happened how often since the endpoint was made; for metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Requests, retransmissions included.
    pub requests: u64,
    /// Requests recognised as retransmissions.
    pub retransmissions_received: u64,
    /// Messages of ours sent again.
    pub retransmissions_sent: u64,
    /// Messages that could not be read or lack what an answer needs.
    pub invalid: u64,
    /// Of those, how many were answered.
    pub invalid_answered: u64,
    /// Requests answered 503 at [`super::EndpointConfig::transactions_max`].
    pub refused_transactions: u64,
    /// INVITEs answered 503 at [`super::EndpointConfig::dialogs_max`].
    pub refused_dialogs: u64,
    /// ACKs and responses that belong to nothing.
    pub strays: u64,
    /// Messages that could not be sent because their connection is closed.
    pub unsendable: u64,
}
