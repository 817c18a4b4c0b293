//! A backup of a running appliance, restored on another machine, with the real programs.

#![allow(clippy::unwrap_used)]

mod rig;

use std::fs;
use std::path::Path;
use std::process::{Command, Output};
use std::thread;

use rig::Appliance;
use rig::rtp::play_ulaw;
use rig::shapes::{Facts, webex};
use rig::sip::Client;
use rig::sound::{FRAME, packets, speech};
use serde_json::Value;

fn record(appliance: &Appliance, number: u32) -> Value {
    let facts = Facts::incoming(number);
    let voice = packets(&speech(1, 140.0, 8_000, 60 * FRAME));
    let mut client = Client::udp(appliance.sip());
    let media = client.call(&webex(&facts, appliance.sip()));
    play_ulaw(&media, &[&voice, &voice]);
    client.bye();
    appliance.archived(&facts.call_id)
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&[output.stdout.clone(), output.stderr.clone()].concat()).into_owned()
}

/// A file with a passphrase beside the appliance.
fn passphrase(appliance: &Appliance, words: &str) -> String {
    let path = appliance.home().join(format!("passphrase-{}", words.len()));
    fs::write(&path, format!("{words}\n")).unwrap();
    path.to_str().unwrap().to_owned()
}

fn copy_folder(from: &Path, to: &Path) {
    let copied = Command::new("cp").arg("-a").arg(from).arg(to).status().unwrap();
    assert!(copied.success());
}

const WORDS: &str = "four plain english words";

#[test]
fn what_was_backed_up_is_heard_on_another_machine() {
    let appliance = Appliance::start("");
    let recording = record(&appliance, 51_001);
    let sound = appliance.wav(&recording);
    let made = appliance.ctl(&["tokens", "create", "--name", "integration", "--level", "administrator"]);
    assert!(made.status.success(), "{}", said(&made));

    let of_portal = "[log]\nlevel = \"debug\"\n";
    fs::write(appliance.data().join("conf.d/50-portal.toml"), of_portal).unwrap();

    // While a call goes on, of which no packet is lost.
    let file = appliance.home().join("callvault.backup");
    let file = file.to_str().unwrap();
    let backup = thread::scope(|scope| {
        let live = scope.spawn(|| record(&appliance, 51_002));
        let backup = appliance.ctl(&["backup", file, "--passphrase-file", &passphrase(&appliance, WORDS)]);
        assert_eq!(live.join().unwrap()["verdict"], "ok");
        backup
    });
    assert!(backup.status.success(), "{}", said(&backup));
    assert!(said(&backup).contains("not in it: the recordings"), "{}", said(&backup));
    let again = appliance.ctl(&["backup", file, "--passphrase-file", &passphrase(&appliance, WORDS)]);
    assert!(!again.status.success() && said(&again).contains("name another"), "{}", said(&again));
    assert!(!appliance.data().join("catalogue.backup.tmp").exists());

    let mut other = Appliance::prepare("");
    let restore = |other: &Appliance, more: &[&str]| {
        let words = passphrase(other, WORDS);
        other.ctl(&[&["restore", file, "--passphrase-file", &words], more].concat())
    };
    let dry = restore(&other, &["--dry-run"]);
    assert!(dry.status.success() && said(&dry).contains("nothing was changed"), "{}", said(&dry));
    assert!(!other.data().join("catalogue.db").exists() && !other.data().join("keys/appliance.key").exists());
    let restored = restore(&other, &[]);
    assert!(restored.status.success() && said(&restored).contains("is restored"), "{}", said(&restored));
    assert!(other.data().join("restored-configuration/callvault.toml").exists());
    let kept = other.data().join("restored-configuration/conf.d/50-portal.toml");
    assert_eq!(fs::read_to_string(kept).unwrap(), of_portal);
    copy_folder(&appliance.data().join("store"), &other.data().join("store"));
    other.launch();
    let found = other.archived(recording["call_id"].as_str().unwrap());
    let same = ["id", "remote_number", "started_at", "duration_ms", "archive"];
    assert!(same.iter().all(|name| found[*name] == recording[*name]), "{found:#}\n{recording:#}");
    assert_eq!(other.wav(&found).channels, sound.channels);
    let tokens = other.ctl(&["tokens", "list"]);
    assert!(said(&tokens).contains("integration"), "{}", said(&tokens));

    // Not over what is there, running or stopped.
    let refused = restore(&other, &[]);
    assert!(!refused.status.success() && said(&refused).contains("callvaultd"), "{}", said(&refused));
    other.stop();
    let refused = restore(&other, &[]);
    assert!(!refused.status.success() && said(&refused).contains("empty data folder"), "{}", said(&refused));
}

#[test]
fn a_backup_that_is_damaged_or_locked_otherwise_changes_nothing() {
    let appliance = Appliance::start("");
    let file = appliance.home().join("callvault.backup");
    let short =
        appliance.ctl(&["backup", file.to_str().unwrap(), "--passphrase-file", &passphrase(&appliance, "short")]);
    assert!(!short.status.success() && said(&short).contains("12 characters"), "{}", said(&short));
    assert!(!file.exists());
    let words = passphrase(&appliance, WORDS);
    let made = appliance.ctl(&["backup", file.to_str().unwrap(), "--passphrase-file", &words]);
    assert!(made.status.success(), "{}", said(&made));
    let whole = fs::read(&file).unwrap();

    let other = Appliance::prepare("");
    let check = |bytes: &[u8], words: &str, expected: &str| {
        let path = other.home().join("tried.backup");
        fs::write(&path, bytes).unwrap();
        let words = passphrase(&other, words);
        let tried = other.ctl(&["restore", path.to_str().unwrap(), "--passphrase-file", &words]);
        assert!(!tried.status.success() && said(&tried).contains(expected), "{}", said(&tried));
        let left = ["catalogue.db", "keys/appliance.key", "store.identity", "restore.tmp", "restored-configuration"];
        assert!(left.iter().all(|name| !other.data().join(name).exists()), "{}", said(&tried));
    };
    check(&whole, "five plain english words", "not the passphrase");
    check(&whole[..whole.len() / 2], WORDS, "damaged or cut off");
    check(&whole[..whole.len() - 1], WORDS, "damaged or cut off");
    let mut changed = whole.clone();
    let at = whole.len() * 3 / 4;
    changed[at] ^= 1;
    check(&changed, WORDS, "damaged or cut off");
    check(b"not a backup at all", WORDS, "no backup of callvault");
}
