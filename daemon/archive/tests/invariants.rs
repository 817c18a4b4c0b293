//! What holds for every archive: what goes in comes out, limits are kept, seeks are cheap, erased keys are gone.
#![allow(clippy::unwrap_used)]

mod sample;

use std::cell::Cell;
use std::io::{self, Cursor, Read, Seek, SeekFrom, Write};
use std::ops::Range;
use std::rc::Rc;

use callvault_archive::{
    ArchiveError, ArchiveFacts, CHUNK_TICKS_MAX, FACTS_BYTES_MAX, Header, KEY_SLOTS_MAX, Keys, KeysFound,
    PAYLOAD_BYTES_MAX, PLAINTEXT_BYTES_MAX, Packet, Played, Reader, Summary, Writer, erase_keys, key_context, verify,
};
use callvault_seal::{DataKey, Keyring, PrivateKey, SealedKey, seal_key};
use proptest::prelude::*;
use proptest::test_runner::FileFailurePersistence;
use rand::SeedableRng;
use rand::rngs::StdRng;
use sample::{chunks, facts, key, packet, play, sealed_key, small, speech, write};
use sha2::{Digest, Sha256};
use uuid::Uuid;

const ALL: Range<u64> = 0..u64::MAX;

fn header() -> Header {
    Header { recording: Uuid::from_u128(7), created_at_ns: 1 }
}

fn writer<W: Write>(out: W, facts: &ArchiveFacts) -> Result<Writer<W>, ArchiveError> {
    Writer::create(out, &header(), Keys::InFile(&[sealed_key(1)]), &key(1), facts)
}

#[test]
fn what_goes_in_comes_out() {
    let sample = write(7, -5, &key(1), &speech(20));
    let reader = Reader::open(Cursor::new(&sample.bytes)).unwrap();
    assert_eq!(reader.header(), Header { recording: Uuid::from_u128(7), created_at_ns: -5 });
    assert_eq!(reader.keys(), &KeysFound::InFile(vec![sealed_key(1), sealed_key(2)]));
    assert_eq!(reader.recipients(), [sealed_key(1).recipient, sealed_key(2).recipient]);
    let unlocked = reader.unlock(&key(1)).unwrap();
    assert_eq!(unlocked.facts().unwrap(), &sample.facts);
    assert_eq!(play(&sample.bytes, &key(1), ALL).unwrap(), (sample.packets, vec![]));
}

#[test]
fn the_summary_and_the_report_agree_with_the_file() {
    let sample = write(7, 1, &key(1), &speech(20));
    let Summary { bytes, chunks: count, packets, total_ticks, sha256 } = sample.summary;
    assert_eq!(bytes, sample.bytes.len() as u64);
    assert_eq!(count as usize, sample.chunks.len());
    assert_eq!(packets, sample.packets.len() as u64);
    assert_eq!(total_ticks, 20 * 48_000);
    assert_eq!(sha256, <[u8; 32]>::from(Sha256::digest(&sample.bytes)));
    let report = verify(sample.bytes.as_slice(), Some(&key(1))).unwrap();
    assert!(report.is_clean(), "{report:?}");
    assert_eq!((report.bytes, report.sha256, report.chunks), (bytes, sha256, count));
    assert_eq!((report.packets, report.total_ticks), (Some(packets), Some(total_ticks)));
    let without = verify(sample.bytes.as_slice(), None).unwrap();
    assert_eq!((without.packets, without.total_ticks, without.chunks), (None, Some(total_ticks), count));
}

#[test]
fn an_archive_without_audio_is_whole() {
    let sample = write(7, 1, &key(1), &[]);
    assert!(verify(sample.bytes.as_slice(), Some(&key(1))).unwrap().is_clean());
    assert_eq!(play(&sample.bytes, &key(1), ALL).unwrap(), (vec![], vec![]));
}

