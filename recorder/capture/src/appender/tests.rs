//! What is written is read back with the journal's own reader, whatever the disk does meanwhile.

use std::collections::BTreeMap;
use std::io;
use std::sync::mpsc::sync_channel;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use callvault_control::Decision;
use callvault_journal::facts::{Ended, SessionEvent, Started};
use callvault_journal::{AudioBatch, LaneEnd, LaneItem, LaneReader, Packet, Pushed, parse_file_name, verify};
use callvault_seal::Keyring;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use uuid::Uuid;

use super::folder::{JournalFile, JournalFolder};
use super::{Appender, AppenderState, Entry, Going, PENDING_BYTES_MAX, Unwritten, spare_batches};
use crate::Feedback;
use crate::checkpoint::MediaState;
use crate::clock::journal_ns;
use crate::rig::{GENERATION, keys, settings};

const SECOND: u64 = 1_000_000_000;
const A: Uuid = Uuid::from_u128(0xa);
const B: Uuid = Uuid::from_u128(0xb);

/// A disk that has so much room, and whose syncs may fail.
#[derive(Default)]
struct Device {
    files: BTreeMap<String, Vec<u8>>,
    room: u64,
    /// Whether the system knows how much room there is.
    tells_room: bool,
    syncs_that_fail: u32,
    creates_that_fail: u32,
}

#[derive(Clone)]
struct Folder(Arc<Mutex<Device>>);

struct OpenFile(Folder, String);

impl JournalFolder for Folder {
    fn create(&self, name: &str) -> io::Result<Arc<dyn JournalFile>> {
        let mut device = self.0.lock().unwrap();
        if device.creates_that_fail > 0 {
            device.creates_that_fail -= 1;
            return Err(io::ErrorKind::StorageFull.into());
        }
        assert!(device.files.insert(name.to_owned(), Vec::new()).is_none(), "{name} is there already");
        Ok(Arc::new(OpenFile(self.clone(), name.to_owned())))
    }

    fn free_bytes(&self) -> Option<u64> {
        let device = self.0.lock().unwrap();
        device.tells_room.then_some(device.room)
    }
}

impl JournalFile for OpenFile {
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let mut device = self.0.0.lock().unwrap();
        let fits = bytes.len().min(device.room as usize);
        device.room -= fits as u64;
        let file = device.files.get_mut(&self.1).unwrap();
        assert_eq!(file.len() as u64, offset, "{} is appended to", self.1);
        file.extend_from_slice(&bytes[..fits]);
        if fits < bytes.len() { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
    }

    fn sync(&self) -> io::Result<()> {
        let mut device = self.0.0.lock().unwrap();
        if device.syncs_that_fail > 0 {
            device.syncs_that_fail -= 1;
            return Err(io::Error::from_raw_os_error(5));
        }
        Ok(())
    }
}

/// An appender without its thread.
struct Rig {
    appender: Appender,
    device: Arc<Mutex<Device>>,
    keyring: Keyring,
    feedback: UnboundedReceiver<Feedback>,
    now: u64,
    durable: Vec<Uuid>,
    alarms: Vec<&'static str>,
    seq: u32,
}

fn rig(file_bytes_max: u64) -> Rig {
    let device = Arc::new(Mutex::new(Device { room: u64::MAX >> 1, tells_room: true, ..Device::default() }));
    let (keyring, public) = keys();
    let mut settings = settings();
    (settings.recipients, settings.file_bytes_max) = (vec![public], file_bytes_max);
    let (tx, feedback) = unbounded_channel();
    let folder = Box::new(Folder(Arc::clone(&device)));
    let state = Arc::new(AppenderState::default());
    let appender = Appender::begin_in(folder, Arc::new(settings), state, tx, spare_batches().0, None).unwrap();
    let now = journal_ns();
    Rig { appender, device, keyring, feedback, now, durable: Vec::new(), alarms: Vec::new(), seq: 0 }
}

impl Rig {
    fn open(&mut self, recording: Uuid) {
        self.take(Entry::Open { recording, continued: None });
        self.take(Entry::Facts { recording, event: SessionEvent::Started(Started::default()), number: 0 });
    }

