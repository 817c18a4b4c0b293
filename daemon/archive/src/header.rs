//! The clear header: its two copies, the key slots, and finding it in a file whose beginning is damaged.

use callvault_seal::{SEALED_KEY_BYTES, SealedKey};
use sha2::{Digest, Sha256};
use uuid::Uuid;

use crate::chunk::{ChunkHeader, array};
use crate::{ArchiveError, Finding, FindingKind};

/// Version of the format that this crate writes and reads.
pub const VERSION: u16 = 1;
/// Key slots in a header: the appliance's key and up to nine escrow keys.
pub const KEY_SLOTS_MAX: usize = 10;

pub(crate) const MAGIC: [u8; 8] = *b"\x89CVA\r\n\x1a\n";
const FLAG_KEYS_ELSEWHERE: u16 = 1;
/// Flags that a reader must know to read the file at all.
const FLAGS_CRITICAL: u16 = 0x00ff;
const FIXED_BYTES: usize = 60;
pub(crate) const SLOTS_OFFSET: usize = 64;
const SLOT_BYTES: usize = 96;
pub(crate) const SLOTS_BYTES: usize = KEY_SLOTS_MAX * SLOT_BYTES;
pub(crate) const COPY_BYTES: usize = SLOTS_OFFSET + SLOTS_BYTES;
pub(crate) const COPY_OFFSETS: [usize; 2] = [0, 4_096];
pub(crate) const CHUNKS_OFFSET: usize = 5_120;
/// How far into a file a header is looked for when it is not in its place. Bytes put in before it shift it; somebody
/// who puts in more than this has made another file.
pub(crate) const SEARCH_BYTES: usize = 16 * 1_024;

const SLOT_EMPTY: u32 = 0;
const SLOT_KEY: u32 = 1;
const SLOT_ERASED: u32 = 2;

/// What the header says about the recording. It never changes and is bound into every chunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// The recording.
    pub recording: Uuid,
    /// When this archive was made, nanoseconds since the Unix epoch.
    pub created_at_ns: i64,
}

/// Where the sealed data key of a new archive goes.
#[derive(Debug, Clone, Copy)]
pub enum Keys<'a> {
    /// Into the file: 1 to [`KEY_SLOTS_MAX`] sealed keys.
    InFile(&'a [SealedKey]),
    /// Nowhere in the file (`archive.keys = "catalogue"`).
    Elsewhere,
}

/// What an archive says about its sealed data key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeysFound {
    /// These are in the file; empty when every slot is damaged.
    InFile(Vec<SealedKey>),
    /// They are not in the file and never were.
    Elsewhere,
    /// They were in the file and were erased: nobody can read this archive any more.
    Erased,
}

/// The part of a header that never changes, as bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Fixed {
    pub(crate) header: Header,
    keys_elsewhere: bool,
    /// SHA-256 of the fixed bytes.
    pub(crate) hash: [u8; 32],
}

impl Fixed {
    /// What chunks carry of the hash.
    pub(crate) fn binding(&self) -> [u8; 8] {
        array(&self.hash, 0)
    }
}

/// A slot as found.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Slot {
    Empty,
    Key(SealedKey),
    Erased,
    Damaged,
}

/// The header of a new archive: all bytes before the first chunk, and the header hash.
pub(crate) fn compose(header: &Header, keys: Keys<'_>) -> Result<(Vec<u8>, [u8; 32]), ArchiveError> {
    let (flags, slots) = match keys {
        Keys::InFile(slots) => (0, slots),
        Keys::Elsewhere => (FLAG_KEYS_ELSEWHERE, [].as_slice()),
    };
    if flags == 0 && slots.is_empty() {
        let text = "nobody could open it: at least one sealed key is needed in the file";
        return Err(ArchiveError::Refused(text.into()));
    }
    if slots.len() > KEY_SLOTS_MAX {
        return Err(ArchiveError::Refused(format!(
            "{} keys to seal to, and an archive has room for {KEY_SLOTS_MAX}; use fewer escrow keys",
            slots.len()
        )));
    }
    let mut copy = Vec::with_capacity(COPY_BYTES);
    copy.extend(MAGIC);
    copy.extend(VERSION.to_le_bytes());
    copy.extend(flags.to_le_bytes());
    copy.extend((CHUNKS_OFFSET as u32).to_le_bytes());
    copy.extend(header.recording.as_bytes());
    copy.extend(header.created_at_ns.to_le_bytes());
    copy.resize(FIXED_BYTES, 0);
    let hash = Sha256::digest(&copy).into();
    copy.extend(crc32c::crc32c(&copy).to_le_bytes());
    for slot in slots {
        put_slot(&mut copy, SLOT_KEY, &slot.to_bytes());
    }
    while copy.len() < COPY_BYTES {
        put_slot(&mut copy, SLOT_EMPTY, &[0; SEALED_KEY_BYTES]);
    }
    let mut bytes = vec![0; CHUNKS_OFFSET];
    for offset in COPY_OFFSETS {
        bytes[offset..offset + COPY_BYTES].copy_from_slice(&copy);
    }
    Ok((bytes, hash))
}

