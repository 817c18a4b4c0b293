//! Processes that stop, die and come back: no key is on disk before its recording is kept, and nothing is lost or there twice.

#![allow(clippy::unwrap_used)]

mod rig;

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use callvault_journal::Kind;
use nix::sys::signal::Signal;
use rig::inspect::{archive_files, count_frames, files_below};
use rig::random::Chance;
use rig::rtp::{PACKET, play_ulaw};
use rig::shapes::{Facts, webex};
use rig::sip::Client;
use rig::sound::{FRAME, find_exact, from_ulaw, packets, speech};
use rig::{Appliance, process, wait_for, wait_until};
use serde_json::Value;

const AS_RECEIVED: &str = "[archive]\ncodec = \"as-received\"\n";

fn voice(seed: u64, packets_count: usize) -> Vec<Vec<u8>> {
    packets(&speech(seed, 140.0, 8_000, packets_count * FRAME))
}

fn codes(recording: &Value) -> Vec<&str> {
    recording["flaws"].as_array().unwrap().iter().map(|flaw| flaw["code"].as_str().unwrap()).collect()
}

#[test]
fn a_key_is_on_disk_only_when_the_recording_is_kept() {
    let appliance = Appliance::start(AS_RECEIVED);
    let facts = Facts::incoming(1);
    let voices = [voice(1, 150), voice(2, 150)];
    let mut client = Client::udp(appliance.sip());

    // Nobody says that the call is kept, and nobody is waited for.
    process::halt(appliance.daemon());
    let media = client.call(&webex(&facts, appliance.sip()));
    play_ulaw(&media, &[&voices[0], &voices[1]]);
    wait_until("audio in the journal", || count_frames(&appliance, Kind::Audio) >= 10);
    assert_eq!(count_frames(&appliance, Kind::LaneOpen), 1);
    assert_eq!(count_frames(&appliance, Kind::Key), 0, "the key is on disk before the recording is kept");

    process::send(appliance.daemon(), Signal::SIGCONT);
    wait_until("the key in the journal", || count_frames(&appliance, Kind::Key) > 0);
    client.bye();
    let recording = appliance.archived(&facts.call_id);
    assert_eq!(recording["verdict"], "ok", "{recording:#}");
    let wav = appliance.wav(&recording);
    for (channel, voice) in wav.channels.iter().zip(&voices) {
        find_exact(channel, &from_ulaw(&voice.concat())).unwrap();
    }
}

#[test]
fn a_call_that_ends_before_anybody_says_that_it_is_kept_is_kept() {
    let appliance = Appliance::start(AS_RECEIVED);
    let facts = Facts::incoming(2);
    let voices = [voice(3, 60), voice(4, 60)];
    let mut client = Client::udp(appliance.sip());
    process::halt(appliance.daemon());
    let media = client.call(&webex(&facts, appliance.sip()));
    play_ulaw(&media, &[&voices[0], &voices[1]]);
    client.bye();
    assert_eq!(count_frames(&appliance, Kind::Key), 0);
    process::send(appliance.daemon(), Signal::SIGCONT);
    let recording = appliance.archived(&facts.call_id);
    assert_eq!((&recording["verdict"], codes(&recording)), (&"ok".into(), vec![]), "{recording:#}");
}

