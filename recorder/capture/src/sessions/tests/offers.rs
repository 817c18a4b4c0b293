//! What clients do with offers besides pausing: none at all, other codecs, other ports, and what comes too early.

use super::*;

impl Rig {
    /// What is done because of a message, raw bodies apart.
    fn does(&mut self, method: &str, sdp: &str) -> Vec<String> {
        let seen = self.send(method, "c", body(sdp, ""));
        seen.into_iter().filter(|word| !word.starts_with("raw")).collect()
    }
}

/// What an offer changes, its answer apart.
fn changes(mut seen: Vec<String>) -> Vec<String> {
    seen.retain(|word| word != "200 INVITE");
    seen
}

#[test]
fn a_client_without_an_offer_gets_ours_and_answers_in_its_ack() {
    fn check(answer: &str, expected: &[&str]) {
        let mut rig = rig();
        let seen = rig.does("INVITE", "");
        assert_eq!(seen[..4], ["200 INVITE", "open", "started", "sweep 1"], "{seen:?}");
        assert!(seen.contains(&"offer-missing".to_owned()));
        assert_eq!(rig.lines(), "taken recvonly");
        let text = String::from_utf8(rig.answer.as_ref().unwrap().body.clone()).unwrap();
        assert!(text.contains("PCMU") && text.contains("opus") && !text.contains("a=label"), "{text}");
        let seen = rig.does("ACK", answer);
        assert_eq!(seen, expected, "{answer}");
        // The same again is no answer to anything.
        assert!(rig.does("ACK", answer).is_empty());
        assert_eq!(rig.does("BYE", "").last().unwrap(), "close bye");
    }
    check(&offer(&[(4000, "sendonly")]), &["announce 0", "track 0"]);
    check(&offer(&[(4000, "inactive")]), &["announce 0", "ignore 0", "track 0", "paused None"]);
    check(&offer(&[(0, "sendonly")]), &["ignore 0", "paused None"]);
    check(&offer(&[(4000, "sendonly"), (4002, "sendonly")]), &["announce 0", "track 0 local"]);
    check("", &["answer-missing"]);
    check("nonsense", &["answer-missing"]);
}

#[test]
fn an_invite_without_an_offer_does_not_keep_a_client_paused() {
    let mut rig = rig();
    rig.call(&offer(TWO), "");
    let paused = offer(TWO).replace("sendonly", "inactive");
    rig.does("INVITE", &paused);
    rig.does("ACK", "");
    let version = |rig: &Rig| {
        let text = String::from_utf8(rig.answer.as_ref().unwrap().body.clone()).unwrap();
        text.split(' ').nth(2).unwrap().parse::<u32>().unwrap()
    };
    let before = version(&rig);
    assert_eq!(rig.does("INVITE", ""), ["200 INVITE"]);
    assert_eq!((rig.lines().as_str(), version(&rig)), ("taken recvonly taken recvonly", before + 1));
    assert_eq!(rig.does("ACK", &offer(TWO)), ["follow 0", "follow 1", "resumed None"]);
    // Nothing changed: neither does the offer.
    assert_eq!(rig.does("INVITE", ""), ["200 INVITE"]);
    assert_eq!(version(&rig), before + 1);
    assert!(rig.does("ACK", &offer(TWO)).is_empty());
    assert_eq!(changes(rig.does("INVITE", &paused)), ["ignore 0", "ignore 1", "paused None"]);
    assert_eq!(version(&rig), before + 2);
}

#[test]
fn codecs_and_ports_change_in_the_middle() {
    fn check(change: impl FnOnce(String) -> String, expected: &[&str]) {
        let mut rig = rig();
        rig.call(&offer(TWO), "");
        let changed = change(offer(TWO));
        assert_eq!(changes(rig.does("INVITE", &changed)), expected, "{changed}");
        rig.does("ACK", "");
        assert_eq!(rig.lines(), "taken recvonly taken recvonly");
    }
    check(|sdp| sdp, &[]);
    check(|sdp| sdp.replace("AVP 0", "AVP 9"), &["announce 0", "announce 1", "track 0 local", "track 1"]);
    // In the middle of a transfer, without a direction.
    check(
        |sdp| sdp.replace("AVP 0", "AVP 9").replace("a=sendonly\r\n", ""),
        &["announce 0", "announce 1", "track 0 local", "track 1"],
    );
    // The same number for something else.
    let as_96 = |codec: &str, sdp: String| {
        sdp.replace("AVP 0", "AVP 96").replace("a=label", &format!("a=rtpmap:96 {codec}\r\na=label"))
    };
    check(|sdp| as_96("opus/48000/2", sdp), &["announce 0", "announce 1", "track 0 local", "track 1"]);
    check(|sdp| sdp.replace("4002", "4010"), &["announce 1"]);
    check(|sdp| sdp.replace("127.0.0.1", "127.0.0.9"), &["announce 0", "announce 1"]);
    check(|sdp| sdp.replace("label:1", "label:7"), &["announce 0", "call", "track 0 local"]);
}

#[test]
fn lines_that_are_all_refused_are_a_pause_and_come_back() {
    let mut rig = rig();
    rig.call(&offer(TWO), "");
    let off = offer(&[(0, "sendonly"), (0, "sendonly")]);
    assert_eq!(changes(rig.does("INVITE", &off)), ["ignore 0", "ignore 1", "paused None"]);
    assert_eq!(rig.lines(), "refused refused");
    rig.does("ACK", "");
    assert_eq!(changes(rig.does("INVITE", &offer(TWO))), ["follow 0", "follow 1", "resumed None"]);
}

#[test]
fn a_bye_may_come_before_the_ack_and_an_update_may_carry_an_offer() {
    let mut rig = rig();
    rig.send("INVITE", "c", body(OFFER, INCOMING));
    assert_eq!(rig.does("BYE", ""), ["200 BYE", "close bye"]);
    assert_eq!(rig.sessions.live(), 0);
    let mut rig = self::rig();
    rig.call(&offer(TWO), "");
    let seen = rig.does("UPDATE", &offer(TWO).replace("sendonly", "inactive"));
    assert_eq!(seen, ["ignore 0", "ignore 1", "200 UPDATE", "paused None"]);
    assert_eq!(rig.lines(), "taken inactive taken inactive");
}

#[test]
fn one_line_may_carry_everybody() {
    let mut rig = rig();
    let mixed = include_str!("../../../../../tests/corpus/broadworks/offer-mixed.sdp");
    let seen = rig.call(mixed, include_str!("../../../../../tests/corpus/broadworks/mixed.xml"));
    assert!(seen.contains(&"sweep 1".to_owned()) && seen.contains(&"track 0".to_owned()), "{seen:?}");
    let session = rig.sessions.by_dialog.values().next().unwrap();
    assert!(session.tracks[0].facts.mixed && !session.tracks[0].facts.local);
}
