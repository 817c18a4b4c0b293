//! One machine for server transactions (RFC 3261 section 17.2 with RFC 6026), dialogs (section 12) and the requests that a
//! recorder sends itself (BYE, UPDATE).
//!
//! # Contract with the driver
//!
//! After every call that takes `&mut self`, [`Endpoint::poll`] is called until it gives nothing, and
//! [`Endpoint::handle_timeout`] once [`Endpoint::deadline`] has come. Time may stand still but not go back.
//!
//! # Contract with the session layer
//!
//! - Every [`Event::Invite`] names a new dialog, and every dialog that was named ends in exactly one [`Event::Ended`], which is the
//!   last event that names it.
//! - Every event with a `tx` asks for one [`Endpoint::accept`] or [`Endpoint::reject`], best at once. Without one, the peer gets 100
//!   after 200 ms, and the transaction is given up after [`PENDING_NS_MAX`].
//! - BYE and CANCEL are answered here; the events only tell.
//!
//! # What is lenient
//!
//! Max-Forwards, the Request-URI and a Route that is not ours are not looked at: whoever reached this port meant this recorder.
//! ACK and CANCEL find their INVITE by Call-ID, From tag and CSeq number when the branch is wrong. BYE ends its dialog whatever its
//! CSeq. Responses of ours go where RFC 3261 section 18.2.2 and RFC 3581 say, but `maddr` is ignored: there is no multicast here, and
//! nobody may point our answers at others.

mod agenda;
mod answers;
mod client;
mod dialog;
mod requests;
mod respond;
mod server;

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::error::ParseError;
use crate::limits::Limits;
use crate::message::{Message, Method, Request, Response, salvage};
use crate::recognition::RecordingHints;
use agenda::Agenda;
use client::ClientTransaction;
use dialog::Dialog;
use server::{CallKey, ServerTransaction, TransactionKey};

/// Most server transactions at a time for requests outside dialogs. One lives 32 s after its answer (64 × T1), so this is 600 INVITEs
/// and OPTIONS a second; beyond, they are answered 503 with Retry-After.
pub const TRANSACTIONS_MAX: usize = 20_000;

/// Further transactions that only requests within dialogs may use, so that a call that is being recorded can change and end while new
/// ones are turned away.
pub const TRANSACTIONS_RESERVE: usize = 5_000;

/// Most dialogs at a time: twice what one machine records. Beyond, an INVITE is answered 503 with Retry-After.
pub const DIALOGS_MAX: usize = 8_000;

/// What Retry-After says in a 503 for want of room, in seconds: long enough to be a relief, short enough to lose little.
pub const RETRY_AFTER_S: u32 = 5;

/// How long an INVITE may wait for its answer (as timer C of RFC 3261 section 16.6), in nanoseconds. It is then answered 500: the
/// session layer has forgotten it.
pub const PENDING_NS_MAX: u64 = 180 * 1_000_000_000;

/// When an INVITE that has no answer yet gets its 100 (RFC 3261 section 17.2.1), in nanoseconds after it came.
pub const TRYING_AFTER_NS: u64 = 200 * 1_000_000;

/// A moment on a monotonic clock of the caller's, in nanoseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Now(pub u64);

impl Now {
    /// The moment `ns` nanoseconds later.
    #[must_use]
    pub fn after(self, ns: u64) -> Self {
        Self(self.0.saturating_add(ns))
    }
}

/// Names a UDP listener with one peer, or a connection. What the number means is the driver's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct FlowId(pub u64);

/// The transport of a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TransportKind {
    /// Datagrams: everything is retransmitted until it is answered.
    Udp,
    /// A connection in the clear.
    Tcp,
    /// A connection under TLS.
    Tls,
}

impl TransportKind {
    /// Whether the transport retransmits by itself.
    #[must_use]
    pub fn is_reliable(self) -> bool {
        self != Self::Udp
    }

    /// Its name in a Via.
    #[must_use]
    pub fn via_name(self) -> &'static str {
        match self {
            Self::Udp => "UDP",
            Self::Tcp => "TCP",
            Self::Tls => "TLS",
        }
    }

    /// Its name in a `transport` parameter.
    #[must_use]
    pub fn param_name(self) -> &'static str {
        match self {
            Self::Udp => "udp",
            Self::Tcp => "tcp",
            Self::Tls => "tls",
        }
    }
}

/// Where a message came from and where answers go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flow {
    /// The driver's name for it.
    pub id: FlowId,
    /// The transport.
    pub kind: TransportKind,
    /// Our address as the peer reaches it. It goes into Contact and Via; where the listener is bound to the unspecified address and the
    /// real one is not known, the Request-URI's host stands in.
    pub local: SocketAddr,
    /// The peer's address.
    pub peer: SocketAddr,
}

