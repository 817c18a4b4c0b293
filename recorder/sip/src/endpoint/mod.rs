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
//! Max-Forwards, the Request-URI (but for its scheme, where no recording is asked for) and a Route that is not ours are not looked at:
//! whoever reached this port meant this recorder.
//! ACK and CANCEL find their INVITE by Call-ID, From tag and CSeq number when the branch is wrong. BYE ends its dialog whatever its
//! CSeq. Responses of ours go where RFC 3261 section 18.2.2 and RFC 3581 say, but `maddr` is ignored: there is no multicast here, and
//! nobody may point our answers at others.

mod agenda;
mod answers;
mod checkpoint;
mod client;
mod connects;
mod dialog;
mod events;
mod requests;
mod respond;
mod server;
mod session_timer;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde::{Deserialize, Serialize};

use crate::error::ParseError;
use crate::limits::Limits;
use crate::message::{Message, Method, salvage};
use agenda::Agenda;
pub use checkpoint::{DIALOG_CHECKPOINT_VERSION, DialogCheckpoint, ResumeError};
use client::{ClientId, ClientTransaction};
pub use connects::ConnectId;
use connects::Connects;
use dialog::Dialog;
pub use events::{Counters, EndReason, Event, Output};
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

/// The interval of session timers that RFC 4028 section 4 recommends, in seconds.
pub const SESSION_EXPIRES_S: u32 = 1_800;

/// The smallest interval of a session timer that RFC 4028 section 5 allows, in seconds.
pub const MIN_SE_S: u32 = 90;

/// When an INVITE that has no answer yet gets its 100 (RFC 3261 section 17.2.1), in nanoseconds after it came.
pub const TRYING_AFTER_NS: u64 = 200 * 1_000_000;

/// A moment on a monotonic clock of the caller's, in nanoseconds. Dialogs that are resumed bring their moments with them: the clock
/// must be the same one in the process before and in this one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Now(pub u64);

impl Now {
    /// The moment `ns` nanoseconds later.
    #[must_use]
    pub fn after(self, ns: u64) -> Self {
        Self(self.0.saturating_add(ns))
    }
}

/// Names a UDP listener with one peer, or a connection. What the number means is the driver's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct FlowId(pub u64);

impl FlowId {
    /// No flow: where a dialog stands whose connection did not outlive the process. The driver must not use the number.
    pub const NONE: Self = Self(u64::MAX);
}

/// The transport of a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
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

    /// The port where nothing else is said (RFC 3261 section 19.1.2).
    #[must_use]
    pub fn default_port(self) -> u16 {
        match self {
            Self::Udp | Self::Tcp => 5060,
            Self::Tls => 5061,
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
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
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
    /// Let it through when it asks for a recording, and name the extension in [`crate::RecordingHints::unknown_required`]; refuse others.
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
    /// The interval of session timers (RFC 4028) that a peer is asked for and longer ones are shortened to, in seconds. 0: none is asked
    /// for, and any is taken. [`SESSION_EXPIRES_S`] unless set.
    pub session_expires_s: u32,
    /// The smallest interval of a session timer that is agreed to, in seconds, at least 90 as RFC 4028 section 5 has it; that is the
    /// default. Of a client that has the extension, less is refused with 422.
    pub min_se_s: u32,
    /// Whether we refresh sessions whose timer a proxy asks for and their client knows nothing of. Off unless set: it is then the proxy
    /// that goes without.
    pub refresh_for_others: bool,
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
            session_expires_s: SESSION_EXPIRES_S,
            min_se_s: MIN_SE_S,
            refresh_for_others: false,
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
    /// Further header fields, name and value. Those of session timers are added by themselves.
    pub extra_headers: Vec<(String, String)>,
}

/// The machine. See the [module](self) for its contracts.
pub struct Endpoint {
    config: EndpointConfig,
    random: StdRng,
    /// Our tag where no dialog gives one.
    own_tag: String,
    // Boxed: a tree keeps room for almost half as many again.
    servers: BTreeMap<TransactionId, Box<ServerTransaction>>,
    server_keys: BTreeMap<TransactionKey, TransactionId>,
    /// The INVITE transaction of a Call-ID, From tag and CSeq number, whatever its branch.
    invites: BTreeMap<CallKey, TransactionId>,
    clients: BTreeMap<ClientId, ClientTransaction>,
    client_branches: BTreeMap<String, ClientId>,
    dialogs: BTreeMap<DialogId, Box<Dialog>>,
    /// Dialogs by Call-ID and our tag.
    dialog_keys: BTreeMap<(String, String), DialogId>,
    /// Dialogs whose checkpoint is no longer what it was when it was last asked for.
    changed: BTreeSet<DialogId>,
    connects: Connects,
    agenda: Agenda<Timer>,
    last_id: u64,
    output: VecDeque<Output>,
    counters: Counters,
}

/// What a deadline is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Timer {
    Server(TransactionId),
    Client(ClientId),
    Dialog(DialogId),
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
            changed: BTreeSet::new(),
            connects: Connects::default(),
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

    /// Does what is due. A call before the deadline does nothing.
    pub fn handle_timeout(&mut self, now: Now) {
        while let Some(timer) = self.agenda.take_due(now) {
            match timer {
                Timer::Server(id) => self.on_server_timeout(now, id),
                Timer::Client(id) => self.on_client_timeout(now, id),
                Timer::Dialog(id) => self.on_session_timeout(now, id),
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

    /// A dialog, in order to change what its checkpoint holds.
    fn dialog_mut(&mut self, id: DialogId) -> Option<&mut Dialog> {
        let dialog = self.dialogs.get_mut(&id)?;
        self.changed.insert(id);
        Some(dialog)
    }

    /// The dialog's peer was heard on this flow: requests of ours go there.
    fn heard(&mut self, id: DialogId, flow: &Flow) {
        let Some(dialog) = self.dialogs.get_mut(&id) else { return };
        if dialog.flow != *flow {
            self.changed.insert(id);
        }
        dialog.flow = *flow;
        dialog.flow_open = true;
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
