//! The sweep at real sockets on loopback, driven by hand.

mod reporting;

use std::net::{SocketAddr, UdpSocket};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::mpsc::{Receiver as Queue, sync_channel};

use callvault_journal::facts::{Ended, SessionEvent, TrackCounts};
use callvault_media::PayloadType;
use callvault_srtp::sdes::CryptoAttribute;
use callvault_srtp::{Protector, Suite};
use nix::sched::{CpuSet, sched_getcpu, sched_setaffinity};
use nix::sys::socket::{setsockopt, sockopt::RcvBuf};
use nix::unistd::Pid;
use rand::SeedableRng;
use rand::rngs::StdRng;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use uuid::Uuid;

use super::{Command, Counters, NewTrack, Sweep, SweepState};
use crate::Feedback;
use crate::appender::{Entry, spare_batches};
use crate::clock::journal_ns;
use crate::ports::PortPair;
use crate::rig::{settings, shared_pair};

const A: Uuid = Uuid::from_u128(0xa);
const B: Uuid = Uuid::from_u128(0xb);

struct Rig {
    sweep: Sweep,
    entries: Queue<Entry>,
    feedback: UnboundedReceiver<Feedback>,
    pair: Arc<PortPair>,
    sender: UdpSocket,
    /// Sends to itself; see [`Rig::settle`].
    probe: UdpSocket,
    /// What went to the journal, a word each.
    seen: Vec<String>,
    counts: TrackCounts,
}

fn rig(entries_max: usize) -> Rig {
    stay_on_one_processor();
    let (journal, entries) = sync_channel(entries_max);
    let (tx, feedback) = unbounded_channel();
    let mut settings = settings();
    settings.batch_interval_ms = 0;
    let state = Arc::new(SweepState::default());
    let mut sweep = Sweep::new(Arc::new(settings), journal, spare_batches().1, tx, state);
    let pair = shared_pair();
    let track = NewTrack {
        number: 0,
        pair: Arc::clone(&pair),
        payload_types: PayloadType::assigned(0).into_iter().collect(),
        paused: false,
        unprotector: None,
        protector: None,
        remote_ports: (0, None),
    };
    let counters = Arc::new(Counters::default());
    sweep.handle(Command::Open { recording: A, tracks: vec![track], counters, opened_ns: journal_ns() });
    let [sender, probe] = [(), ()].map(|()| UdpSocket::bind("127.0.0.1:0").unwrap());
    Rig { sweep, entries, feedback, pair, sender, probe, seen: Vec::new(), counts: TrackCounts::default() }
}

/// What one processor sends over loopback arrives in the order in which it was sent, whatever the sockets.
fn stay_on_one_processor() {
    let mut here = CpuSet::new();
    here.set(sched_getcpu().unwrap()).unwrap();
    sched_setaffinity(Pid::from_raw(0), &here).unwrap();
}

fn local(socket: &impl AsFd) -> SocketAddr {
    UdpSocket::from(socket.as_fd().try_clone_to_owned().unwrap()).local_addr().unwrap()
}

fn packet(ssrc: u32, payload_type: u8, seq: u16) -> Vec<u8> {
    let mut bytes = vec![0x80, payload_type];
    bytes.extend_from_slice(&seq.to_be_bytes());
    bytes.extend_from_slice(&(u32::from(seq) * 160).to_be_bytes());
    bytes.extend_from_slice(&ssrc.to_be_bytes());
    bytes.extend_from_slice(&[0x55; 160]);
    bytes
}

/// A client's keys, always the same for a seed, and what secures with them.
fn keys(seed: u8) -> (CryptoAttribute, Protector) {
    let keys = CryptoAttribute::generate(1, Suite::AesCm128HmacSha1Tag80, &mut StdRng::from_seed([seed; 32]));
    let protector = Protector::new(&keys).unwrap();
    (keys, protector)
}

impl Rig {
    fn rtp(&self, ssrc: u32, payload_type: u8, seqs: impl IntoIterator<Item = u16>) {
        for seq in seqs {
            self.sender.send_to(&packet(ssrc, payload_type, seq), local(&self.pair.rtp)).unwrap();
        }
        self.settle();
    }