    fn audio(&mut self, recording: Uuid, packets: u32) {
        let mut batch = AudioBatch::new();
        for _ in 0..packets {
            self.seq += 1;
            let packet = Packet {
                track: 0,
                source: 0,
                payload_type: 0,
                marker: false,
                seq: self.seq,
                timestamp: self.seq * 160,
                arrival_ns: u64::from(self.seq) * 20_000_000,
                payload: &[0x55; 160],
            };
            assert_eq!(batch.push(&packet), Pushed::Taken);
        }
        self.take(Entry::Audio {
            recording,
            batch,
            media: MediaState::default(),
            unwritten: Unwritten::new(&Arc::default()),
        });
    }

    fn decide(&mut self, recording: Uuid, keep: bool) {
        let decision = if keep { Decision::Keep } else { Decision::Discard { rule: "r".into() } };
        self.take(Entry::Decide { recording, decision });
    }

    fn end(&mut self, recording: Uuid) {
        self.take(Entry::End { recording, ended: Ended { reason: "bye".into(), ..Ended::default() } });
    }

    fn take(&mut self, entry: Entry) {
        assert_eq!(self.appender.take(entry), Going::On);
    }

    /// A round three seconds later, with the sync that it asked for.
    fn round(&mut self) {
        self.now += 3 * SECOND;
        self.appender.round(self.now);
        if self.appender.syncing_since_ns.is_some() {
            let done = self.appender.synced.recv_timeout(Duration::from_secs(30)).unwrap();
            self.appender.after_sync(&done);
        }
        self.hear();
    }

    fn hear(&mut self) {
        while let Ok(told) = self.feedback.try_recv() {
            match told {
                Feedback::Durable(recording) => self.durable.push(recording),
                Feedback::Alarm(code, _) => self.alarms.push(code),
                _ => {}
            }
        }
    }

    /// How a recording's lane ended, and what can be read of it by whoever has the private key; none when nothing can.
    fn read(&self, recording: Uuid) -> (Option<LaneEnd>, Option<(Vec<String>, u64)>) {
        let device = self.device.lock().unwrap();
        let mut files: BTreeMap<u32, Vec<u8>> =
            device.files.iter().map(|(name, bytes)| (parse_file_name(name).unwrap().1, bytes.clone())).collect();
        let numbers: Vec<u32> = files.keys().copied().collect();
        let (_, index) = verify(GENERATION, numbers, &mut files).unwrap();
        let Some((lane, entry)) = index.iter().find(|(_, entry)| entry.recording == Some(recording)) else {
            return (None, None);
        };
        let context = entry.key_context(GENERATION, lane).unwrap();
        let Ok(key) = self.keyring.open(&entry.keys, &context) else { return (entry.end, None) };
        let mut reader = LaneReader::new(GENERATION, lane, key.cipher(), entry.frames.load().unwrap());
        let (mut events, mut packets) = (Vec::new(), 0);
        while let Some(item) = reader.next(&mut files).unwrap() {
            match item {
                LaneItem::Facts(event) => {
                    let json = serde_json::to_value(&event).unwrap();
                    events.push(json["code"].as_str().or(json["event"].as_str()).unwrap().to_owned());
                }
                LaneItem::Audio(some) => packets += some.count() as u64,
                LaneItem::Finding(finding) => panic!("{finding:?}"),
            }
        }
        (entry.end, Some((events, packets)))
    }

    fn files(&self) -> usize {
        self.device.lock().unwrap().files.len()
    }

    fn set(&self, change: impl FnOnce(&mut Device)) {
        change(&mut self.device.lock().unwrap());
    }

    fn check(&self, recording: Uuid, end: Option<LaneEnd>, readable: Option<(&[&str], u64)>) {
        let readable = readable.map(|(events, packets)| (events.iter().map(|e| (*e).to_owned()).collect(), packets));
        assert_eq!(self.read(recording), (end, readable));
    }
}

const WHOLE: &[&str] = &["started", "ended"];

