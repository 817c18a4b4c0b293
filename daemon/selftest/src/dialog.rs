//! One call as a client holds it: a machine without clock or socket. The driver says what time it is and what arrived;
//! the machine says what to send, and when it wants to be asked again.

use std::net::SocketAddr;
use std::time::Duration;

use crate::Transport;
use crate::message::{self, Addresses, Answered, Message};
use crate::plan::CallPlan;
use crate::voice::{FRAME, Voice};

/// First pause before a request is repeated over UDP (RFC 3261, timer T1), and the longest one (T2).
const RETRANSMIT: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(4));

/// How long a request may stay without its final answer. Webex and a caller would not wait longer either.
const ANSWER_MAX: Duration = Duration::from_secs(10);

/// The length of a packet.
const PACKET: Duration = Duration::from_millis(20);

/// Packets sent at once when the machine was late, so that one call cannot hold up the others.
const CATCH_UP_MAX: u32 = 25;

/// Something to send.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Action {
    Signal(String),
    Packet { track: usize, to: SocketAddr, bytes: Vec<u8> },
}

/// A call that was held to its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Held {
    /// Packets sent in each track.
    pub(crate) packets: u32,
    /// From the INVITE to its answer.
    pub(crate) answered_in: Duration,
}

#[derive(Debug)]
enum State {
    Waiting,
    Inviting { since: Duration, retransmit: Retransmit },
    Talking { since: Duration, targets: [SocketAddr; 2], sent: u32 },
    Ending { since: Duration, retransmit: Retransmit, outcome: Result<Held, String> },
    Over(Result<Held, String>),
}

/// When a request is repeated next.
#[derive(Debug, Clone, Copy)]
struct Retransmit {
    at: Option<Duration>,
    pause: Duration,
}

impl Retransmit {
    fn begin(now: Duration, transport: Transport) -> Self {
        // A stream repeats by itself.
        let at = (transport == Transport::Udp).then(|| now + RETRANSMIT.0);
        Self { at, pause: RETRANSMIT.0 }
    }

    fn due(&mut self, now: Duration) -> bool {
        let due = self.at.is_some_and(|at| at <= now);
        if due {
            self.pause = (self.pause * 2).min(RETRANSMIT.1);
            self.at = Some(now + self.pause);
        }
        due
    }
}

/// The machine.
#[derive(Debug)]
pub(crate) struct Dialog<'a> {
    plan: &'a CallPlan,
    at: Addresses,
    /// When the call begins.
    begin_at: Duration,
    state: State,
    voices: [Voice; 2],
    answered: Answered,
    answered_in: Duration,
}

impl<'a> Dialog<'a> {
    pub(crate) fn new(plan: &'a CallPlan, at: Addresses, begin_at: Duration) -> Self {
        let voices = [plan.voice(0), plan.voice(1)];
        Self {
            plan,
            at,
            begin_at,
            state: State::Waiting,
            voices,
            answered: Answered::default(),
            answered_in: Duration::ZERO,
        }
    }

    /// The end of the call, once it has ended.
    pub(crate) fn outcome(&self) -> Option<&Result<Held, String>> {
        if let State::Over(outcome) = &self.state { Some(outcome) } else { None }
    }

    /// When the machine wants to be polled next; `None` when the call is over.
    pub(crate) fn deadline(&self) -> Option<Duration> {
        match &self.state {
            State::Waiting => Some(self.begin_at),
            State::Inviting { since, retransmit } | State::Ending { since, retransmit, .. } => {
                Some(retransmit.at.unwrap_or(Duration::MAX).min(*since + ANSWER_MAX))
            }
            State::Talking { since, sent, .. } => Some(*since + PACKET * *sent),
            State::Over(_) => None,
        }
    }

    /// Ends the call for a reason that lies outside it.
    pub(crate) fn abandon(&mut self, reason: &str) {
        if self.outcome().is_none() {
            self.state = State::Over(Err(reason.to_owned()));
        }
    }

    /// Does what is due.
    pub(crate) fn poll(&mut self, now: Duration, out: &mut Vec<Action>) {
        match &mut self.state {
            State::Waiting if now >= self.begin_at => {
                out.push(Action::Signal(message::invite(self.plan, &self.at)));
                self.state = State::Inviting { since: now, retransmit: Retransmit::begin(now, self.at.transport) };
            }
            State::Inviting { since, .. } if now >= *since + ANSWER_MAX => {
                let text = format!(
                    "no answer to the INVITE within {} s over {} from {}: is the recorder running, and is this machine in sip.allowed_peers?",
                    ANSWER_MAX.as_secs(),
                    self.at.transport.as_str(),
                    self.at.target
                );
                self.state = State::Over(Err(text));
            }
            State::Inviting { retransmit, .. } => {
                if retransmit.due(now) {
                    out.push(Action::Signal(message::invite(self.plan, &self.at)));
                }
            }
            State::Talking { .. } => self.talk(now, out),
            State::Ending { since, outcome, .. } if now >= *since + ANSWER_MAX => {
                let lost = format!("no answer to the BYE within {} s", ANSWER_MAX.as_secs());
                self.state = State::Over(outcome.clone().and(Err(lost)));
            }
            State::Ending { retransmit, .. } => {
                if retransmit.due(now) {
                    out.push(Action::Signal(self.bye()));
                }
            }
            State::Waiting | State::Over(_) => {}
        }
    }

