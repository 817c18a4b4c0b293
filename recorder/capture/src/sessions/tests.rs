//! Sessions under the real SIP endpoint, message by message.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use callvault_control::{Decision, Network, Start, ToDaemon};
use callvault_journal::facts::{SessionEvent, Started};
use callvault_sip::{
    Endpoint, EndpointConfig, Flow, FlowId, Limits, Message, NameAddr, Now, Output, Request, Response, TransportKind,
    parse_datagram,
};
use rand::SeedableRng;
use rand::rngs::StdRng;
use uuid::Uuid;

use super::{Moment, Sessions, Todo};
use crate::appender::Entry;
use crate::ports::PortPool;
use crate::rig::{pair, settings};
use crate::sweep::{Command, NewTrack};

mod control;
mod metadata;
mod offers;

const MS: u64 = 1_000_000;
const OFFER: &str = include_str!("../../../../tests/corpus/webex/offer.sdp");
const HOLD: &str = include_str!("../../../../tests/corpus/webex/hold.sdp");
const PAUSE: &str = include_str!("../../../../tests/corpus/webex/pause.sdp");
const RESUME: &str = include_str!("../../../../tests/corpus/webex/resume.sdp");
const INCOMING: &str = include_str!("../../../../tests/corpus/webex/incoming.xml");
const TRANSFERRED: &str = include_str!("../../../../tests/corpus/webex/transferred.xml");

struct Rig {
    endpoint: Endpoint,
    sessions: Sessions,
    rng: StdRng,
    now: u64,
    cseq: u32,
    tag: String,
    answer: Option<Response>,
    /// What was done since last asked, a word each.
    seen: Vec<String>,
    asked: Vec<Uuid>,
    /// Beginnings of recordings.
    started: Vec<Started>,
    /// The track added last.
    added: Option<NewTrack>,
    /// The request sent last.
    request: Option<Request>,
}

fn rig_with(ports: usize, change: impl FnOnce(&mut Start)) -> Rig {
    let mut settings = settings();
    change(&mut settings);
    Rig {
        endpoint: Endpoint::new(EndpointConfig::new("callvault"), [1; 32]),
        sessions: Sessions::new(Arc::new(settings), PortPool::new((0..ports).map(|_| pair()).collect())),
        rng: StdRng::from_seed([2; 32]),
        now: 1_000 * MS,
        cseq: 0,
        tag: String::new(),
        answer: None,
        seen: Vec::new(),
        asked: Vec::new(),
        started: Vec::new(),
        added: None,
        request: None,
    }
}

fn rig() -> Rig {
    rig_with(8, |_| {})
}

/// Offer and metadata, whichever there are, as a client sends them.
fn body(sdp: &str, metadata: &str) -> (String, String) {
    match (sdp, metadata) {
        ("", "") => (String::new(), String::new()),
        (sdp, "") => ("Content-Type: application/sdp\r\n".into(), sdp.into()),
        (sdp, metadata) => {
            let mut text = String::new();
            for (kind, part) in [("application/sdp", sdp), ("application/rs-metadata+xml", metadata)] {
                if !part.is_empty() {
                    text += &format!("--b\r\nContent-Type: {kind}\r\n\r\n{part}\r\n");
                }
            }
            ("Content-Type: multipart/mixed;boundary=b\r\n".into(), text + "--b--\r\n")
        }
    }
}

impl Rig {
    fn moment(&self) -> Moment {
        Moment { journal_ns: self.now, wall_ns: 1_800_000_000_000_000_000 + self.now as i64 }
    }