#[test]
fn a_kept_recording_is_read_back_and_told_once_it_is_durable() {
    let mut rig = rig(u64::MAX);
    rig.open(A);
    rig.audio(A, 10);
    rig.round();
    rig.check(A, None, None);
    rig.decide(A, true);
    rig.round();
    rig.check(A, None, Some((&["started"], 10)));
    rig.audio(A, 5);
    rig.end(A);
    assert!(rig.durable.is_empty());
    rig.round();
    rig.check(A, Some(LaneEnd::Ended), Some((WHOLE, 15)));
    assert_eq!(rig.durable, [A]);
}

#[test]
fn a_verdict_after_the_end_ends_the_lane() {
    let mut rig = rig(u64::MAX);
    for (recording, keep) in [(A, true), (B, false)] {
        rig.open(recording);
        rig.audio(recording, 3);
        rig.end(recording);
        rig.round();
        rig.check(recording, None, None);
        rig.decide(recording, keep);
        rig.round();
    }
    rig.check(A, Some(LaneEnd::Ended), Some((WHOLE, 3)));
    rig.check(B, Some(LaneEnd::Discarded), None);
    assert_eq!(rig.durable, [A, B]);
}

#[test]
fn a_discarded_recording_leaves_no_key_and_what_comes_after_is_passed_over() {
    let mut rig = rig(u64::MAX);
    rig.open(A);
    rig.audio(A, 3);
    rig.decide(A, false);
    rig.decide(A, true);
    rig.audio(A, 3);
    rig.end(A);
    rig.round();
    rig.check(A, Some(LaneEnd::Discarded), None);
    assert!(rig.alarms.is_empty());
}

#[test]
fn a_verdict_that_was_given_stays() {
    let mut rig = rig(u64::MAX);
    rig.open(A);
    rig.decide(A, true);
    rig.decide(A, false);
    rig.decide(A, true);
    rig.end(A);
    rig.round();
    rig.check(A, Some(LaneEnd::Ended), Some((WHOLE, 0)));
}

/// What is decided about a recording while it lives (`e`: it ends; `r`: it is asked about again), and what can be read then.
#[test]
fn on_demand_is_kept_only_when_somebody_asks() {
    fn check(steps: &str, expected: Option<LaneEnd>, packets: Option<u64>) {
        let mut rig = rig(u64::MAX);
        rig.open(A);
        rig.audio(A, 3);
        for step in steps.chars() {
            match step {
                'd' => rig.take(Entry::Decide { recording: A, decision: Decision::OnDemand }),
                'k' => rig.decide(A, true),
                'x' => rig.decide(A, false),
                'r' => rig.take(Entry::Reconsider { recording: A }),
                'e' => rig.end(A),
                _ => rig.audio(A, 2),
            }
            rig.round();
        }
        let read = rig.read(A);
        assert_eq!((read.0, read.1.map(|(_, packets)| packets)), (expected, packets), "{steps}");
        assert_eq!(rig.durable.len(), usize::from(expected.is_some()), "{steps}");
    }
    let (kept, gone) = (Some(LaneEnd::Ended), Some(LaneEnd::Discarded));
    check("d", None, None);
    check("de", gone, None);
    check("dek", gone, None);
    check("ed", gone, None);
    check("dake", kept, Some(5));
    check("dkdxe", kept, Some(3));
    check("kde", kept, Some(3));
    check("dre", None, None);
    check("drek", kept, Some(3));
    check("dred", gone, None);
    check("drexk", gone, None);
}

#[test]
fn the_rule_by_which_a_recording_is_discarded_is_written_beside_its_end() {
    fn check(prepare: impl FnOnce(&mut Rig), expected: &str) {
        let mut rig = rig(u64::MAX);
        rig.open(A);
        prepare(&mut rig);
        rig.round();
        let device = rig.device.lock().unwrap();
        let mut files: BTreeMap<u32, Vec<u8>> =
            device.files.iter().map(|(name, bytes)| (parse_file_name(name).unwrap().1, bytes.clone())).collect();
        let (_, index) = verify(GENERATION, files.keys().copied().collect::<Vec<_>>(), &mut files).unwrap();
        assert_eq!(index.iter().next().unwrap().1.rule, expected);
    }
    check(|rig| rig.decide(A, false), "r");
    let on_demand = |rig: &mut Rig| {
        rig.take(Entry::Decide { recording: A, decision: Decision::OnDemand });
        rig.end(A);
    };
    check(on_demand, "on-demand-not-kept");
    let long = |rig: &mut Rig| {
        rig.take(Entry::Decide { recording: A, decision: Decision::Discard { rule: "ü".repeat(100) } });
    };
    check(long, &"ü".repeat(32));
}

