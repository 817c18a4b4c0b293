//! Journals and archives, whole and damaged, and what is inside their frames and chunks.

use std::fs;
use std::path::Path;

use callvault_archive::{ArchiveCodec, ArchiveFacts, ArchiveTrack};
use callvault_fuzz_targets::{archive, journal};
use callvault_journal::facts::{Ended, Flaw, Pause, SessionEvent, SourceFacts, Started, TrackCounts, TrackFacts};
use uuid::Uuid;

use crate::{Seeds, add};

pub(crate) fn add_all(seeds: &mut Seeds) {
    journals(seeds);
    archives(seeds);
}

fn flagged(flags: u8, file: &[u8]) -> Vec<u8> {
    [&[flags], file].concat()
}

fn journals(seeds: &mut Seeds) {
    use journal::{FOLLOWED, GROWS, REPAIR, SECOND};
    let [first, second] = &journal::sample().files;
    let mut add = |name: &str, bytes| add(seeds, "journal", name, bytes);
    add("first", flagged(0, first));
    add("first-repaired", flagged(REPAIR | FOLLOWED, first));
    add("first-growing", flagged(GROWS | FOLLOWED | 0x70, first));
    add("second", flagged(SECOND, second));
    add("second-repaired", flagged(SECOND | REPAIR, second));
    add("second-growing", flagged(SECOND | GROWS | 0x90, second));
    add("cut", flagged(FOLLOWED, &first[..first.len() / 2]));
    let mut twice = second.clone();
    twice.extend_from_slice(&second[80..]);
    add("repeated", flagged(SECOND | REPAIR, &twice));
    contents(seeds);
}

/// A frame of the script: kind and flags, length, contents.
fn frame(kind_and_flags: u8, plain: &[u8]) -> Vec<u8> {
    [&[kind_and_flags], &(plain.len() as u16).to_le_bytes()[..], plain].concat()
}

fn contents(seeds: &mut Seeds) {
    const FACTS: u8 = 0x80;
    let counts = TrackCounts { track: 0, packets: 50, ..TrackCounts::default() };
    let events = [
        SessionEvent::Started(Started {
            wall_ns: 1,
            at_ns: 2,
            sip_call_id: "c".to_owned(),
            peer: "192.0.2.1:5060".to_owned(),
            transport: "udp".to_owned(),
            ..Started::default()
        }),
        SessionEvent::Call(Box::default()),
        SessionEvent::Track(TrackFacts { track: 0, label: "1".to_owned(), ..TrackFacts::default() }),
        SessionEvent::Source(SourceFacts { track: 0, source: 0, ssrc: 7, at_ns: 3 }),
        SessionEvent::Paused(Pause { track: Some(0), at_ns: 4, by: "hold".to_owned() }),
        SessionEvent::Resumed(Pause { track: Some(0), at_ns: 5, by: "hold".to_owned() }),
        SessionEvent::Flaw(Flaw { code: "sdp-line-malformed".to_owned(), text: "a line".to_owned() }),
        SessionEvent::Ended(Ended { reason: "bye".to_owned(), tracks: vec![counts], ..Ended::default() }),
    ];
    let json: Vec<Vec<u8>> = events.iter().map(|event| serde_json::to_vec(event).unwrap()).collect();
    let all: Vec<u8> = json.iter().flat_map(|event| frame(FACTS, event)).collect();
    add(seeds, "journal_contents", "events", all);
    let (head, tail) = json[0].split_at(20);
    add(seeds, "journal_contents", "event-in-parts", [frame(FACTS | 1, head), frame(FACTS | 2, tail)].concat());
    let mut batch = 5_000_000_000_u64.to_le_bytes().to_vec();
    for n in 0..4_u8 {
        batch.extend([n & 1, 0, 8, 3, 0, n, 0, 1, 0, n, 0, 0, 0, n, 0, 0, 0, 1, 2, 3]);
    }
    add(seeds, "journal_contents", "batch", frame(0, &batch));
    add(seeds, "journal_contents", "batch-cut", frame(0, &batch[..batch.len() - 1]));
    let call: Vec<u8> = [frame(FACTS, &json[0]), frame(0, &batch), frame(FACTS, &json[7])].concat();
    add(seeds, "journal_contents", "call", call);
}

fn archives(seeds: &mut Seeds) {
    use archive::{KEYLESS, REPAIR, VERIFY};
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../daemon/archive/tests/golden/v1");
    let read = |name: &str| fs::read(golden.join(name)).unwrap();
    let mut add_file = |name: &str, flags: u8, file: &[u8]| add(seeds, "archive", name, flagged(flags, file));
    add_file("whole", 0, archive::FILE);
    add_file("whole-repaired", REPAIR, archive::FILE);
    add_file("whole-checked", VERIFY, archive::FILE);
    add_file("whole-repaired-checked", REPAIR | VERIFY, archive::FILE);
    add_file("whole-checked-without-key", REPAIR | VERIFY | KEYLESS, archive::FILE);
    for name in ["cut-tail", "dropped-chunk", "repeated-chunk", "swapped-chunks", "forged-chunk"] {
        let file = read(&format!("damaged-{name}.cva"));
        add_file(name, 0, &file);
        add_file(&format!("{name}-checked"), VERIFY, &file);
    }
    add_file("erased", VERIFY, &read("erased.cva"));
    chunks(seeds);
}

/// A chunk of the script: kind, first position in half seconds, length, contents.
fn chunk(kind: u8, half_seconds: u8, plain: &[u8]) -> Vec<u8> {
    [&[kind, half_seconds], &(plain.len() as u16).to_le_bytes()[..], plain].concat()
}

fn chunks(seeds: &mut Seeds) {
    const FACTS: u8 = 1;
    const AUDIO: u8 = 2;
    let track =
        ArchiveTrack { label: "1".to_owned(), codecs: vec![ArchiveCodec::default()], ..ArchiveTrack::default() };
    let facts = ArchiveFacts {
        recording_id: Uuid::from_u128(7),
        total_ticks: 48_000,
        tracks: vec![track],
        ..Default::default()
    };
    let json = serde_json::to_vec(&facts).unwrap();
    let whole = [&[0, 0, 1, 0], json.as_slice()].concat();
    let (head, tail) = json.split_at(json.len() / 2);
    let parts = [[&[0, 0, 2, 0], head].concat(), [&[1, 0, 2, 0], tail].concat()];
    let mut audio = Vec::new();
    for n in 0..4_u64 {
        audio.extend([0, 0]);
        audio.extend((n * 960).to_le_bytes());
        audio.extend([3, 0, 1, 2, 3]);
    }
    let speech = chunk(AUDIO, 0, &audio);
    let scripts: [(&str, u8, Vec<Vec<u8>>); 5] = [
        ("whole", 4 << 2, vec![chunk(FACTS, 0, &whole), speech.clone(), chunk(FACTS, 2, &whole)]),
        ("without-end", 1, vec![chunk(FACTS, 0, &whole), speech.clone()]),
        ("facts-in-parts", 0, vec![chunk(FACTS, 0, &parts[0]), chunk(FACTS, 0, &parts[1]), speech.clone()]),
        ("audio-alone", 3, vec![speech.clone(), speech.clone()]),
        ("unknown-kinds", 2, vec![chunk(7, 0, b"?"), chunk(0, 0, b""), speech, chunk(4, 2, &[0; 32])]),
    ];
    for (name, ending, chunks) in scripts {
        add(seeds, "archive_contents", name, [&[ending][..], &chunks.concat()].concat());
    }
}