#[test]
fn nothing_in_the_file_is_readable() {
    let facts =
        ArchiveFacts { recording: serde_json::json!({"number": "+15550100"}).into(), ..facts(Uuid::from_u128(7), 0) };
    let mut writer = writer(Vec::new(), &facts).unwrap();
    writer.packet(0, 0, 0, b"speech speech speech").unwrap();
    let (bytes, _) = writer.finish().unwrap();
    for text in [b"15550100".as_slice(), b"Party", b"PCMU", b"speech", b"verdict"] {
        assert!(!bytes.windows(text.len()).any(|window| window == text));
    }
}

#[test]
fn the_key_of_the_appliance_and_of_escrow_open_the_file_and_no_other_recordings() {
    let mut rng = StdRng::seed_from_u64(1);
    let [appliance, escrow, stranger] = [(); 3].map(|()| PrivateKey::generate(&mut rng));
    let data_key = DataKey::generate(&mut rng);
    let context = key_context(&header().recording);
    let slots: Vec<SealedKey> =
        [&appliance, &escrow].map(|to| seal_key(&mut rng, to.public(), &data_key, &context)).into();
    let facts = facts(header().recording, 0);
    let writer = Writer::create(Vec::new(), &header(), Keys::InFile(&slots), &data_key, &facts).unwrap();
    let (bytes, _) = writer.finish().unwrap();
    let open = |keyring: &Keyring, context: &[u8]| {
        let reader = Reader::open(Cursor::new(&bytes)).unwrap();
        let KeysFound::InFile(keys) = reader.keys() else { panic!("keys in the file") };
        let key = keyring.open(keys, context).ok()?;
        reader.unlock(&key).ok()?.facts().ok().cloned()
    };
    for (private, opens) in [(appliance, true), (escrow, true), (stranger, false)] {
        let keyring = Keyring::new(private, vec![]).unwrap();
        assert_eq!(open(&keyring, &context), opens.then(|| facts.clone()));
        assert_eq!(open(&keyring, &key_context(&Uuid::from_u128(8))), None);
    }
}

#[test]
fn keys_can_be_kept_elsewhere() {
    let facts = facts(header().recording, 0);
    let writer = Writer::create(Vec::new(), &header(), Keys::Elsewhere, &key(1), &facts).unwrap();
    let (bytes, _) = writer.finish().unwrap();
    let reader = Reader::open(Cursor::new(&bytes)).unwrap();
    assert_eq!((reader.keys(), reader.recipients().len()), (&KeysFound::Elsewhere, 0));
    assert_eq!(reader.unlock(&key(1)).unwrap().facts().unwrap(), &facts);
    assert!(verify(bytes.as_slice(), Some(&key(1))).unwrap().is_clean());
}

/// The file holds no sealed key any more, wherever it was.
#[track_caller]
fn check_erased(case: &str, mut bytes: Vec<u8>) {
    let (before, length) = (bytes.clone(), bytes.len());
    let mut file = Cursor::new(&mut bytes);
    assert!(erase_keys(&mut file).unwrap() > 0, "{case}");
    assert!(erase_keys(&mut Cursor::new(&mut bytes)).is_ok(), "{case}: twice");
    assert_eq!(bytes.len(), length, "{case}: the length changed");
    for seed in [1, 2] {
        let sealed = sealed_key(seed).to_bytes();
        let left = |bytes: &[u8]| bytes.windows(20).any(|window| sealed[10..].starts_with(window));
        assert!(left(&before) && !left(&bytes), "{case}: key {seed}");
    }
    if let Ok(reader) = Reader::open(Cursor::new(&bytes)) {
        assert_eq!(reader.keys(), &KeysFound::Erased, "{case}");
    }
}

