//! A peer of the endpoint for tests: sends texts, moves the clock, and names in one word each thing that comes out.

#![allow(dead_code, unreachable_pub)] // each test binary uses its part

use std::sync::Arc;

use callvault_sip::{
    Accept, CSeq, ConnectId, DialogId, EndReason, Endpoint, EndpointConfig, Event, Flow, FlowId, Limits, Message,
    NameAddr, Now, Output, Request, TransactionId, TransportKind, parse_datagram,
};

pub const MS: u64 = 1_000_000;

pub struct Rig {
    pub endpoint: Endpoint,
    pub now: Now,
    pub flow: Flow,
    pub tx: Option<TransactionId>,
    pub dialog: Option<DialogId>,
    /// Our tag, once an answer has told it: what "{tag}" stands for.
    pub tag: String,
    /// Branch of the endpoint's last request: what "{branch}" stands for.
    pub branch: String,
    pub sent: Vec<(Flow, std::net::SocketAddr, Message)>,
    pub events: Vec<Event>,
    /// Dialogs of an earlier process, told of by no event.
    pub resumed: Vec<DialogId>,
    pub last_request: Option<Arc<Request>>,
    /// The connection that was asked for last.
    pub connect: Option<ConnectId>,
}

pub fn flow(kind: TransportKind, id: u64) -> Flow {
    Flow { id: FlowId(id), kind, local: "192.0.2.1:5060".parse().unwrap(), peer: "192.0.2.9:5070".parse().unwrap() }
}

impl Rig {
    pub fn new(kind: TransportKind) -> Self {
        Self::with(kind, EndpointConfig::new("callvault"))
    }

    pub fn with(kind: TransportKind, config: EndpointConfig) -> Self {
        Self {
            endpoint: Endpoint::new(config, [1; 32]),
            now: Now(1_000 * MS),
            flow: flow(kind, 1),
            tx: None,
            dialog: None,
            tag: String::new(),
            branch: String::new(),
            sent: Vec::new(),
            events: Vec::new(),
            resumed: Vec::new(),
            last_request: None,
            connect: None,
        }
    }

    /// Sends a message in which lines end in LF and {tag}, {branch} are filled in; gives what comes out.
    pub fn receive(&mut self, text: &str) -> Vec<String> {
        let text = text.replace("{tag}", &self.tag).replace("{branch}", &self.branch);
        let text = text.replace("\r\n", "\n").replace('\n', "\r\n");
        self.receive_bytes(text.as_bytes())
    }

    pub fn receive_bytes(&mut self, bytes: &[u8]) -> Vec<String> {
        match parse_datagram(bytes, &Limits::default()) {
            Ok(Some(message)) => self.endpoint.receive(self.now, &self.flow.clone(), message),
            Ok(None) => {}
            Err(error) => self.endpoint.receive_invalid(self.now, &self.flow.clone(), bytes, &error),
        }
        self.drain()
    }

    /// Lets time pass, deadline by deadline; each thing that comes out is preceded by its time in ms.
    pub fn wait(&mut self, ms: u64) -> Vec<String> {
        let (start, end) = (self.now, self.now.after(ms * MS));
        let mut seen = Vec::new();
        while let Some(at) = self.endpoint.deadline().filter(|at| *at <= end) {
            assert!(at >= self.now, "a deadline in the past");
            self.now = at;
            self.endpoint.handle_timeout(at);
            seen.extend(self.drain().into_iter().map(|what| format!("{} {what}", (at.0 - start.0) / MS)));
            assert!(self.endpoint.deadline() > Some(at) || self.endpoint.deadline().is_none(), "handled and still due");
        }
        self.now = end;
        seen
    }

    pub fn accept(&mut self) -> Vec<String> {
        let body = Some(("application/sdp".to_owned(), b"v=0\r\n".to_vec()));
        self.accept_with(Accept { body, ..Accept::default() })
    }

    pub fn accept_with(&mut self, accept: Accept) -> Vec<String> {
        let took = self.endpoint.accept(self.now, self.tx.unwrap(), accept);
        self.tell(took)
    }

