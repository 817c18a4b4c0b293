//! After a call nothing on disk can be read without the key, and the process that faces the network never had it.

#![allow(clippy::unwrap_used)]

mod rig;

use std::collections::HashSet;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rig::inspect::{files_below, private_key_text};
use rig::rtp::play_ulaw;
use rig::shapes::{Facts, webex};
use rig::sip::Client;
use rig::sound::{FRAME, from_ulaw, packets, speech};
use rig::{Appliance, process};

/// A run of audio so long is no coincidence.
const RUN_BYTES: usize = 40;
/// Runs with fewer different bytes are silence, which is in many files.
const DIFFERENT_BYTES_MIN: usize = 10;

/// What must not be found.
struct Secrets {
    texts: Vec<String>,
    runs: HashSet<[u8; RUN_BYTES]>,
}

impl Secrets {
    fn of(facts: &Facts, voices: &[Vec<Vec<u8>>]) -> Self {
        let digits = |number: &str| number.trim_start_matches('+').to_owned();
        let mut texts = vec![facts.local_name.clone(), digits(&facts.local_number), digits(&facts.remote_number)];
        texts.extend(facts.local_name.split(' ').map(str::to_owned));
        let mut runs = HashSet::new();
        for payload in voices.iter().flatten() {
            let samples: Vec<u8> = from_ulaw(payload).iter().flat_map(|sample| sample.to_le_bytes()).collect();
            for run in payload.windows(RUN_BYTES).chain(samples.windows(RUN_BYTES)) {
                if run.iter().collect::<HashSet<_>>().len() >= DIFFERENT_BYTES_MIN {
                    runs.insert(run.try_into().unwrap());
                }
            }
        }
        Self { texts, runs }
    }

    /// What of it is in these bytes.
    fn found_in(&self, bytes: &[u8]) -> Vec<String> {
        let mut found: Vec<String> =
            self.texts.iter().filter(|text| contains(bytes, text.as_bytes())).map(|text| format!("{text:?}")).collect();
        if bytes.windows(RUN_BYTES).any(|run| self.runs.contains(run)) {
            found.push("audio".into());
        }
        found
    }

    fn assert_nowhere_below(&self, folders: &[&Path]) {
        let files: Vec<PathBuf> = folders.iter().flat_map(|folder| files_below(folder)).collect();
        let leaks: Vec<(PathBuf, Vec<String>)> = files
            .iter()
            .map(|path| (path.clone(), self.found_in(&fs::read(path).unwrap_or_default())))
            .filter(|(_, found)| !found.is_empty())
            .collect();
        assert!(leaks.is_empty(), "{leaks:#?}");
    }
}

fn contains(bytes: &[u8], wanted: &[u8]) -> bool {
    let mut rest = bytes;
    while let Some(at) = rest.iter().position(|byte| *byte == wanted[0]) {
        if rest[at..].starts_with(wanted) {
            return true;
        }
        rest = &rest[at + 1..];
    }
    false
}

fn check_nothing_is_readable(codec: &str, number: u32) {
    let mut appliance = Appliance::start(&format!("[archive]\ncodec = \"{codec}\"\n"));
    let facts = Facts { outgoing: true, ..Facts::incoming(number) };
    let voices = [(41, 120.0), (42, 220.0)].map(|(seed, pitch)| packets(&speech(seed, pitch, 8_000, 100 * FRAME)));
    let secrets = Secrets::of(&facts, &voices);
    let folders = [appliance.home().to_owned(), appliance.runtime().to_owned()];
    let folders = [folders[0].as_path(), folders[1].as_path()];

    // The search finds what is there to be found, whatever surrounds it.
    assert_eq!(secrets.found_in(&[b"xx", facts.local_number.as_bytes(), b"yy"].concat()).len(), 1);
    assert_eq!(secrets.found_in(facts.local_name.as_bytes()).len(), 3);
    assert_eq!(secrets.found_in(&[b"abc".as_slice(), &voices[0][40], b"def"].concat()), ["audio"]);
    assert!(secrets.runs.len() > 10_000);

    let mut client = Client::udp(appliance.sip());
    let media = client.call(&webex(&facts, appliance.sip()));
    play_ulaw(&media, &[&voices[0], &voices[1]]);
    secrets.assert_nowhere_below(&folders);
    client.bye();
    let recording = appliance.archived(&facts.call_id);
    assert_eq!(recording["local_name"], facts.local_name.as_str());
    // Playing and listing leave nothing behind either.
    let _ = appliance.wav(&recording);
    assert_eq!(appliance.get("/v1/recordings?number=%2B4930770")["recordings"].as_array().unwrap().len(), 0);
    secrets.assert_nowhere_below(&folders);
    appliance.stop();
    secrets.assert_nowhere_below(&folders);
}