    fn send(&mut self, method: &str, call: &str, (fields, body): (String, String)) -> Vec<String> {
        if method != "ACK" && method != "CANCEL" {
            self.cseq += 1;
        }
        let fresh = matches!(method, "OPTIONS") || (method == "INVITE" || method == "CANCEL") && self.tag.is_empty();
        let tag = if fresh { String::new() } else { format!(";tag={}", self.tag) };
        let (cseq, length) = (self.cseq, body.len());
        let text = format!(
            "{method} sip:127.0.0.1:5060 SIP/2.0\r\nVia: SIP/2.0/UDP 127.0.0.1:5070;branch=z9hG4bK{call}{cseq};rport\r\n\
             From: \"Ann\" <sip:+15551230100@127.0.0.1>;tag=f\r\nTo: <sip:127.0.0.1>{tag}\r\nCall-ID: {call}\r\n\
             CSeq: {cseq} {method}\r\nContact: <sip:127.0.0.1:5070>;+sip.src\r\nRequire: siprec\r\n\
             Content-Length: {length}\r\n{fields}\r\n{body}"
        );
        let flow = Flow {
            id: FlowId(0),
            kind: TransportKind::Udp,
            local: "127.0.0.1:5060".parse().unwrap(),
            peer: "127.0.0.1:5070".parse().unwrap(),
        };
        let message = parse_datagram(text.as_bytes(), &Limits::default()).unwrap().unwrap();
        self.endpoint.receive(Now(self.now), &flow, message);
        self.work()
    }

    /// An INVITE that is accepted and acknowledged.
    fn call(&mut self, sdp: &str, metadata: &str) -> Vec<String> {
        let seen = self.send("INVITE", "c", body(sdp, metadata));
        assert_eq!(seen[0], "200 INVITE");
        self.send("ACK", "c", body("", ""));
        seen
    }

    fn work(&mut self) -> Vec<String> {
        loop {
            if let Some(output) = self.endpoint.poll() {
                match output {
                    Output::Send { bytes, .. } => self.sent(&bytes),
                    Output::Event(event) => self.sessions.handle(self.moment(), event, &mut self.rng),
                    Output::CloseFlow { .. } | Output::Connect { .. } => {}
                }
            } else if let Some(todo) = self.sessions.poll() {
                self.todo(todo);
            } else {
                return std::mem::take(&mut self.seen);
            }
        }
    }

    fn sent(&mut self, bytes: &[u8]) {
        match parse_datagram(bytes, &Limits::default()).unwrap().unwrap() {
            Message::Request(request) => {
                self.seen.push(request.method.to_string());
                self.request = Some(request);
            }
            Message::Response(response) => {
                let method = response.headers.get("CSeq").unwrap().split(' ').next_back().unwrap().to_owned();
                if method == "INVITE" && response.status == 200 {
                    let to = response.headers.get("To").unwrap();
                    self.tag = NameAddr::parse(to).tag().unwrap().to_owned();
                }
                self.seen.push(format!("{} {method}", response.status));
                self.answer = Some(response);
            }
        }
    }

    fn todo(&mut self, todo: Todo) {
        let now = Now(self.now);
        match todo {
            Todo::Accept(tx, accept) => drop(self.endpoint.accept(now, tx, accept)),
            Todo::Reject(tx, status, reason, headers) => drop(self.endpoint.reject(now, tx, status, reason, headers)),
            Todo::Bye(dialog, reason) => drop(self.endpoint.bye(now, dialog, Some(reason))),
            Todo::Update(dialog, body, headers) => {
                let _ = self.endpoint.update_request(now, dialog, Some(body), headers);
            }
            Todo::Media(command) => {
                self.seen.push(media_word(&command));
                if let Command::AddTrack { track, .. } = command {
                    self.added = Some(track);
                }
            }
            Todo::Journal(entry) => {
                self.seen.push(journal_word(&entry));
                if let Entry::Facts { event: SessionEvent::Started(started), .. } = entry {
                    self.started.push(started);
                }
            }
            Todo::Tell(ToDaemon::Decide { recording, .. }) => {
                self.asked.push(recording);
                self.seen.push("ask".into());
            }
            Todo::Tell(_) => self.seen.push("tell".into()),
        }
        // What the endpoint sends for it comes first, as with the driver.
        while let Some(output) = self.endpoint.poll() {
            match output {
                Output::Send { bytes, .. } => self.sent(&bytes),
                Output::Event(event) => self.sessions.handle(self.moment(), event, &mut self.rng),
                Output::CloseFlow { .. } | Output::Connect { .. } => {}
            }
        }
    }

