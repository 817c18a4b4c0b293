//! What is stored is read again, what is damaged is refused, and a checkpoint never claims more than is written.

use std::path::Path;

use callvault_control::CheckpointKey;
use callvault_journal::facts::{Ended, SessionEvent, Started};
use callvault_journal::{FramePlace, Limits, Writer, file_name};
use callvault_seal::{DataKey, SealedKey};
use rand::SeedableRng;
use rand::rngs::StdRng;
use uuid::Uuid;

use super::form::{FormError, Kind, Seal};
use super::session::{EndedCheckpoint, RecordingCheckpoint, SessionCheckpoint};
use super::{Checkpoints, LaneCheckpoint, LaneState, MediaState};
use crate::sessions::Kept;

const BOOT: Uuid = Uuid::from_u128(7);
const RECORDING: Uuid = Uuid::from_u128(0xa);
const GENERATION: Uuid = Uuid::from_u128(0xb);

fn key(byte: u8) -> CheckpointKey {
    CheckpointKey::from_bytes([byte; 32])
}

fn seal() -> Seal {
    Seal::new(&key(1), &mut StdRng::seed_from_u64(1))
}

fn lane(facts: u64, place: FramePlace) -> LaneCheckpoint {
    let sealed = SealedKey::from_bytes(&[7; 88]).unwrap();
    LaneCheckpoint {
        generation: GENERATION,
        lane: 3,
        segment: 2,
        state: LaneState::Undecided,
        place,
        facts,
        keys: vec![callvault_journal::EarlierKey { generation: GENERATION, lane: 3, keys: vec![sealed] }],
        media: MediaState(vec![1, 2, 3].into()),
    }
}

fn ended(boot: Uuid) -> EndedCheckpoint {
    let recording = RecordingCheckpoint {
        recording: RECORDING,
        segment: 1,
        kept: Kept::Undecided,
        started: Started { at_ns: 5, ..Started::default() },
        call: Default::default(),
        facts: 9,
        unwritten: vec![(9, SessionEvent::Unknown)],
    };
    EndedCheckpoint { boot, recording, ended: Ended::default(), tracks: Vec::new(), changed_ns: 1 }
}

/// A folder in memory, as the recorder has it.
fn folder() -> (tempfile::TempDir, Checkpoints) {
    let folder = tempfile::tempdir_in("/dev/shm").unwrap();
    let checkpoints = Checkpoints::open(&folder.path().join("calls"), BOOT, &key(1)).unwrap();
    (folder, checkpoints)
}

#[test]
fn a_lane_is_read_as_it_was_stored() {
    let stored = lane(4, FramePlace { file_seq: 1, offset: 2, seq: 3 });
    let bytes = stored.pack(&seal(), 9).unwrap();
    assert_eq!(LaneCheckpoint::unpack(&seal(), &bytes), Ok((9, stored)));
}

/// Version 1, byte by byte: what a recorder of an earlier version left must be read, or refused by its version.
#[test]
fn the_form_stays() {
    let seal = Seal::new(&key(1), &mut StdRng::seed_from_u64(1));
    let _ = seal.pack(Kind::Lane, 0, b"");
    let bytes = seal.pack(Kind::Lane, 0x0102, b"abc").unwrap();
    let daemons = DataKey::from_bytes([1; 32]);
    let salt: [u8; 16] = bytes[28..44].try_into().unwrap();
    let head = [b'C', b'V', b'C', b'P', 2, 0, 2, 0, 2, 1, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0];
    let id = daemons.derive(b"", b"callvault checkpoint name 1").expose()[..8].to_vec();
    assert_eq!(bytes[..44], [&head[..], &id, &salt].concat());
    assert_eq!(bytes[44..52], [1, 0, 0, 0, 0, 0, 0, 0]);
    let nonce = [0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0];
    let mut content = bytes[52..].to_vec();
    daemons.derive(&salt, b"callvault checkpoint 1").cipher().open(&nonce, &bytes[..52], &mut content).unwrap();
    assert_eq!(content, b"abc");
}