    pub fn reject(&mut self, status: u16) -> Vec<String> {
        let took = self.endpoint.reject(self.now, self.tx.unwrap(), status, "", Vec::new());
        self.tell(took)
    }

    pub fn bye(&mut self) -> Vec<String> {
        let took = self.endpoint.bye(self.now, self.dialog.unwrap(), Some("SIP;cause=200"));
        self.tell(took)
    }

    /// The connection that was asked for last is made, as flow `id`.
    pub fn connected(&mut self, id: u64) -> Vec<String> {
        self.flow = Flow { id: FlowId(id), ..self.flow };
        // What the socket says of itself is nobody's address.
        let socket = Flow { local: "192.0.2.1:40001".parse().unwrap(), ..self.flow };
        self.endpoint.connected(self.now, self.connect.unwrap(), &socket);
        self.drain()
    }

    pub fn connect_failed(&mut self) -> Vec<String> {
        self.endpoint.connect_failed(self.now, self.connect.unwrap());
        self.drain()
    }

    pub fn close_flow(&mut self) -> Vec<String> {
        self.endpoint.flow_closed(self.now, self.flow.id);
        self.drain()
    }

    /// The next process: every accepted dialog goes on in a new endpoint. Gives what comes out at once.
    pub fn restart(&mut self) -> Vec<String> {
        let old: Vec<DialogId> = self.dialog.into_iter().collect();
        let checkpoints: Vec<_> = old.iter().filter_map(|id| self.endpoint.checkpoint(*id)).collect();
        self.endpoint = Endpoint::new(EndpointConfig::new("callvault"), [2; 32]);
        self.tx = None;
        self.dialog = None;
        for checkpoint in checkpoints {
            let bytes = postcard::to_allocvec(&checkpoint).unwrap();
            let checkpoint = postcard::from_bytes(&bytes).unwrap();
            let datagrams = |flow: &Flow| (!flow.kind.is_reliable()).then_some(*flow);
            self.dialog = Some(self.endpoint.resume(self.now, checkpoint, datagrams).unwrap());
        }
        self.drain()
    }

    fn tell(&mut self, took: bool) -> Vec<String> {
        let mut seen = self.drain();
        if !took {
            seen.push("no effect".to_owned());
        }
        seen
    }

    pub fn drain(&mut self) -> Vec<String> {
        let mut seen = Vec::new();
        while let Some(output) = self.endpoint.poll() {
            seen.push(match output {
                Output::Send { flow, peer, bytes } => self.sent(flow, peer, &bytes),
                Output::CloseFlow { .. } => "close".to_owned(),
                Output::Connect { request, kind, peer, .. } => {
                    self.connect = Some(request);
                    format!("Connect {} {peer}", kind.param_name())
                }
                Output::Event(event) => self.event(event),
            });
        }
        seen
    }

    fn sent(&mut self, flow: FlowId, peer: std::net::SocketAddr, bytes: &[u8]) -> String {
        assert_eq!(flow, self.flow.id);
        let message = parse_datagram(bytes, &Limits::default()).unwrap().unwrap();
        let word = match &message {
            Message::Response(response) => {
                if let Some(tag) =
                    response.headers.get("To").and_then(|to| NameAddr::parse(to).tag().map(str::to_owned))
                {
                    self.tag = tag;
                }
                let method = response.headers.get("CSeq").and_then(CSeq::parse).map(|cseq| cseq.method);
                format!("{} {}", response.status, method.unwrap_or_default())
            }
            Message::Request(request) => {
                self.branch = callvault_sip::Via::topmost(&request.headers).unwrap().branch().unwrap().to_owned();
                request.method.to_string()
            }
        };
        self.sent.push((self.flow, peer, message));
        word
    }

