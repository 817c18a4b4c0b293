//! A store on a share that fails: calls go on as if nothing were, nothing is written where the share is not, what is wrong is told, and
//! everything arrives when it is over.

#![allow(clippy::unwrap_used)]

mod rig;

use std::path::Path;

use nix::sys::signal::Signal;
use rig::rtp::play_ulaw;
use rig::shapes::{Facts, webex};
use rig::share::Share;
use rig::sip::Client;
use rig::sound::{FRAME, find_exact, from_ulaw, packets, speech};
use rig::{Appliance, wait_until};
use serde_json::Value;

/// Two seconds.
const PACKETS: usize = 100;

/// An appliance whose store is on a share.
struct Rig {
    // In this order: the daemon must be gone before the share is, or the share could not be unmounted.
    appliance: Appliance,
    share: Share,
}

impl Rig {
    /// None where the machine cannot do it.
    fn start() -> Option<Self> {
        if !Share::can_be_had() {
            return None;
        }
        let mut appliance = Appliance::prepare("");
        let share = Share::mount(appliance.home());
        let settings = format!(
            "[store]\npath = {:?}\ntimeout = \"1s\"\n[archive]\ncodec = \"as-received\"\n",
            share.point().join("store")
        );
        std::fs::write(appliance.home().join("conf.d/test.toml"), settings).unwrap();
        appliance.launch();
        Some(Self { appliance, share })
    }

    /// Waits until the metrics say that the store is in this state.
    fn wait_state(&self, state: &str) {
        let line = format!("callvault_store_state{{state=\"{state}\"}} 1");
        wait_until(&format!("the store is {state}"), || {
            let metrics = self.appliance.ask("GET", "/metrics").body;
            String::from_utf8_lossy(&metrics).contains(&line)
        });
    }

    /// A component's status and reason.
    fn component(&self, name: &str) -> (String, String) {
        let health = self.appliance.ask("GET", "/health").json();
        let text = |field: &str| health["components"][name][field].as_str().unwrap_or_default().to_owned();
        (text("status"), text("reason"))
    }

    fn audio_status(&self, recording: &Value) -> u16 {
        let id = recording["id"].as_str().unwrap();
        self.appliance.ask("GET", &format!("/v1/recordings/{id}/audio?format=wav")).status
    }
}

fn voices(number: u32) -> [Vec<Vec<u8>>; 2] {
    [120.0, 220.0].map(|pitch| packets(&speech(u64::from(number) + pitch as u64, pitch, 8_000, PACKETS * FRAME)))
}

/// Makes a call; its identifier.
fn call(appliance: &Appliance, number: u32) -> String {
    let facts = Facts::incoming(number);
    let mut client = Client::udp(appliance.sip());
    let media = client.call(&webex(&facts, appliance.sip()));
    let voices = voices(number);
    play_ulaw(&media, &[&voices[0], &voices[1]]);
    client.bye();
    facts.call_id
}

/// That every packet of the call is in its recording, which has the verdict ok.
fn assert_whole(appliance: &Appliance, recording: &Value, number: u32) {
    assert_eq!(recording["verdict"], "ok", "{recording:#}");
    for (channel, voice) in appliance.wav(recording).channels.iter().zip(voices(number)) {
        find_exact(channel, &from_ulaw(&voice.concat())).unwrap();
    }
}

/// Files of any kind below a folder.
fn files(folder: &Path) -> usize {
    let entries = std::fs::read_dir(folder).unwrap().map(Result::unwrap);
    entries.map(|entry| if entry.path().is_dir() { files(&entry.path()) } else { 1 }).sum()
}

/// The share gets the fault under a call; the store is then in `state`, what it has can be played or not, and all is well afterwards.
fn check(fault: &str, state: &str, played: u16) {
    let Some(rig) = Rig::start() else { return };
    let appliance = &rig.appliance;
    let before = appliance.archived(&call(appliance, 1));
    assert_whole(appliance, &before, 1);
    let (recorder, served) = (appliance.recorder(), appliance.home().join("served"));
    let stored = files(&served);
    rig.share.set(fault);
    let during = call(appliance, 2);
    if played == 200 {
        // Only a write can find out.
        assert_eq!(rig.audio_status(&before), 200);
    }
    rig.wait_state(state);
    assert_eq!(rig.audio_status(&before), played, "{fault}");
    let (status, reason) = rig.component("store");
    assert!(status == "degraded" && reason.starts_with(state), "{status}: {reason}");
    assert_eq!(rig.component("queue").0, "ok", "a job that waits has not failed");
    // Another one while it is known, and both can be heard.
    let known = call(appliance, 3);
    for (call_id, number) in [(&during, 2), (&known, 3)] {
        let recording = appliance.recording(call_id);
        assert_eq!(recording["archive"]["state"], "journal", "{recording:#}");
        assert_whole(appliance, &recording, number);
    }
    rig.share.set("");
    rig.wait_state("ok");
    for (call_id, number) in [(&during, 2), (&known, 3)] {
        assert_whole(appliance, &appliance.archived(call_id), number);
    }
    assert_whole(appliance, &before, 1);
    appliance.assert_verifies();
    assert_eq!(files(&served), stored + 2, "two archives came, and nothing else");
    assert_eq!(appliance.recorder(), recorder, "the recorder did not notice");
}