    /// Waits until what was sent has arrived: on a busy machine the kernel delivers it later, and stamps it when it does.
    fn settle(&self) {
        self.probe.send_to(&[1], local(&self.probe)).unwrap();
        self.probe.recv(&mut [0]).unwrap();
    }

    /// A packet longer than any that is read.
    fn oversized(&self, ssrc: u32, seq: u16) {
        let bytes = [&packet(ssrc, 0, seq)[..], &[0; 3_000]].concat();
        self.sender.send_to(&bytes, local(&self.pair.rtp)).unwrap();
        self.settle();
    }

    /// The same of source 1, secured. Gives what was sent last.
    fn srtp(&self, with: &mut Protector, seqs: impl IntoIterator<Item = u16>) -> Vec<u8> {
        let mut bytes = Vec::new();
        for seq in seqs {
            bytes = packet(1, 0, seq);
            with.protect_rtp(&mut bytes).unwrap();
            self.sender.send_to(&bytes, local(&self.pair.rtp)).unwrap();
        }
        self.settle();
        bytes
    }

    fn rekey(&mut self, keys: Option<CryptoAttribute>) {
        self.sweep.handle(Command::Rekey { recording: A, track: 0, keys: keys.map(Box::new), protector: None });
    }

    fn goodbye(&self, ssrc: u32, to: &impl AsFd) {
        let mut bytes = vec![0x80, 201, 0, 1];
        bytes.extend_from_slice(&ssrc.to_be_bytes());
        bytes.extend_from_slice(&[0x81, 203, 0, 1]);
        bytes.extend_from_slice(&ssrc.to_be_bytes());
        self.sender.send_to(&bytes, local(to)).unwrap();
        self.settle();
    }

    fn pause(&mut self, paused: bool) {
        self.settle();
        self.sweep.handle(Command::Pause { recording: A, track: 0, paused, at_ns: journal_ns() });
    }

    fn close(&mut self) {
        self.settle();
        self.sweep.handle(Command::Close { recording: A, ended: Ended::default() });
    }

    /// What went to the journal since the beginning.
    fn seen(&mut self) -> &[String] {
        while let Ok(entry) = self.entries.try_recv() {
            let word = match entry {
                Entry::Audio { batch, .. } => format!("audio {}", batch.packets()),
                Entry::Facts { event: SessionEvent::Source(source), .. } => {
                    format!("source {} {}", source.source, source.ssrc)
                }
                Entry::Facts { event: SessionEvent::Flaw(flaw), .. } => flaw.code,
                Entry::Facts { event: SessionEvent::Tone(tone), .. } => {
                    format!("tone {} {}", tone.event, tone.duration_ms)
                }
                Entry::Facts { event: SessionEvent::SenderReport(report), .. } => {
                    format!("report {} {}", report.source, report.rtp_timestamp)
                }
                Entry::End { mut ended, .. } => {
                    self.counts = ended.tracks.remove(0);
                    "end".to_owned()
                }
                _ => "another".to_owned(),
            };
            self.seen.push(word);
        }
        &self.seen
    }

    fn check(&mut self, expected: &[&str]) {
        assert_eq!(self.seen(), expected);
    }
}

#[test]
fn what_had_arrived_is_there_when_a_session_ends() {
    let mut rig = rig(100);
    // More than one sweep takes from a socket, and within what a receive buffer holds.
    rig.rtp(1, 0, 0..150);
    rig.close();
    rig.check(&["source 0 1", "audio 150", "end"]);
    assert_eq!((rig.counts.packets, rig.counts.bytes, rig.counts.sources), (150, 24_000, 1));
    let Ok(Feedback::Left(pairs)) = rig.feedback.try_recv() else { panic!("the sockets were not left") };
    assert_eq!(pairs.len(), 1);
}

#[test]
fn counts_of_what_was_done_to_the_packets() {
    let mut rig = rig(100);
    rig.rtp(1, 0, [1, 2, 4, 3, 3, 5, 8]);
    rig.sender.send_to(&[0x80, 0, 1], local(&rig.pair.rtp)).unwrap();
    rig.sweep.sweep();
    rig.close();
    rig.seen();
    let expected = TrackCounts {
        packets: 7 - 1,
        lost: 2,
        duplicates: 1,
        late: 1,
        invalid: 1,
        gaps_ms: 40,
        bytes: 6 * 160,
        sources: 1,
        jitter_us_max: rig.counts.jitter_us_max,
        ..TrackCounts::default()
    };
    assert_eq!(rig.counts, expected);
}