/// A nonce that is used twice under one key gives both contents away.
#[test]
fn nothing_is_sealed_twice_in_the_same_way() {
    let (one, two) = (seal(), Seal::new(&key(1), &mut StdRng::seed_from_u64(2)));
    let packed = [&one, &one, &two, &two].map(|seal| seal.pack(Kind::Lane, 5, b"the same").unwrap());
    let salts_and_numbers: std::collections::BTreeSet<&[u8]> = packed.iter().map(|bytes| &bytes[28..52]).collect();
    assert_eq!(salts_and_numbers.len(), 4);
    packed.iter().for_each(|bytes| assert_eq!(one.unpack(Kind::Lane, bytes).unwrap().1.as_slice(), b"the same"));
}

#[test]
fn what_is_stored_cannot_be_read_without_the_key() {
    let mut told = ended(BOOT);
    told.recording.started.sip_call_id = "a call of somebody".into();
    let bytes = told.pack(&seal()).unwrap();
    assert!(!bytes.windows(8).any(|run| run == b"somebody"), "it is stored in the clear");
    let other = Seal::new(&key(2), &mut StdRng::seed_from_u64(1));
    assert_eq!(EndedCheckpoint::unpack(&other, &bytes, BOOT).err(), Some(FormError::OtherKey));
    assert_eq!(
        EndedCheckpoint::unpack(&seal(), &bytes, BOOT).unwrap().recording.started.sip_call_id,
        "a call of somebody"
    );
}

#[test]
fn whatever_is_damaged_is_refused() {
    let seal = seal();
    let whole = [lane(4, FramePlace::default()).pack(&seal, 1).unwrap(), ended(BOOT).pack(&seal).unwrap()];
    for bytes in whole {
        for at in 0..bytes.len() {
            for value in [0, 1, 0x80, 0xff] {
                let mut damaged = bytes.clone();
                if std::mem::replace(&mut damaged[at], value) != value {
                    assert!(LaneCheckpoint::unpack(&seal, &damaged).is_err(), "byte {at} is {value}");
                    assert!(EndedCheckpoint::unpack(&seal, &damaged, BOOT).is_err(), "byte {at} is {value}");
                    assert!(SessionCheckpoint::unpack(&seal, &damaged, BOOT).is_err());
                }
            }
            assert!(LaneCheckpoint::unpack(&seal, &bytes[..at]).is_err());
            assert!(EndedCheckpoint::unpack(&seal, &bytes[..at], BOOT).is_err());
        }
    }
}

/// Content that is authentic and says nonsense: a later version may have written it.
#[test]
fn content_that_cannot_be_is_refused_without_a_panic() {
    let seal = seal();
    let (_, content) = seal.unpack(Kind::Lane, &lane(4, FramePlace::default()).pack(&seal, 1).unwrap()).unwrap();
    for at in 0..content.len() {
        for value in [0, 0x7f, 0x80, 0xff] {
            let mut other = content.clone();
            other[at] = value;
            let _ = LaneCheckpoint::unpack(&seal, &seal.pack(Kind::Lane, 1, &other).unwrap());
            let _ = SessionCheckpoint::unpack(&seal, &seal.pack(Kind::Session, 1, &other).unwrap(), BOOT);
            let _ = super::MediaCheckpoint::from_state(&MediaState(other.to_vec().into()));
        }
    }
}

#[test]
fn another_version_and_another_boot_are_told_from_damage() {
    let seal = seal();
    let mut bytes = seal.pack(Kind::Ended, 0, b"{}").unwrap();
    bytes[6] = 2;
    assert_eq!(EndedCheckpoint::unpack(&seal, &bytes, BOOT).err(), Some(FormError::Version { found: 2 }));
    let other = ended(Uuid::from_u128(8)).pack(&seal).unwrap();
    assert_eq!(EndedCheckpoint::unpack(&seal, &other, BOOT).err(), Some(FormError::OtherBoot));
}

