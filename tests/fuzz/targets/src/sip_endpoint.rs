//! The endpoint, driven by a script of messages, answers, closed connections, waits and restarts: every dialog that begins ends once, what is
//! sent is SIP, and nothing is left when all is over.

use std::collections::{BTreeSet, HashSet};
use std::net::SocketAddr;

use callvault_sip::endpoint::TRANSACTIONS_RESERVE;
use callvault_sip::{
    Accept, ConnectId, DialogCheckpoint, DialogId, Endpoint, EndpointConfig, Event, Flow, FlowId, Limits, Message,
    MessageFlaw, NameAddr, Now, Output, TransactionId, TransportKind, Via, parse_datagram,
};

use crate::input::Input;

const MS: u64 = 1_000_000;
/// Low, so that a script reaches them.
const TRANSACTIONS_MAX: usize = 12;
const DIALOGS_MAX: usize = 4;
/// Steps of a script: more make it slower, not deeper.
const STEPS_MAX: usize = 48;
/// Number of the first connection that the endpoint asked for; those of its peers are below.
const OWN_CONNECTIONS: u64 = 3_000;
/// Time-outs until everything must be over.
const TIMEOUTS_MAX: usize = 20_000;

const METHODS: [&str; 10] = ["INVITE", "INVITE", "INVITE", "ACK", "ACK", "BYE", "CANCEL", "UPDATE", "OPTIONS", "INFO"];
const MORE_METHODS: [&str; 4] = ["REFER", "invite", "PRACK", "MESSAGE"];
/// Header lines that a request may have besides, by bit.
const MORE: [&str; 8] = [
    "Require: siprec\r\n",
    "Contact: <sip:192.0.2.9:5070>;+sip.src\r\n",
    "Record-Route: <sip:198.51.100.7;lr>, <sip:198.51.100.8:5062>\r\n",
    "Require: nonsense\r\n",
    "Record-Route: <sip:198.51.100.6>\r\n",
    "Content-Type: application/sdp\r\n",
    "Via: SIP/2.0/TCP proxy;branch=z9hG4bKp\r\nMax-Forwards: 0\r\n",
    "Session-Expires: 90;refresher=uac\r\nSupported: timer\r\n",
];

/// Plays the script.
pub fn run(input: &[u8]) {
    let mut input = Input::new(input);
    let mut world = World::new();
    for _ in 0..STEPS_MAX {
        if input.is_empty() {
            break;
        }
        world.step(&mut input);
    }
    world.end();
}

struct World {
    endpoint: Endpoint,
    restarts: u8,
    now: Now,
    flows: [Flow; 3],
    /// Our tag in each call, as our last answer said it.
    tags: [String; 3],
    /// Branch and method of our last request.
    asked: (String, String),
    /// Connections that the endpoint asked for.
    connects: u64,
    /// To be answered.
    pending: Vec<TransactionId>,
    live: BTreeSet<DialogId>,
    over: BTreeSet<DialogId>,
    /// Checksums of what was sent, most of which is sent again and again.
    sent: HashSet<u32>,
}

fn config() -> EndpointConfig {
    let mut config = EndpointConfig::new("callvault");
    (config.transactions_max, config.dialogs_max) = (TRANSACTIONS_MAX, DIALOGS_MAX);
    config
}

impl World {
    fn new() -> Self {
        let kinds = [TransportKind::Udp, TransportKind::Tcp, TransportKind::Tls];
        let mut id = 0;
        let flows = kinds.map(|kind| {
            id += 1;
            let (local, peer) = (([192, 0, 2, 1], 5060).into(), ([192, 0, 2, 9], 5070).into());
            Flow { id: FlowId(id), kind, local, peer }
        });
        Self {
            endpoint: Endpoint::new(config(), [0; 32]),
            restarts: 0,
            now: Now(1_000 * MS),
            flows,
            tags: Default::default(),
            asked: Default::default(),
            connects: 0,
            pending: Vec::new(),
            live: BTreeSet::new(),
            over: BTreeSet::new(),
            sent: HashSet::new(),
        }
    }

