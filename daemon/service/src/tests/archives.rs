//! What is archived is what was received; what is damaged costs no more than itself.

use callvault_catalogue::ArchiveState;
use serde_json::Value;

use super::rig::{Generation, Rig, Running, both, codec, pcmu, talk, whole_call};
use crate::check::Check;
use crate::keys;
use crate::playback::Format;
use crate::sound::TICKS_PER_SECOND;

/// Bytes of a RIFF WAVE header.
const WAV_HEADER: usize = 44;

fn findings(running: &Running) -> Vec<Value> {
    let mut check = Check::new(&running.appliance);
    check.everything().unwrap();
    check.json()["findings"].as_array().unwrap().clone()
}

fn flip(path: &std::path::Path, at: usize) {
    let mut bytes = std::fs::read(path).unwrap();
    bytes[at] ^= 0x40;
    std::fs::write(path, bytes).unwrap();
}

#[test]
fn as_received_keeps_every_payload() {
    let rig = Rig::as_received();
    let running = rig.start();
    let mut generation = Generation::begin(&running);
    let mut call = generation.call(&[pcmu(), pcmu()]);
    call.keep(&mut generation);
    // Ten packets lost in the middle, and another source for the last second.
    let mut audio = both(&pcmu(), 200);
    audio.retain(|p| !(p.track == 0 && (40..50).contains(&(p.seq - 100))));
    for p in audio.iter_mut().filter(|p| p.track == 1 && p.seq >= 250) {
        (p.source, p.seq, p.timestamp) = (1, p.seq + 30_000, p.timestamp.wrapping_add(900_000));
    }
    call.audio(&mut generation, &audio);
    call.end(&mut generation);
    generation.finish();
    running.settle();
    let archived = running.archived(call.id);
    for track in 0..=1 {
        let sent: Vec<(u64, &[u8])> = audio
            .iter()
            .filter(|p| p.track == track)
            .map(|p| (p.at_ms * TICKS_PER_SECOND / 1_000, &*p.payload))
            .collect();
        let kept: Vec<(u64, &[u8])> = archived.iter().filter(|p| p.0 == track).map(|p| (p.2, p.3.as_slice())).collect();
        assert_eq!(sent, kept, "track {track}");
    }
    assert!(findings(&running).is_empty());
}

#[test]
fn opus_passes_through_bit_for_bit_beside_what_is_encoded() {
    let rig = Rig::new("codec = \"opus\"");
    let running = rig.start();
    let mut generation = Generation::begin(&running);
    let opus = codec(111, "opus", 48_000);
    let mut call = generation.call(&[opus.clone(), pcmu()]);
    call.keep(&mut generation);
    let mut audio = talk(0, 0, &opus, 100);
    audio.extend(talk(1, 0, &pcmu(), 100));
    audio.sort_by_key(|p| (p.at_ms, p.track));
    call.audio(&mut generation, &audio);
    call.end(&mut generation);
    generation.finish();
    running.settle();
    assert_eq!(running.row(call.id).archive.state, ArchiveState::Archived, "{:?}", running.row(call.id).archive);
    let archived = running.archived(call.id);
    let sent: Vec<_> = audio.iter().filter(|p| p.track == 0).map(|p| p.payload.clone()).collect();
    let kept: Vec<_> = archived.iter().filter(|p| p.0 == 0).map(|p| p.3.clone()).collect();
    assert_eq!(sent, kept);
    assert!(archived.iter().all(|p| p.1 == "opus"));
    assert!(archived.iter().filter(|p| p.0 == 1).count() >= 99);
    assert!(archived.is_sorted_by_key(|p| p.2));
}

