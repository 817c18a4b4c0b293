//! What holds for any bytes and for any order of events.

#![allow(clippy::unwrap_used)]

mod rig;

use std::collections::BTreeSet;

use callvault_sip::multipart::{PARTS_MAX, bodies};
use callvault_sip::{
    Accept, Event, Field, Headers, Limits, Message, Method, NameAddr, Now, Request, Response, StreamItem, StreamParser,
    TransportKind, Uri, Via, parse_datagram,
};
use proptest::prelude::*;
use proptest::test_runner::FileFailurePersistence;
use rig::{Rig, ack, invite, request};

/// Failing cases are kept beside this file.
fn config() -> ProptestConfig {
    let kept = FileFailurePersistence::Direct("tests/invariants.proptest-regressions");
    ProptestConfig { failure_persistence: Some(Box::new(kept)), ..ProptestConfig::default() }
}

fn token() -> impl Strategy<Value = String> {
    "[A-Za-z0-9.!%*_+`'~-]{1,12}"
}

fn headers() -> impl Strategy<Value = Headers> {
    let value = prop_oneof!["[ -~é]{0,30}", Just(String::new())];
    let name = token().prop_filter("written anew", |name| !Field::new(name, "").is("Content-Length"));
    prop::collection::vec((name, value), 0..12).prop_map(|fields| {
        let mut headers = Headers::new();
        for (name, value) in fields {
            headers.push(&name, &value);
        }
        headers
    })
}

fn message() -> impl Strategy<Value = Message> {
    let body = prop::collection::vec(any::<u8>(), 0..100);
    let request = (token(), "sip:[!-;=?-~]{1,20}", headers(), body.clone()).prop_map(|(method, uri, headers, body)| {
        let request = Request::new(Method::from_name(&method), &uri);
        Message::Request(Request { headers, body, ..request })
    });
    let response = (100..700u16, "[ -~é]{0,20}", headers(), body).prop_map(|(status, reason, headers, body)| {
        let response = Response::new(status, &reason);
        Message::Response(Response { headers, body, ..response })
    });
    prop_oneof![request, response]
}

/// A message of a real shape with a few bytes changed, cut out or repeated.
fn mutated() -> impl Strategy<Value = Vec<u8>> {
    let multipart = request(
        "INVITE",
        1,
        "a",
        "",
        "Record-Route: <sip:p;lr>\nContent-Type: multipart/mixed;boundary=b\n\n--b\nContent-Type: application/sdp\n\nv=0\n--b--\n",
    );
    let seeds =
        [invite(), multipart, request("CANCEL", 1, "a", "", ""), "SIP/2.0 200 OK\nVia: SIP/2.0/UDP h\n\n".into()];
    let mut seeds: Vec<Vec<u8>> = seeds.iter().map(|seed| seed.replace('\n', "\r\n").into_bytes()).collect();
    let torture = std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/torture")).unwrap();
    let mut files: Vec<_> = torture.map(|file| file.unwrap().path()).collect();
    files.sort();
    seeds.extend(files.into_iter().map(|file| std::fs::read(file).unwrap()));
    let edits = prop::collection::vec((any::<prop::sample::Index>(), any::<u8>(), 0..4u8), 0..8);
    (prop::sample::select(seeds), edits).prop_map(|(mut bytes, edits)| {
        for (at, byte, kind) in edits {
            let at = at.index(bytes.len().max(1));
            match kind {
                _ if bytes.is_empty() => bytes.push(byte),
                0 => bytes[at] = byte,
                1 => bytes.insert(at, byte),
                2 => drop(bytes.drain(at..(at + usize::from(byte) % 16).min(bytes.len()))),
                _ => {
                    let again: Vec<u8> = bytes[at..].iter().take(usize::from(byte)).copied().collect();
                    bytes.splice(at..at, again);
                }
            }
        }
        bytes
    })
}

