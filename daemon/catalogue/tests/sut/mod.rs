//! What the tests share: keys, a catalogue in a temporary folder, recordings.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used)]

use std::path::Path;

use callvault_catalogue::{
    Archive, ArchivePlace, Catalogue, Direction, Flaw, Lane, NewRecording, OwedJob, Recording, Track, Traffic, Verdict,
};
use callvault_seal::{DataKey, Keyring, PrivateKey, SealedKey, seal_key};
use jiff::Timestamp;
use rand::{CryptoRng, SeedableRng as _, rngs::StdRng};
use uuid::Uuid;

pub const NUMBER: &str = "+493012344711";
pub const NAME: &str = "Zoë Quarterstaff";
pub const CALL_ID: &str = "callhalf-9418731:0";

pub fn rng(seed: u64) -> StdRng {
    StdRng::seed_from_u64(seed)
}

pub fn boxed(seed: u64) -> Box<dyn CryptoRng + Send> {
    Box::new(rng(seed))
}

/// The private key with that number, always the same.
pub fn key(n: u64) -> PrivateKey {
    PrivateKey::generate(&mut rng(n))
}

pub fn keyring(current: u64, older: &[u64]) -> Keyring {
    Keyring::new(key(current), older.iter().map(|n| key(*n)).collect()).unwrap()
}

/// A catalogue; the randomness differs from opening to opening, as it must.
pub fn open(folder: &Path) -> Catalogue {
    Catalogue::open(&folder.join("catalogue.db"), &keyring(1, &[]), Box::new(rand::make_rng::<StdRng>())).unwrap()
}

pub fn at(ms: i64) -> Timestamp {
    Timestamp::from_millisecond(1_800_000_000_000 + ms).unwrap()
}

pub fn id(n: u128) -> Uuid {
    Uuid::from_u128(0x0190_0000_0000_7000_8000_0000_0000_0000 + n)
}

pub fn generation(n: u128) -> Uuid {
    Uuid::from_u128(0x0180_0000_0000_7000_8000_0000_0000_0000 + n)
}

pub fn recording(n: u128) -> Recording {
    Recording {
        id: id(n),
        verdict: Verdict::Ok,
        started_at: at(n as i64),
        ended_at: at(n as i64 + 61_234),
        duration_ms: 61_234,
        owner: Some("zoe@example.org".into()),
        owner_id: None,
        owner_name: None,
        matched_by: None,
        direction: Direction::Incoming,
        local_number: Some(NUMBER.into()),
        local_name: Some(NAME.into()),
        remote_number: Some(format!("+1 (555) 010-{n:04}")),
        remote_name: None,
        traffic: Traffic::External,
        call_id: Some(CALL_ID.into()),
        tracks: vec![Track {
            label: "1".into(),
            participant: Some(NAME.into()),
            codec: "PCMU".into(),
            packets: 3000,
            lost: 2,
            duplicates: 1,
            late: 4,
            gaps_ms: 40,
            jitter_ms_max: 3,
            started_after_ms: Some(180),
            clock_skew_ppm: None,
            tones: 4,
            paused_ms: 5,
            local: true,
            ..Track::default()
        }],
        flaws: vec![Flaw { code: "loss".into(), text: "2 of 3002 packets never came".into() }],
        archive: Archive::journal(),
        linked: Vec::new(),
        annotations: callvault_catalogue::Annotations::default(),
        tracking_id: Some("track-815".into()),
        facts: serde_json::json!([{"event": "raw", "text": format!("<participant>{NAME}</participant>")}]),
    }
}

pub fn lane(generation_n: u128, lane: u32, file: u32) -> Lane {
    Lane {
        generation: generation(generation_n),
        lane,
        recording: Uuid::nil(),
        segment: 0,
        first_file: file,
        last_file: file + 1,
    }
}

/// Recording `n` in lane `n` of generation 0.
pub fn new(n: u128) -> NewRecording {
    NewRecording {
        recording: recording(n),
        lanes: vec![lane(0, n as u32, n as u32)],
        owed: vec![OwedJob::new("archive", id(n))],
        links: Vec::new(),
    }
}

pub fn place(n: u128) -> ArchivePlace {
    ArchivePlace { bytes: 1000, store: "local".into(), path: format!("2027/01/{}.cva", id(n)), sha256: [7; 32] }
}

pub fn file(folder: &Path, name: &str) -> Vec<u8> {
    std::fs::read(folder.join(name)).unwrap_or_default()
}

pub fn contains(bytes: &[u8], needle: &[u8]) -> bool {
    bytes.windows(needle.len()).any(|window| window == needle)
}

/// The sealed key of an archive.
pub fn sealed_key(n: u64) -> SealedKey {
    seal_key(&mut rng(n), key(1).public(), &DataKey::generate(&mut rng(n + 1)), b"a test")
}
