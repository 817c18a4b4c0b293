//! A SIPREC client with a script: one call, over a network that loses, repeats and reorders.
//!
//! It does what a client of RFC 7866 does over UDP: repeats requests until they are answered, acknowledges every 200 to an INVITE, and
//! sends what two people say from when it is answered until it hangs up.

use std::net::{Ipv4Addr, SocketAddr};

use callvault_sip::{Limits, Message, NameAddr, Response, parse_datagram};
use callvault_srtp::sdes::CryptoAttribute;
use callvault_srtp::{Protector, Suite};
use rand::SeedableRng;
use rand::rngs::StdRng;

use crate::dice::Dice;

pub(crate) const MS: u64 = 1_000_000;

/// Between two packets of a track.
const PACKET_NS: u64 = 20 * MS;

/// First pause before a request is repeated (RFC 3261 section 17.1.1.1), and how often it is.
const REPEAT_NS: u64 = 500 * MS;
const REPEATS_MAX: u32 = 7;

/// Bytes of 20 ms of G.711.
pub(crate) const PAYLOAD_BYTES: usize = 160;

/// What a packet is: the call that it belongs to, its track, its number there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct PacketId {
    pub(crate) call: u16,
    pub(crate) track: u8,
    pub(crate) number: u32,
}

impl PacketId {
    /// The payload says what it is; the rest of it is filling.
    fn payload(self) -> [u8; PAYLOAD_BYTES] {
        let mut payload = [0x55; PAYLOAD_BYTES];
        payload[..2].copy_from_slice(&self.call.to_le_bytes());
        payload[2] = self.track;
        payload[3..7].copy_from_slice(&self.number.to_le_bytes());
        payload
    }

    pub(crate) fn of(payload: &[u8]) -> Option<Self> {
        let [c0, c1, track, n0, n1, n2, n3] = *payload.first_chunk::<7>()?;
        let whole = payload.len() == PAYLOAD_BYTES && payload[7..].iter().all(|byte| *byte == 0x55);
        let number = u32::from_le_bytes([n0, n1, n2, n3]);
        whole.then_some(Self { call: u16::from_le_bytes([c0, c1]), track, number })
    }
}

/// What a client wants to be sent.
pub(crate) enum Sending {
    Sip(Vec<u8>),
    Rtp { port: u16, packet: PacketId, bytes: Vec<u8> },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stage {
    Waiting,
    Inviting,
    Talking,
    Leaving,
    Over,
}

struct Request {
    method: &'static str,
    bytes: Vec<u8>,
    cseq: u32,
    next_ns: u64,
    pause_ns: u64,
    repeats: u32,
}

struct Source {
    ssrc: u32,
    seq: u16,
    timestamp: u32,
    number: u32,
    silent_until_ns: u64,
    /// What secures its packets, and how that is offered; none: they are sent as they are.
    secured: Option<(Protector, String)>,
}

/// How many of its numbers a secured source has left before they begin anew, at most: so that calls go over that.
const NUMBERS_LEFT_MAX: u64 = 300;

/// What secures the packets of a track.
fn secure(dice: &mut Dice) -> Option<(Protector, String)> {
    let own = CryptoAttribute::generate(1, Suite::AesCm128HmacSha1Tag80, &mut StdRng::seed_from_u64(dice.next()));
    let text = own.to_text().ok()?.expose().clone();
    Some((Protector::new(&own).ok()?, text))
}

/// One call.
pub(crate) struct Client {
    pub(crate) call: u16,
    pub(crate) stage: Stage,
    begin_ns: u64,
    hang_up_ns: u64,
    /// When it asks for a pause and for its end; none: it never does.
    pause: Option<(u64, u64)>,
    /// A client that goes on sending in a pause.
    talks_in_pause: bool,
    /// How long it sends on after it hung up.
    trailing_ns: u64,
    pub(crate) paused: bool,
    request: Option<Request>,
    cseq: u32,
    tag: Option<String>,
    ports: Vec<u16>,
    sources: Vec<Source>,
    next_packet_ns: u64,
    dice: Dice,
}

impl Client {
    pub(crate) fn new(call: u16, mut dice: Dice, span_ns: u64) -> Self {
        let begin_ns = dice.below(span_ns);
        let length_ns = dice.between(600, 6_000) * MS;
        let pause = dice.one_in(3).then(|| {
            let from = begin_ns + length_ns / 3;
            (from, from + dice.between(700, 1_500) * MS)
        });
        let tracks = dice.between(1, 2);
        let is_secured = dice.one_in(3);
        let sources = (0..tracks)
            .map(|_| Source {
                ssrc: dice.next() as u32,
                seq: if is_secured { u16::MAX - dice.between(20, NUMBERS_LEFT_MAX) as u16 } else { dice.next() as u16 },
                timestamp: dice.next() as u32,
                number: 0,
                silent_until_ns: 0,
                secured: if is_secured { secure(&mut dice) } else { None },
            })
            .collect();
        Self {
            call,
            stage: Stage::Waiting,
            begin_ns,
            hang_up_ns: begin_ns + length_ns,
            pause,
            talks_in_pause: dice.one_in(2),
            trailing_ns: if dice.one_in(3) { dice.between(100, 1_800) * MS } else { 0 },
            paused: false,
            request: None,
            cseq: 0,
            tag: None,
            ports: Vec::new(),
            sources,
            next_packet_ns: 0,
            dice,
        }
    }