#[test]
fn files_change_in_the_middle_of_lanes() {
    let mut rig = rig(10_000);
    rig.open(A);
    rig.decide(A, true);
    for _ in 0..20 {
        rig.audio(A, 20);
        rig.round();
    }
    rig.end(A);
    rig.round();
    assert!(rig.files() > 5);
    rig.check(A, Some(LaneEnd::Ended), Some((WHOLE, 400)));
    assert!(rig.alarms.is_empty());
}

/// What was going on when the disk failed must be there afterwards, in order, told once.
fn check_survives(
    fail: impl FnOnce(&mut Device),
    rounds_failing: usize,
    repair: impl FnOnce(&mut Device),
    files_max: usize,
) {
    let mut rig = rig(u64::MAX);
    rig.open(A);
    rig.decide(A, true);
    rig.open(B);
    rig.audio(A, 10);
    rig.round();
    rig.set(fail);
    for _ in 0..rounds_failing {
        rig.audio(A, 10);
        rig.round();
    }
    rig.end(A);
    rig.appender.round(rig.now);
    rig.set(repair);
    for _ in 0..3 {
        rig.round();
    }
    rig.decide(B, true);
    rig.end(B);
    rig.round();
    rig.check(A, Some(LaneEnd::Ended), Some((WHOLE, 10 + 10 * rounds_failing as u64)));
    rig.check(B, Some(LaneEnd::Ended), Some((WHOLE, 0)));
    assert_eq!(rig.durable, [A, B]);
    assert!(rig.alarms.contains(&"journal-file"));
    assert!(rig.files() <= files_max, "{} files", rig.files());
    assert!(!rig.appender.state.behind.load(std::sync::atomic::Ordering::Relaxed));
}

#[test]
fn a_sync_that_fails_loses_nothing() {
    check_survives(|d| d.syncs_that_fail = 1, 1, |_| {}, 2);
    check_survives(|d| d.syncs_that_fail = 4, 6, |_| {}, 5);
}

#[test]
fn a_full_disk_loses_nothing_and_goes_on_when_there_is_room() {
    check_survives(|d| d.room = 700, 20, |d| d.room = u64::MAX >> 1, 2);
    // Where the system does not say how much room there is, each try leaves a file; tries are rare.
    check_survives(|d| (d.room, d.tells_room) = (700, false), 10, |d| d.room = u64::MAX >> 1, 13);
    check_survives(|d| (d.room, d.creates_that_fail) = (0, 2), 3, |d| d.room = u64::MAX >> 1, 2);
}

#[test]
fn a_failed_file_is_not_written_again() {
    // The device asserts that every write is an append; a write of what failed at the old place would not be.
    let mut rig = rig(u64::MAX);
    rig.open(A);
    rig.round();
    rig.set(|d| (d.room, d.creates_that_fail) = (0, 1));
    rig.audio(A, 1);
    rig.round();
    rig.set(|d| d.room = u64::MAX >> 1);
    let first = rig.device.lock().unwrap().files.values().next().unwrap().clone();
    for _ in 0..4 {
        rig.audio(A, 1);
        rig.round();
    }
    let device = rig.device.lock().unwrap();
    assert_eq!(device.files.values().next().unwrap(), &first);
    assert_eq!(device.files.len(), 2);
}