#[test]
fn a_call_goes_on_when_the_recorder_is_killed_and_others_come() {
    let appliance = Appliance::start(AS_RECEIVED);
    let facts = Facts::incoming(3);
    let voices = [voice(5, 200), voice(6, 200)];
    let mut client = Client::udp(appliance.sip());
    let media = client.call(&webex(&facts, appliance.sip()));
    play_ulaw(&media, &[&voices[0], &voices[1]]);
    let killed = appliance.recorder();
    process::send(killed, Signal::SIGKILL);

    let begun = Instant::now();
    let after = Facts::incoming(4);
    let mut next = Client::udp(appliance.sip());
    let media = next.call(&webex(&after, appliance.sip()));
    println!("a call was answered {} ms after the recorder was killed", begun.elapsed().as_millis());
    assert_ne!(appliance.recorder(), killed);
    play_ulaw(&media, &[&voices[1][..60], &voices[0][..60]]);
    next.bye();
    let recording = appliance.archived(&after.call_id);
    assert_eq!((&recording["verdict"], codes(&recording)), (&"ok".into(), vec![]), "the call after is not concerned");

    client.bye();
    let recording = appliance.archived(&facts.call_id);
    assert!(codes(&recording).contains(&"recorder-restarted"), "{recording:#}");
    let texts = recording["flaws"].as_array().unwrap().iter().map(|flaw| flaw["text"].as_str().unwrap());
    assert!(texts.into_iter().any(|text| text.contains("which went on")), "{recording:#}");
    // Of 4 s that were sent at most what gathers for one write is gone.
    for track in recording["tracks"].as_array().unwrap() {
        assert!((190..=200).contains(&track["packets"].as_u64().unwrap()), "{recording:#}");
    }
    appliance.assert_verifies();
}

/// A checkpoint that cannot be used: the call ends as it was left, is entered once, and the operator hears of it.
#[test]
fn a_call_whose_checkpoint_cannot_be_used_is_kept_as_far_as_it_got() {
    let appliance = Appliance::start(AS_RECEIVED);
    let facts = Facts::incoming(6);
    let voices = [voice(11, 100), voice(12, 100)];
    let mut client = Client::udp(appliance.sip());
    let media = client.call(&webex(&facts, appliance.sip()));
    play_ulaw(&media, &[&voices[0], &voices[1]]);
    process::halt(appliance.recorder());
    let checkpoints = files_below(&appliance.runtime().join("calls"));
    let session = checkpoints.iter().find(|path| path.extension().is_some_and(|ending| ending == "session")).unwrap();
    let mut bytes = std::fs::read(session).unwrap();
    bytes[6] = 99;
    std::fs::write(session, bytes).unwrap();
    process::send(appliance.recorder(), Signal::SIGKILL);
    let recording = appliance.archived(&facts.call_id);
    assert_eq!((&recording["verdict"], codes(&recording)), (&"degraded".into(), vec!["recorder-restarted"]));
    assert!(recording["flaws"][0]["text"].as_str().unwrap().contains("is missing"), "{recording:#}");
    assert!(appliance.log().contains("its checkpoint cannot be used"));
    assert!(!client.try_bye(), "nobody knows the call any more");
    appliance.assert_verifies();
}

#[test]
fn a_recorder_that_dies_again_and_again_is_started_again_and_again() {
    let appliance = Appliance::start(AS_RECEIVED);
    for _ in 0..6 {
        let recorder = appliance.recorder();
        process::send(recorder, Signal::SIGKILL);
        wait_until("another recorder", || appliance.recorder() != recorder);
    }
    wait_until("calls are recorded again", || appliance.is_ready());
    let facts = Facts::incoming(5);
    let mut client = Client::udp(appliance.sip());
    let media = client.call(&webex(&facts, appliance.sip()));
    let voices = [voice(7, 50), voice(8, 50)];
    play_ulaw(&media, &[&voices[0], &voices[1]]);
    client.bye();
    assert_eq!(appliance.archived(&facts.call_id)["verdict"], "ok");
}

/// Calls to be made while the daemon dies, each accepted for sure.
const CALLS: u32 = 30;

/// What the callers and the one who kills share.
struct Traffic {
    sip: SocketAddr,
    next: AtomicU32,
    accepted: Mutex<BTreeSet<String>>,
    over: AtomicBool,
}

impl Traffic {
    /// Makes calls, one after the other, until enough were accepted.
    fn call(&self) {
        let voices = [voice(9, 25), voice(10, 25)];
        while self.accepted().len() < CALLS as usize {
            let facts = Facts::incoming(1_000 + self.next.fetch_add(1, Ordering::Relaxed));
            let mut client = Client::udp(self.sip);
            let invite = webex(&facts, self.sip);
            // While the daemon is away nobody answers; the peer tries another time.
            let Some(answer) = client.try_invite(&invite, Duration::from_secs(2)) else { continue };
            if answer.status != 200 {
                continue;
            }
            self.accepted().insert(facts.call_id.clone());
            let media: Vec<_> = answer.audio_ports().into_iter().map(|port| (self.sip.ip(), port).into()).collect();
            play_ulaw_carelessly(&media, &voices);
            client.try_bye_once();
        }
    }

