use super::*;
use crate::SelftestParams;

const MS: Duration = Duration::from_millis(1);

fn params(transport: Transport) -> SelftestParams {
    SelftestParams {
        transport,
        address: "127.0.0.1:5060".parse().unwrap(),
        calls: 1,
        seconds: 2,
        archive_wait: Duration::ZERO,
        run: 3,
    }
}

fn addresses(transport: Transport) -> Addresses {
    let at = |text: &str| text.parse().unwrap();
    Addresses {
        transport,
        target: at("127.0.0.1:5060"),
        local: at("127.0.0.1:40000"),
        media: [at("127.0.0.1:41000"), at("127.0.0.1:41002")],
    }
}

/// A recorder's message for the machine: the start line, the method of its CSeq, a body.
fn message(start: &str, method: &str, body: &str) -> Message {
    let text = format!(
        "{start}\r\nVia: SIP/2.0/UDP 127.0.0.1:40000;branch=z9hG4bKx\r\nFrom: <sip:a@b>;tag=1\r\nTo: <sip:c@d>;tag=recorder\r\n\
         Call-ID: x\r\nCSeq: 1 {method}\r\nContact: <sip:127.0.0.1:5060>\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    Message::read(text.as_bytes(), false).unwrap().unwrap().0
}

const ANSWER: &str =
    "v=0\r\nc=IN IP4 127.0.0.1\r\nm=audio 20000 RTP/AVP 0\r\na=label:1\r\nm=audio 20002 RTP/AVP 8\r\na=label:2\r\n";

fn methods(out: &[Action]) -> Vec<&str> {
    out.iter()
        .filter_map(|action| if let Action::Signal(text) = action { text.split(' ').next() } else { None })
        .collect()
}

/// Runs the machine from one deadline to the next until `end`.
fn run(dialog: &mut Dialog<'_>, from: Duration, end: Duration) -> Vec<Action> {
    let (mut now, mut out) = (from, Vec::new());
    while now <= end {
        dialog.poll(now, &mut out);
        let Some(deadline) = dialog.deadline() else { break };
        now = deadline.max(now + MS);
    }
    out
}

#[test]
fn a_call_goes_its_way() {
    for transport in [Transport::Udp, Transport::Tcp] {
        let plan = CallPlan::new(0, &params(transport));
        let mut dialog = Dialog::new(&plan, addresses(transport), 5 * MS);
        let mut out = Vec::new();
        dialog.poll(4 * MS, &mut out);
        assert!(out.is_empty(), "not before its time");
        dialog.poll(5 * MS, &mut out);
        assert_eq!(methods(&out), ["INVITE"]);
        out.clear();
        dialog.receive(6 * MS, &message("SIP/2.0 100 Trying", "INVITE", ""), &mut out);
        dialog.receive(15 * MS, &message("SIP/2.0 200 OK", "INVITE", ANSWER), &mut out);
        assert_eq!(methods(&out), ["ACK"]);
        out.append(&mut run(&mut dialog, 15 * MS, 15 * MS + 2000 * MS));
        assert_eq!(methods(&out), ["ACK", "BYE"]);
        let Action::Signal(bye) = out.last().unwrap() else { panic!() };
        assert!(
            bye.contains("CSeq: 2 BYE")
                && bye.contains(";tag=recorder")
                && bye.starts_with("BYE sip:127.0.0.1:5060 SIP"),
            "{bye}"
        );
        dialog.receive(2030 * MS, &message("SIP/2.0 200 OK", "BYE", ""), &mut out);
        assert_eq!(dialog.outcome(), Some(&Ok(Held { packets: 100, answered_in: 10 * MS })));
        assert_eq!(dialog.deadline(), None);
        check_packets(&plan, &out);
    }
}

fn check_packets(plan: &CallPlan, out: &[Action]) {
    for (track, port) in [(0, 20000), (1, 20002)] {
        let packets: Vec<&Vec<u8>> = out
            .iter()
            .filter_map(|action| match action {
                Action::Packet { track: t, to, bytes } if *t == track => {
                    assert_eq!(to.port(), port);
                    Some(bytes)
                }
                _ => None,
            })
            .collect();
        assert_eq!(packets.len(), 100);
        let heard: Vec<i16> =
            packets.iter().flat_map(|p| p[12..].iter().map(|code| plan.laws[track].decode(*code))).collect();
        assert_eq!(heard, plan.expected(track), "what is sent is what is expected back");
        for (before, after) in packets.iter().zip(&packets[1..]) {
            let sequence = |p: &[u8]| u16::from_be_bytes([p[2], p[3]]);
            let timestamp = |p: &[u8]| u32::from_be_bytes([p[4], p[5], p[6], p[7]]);
            assert_eq!(sequence(after), sequence(before).wrapping_add(1));
            assert_eq!(timestamp(after), timestamp(before).wrapping_add(160));
            assert_eq!(before[8..12], after[8..12]);
        }
        assert!(packets[0][1] & 0x80 != 0 && packets[1][1] & 0x80 == 0, "marker on the first only");
    }
}

#[test]
fn without_an_answer_the_invite_is_repeated_and_then_given_up() {
    let check = |transport, expected: usize| {
        let plan = CallPlan::new(0, &params(transport));
        let mut dialog = Dialog::new(&plan, addresses(transport), Duration::ZERO);
        let out = run(&mut dialog, Duration::ZERO, 60_000 * MS);
        assert_eq!(methods(&out), vec!["INVITE"; expected]);
        let error = dialog.outcome().unwrap().clone().unwrap_err();
        assert!(error.contains("no answer to the INVITE") && error.contains("sip.allowed_peers"), "{error}");
    };
    // At 0, 0.5, 1.5, 3.5 and 7.5 s.
    check(Transport::Udp, 5);
    check(Transport::Tcp, 1);
}

/// A dialog in its talk.
fn talking(plan: &CallPlan) -> Dialog<'_> {
    let mut dialog = Dialog::new(plan, addresses(Transport::Udp), Duration::ZERO);
    let mut out = Vec::new();
    dialog.poll(Duration::ZERO, &mut out);
    dialog.receive(MS, &message("SIP/2.0 200 OK", "INVITE", ANSWER), &mut out);
    dialog
}