#[test]
fn erased_keys_are_gone_from_whole_and_from_damaged_files() {
    let bytes = small().bytes;
    check_erased("whole", bytes.clone());
    for at in [0, 8, 30, 62, 70, 200, 1_023, 2_000, 4_096, 4_100, 4_200, 5_119] {
        let mut flipped = bytes.clone();
        flipped[at] ^= 0x40;
        check_erased(&format!("flipped {at}"), flipped);
        let mut shifted = bytes.clone();
        shifted.splice(at..at, *b"inserted");
        check_erased(&format!("shifted at {at}"), shifted);
    }
    for length in [300, 1_000, 4_500, 5_000, bytes.len() - 1] {
        check_erased(&format!("cut at {length}"), bytes[..length].to_vec());
    }
    let mut far = vec![0; 300_000];
    far.extend(&bytes);
    check_erased("far behind its place", far);
}

#[test]
fn an_erased_archive_is_still_a_whole_file() {
    let mut bytes = small().bytes;
    erase_keys(&mut Cursor::new(&mut bytes)).unwrap();
    let report = verify(bytes.as_slice(), None).unwrap();
    assert_eq!((report.keys.clone(), report.is_clean()), (KeysFound::Erased, true), "{report:?}");
}

#[test]
fn an_interrupted_erasure_counts_as_one() {
    let whole = small().bytes;
    let mut erased = whole.clone();
    erase_keys(&mut Cursor::new(&mut erased)).unwrap();
    for copy in [0, 4_096] {
        let mut half = whole.clone();
        half[copy..copy + 1_024].copy_from_slice(&erased[copy..copy + 1_024]);
        let report = verify(half.as_slice(), None).unwrap();
        assert_eq!((report.keys.clone(), report.is_clean()), (KeysFound::Erased, false));
        check_erased("half", half);
    }
}

#[test]
fn what_is_no_archive_is_not_written_to() {
    for bytes in [vec![], vec![7; 100], vec![0x89; 20_000]] {
        let mut file = bytes.clone();
        assert!(matches!(erase_keys(&mut Cursor::new(&mut file)), Err(ArchiveError::NotAnArchive)));
        assert_eq!(file, bytes);
    }
}

#[track_caller]
fn check_refused(case: &str, result: Result<(), ArchiveError>) {
    assert!(matches!(result, Err(ArchiveError::Refused(_))), "{case}: {result:?}");
}

#[test]
fn what_the_format_does_not_have_is_refused() {
    let facts = facts(header().recording, 48_000);
    let create =
        |keys: Keys<'_>, facts: &ArchiveFacts| Writer::create(Vec::new(), &header(), keys, &key(1), facts).map(drop);
    let slots = vec![sealed_key(1); KEY_SLOTS_MAX + 1];
    check_refused("no keys", create(Keys::InFile(&[]), &facts));
    check_refused("too many keys", create(Keys::InFile(&slots), &facts));
    create(Keys::InFile(&slots[1..]), &facts).unwrap();
    let changed = |change: fn(&mut ArchiveFacts)| {
        let mut facts = facts.clone();
        change(&mut facts);
        create(Keys::InFile(&slots[..1]), &facts)
    };
    check_refused("another recording", changed(|facts| facts.recording_id = Uuid::from_u128(8)));
    check_refused("tracks", changed(|facts| facts.tracks.resize(257, facts.tracks[0].clone())));
    check_refused("codecs", changed(|facts| facts.tracks[0].codecs.resize(257, Default::default())));
    check_refused("facts too large", changed(|facts| facts.events = vec!["x".repeat(FACTS_BYTES_MAX).into()].into()));
    let mut writer = writer(Vec::new(), &facts).unwrap();
    check_refused("track", writer.packet(2, 0, 0, b""));
    check_refused("codec", writer.packet(0, 2, 0, b""));
    check_refused("payload", writer.packet(0, 0, 0, &vec![0; PAYLOAD_BYTES_MAX + 1]));
    writer.packet(0, 0, 5, b"kept").unwrap();
    check_refused("order", writer.packet(0, 0, 4, b""));
    // What was refused left no trace.
    let (bytes, summary) = writer.finish().unwrap();
    assert_eq!(summary.packets, 1);
    assert_eq!(play(&bytes, &key(1), ALL).unwrap().0, [packet(0, 0, 5, b"kept")]);
    assert!(verify(bytes.as_slice(), Some(&key(1))).unwrap().is_clean());
}

