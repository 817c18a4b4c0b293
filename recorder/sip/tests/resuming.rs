//! Dialogs that outlive their process: what the peer notices of it, which is nothing.

#![allow(clippy::unwrap_used)]

mod rig;

use callvault_sip::{
    DialogCheckpoint, Endpoint, EndpointConfig, Flow, FlowId, Message, NameAddr, Now, ResumeError, TransportKind,
};
use proptest::prelude::*;
use proptest::test_runner::FileFailurePersistence;
use rig::{Rig, ack, ack_refusal, call, flow, invite, request};

const UDP: TransportKind = TransportKind::Udp;
const TCP: TransportKind = TransportKind::Tcp;
const SDP: &str = "Content-Type: application/sdp\n\nv=0\n";

#[test]
fn every_request_is_served_as_before() {
    let mut rig = call(UDP);
    assert!(rig.restart().is_empty());
    assert_eq!(rig.endpoint.dialogs(), 1);
    assert_eq!(rig.receive(&request("UPDATE", 2, "u", "{tag}", "")), ["Update"]);
    assert_eq!(rig.accept(), ["200 UPDATE"]);
    assert_eq!(rig.receive(&request("INVITE", 3, "r", "{tag}", SDP)), ["Reinvite"]);
    assert_eq!(rig.accept(), ["200 INVITE"]);
    assert_eq!(rig.receive(&ack(3)), ["Acked"]);
    assert!(rig.restart().is_empty());
    assert_eq!(rig.receive(&request("UPDATE", 2, "x", "{tag}", "")), ["500 UPDATE"], "sequence numbers go on");
    assert_eq!(rig.receive(&request("BYE", 4, "b", "{tag}", "")), ["200 BYE", "Bye", "Ended PeerBye"]);
    assert!(rig.wait(100_000).is_empty());
    assert_eq!((rig.endpoint.dialogs(), rig.endpoint.transactions()), (0, 0));
}

#[test]
fn a_repeated_request_gets_the_answer_that_it_had() {
    let mut rig = Rig::new(UDP);
    rig.receive(&invite());
    rig.accept();
    let answer = rig.last_sent().clone();
    rig.restart();
    assert_eq!(rig.receive(&invite()), ["200 INVITE"], "no second dialog");
    assert_eq!(*rig.last_sent(), answer);
    assert_eq!(rig.receive(&ack(1)), ["Acked"]);
    assert!(rig.restart().is_empty());
    assert!(rig.receive(&invite()).is_empty(), "a late duplicate is absorbed");
    let reinvite = request("INVITE", 2, "r", "{tag}", SDP);
    rig.receive(&reinvite);
    rig.reject(488);
    assert!(rig.restart().is_empty());
    assert_eq!(rig.receive(&reinvite), ["488 INVITE"]);
    assert_eq!(rig.receive(&ack_refusal(2, "r")), [""; 0]);
    let update = request("UPDATE", 3, "u", "{tag}", "");
    rig.receive(&update);
    rig.accept();
    let answer = rig.last_sent().clone();
    rig.restart();
    assert_eq!(rig.receive(&update), ["200 UPDATE"]);
    assert_eq!(*rig.last_sent(), answer);
}

#[test]
fn an_answer_without_ack_goes_on_being_repeated() {
    let mut rig = Rig::new(UDP);
    rig.receive(&invite());
    rig.accept();
    assert_eq!(rig.wait(600), ["500 200 INVITE"]);
    rig.restart();
    assert_eq!(rig.wait(1_000), ["900 200 INVITE"], "in the rhythm in which it was");
    assert_eq!(rig.wait(100_000).last().unwrap(), "30400 AckTimeout");
    assert_eq!(rig.endpoint.dialogs(), 1);
}

#[test]
fn a_request_without_answer_is_forgotten_and_its_repetition_served() {
    let mut rig = call(UDP);
    let reinvite = request("INVITE", 2, "r", "{tag}", SDP);
    assert_eq!(rig.receive(&reinvite), ["Reinvite"]);
    rig.restart();
    assert!(rig.wait(1_000).is_empty());
    assert_eq!(rig.receive(&reinvite), ["Reinvite"]);
    assert_eq!(rig.accept(), ["200 INVITE"]);
}

