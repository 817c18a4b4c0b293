//! A track and the datagrams that come to it: each is counted once, and no packet is kept twice. The input is a script.

use std::collections::{BTreeMap, HashSet};
use std::net::SocketAddr;

use callvault_media::{
    Counts, Encoding, HELD_PACKETS_MAX, Kept, OVERFLOW_SOURCE, OwnName, PayloadType, Received, ReportSieve, Reporter,
    Rtcp, Tones, Track, TrackCheckpoint, TrackConfig, payload_duration,
};

use crate::input::Input;

const MS: u64 = 1_000_000;
const TYPES: [PayloadType; 4] = [
    PayloadType { pt: 0, encoding: Encoding::Pcmu, clock_rate: 8_000, channels: 1 },
    PayloadType { pt: 97, encoding: Encoding::Other, clock_rate: 16_000, channels: 1 },
    PayloadType { pt: 101, encoding: Encoding::TelephoneEvent, clock_rate: 8_000, channels: 1 },
    PayloadType { pt: 111, encoding: Encoding::Opus, clock_rate: 48_000, channels: 2 },
];
/// As offered, in the range that RFC 5761 warns of, and one that nobody described.
const SENT_TYPES: [u8; 8] = [0, 0, 97, 101, 111, 64, 96, 72];

/// Plays the script.
pub fn run(input: &[u8]) {
    let mut input = Input::new(input);
    let mut world = World::new();
    while !input.is_empty() {
        world.step(&mut input);
    }
    world.end();
}

struct World {
    track: Track,
    now_ms: u64,
    sequences: [u16; 3],
    datagrams: u64,
    kept: Vec<Kept>,
    reporter: Reporter,
    sieve: ReportSieve,
    tones: Tones,
    /// Telephone events in the packets kept, of which each is told once at most.
    events: usize,
    told: usize,
}

impl World {
    fn new() -> Self {
        let mut track = Track::new(TrackConfig::default());
        track.describe(&TYPES);
        Self {
            track,
            now_ms: 1_000,
            sequences: [0; 3],
            datagrams: 0,
            kept: Vec::new(),
            reporter: Reporter::new(0, OwnName::new([7; 12]), 1, 0),
            sieve: ReportSieve::default(),
            tones: Tones::default(),
            events: 0,
            told: 0,
        }
    }

    fn step(&mut self, input: &mut Input<'_>) {
        let port = 4_000 + u16::from(input.u8() % 2);
        match input.u8() % 12 {
            0..=8 => {
                let datagram = self.packet(input);
                self.receive(port, &datagram);
            }
            9 => {
                let bytes = input.u8().into();
                let datagram = input.bytes(bytes);
                self.receive(port, datagram);
            }
            10 => self.track.signalled_change(),
            _ => match input.u8() % 6 {
                4 => self.resume(input),
                0 => self.track.interrupt(),
                1 => {
                    let encoding = input.one_of(&[Encoding::Opus, Encoding::Pcmu, Encoding::G722, Encoding::Other]);
                    let (pt, clock_rate, channels) = (input.u8(), input.u32(), input.u8());
                    self.track.describe(&[PayloadType { pt, encoding, clock_rate, channels }]);
                }
                _ => self.now_ms += u64::from(input.u16()),
            },
        }
    }

    /// Another process goes on; and one goes on from a checkpoint of which some bytes were changed, or refuses it.
    fn resume(&mut self, input: &mut Input<'_>) {
        let checkpoint = self.track.checkpoint();
        let mut bytes = postcard::to_stdvec(&checkpoint).expect("a checkpoint is written to memory");
        for _ in 0..input.u8() % 4 {
            let at = usize::from(input.u16()) % bytes.len();
            bytes[at] = input.u8();
        }
        self.track = Track::resume(TrackConfig::default(), checkpoint).expect("our own checkpoint");
        let Ok(damaged) = postcard::from_bytes::<TrackCheckpoint>(&bytes) else { return };
        let _ = damaged.counts();
        let Ok(mut damaged) = Track::resume(TrackConfig::default(), damaged) else { return };
        for sequence in [0_u8, 1, 255] {
            let datagram = [0x80, 0, sequence, sequence, 0, 0, sequence, 0, 0, 0, 0, sequence % 3, 1, 2];
            let _ = damaged.receive(self.now_ms * MS, ([192, 0, 2, 1], 4_000).into(), &datagram);
            while damaged.take_held().is_some() {}
        }
        damaged.finish();
        let _ = (damaged.counts(), damaged.reception());
    }