#[test]
fn large_facts_are_kept_whole() {
    let mut facts = facts(header().recording, 0);
    facts.events = vec!["é".repeat(200_000).into()].into();
    let (mut bytes, _) = writer(Vec::new(), &facts).unwrap().finish().unwrap();
    let parts: Vec<_> = chunks(&bytes).into_iter().filter(|chunk| chunk.kind == 1).collect();
    assert_eq!(parts.len(), 14);
    // A part lost from one copy and another from the other leave all of them.
    bytes[parts[2].span.start + 50] ^= 1;
    bytes[parts[7 + 3].span.start + 50] ^= 1;
    let unlocked = Reader::open(Cursor::new(&bytes)).unwrap().unlock(&key(1)).unwrap();
    assert_eq!(unlocked.facts().unwrap(), &facts);
}

#[test]
fn chunks_keep_to_their_limits() {
    let largest = vec![0x55; PAYLOAD_BYTES_MAX];
    let of_size = |n: u64| packet(0, 0, n * 1_000, &largest[..(n as usize * 7_919) % PAYLOAD_BYTES_MAX]);
    let mut packets: Vec<Packet> = (0..40).map(of_size).collect();
    packets.push(packet(0, 0, 40_000, &largest));
    packets.extend([0, 1, CHUNK_TICKS_MAX - 1, CHUNK_TICKS_MAX].map(|at| packet(1, 1, 100_000 + at, b"x")));
    let sample = write(7, 1, &key(1), &packets);
    assert!(sample.chunks.iter().all(|chunk| chunk.span.len() <= 40 + PLAINTEXT_BYTES_MAX + 16));
    let last_two: Vec<u64> =
        sample.chunks.iter().filter(|c| c.kind == 2).map(|c| c.first_ticks).filter(|&first| first >= 100_000).collect();
    assert_eq!(last_two, [100_000, 100_000 + CHUNK_TICKS_MAX]);
    assert!(verify(sample.bytes.as_slice(), Some(&key(1))).unwrap().is_clean());
    assert_eq!(play(&sample.bytes, &key(1), ALL).unwrap().0, packets);
}

#[test]
fn a_long_recording_has_a_seek_table_of_several_chunks() {
    let packets: Vec<Packet> = (0..9_000).map(|n| packet(0, 0, n * CHUNK_TICKS_MAX, b"")).collect();
    let sample = write(7, 1, &key(1), &packets);
    assert_eq!(sample.chunks.iter().filter(|chunk| chunk.kind == 3).count(), 3);
    assert!(verify(sample.bytes.as_slice(), Some(&key(1))).unwrap().is_clean());
    let range = 8_000 * CHUNK_TICKS_MAX..8_002 * CHUNK_TICKS_MAX;
    assert_eq!(play(&sample.bytes, &key(1), range).unwrap().0, packets[8_000..8_002]);
}

/// Counts the bytes that are read.
struct Counting<R>(R, Rc<Cell<usize>>);

impl<R: Read> Read for Counting<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let read = self.0.read(buf)?;
        self.1.set(self.1.get() + read);
        Ok(read)
    }
}

impl<R: Seek> Seek for Counting<R> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.0.seek(to)
    }
}

#[test]
fn playing_a_stretch_reads_only_what_holds_it() {
    let payload = [0x55; 1_000];
    let packets: Vec<Packet> = (0..50 * 120).map(|n| packet(0, 0, n * 960, &payload)).collect();
    let sample = write(7, 1, &key(1), &packets);
    let read = Rc::new(Cell::new(0));
    let reader = Reader::open(Counting(Cursor::new(&sample.bytes), Rc::clone(&read))).unwrap();
    let mut unlocked = reader.unlock(&key(1)).unwrap();
    let range = 60 * 48_000..62 * 48_000;
    let played = unlocked.packets(range.clone()).count();
    assert_eq!(played, 100);
    // Three seconds of 50 kB, the seek table and the header, out of 6 MB.
    assert!(read.get() < 250_000, "{} of {} bytes", read.get(), sample.bytes.len());
}