/// Everything that reads foreign bytes reads these.
fn read_everything(bytes: &[u8]) {
    let limits = Limits { header_bytes_max: 600, headers_max: 20, body_bytes_max: 200 };
    for kind in [TransportKind::Udp, TransportKind::Tcp] {
        let mut rig = Rig::new(kind);
        rig.receive_bytes(bytes);
        rig.wait(200_000);
    }
    let mut parser = StreamParser::new(limits);
    parser.push(bytes);
    while let Ok(Some(_)) = parser.poll() {}
    if let Ok(Some(Message::Request(request))) = parse_datagram(bytes, &limits)
        && let Ok(bodies) = bodies(&request)
    {
        assert!(bodies.parts.len() <= PARTS_MAX);
    }
    let text = String::from_utf8_lossy(bytes);
    let _ = (Uri::parse(&text).socket_addr(), NameAddr::parse(&text).tag().is_some(), Via::parse(&text));
    let _ = callvault_sip::multipart::split(&text, bytes);
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn what_is_written_reads_back(message in message()) {
        let bytes = message.to_bytes();
        prop_assert_eq!(parse_datagram(&bytes, &Limits::default()), Ok(Some(message.clone())));
        let mut parser = StreamParser::new(Limits::default());
        parser.push(&bytes);
        prop_assert_eq!(parser.poll(), Ok(Some(StreamItem::Message(message))));
        prop_assert_eq!(parser.poll(), Ok(None));
    }

    #[test]
    fn what_is_read_is_written_the_same_way_again(bytes in mutated()) {
        if let Ok(Some(first)) = parse_datagram(&bytes, &Limits::default()) {
            let again = parse_datagram(&first.to_bytes(), &Limits::default()).unwrap().unwrap();
            prop_assert_eq!(first.headers(), again.headers());
            prop_assert_eq!(first.to_bytes(), again.to_bytes());
        }
    }

    #[test]
    fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        read_everything(&bytes);
    }

    #[test]
    fn no_damaged_message_makes_it_panic(bytes in mutated()) {
        read_everything(&bytes);
    }

    #[test]
    fn a_cut_stream_gives_what_a_whole_one_gives(messages in prop::collection::vec(message(), 1..4), cuts in prop::collection::vec(1..60usize, 1..40)) {
        let stream: Vec<u8> = messages.iter().flat_map(Message::to_bytes).collect();
        let mut parser = StreamParser::new(Limits::default());
        let (mut rest, mut seen, mut cuts) = (stream.as_slice(), Vec::new(), cuts.into_iter().cycle());
        while !rest.is_empty() {
            let (piece, behind) = rest.split_at(cuts.next().unwrap().min(rest.len()));
            rest = behind;
            parser.push(piece);
            while let Some(item) = parser.poll().unwrap() {
                seen.push(item);
            }
        }
        let want: Vec<_> = messages.into_iter().map(StreamItem::Message).collect();
        prop_assert_eq!(seen, want);
    }
}

/// One thing that happens to an endpoint.
#[derive(Clone, Debug)]
enum Step {
    Request { method: &'static str, cseq: u32, call: u8, in_dialog: bool, timer: &'static str },
    Answer { accept: bool },
    Bye,
    Update,
    AnswerOwn { status: u16 },
    CloseFlow,
    Connect { made: bool },
    Restart,
    Wait { ms: u64 },
}