#[test]
fn nothing_of_a_pause_is_kept_and_nothing_of_it_is_lost() {
    let mut rig = rig(100);
    rig.rtp(1, 0, 0..5);
    // These were there before the pause was signalled.
    rig.pause(true);
    rig.rtp(1, 0, 5..20);
    rig.sweep.sweep();
    rig.rtp(1, 0, 20..25);
    rig.pause(false);
    rig.rtp(1, 0, 25..30);
    rig.close();
    rig.check(&["source 0 1", "audio 5", "source 1 1", "audio 5", "end"]);
    assert_eq!((rig.counts.packets, rig.counts.lost, rig.counts.sources), (10, 0, 2));
}

#[test]
fn a_pause_holds_from_when_it_was_decided_however_late_it_is_done() {
    let mut rig = rig(100);
    rig.rtp(1, 0, 0..5);
    let decided_ns = journal_ns();
    rig.rtp(1, 0, 5..20);
    rig.sweep.handle(Command::Pause { recording: A, track: 0, paused: true, at_ns: decided_ns });
    rig.rtp(1, 0, 20..25);
    let ended_ns = journal_ns();
    rig.rtp(1, 0, 25..30);
    rig.sweep.handle(Command::Pause { recording: A, track: 0, paused: false, at_ns: ended_ns });
    rig.close();
    rig.check(&["source 0 1", "source 1 1", "audio 10", "end"]);
    assert_eq!((rig.counts.packets, rig.counts.lost), (10, 0));
}

impl Rig {
    /// Ends the recording, now, and leaves the session.
    fn cut(&mut self) {
        let ended = Ended { at_ns: journal_ns(), ..Ended::default() };
        self.sweep.handle(Command::Cut { recording: A, ended });
    }

    fn begin(&mut self, recording: Uuid) {
        let counters = Arc::new(Counters::default());
        self.sweep.handle(Command::Begin { after: A, recording, counters, at_ns: journal_ns() });
    }
}

#[test]
fn after_a_stop_what_comes_is_taken_and_thrown_away() {
    let mut rig = rig(100);
    rig.rtp(1, 0, 0..5);
    rig.cut();
    rig.check(&["source 0 1", "audio 5", "end"]);
    assert_eq!(rig.counts.packets, 5);
    rig.rtp(1, 0, 5..10);
    // Not even where the client resumes what it had paused.
    rig.pause(true);
    rig.pause(false);
    rig.rtp(1, 0, 10..15);
    rig.sweep.sweep();
    rig.close();
    rig.check(&["source 0 1", "audio 5", "end"]);
    let Ok(Feedback::Left(pairs)) = rig.feedback.try_recv() else { panic!("the sockets were not left") };
    assert_eq!(pairs.len(), 1);
}

#[test]
fn a_recording_that_begins_after_a_stop_has_its_own_counts_and_what_came_from_then_on() {
    let mut rig = rig(100);
    rig.rtp(1, 0, 0..5);
    rig.cut();
    rig.rtp(1, 0, 5..10);
    rig.begin(B);
    rig.rtp(1, 0, 10..17);
    rig.sweep.handle(Command::Close { recording: B, ended: Ended::default() });
    rig.check(&["source 0 1", "audio 5", "end", "source 0 1", "audio 7", "end"]);
    assert_eq!((rig.counts.packets, rig.counts.lost, rig.counts.sources), (7, 0, 1));
    assert!(rig.sweep.places.is_empty() && rig.sweep.sessions.is_empty());
}