/// Fails once after a number of bytes, then would go on.
struct Failing(Vec<u8>, usize);

impl Write for Failing {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        if self.0.len() < self.1 && self.0.len() + buf.len() >= self.1 {
            self.1 = 0;
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.0.extend(buf);
        Ok(buf.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn after_a_failed_write_there_is_no_archive() {
    let facts = facts(header().recording, 10 * 48_000);
    let whole = write(7, 1, &key(1), &speech(10)).bytes.len();
    for at in (0..whole).step_by(50).map(|at| at + 1) {
        let Ok(mut writer) = writer(Failing(Vec::new(), at), &facts) else { continue };
        let mut failed = 0;
        for p in speech(10) {
            match writer.packet(p.track, p.codec, p.position, &p.payload) {
                Ok(()) => assert_eq!(failed, 0, "a write succeeded after one failed"),
                Err(ArchiveError::Io { .. }) if failed == 0 => failed += 1,
                Err(ArchiveError::Broken) => failed += 1,
                Err(other) => panic!("{other}"),
            }
        }
        assert!(writer.finish().is_err(), "failed at {at}");
    }
}

/// Fails to read one stretch.
struct BadSector(Cursor<Vec<u8>>, Range<u64>);

impl Read for BadSector {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let at = self.0.position();
        if self.1.start < at + buf.len() as u64 && at < self.1.end {
            return Err(io::Error::other("bad sector"));
        }
        self.0.read(buf)
    }
}

impl Seek for BadSector {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.0.seek(to)
    }
}

#[test]
fn a_read_error_is_an_error_and_playing_can_go_on_behind_it() {
    let sample = write(7, 1, &key(1), &speech(10));
    let bad = sample.chunks[5].span.start as u64 + 10..sample.chunks[5].span.start as u64 + 20;
    let reader = Reader::open(BadSector(Cursor::new(sample.bytes.clone()), bad)).unwrap();
    let mut unlocked = reader.unlock(&key(1)).unwrap();
    let (mut packets, mut errors) = (Vec::new(), 0);
    for played in unlocked.packets(ALL) {
        match played {
            Ok(Played::Packet(packet)) => packets.push(packet),
            Ok(Played::Hole(finding)) => panic!("{finding}"),
            Err(error) => errors += usize::from(error.is_io()),
        }
    }
    assert_eq!((packets, errors), (sample.packets_without(&[5]), 1));
}

fn any_packets() -> impl Strategy<Value = Vec<Packet>> {
    let payload = prop_oneof![
        4 => prop::collection::vec(any::<u8>(), 0..200),
        1 => (0..PAYLOAD_BYTES_MAX).prop_map(|length| vec![0xa7; length]),
    ];
    let step = prop_oneof![2 => Just(0u64), 8 => 0..2_000u64, 1 => 0..500_000u64];
    prop::collection::vec((0..2u8, 0..2u8, step, payload), 0..60).prop_map(|steps| {
        let mut position = 0;
        let at = |(track, codec, step, payload): (u8, u8, u64, Vec<u8>)| {
            position += step;
            Packet { track, codec, position, payload }
        };
        steps.into_iter().map(at).collect()
    })
}

/// One change to a file.
#[derive(Debug, Clone)]
enum Change {
    Flip(usize, u8),
    Cut(usize),
    Insert(usize, Vec<u8>),
    Remove(usize, usize),
    Copy(usize, usize, usize),
}

fn any_change() -> impl Strategy<Value = Change> {
    prop_oneof![
        (any::<usize>(), 1..=255u8).prop_map(|(at, mask)| Change::Flip(at, mask)),
        any::<usize>().prop_map(Change::Cut),
        (any::<usize>(), prop::collection::vec(any::<u8>(), 1..90)).prop_map(|(at, what)| Change::Insert(at, what)),
        (any::<usize>(), 1..300usize).prop_map(|(at, count)| Change::Remove(at, count)),
        (any::<usize>(), 1..300usize, any::<usize>()).prop_map(|(from, count, to)| Change::Copy(from, count, to)),
    ]
}

fn apply(bytes: &mut Vec<u8>, change: &Change) {
    if bytes.is_empty() {
        return;
    }
    let length = bytes.len();
    match change {
        Change::Flip(at, mask) => bytes[at % length] ^= mask,
        Change::Cut(at) => bytes.truncate(at % length),
        Change::Insert(at, what) => {
            bytes.splice(at % length..at % length, what.iter().copied());
        }
        Change::Remove(at, count) => {
            bytes.drain(at % length..(at % length + count).min(length));
        }
        Change::Copy(from, count, to) => {
            let what = bytes[from % length..(from % length + count).min(length)].to_vec();
            bytes.splice(to % length..to % length, what);
        }
    }
}

/// Whether `part` is `whole` with some left out.
fn is_part_of(part: &[Packet], whole: &[Packet]) -> bool {
    let mut rest = whole.iter();
    part.iter().all(|packet| rest.any(|other| other == packet))
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 64,
        // Beside this file: the default looks for a folder with a `lib.rs` above and finds the wrong one.
        failure_persistence: Some(Box::new(FileFailurePersistence::WithSource("regressions"))),
        ..ProptestConfig::default()
    })]

    #[test]
    fn any_stretch_of_any_recording_is_its_packets(packets in any_packets(), from in 0..600_000u64, length in 0..600_000u64) {
        let sample = write(7, 1, &key(1), &packets);
        prop_assert!(verify(sample.bytes.as_slice(), Some(&key(1))).unwrap().is_clean());
        prop_assert!(verify(sample.bytes.as_slice(), None).unwrap().is_clean());
        let range = from..from + length;
        let wanted: Vec<Packet> = packets.into_iter().filter(|packet| range.contains(&packet.position)).collect();
        prop_assert_eq!(play(&sample.bytes, &key(1), range).unwrap(), (wanted, vec![]));
    }

    #[test]
    fn no_damage_goes_unnoticed_or_makes_up_audio(changes in prop::collection::vec(any_change(), 1..6)) {
        let sample = write(7, 1, &key(1), &speech(6));
        let mut bytes = sample.bytes.clone();
        changes.iter().for_each(|change| apply(&mut bytes, change));
        for key in [None, Some(key(1))] {
            if let Ok(report) = verify(bytes.as_slice(), key.as_ref()) {
                prop_assert_eq!(report.is_clean(), bytes == sample.bytes);
                prop_assert_eq!(report.bytes, bytes.len() as u64);
                prop_assert_eq!(report.sha256, <[u8; 32]>::from(Sha256::digest(&bytes)));
            }
        }
        if let Ok((packets, holes)) = play(&bytes, &key(1), ALL) {
            prop_assert!(is_part_of(&packets, &sample.packets));
            prop_assert!(packets == sample.packets || !holes.is_empty(), "lost without a word");
        }
    }

    #[test]
    fn arbitrary_bytes_are_refused(bytes in prop::collection::vec(any::<u8>(), 0..8_000), chunk in any::<bool>()) {
        // Behind a right header too.
        let mut file = if chunk { small().bytes[..sample::HEADER_BYTES].to_vec() } else { Vec::new() };
        file.extend(bytes);
        prop_assert!(verify(file.as_slice(), Some(&key(1))).is_ok_and(|report| !report.is_clean()) == chunk);
        prop_assert!(play(&file, &key(1), ALL).is_err());
    }
}