#[test]
fn a_dialog_that_is_not_accepted_has_no_checkpoint() {
    let mut rig = Rig::new(UDP);
    rig.receive(&invite());
    assert_eq!(rig.endpoint.checkpoint(rig.dialog.unwrap()), None);
    assert_eq!(rig.endpoint.take_changed_dialogs().count(), 0);
    rig.accept();
    assert!(rig.endpoint.checkpoint(rig.dialog.unwrap()).is_some());
    rig.receive(&request("BYE", 2, "b", "{tag}", ""));
    assert_eq!(rig.endpoint.checkpoint(rig.dialog.unwrap()), None);
    assert_eq!(rig.endpoint.take_changed_dialogs().count(), 0);
}

#[test]
fn our_requests_go_on() {
    let mut rig = call(UDP);
    rig.endpoint.update_request(rig.now, rig.dialog.unwrap(), None, Vec::new());
    rig.drain();
    assert_eq!(rig.header("CSeq"), "1 UPDATE");
    rig.restart();
    assert_eq!(rig.bye(), ["BYE"]);
    assert_eq!(rig.header("CSeq"), "18 BYE", "beyond what may have been sent meanwhile");
    let Message::Request(bye) = rig.last_sent() else { panic!() };
    assert_eq!(bye.uri.as_str(), "sip:192.0.2.9:5070");
    assert_eq!(rig.header("To"), "\"Ann\" <sip:+15551230100@192.0.2.9;user=phone>;tag=f");
    assert_eq!(rig.restart(), ["BYE"], "what was under way is sent again");
    assert_eq!(rig.header("Reason"), "SIP;cause=200");
}

#[test]
fn a_bye_that_waited_for_the_ack_still_does() {
    let mut rig = Rig::new(UDP);
    rig.receive(&invite());
    rig.accept();
    assert!(rig.bye().is_empty());
    assert!(rig.restart().is_empty());
    assert_eq!(rig.receive(&ack(1)), ["Acked", "BYE"]);
}

#[test]
fn a_dialog_on_a_connection_waits_for_the_next_one() {
    let mut rig = call(TCP);
    rig.restart();
    rig.flow = flow(TCP, 2);
    assert_eq!(rig.receive(&request("UPDATE", 2, "u", "{tag}", "")), ["Update"]);
    assert_eq!(rig.accept(), ["200 UPDATE"]);
    assert_eq!(rig.bye(), ["BYE"]);

    let mut rig = call(TCP);
    rig.restart();
    assert_eq!(rig.bye(), ["Connect tcp 192.0.2.9:5070"]);
    assert_eq!(rig.connected(7), ["BYE"]);

    let mut rig = Rig::new(TCP);
    rig.receive(&invite());
    rig.accept();
    rig.restart();
    assert_eq!(rig.wait(600), ["500 Connect tcp 192.0.2.9:5070"], "the answer may have been lost");
    assert_eq!(rig.connected(7), ["200 INVITE"]);
}

fn check_resume(change: impl FnOnce(&mut Endpoint, &DialogCheckpoint), config: EndpointConfig, want: ResumeError) {
    let rig = call(UDP);
    let checkpoint = rig.endpoint.checkpoint(rig.dialog.unwrap()).unwrap();
    let mut next = Endpoint::new(config, [3; 32]);
    change(&mut next, &checkpoint);
    let before = next.dialogs();
    assert_eq!(next.resume(rig.now, checkpoint, |flow| Some(*flow)), Err(want));
    assert_eq!(next.dialogs(), before);
}

#[test]
fn what_cannot_be_resumed() {
    let config = || EndpointConfig::new("");
    check_resume(|_, _| {}, EndpointConfig { dialogs_max: 0, ..config() }, ResumeError::Full { limit: 0 });
    let twice = |next: &mut Endpoint, checkpoint: &DialogCheckpoint| {
        next.resume(Now(0), checkpoint.clone(), |flow| Some(*flow)).unwrap();
    };
    check_resume(twice, config(), ResumeError::Duplicate);
}

#[test]
fn an_offer_of_ours_still_awaits_its_answer() {
    let mut rig = Rig::new(UDP);
    rig.receive(&request("INVITE", 1, "a", "", ""));
    rig.accept();
    rig.restart();
    assert_eq!(rig.receive(&request("UPDATE", 2, "u", "{tag}", SDP)), ["491 UPDATE"]);
}

#[test]
fn a_clock_that_began_anew_keeps_nothing_for_ever() {
    let mut rig = Rig::new(UDP);
    rig.now = Now(1_000_000_000 * rig::MS);
    rig.receive(&invite());
    rig.accept();
    rig.now = Now(0);
    rig.restart();
    assert_eq!(rig.wait(100_000).last().unwrap(), "32000 AckTimeout");
}