#[test]
fn two_tracks_with_the_same_source_number_are_two_tracks() {
    let mut rig = rig(100);
    let pair = shared_pair();
    let track = NewTrack {
        number: 1,
        pair: Arc::clone(&pair),
        payload_types: PayloadType::assigned(0).into_iter().collect(),
        paused: false,
        unprotector: None,
        protector: None,
        remote_ports: (0, None),
    };
    rig.sweep.handle(Command::AddTrack { recording: A, track });
    for seq in 0..5 {
        rig.sender.send_to(&packet(1, 0, seq), local(&rig.pair.rtp)).unwrap();
        rig.sender.send_to(&packet(1, 0, seq + 7), local(&pair.rtp)).unwrap();
        rig.sweep.sweep();
    }
    rig.sweep.sweep_one(A, super::ALL);
    let counts = rig.sweep.sessions[0].counters.packets.load(std::sync::atomic::Ordering::Relaxed);
    assert_eq!(counts, 10);
    rig.close();
    rig.seen();
    assert_eq!((rig.counts.packets, rig.counts.foreign, rig.counts.sources), (5, 0, 1));
}

#[test]
fn keys_are_followed_through_a_stop() {
    let mut rig = rig(100);
    let (theirs, mut with) = keys(1);
    rig.rekey(Some(theirs));
    rig.srtp(&mut with, 65_530..65_533);
    rig.cut();
    // Once round while nothing is recorded.
    rig.srtp(&mut with, (65_533..=65_535).chain(0..3));
    rig.begin(B);
    rig.srtp(&mut with, 3..7);
    rig.sweep.handle(Command::Close { recording: B, ended: Ended::default() });
    rig.check(&["source 0 1", "audio 3", "end", "source 0 1", "audio 4", "end"]);
    assert_eq!(rig.counts.undecipherable, 0);
}

#[test]
fn a_pause_in_which_nothing_came_is_no_new_source() {
    let mut rig = rig(100);
    rig.rtp(1, 0, 0..5);
    rig.pause(true);
    rig.sweep.sweep();
    rig.pause(false);
    rig.rtp(1, 0, 5..8);
    rig.close();
    rig.check(&["source 0 1", "audio 5", "audio 3", "end"]);
    assert_eq!((rig.counts.lost, rig.counts.sources), (0, 1));
}

#[test]
fn a_goodbye_on_either_port_lets_the_next_source_in_at_once() {
    fn check(muxed: bool, paused: bool) {
        let mut rig = rig(100);
        rig.rtp(1, 0, 0..3);
        rig.sweep.sweep();
        if paused {
            rig.pause(true);
        }
        let pair = Arc::clone(&rig.pair);
        rig.goodbye(1, if muxed { &pair.rtp } else { &pair.rtcp });
        // Pausing and resuming looks at both sockets, as every 25th sweep does.
        rig.pause(true);
        rig.pause(false);
        rig.rtp(2, 0, 0..3);
        rig.close();
        rig.check(&["source 0 1", "audio 3", "source 1 2", "audio 3", "end"]);
        assert_eq!(rig.counts.foreign, 0);
    }
    check(false, false);
    check(true, false);
    check(false, true);
    check(true, true);
}

#[test]
fn without_a_goodbye_a_second_source_waits_for_its_turn() {
    let mut rig = rig(100);
    rig.rtp(1, 0, 0..3);
    rig.rtp(2, 0, 0..3);
    rig.rtp(1, 0, 3..4);
    rig.close();
    rig.check(&["source 0 1", "audio 4", "end"]);
    assert_eq!(rig.counts.foreign, 3);
}

#[test]
fn signalling_lets_another_source_in_at_once() {
    let mut rig = rig(100);
    rig.rtp(1, 0, 0..3);
    rig.sweep.sweep();
    rig.sweep.handle(Command::Describe { recording: A, track: 0, payload_types: Vec::new() });
    rig.rtp(2, 0, 0..3);
    rig.close();
    rig.check(&["source 0 1", "audio 3", "source 1 2", "audio 3", "end"]);
}

#[test]
fn what_is_odd_is_remarked_once_and_before_the_end() {
    let mut rig = rig(100);
    rig.rtp(1, 77, 0..3);
    for seq in 3..5 {
        rig.oversized(1, seq);
        rig.sweep.sweep();
    }
    rig.close();
    rig.check(&["source 0 1", "audio-dropped", "audio 3", "payload-undescribed", "end"]);
    assert_eq!(rig.counts.undescribed, 3);
    assert_eq!(rig.sweep.state.dropped.load(std::sync::atomic::Ordering::Relaxed), 2);
}