    fn accepted(&self) -> std::sync::MutexGuard<'_, BTreeSet<String>> {
        self.accepted.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Audio for somebody who may be gone: that nobody listens is no error.
fn play_ulaw_carelessly(media: &[SocketAddr], voices: &[Vec<Vec<u8>>; 2]) {
    let sockets: Vec<_> = media.iter().map(|to| std::net::UdpSocket::bind((to.ip(), 0)).unwrap()).collect();
    let mut sources = [0xd000_0001, 0xd000_0002].map(|ssrc| rig::rtp::Source::new(ssrc, 0, 160));
    for n in 0..voices[0].len() {
        for ((socket, to), (source, voice)) in sockets.iter().zip(media).zip(sources.iter_mut().zip(voices)) {
            let _ = socket.send_to(&source.packet(&voice[n]), to);
        }
        thread::sleep(PACKET);
    }
}

#[test]
fn a_daemon_killed_at_any_moment_leaves_each_recording_there_once() {
    let seed = std::env::var("CALLVAULT_TEST_SEED").map_or(0x5eed_2026, |text| text.parse().unwrap());
    println!("CALLVAULT_TEST_SEED={seed}");
    let mut chance = Chance(seed);
    let mut appliance = Appliance::start("[archive]\ncodec = \"opus\"\n[queue]\nbackoff_min = \"100ms\"\n");
    let traffic = Traffic {
        sip: appliance.sip(),
        next: AtomicU32::new(0),
        accepted: Mutex::default(),
        over: AtomicBool::new(false),
    };
    thread::scope(|scope| {
        let callers: Vec<_> = (0..3).map(|_| scope.spawn(|| traffic.call())).collect();
        scope.spawn(|| {
            callers.into_iter().for_each(|caller| caller.join().unwrap());
            traffic.over.store(true, Ordering::Relaxed);
        });
        let mut kills = 0;
        // Some kills more when the calls are over, for what is owed then.
        let mut left = 8;
        while left > 0 {
            left -= i32::from(traffic.over.load(Ordering::Relaxed));
            thread::sleep(Duration::from_millis(chance.below(500)));
            appliance.kill();
            kills += 1;
            appliance.launch();
        }
        println!("the daemon was killed {kills} times");
    });

    let accepted = traffic.accepted().clone();
    wait_until("everything is archived", || {
        let recordings = appliance.recordings();
        recordings.len() >= accepted.len() && recordings.iter().all(|r| r["archive"]["state"] == "archived")
    });
    let recordings = appliance.recordings();
    let found: BTreeSet<String> = recordings.iter().map(|r| r["call_id"].as_str().unwrap().to_owned()).collect();
    assert_eq!(found, accepted, "a recording for each session, and no other");
    assert_eq!(recordings.len(), accepted.len(), "each is there once");
    wait_until("everything that was owed is done", || appliance.jobs_left().is_empty());
    appliance.assert_verifies();

    let archives: BTreeSet<String> =
        archive_files(&appliance).iter().map(|path| path.file_stem().unwrap().to_str().unwrap().to_owned()).collect();
    let ids: BTreeSet<String> = recordings.iter().map(|r| r["id"].as_str().unwrap().to_owned()).collect();
    assert_eq!(archives, ids, "an archive for each recording, and no other");
    let left_over = |path: &std::path::PathBuf| path.extension().is_some_and(|ending| ending == "tmp");
    assert_eq!(files_below(&appliance.data().join("store")).into_iter().filter(left_over).count(), 0);
    // What the journal held is archived: only the file that is being written is left.
    wait_for("the journal's space", || (rig::inspect::journal_files(&appliance).len() == 1).then_some(()));
}