/// The checkpoint of a call with a few bytes changed.
fn check_damaged(from: &str, to: &str, what: &'static str) {
    let rig = call(UDP);
    let mut bytes = postcard::to_allocvec(&rig.endpoint.checkpoint(rig.dialog.unwrap()).unwrap()).unwrap();
    let at = bytes.windows(from.len()).position(|window| window == from.as_bytes()).unwrap();
    bytes[at..at + to.len()].copy_from_slice(to.as_bytes());
    let checkpoint = postcard::from_bytes(&bytes).unwrap();
    let mut next = Endpoint::new(EndpointConfig::new(""), [3; 32]);
    assert_eq!(next.resume(rig.now, checkpoint, |flow| Some(*flow)), Err(ResumeError::Invalid { what }));
    assert!(next.poll().is_none() && next.deadline().is_none());
}

#[test]
fn what_no_checkpoint_was_made_with_is_refused() {
    let rig = call(UDP);
    check_damaged(&rig.tag, "\r\nX: y", "tag");
    check_damaged("c1", "  ", "Call-ID");
}

#[test]
fn a_checkpoint_stays_out_of_debug() {
    let rig = call(UDP);
    let text = format!("{:?}", rig.endpoint.checkpoint(rig.dialog.unwrap()).unwrap());
    assert_eq!(text, "DialogCheckpoint(1 answers, Udp)");
}

/// A call whose checkpoint has something of everything.
fn rich_call() -> Rig {
    let mut rig = Rig::new(UDP);
    let timer = "Supported: timer\nAllow: UPDATE\nSession-Expires: 600;refresher=uas";
    let fields = format!("Record-Route: <sip:198.51.100.1;lr>\n{timer}");
    rig.receive(&request("INVITE", 1, "a", "", &format!("{fields}\n{SDP}")));
    rig.accept();
    rig.receive(&ack(1));
    rig.endpoint.update_request(rig.now, rig.dialog.unwrap(), None, Vec::new());
    rig.drain();
    rig.receive(&request("INVITE", 7, "r", "{tag}", &format!("{timer}\n{SDP}")));
    rig.accept();
    rig
}

/// What version 1 wrote once is read, means what it meant, and is written the same way. When this fails, what an earlier process wrote
/// is lost: then [`callvault_sip::DIALOG_CHECKPOINT_VERSION`] has to change with the file.
#[test]
fn a_checkpoint_of_version_1_is_understood() {
    assert_eq!(callvault_sip::DIALOG_CHECKPOINT_VERSION, 1);
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/dialog-checkpoint-v1.bin");
    let mut rig = rich_call();
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        let checkpoint = rig.endpoint.checkpoint(rig.dialog.unwrap()).unwrap();
        std::fs::write(&path, postcard::to_allocvec(&checkpoint).unwrap()).unwrap();
    }
    let golden = std::fs::read(path).unwrap();
    let checkpoint: DialogCheckpoint = postcard::from_bytes(&golden).unwrap();
    assert_eq!(postcard::to_allocvec(&checkpoint).unwrap(), golden);

    rig.endpoint = Endpoint::new(EndpointConfig::new("callvault"), [2; 32]);
    rig.dialog = Some(rig.endpoint.resume(rig.now, checkpoint, |flow| Some(*flow)).unwrap());
    assert_eq!(rig.receive(&request("INVITE", 1, "a", "", "")), [""; 0], "acknowledged, so absorbed");
    assert_eq!(rig.receive(&request("INVITE", 7, "r", "{tag}", "")), ["200 INVITE"], "not acknowledged");
    let Message::Response(answer) = rig.last_sent() else { panic!() };
    assert_eq!(answer.body, b"v=0\r\n");
    assert_eq!(rig.wait(500), ["500 200 INVITE"]);
    rig.tag = NameAddr::parse(rig.header("To")).tag().unwrap().to_owned();
    assert_eq!(rig.receive(&request("UPDATE", 6, "u", "{tag}", "")), ["500 UPDATE"]);
    assert_eq!(rig.receive(&ack(7)), ["Acked"]);
    rig.bye();
    let Message::Request(bye) = rig.last_sent() else { panic!() };
    assert_eq!(bye.uri.as_str(), "sip:192.0.2.9:5070");
    assert_eq!(rig.last_peer(), "198.51.100.1:5060");
    let want = [
        ("Via", format!("SIP/2.0/UDP 192.0.2.1:5060;branch={};rport", rig.branch)),
        ("Route", "<sip:198.51.100.1;lr>".to_owned()),
        ("From", format!("<sip:192.0.2.1>;tag={}", rig.tag)),
        ("To", "\"Ann\" <sip:+15551230100@192.0.2.9;user=phone>;tag=f".to_owned()),
        ("Call-ID", "c1".to_owned()),
        ("CSeq", "18 BYE".to_owned()),
    ];
    for (name, value) in want {
        assert_eq!(rig.header(name), value);
    }
    let checkpoint: DialogCheckpoint = postcard::from_bytes(&golden).unwrap();
    rig.endpoint = Endpoint::new(EndpointConfig::new("callvault"), [2; 32]);
    rig.endpoint.resume(rig.now, checkpoint, |flow| Some(*flow)).unwrap();
    let seen = rig.wait(400_000);
    assert!(seen.iter().any(|what| what.ends_with(" UPDATE")), "we are the one that refreshes: {seen:?}");
    assert_eq!(rig.header("Contact"), "<sip:192.0.2.1:5060;transport=udp>;+sip.srs");
}

