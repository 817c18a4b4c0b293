//! What is written of a sender's reports and of the keys that were pressed, and what a sender is told.

use std::time::Duration;

use callvault_media::Encoding;
use callvault_srtp::{Unprotected, Unprotector};

use super::*;

const SECOND: u64 = 1_000_000_000;

/// A sender report with a name, and the beginning of a minute of its own clock.
fn sender_report(ssrc: u32, ntp: u64, timestamp: u32) -> Vec<u8> {
    let mut bytes = vec![0x80, 200, 0, 6];
    bytes.extend_from_slice(&ssrc.to_be_bytes());
    bytes.extend_from_slice(&ntp.to_be_bytes());
    bytes.extend_from_slice(&timestamp.to_be_bytes());
    bytes.extend_from_slice(&[0; 8]);
    bytes.extend_from_slice(&[0x81, 202, 0, 3]);
    bytes.extend_from_slice(&ssrc.to_be_bytes());
    bytes.extend_from_slice(&[1, 3, b'a', b'@', b'b', 0, 0, 0]);
    bytes
}

/// Telephone events of 20 ms each, `count` of them, one packet each.
fn keys_pressed(rig: &Rig, first: u16, count: u16) {
    for seq in first..first + count {
        let mut bytes = packet(1, 101, seq);
        bytes.truncate(12);
        bytes.extend_from_slice(&[(seq % 12) as u8, 0x80, 0, 160]);
        rig.sender.send_to(&bytes, local(&rig.pair.rtp)).unwrap();
    }
}

fn describe_events(rig: &mut Rig) {
    let events = PayloadType { pt: 101, encoding: Encoding::TelephoneEvent, clock_rate: 8_000, channels: 1 };
    rig.sweep.handle(Command::Describe { recording: A, track: 0, payload_types: vec![events] });
}

impl Rig {
    /// Looks at both sockets, as every 25th sweep does.
    fn look(&mut self) {
        self.sweep.sweep_one(A, u64::MAX);
    }

    /// Sends what is due `seconds` from now.
    fn report_in(&mut self, seconds: u64) {
        let Sweep { sessions, reports, .. } = &mut self.sweep;
        sessions[0].report(journal_ns() + seconds * SECOND, reports);
    }
}

/// What came to a socket, and from which port.
fn received(socket: &UdpSocket) -> Option<(Vec<u8>, u16)> {
    // On loopback it is there when it was sent.
    socket.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
    let mut bytes = vec![0; 2_000];
    let (length, from) = socket.recv_from(&mut bytes).ok()?;
    bytes.truncate(length);
    Some((bytes, from.port()))
}

#[test]
fn sender_reports_of_followed_sources_are_written_once_in_a_while() {
    let mut rig = rig(100);
    rig.rtp(1, 0, 0..3);
    rig.look();
    let (rtp, rtcp) = (local(&rig.pair.rtp), local(&rig.pair.rtcp));
    let other = UdpSocket::bind("127.0.0.1:0").unwrap();
    let stranger = UdpSocket::bind("127.0.0.2:0").unwrap();
    // From a stranger, of nobody, without a clock.
    stranger.send_to(&sender_report(1, 77 << 32, 0), rtcp).unwrap();
    other.send_to(&sender_report(2, 77 << 32, 0), rtcp).unwrap();
    other.send_to(&sender_report(1, 0, 0), rtcp).unwrap();
    rig.look();
    other.send_to(&sender_report(1, 77 << 32, 160), rtcp).unwrap();
    rig.look();
    rig.sender.send_to(&sender_report(1, 78 << 32, 8_160), rtp).unwrap();
    rig.look();
    rig.close();
    rig.check(&["source 0 1", "report 0 160", "audio 3", "end"]);
}

#[test]
fn keys_that_were_pressed_are_told_once_each_and_their_packets_are_kept() {
    let mut rig = rig(100);
    describe_events(&mut rig);
    rig.rtp(1, 0, 0..3);
    keys_pressed(&rig, 3, 2);
    // One whose end never comes.
    let mut endless = packet(1, 101, 9);
    endless.truncate(12);
    endless.extend_from_slice(&[11, 0, 1, 0x40]);
    rig.sender.send_to(&endless, local(&rig.pair.rtp)).unwrap();
    rig.look();
    rig.report_in(0);
    rig.report_in(2);
    rig.close();
    rig.check(&["source 0 1", "tone 3 20", "tone 4 20", "tone 11 40", "audio 6", "end"]);
}

#[test]
fn there_are_only_so_many_keys_in_a_call() {
    let mut rig = rig(3_000);
    describe_events(&mut rig);
    for part in 0..11 {
        keys_pressed(&rig, part * 100, 100);
        rig.look();
    }
    rig.close();
    let words = rig.seen().to_vec();
    let count = |word: &str| words.iter().filter(|seen| seen.starts_with(word)).count();
    assert_eq!((count("tone "), count("tones-overflowed")), (1_000, 1));
    assert_eq!(rig.counts.packets, 1_100);
}

