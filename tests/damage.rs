//! Files that were changed behind the appliance's back: the damage is named, and the rest plays.

#![allow(clippy::unwrap_used)]

mod rig;

use std::fs;
use std::path::Path;

use callvault_journal::Kind;
use rig::Appliance;
use rig::appliance::{keep_from_archiving, let_archive};
use rig::inspect::{Chunk, archive_of, chunks, frames, journal_files};
use rig::rtp::play_ulaw;
use rig::shapes::{Facts, webex};
use rig::sip::Client;
use rig::sound::{FRAME, find_exact, from_ulaw, packets, speech};
use serde_json::Value;

/// Seven seconds: archives of several chunks of at most a second.
const PACKETS: usize = 350;
/// Kind of a chunk that holds audio.
const AUDIO: u8 = 2;

fn voices(number: u32) -> [Vec<Vec<u8>>; 2] {
    [120.0, 220.0].map(|pitch| packets(&speech(u64::from(number) + pitch as u64, pitch, 8_000, PACKETS * FRAME)))
}

/// Makes these calls at the same time, and gives their recordings when `state` is that of their archives.
fn record(appliance: &Appliance, numbers: &[u32], state: &str) -> Vec<Value> {
    std::thread::scope(|scope| {
        for &number in numbers {
            scope.spawn(move || {
                let mut client = Client::udp(appliance.sip());
                let media = client.call(&webex(&Facts::incoming(number), appliance.sip()));
                let voices = voices(number);
                play_ulaw(&media, &[&voices[0], &voices[1]]);
                client.bye();
            });
        }
    });
    let find = |number: &u32| {
        let call_id = Facts::incoming(*number).call_id;
        rig::wait_for(state, || Some(appliance.recording(&call_id)).filter(|r| r["archive"]["state"] == state))
    };
    numbers.iter().map(find).collect()
}

/// Samples of each channel that are not what was said.
fn samples_lost(appliance: &Appliance, recording: &Value, number: u32) -> usize {
    let wav = appliance.wav(recording);
    let lost = wav.channels.iter().zip(voices(number)).map(|(channel, voice)| {
        let said = from_ulaw(&voice.concat());
        let equal = |at: usize| channel[at.min(channel.len())..].iter().zip(&said).filter(|(a, b)| a == b).count();
        said.len() - (0..=2 * FRAME).map(equal).max().unwrap()
    });
    lost.max().unwrap()
}

fn assert_whole(appliance: &Appliance, recording: &Value, number: u32) {
    for (channel, voice) in appliance.wav(recording).channels.iter().zip(voices(number)) {
        find_exact(channel, &from_ulaw(&voice.concat())).unwrap();
    }
}

/// Each finding's recording (or where it is) and kind.
fn findings(appliance: &Appliance) -> Vec<(String, String)> {
    let (status, said) = appliance.verify();
    let found = said["findings"].as_array().unwrap();
    assert_eq!(status, i32::from(!found.is_empty()), "the exit status says whether something was found: {said:#}");
    let text = |finding: &Value, name: &str| finding[name].as_str().map(str::to_owned);
    let whose = |f: &Value| text(f, "recording").or_else(|| text(f, "where")).unwrap();
    found.iter().map(|finding| (whose(finding), text(finding, "kind").unwrap())).collect()
}

/// Does something to a file; gives back what it was.
fn change(path: &Path, damage: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let before = fs::read(path).unwrap();
    let mut bytes = before.clone();
    damage(&mut bytes);
    assert!(bytes != before, "the damage changes something");
    fs::write(path, bytes).unwrap();
    before
}

fn flip(bytes: &mut [u8], at: usize) {
    bytes[at] ^= 0x10;
}

/// Two neighbouring stretches change places.
fn swap(bytes: &mut [u8], first: std::ops::Range<usize>, second_end: usize) {
    bytes[first.start..second_end].rotate_left(first.len());
}

fn audio_chunks(bytes: &[u8]) -> Vec<Chunk> {
    chunks(bytes).into_iter().filter(|chunk| chunk.kind == AUDIO).collect()
}