#[test]
fn what_is_stored_is_found_and_what_is_refused_is_set_aside() {
    let (folder, checkpoints) = folder();
    checkpoints.save_ended(&ended(BOOT)).unwrap();
    let other = Uuid::from_u128(0xc);
    std::fs::write(folder.path().join(format!("calls/{other}.session")), b"nonsense").unwrap();
    std::fs::write(folder.path().join(format!("calls/{other}.new")), b"half").unwrap();
    // A lane of which nobody knows.
    checkpoints.lane(other, 0).unwrap().save(&lane(1, FramePlace::default())).unwrap();
    let found = checkpoints.load().unwrap();
    assert_eq!((found.sessions.len(), found.ended.len(), found.refused), (0, 1, vec![(other, FormError::Damaged)]));
    let names = || {
        let mut names: Vec<String> = std::fs::read_dir(folder.path().join("calls"))
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap().rsplit_once('.').unwrap().1.to_owned())
            .collect();
        names.sort();
        names
    };
    assert_eq!(names(), ["ended", "refused"]);
    checkpoints.remove_recording(RECORDING);
    assert_eq!(names(), ["refused"]);
}

#[test]
fn a_folder_on_a_disk_holds_no_checkpoints() {
    let folder = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).unwrap();
    assert!(Checkpoints::open(folder.path(), BOOT, &key(1)).is_err());
}

/// A journal of so many frames, and where each is.
fn journal(at: &Path, frames: u64) -> Vec<FramePlace> {
    let mut writer = Writer::new(GENERATION, 0, 0, Limits::default());
    let lane = writer.open_lane(RECORDING, 0).unwrap();
    let cipher = DataKey::generate(&mut rand::rng()).cipher();
    let mut places = Vec::new();
    for _ in 0..frames {
        writer.write_facts(lane, &cipher, &SessionEvent::Unknown).unwrap();
        places.push(writer.last_place());
    }
    std::fs::write(at.join(file_name(GENERATION, 0)), writer.take().bytes).unwrap();
    places
}

/// Checkpoints of these frames are stored one after the other; of the frames so many are written. Which is believed?
fn check(stored: &[usize], written: u64, believed: Option<usize>) {
    let (folder, checkpoints) = folder();
    let places = journal(folder.path(), 5);
    let whole = std::fs::read(folder.path().join(file_name(GENERATION, 0))).unwrap();
    let end = usize::try_from(places.get(written as usize).map_or(whole.len() as u64, |next| next.offset)).unwrap();
    std::fs::write(folder.path().join(file_name(GENERATION, 0)), &whole[..end]).unwrap();
    let mut file = checkpoints.lane(RECORDING, 0).unwrap();
    for frame in stored {
        file.save(&lane(*frame as u64, places[*frame])).unwrap();
    }
    let found = checkpoints.find_lane(RECORDING, folder.path());
    assert_eq!(found.lane.map(|lane| lane.facts as usize), believed, "{stored:?}, {written} written");
    // What is believed is still there when the next one is torn.
    let mut file = checkpoints.lane(RECORDING, found.sequence).unwrap();
    file.save(&lane(99, FramePlace { file_seq: 9, offset: 0, seq: 0 })).unwrap();
    let again = checkpoints.find_lane(RECORDING, folder.path());
    assert_eq!(again.lane.map(|lane| lane.facts as usize), believed);
}

#[test]
fn a_checkpoint_is_believed_when_what_it_speaks_of_is_written() {
    check(&[], 5, None);
    check(&[0], 5, Some(0));
    check(&[0], 0, None);
    check(&[0, 1], 5, Some(1));
    check(&[0, 1], 1, Some(0));
    check(&[0, 1, 2], 2, Some(1));
    check(&[0, 1, 2, 4], 4, Some(2));
}
