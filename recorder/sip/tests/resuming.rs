//! Dialogs that outlive their process: what the peer notices of it, which is nothing.

#![allow(clippy::unwrap_used)]

mod rig;

use callvault_sip::{
    DialogCheckpoint, Endpoint, EndpointConfig, Flow, FlowId, Message, Now, ResumeError, TransportKind,
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
fn a_checkpoint_stays_out_of_debug() {
    let rig = call(UDP);
    let text = format!("{:?}", rig.endpoint.checkpoint(rig.dialog.unwrap()).unwrap());
    assert_eq!(text, "DialogCheckpoint(1 answers, Udp)");
}

/// The checkpoint of a call as version 1 writes it. When this changes, what an earlier process wrote cannot be read: then
/// [`callvault_sip::DIALOG_CHECKPOINT_VERSION`] has to change as well.
#[test]
fn the_format_is_that_of_its_version() {
    assert_eq!(callvault_sip::DIALOG_CHECKPOINT_VERSION, 1);
    let rig = call(UDP);
    let bytes = postcard::to_allocvec(&rig.endpoint.checkpoint(rig.dialog.unwrap()).unwrap()).unwrap();
    let golden = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/dialog-checkpoint-v1.bin");
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&golden, &bytes).unwrap();
    }
    assert!(bytes == std::fs::read(golden).unwrap(), "the format has changed");
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