#[test]
fn it_sounds_the_same_from_the_journal_and_from_the_archive() {
    let rig = Rig::as_received();
    let running = rig.start();
    let mut generation = Generation::begin(&running);
    let call = whole_call(&mut generation, &pcmu(), 100);
    generation.finish();
    crate::ingest::Ingest::new(&running.appliance).round();
    let before = running.row(call.id);
    let from_journal = running.play(&before, Format::Wav).unwrap();
    assert_eq!(from_journal.len(), WAV_HEADER + 2 * 2 * 100 * 160);
    running.settle();
    assert_eq!(running.play(&running.row(call.id), Format::Wav).unwrap(), from_journal);
    // A row that was read before the archive was made leads there all the same.
    assert_eq!(rig.journal_files(), 0);
    assert_eq!(running.play(&before, Format::Wav).unwrap(), from_journal);
}

#[test]
fn a_journal_that_is_being_read_stays_until_it_was_read() {
    let rig = Rig::as_received();
    let running = rig.start();
    let mut generation = Generation::begin(&running);
    let call = whole_call(&mut generation, &pcmu(), 20);
    generation.finish();
    let mut ingest = crate::ingest::Ingest::new(&running.appliance);
    ingest.round();
    let pinned = running.appliance.journals.pin(call.id);
    running.work();
    ingest.round();
    assert_eq!(running.row(call.id).archive.state, ArchiveState::Archived);
    assert_eq!(rig.journal_files(), 1);
    drop(pinned);
    ingest.round();
    assert_eq!(rig.journal_files(), 0);
}

#[test]
fn older_keys_open_older_recordings() {
    let rig = Rig::as_received();
    let running = rig.start();
    let mut generation = Generation::begin(&running);
    let (archived, journalled) = (whole_call(&mut generation, &pcmu(), 20), generation.call(&[pcmu()]).id);
    generation.finish();
    running.settle();
    let folder = running.appliance.config.keys_path();
    keys::rotate(&folder, &running.appliance.current_key, &mut rand::rng()).unwrap();
    drop(running);
    let running = rig.start();
    running.settle();
    assert_eq!(running.archived(archived.id).len(), 40);
    assert_eq!(running.recordings().len(), 2, "{journalled}");
    assert!(findings(&running).is_empty());
}

#[test]
fn a_damaged_archive_is_found_and_plays_on() {
    let rig = Rig::as_received();
    let running = rig.start();
    let mut generation = Generation::begin(&running);
    let call = whole_call(&mut generation, &pcmu(), 500);
    generation.finish();
    running.settle();
    let sound = running.play(&running.row(call.id), Format::Wav).unwrap();
    let archive = rig.stored().remove(0);
    let middle = std::fs::metadata(&archive).unwrap().len() as usize / 2;
    flip(&archive, middle);
    let found = findings(&running);
    assert!(!found.is_empty() && found.iter().all(|f| f["recording"] == call.id.to_string()), "{found:?}");
    let damaged = running.play(&running.row(call.id), Format::Wav).unwrap();
    assert_eq!(damaged.len(), sound.len());
    assert_ne!(damaged, sound);
    std::fs::remove_file(&archive).unwrap();
    assert_eq!(findings(&running)[0]["kind"], "unreadable");
}

#[test]
fn a_damaged_frame_of_the_journal_is_found_and_costs_itself() {
    let rig = Rig::as_received();
    let running = rig.start();
    let mut generation = Generation::begin(&running);
    let call = whole_call(&mut generation, &pcmu(), 500);
    generation.finish();
    let path = std::fs::read_dir(rig.path("data/journal")).unwrap().next().unwrap().unwrap().path();
    let middle = std::fs::metadata(&path).unwrap().len() as usize / 2;
    flip(&path, middle);
    crate::ingest::Ingest::new(&running.appliance).round();
    let row = running.row(call.id);
    let text = row.flaws.iter().find(|f| f.code == "journal-damaged").map(|f| f.text.as_str());
    assert_eq!(text, Some("1 frames of the journal cannot be read"), "{:?}", row.flaws);
    assert!(findings(&running).iter().any(|f| f["recording"] == call.id.to_string()));
    let played = running.play(&row, Format::Wav).unwrap();
    assert_eq!(played.len(), WAV_HEADER + 2 * 2 * 500 * 160);
    running.settle();
    assert_eq!(running.archived(call.id).len(), 990);
}