#[test]
fn what_comes_too_late_for_a_look_is_left_for_the_next() {
    let mut rig = rig(100);
    rig.rtp(1, 0, 0..3);
    std::thread::sleep(std::time::Duration::from_millis(1));
    let until_ns = journal_ns();
    std::thread::sleep(std::time::Duration::from_millis(1));
    rig.rtp(1, 0, 3..6);
    rig.sweep.sweep_until(until_ns);
    assert_eq!(rig.sweep.state.packets.load(std::sync::atomic::Ordering::Relaxed), 3);
    // Only now is it known what becomes of the others.
    rig.sweep.handle(Command::Pause { recording: A, track: 0, paused: true, at_ns: until_ns });
    rig.sweep.sweep();
    rig.close();
    rig.check(&["source 0 1", "audio 3", "end"]);
}

#[test]
fn what_strangers_send_oversized_does_not_speak_against_the_recording() {
    let mut rig = rig(100);
    rig.rtp(1, 0, 0..3);
    rig.oversized(2, 3);
    rig.sender.send_to(&[0x11; 3_000], local(&rig.pair.rtp)).unwrap();
    let stranger = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    stranger.send_to(&[&packet(1, 0, 3)[..], &[0; 3_000]].concat(), local(&rig.pair.rtp)).unwrap();
    rig.close();
    rig.check(&["source 0 1", "audio 3", "end"]);
    assert_eq!(rig.sweep.state.dropped.load(std::sync::atomic::Ordering::Relaxed), 0);
}

#[test]
fn an_appender_that_does_not_follow_holds_up_nobody_and_gets_everything_in_order() {
    let mut rig = rig(1);
    for round in 0..20 {
        rig.rtp(1, 0, round * 10..round * 10 + 10);
        rig.sweep.sweep();
    }
    rig.close();
    assert_eq!(rig.sweep.closing.len(), 1);
    let mut packets = 0;
    while !rig.seen().iter().any(|word| word == "end") {
        rig.sweep.sweep();
    }
    for word in &rig.seen {
        packets += word.strip_prefix("audio ").map_or(0, |count| count.parse::<u32>().unwrap());
    }
    assert_eq!((rig.seen[0].as_str(), packets, rig.seen.last().unwrap().as_str()), ("source 0 1", 200, "end"));
    assert!(rig.sweep.closing.is_empty());
}

#[test]
fn beyond_its_bound_audio_is_dropped_and_said_to_be() {
    let mut rig = rig(1);
    let per_batch = 180;
    for round in 0..16 {
        for part in 0..3 {
            let first = round * per_batch + part * 60;
            rig.rtp(1, 0, first..first + 60);
            rig.sweep.sweep();
        }
    }
    rig.close();
    let dropped = rig.sweep.state.dropped.load(std::sync::atomic::Ordering::Relaxed);
    while !rig.seen().iter().any(|word| word == "end") {
        rig.sweep.sweep();
    }
    let stored: u64 = rig.seen.iter().filter_map(|w| w.strip_prefix("audio ")).map(|c| c.parse::<u64>().unwrap()).sum();
    assert!(dropped > 0);
    assert_eq!(stored + dropped, 16 * u64::from(per_batch));
    assert_eq!(rig.seen.iter().filter(|word| *word == "audio-dropped").count(), 1);
}

#[test]
fn silence_is_told_once_and_a_pause_is_none() {
    let mut rig = rig(100);
    let now = journal_ns();
    let second = 1_000_000_000;
    let session = &mut rig.sweep.sessions[0];
    assert!(!session.fell_silent(now, second));
    assert!(session.fell_silent(now + 2 * second, second));
    assert!(!session.fell_silent(now + 3 * second, second));
    session.pause(0, true, now);
    assert!(session.is_paused());
    session.pause(0, false, now);
    session.await_media();
    assert!(!session.is_paused());
    assert!(session.fell_silent(now + 9 * second, second));
}

#[test]
fn stopping_hands_over_what_is_there() {
    let rig = rig(100);
    rig.rtp(1, 0, 0..5);
    let Rig { sweep, entries, feedback, pair, sender, probe, seen, counts } = rig;
    sweep.stop();
    let after = self::rig(1);
    let mut rig = Rig { entries, feedback, pair, sender, probe, seen, counts, sweep: after.sweep };
    rig.check(&["source 0 1", "audio 5"]);
}