fn step() -> impl Strategy<Value = Step> {
    let methods = prop::sample::select(vec!["INVITE", "ACK", "BYE", "CANCEL", "UPDATE", "OPTIONS", "INFO", "REFER"]);
    let timers = prop::sample::select(vec![
        "",
        "Supported: timer\nSession-Expires: 90",
        "Supported: timer\nAllow: UPDATE\nSession-Expires: 90;refresher=uas",
        "Supported: timer\nSession-Expires: 1",
    ]);
    prop_oneof![
        8 => (methods, 1..4u32, 0..2u8, any::<bool>(), timers)
            .prop_map(|(method, cseq, call, in_dialog, timer)| Step::Request { method, cseq, call, in_dialog, timer }),
        4 => any::<bool>().prop_map(|accept| Step::Answer { accept }),
        1 => Just(Step::Bye),
        1 => Just(Step::Update),
        2 => prop::sample::select(vec![100, 200, 422, 481, 491]).prop_map(|status| Step::AnswerOwn { status }),
        1 => Just(Step::CloseFlow),
        2 => any::<bool>().prop_map(|made| Step::Connect { made }),
        1 => Just(Step::Restart),
        3 => (0..40_000u64).prop_map(|ms| Step::Wait { ms }),
    ]
}

fn act(rig: &mut Rig, step: &Step) {
    match step {
        Step::Request { method, cseq, call, in_dialog, timer } => {
            let tag = if *in_dialog { "{tag}" } else { "" };
            let text = request(method, *cseq, &format!("b{cseq}"), tag, timer);
            rig.receive(&text.replace("c1", &format!("c{call}")));
        }
        Step::Answer { accept } => {
            let Some(tx) = rig.tx else { return };
            if *accept {
                rig.endpoint.accept(rig.now, tx, Accept::default());
            } else {
                rig.endpoint.reject(rig.now, tx, 488, "", Vec::new());
            }
        }
        Step::Bye => {
            rig.dialog.map(|dialog| rig.endpoint.bye(rig.now, dialog, None));
        }
        Step::Update => {
            rig.dialog.map(|dialog| rig.endpoint.update_request(rig.now, dialog, None, Vec::new()));
        }
        Step::AnswerOwn { status } => {
            rig.receive(&format!(
                "SIP/2.0 {status} X\nVia: SIP/2.0/UDP h;branch={{branch}}\nSession-Expires: 90\nMin-SE: 120\n\n"
            ));
        }
        Step::CloseFlow => {
            rig.endpoint.flow_closed(rig.now, rig.flow.id);
            rig.drain();
            rig.flow.id.0 += 1;
        }
        Step::Connect { made } => {
            let Some(connect) = rig.connect else { return };
            if *made {
                rig.endpoint.connected(rig.now, connect, &rig.flow.clone());
            } else {
                rig.endpoint.connect_failed(rig.now, connect);
            }
        }
        Step::Restart => restart(rig),
        Step::Wait { ms } => drop(rig.wait(*ms)),
    }
    rig.drain();
}

/// Every accepted dialog goes on in another endpoint, under another name; the others are forgotten by both.
fn restart(rig: &mut Rig) {
    let live = live_dialogs(rig);
    rig.flow.id.0 += 1;
    let id = rig.flow.id;
    // Another seed each time, as it must be.
    let seed = [u8::try_from(id.0).unwrap(); 32];
    let mut next = callvault_sip::Endpoint::new(callvault_sip::EndpointConfig::new(""), seed);
    let mut resumed = Vec::new();
    for dialog in live {
        let Some(checkpoint) = rig.endpoint.checkpoint(dialog) else { continue };
        let datagrams =
            |flow: &callvault_sip::Flow| (!flow.kind.is_reliable()).then_some(callvault_sip::Flow { id, ..*flow });
        resumed.push(next.resume(rig.now, checkpoint, datagrams).unwrap());
    }
    (rig.endpoint, rig.tx, rig.connect) = (next, None, None);
    rig.dialog = resumed.last().copied();
    rig.events.clear();
    rig.resumed = resumed;
}

/// The dialogs that have begun and not ended.
fn live_dialogs(rig: &Rig) -> BTreeSet<callvault_sip::DialogId> {
    let mut live: BTreeSet<_> = rig.resumed.iter().copied().collect();
    for event in &rig.events {
        match event {
            Event::Invite { dialog, .. } => drop(live.insert(*dialog)),
            Event::Ended { dialog, .. } => drop(live.remove(dialog)),
            _ => {}
        }
    }
    live
}

