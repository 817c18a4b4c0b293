//! Archives that were written once and must be readable for ever, byte for byte. A new version of the format gets a folder of its own;
//! files in `golden/` are never changed.
#![allow(clippy::unwrap_used)]

mod sample;

use std::io::Cursor;
use std::path::PathBuf;
use std::sync::Once;

use callvault_archive::{
    ArchiveFacts, FindingKind, Header, Keys, KeysFound, Packet, Played, Reader, Writer, key_context, verify,
};
use callvault_seal::{DataKey, Keyring, PrivateKey, SealedKey, seal_key};
use rand::SeedableRng;
use rand::rngs::StdRng;
use sample::{facts, packet};
use uuid::Uuid;

const DATA_KEY: [u8; 32] = *b"golden data key, of no other use";
/// Made for these files; it opens nothing else.
const PRIVATE_KEY_FILE: &str = "private.key";

fn golden(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden/v1").join(name)
}

/// Set to anything, this variable makes the files before the tests read them.
const MAKE: &str = "CALLVAULT_WRITE_GOLDEN";

fn read(name: &str) -> Vec<u8> {
    static MADE: Once = Once::new();
    if std::env::var_os(MAKE).is_some() {
        MADE.call_once(make);
    }
    std::fs::read(golden(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

fn header() -> Header {
    Header {
        recording: Uuid::from_u128(0x0199_c3c4_5b00_7000_8000_0000_0000_0001),
        created_at_ns: 1_763_800_123_456_789_000,
    }
}

fn golden_facts() -> ArchiveFacts {
    facts(header().recording, 3 * 48_000)
}

/// Two and a half seconds of G.711 and Opus, a packet without payload, and a hole.
fn golden_packets() -> Vec<Packet> {
    let mut packets = Vec::new();
    for n in 0..25u64 {
        packets.push(packet(0, 0, n * 4_800, &[n as u8; 16]));
        if n % 5 != 0 {
            packets.push(packet(1, 1, n * 4_800 + 960, &vec![0xf8; n as usize]));
        }
    }
    packets
}

fn compose(keys: Keys<'_>) -> Vec<u8> {
    let key = DataKey::from_bytes(DATA_KEY);
    let mut writer = Writer::create(Vec::new(), &header(), keys, &key, &golden_facts()).unwrap();
    for p in golden_packets() {
        writer.packet(p.track, p.codec, p.position, &p.payload).unwrap();
    }
    writer.finish().unwrap().0
}

#[track_caller]
fn check_reads(name: &str, key: &DataKey) {
    let bytes = read(name);
    assert!(verify(bytes.as_slice(), Some(key)).unwrap().is_clean(), "{name}");
    let reader = Reader::open(Cursor::new(&bytes)).unwrap();
    assert_eq!(reader.header(), header(), "{name}");
    let mut unlocked = reader.unlock(key).unwrap();
    assert_eq!(unlocked.facts().unwrap(), &golden_facts(), "{name}");
    let played: Vec<Played> = unlocked.packets(0..u64::MAX).map(Result::unwrap).collect();
    let packets: Vec<Played> = golden_packets().into_iter().map(Played::Packet).collect();
    assert_eq!(played, packets, "{name}");
}

fn sealed_keys(name: &str) -> Vec<SealedKey> {
    let reader = Reader::open(Cursor::new(read(name))).unwrap();
    match reader.keys() {
        KeysFound::InFile(keys) => keys.clone(),
        other => panic!("{name}: {other:?}"),
    }
}

#[test]
fn version_1_opens_with_its_private_key() {
    let text = String::from_utf8(read(PRIVATE_KEY_FILE)).unwrap();
    let keyring = Keyring::new(PrivateKey::from_text(&text).unwrap(), vec![]).unwrap();
    let key = keyring.open(&sealed_keys("keys-in-file.cva"), &key_context(&header().recording)).unwrap();
    check_reads("keys-in-file.cva", &key);
}

#[test]
fn version_1_with_its_keys_elsewhere_opens_with_its_data_key() {
    check_reads("keys-elsewhere.cva", &DataKey::from_bytes(DATA_KEY));
}

#[test]
fn version_1_is_written_byte_for_byte() {
    let keys = sealed_keys("keys-in-file.cva");
    assert!(compose(Keys::InFile(&keys)) == read("keys-in-file.cva"), "the format of keys-in-file.cva changed");
    assert!(compose(Keys::Elsewhere) == read("keys-elsewhere.cva"), "the format of keys-elsewhere.cva changed");
}

#[track_caller]
fn check_damaged(name: &str, kinds: &[FindingKind]) {
    let key = DataKey::from_bytes(DATA_KEY);
    let report = verify(read(name).as_slice(), Some(&key)).unwrap();
    let found: Vec<FindingKind> = report.findings.iter().map(|finding| finding.kind).collect();
    assert_eq!(found, kinds, "{name}: {:#?}", report.findings);
}

#[test]
fn version_1_damage_is_named_as_ever() {
    check_damaged("damaged-flipped-bit.cva", &[FindingKind::Damaged]);
    check_damaged("damaged-cut-tail.cva", &[FindingKind::CutTail]);
    check_damaged("damaged-dropped-chunk.cva", &[FindingKind::Missing]);
    check_damaged("damaged-repeated-chunk.cva", &[FindingKind::Repeated]);
    check_damaged("damaged-swapped-chunks.cva", &[FindingKind::Swapped]);
    check_damaged("damaged-forged-chunk.cva", &[FindingKind::Altered]);
    check_damaged("erased.cva", &[]);
    let erased = Reader::open(Cursor::new(read("erased.cva"))).unwrap();
    assert_eq!(erased.keys(), &KeysFound::Erased);
}

/// How the files were made: by hand, for a new version only, with [`MAKE`] set. It never replaces a file.
fn make() {
    let save = |name: &str, bytes: &[u8]| {
        assert!(!golden(name).exists(), "{name} is there; golden files are never changed");
        std::fs::write(golden(name), bytes).unwrap();
    };
    let mut rng = StdRng::seed_from_u64(1);
    let private = PrivateKey::generate(&mut rng);
    let context = key_context(&header().recording);
    let slot = seal_key(&mut rng, private.public(), &DataKey::from_bytes(DATA_KEY), &context);
    let bytes = compose(Keys::InFile(&[slot]));
    save(PRIVATE_KEY_FILE, private.to_text().expose().as_bytes());
    save("keys-in-file.cva", &bytes);
    save("keys-elsewhere.cva", &compose(Keys::Elsewhere));
    let chunks = sample::chunks(&bytes);
    let with = |order: &[usize]| {
        let chunks = order.iter().flat_map(|&index| bytes[chunks[index].span.clone()].to_vec());
        bytes[..sample::HEADER_BYTES].iter().copied().chain(chunks).collect::<Vec<u8>>()
    };
    let second = chunks[2].span.start;
    let mut flipped = bytes.clone();
    flipped[second + 100] ^= 0x10;
    save("damaged-flipped-bit.cva", &flipped);
    sample::forge(&mut flipped, second);
    save("damaged-forged-chunk.cva", &flipped);
    save("damaged-cut-tail.cva", &bytes[..bytes.len() - 150]);
    save("damaged-dropped-chunk.cva", &with(&[0, 1, 3, 4, 5, 6]));
    save("damaged-repeated-chunk.cva", &with(&[0, 1, 2, 2, 3, 4, 5, 6]));
    save("damaged-swapped-chunks.cva", &with(&[0, 2, 1, 3, 4, 5, 6]));
    let mut erased = bytes.clone();
    callvault_archive::erase_keys(&mut Cursor::new(&mut erased)).unwrap();
    save("erased.cva", &erased);
}