    fn event(&mut self, event: Event) -> String {
        let word = match &event {
            Event::Invite { tx, dialog, request, .. } => {
                (self.tx, self.dialog, self.last_request) = (Some(*tx), Some(*dialog), Some(request.clone()));
                "Invite".to_owned()
            }
            Event::Reinvite { tx, .. } => self.note(*tx, "Reinvite"),
            Event::Update { tx, .. } => self.note(*tx, "Update"),
            Event::Info { tx, .. } => self.note(*tx, "Info"),
            Event::Options { tx, .. } => self.note(*tx, "Options"),
            Event::Acked { .. } => "Acked".to_owned(),
            Event::AckTimeout { .. } => "AckTimeout".to_owned(),
            Event::SessionExpired { .. } => "SessionExpired".to_owned(),
            Event::Cancelled { .. } => "Cancelled".to_owned(),
            Event::Bye { .. } => "Bye".to_owned(),
            Event::RequestAnswered { method, response, .. } => {
                format!("{method} answered {:?}", response.as_ref().map(|response| response.status))
            }
            Event::Ended { why, .. } => match why {
                EndReason::OwnBye { status } => format!("Ended OwnBye {status:?}"),
                EndReason::Rejected { status } => format!("Ended Rejected {status}"),
                why => format!("Ended {why:?}"),
            },
        };
        self.events.push(event);
        word
    }

    fn note(&mut self, tx: TransactionId, word: &str) -> String {
        self.tx = Some(tx);
        word.to_owned()
    }

    pub fn last_sent(&self) -> &Message {
        &self.sent.last().unwrap().2
    }

    pub fn last_peer(&self) -> String {
        self.sent.last().unwrap().1.to_string()
    }

    pub fn header(&self, name: &str) -> &str {
        self.last_sent().headers().get(name).unwrap_or("(none)")
    }
}

/// A request within or, with an empty `to_tag`, outside a dialog.
pub fn request(method: &str, cseq: u32, branch: &str, to_tag: &str, more: &str) -> String {
    let tag = if to_tag.is_empty() { String::new() } else { format!(";tag={to_tag}") };
    let (more, body) = more.split_once("\n\n").unwrap_or((more, ""));
    let more = if more.is_empty() { String::new() } else { format!("{}\n", more.trim_end()) };
    format!(
        "{method} sip:192.0.2.1:5060 SIP/2.0\nVia: SIP/2.0/UDP 192.0.2.9:5070;branch=z9hG4bK{branch};rport\n\
         From: \"Ann\" <sip:+15551230100@192.0.2.9;user=phone>;tag=f\nTo: <sip:192.0.2.1>{tag}\nCall-ID: c1\n\
         CSeq: {cseq} {method}\nContact: <sip:192.0.2.9:5070>;+sip.src\n{more}\n{body}"
    )
}

pub fn invite() -> String {
    request("INVITE", 1, "a", "", "Require: siprec\nContent-Type: application/sdp\n\nv=0\n")
}

pub fn ack(cseq: u32) -> String {
    request("ACK", cseq, "ack", "{tag}", "")
}

/// The ACK of a refusal has the INVITE's branch.
pub fn ack_refusal(cseq: u32, branch: &str) -> String {
    request("ACK", cseq, branch, "{tag}", "")
}

/// A call that is accepted and confirmed.
pub fn call(kind: TransportKind) -> Rig {
    let mut rig = Rig::new(kind);
    assert_eq!(rig.receive(&invite()), ["Invite"]);
    assert_eq!(rig.accept(), ["200 INVITE"]);
    assert_eq!(rig.receive(&ack(1)), ["Acked"]);
    rig
}

/// The responses that a datagram gets from a new endpoint; an INVITE or OPTIONS that is passed on is accepted.
pub fn answers_of(bytes: &[u8]) -> Vec<callvault_sip::Response> {
    let mut rig = Rig::new(TransportKind::Udp);
    rig.receive_bytes(bytes);
    if rig.tx.is_some() {
        rig.accept();
    }
    let responses = rig.sent.into_iter().filter_map(|(_, _, message)| match message {
        Message::Response(response) => Some(response),
        Message::Request(_) => None,
    });
    responses.collect()
}