    fn step(&mut self, input: &mut Input<'_>) {
        match input.u8() % 16 {
            0..=5 => self.request(input),
            6 => {
                let bytes = usize::from(input.u16()) % 2_048;
                let flow = usize::from(input.u8() % 3);
                self.receive(flow, input.bytes(bytes));
            }
            7 => self.response(input),
            8..=10 => self.answer(input),
            11 => {
                if let Some(dialog) = self.some_dialog(input) {
                    self.endpoint.bye(self.now, dialog, Some("SIP;cause=200"));
                }
            }
            12 => {
                if let Some(dialog) = self.some_dialog(input) {
                    self.endpoint.update_request(self.now, dialog, None, Vec::new());
                }
            }
            13 => {
                let flow = &mut self.flows[usize::from(input.u8() % 3)];
                self.endpoint.flow_closed(self.now, flow.id);
                self.drain();
                self.flows[usize::from(input.u8() % 3)].id.0 += 3;
            }
            14 => self.wait(u64::from(input.u16())),
            _ => self.restart(input),
        }
        self.drain();
        self.check_bounds();
    }

    /// The process ends, and the next one goes on with the dialogs that were accepted.
    fn restart(&mut self, input: &mut Input<'_>) {
        let kept: Vec<DialogCheckpoint> =
            self.live.iter().filter_map(|dialog| self.endpoint.checkpoint(*dialog)).collect();
        if let Some(checkpoint) = kept.first() {
            self.resume_damaged(checkpoint, input);
        }
        self.restarts += 1;
        self.endpoint = Endpoint::new(config(), [self.restarts; 32]);
        self.pending.clear();
        self.over.clear();
        self.live.clear();
        for checkpoint in kept {
            let listener = |old: &Flow| (!old.kind.is_reliable()).then_some(*old);
            let dialog = self.endpoint.resume(self.now, checkpoint, listener).expect("our own checkpoint");
            assert!(self.live.insert(dialog));
        }
    }

    /// A checkpoint of which some bytes were changed is resumed or refused, and what is resumed can be ended.
    fn resume_damaged(&self, checkpoint: &DialogCheckpoint, input: &mut Input<'_>) {
        let mut bytes = postcard::to_stdvec(checkpoint).expect("a checkpoint is written to memory");
        for _ in 0..input.u8() % 4 {
            let at = usize::from(input.u16()) % bytes.len();
            bytes[at] = input.u8();
        }
        let Ok(damaged) = postcard::from_bytes::<DialogCheckpoint>(&bytes) else { return };
        let mut endpoint = Endpoint::new(config(), [0; 32]);
        let Ok(dialog) = endpoint.resume(self.now, damaged, |old| Some(*old)) else { return };
        endpoint.bye(self.now, dialog, None);
        for _ in 0..40 {
            while endpoint.poll().is_some() {}
            let Some(at) = endpoint.deadline() else { break };
            endpoint.handle_timeout(at.max(self.now));
        }
    }

    /// A request of one of three calls, in good order or nearly so.
    fn request(&mut self, input: &mut Input<'_>) {
        let (kind, call) = (input.u8(), usize::from(input.u8() % 3));
        let method = match kind & 0xf {
            few @ 0..=9 => METHODS[usize::from(few)],
            few => MORE_METHODS[usize::from(few) % 4],
        };
        let (cseq, branch, more) = (input.u8() % 4, input.u8() % 6, input.u8());
        let tag = match kind >> 4 & 3 {
            0 => String::new(),
            1 | 2 if !self.tags[call].is_empty() => format!(";tag={}", self.tags[call]),
            _ => ";tag=nobody".to_owned(),
        };
        let flow = usize::from(kind >> 6) % 3;
        let mut text = format!("{method} sip:192.0.2.1 SIP/2.0\r\n");
        if branch < 5 {
            text += &format!("Via: SIP/2.0/UDP 192.0.2.9:5070;branch=z9hG4bK{call}{cseq}{branch};rport\r\n");
        }
        text += &format!("From: \"A\" <sip:+15551230100@192.0.2.9>;tag=f{call}\r\nTo: <sip:192.0.2.1>{tag}\r\n");
        text += &format!("Call-ID: c{call}\r\nCSeq: {cseq} {method}\r\n");
        for (bit, line) in MORE.iter().enumerate() {
            if more & 1 << bit != 0 {
                text += line;
            }
        }
        text += if more & 0x20 != 0 { "\r\nv=0\r\n" } else { "\r\n" };
        self.receive(flow, text.as_bytes());
    }