#[test]
fn a_sender_is_told_where_its_own_reports_come_from() {
    fn check(muxed: bool) {
        let mut rig = rig(100);
        rig.rtp(1, 0, 0..3);
        rig.look();
        let rtcp = UdpSocket::bind("127.0.0.1:0").unwrap();
        let pair = Arc::clone(&rig.pair);
        let (from, to) = if muxed { (&rig.sender, local(&pair.rtp)) } else { (&rtcp, local(&pair.rtcp)) };
        from.send_to(&sender_report(1, 0x1111_2222_3333_4444, 0), to).unwrap();
        // Who has nothing to do with it changes nothing.
        let stranger = UdpSocket::bind("127.0.0.2:0").unwrap();
        stranger.send_to(&sender_report(1, 77 << 32, 0), to).unwrap();
        rig.look();
        rig.report_in(0);
        assert_eq!(received(if muxed { &rig.sender } else { &rtcp }), None, "before it is due");
        rig.report_in(8);
        let (bytes, port) = received(if muxed { &rig.sender } else { &rtcp }).unwrap();
        assert_eq!(port, to.port());
        assert_eq!((bytes.len(), &bytes[..4], &bytes[8..12]), (60, &[0x81, 201, 0, 7][..], &[0, 0, 0, 1][..]));
        // None lost, the third packet is the highest, and the report that came is mentioned.
        assert_eq!((&bytes[12..20], &bytes[24..28]), (&[0, 0, 0, 0, 0, 0, 0, 2][..], &[0x22, 0x22, 0x33, 0x33][..]));
        // Not again at once, and empty when nothing has come since.
        rig.report_in(8);
        assert_eq!(received(if muxed { &rig.sender } else { &rtcp }), None);
        rig.report_in(30);
        assert_eq!(received(if muxed { &rig.sender } else { &rtcp }).unwrap().0.len(), 36);
        assert_eq!(received(&stranger), None);
    }
    check(false);
    check(true);
}

#[test]
fn who_sent_nothing_is_told_nothing_and_nobody_is_when_it_is_switched_off() {
    let mut rig = rig(100);
    rig.look();
    rig.report_in(60);
    let rtcp = UdpSocket::bind("127.0.0.1:0").unwrap();
    rig.rtp(1, 0, 0..3);
    rig.look();
    rtcp.send_to(&sender_report(1, 77 << 32, 0), local(&rig.pair.rtcp)).unwrap();
    rig.look();
    rig.sweep.reports = super::super::reporting::Reports::new(false);
    rig.report_in(60);
    assert_eq!(received(&rtcp), None);
    rig.sweep.reports = super::super::reporting::Reports::new(true);
    rig.report_in(60);
    assert!(received(&rtcp).is_some());
}

#[test]
fn secured_tracks_have_secured_reports_and_no_index_twice() {
    let mut rig = rig(100);
    let (theirs, mut protector) = keys(1);
    let (ours, own) = keys(2);
    let mut opener = Unprotector::new(&ours).unwrap();
    let rekey = |rig: &mut Rig, own: Option<Protector>| {
        let (keys, protector) = (Some(Box::new(keys(1).0)), own.map(Box::new));
        rig.sweep.handle(Command::Rekey { recording: A, track: 0, keys, protector });
    };
    drop(theirs);
    rekey(&mut rig, None);
    rig.srtp(&mut protector, 0..3);
    rig.look();
    let rtcp = UdpSocket::bind("127.0.0.1:0").unwrap();
    let mut report = sender_report(1, 77 << 32, 0);
    protector.protect_rtcp(&mut report).unwrap();
    rtcp.send_to(&report, local(&rig.pair.rtcp)).unwrap();
    rig.look();
    // Without a key of ours nothing is said.
    rig.report_in(8);
    assert_eq!(received(&rtcp), None);
    rekey(&mut rig, Some(own));
    let mut check = |rig: &mut Rig, seconds: u64| {
        rig.report_in(seconds);
        let mut bytes = received(&rtcp).unwrap().0;
        let Ok(Unprotected::Rtcp(length)) = opener.unprotect(&mut bytes) else { panic!("not opened") };
        assert_eq!(&bytes[..2], if length == 60 { [0x81, 201] } else { [0x80, 201] });
    };
    check(&mut rig, 20);
    // A later answer with the same key, and a while without.
    rekey(&mut rig, Some(keys(2).1));
    check(&mut rig, 40);
    rig.rekey(None);
    rekey(&mut rig, Some(keys(2).1));
    check(&mut rig, 60);
    rig.close();
    rig.check(&["source 0 1", "report 0 0", "audio 3", "end"]);
}