#[test]
fn a_share_that_hangs() {
    check("hung", "hung", 503);
}

#[test]
fn a_share_whose_server_is_gone() {
    check("EHOSTDOWN", "gone", 503);
}

#[test]
fn a_share_with_a_stale_handle() {
    check("ESTALE", "stale", 503);
}

#[test]
fn a_share_that_fails() {
    check("EIO", "io-error", 503);
}

#[test]
fn a_share_that_is_read_only() {
    check("EROFS", "read-only", 200);
}

#[test]
fn a_share_that_is_full() {
    check("ENOSPC", "full", 200);
}

#[test]
fn a_share_whose_quota_is_exhausted() {
    check("EDQUOT", "full", 200);
}

#[test]
fn a_share_that_may_not_be_written() {
    check("EACCES", "denied", 200);
}

#[test]
fn a_share_that_is_unmounted_and_mounted_again() {
    let Some(mut rig) = Rig::start() else { return };
    let before = rig.appliance.archived(&call(&rig.appliance, 1));
    rig.share.unmount();
    rig.wait_state("absent");
    assert_eq!(rig.audio_status(&before), 503);
    let during = call(&rig.appliance, 2);
    assert_whole(&rig.appliance, &rig.appliance.recording(&during), 2);
    assert_eq!(rig.share.seen(), [] as [String; 0], "nothing is written below the mount point");
    // Nor by a daemon that is started without the share.
    rig.appliance.stop();
    rig.appliance.launch();
    rig.wait_state("absent");
    assert_eq!(rig.share.seen(), [] as [String; 0], "nothing is written below the mount point");
    rig.share.mount_again();
    rig.wait_state("ok");
    assert_whole(&rig.appliance, &rig.appliance.archived(&during), 2);
    assert_whole(&rig.appliance, &before, 1);
    rig.appliance.assert_verifies();
}

#[test]
fn a_share_whose_server_dies_and_that_is_mounted_over() {
    let Some(mut rig) = Rig::start() else { return };
    let before = rig.appliance.archived(&call(&rig.appliance, 1));
    // Calls into it hang, and nobody will ever answer them.
    rig.share.set("hung");
    rig.wait_state("hung");
    rig.share.kill_server();
    rig.wait_state("gone");
    rig.share.set("");
    rig.share.unmount_dead();
    rig.share.mount_again();
    rig.wait_state("ok");
    assert_whole(&rig.appliance, &before, 1);
    assert_whole(&rig.appliance, &rig.appliance.archived(&call(&rig.appliance, 2)), 2);
    rig.appliance.assert_verifies();
}

/// The daemon is ended while a call into the share hangs, and another takes its place although the kernel cannot end that call.
fn check_replaced(signal: Signal) {
    let Some(mut rig) = Rig::start() else { return };
    let before = rig.appliance.archived(&call(&rig.appliance, 1));
    rig.share.set("hung");
    rig.wait_state("hung");
    let left = rig.appliance.leave(signal);
    rig.appliance.launch();
    rig.wait_state("hung");
    let during = call(&rig.appliance, 2);
    assert_whole(&rig.appliance, &rig.appliance.recording(&during), 2);
    rig.share.set("");
    rig.wait_state("ok");
    left.gone();
    assert_whole(&rig.appliance, &rig.appliance.archived(&during), 2);
    assert_whole(&rig.appliance, &before, 1);
}

#[test]
fn a_daemon_is_stopped_and_another_started_while_the_share_hangs() {
    check_replaced(Signal::SIGTERM);
}

#[test]
fn a_daemon_is_killed_and_another_started_while_the_share_hangs() {
    check_replaced(Signal::SIGKILL);
}