    /// The same, with its whole script later by so much.
    pub(crate) fn after(mut self, by_ns: u64) -> Self {
        self.begin_ns += by_ns;
        self.hang_up_ns += by_ns;
        self.pause = self.pause.map(|(from, to)| (from + by_ns, to + by_ns));
        self
    }

    pub(crate) fn address(&self) -> SocketAddr {
        SocketAddr::from((Ipv4Addr::LOCALHOST, 10_000 + self.call))
    }

    fn name(&self) -> String {
        format!("call-{}", self.call)
    }

    /// The call that a Call-ID names.
    pub(crate) fn call_of(call_id: &str) -> Option<u16> {
        call_id.strip_prefix("call-")?.parse().ok()
    }

    /// Gives up what it wanted to do later: the simulation comes to its end.
    pub(crate) fn hurry(&mut self, now_ns: u64) {
        if self.stage == Stage::Waiting {
            self.stage = Stage::Over;
        }
        self.hang_up_ns = self.hang_up_ns.min(now_ns);
    }

    /// Nothing more comes of it, late media apart.
    pub(crate) fn is_over(&self) -> bool {
        self.stage == Stage::Over
    }

    /// What it does now.
    pub(crate) fn turn(&mut self, now_ns: u64, out: &mut Vec<Sending>) {
        match self.stage {
            Stage::Waiting if now_ns >= self.begin_ns => {
                self.stage = Stage::Inviting;
                self.ask("INVITE", now_ns, false);
            }
            Stage::Talking if now_ns >= self.hang_up_ns => {
                self.stage = Stage::Leaving;
                self.ask("BYE", now_ns, false);
            }
            Stage::Talking if self.request.is_none() => self.change_pause(now_ns),
            _ => {}
        }
        self.repeat(now_ns, out);
        self.talk(now_ns, out);
    }

    fn change_pause(&mut self, now_ns: u64) {
        match self.pause {
            Some((from, _)) if !self.paused && now_ns >= from => {
                self.paused = true;
                self.ask("INVITE", now_ns, true);
            }
            Some((_, to)) if self.paused && now_ns >= to => {
                (self.paused, self.pause) = (false, None);
                self.ask("INVITE", now_ns, false);
            }
            _ => {}
        }
    }

    fn repeat(&mut self, now_ns: u64, out: &mut Vec<Sending>) {
        let Some(request) = self.request.as_mut().filter(|request| now_ns >= request.next_ns) else { return };
        if request.repeats > REPEATS_MAX {
            // Nobody answers: whoever it was is gone.
            self.request = None;
            self.stage = Stage::Over;
            return;
        }
        request.repeats += 1;
        request.next_ns = now_ns + request.pause_ns;
        request.pause_ns = (request.pause_ns * 2).min(4_000 * MS);
        out.push(Sending::Sip(request.bytes.clone()));
    }

    fn talk(&mut self, now_ns: u64, out: &mut Vec<Sending>) {
        let trails = self.stage != Stage::Talking && now_ns < self.hang_up_ns + self.trailing_ns;
        if self.ports.is_empty() || !(self.stage == Stage::Talking || trails) {
            return;
        }
        while self.next_packet_ns <= now_ns {
            self.next_packet_ns += PACKET_NS;
            let is_quiet = self.paused && !self.talks_in_pause;
            for (track, source) in self.sources.iter_mut().enumerate() {
                source.timestamp = source.timestamp.wrapping_add(PAYLOAD_BYTES as u32);
                if is_quiet || now_ns < source.silent_until_ns {
                    continue;
                }
                if self.dice.one_in(400) {
                    // Another device takes over, after a silence that is longer than a track waits for.
                    source.silent_until_ns = now_ns + 800 * MS;
                    (source.ssrc, source.seq) = (self.dice.next() as u32, self.dice.next() as u16);
                    continue;
                }
                source.seq = source.seq.wrapping_add(1);
                source.number += 1;
                let Some(&port) = self.ports.get(track) else { continue };
                let packet = PacketId { call: self.call, track: track as u8, number: source.number };
                let mut bytes = vec![0x80, 0];
                bytes.extend_from_slice(&source.seq.to_be_bytes());
                bytes.extend_from_slice(&source.timestamp.to_be_bytes());
                bytes.extend_from_slice(&source.ssrc.to_be_bytes());
                bytes.extend_from_slice(&packet.payload());
                if let Some((protector, _)) = &mut source.secured {
                    protector.protect_rtp(&mut bytes).expect("a whole packet with numbers that rise can be secured");
                }
                out.push(Sending::Rtp { port, packet, bytes });
            }
        }
    }