/// The slots of a header whose keys were erased.
pub(crate) fn erased_slots() -> Vec<u8> {
    let mut slots = Vec::with_capacity(SLOTS_BYTES);
    for _ in 0..KEY_SLOTS_MAX {
        put_slot(&mut slots, SLOT_ERASED, &[0; SEALED_KEY_BYTES]);
    }
    slots
}

fn put_slot(to: &mut Vec<u8>, state: u32, key: &[u8; SEALED_KEY_BYTES]) {
    let from = to.len();
    to.extend(state.to_le_bytes());
    to.extend(key);
    to.extend(crc32c::crc32c(&to[from..]).to_le_bytes());
}

fn parse_slot(slot: &[u8]) -> Slot {
    let (body, crc) = slot.split_at(SLOT_BYTES - 4);
    if crc32c::crc32c(body).to_le_bytes() != crc {
        return Slot::Damaged;
    }
    let (state, key) = body.split_at(4);
    match (u32::from_le_bytes(array(state, 0)), key) {
        (SLOT_EMPTY, key) if key.iter().all(|&byte| byte == 0) => Slot::Empty,
        (SLOT_ERASED, key) if key.iter().all(|&byte| byte == 0) => Slot::Erased,
        (SLOT_KEY, key) => SealedKey::from_bytes(key).map_or(Slot::Damaged, Slot::Key),
        _ => Slot::Damaged,
    }
}

/// The fixed part at the beginning of `bytes`: none when it is damaged or not there, an error when it is of a newer version.
pub(crate) fn parse_fixed(bytes: &[u8]) -> Result<Option<Fixed>, ArchiveError> {
    let Some(fixed) = bytes.get(..SLOTS_OFFSET).filter(|b| b.starts_with(&MAGIC)) else {
        return Ok(None);
    };
    let (fixed, crc) = fixed.split_at(FIXED_BYTES);
    if crc32c::crc32c(fixed).to_le_bytes() != crc {
        return Ok(None);
    }
    let found = u16::from_le_bytes(array(fixed, 8));
    let flags = u16::from_le_bytes(array(fixed, 10));
    if found != VERSION || flags & FLAGS_CRITICAL & !FLAG_KEYS_ELSEWHERE != 0 {
        return Err(ArchiveError::Newer { found, flags });
    }
    Ok(Some(Fixed {
        header: Header {
            recording: Uuid::from_bytes(array(fixed, 16)),
            created_at_ns: i64::from_le_bytes(array(fixed, 32)),
        },
        keys_elsewhere: flags & FLAG_KEYS_ELSEWHERE != 0,
        hash: Sha256::digest(fixed).into(),
    }))
}

/// A header found at the beginning of a file.
#[derive(Debug)]
pub(crate) struct Located {
    pub(crate) fixed: Fixed,
    pub(crate) keys: KeysFound,
    /// From where on chunks are to be looked for.
    pub(crate) chunks_from: usize,
    /// What is wrong with it.
    pub(crate) findings: Vec<Finding>,
}

/// Finds the header in the first bytes of a file ([`SEARCH_BYTES`] of them, or the whole file when it is shorter).
pub(crate) fn locate(window: &[u8]) -> Result<Located, ArchiveError> {
    let mut copies = Vec::new();
    for offset in COPY_OFFSETS {
        if let Some(fixed) = parse_fixed(window.get(offset..).unwrap_or_default())? {
            copies.push((offset, fixed));
        }
    }
    let mut findings = Vec::new();
    let chunks_from = match (copies.as_slice(), window.get(CHUNKS_OFFSET..)) {
        // The second copy is where it should be, so the chunks are too.
        ([.., (offset, _)], _) if *offset == COPY_OFFSETS[1] => CHUNKS_OFFSET,
        // With the second copy gone or cut into, the chunks may begin earlier than they should; or all is well with them.
        ([_], Some(rest)) if ChunkHeader::parse(rest).is_some() => CHUNKS_OFFSET,
        ([_], _) => COPY_BYTES,
        _ => {
            let found = search(window)?;
            copies.push(found);
            found.0 + COPY_BYTES
        }
    };
    let chunks_from = chunks_from.min(window.len());
    let fixed = choose(window, chunks_from, &copies);
    let foreign = copies.iter().filter(|(_, other)| *other != fixed);
    findings.extend(foreign.map(|(offset, _)| {
        let text = "this copy of the header is that of another archive; the other copy is used";
        Finding::new(FindingKind::HeaderDamaged, *offset as u64, COPY_BYTES as u64, text)
    }));
    let own: Vec<usize> = copies.iter().filter(|(_, f)| *f == fixed).map(|(at, _)| *at).collect();
    findings.extend(misplaced(window, &copies));
    findings.extend(padding(window, chunks_from));
    let keys = gather_keys(window, &own, fixed.keys_elsewhere, &mut findings);
    Ok(Located { fixed, keys, chunks_from, findings })
}