    fn talk(&mut self, now: Duration, out: &mut Vec<Action>) {
        let State::Talking { since, targets, sent } = &mut self.state else { return };
        let burst_end = sent.saturating_add(CATCH_UP_MAX);
        while *sent < self.plan.frames && *sent < burst_end && *since + PACKET * *sent <= now {
            for (track, voice) in self.voices.iter_mut().enumerate() {
                let bytes = packet(self.plan, track, *sent, &voice.frame());
                out.push(Action::Packet { track, to: targets[track], bytes });
            }
            *sent += 1;
        }
        if *sent == self.plan.frames && now >= *since + PACKET * *sent {
            let held = Held { packets: *sent, answered_in: self.answered_in };
            self.end(now, Ok(held), out);
        }
    }

    fn end(&mut self, now: Duration, outcome: Result<Held, String>, out: &mut Vec<Action>) {
        out.push(Action::Signal(self.bye()));
        self.state = State::Ending { since: now, retransmit: Retransmit::begin(now, self.at.transport), outcome };
    }

    fn bye(&self) -> String {
        message::in_dialog("BYE", 2, self.plan, &self.at, &self.answered, "bye")
    }

    /// Takes a message with this call's Call-ID.
    pub(crate) fn receive(&mut self, now: Duration, message: &Message, out: &mut Vec<Action>) {
        match message.status() {
            None => self.receive_request(message, out),
            Some(100..=199) => {
                // A provisional answer ends the repetition of the INVITE (RFC 3261, 17.1.1.2).
                if let State::Inviting { retransmit, .. } = &mut self.state {
                    retransmit.at = None;
                }
            }
            Some(status) if message.answered_method() == "INVITE" => self.receive_final(now, status, message, out),
            Some(status) if message.answered_method() == "BYE" => self.receive_bye_answer(status, message),
            Some(_) => {}
        }
    }

    fn receive_final(&mut self, now: Duration, status: u16, message: &Message, out: &mut Vec<Action>) {
        if status >= 300 {
            self.receive_refusal(status, message, out);
            return;
        }
        let State::Inviting { since, .. } = self.state else {
            // The answer again: the acknowledgement was lost.
            out.push(Action::Signal(self.acknowledgement()));
            return;
        };
        self.answered = Answered::of(message, &self.at);
        self.answered_in = now - since;
        out.push(Action::Signal(self.acknowledgement()));
        match message::media_targets(self.plan, &message.body) {
            Ok(targets) => {
                self.state = State::Talking { since: now, targets, sent: 0 };
                self.talk(now, out);
            }
            Err(error) => self.end(now, Err(error), out),
        }
    }

    fn acknowledgement(&self) -> String {
        message::in_dialog("ACK", 1, self.plan, &self.at, &self.answered, "ack")
    }

    fn receive_refusal(&mut self, status: u16, message: &Message, out: &mut Vec<Action>) {
        // The ACK of a refusal belongs to the INVITE's transaction: same branch, same request URI.
        let refused = Answered { contact: message::target_uri(&self.at), ..Answered::of(message, &self.at) };
        out.push(Action::Signal(message::in_dialog("ACK", 1, self.plan, &self.at, &refused, "invite")));
        if matches!(self.state, State::Inviting { .. }) {
            let hint = match status {
                403 => ": this machine is not in sip.allowed_peers",
                503 => {
                    ": the appliance is full, short of disk space or about to stop; `callvaultctl status` says which"
                }
                _ => "",
            };
            self.state = State::Over(Err(format!("the INVITE was refused with {}{hint}", message.status_line())));
        }
    }

    fn receive_bye_answer(&mut self, status: u16, message: &Message) {
        if let State::Ending { outcome, .. } = &self.state {
            let outcome = match status {
                200..=299 => outcome.clone(),
                _ => outcome.clone().and(Err(format!("the BYE was answered with {}", message.status_line()))),
            };
            self.state = State::Over(outcome);
        }
    }

    fn receive_request(&mut self, request: &Message, out: &mut Vec<Action>) {
        match request.method() {
            "ACK" => {}
            "BYE" => {
                out.push(Action::Signal(message::response(request, "200 OK")));
                if self.outcome().is_none() {
                    self.state = State::Over(Err("the recorder ended the session before its time".into()));
                }
            }
            "OPTIONS" => out.push(Action::Signal(message::response(request, "200 OK"))),
            _ => out.push(Action::Signal(message::response(request, "501 Not Implemented"))),
        }
    }
}

/// An RTP packet (RFC 3550, 5.1): no padding, no extension, no contributing sources; the marker on the first.
fn packet(plan: &CallPlan, track: usize, number: u32, samples: &[i16; FRAME]) -> Vec<u8> {
    let law = plan.laws[track];
    let origin = plan.random(if track == 0 { "rtp 1" } else { "rtp 2" });
    let sequence = (origin as u16).wrapping_add(number as u16);
    let timestamp = ((origin >> 16) as u32).wrapping_add(number.wrapping_mul(FRAME as u32));
    let source = plan.random(if track == 0 { "source 1" } else { "source 2" }) as u32;
    let marker = if number == 0 { 0x80 } else { 0 };
    let mut bytes = Vec::with_capacity(12 + FRAME);
    bytes.extend_from_slice(&[0x80, marker | law.payload_type()]);
    bytes.extend_from_slice(&sequence.to_be_bytes());
    bytes.extend_from_slice(&timestamp.to_be_bytes());
    bytes.extend_from_slice(&source.to_be_bytes());
    bytes.extend(samples.iter().map(|sample| law.encode(*sample)));
    bytes
}

#[cfg(test)]
#[path = "dialog_tests.rs"]
mod tests;