#[test]
fn of_a_secured_track_what_can_be_opened_is_kept_and_the_rest_is_told() {
    let mut rig = rig(100);
    let (theirs, mut protector) = keys(1);
    rig.rekey(Some(theirs));
    let last = rig.srtp(&mut protector, 0..5);
    rig.sender.send_to(&last, local(&rig.pair.rtp)).unwrap();
    rig.rtp(1, 0, 5..8);
    rig.srtp(&mut keys(2).1, 8..10);
    // Neither a report that is not secured nor what is no RTP at all is audio.
    rig.goodbye(1, &Arc::clone(&rig.pair).rtp);
    rig.sender.send_to(&[0, 1, 0, 0], local(&rig.pair.rtp)).unwrap();
    rig.srtp(&mut protector, 5..6);
    rig.close();
    rig.check(&["source 0 1", "audio-undecipherable", "audio 6", "end"]);
    let counts = TrackCounts {
        packets: 6,
        bytes: 6 * 160,
        duplicates: 1,
        undecipherable: 5,
        sources: 1,
        jitter_us_max: rig.counts.jitter_us_max,
        ..TrackCounts::default()
    };
    assert_eq!(rig.counts, counts);
}

#[test]
fn who_has_not_the_keys_is_not_heard() {
    fn check(secured: bool, expected: bool) {
        let mut rig = rig(100);
        if secured {
            rig.rekey(Some(keys(1).0));
        }
        let second = 1_000_000_000;
        let later = journal_ns() + 2 * second;
        assert!(rig.sweep.sessions[0].fell_silent(later, second));
        rig.rtp(1, 0, 0..3);
        rig.sweep.sweep();
        // What is heard makes the next silence one that is told again.
        assert_eq!(rig.sweep.sessions[0].fell_silent(later, second), expected);
    }
    check(false, true);
    check(true, false);
}

#[test]
fn secured_reports_are_understood_on_either_port() {
    fn check(muxed: bool) {
        let mut rig = rig(100);
        let (theirs, mut protector) = keys(1);
        rig.rekey(Some(theirs));
        rig.srtp(&mut protector, 0..3);
        rig.sweep.sweep();
        let mut bytes = vec![0x80, 201, 0, 1, 0, 0, 0, 1, 0x81, 203, 0, 1, 0, 0, 0, 1];
        protector.protect_rtcp(&mut bytes).unwrap();
        let pair = Arc::clone(&rig.pair);
        rig.sender.send_to(&bytes, local(if muxed { &pair.rtp } else { &pair.rtcp })).unwrap();
        // Pausing and resuming looks at both sockets.
        rig.pause(true);
        rig.pause(false);
        let mut other = packet(2, 0, 0);
        protector.protect_rtp(&mut other).unwrap();
        rig.sender.send_to(&other, local(&pair.rtp)).unwrap();
        rig.close();
        rig.check(&["source 0 1", "audio 3", "source 1 2", "audio 1", "end"]);
    }
    check(true);
    check(false);
}

#[test]
fn in_a_pause_the_rollover_counter_is_followed() {
    let mut rig = rig(100);
    let (theirs, mut protector) = keys(1);
    rig.rekey(Some(theirs));
    rig.srtp(&mut protector, 0..3);
    rig.pause(true);
    // A good fourteen wraps, which is further than is tried on the first packets after a gap.
    rig.srtp(&mut protector, (1..=47_u32).map(|step| (step * 20_000) as u16));
    rig.sweep.sweep();
    rig.pause(false);
    let next = (47_u32 * 20_000 + 1) as u16;
    rig.srtp(&mut protector, next..next + 3);
    rig.close();
    rig.check(&["source 0 1", "audio 3", "source 1 1", "audio 3", "end"]);
    assert_eq!((rig.counts.undecipherable, rig.counts.packets), (0, 6));
}