/// Names a server transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct TransactionId(u64);

/// Names a dialog.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct DialogId(u64);

/// The timers of RFC 3261 section 17, in nanoseconds; all others are made of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timers {
    /// Round trip estimate: the first retransmission comes after it, patience ends after 64 times it. 500 ms unless set.
    pub t1_ns: u64,
    /// The longest pause between retransmissions. 4 s unless set.
    pub t2_ns: u64,
    /// How long a message may live in the network. 5 s unless set.
    pub t4_ns: u64,
}

impl Timers {
    /// 64 × T1: how long anything is tried, in nanoseconds.
    #[must_use]
    pub fn patience_ns(&self) -> u64 {
        self.t1_ns.saturating_mul(64)
    }
}

impl Default for Timers {
    fn default() -> Self {
        Self { t1_ns: 500_000_000, t2_ns: 4_000_000_000, t4_ns: 5_000_000_000 }
    }
}

/// What to do with an INVITE that requires an extension which we do not have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum UnknownRequire {
    /// Let it through when it asks for a recording, and name the extension in [`RecordingHints::unknown_required`]; refuse others.
    #[default]
    AcceptForRecording,
    /// Answer 420 Bad Extension (RFC 3261 section 8.2.2.3).
    Refuse,
}

/// What an endpoint needs to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndpointConfig {
    /// What the Server header says; empty for no such header.
    pub server_name: String,
    /// Host of our Contact when it is not the flow's local address: a public address or a name.
    pub contact_host: Option<String>,
    /// Retransmission timers.
    pub timers: Timers,
    /// Message limits, for what is salvaged of messages that are over them.
    pub limits: Limits,
    /// Most server transactions outside dialogs; [`TRANSACTIONS_MAX`] unless set.
    pub transactions_max: usize,
    /// Most dialogs; [`DIALOGS_MAX`] unless set.
    pub dialogs_max: usize,
    /// What to do with a required extension that we do not have.
    pub unknown_require: UnknownRequire,
}

impl EndpointConfig {
    /// The defaults, under this name.
    #[must_use]
    pub fn new(server_name: &str) -> Self {
        Self {
            server_name: server_name.to_owned(),
            contact_host: None,
            timers: Timers::default(),
            limits: Limits::default(),
            transactions_max: TRANSACTIONS_MAX,
            dialogs_max: DIALOGS_MAX,
            unknown_require: UnknownRequire::default(),
        }
    }
}

/// How to answer with 200.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Accept {
    /// User part of our Contact.
    pub contact_user: Option<String>,
    /// Content-Type and body.
    pub body: Option<(String, Vec<u8>)>,
    /// Further header fields, name and value. (Session-Expires of RFC 4028 will go here.)
    pub extra_headers: Vec<(String, String)>,
}

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
    /// Something for the session layer.
    Event(Event),
}

impl std::fmt::Debug for Output {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Send { flow, peer, bytes } => write!(f, "Send {{ {flow:?}, {peer}, {} bytes }}", bytes.len()),
            Self::CloseFlow { flow } => write!(f, "CloseFlow {{ {flow:?} }}"),
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
    /// No ACK came within 64 × T1. Nothing was done about it: RFC 3261 section 13.3.1.4 wants [`Endpoint::bye`], but while media arrives
    /// there is something to record. The session layer decides.
    AckTimeout {
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
    /// The INVITE was not answered by the session layer within [`PENDING_NS_MAX`].
    GivenUp,
    /// A BYE of ours has no way to the peer: the connection is closed.
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
    /// Requests answered 503 at [`EndpointConfig::transactions_max`].
    pub refused_transactions: u64,
    /// INVITEs answered 503 at [`EndpointConfig::dialogs_max`].
    pub refused_dialogs: u64,
    /// ACKs and responses that belong to nothing.
    pub strays: u64,
    /// Messages that could not be sent because their connection is closed.
    pub unsendable: u64,
}

/// The machine. See the [module](self) for its contracts.
pub struct Endpoint {
    config: EndpointConfig,
    random: StdRng,
    /// Our tag where no dialog gives one.
    own_tag: String,
    servers: BTreeMap<TransactionId, ServerTransaction>,
    server_keys: BTreeMap<TransactionKey, TransactionId>,
    /// The INVITE transaction of a Call-ID, From tag and CSeq number, whatever its branch.
    invites: BTreeMap<CallKey, TransactionId>,
    clients: BTreeMap<ClientId, ClientTransaction>,
    client_branches: BTreeMap<String, ClientId>,
    dialogs: BTreeMap<DialogId, Dialog>,
    /// Dialogs by Call-ID and our tag.
    dialog_keys: BTreeMap<(String, String), DialogId>,
    agenda: Agenda<Timer>,
    last_id: u64,
    output: VecDeque<Output>,
    counters: Counters,
}

/// Names a client transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct ClientId(u64);

/// What a deadline is for. (A session timer, RFC 4028, will be a third kind: `Dialog`.)
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Timer {
    Server(TransactionId),
    Client(ClientId),
}

impl Endpoint {
    /// An endpoint without dialogs. Tags and branches come from `seed`, which must be random and used once (RFC 3261 section 19.3).
    #[must_use]
    pub fn new(config: EndpointConfig, seed: [u8; 32]) -> Self {
        let mut endpoint = Self {
            config,
            random: StdRng::from_seed(seed),
            own_tag: String::new(),
            servers: BTreeMap::new(),
            server_keys: BTreeMap::new(),
            invites: BTreeMap::new(),
            clients: BTreeMap::new(),
            client_branches: BTreeMap::new(),
            dialogs: BTreeMap::new(),
            dialog_keys: BTreeMap::new(),
            agenda: Agenda::default(),
            last_id: 0,
            output: VecDeque::new(),
            counters: Counters::default(),
        };
        endpoint.own_tag = endpoint.new_tag();
        endpoint
    }