/// Looks for a header copy anywhere in the window.
fn search(window: &[u8]) -> Result<(usize, Fixed), ArchiveError> {
    for at in find_magics(window) {
        if let Some(fixed) = parse_fixed(&window[at..])? {
            return Ok((at, fixed));
        }
    }
    Err(ArchiveError::NotAnArchive)
}

/// Where in `bytes` the magic of a header begins.
pub(crate) fn find_magics(bytes: &[u8]) -> impl Iterator<Item = usize> + '_ {
    bytes.windows(MAGIC.len()).enumerate().filter(|(_, w)| *w == MAGIC).map(|(at, _)| at)
}

/// The copy to believe: where they differ, the one under which the first chunk was written.
fn choose(window: &[u8], chunks_from: usize, copies: &[(usize, Fixed)]) -> Fixed {
    let first = window.get(chunks_from..).and_then(ChunkHeader::parse);
    let fits = |fixed: &&(usize, Fixed)| first.as_ref().is_some_and(|c| c.binding == fixed.1.binding());
    copies.iter().find(fits).or(copies.first()).expect("locate finds a copy or fails").1
}

fn misplaced(window: &[u8], copies: &[(usize, Fixed)]) -> Vec<Finding> {
    let gone = COPY_OFFSETS.into_iter().filter(|at| copies.iter().all(|(found, _)| found != at));
    gone.map(|at| {
        let length = window.len().saturating_sub(at).min(COPY_BYTES) as u64;
        let text = "this copy of the header is damaged or not in its place; the other copy is used";
        Finding::new(FindingKind::HeaderDamaged, at as u64, length, text)
    })
    .collect()
}

fn padding(window: &[u8], chunks_from: usize) -> Option<Finding> {
    let end = COPY_OFFSETS[1].min(window.len()).min(chunks_from);
    let padding = window.get(COPY_BYTES..end)?;
    let first = COPY_BYTES + padding.iter().position(|&byte| byte != 0)?;
    let text = "bytes between the copies of the header are not zero; nothing is lost";
    let length = (end - first) as u64;
    Some(Finding::new(FindingKind::HeaderDamaged, first as u64, length, text))
}

fn gather_keys(window: &[u8], copies: &[usize], elsewhere: bool, findings: &mut Vec<Finding>) -> KeysFound {
    let (mut keys, mut erased) = (Vec::new(), false);
    let mut seen = Vec::new();
    for number in 0..KEY_SLOTS_MAX {
        for copy in copies {
            let at = copy + SLOTS_OFFSET + number * SLOT_BYTES;
            let slot = window.get(at..at + SLOT_BYTES).map_or(Slot::Damaged, parse_slot);
            match &slot {
                Slot::Key(key) if !keys.contains(key) => keys.push(key.clone()),
                Slot::Erased => erased = true,
                Slot::Damaged => {
                    let text = format!("key slot {number} is damaged; the other copy of the header may have it");
                    findings.push(Finding::new(FindingKind::HeaderDamaged, at as u64, SLOT_BYTES as u64, text));
                }
                _ => {}
            }
            seen.push((number, at, slot));
        }
    }
    findings.extend(differing_slots(&seen));
    match (elsewhere, erased) {
        (_, true) => KeysFound::Erased,
        (true, false) => KeysFound::Elsewhere,
        (false, false) => KeysFound::InFile(keys),
    }
}

/// Whole slots that are not the same in both copies: a writer or an erasure was interrupted, or somebody changed one.
fn differing_slots(seen: &[(usize, usize, Slot)]) -> Vec<Finding> {
    let whole = || seen.iter().filter(|(_, _, slot)| *slot != Slot::Damaged);
    let differs = |(number, at, slot): &&(usize, usize, Slot)| {
        whole().any(|(other, before, found)| other == number && before < at && found != slot)
    };
    let report = |(number, at, _): &(usize, usize, Slot)| {
        let text = format!("key slot {number} is not the same in both copies of the header");
        Finding::new(FindingKind::HeaderDamaged, *at as u64, SLOT_BYTES as u64, text)
    };
    whole().filter(differs).map(report).collect()
}