/// What a step changes of a dialog's checkpoint, it says.
fn act_and_compare(rig: &mut Rig, step: &Step) {
    let checkpoints = |rig: &Rig| -> Vec<_> {
        live_dialogs(rig).into_iter().map(|dialog| (dialog, rig.endpoint.checkpoint(dialog))).collect()
    };
    let _ = rig.endpoint.take_changed_dialogs().count();
    let before: std::collections::BTreeMap<_, _> = checkpoints(rig).into_iter().collect();
    act(rig, step);
    if matches!(step, Step::Wait { .. } | Step::Restart) {
        return;
    }
    let changed: BTreeSet<_> = rig.endpoint.take_changed_dialogs().collect();
    for (dialog, after) in checkpoints(rig) {
        let same = before.get(&dialog).cloned().flatten() == after;
        assert!(same || changed.contains(&dialog), "{step:?} changed {dialog:?} silently");
    }
}

fn dialog_of(event: &Event) -> Option<callvault_sip::DialogId> {
    match event {
        Event::Options { .. } => None,
        Event::Invite { dialog, .. }
        | Event::Reinvite { dialog, .. }
        | Event::Update { dialog, .. }
        | Event::Info { dialog, .. }
        | Event::Acked { dialog, .. }
        | Event::AckTimeout { dialog }
        | Event::SessionExpired { dialog }
        | Event::Cancelled { dialog, .. }
        | Event::Bye { dialog, .. }
        | Event::RequestAnswered { dialog, .. }
        | Event::Ended { dialog, .. } => Some(*dialog),
    }
}

/// Every dialog starts with Invite, ends with exactly one Ended, and is not named before or after.
fn check_dialog_events(rig: &Rig) {
    let (mut live, mut over) = (rig.resumed.iter().copied().collect::<BTreeSet<_>>(), BTreeSet::new());
    for event in &rig.events {
        let Some(dialog) = dialog_of(event) else { continue };
        match event {
            Event::Invite { .. } => assert!(live.insert(dialog) && !over.contains(&dialog)),
            Event::Ended { .. } => assert!(live.remove(&dialog) && over.insert(dialog)),
            _ => assert!(live.contains(&dialog), "{event:?}"),
        }
    }
    assert!(live.is_empty(), "never ended: {live:?}");
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn every_dialog_that_begins_ends_once_and_nothing_is_left(
        tcp in any::<bool>(),
        steps in prop::collection::vec(step(), 1..60),
    ) {
        let kind = if tcp { TransportKind::Tcp } else { TransportKind::Udp };
        let mut rig = Rig::new(kind);
        for step in &steps {
            act_and_compare(&mut rig, step);
        }
        for dialog in live_dialogs(&rig) {
            rig.endpoint.bye(rig.now, dialog, None);
        }
        rig.drain();
        rig.wait(400_000);
        check_dialog_events(&rig);
        prop_assert_eq!((rig.endpoint.dialogs(), rig.endpoint.transactions()), (0, 0));
        prop_assert_eq!(rig.endpoint.deadline(), None);
    }
}

#[test]
fn the_same_seed_and_input_give_the_same_bytes() {
    let run = || {
        let mut rig = Rig::new(TransportKind::Udp);
        rig.receive(&invite());
        rig.accept();
        rig.receive(&ack(1));
        rig.bye();
        rig.sent.iter().flat_map(|(_, _, message)| message.to_bytes()).collect::<Vec<u8>>()
    };
    assert_eq!(run(), run());
}

#[test]
fn an_early_timeout_does_nothing() {
    let mut rig = Rig::new(TransportKind::Udp);
    rig.receive(&invite());
    rig.endpoint.handle_timeout(Now(0));
    assert!(rig.endpoint.poll().is_none());
}