    /// Takes a message that came on `flow`.
    pub fn receive(&mut self, now: Now, flow: &Flow, message: Message) {
        match message {
            Message::Request(request) => self.on_request(now, flow, request),
            Message::Response(response) => self.on_response(now, response),
        }
    }

    /// Takes bytes that are no message. The request among them, if any, is refused when enough of it can be read; on a connection,
    /// [`Output::CloseFlow`] follows, because nothing behind a fault can be trusted.
    pub fn receive_invalid(&mut self, _now: Now, flow: &Flow, raw: &[u8], error: &ParseError) {
        self.counters.invalid += 1;
        let request = salvage(raw, &self.config.limits).filter(|request| request.method != Method::Ack);
        if let Some(request) = request {
            let reason = match error {
                ParseError::BodyTruncated { .. } => "Body Truncated",
                ParseError::ContentLength => "Bad Content-Length",
                _ => respond::reason_phrase(error.status()),
            };
            if self.refuse_stateless(flow, &request, error.status(), reason, &[]) {
                self.counters.invalid_answered += 1;
            }
        }
        if flow.kind.is_reliable() {
            self.output.push_back(Output::CloseFlow { flow: flow.id });
        }
    }

    /// The connection is closed. Its dialogs live on and move to the next connection that a request of theirs comes on.
    pub fn flow_closed(&mut self, now: Now, flow: FlowId) {
        for transaction in self.servers.values_mut().filter(|transaction| transaction.flow.id == flow) {
            transaction.flow_open = false;
        }
        for dialog in self.dialogs.values_mut().filter(|dialog| dialog.flow.id == flow) {
            dialog.flow_open = false;
        }
        let lost: Vec<ClientId> =
            self.clients.iter().filter(|(_, client)| client.flow.id == flow).map(|(id, _)| *id).collect();
        for id in lost {
            self.finish_client(now, id, client::Outcome::Unreachable);
        }
    }

    /// Does what is due. A call before the deadline does nothing.
    pub fn handle_timeout(&mut self, now: Now) {
        while let Some(timer) = self.agenda.take_due(now) {
            match timer {
                Timer::Server(id) => self.on_server_timeout(now, id),
                Timer::Client(id) => self.on_client_timeout(now, id),
            }
        }
    }

    /// When [`Self::handle_timeout`] has something to do.
    #[must_use]
    pub fn deadline(&self) -> Option<Now> {
        self.agenda.next()
    }

    /// The next thing to do; `None` when there is nothing.
    pub fn poll(&mut self) -> Option<Output> {
        self.output.pop_front()
    }

    /// What happened how often.
    #[must_use]
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// How many dialogs there are, early ones included.
    #[must_use]
    pub fn dialogs(&self) -> usize {
        self.dialogs.len()
    }

    /// How many server transactions there are.
    #[must_use]
    pub fn transactions(&self) -> usize {
        self.servers.len()
    }

    fn event(&mut self, event: Event) {
        self.output.push_back(Output::Event(event));
    }

    fn send(&mut self, flow: &Flow, open: bool, peer: SocketAddr, bytes: Vec<u8>) {
        if open {
            self.output.push_back(Output::Send { flow: flow.id, peer, bytes });
        } else {
            self.counters.unsendable += 1;
        }
    }

    fn new_id(&mut self) -> u64 {
        self.last_id += 1;
        self.last_id
    }

    /// 64 random bits: twice what RFC 3261 section 19.3 asks of a tag.
    fn new_tag(&mut self) -> String {
        format!("{:016x}", self.random.next_u64())
    }
}
