//! What becomes of a recording's audio on its way to people: digits are masked, what is heard is noted, rare codecs are kept.

use callvault_catalogue::Verdict;
use callvault_journal::facts::{CodecFacts, SessionEvent, TrackFacts};

use super::rig::{Generation, Rig, Running, Sent, both, codec, pcmu};
use crate::playback::Format;

/// Bytes of a RIFF WAVE header.
const WAV_HEADER: usize = 44;

/// A call of these tracks with this audio, archived.
fn recorded(running: &Running, tracks: &[CodecFacts], audio: &[Sent]) -> uuid::Uuid {
    let mut generation = Generation::begin(running);
    let mut call = generation.call(tracks);
    call.keep(&mut generation);
    call.audio(&mut generation, audio);
    call.end(&mut generation);
    generation.finish();
    running.settle();
    call.id
}

/// 20 ms of G.711 without a sound, or with one.
fn payload(loud: bool) -> Vec<u8> {
    if loud { (0..160).map(|n| if n % 8 < 4 { 0x90 } else { 0x10 }).collect() } else { vec![0xff; 160] }
}

fn check_heard(archive: &str, first_is_loud: bool, second_is_loud: bool, packets: u32, flawed: bool) {
    let rig = Rig::new(archive);
    let running = rig.start();
    let mut audio = both(&pcmu(), packets);
    for p in &mut audio {
        p.payload = payload(if p.track == 0 { first_is_loud } else { second_is_loud });
    }
    let id = recorded(&running, &[pcmu(), pcmu()], &audio);
    let row = running.row(id);
    assert!(row.archive.place().is_some(), "{:?}", row.archive);
    let ms = Some(u64::from(packets) * 20);
    let silent: Vec<_> = row.tracks.iter().map(|track| track.silent_ms).collect();
    assert_eq!(silent, [first_is_loud, second_is_loud].map(|loud| if loud { Some(0) } else { ms }), "{archive}");
    assert!(row.tracks.iter().all(|track| track.clipped_ms == Some(0)));
    assert_eq!(row.tracks[0].level_dbfs.is_some(), first_is_loud);
    let is_flawed = row.flaws.iter().any(|flaw| flaw.code == "one-leg-silent");
    assert_eq!((is_flawed, row.verdict), (flawed, if flawed { Verdict::Degraded } else { Verdict::Ok }), "{archive}");
}

#[test]
fn what_is_heard_is_in_the_row() {
    for archive in ["codec = \"opus\"", "codec = \"as-received\""] {
        check_heard(archive, true, false, 500, true);
        check_heard(archive, true, true, 500, false);
        check_heard(archive, false, false, 500, false);
        check_heard(archive, true, false, 499, false);
    }
}

/// The samples of the first channel.
fn left(wav: &[u8]) -> Vec<i16> {
    wav[WAV_HEADER..].chunks_exact(4).map(|b| i16::from_le_bytes([b[0], b[1]])).collect()
}

#[test]
fn digits_are_masked_from_journal_and_archive_alike() {
    let rig = Rig::as_received();
    let running = rig.start();
    let event = codec(101, "telephone-event", 8_000);
    let mut audio = both(&pcmu(), 200);
    for p in &mut audio {
        p.payload = payload(true);
    }
    // 100 ms from 1 s on, told by the sender beside its audio.
    let at = audio.iter().position(|p| p.track == 0 && p.at_ms == 1_000).unwrap();
    let tone = Sent { payload_type: 101, payload: vec![5, 0x8a, 0x03, 0x20], ..audio[at].clone() };
    audio[at] = tone;
    let mut generation = Generation::begin(&running);
    let mut call = generation.call(&[pcmu(), pcmu()]);
    let facts = TrackFacts { label: "0".into(), local: true, codecs: vec![pcmu(), event], ..TrackFacts::default() };
    call.fact(&mut generation, &SessionEvent::Track(facts));
    call.keep(&mut generation);
    call.audio(&mut generation, &audio);
    call.end(&mut generation);
    generation.finish();
    crate::ingest::Ingest::new(&running.appliance).round();
    let from_journal = running.play(&running.row(call.id), Format::Wav).unwrap();
    running.settle();
    assert_eq!(running.play(&running.row(call.id), Format::Wav).unwrap(), from_journal);
    let samples = left(&from_journal);
    assert_eq!(samples.len(), 32_000);
    let silent: Vec<usize> = (0..samples.len()).filter(|n| samples[*n] == 0).collect();
    assert_eq!((silent.first(), silent.last(), silent.len()), (Some(&7_840), Some(&8_960), 1_121));
}

#[test]
fn a_rare_codec_is_kept_as_it_came_and_flawed_only_where_nothing_decodes_it() {
    let check = |render: &str, encoding: &str, text: Option<&str>| {
        let rig = Rig::new(&format!("codec = \"opus\"\n[render]\n{render}"));
        let running = rig.start();
        let rare = codec(18, encoding, 8_000);
        let mut audio = both(&rare, 100);
        for p in &mut audio {
            p.payload = vec![p.seq as u8; 20];
        }
        let id = recorded(&running, &[rare.clone(), rare], &audio);
        let row = running.row(id);
        let flaw = row.flaws.iter().find(|flaw| flaw.code == "codec-not-decodable");
        assert_eq!(flaw.is_some(), text.is_some(), "{:?}", row.flaws);
        assert!(flaw.is_none_or(|flaw| flaw.text.contains(text.unwrap())), "{flaw:?}");
        assert_eq!(row.verdict, Verdict::Ok);
        let kept = running.archived(id);
        assert!(kept.len() == 200 && kept.iter().all(|p| p.1 == encoding && p.3.len() == 20));
        assert_eq!(running.play(&row, Format::Wav).is_ok(), text.is_none());
    };
    check("", "G729", None);
    check("ffmpeg = \"/nonexistent/ffmpeg\"", "G729", Some("G729 was kept as it came; it can be played when ffmpeg"));
    check("", "quux", Some("quux was kept as it came; it cannot be played"));
}