    /// Begins a request.
    fn ask(&mut self, method: &'static str, now_ns: u64, inactive: bool) {
        self.cseq += 1;
        let body = if method == "INVITE" { self.offer(inactive) } else { String::new() };
        let bytes = self.message(method, self.cseq, &body);
        self.request =
            Some(Request { method, bytes, cseq: self.cseq, next_ns: now_ns, pause_ns: REPEAT_NS, repeats: 0 });
    }

    fn offer(&self, inactive: bool) -> String {
        let direction = if inactive { "inactive" } else { "sendonly" };
        let mut text = "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\n".to_owned();
        for (place, source) in self.sources.iter().enumerate() {
            let (port, number) = (4_000 + 2 * place, place + 1);
            let profile = if source.secured.is_some() { "RTP/SAVP" } else { "RTP/AVP" };
            text += &format!("m=audio {port} {profile} 0\r\na=label:{number}\r\na={direction}\r\n");
            if let Some((_, offered)) = &source.secured {
                text += &format!("a=crypto:{offered}\r\n");
            }
        }
        text
    }

    fn message(&self, method: &str, cseq: u32, body: &str) -> Vec<u8> {
        let (name, address) = (self.name(), self.address());
        let tag = self.tag.as_ref().map(|tag| format!(";tag={tag}")).unwrap_or_default();
        let kind = if body.is_empty() { "" } else { "Content-Type: application/sdp\r\n" };
        // An acknowledgement of a 200 is a transaction of its own (RFC 3261 section 13.2.2.4).
        let branch = if method == "ACK" { "a" } else { "" };
        format!(
            "{method} sip:127.0.0.1:5060 SIP/2.0\r\nVia: SIP/2.0/UDP {address};branch=z9hG4bK{name}{branch}{cseq};rport\r\n\
             From: <sip:client@127.0.0.1>;tag=f\r\nTo: <sip:127.0.0.1>{tag}\r\nCall-ID: {name}\r\nCSeq: {cseq} {method}\r\n\
             Contact: <sip:{address}>;+sip.src\r\nRequire: siprec\r\n{kind}Content-Length: {}\r\n\r\n{body}",
            body.len()
        )
        .into_bytes()
    }

    /// A message from the recorder.
    pub(crate) fn receive(&mut self, now_ns: u64, bytes: &[u8], out: &mut Vec<Sending>) {
        match parse_datagram(bytes, &Limits::default()) {
            Ok(Some(Message::Request(request))) => {
                let copied = ["Via", "From", "To", "Call-ID", "CSeq"]
                    .iter()
                    .filter_map(|name| Some(format!("{name}: {}\r\n", request.headers.get(name)?)))
                    .collect::<String>();
                out.push(Sending::Sip(format!("SIP/2.0 200 OK\r\n{copied}Content-Length: 0\r\n\r\n").into_bytes()));
                if request.method.to_string() == "BYE" {
                    self.stage = Stage::Over;
                    self.hang_up_ns = self.hang_up_ns.min(now_ns);
                    self.request = None;
                }
            }
            Ok(Some(Message::Response(response))) => self.answered(now_ns, &response, out),
            _ => {}
        }
    }

    fn answered(&mut self, now_ns: u64, response: &Response, out: &mut Vec<Sending>) {
        let Some((cseq, method)) = response.headers.get("CSeq").and_then(|text| text.split_once(' ')) else { return };
        let (Ok(cseq), method) = (cseq.parse::<u32>(), method.trim()) else { return };
        if response.status < 200 {
            return;
        }
        let is_present = self.request.as_ref().is_some_and(|request| request.cseq == cseq && request.method == method);
        if method == "INVITE" && response.status == 200 {
            let tag = response.headers.get("To").map(NameAddr::parse).and_then(|to| to.tag().map(str::to_owned));
            if self.tag.is_some() && self.tag != tag {
                // The answer of a recorder that has died meanwhile to an INVITE that another has answered.
                return;
            }
            self.tag = tag;
            out.push(Sending::Sip(self.message("ACK", cseq, "")));
            if is_present && self.stage == Stage::Inviting {
                self.stage = Stage::Talking;
                self.ports = ports(&response.body);
                self.next_packet_ns = now_ns;
            }
        }
        if !is_present {
            return;
        }
        self.request = None;
        match (method, response.status) {
            ("INVITE", 200) => {}
            // The dialog is gone, or there never was one.
            ("INVITE", _) | ("BYE", _) => self.stage = Stage::Over,
            _ => {}
        }
        if self.stage == Stage::Over {
            self.hang_up_ns = self.hang_up_ns.min(now_ns);
        }
        if method == "INVITE" && response.status >= 300 {
            // An answer that is no success is acknowledged within its transaction (RFC 3261 section 17.1.1.3).
            let ack = String::from_utf8_lossy(&self.message("ACK", cseq, ""))
                .replace(&format!("{}a{cseq}", self.name()), &format!("{}{cseq}", self.name()));
            out.push(Sending::Sip(ack.into_bytes()));
        }
    }
}

/// The ports of a session description, line after line.
pub(crate) fn ports(sdp: &[u8]) -> Vec<u16> {
    let text = String::from_utf8_lossy(sdp);
    text.lines().filter_map(|line| line.strip_prefix("m=audio ")?.split(' ').next()?.parse().ok()).collect()
}