    fn wait(&mut self, ms: u64) -> Vec<String> {
        let end = self.now + ms * MS;
        let mut seen = Vec::new();
        while let Some(Now(at)) = self.endpoint.deadline().filter(|at| at.0 <= end) {
            self.now = at.max(self.now);
            self.endpoint.handle_timeout(Now(self.now));
            seen.extend(self.work());
        }
        self.now = end;
        seen
    }

    fn header(&self, name: &str) -> &str {
        self.answer.as_ref().unwrap().headers.get(name).unwrap_or("")
    }

    /// The media lines of the last answer: port given or 0, and direction.
    fn lines(&self) -> String {
        let text = String::from_utf8(self.answer.as_ref().unwrap().body.clone()).unwrap();
        let word = |line: &str| match line {
            line if line.starts_with("m=") => Some(if line.contains(" 0 RTP") { "refused" } else { "taken" }),
            "a=recvonly" => Some("recvonly"),
            "a=inactive" => Some("inactive"),
            _ => None,
        };
        text.lines().filter_map(word).collect::<Vec<_>>().join(" ")
    }
}

fn media_word(command: &Command) -> String {
    match command {
        Command::Resume(resumption) => format!("resume {}", resumption.tracks.len()),
        Command::Open { tracks, .. } => {
            let secured = if tracks.iter().any(|track| track.unprotector.is_some()) { " secured" } else { "" };
            format!("sweep {}{secured}", tracks.len())
        }
        Command::AddTrack { track, .. } => {
            format!("sweep +{}{}", track.number, if track.unprotector.is_some() { " secured" } else { "" })
        }
        Command::Rekey { track, keys, .. } => format!("{} {track}", if keys.is_some() { "rekey" } else { "unkey" }),
        Command::Describe { track, .. } => format!("announce {track}"),
        Command::Pause { track, paused, .. } => format!("{} {track}", if *paused { "ignore" } else { "follow" }),
        Command::Close { ended, .. } => format!("close {}", ended.reason),
        Command::Cut { ended, .. } => format!("cut {}", ended.reason),
        Command::Begin { .. } => "begin".into(),
        Command::Stop => "stop".into(),
    }
}

/// Who paused, where it is not the client.
fn who(by: &str) -> &'static str {
    if by == "control" { " by control" } else { "" }
}

fn journal_word(entry: &Entry) -> String {
    match entry {
        Entry::Open { .. } => "open".into(),
        Entry::Facts { event, .. } => match event {
            SessionEvent::Flaw(flaw) => flaw.code.clone(),
            SessionEvent::Paused(pause) => format!("paused {:?}{}", pause.track, who(&pause.by)),
            SessionEvent::Resumed(pause) => format!("resumed {:?}{}", pause.track, who(&pause.by)),
            SessionEvent::Raw(raw) => format!("raw {}", raw.content_type.split(';').next().unwrap()),
            SessionEvent::Track(track) => format!("track {}{}", track.track, if track.local { " local" } else { "" }),
            other => serde_json::to_value(other).unwrap()["event"].as_str().unwrap().to_owned(),
        },
        Entry::Decide { decision, .. } => format!("{decision:?}"),
        Entry::Reconsider { .. } => "reconsider".into(),
        _ => "other".into(),
    }
}

/// An offer of PCMU lines, each with its port and direction.
fn offer(lines: &[Line]) -> String {
    let mut text = "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\n".to_owned();
    for (number, (port, direction)) in (1..).zip(lines) {
        text += &format!("m=audio {port} RTP/AVP 0\r\na=label:{number}\r\na={direction}\r\n");
    }
    text
}

const TWO: &[Line] = &[(4000, "sendonly"), (4002, "sendonly")];