#[test]
fn nothing_on_disk_is_readable_when_payloads_are_kept() {
    check_nothing_is_readable("as-received", 61);
}

#[test]
fn nothing_on_disk_is_readable_when_payloads_are_encoded() {
    check_nothing_is_readable("opus", 62);
}

/// Whether a process has these bytes anywhere in its memory.
fn memory_has(process: u32, wanted: &[u8]) -> bool {
    let memory = File::open(format!("/proc/{process}/mem")).expect("reading a process's memory needs root");
    let maps = fs::read_to_string(format!("/proc/{process}/maps")).unwrap();
    let regions = maps.lines().filter(|line| line.split(' ').nth(1).is_some_and(|rights| rights.starts_with('r')));
    regions.into_iter().any(|line| {
        let (from, to) = line.split(' ').next().unwrap().split_once('-').unwrap();
        let [from, to] = [from, to].map(|text| u64::from_str_radix(text, 16).unwrap());
        let mut bytes = vec![0; usize::try_from(to - from).unwrap()];
        // Some regions belong to the kernel and are not to be read.
        memory.read_exact_at(&mut bytes, from).is_ok() && contains(&bytes, wanted)
    })
}

#[test]
fn the_recorder_has_neither_the_private_key_nor_the_files_that_need_it() {
    let appliance = Appliance::start("");
    let text = private_key_text(&appliance);
    let encoded = text.strip_prefix("callvault-private-1:").unwrap();
    let key = STANDARD.decode(encoded).unwrap();
    assert_eq!(key.len(), 32);
    let facts = Facts::incoming(63);
    let voices = [packets(&speech(43, 120.0, 8_000, 50 * FRAME)), packets(&speech(44, 220.0, 8_000, 50 * FRAME))];
    let mut client = Client::udp(appliance.sip());
    let media = client.call(&webex(&facts, appliance.sip()));
    play_ulaw(&media, &[&voices[0], &voices[1]]);

    let (daemon, recorder) = (appliance.daemon(), appliance.recorder());
    assert!(memory_has(daemon, &key), "the search finds the key where it is");
    assert!(!memory_has(recorder, &key), "the recorder has the private key");
    assert!(!memory_has(recorder, encoded.as_bytes()), "the recorder has the text of the private key");
    assert!(memory_has(recorder, b"callvault-public-1:"), "the search finds in the recorder what it has");

    let needs_the_key = |path: &PathBuf| {
        let inside = path.strip_prefix(appliance.data()).ok().and_then(|path| path.components().next());
        inside.is_some_and(|first| {
            let first = first.as_os_str().to_str().unwrap();
            first == "keys" || first == "store" || first.starts_with("catalogue") || first.starts_with("queue")
        })
    };
    assert!(process::open_files(daemon).iter().any(needs_the_key), "the search finds the catalogue where it is open");
    let open: Vec<PathBuf> = process::open_files(recorder).into_iter().filter(needs_the_key).collect();
    assert!(open.is_empty(), "the recorder has open: {open:?}");
    let environment = fs::read(format!("/proc/{recorder}/environ")).unwrap();
    assert!(environment.is_empty(), "the recorder's environment is empty");
    client.bye();
}