/// Damages the archive of one recording, looks at what is said and how much of its seven seconds is lost, and puts it right again.
fn check_archive(
    appliance: &Appliance,
    recordings: &[Value],
    kind: &str,
    lost_s_max: usize,
    damage: impl FnOnce(&mut Vec<u8>),
) {
    let path = archive_of(appliance, &recordings[0]);
    let id = recordings[0]["id"].as_str().unwrap().to_owned();
    let before = change(&path, damage);
    let found = findings(appliance);
    assert!(found.iter().any(|finding| *finding == (id.clone(), kind.to_owned())), "{kind} in {found:?}");
    assert!(found.iter().all(|(whose, _)| *whose == id), "the others are whole: {found:?}");
    let one = appliance.ctl(&["recordings", "verify", &id]);
    assert_eq!(one.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&one.stdout).contains(kind));
    let lost = samples_lost(appliance, &recordings[0], 1);
    assert!(lost <= lost_s_max * 8_000, "{kind}: {lost} samples are lost");
    assert_whole(appliance, &recordings[1], 2);
    fs::write(&path, before).unwrap();
    assert_eq!(findings(appliance), []);
}

#[test]
fn a_damaged_archive_is_named_and_the_rest_plays() {
    let appliance = Appliance::start("[archive]\ncodec = \"as-received\"\n");
    let recordings = record(&appliance, &[1, 2], "archived");
    assert_eq!(findings(&appliance), []);
    let check = |kind, lost_s_max, damage: &dyn Fn(&mut Vec<u8>)| {
        check_archive(&appliance, &recordings, kind, lost_s_max, damage);
    };
    check("damaged", 1, &|bytes| {
        let chunk = audio_chunks(bytes)[2];
        flip(bytes, chunk.offset + chunk.length / 2);
    });
    check("damaged", 1, &|bytes| {
        let header = audio_chunks(bytes)[3].offset;
        flip(bytes, header + 5);
    });
    check("header-damaged", 0, &|bytes| flip(bytes, 20));
    check("header-damaged", 0, &|bytes| flip(bytes, 100));
    check("cut-tail", 0, &|bytes| bytes.truncate(bytes.len() - 30));
    check("cut-tail", 4, &|bytes| bytes.truncate(bytes.len() / 2));
    check("swapped", 0, &|bytes| {
        let [.., a, b] = audio_chunks(bytes)[1..3] else { panic!("too few chunks") };
        swap(bytes, a.offset..b.offset, b.offset + b.length);
    });
    check("missing", 1, &|bytes| {
        let chunk = audio_chunks(bytes)[2];
        bytes.drain(chunk.offset..chunk.offset + chunk.length);
    });
    check("repeated", 0, &|bytes| {
        let chunk = audio_chunks(bytes)[2];
        let copy = bytes[chunk.offset..chunk.offset + chunk.length].to_vec();
        bytes.splice(chunk.offset..chunk.offset, copy);
    });
    // A file that is whole, in the place of another.
    let [first, second] = [0, 1].map(|n| archive_of(&appliance, &recordings[n]));
    let before = change(&first, |bytes| *bytes = fs::read(&second).unwrap());
    assert!(findings(&appliance).iter().any(|(whose, _)| recordings[0]["id"] == whose.as_str()));
    fs::write(&first, before).unwrap();
    // No file at all.
    let before = fs::read(&first).unwrap();
    fs::remove_file(&first).unwrap();
    assert!(findings(&appliance).iter().any(|(whose, _)| recordings[0]["id"] == whose.as_str()));
    fs::write(&first, before).unwrap();
    assert_eq!(findings(&appliance), []);
}

/// Damages the journal while nobody writes it, and looks at what is said after the next start.
fn check_journal(
    appliance: &mut Appliance,
    recordings: &[Value],
    kinds: &[&str],
    lost_s_max: usize,
    damage: impl FnOnce(&mut Vec<u8>, &[callvault_journal::FrameRef]),
) {
    appliance.stop();
    let path = journal_files(appliance).remove(0);
    let known = frames(&path);
    let before = change(&path, |bytes| damage(bytes, &known));
    appliance.launch();
    let found = findings(appliance);
    assert!(found.iter().any(|(_, kind)| kinds.contains(&kind.as_str())), "one of {kinds:?} in {found:?}");
    for (recording, number) in recordings.iter().zip(1..) {
        let lost = samples_lost(appliance, recording, number);
        assert!(lost <= lost_s_max * 8_000, "{kinds:?}: {lost} samples are lost");
    }
    appliance.stop();
    fs::write(&path, before).unwrap();
    appliance.launch();
    assert_eq!(findings(appliance), []);
}