#[test]
fn a_call_is_answered_first_and_written_down_in_order() {
    let mut rig = rig();
    let seen = rig.call(OFFER, INCOMING);
    assert_eq!(
        seen,
        [
            "200 INVITE",
            "open",
            "started",
            "sweep 2",
            "raw application/sdp",
            "raw application/rs-metadata+xml",
            "call",
            "track 0 local",
            "track 1",
            "ask",
        ]
    );
    assert_eq!(rig.lines(), "taken recvonly taken recvonly");
    let seen = rig.send("BYE", "c", body("", TRANSFERRED));
    assert_eq!(seen.first().unwrap(), "200 BYE");
    assert!(seen.contains(&"call".to_owned()), "{seen:?}");
    assert_eq!(seen.last().unwrap(), "close bye");
    assert_eq!((rig.sessions.live(), rig.sessions.totals().accepted), (0, 1));
}

#[test]
fn what_is_refused_and_how() {
    fn check(sdp: &str, change: impl FnOnce(&mut Start), prepare: impl FnOnce(&mut Sessions), expected: (u16, &str)) {
        let mut rig = rig_with(2, change);
        prepare(&mut rig.sessions);
        let fields = match sdp {
            "broken" => ("Content-Type: multipart/mixed\r\n".into(), "nothing to split by".into()),
            sdp => body(sdp, ""),
        };
        let (status, retry_after) = expected;
        assert_eq!(rig.send("INVITE", "c", fields), [format!("{status} INVITE")]);
        assert_eq!(rig.header("Retry-After"), retry_after, "{status}");
        let totals = rig.sessions.totals();
        let counts = (totals.accepted, totals.overloaded, totals.refused);
        assert_eq!(counts, if status == 503 { (0, 1, 0) } else { (0, 0, 1) });
        assert_eq!((rig.sessions.live(), rig.sessions.port_pairs().0), (0, 0));
    }
    let elsewhere = |s: &mut Start| s.allowed_peers = vec![Network { address: [192, 0, 2, 0].into(), prefix: 24 }];
    let two = offer(TWO);
    check(&two, elsewhere, |_| {}, (403, ""));
    check("v=0\r\nm=video 4000 RTP/AVP 96\r\n", |_| {}, |_| {}, (488, ""));
    check("no description", |_| {}, |_| {}, (488, ""));
    check(&offer(&[(0, "sendonly")]), |_| {}, |_| {}, (488, ""));
    check(&two.replace("RTP/AVP", "RTP/SAVP"), |_| {}, |_| {}, (488, ""));
    check("broken", |_| {}, |_| {}, (400, ""));
    check(&two, |s| s.sessions_max = 0, |_| {}, (503, "7"));
    check(&two, |_| {}, |s| s.set_draining(true), (503, "7"));
    check(&two, |_| {}, |s| s.set_storage(true, false), (503, "7"));
    check(&two, |_| {}, |s| s.set_storage(false, true), (503, "7"));
    check(&offer(&[(4000, "sendonly"), (4002, "sendonly"), (4004, "sendonly")]), |_| {}, |_| {}, (503, "7"));
}

#[test]
fn options_say_whether_there_is_room_and_count_as_nothing() {
    let mut rig = rig();
    assert_eq!(rig.send("OPTIONS", "o", body("", "")), ["200 OPTIONS"]);
    rig.sessions.set_draining(true);
    assert_eq!(rig.send("OPTIONS", "o", body("", "")), ["503 OPTIONS"]);
    assert_eq!(rig.header("Retry-After"), "7");
    assert_eq!(rig.sessions.totals().overloaded, 0);
}