    /// An answer to our last request, with the right branch or another.
    fn response(&mut self, input: &mut Input<'_>) {
        let status = 100 + input.u16() % 600;
        let kind = input.u8();
        let (branch, method) = &self.asked;
        let branch = if kind & 7 == 0 { "z9hG4bKother" } else { branch };
        let method = if kind >> 3 & 7 == 0 { "INFO" } else { method };
        let text = format!("SIP/2.0 {status} X\r\nVia: SIP/2.0/UDP h;branch={branch}\r\nCSeq: 1 {method}\r\n\r\n");
        self.receive(usize::from(kind >> 6) % 3, text.as_bytes());
    }

    fn receive(&mut self, flow: usize, bytes: &[u8]) {
        let flow = self.flows[flow];
        match parse_datagram(bytes, &Limits::default()) {
            Ok(Some(message)) => self.endpoint.receive(self.now, &flow, message),
            Ok(None) => {}
            Err(error) => self.endpoint.receive_invalid(self.now, &flow, bytes, &error),
        }
    }

    fn answer(&mut self, input: &mut Input<'_>) {
        let (how, which) = (input.u8(), usize::from(input.u8()));
        if self.pending.is_empty() {
            return;
        }
        // One that was answered before is asked about again, now and then.
        let which = which % self.pending.len();
        let tx = if how & 0x40 != 0 { self.pending[which] } else { self.pending.swap_remove(which) };
        match how & 3 {
            0 => drop(self.endpoint.reject(self.now, tx, 300 + u16::from(how) * 7 % 400, "", Vec::new())),
            1 => drop(self.endpoint.trying(tx)),
            _ => {
                let body = (how & 4 != 0).then(|| ("application/sdp".to_owned(), b"v=0\r\n".to_vec()));
                self.endpoint.accept(self.now, tx, Accept { body, ..Accept::default() });
            }
        }
    }

    fn some_dialog(&self, input: &mut Input<'_>) -> Option<DialogId> {
        let which = usize::from(input.u8());
        let all = || self.live.iter().chain(&self.over);
        all().nth(which % all().count().max(1)).copied()
    }

    /// Lets time pass, deadline by deadline.
    fn wait(&mut self, ms: u64) {
        let end = self.now.after(ms * MS);
        while let Some(at) = self.endpoint.deadline().filter(|at| *at <= end) {
            self.time_out(at);
        }
        self.now = end;
    }

    fn time_out(&mut self, at: Now) {
        assert!(at >= self.now, "a deadline in the past");
        self.now = at;
        self.endpoint.handle_timeout(at);
        self.drain();
        assert!(self.endpoint.deadline().is_none_or(|next| next > at), "handled and still due");
    }

    fn drain(&mut self) {
        while let Some(output) = self.endpoint.poll() {
            match output {
                Output::Send { bytes, .. } => self.sent(&bytes),
                Output::CloseFlow { flow } => assert!(flow.0 % 3 != 1, "a datagram has no connection to be closed"),
                Output::Connect { request, kind, local, peer } => self.connect(request, kind, local, peer),
                Output::Event(event) => self.happened(&event),
            }
        }
    }