/// More answers than a checkpoint holds: the one that matters most is among them.
#[test]
fn the_answer_without_ack_is_kept_among_many() {
    let mut rig = Rig::new(UDP);
    rig.receive(&invite());
    rig.accept();
    for cseq in 2..30 {
        rig.receive(&request("INFO", cseq, &format!("i{cseq}"), "{tag}", ""));
        rig.accept();
    }
    let many = format!("{:?}", rig.endpoint.checkpoint(rig.dialog.unwrap()).unwrap());
    assert_eq!(many, "DialogCheckpoint(8 answers, Udp)");
    rig.restart();
    assert_eq!(rig.receive(&request("INFO", 29, "i29", "{tag}", "")), ["200 INFO"], "the latest");
    assert_eq!(rig.receive(&invite()), ["200 INVITE"]);
    assert_eq!(rig.receive(&ack(1)), ["Acked"]);
}

fn config() -> ProptestConfig {
    let kept = FileFailurePersistence::WithSource("regressions");
    ProptestConfig { failure_persistence: Some(Box::new(kept)), ..ProptestConfig::default() }
}

/// Checkpoints of dialogs in several states.
fn checkpoints() -> Vec<Vec<u8>> {
    let mut ringing = Rig::new(UDP);
    ringing.receive(&invite());
    ringing.accept();
    ringing.bye();
    let mut busy = call(TCP);
    busy.receive(&request("INVITE", 2, "r", "{tag}", SDP));
    busy.reject(488);
    let mut ending = call(UDP);
    ending.bye();
    let rigs = [ringing, busy, ending];
    rigs.map(|rig| postcard::to_allocvec(&rig.endpoint.checkpoint(rig.dialog.unwrap()).unwrap()).unwrap()).into()
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn nothing_that_can_be_decoded_makes_it_panic(
        bytes in prop::sample::select(checkpoints()),
        edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
        now in any::<u64>(),
    ) {
        let mut bytes = bytes;
        for (at, byte) in edits {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        let Ok(checkpoint) = postcard::from_bytes::<DialogCheckpoint>(&bytes) else { return Ok(()) };
        let mut rig = Rig::new(UDP);
        rig.now = Now(now / 2);
        let same = |flow: &Flow| Some(Flow { id: FlowId(1), ..*flow });
        let Ok(dialog) = rig.endpoint.resume(rig.now, checkpoint.clone(), same) else { return Ok(()) };
        let _ = rig.endpoint.checkpoint(dialog).map(|again| again == checkpoint);
        rig.endpoint.bye(rig.now, dialog, None);
        while rig.endpoint.poll().is_some() {}
        // Whatever it says, it is over in the end.
        for _ in 0..200 {
            let Some(at) = rig.endpoint.deadline() else { break };
            rig.now = rig.now.max(at);
            rig.endpoint.handle_timeout(rig.now);
            while rig.endpoint.poll().is_some() {}
        }
        prop_assert_eq!((rig.endpoint.dialogs(), rig.endpoint.transactions()), (0, 0));
        prop_assert!(rig.now <= Now(now / 2).after(70_000_000_000));
    }
}