#[test]
fn keys_come_change_and_go_without_a_packet_lost() {
    let mut rig = rig(100);
    rig.rtp(1, 0, 0..3);
    let [(first, mut one), (second, mut two)] = [keys(1), keys(2)];
    rig.rekey(Some(first));
    rig.srtp(&mut one, 3..6);
    rig.sweep.sweep();
    // One packet is on its way under the old key when the new one is told, and one has come under the new before that.
    rig.srtp(&mut two, 6..7);
    rig.srtp(&mut one, 7..8);
    rig.rekey(Some(second));
    rig.srtp(&mut two, 8..10);
    rig.rekey(None);
    rig.rtp(1, 0, 10..12);
    rig.close();
    rig.seen();
    assert_eq!((rig.counts.packets, rig.counts.lost, rig.counts.undecipherable), (12, 0, 0), "{:?}", rig.seen);
}

/// The sessions that are visited in each of these ticks, by their number. What nobody visits stays in its socket.
fn visited(sweep: &mut Sweep, sender: &UdpSocket, pairs: &[Arc<PortPair>], ticks: usize) -> Vec<Vec<usize>> {
    let packets = |sweep: &Sweep| -> Vec<u64> {
        let of = |n: usize| &sweep.sessions[sweep.places[&Uuid::from_u128(n as u128)]];
        (0..pairs.len()).map(|n| of(n).counters.packets.load(std::sync::atomic::Ordering::Relaxed)).collect()
    };
    let mut tick = || {
        let (before, seq) = (packets(sweep), sweep.ticks as u16);
        pairs.iter().for_each(|pair| _ = sender.send_to(&packet(1, 0, seq), local(&pair.rtp)).unwrap());
        // When this has arrived, so have those.
        sender.send_to(&[1], local(sender)).unwrap();
        sender.recv(&mut [0]).unwrap();
        sweep.tick(super::ALL);
        let more = packets(sweep).into_iter().zip(before).enumerate().filter(|(_, (now, before))| now > before);
        more.map(|(number, _)| number).collect()
    };
    (0..ticks).map(|_| tick()).collect()
}

#[test]
fn each_session_has_its_turn_and_no_two_turns_in_a_row() {
    stay_on_one_processor();
    let (journal, _entries) = sync_channel(1_000);
    let mut settings = settings();
    settings.batch_interval_ms = 100;
    let (tx, _feedback) = unbounded_channel();
    let mut sweep = Sweep::new(Arc::new(settings), journal, spare_batches().1, tx, Arc::default());
    // Three ticks to a visit: two of the five that the interval has are for a thread that comes late.
    assert_eq!(sweep.ticks_per_visit, 3);
    let pairs: Vec<Arc<PortPair>> = (0..7).map(|_| shared_pair()).collect();
    for (number, pair) in pairs.iter().enumerate() {
        let (recording, counters) = (Uuid::from_u128(number as u128), Arc::default());
        let track = NewTrack {
            number: 0,
            pair: Arc::clone(pair),
            payload_types: PayloadType::assigned(0).into_iter().collect(),
            paused: false,
            unprotector: None,
            protector: None,
            remote_ports: (0, None),
        };
        sweep.handle(Command::Open { recording, tracks: vec![track], counters, opened_ns: journal_ns() });
    }
    let sender = UdpSocket::bind("127.0.0.1:0").unwrap();
    let turns = [vec![0, 3, 6], vec![1, 4], vec![2, 5]];
    assert_eq!(visited(&mut sweep, &sender, &pairs, 6), [&turns[..], &turns[..]].concat());
    // One with more than was taken has another turn at once.
    sweep.again.push(Uuid::from_u128(5));
    assert_eq!(visited(&mut sweep, &sender, &pairs, 2), [vec![0, 3, 5, 6], vec![1, 4]]);
}

#[test]
fn a_session_with_more_than_was_taken_is_visited_again() {
    let mut rig = rig(100);
    // Room for more than one look takes.
    setsockopt(&rig.pair.rtp, RcvBuf, &(1 << 20)).unwrap();
    rig.rtp(1, 0, 0..262);
    let kept = |rig: &Rig| rig.sweep.sessions[0].counters.packets.load(std::sync::atomic::Ordering::Relaxed);
    rig.sweep.tick(super::ALL);
    let first = kept(&rig);
    assert!((1..262).contains(&first), "{first}");
    assert_eq!(rig.sweep.again, [A]);
    rig.sweep.tick(super::ALL);
    assert_eq!(kept(&rig), 262);
    assert!(rig.sweep.again.is_empty());
}