    /// Every other connection of ours can be made.
    fn connect(&mut self, request: ConnectId, kind: TransportKind, local: SocketAddr, peer: SocketAddr) {
        assert!(kind.is_reliable(), "a datagram needs no connection");
        self.connects += 1;
        if self.connects.is_multiple_of(2) {
            let flow = Flow { id: FlowId(OWN_CONNECTIONS + 3 * self.connects), kind, local, peer };
            self.endpoint.connected(self.now, request, &flow);
        } else {
            self.endpoint.connect_failed(self.now, request);
        }
    }

    /// What is sent is read by our own reader, has no line that nobody meant, and says what it belongs to.
    fn sent(&mut self, bytes: &[u8]) {
        if !self.sent.insert(crc32c::crc32c(bytes)) {
            return;
        }
        match parse_datagram(bytes, &Limits::default()) {
            Ok(Some(Message::Response(response))) => {
                assert!(in_order(&response.flaws) && Via::topmost(&response.headers).is_some());
                let to = response.headers.get("To").map(NameAddr::parse);
                let call = response.headers.get("Call-ID").and_then(|id| id.strip_prefix('c')?.parse::<usize>().ok());
                if let (Some(to), Some(tag)) = (to, call.and_then(|call| self.tags.get_mut(call)))
                    && response.status < 300
                    && response.headers.get("CSeq").is_some_and(|cseq| cseq.ends_with("INVITE"))
                {
                    *tag = to.tag().unwrap_or_default().to_owned();
                }
            }
            Ok(Some(Message::Request(request))) => {
                assert!(in_order(&request.flaws) && request.headers.get("Call-ID").is_some());
                let via = Via::topmost(&request.headers).expect("our own Via");
                self.asked = (via.branch().unwrap_or_default().to_owned(), request.method.to_string());
            }
            other => panic!("what was sent is no message: {other:?}"),
        }
    }

    fn happened(&mut self, event: &Event) {
        match event {
            Event::Invite { tx, dialog, .. } => {
                self.pending.push(*tx);
                assert!(self.live.insert(*dialog) && !self.over.contains(dialog), "a dialog begins twice");
            }
            Event::Reinvite { tx, dialog, .. } | Event::Update { tx, dialog, .. } | Event::Info { tx, dialog, .. } => {
                self.pending.push(*tx);
                self.assert_live(*dialog);
            }
            Event::Options { tx, .. } => self.pending.push(*tx),
            Event::Acked { dialog, .. }
            | Event::AckTimeout { dialog }
            | Event::SessionExpired { dialog }
            | Event::Cancelled { dialog, .. }
            | Event::Bye { dialog, .. }
            | Event::RequestAnswered { dialog, .. } => self.assert_live(*dialog),
            Event::Ended { dialog, .. } => {
                assert!(self.live.remove(dialog) && self.over.insert(*dialog), "a dialog ends twice, or never began");
            }
        }
    }

    fn assert_live(&self, dialog: DialogId) {
        assert!(self.live.contains(&dialog), "an event of a dialog that is over or never began");
    }

    fn check_bounds(&self) {
        assert!(self.endpoint.dialogs() <= DIALOGS_MAX && self.endpoint.dialogs() == self.live.len());
        assert!(self.endpoint.transactions() <= TRANSACTIONS_MAX + TRANSACTIONS_RESERVE);
    }

    /// Ends every dialog and lets time pass until nothing is due.
    fn end(mut self) {
        for dialog in self.live.clone() {
            self.endpoint.bye(self.now, dialog, None);
        }
        self.drain();
        for _ in 0..TIMEOUTS_MAX {
            let Some(at) = self.endpoint.deadline() else { break };
            self.time_out(at);
        }
        assert!(self.endpoint.deadline().is_none(), "something is always due");
        assert!(self.live.is_empty(), "a dialog never ends");
        assert!((self.endpoint.dialogs(), self.endpoint.transactions()) == (0, 0), "something is left");
    }
}

/// A message of ours has no flaw but the bytes of the peer's own fields, which go back as they came.
fn in_order(flaws: &[MessageFlaw]) -> bool {
    flaws.iter().all(|flaw| *flaw == MessageFlaw::HeaderNotUtf8)
}