#[test]
fn a_rotation_on_a_disk_that_fails_loses_nothing() {
    for (syncs, creates) in [(1, 0), (0, 3), (2, 2)] {
        let mut rig = rig(5_000);
        rig.open(A);
        rig.decide(A, true);
        rig.audio(A, 1);
        rig.round();
        rig.set(|d| (d.syncs_that_fail, d.creates_that_fail) = (syncs, creates));
        for _ in 0..10 {
            rig.audio(A, 30);
            rig.round();
        }
        rig.end(A);
        rig.round();
        rig.check(A, Some(LaneEnd::Ended), Some((WHOLE, 301)));
        assert_eq!(rig.durable, [A]);
    }
}

#[test]
fn nothing_more_is_taken_than_memory_may_hold() {
    let mut rig = rig(u64::MAX);
    rig.open(A);
    rig.decide(A, true);
    rig.round();
    rig.set(|d| d.room = 0);
    let mut batches = 0;
    while rig.appender.has_room() {
        rig.audio(A, 100);
        batches += 1;
        if batches % 10 == 0 {
            rig.round();
        }
    }
    assert!(rig.appender.writer.pending_bytes() < PENDING_BYTES_MAX + (1 << 20));
    rig.round();
    assert!(rig.appender.state.behind.load(std::sync::atomic::Ordering::Relaxed));
    rig.set(|d| d.room = u64::MAX >> 1);
    for _ in 0..4 {
        rig.round();
    }
    assert!(rig.appender.has_room());
    rig.end(A);
    rig.round();
    rig.check(A, Some(LaneEnd::Ended), Some((WHOLE, batches * 100)));
}

#[test]
fn an_end_during_a_sync_is_told_without_anything_further() {
    let mut rig = rig(u64::MAX);
    rig.open(A);
    rig.decide(A, true);
    rig.now += 3 * SECOND;
    rig.appender.round(rig.now);
    let done = rig.appender.synced.recv_timeout(Duration::from_secs(30)).unwrap();
    rig.end(A);
    rig.appender.round(rig.now);
    rig.appender.after_sync(&done);
    rig.round();
    assert_eq!(rig.durable, [A]);
    // And then it is quiet: a commit asks for no sync of its own.
    let commits = rig.appender.state.commits.load(std::sync::atomic::Ordering::Relaxed);
    rig.round();
    rig.round();
    assert_eq!(rig.appender.state.commits.load(std::sync::atomic::Ordering::Relaxed), commits);
}

#[test]
fn stopping_keeps_what_nobody_decided_about() {
    let mut rig = rig(u64::MAX);
    rig.open(A);
    rig.audio(A, 4);
    rig.end(A);
    rig.open(B);
    rig.audio(B, 2);
    let Rig { appender, device, keyring, feedback, now, .. } = rig;
    let (tx, rx) = sync_channel(4);
    tx.send(Entry::Stop).unwrap();
    appender.run(&rx);
    // The appender is gone with its thread's work done; another, empty one stands in for the rest of the rig.
    let mut after = self::rig(u64::MAX);
    (after.device, after.keyring, after.feedback, after.now) = (device, keyring, feedback, now);
    after.hear();
    after.check(A, Some(LaneEnd::Ended), Some((WHOLE, 4)));
    after.check(B, Some(LaneEnd::Aborted), Some((&["started"], 2)));
    after.durable.sort();
    assert_eq!(after.durable, [A, B]);
}

#[test]
fn a_folder_on_a_disk_gives_each_name_once() {
    let folder = tempfile::tempdir().unwrap();
    let journal = super::DiskFolder(folder.path().to_owned());
    // A name that was taken, but nothing was written: the try before failed after it.
    drop(journal.create("a").unwrap());
    let file = journal.create("a").unwrap();
    file.write_at(b"bytes", 0).unwrap();
    file.sync().unwrap();
    assert!(journal.create("a").is_err());
    assert_eq!(std::fs::read(folder.path().join("a")).unwrap(), b"bytes");
    assert!(journal.free_bytes().is_some());
}

#[test]
fn without_a_key_to_seal_to_nothing_begins() {
    let (tx, _feedback) = unbounded_channel();
    let state = Arc::new(AppenderState::default());
    let folder = Box::new(Folder(Arc::default()));
    assert!(Appender::begin_in(folder, Arc::new(settings()), state, tx, spare_batches().0, None).is_err());
}