#[test]
fn a_damaged_journal_is_named_and_the_rest_plays() {
    let mut appliance =
        Appliance::start("[archive]\ncodec = \"as-received\"\n[queue]\nbackoff_min = \"1h\"\nbackoff_max = \"1d\"\n");
    // What is archived leaves the journal.
    keep_from_archiving(&appliance);
    let recordings = record(&appliance, &[1, 2], "failed");
    let audio = |frames: &[callvault_journal::FrameRef]| {
        let audio = frames.iter().filter(|frame| frame.kind == Kind::Audio);
        audio.map(|frame| frame.offset as usize..(frame.offset + frame.frame_len()) as usize).collect::<Vec<_>>()
    };
    check_journal(&mut appliance, &recordings, &["damaged", "not-authentic"], 1, |bytes, frames| {
        flip(bytes, audio(frames)[9].start + 200);
    });
    check_journal(&mut appliance, &recordings, &["damaged"], 1, |bytes, frames| {
        flip(bytes, audio(frames)[9].start + 9)
    });
    check_journal(&mut appliance, &recordings, &["out-of-order"], 0, |bytes, frames| {
        let audio = audio(frames);
        let pair = audio.windows(2).position(|pair| pair[0].end == pair[1].start && pair[0].len() != pair[1].len());
        let pair = pair.or_else(|| audio.windows(2).position(|pair| pair[0].end == pair[1].start)).unwrap();
        swap(bytes, audio[pair].clone(), audio[pair + 1].end);
    });
    check_journal(&mut appliance, &recordings, &["sequence-gap"], 1, |bytes, frames| {
        drop(bytes.drain(audio(frames)[9].clone()));
    });
    check_journal(&mut appliance, &recordings, &["repeated"], 0, |bytes, frames| {
        let frame = audio(frames)[9].clone();
        let copy = bytes[frame.clone()].to_vec();
        bytes.splice(frame.end..frame.end, copy);
    });
    check_journal(&mut appliance, &recordings, &["damaged", "sequence-gap"], 4, |bytes, frames| {
        // In the middle of a frame; what was promised to be there is told by what comes after.
        let middle = audio(frames)[audio(frames).len() / 2].start + 50;
        bytes[middle..middle + 4_096].fill(0);
    });

    // What was not lost is archived as soon as it can be.
    let_archive(&appliance);
    for job in appliance.jobs_left() {
        let id = job["id"].as_str().unwrap();
        assert!(appliance.ctl(&["jobs", "retry", id]).status.success(), "{job:#}");
    }
    for number in [1, 2] {
        let recording = appliance.archived(&Facts::incoming(number).call_id);
        assert_whole(&appliance, &recording, number);
    }
    assert_eq!(findings(&appliance), []);
}

#[test]
fn a_journal_that_was_cut_short_costs_what_was_cut() {
    let mut appliance =
        Appliance::start("[archive]\ncodec = \"as-received\"\n[queue]\nbackoff_min = \"1h\"\nbackoff_max = \"1d\"\n");
    keep_from_archiving(&appliance);
    let recordings = record(&appliance, &[1, 2], "failed");
    appliance.stop();
    let path = journal_files(&appliance).remove(0);
    change(&path, |bytes| bytes.truncate(bytes.len() * 6 / 10));
    appliance.launch();
    let found = findings(&appliance);
    for (recording, number) in recordings.iter().zip(1..) {
        assert!(found.iter().any(|(whose, _)| recording["id"] == whose.as_str()), "it is named: {found:?}");
        let lost = samples_lost(&appliance, recording, number);
        assert!(lost < 5 * 8_000, "{lost} of 56,000 samples are lost with the last two fifths");
    }
}