#[test]
fn an_answer_that_comes_again_is_acknowledged_again() {
    let plan = CallPlan::new(0, &params(Transport::Udp));
    let mut dialog = talking(&plan);
    let mut out = Vec::new();
    dialog.receive(2 * MS, &message("SIP/2.0 200 OK", "INVITE", ANSWER), &mut out);
    assert_eq!(methods(&out), ["ACK"]);
    assert!(dialog.outcome().is_none());
}

#[test]
fn what_goes_wrong_is_the_outcome() {
    let plan = CallPlan::new(0, &params(Transport::Udp));
    let refused = |start: &str, expected: &str| {
        let mut dialog = Dialog::new(&plan, addresses(Transport::Udp), Duration::ZERO);
        let mut out = Vec::new();
        dialog.poll(Duration::ZERO, &mut out);
        dialog.receive(MS, &message(start, "INVITE", ""), &mut out);
        assert_eq!(methods(&out), ["INVITE", "ACK"], "a refusal is acknowledged");
        let error = dialog.outcome().unwrap().clone().unwrap_err();
        assert!(error.contains(expected), "{error}");
    };
    refused("SIP/2.0 503 Service Unavailable", "503 Service Unavailable: the appliance is full");
    refused("SIP/2.0 403 Forbidden", "sip.allowed_peers");
    refused("SIP/2.0 488 Not Acceptable Here", "488 Not Acceptable Here");

    let mut dialog = talking(&plan);
    let mut out = Vec::new();
    dialog.receive(3 * MS, &message("BYE sip:x SIP/2.0", "BYE", ""), &mut out);
    assert!(matches!(&out[0], Action::Signal(text) if text.starts_with("SIP/2.0 200 OK")));
    assert!(dialog.outcome().unwrap().clone().unwrap_err().contains("ended the session before its time"));

    let mut dialog = talking(&plan);
    run(&mut dialog, 2 * MS, 20_000 * MS);
    assert!(dialog.outcome().unwrap().clone().unwrap_err().contains("no answer to the BYE"));
}

#[test]
fn an_answer_that_cannot_be_used_ends_the_call_politely() {
    let plan = CallPlan::new(0, &params(Transport::Udp));
    let mut dialog = Dialog::new(&plan, addresses(Transport::Udp), Duration::ZERO);
    let mut out = Vec::new();
    dialog.poll(Duration::ZERO, &mut out);
    dialog.receive(MS, &message("SIP/2.0 200 OK", "INVITE", "v=0\r\n"), &mut out);
    assert_eq!(methods(&out), ["INVITE", "ACK", "BYE"]);
    dialog.receive(2 * MS, &message("SIP/2.0 200 OK", "BYE", ""), &mut out);
    assert!(dialog.outcome().unwrap().clone().unwrap_err().contains("0 media lines"));
}