#[test]
fn pauses_in_each_spelling() {
    fn check(paused: &str, resumed: &str) {
        let mut rig = rig();
        rig.call(OFFER, INCOMING);
        let seen = rig.send("INVITE", "c", body(paused, ""));
        let told = |seen: &[String]| -> Vec<String> {
            seen.iter().filter(|w| !w.starts_with("raw") && !w.starts_with("announce")).cloned().collect()
        };
        assert_eq!(told(&seen), ["ignore 0", "ignore 1", "200 INVITE", "paused None"]);
        assert_eq!(rig.lines(), "taken inactive taken inactive");
        rig.send("ACK", "c", body("", ""));
        let seen = rig.send("INVITE", "c", body(resumed, ""));
        assert_eq!(told(&seen), ["follow 0", "follow 1", "200 INVITE", "resumed None"]);
    }
    check(HOLD, OFFER);
    check(PAUSE, RESUME);
    check(&OFFER.replace("sendonly", "inactive"), OFFER);
    check(&OFFER.replace("sendonly", "recvonly"), OFFER);
    check(&OFFER.replace("IN IP4 198.51.100.21", "IN IP4 0.0.0.0"), OFFER);
}

/// Port and direction of a media line.
type Line = (u16, &'static str);

/// What one offer after another changes, raw bodies apart.
fn check_changes(offers: &[(&[Line], &[&str])]) {
    let mut rig = rig();
    for (number, (lines, expected)) in offers.iter().enumerate() {
        let seen = rig.send("INVITE", "c", body(&offer(lines), ""));
        rig.send("ACK", "c", body("", ""));
        // Whose voice a track carries is worked out elsewhere.
        let told = |w: &&str| !w.starts_with("raw") && !w.starts_with("track ") && *w != "200 INVITE";
        let seen: Vec<&str> = seen.iter().map(String::as_str).filter(told).collect();
        let seen = if number == 0 { &seen[seen.len() - expected.len()..] } else { &seen[..] };
        assert_eq!(seen, *expected, "offer {number}");
    }
}

#[test]
fn tracks_pause_and_resume_one_by_one() {
    let (on, off) = ((4000, "sendonly"), (4000, "inactive"));
    let (on2, off2) = ((4002, "sendonly"), (4002, "inactive"));
    check_changes(&[
        (&[on, on2], &["ask"]),
        (&[off, on2], &["ignore 0", "paused Some(0)"]),
        (&[off, off2], &["ignore 1", "paused Some(1)"]),
        (&[on, off2], &["follow 0", "resumed Some(0)"]),
        (&[off, on2], &["ignore 0", "follow 1", "paused Some(0)", "resumed Some(1)"]),
        (&[on, on2], &["follow 0", "resumed Some(0)"]),
        (&[on, on2], &[]),
    ]);
    check_changes(&[(&[off, off2], &["paused None", "ask"]), (&[on, on2], &["follow 0", "follow 1", "resumed None"])]);
    check_changes(&[(&[on, off2], &["paused Some(1)", "ask"])]);
}

#[test]
fn lines_come_and_go() {
    let (one, two, three) = ((4000, "sendonly"), (4002, "sendonly"), (4004, "sendonly"));
    check_changes(&[
        (&[one], &["ask"]),
        (&[one, two], &["sweep +1"]),
        (&[one, (0, "sendonly")], &["ignore 1", "paused Some(1)"]),
        (&[one, two], &["follow 1", "resumed Some(1)"]),
        (&[one, two, (4004, "inactive")], &["sweep +2", "paused Some(2)"]),
        (
            &[one, two, three, (4006, "sendonly"), (4008, "sendonly")],
            &["sweep +3", "follow 2", "tracks-refused", "resumed Some(2)"],
        ),
        (&[(4100, "sendonly"), two, three], &["announce 0", "ignore 3", "paused Some(3)"]),
    ]);
}

const KEY: &str = "AES_CM_128_HMAC_SHA1_80 inline:PS1uQCVeeCFCanVmcjkpPywjNWhcYD0mXXtxaVBR|2^20";
const OTHER_KEY: &str = "AES_CM_128_HMAC_SHA1_80 inline:d0RmdmcmVCspeEc3QGZiNWpVLFJhQX1cfHAwJSoj";

/// The offer of these lines, each with the profile and the crypto attributes given.
fn secured(lines: &[Line], profile: &str, crypto: &[&str]) -> String {
    let attributes: String = crypto.iter().map(|value| format!("a=crypto:{value}\r\n")).collect();
    offer(lines).replace("RTP/AVP", profile).replace("a=label", &(attributes + "a=label"))
}

impl Rig {
    /// The crypto attributes of the last answer, without what they have in common with nothing: the key.
    fn keys_answered(&self) -> Vec<String> {
        let text = String::from_utf8(self.answer.as_ref().unwrap().body.clone()).unwrap();
        let values = text.lines().filter_map(|line| line.strip_prefix("a=crypto:"));
        values.map(|value| value.split_once(" inline:").unwrap().0.to_owned()).collect()
    }
}

#[test]
fn keys_are_taken_as_offered_and_answered_with_one() {
    fn check(profile: &str, crypto: &[&str], expected: (&str, &str, &[&str])) {
        let mut rig = rig();
        let seen = rig.call(&secured(TWO, profile, crypto), "");
        let opened = seen.iter().find(|word| word.starts_with("sweep")).unwrap();
        let answered = rig.keys_answered();
        assert_eq!((opened.as_str(), rig.lines().as_str()), (expected.0, expected.1), "{profile} {crypto:?}");
        assert_eq!(answered, expected.2, "{profile} {crypto:?}");
        assert!(!seen.contains(&"srtp-refused".to_owned()));
    }
    let both = "taken recvonly taken recvonly";
    let tagged = |tag: u8, key: &str| format!("{tag} {key}");
    let (one, seven) = (tagged(1, KEY), tagged(7, KEY));
    let first = "1 AES_CM_128_HMAC_SHA1_80";
    let last = "7 AES_CM_128_HMAC_SHA1_80";
    check("RTP/SAVP", &[&one], ("sweep 2 secured", both, &[first, first]));
    check(
        "RTP/SAVP",
        &["1 F8_128_HMAC_SHA1_80 inline:AAAA", "broken", &seven],
        ("sweep 2 secured", both, &[last, last]),
    );
    check("RTP/SAVPF", &[&seven, &one], ("sweep 2 secured", both, &[last, last]));
    // Keys with a plain profile are a best-effort offer.
    check("RTP/AVP", &[&one], ("sweep 2 secured", both, &[first, first]));
    check("RTP/AVP", &["1 F8_128_HMAC_SHA1_80 inline:AAAA"], ("sweep 2", both, &[]));
}

#[test]
fn without_a_key_that_can_be_taken_a_secure_offer_is_refused() {
    for crypto in ["1 F8_128_HMAC_SHA1_80 inline:AAAA", "1 AES_CM_128_HMAC_SHA1_80 inline:AAAA", "what"] {
        let mut rig = rig();
        let seen = rig.send("INVITE", "c", body(&secured(TWO, "RTP/SAVP", &[crypto]), ""));
        assert_eq!(seen, ["488 INVITE"], "{crypto}");
    }
    // Where another line can be taken, that one is.
    let mut rig = rig();
    let seen = rig.call(&secured(TWO, "RTP/SAVP", &[&format!("1 {KEY}")]).replacen(KEY, "UNKNOWN inline:AAAA", 1), "");
    assert!(seen.contains(&"srtp-refused".to_owned()) && seen.contains(&"sweep 1 secured".to_owned()), "{seen:?}");
}

#[test]
fn our_keys_stay_and_theirs_follow_their_offers() {
    let mut rig = rig();
    let (first, other) = (format!("1 {KEY}"), format!("1 {OTHER_KEY}"));
    rig.call(&secured(TWO, "RTP/SAVP", &[&first]), "");
    let answered = rig.answer.as_ref().unwrap().body.clone();
    let told = |seen: Vec<String>| -> Vec<String> {
        seen.into_iter().filter(|word| word.contains("key") || word.contains("announce")).collect()
    };
    for crypto in [&first, &other] {
        let seen = rig.send("INVITE", "c", body(&secured(TWO, "RTP/SAVP", &[crypto]), ""));
        assert_eq!(told(seen), ["rekey 0", "rekey 1"]);
        // The same answer to the letter, our keys and the version included.
        assert_eq!(rig.answer.as_ref().unwrap().body, answered);
        rig.send("ACK", "c", body("", ""));
    }
    let seen = rig.send("INVITE", "c", body(&offer(TWO), ""));
    assert_eq!(told(seen), ["unkey 0", "unkey 1"]);
    assert_eq!((rig.keys_answered().len(), rig.lines().as_str()), (0, "taken recvonly taken recvonly"));
    rig.send("ACK", "c", body("", ""));
    let seen = rig.send("INVITE", "c", body(&offer(TWO), ""));
    assert_eq!(told(seen), Vec::<String>::new());
}

#[test]
fn a_line_that_turns_secure_is_refused_and_a_pause() {
    let mut rig = rig();
    rig.call(&offer(TWO), "");
    let seen = rig.send("INVITE", "c", body(&offer(TWO).replacen("RTP/AVP", "RTP/SAVP", 1), ""));
    assert!(seen.contains(&"ignore 0".to_owned()) && seen.contains(&"srtp-refused".to_owned()), "{seen:?}");
    assert_eq!(rig.lines(), "refused taken recvonly");
}

#[test]
fn a_later_message_that_is_wrong_leaves_the_session_as_it_was() {
    let mut rig = rig();
    rig.call(OFFER, INCOMING);
    let seen = rig.send("INVITE", "c", body("v=0\r\nm=video 4000 RTP/AVP 96\r\n", ""));
    assert_eq!(seen[1..], ["offer-malformed", "488 INVITE"]);
    rig.send("ACK", "c", body("", ""));
    let seen = rig.send("UPDATE", "c", body("", "<recording"));
    assert_eq!(seen, ["raw application/rs-metadata+xml", "200 UPDATE", "metadata-malformed"]);
    assert_eq!((rig.sessions.live(), rig.sessions.totals().refused), (1, 0));
    // An INVITE without an offer gets what was said last.
    assert_eq!(rig.send("INVITE", "c", body("", "")), ["200 INVITE"]);
    assert_eq!(rig.lines(), "taken recvonly taken recvonly");
}

#[test]
fn a_transfer_announces_another_source() {
    let mut rig = rig();
    rig.call(OFFER, INCOMING);
    let seen = rig.send("UPDATE", "c", body("", TRANSFERRED));
    for word in ["announce 0", "announce 1", "call"] {
        assert!(seen.contains(&word.to_owned()), "{word}: {seen:?}");
    }
    // The same once more is no news.
    let seen = rig.send("UPDATE", "c", body("", TRANSFERRED));
    assert!(!seen.iter().any(|w| w.starts_with("announce") || w == "call"), "{seen:?}");
}

#[test]
fn without_an_acknowledgement_a_session_lives_as_long_as_media_comes() {
    for (packets, last) in [(0, "close ack-timeout"), (5, "ack-missing")] {
        let mut rig = rig();
        rig.send("INVITE", "c", body(OFFER, INCOMING));
        let session = rig.sessions.by_dialog.values().next().unwrap();
        session.counters.packets.store(packets, Ordering::Relaxed);
        let seen = rig.wait(40_000);
        assert!(seen.contains(&last.to_owned()), "{seen:?}");
        assert_eq!(rig.sessions.live(), usize::from(packets > 0));
        assert_eq!(seen.contains(&"BYE".to_owned()), packets == 0);
    }
}

#[test]
fn silence_and_the_recorders_end_say_bye() {
    let mut rig = rig();
    rig.call(OFFER, INCOMING);
    rig.sessions.fell_silent(rig.moment(), rig.asked[0]);
    assert_eq!(rig.work(), ["BYE", "close media-timeout"]);
    let mut rig = self::rig();
    rig.call(OFFER, INCOMING);
    rig.sessions.end_all(rig.moment(), "recorder-stopped");
    assert_eq!(rig.work(), ["BYE", "close recorder-stopped"]);
}

#[test]
fn a_cancel_that_overtakes_the_answer_ends_what_was_begun() {
    let mut rig = rig();
    let flow = Flow {
        id: FlowId(0),
        kind: TransportKind::Udp,
        local: "127.0.0.1:5060".parse().unwrap(),
        peer: "127.0.0.1:5070".parse().unwrap(),
    };
    for method in ["INVITE", "CANCEL"] {
        let (fields, body) = if method == "INVITE" { body(OFFER, "") } else { body("", "") };
        let text = format!(
            "{method} sip:127.0.0.1 SIP/2.0\r\nVia: SIP/2.0/UDP 127.0.0.1:5070;branch=z9hG4bKx\r\nFrom: <sip:a@127.0.0.1>;tag=f\r\n\
             To: <sip:127.0.0.1>\r\nCall-ID: c\r\nCSeq: 1 {method}\r\n{fields}\r\n{body}"
        );
        let message = parse_datagram(text.as_bytes(), &Limits::default()).unwrap().unwrap();
        rig.endpoint.receive(Now(rig.now), &flow, message);
    }
    let seen = rig.work();
    assert_eq!(&seen[..2], ["200 CANCEL", "487 INVITE"]);
    assert_eq!(seen.last().unwrap(), "close cancel");
    assert_eq!(rig.sessions.live(), 0);
}

#[test]
fn a_verdict_is_asked_for_until_it_comes_and_taken_once() {
    let mut rig = rig();
    rig.call(OFFER, INCOMING);
    rig.send("BYE", "c", body("", ""));
    for (ms, expected) in [(4_000, 0), (2_000, 1), (2_000, 0), (4_000, 1)] {
        rig.now += ms * MS;
        rig.sessions.tick(rig.moment());
        assert_eq!(rig.work().len(), expected);
    }
    let recording = rig.asked[0];
    assert!(rig.asked.iter().all(|asked| *asked == recording));
    rig.sessions.verdict(rig.moment(), recording, Decision::Keep);
    rig.sessions.verdict(rig.moment(), recording, Decision::Discard { rule: "late".into() });
    assert_eq!(rig.work(), ["Keep"]);
    rig.now += 60_000 * MS;
    rig.sessions.tick(rig.moment());
    assert!(rig.work().is_empty());
}

#[test]
fn ports_come_back_after_they_were_left() {
    let mut rig = rig_with(2, |_| {});
    rig.call(OFFER, INCOMING);
    let pairs = rig.sessions.by_dialog.values().next().unwrap().tracks.iter().map(|t| Arc::clone(&t.pair)).collect();
    rig.send("BYE", "c", body("", ""));
    rig.tag.clear();
    assert_eq!(rig.send("INVITE", "d", body(OFFER, "")), ["503 INVITE"]);
    rig.sessions.ports_left(rig.moment(), pairs);
    rig.wait(3_000);
    assert_eq!(rig.send("INVITE", "e", body(OFFER, ""))[0], "200 INVITE");
}

#[test]
fn bodies_are_kept_within_bounds_and_texts_of_live_calls_cut() {
    let mut rig = rig();
    rig.call(OFFER, INCOMING);
    let mut raw = 0;
    let mut flaws = 0;
    for _ in 0..300 {
        let seen = rig.send("INFO", "c", ("Content-Type: text/plain\r\n".into(), "x".repeat(30_000)));
        raw += seen.iter().filter(|w| w.starts_with("raw ")).count();
        flaws += seen.iter().filter(|w| *w == "raw-bodies-left-out").count();
    }
    assert!(raw > 100 && raw * 30_000 <= 4 << 20);
    assert_eq!(flaws, 1);
    let long = "ü".repeat(500);
    assert_eq!(super::clipped(&long).len(), super::LIVE_TEXT_BYTES_MAX);
}
