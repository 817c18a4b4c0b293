//! The fields that a call leaves in systemd's journal, read where journald would read them.

#![allow(clippy::unwrap_used)]

mod rig;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use rig::rtp::play_ulaw;
use rig::shapes::{Facts, webex};
use rig::sip::Client;
use rig::sound::{FRAME, packets, speech};
use rig::{Appliance, wait_for};

/// Becomes the daemon where nothing else of /run is, and a socket of ours stands for journald's; its standard error stream is said to be the
/// journal, as systemd says it.
const STANDING_IN: &str = "mount -t tmpfs none /run && mkdir -p /run/systemd/journal && ln -s \"$JOURNAL\" /run/systemd/journal/socket \
                           && JOURNAL_STREAM=$(stat -L -c %d:%i /proc/self/fd/2) exec \"$@\"";

type Fields = BTreeMap<String, String>;

/// The fields of a datagram: `NAME=value`, or the name alone, then the value's length and the value.
fn fields(mut datagram: &[u8]) -> Fields {
    let mut found = Fields::new();
    while !datagram.is_empty() {
        let end = datagram.iter().position(|byte| *byte == b'\n').unwrap();
        let line = std::str::from_utf8(&datagram[..end]).unwrap();
        let rest = &datagram[end + 1..];
        let (name, value);
        if let Some((before, after)) = line.split_once('=') {
            (name, value) = (before, after.to_owned());
            datagram = rest;
        } else {
            let length = usize::try_from(u64::from_le_bytes(rest[..8].try_into().unwrap())).unwrap();
            (name, value) = (line, String::from_utf8(rest[8..8 + length].to_vec()).unwrap());
            assert_eq!(rest[8 + length], b'\n');
            datagram = &rest[9 + length..];
        }
        assert!(found.insert(name.to_owned(), value).is_none(), "{name} is there twice");
    }
    found
}

#[test]
fn a_call_can_be_followed_by_its_recording_and_every_event_is_explained() {
    let mounts = || Command::new("unshare").args(["--mount", "true"]).status().is_ok_and(|status| status.success());
    if !nix::unistd::geteuid().is_root() || !mounts() {
        eprintln!("SKIPPED: a mount namespace is made by root alone");
        return;
    }
    let mut appliance = Appliance::prepare("[archive]\ncodec = \"as-received\"\n");
    let path = appliance.runtime().join("journal");
    let journal = UnixDatagram::bind(&path).unwrap();
    journal.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
    let stands_for = format!("JOURNAL={}", path.display());
    appliance.spawn_by(&["env", &stands_for, "unshare", "--mount", "sh", "-c", STANDING_IN, "sh"]);
    appliance.wait_ready();

    let facts = Facts::incoming(73_001);
    let voice = packets(&speech(1, 140.0, 8_000, 20 * FRAME));
    let mut client = Client::udp(appliance.sip());
    play_ulaw(&client.call(&webex(&facts, appliance.sip())), &[&voice, &voice]);
    client.bye();
    let id = appliance.archived(&facts.call_id)["id"].as_str().unwrap().to_owned();
    assert_eq!(appliance.ask("DELETE", &format!("/v1/recordings/{id}")).status, 200);

    let mut lines: Vec<Fields> = Vec::new();
    let mut datagram = vec![0; 1 << 20];
    wait_for("the last event of the call", || {
        while let Ok(bytes) = journal.recv(&mut datagram) {
            lines.push(fields(&datagram[..bytes]));
        }
        lines.iter().any(|line| line.get("CALLVAULT_EVENT").is_some_and(|event| event == "deleted")).then_some(())
    });
    let of_call: Vec<&Fields> = lines.iter().filter(|line| line.get("CALLVAULT_RECORDING") == Some(&id)).collect();
    let events: Vec<&str> = of_call.iter().filter_map(|line| line.get("CALLVAULT_EVENT")).map(String::as_str).collect();
    assert_eq!(events, ["call-began", "call-ended", "archived", "deleted"]);
    assert_eq!(of_call[1]["CALLVAULT_VERDICT"], "ok");

    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("packaging/systemd/callvault.catalog");
    let catalog = fs::read_to_string(file).unwrap();
    for line in &lines {
        assert_eq!(line["SYSLOG_IDENTIFIER"], "callvaultd");
        assert!(["3", "4", "6", "7"].contains(&line["PRIORITY"].as_str()) && !line["MESSAGE"].is_empty(), "{line:?}");
        assert_eq!(line.contains_key("CALLVAULT_EVENT"), line.contains_key("MESSAGE_ID"), "{line:?}");
        if let Some(message_id) = line.get("MESSAGE_ID") {
            assert!(catalog.contains(&format!("\n-- {message_id}\n")), "{line:?}");
        }
        let all = line.values().cloned().collect::<Vec<_>>().join("\n");
        for number in [&facts.local_number, &facts.remote_number] {
            assert!(!all.contains(number.trim_start_matches('+')), "a number is in the journal: {line:?}");
        }
    }
    assert!(!appliance.log().contains("archived and verified"), "what the journal has is not written again");
}