    /// A packet of one of three sources, whose sequence mostly goes on by one.
    fn packet(&mut self, input: &mut Input<'_>) -> Vec<u8> {
        let (ssrc, advance) = (usize::from(input.u8() % 3), input.u8());
        let sequence = &mut self.sequences[ssrc];
        *sequence = match advance {
            0..=199 => sequence.wrapping_add(1),
            200..=239 => sequence.wrapping_add(u16::from(advance)).wrapping_sub(204),
            _ => input.u16(),
        };
        self.now_ms += u64::from(input.u8() % 64);
        let first = input.one_of(&[0x80, 0x80, 0x80, 0x90, 0x81, 0xa0]);
        let second = input.one_of(&SENT_TYPES) | input.u8() & 0x80;
        let timestamp = u32::from(*sequence).wrapping_mul(160).wrapping_add(u32::from(input.u8() & 0x0f) << 28);
        let mut datagram = vec![first, second];
        datagram.extend(sequence.to_be_bytes());
        datagram.extend(timestamp.to_be_bytes());
        datagram.extend((ssrc as u32).to_be_bytes());
        let bytes = input.u8() % 40;
        datagram.extend(input.bytes(bytes.into()));
        datagram
    }

    fn receive(&mut self, port: u16, datagram: &[u8]) {
        self.datagrams += 1;
        let from = SocketAddr::from(([192, 0, 2, 1], port));
        match self.track.receive(self.now_ms * MS, from, datagram) {
            Received::Kept(kept) => {
                let payload = datagram.get(kept.payload.clone()).expect("the payload is in the datagram");
                self.take(kept, payload);
            }
            Received::Rtcp { rtcp, source } => {
                assert!(rtcp.cname.is_none_or(|cname| datagram.get(cname.name).is_some()));
                assert!(source.is_none() || self.track.followed().is_some());
                if let Some(report) = rtcp.sender_report {
                    self.reporter.heard(&report, self.now_ms * MS);
                    self.sieve.keeps(self.now_ms * MS, source.unwrap_or(0), 8_000, &report);
                }
            }
            Received::Held | Received::Duplicate | Received::Foreign | Received::Invalid(_) | Received::Other => {}
        }
        self.drain();
        self.check_counts();
        self.told += usize::from(self.tones.expire(self.now_ms * MS).is_some());
        self.report();
    }

    /// Our own report, when one is due, is a compound of whole packets with our name.
    fn report(&mut self) {
        let now_ns = self.now_ms * MS;
        let Some(reception) = self.track.reception().filter(|_| self.reporter.is_due(now_ns)) else { return };
        let report = self.reporter.report(now_ns, &reception, self.datagrams as u32);
        let read = Rtcp::parse(&report).expect("our own report");
        assert!(read.cname.is_some_and(|cname| cname.name.len() == 16) && read.sender_report.is_none());
        assert!(report.len().is_multiple_of(4) && !self.reporter.is_due(now_ns));
    }

    fn drain(&mut self) {
        while let Some(held) = self.track.take_held() {
            assert!(held.kept.payload == (0..held.payload.len()) && held.arrival_ns <= self.now_ms * MS);
            self.take(held.kept, &held.payload);
        }
    }

    fn take(&mut self, kept: Kept, payload: &[u8]) {
        for described in TYPES {
            let PayloadType { encoding, clock_rate, channels, .. } = described;
            let _ = payload_duration(encoding, clock_rate, channels, payload);
        }
        self.events += payload.len() / 4;
        self.tones.take(self.now_ms * MS, &kept, payload, |_| self.told += 1);
        self.kept.push(kept);
    }

    fn check_counts(&self) -> Counts {
        let counts = self.track.counts();
        let Counts { packets, duplicates, foreign, strays, invalid, rtcp, other, held, .. } = counts;
        let sum = packets + duplicates + foreign + strays + invalid + rtcp + other + held;
        assert!(sum == counts.datagrams && sum == self.datagrams, "not every datagram is counted once: {counts:?}");
        assert!(packets == self.kept.len() as u64 && held <= HELD_PACKETS_MAX as u64 + 1, "{counts:?}");
        counts
    }

    fn end(mut self) {
        self.track.finish();
        self.drain();
        let counts = self.check_counts();
        assert!(counts.held == 0, "something is held when nothing more can come");
        self.told += usize::from(self.tones.finish().is_some());
        assert!(self.told <= self.events, "{} of {} events are told", self.told, self.events);
        let mut places = HashSet::new();
        let once = self.kept.iter().all(|kept| places.insert((kept.source, kept.seq)));
        assert!(once, "a packet is kept twice");
        let begun = self.kept.iter().filter(|kept| kept.new_source.is_some()).count();
        assert!(begun == counts.sources as usize);
        if counts.sources <= u32::from(OVERFLOW_SOURCE) {
            assert!(self.lost() == counts.lost, "{} are missing, {} are counted as lost", self.lost(), counts.lost);
        }
    }

    /// For each source its span less what came of it.
    fn lost(&self) -> u64 {
        let mut spans: BTreeMap<u8, (u32, u32, u64)> = BTreeMap::new();
        for kept in &self.kept {
            let (low, high, count) = spans.entry(kept.source).or_insert((kept.seq, kept.seq, 0));
            (*low, *high, *count) = ((*low).min(kept.seq), (*high).max(kept.seq), *count + 1);
        }
        spans.values().map(|(low, high, count)| u64::from(high - low) + 1 - count).sum()
    }
}
