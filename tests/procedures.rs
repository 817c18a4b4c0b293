//! The written procedures against the programs: the system calls of a short call, its archive and its deletion come in the order that
//! docs/durability.md promises; and a lost catalogue comes back by `callvaultctl recover`.

#![allow(clippy::unwrap_used)]

mod rig;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use rig::rtp::play_ulaw;
use rig::shapes::{Facts, webex};
use rig::sip::Client;
use rig::sound::{FRAME, packets, speech};
use rig::{Appliance, wait_until};
use serde_json::Value;

const AS_RECEIVED: &str = "[archive]\ncodec = \"as-received\"\n";

/// Everything that writes, makes durable, renames, removes or sends.
const SYSTEM_CALLS: &str =
    "openat,write,pwrite64,fdatasync,fsync,rename,renameat,renameat2,unlink,unlinkat,sendto,sendmsg";

/// A system call that succeeded.
#[derive(Debug)]
struct Call {
    name: String,
    /// Its arguments; strace puts the path behind each descriptor.
    text: String,
    /// Lines of the trace at which it began and ended.
    began: usize,
    ended: usize,
}

/// The calls in the order in which they began.
struct Trace(Vec<Call>);

impl Trace {
    fn read(path: &Path) -> Self {
        let text = String::from_utf8_lossy(&fs::read(path).unwrap()).into_owned();
        let mut unfinished: BTreeMap<&str, (usize, &str)> = BTreeMap::new();
        let mut calls = Vec::new();
        for (at, line) in text.lines().enumerate() {
            let Some((thread, rest)) = line.split_once(' ') else { continue };
            let rest = rest.trim_start();
            if let Some(begun) = rest.strip_suffix(" <unfinished ...>") {
                unfinished.insert(thread, (at, begun));
                continue;
            }
            let (began, begun) =
                if rest.starts_with("<... ") { unfinished.remove(thread).unwrap_or((at, rest)) } else { (at, rest) };
            // What failed, or is no call at all.
            let is_done = rest.rsplit_once(" = ").is_some_and(|(_, result)| !result.starts_with(['-', '?']));
            if let Some((name, text)) = begun.split_once('(').filter(|_| is_done) {
                calls.push(Call { name: name.to_owned(), text: text.to_owned(), began, ended: at });
            }
        }
        calls.sort_by_key(|call| call.began);
        Self(calls)
    }

    fn all(&self, name: &str, part: &str) -> Vec<&Call> {
        let is_named = |call: &&Call| match name {
            // Both make data durable, and which of them a library calls is its own affair.
            "sync" => ["fsync", "fdatasync"].contains(&call.name.as_str()),
            name => call.name.starts_with(name),
        };
        self.0.iter().filter(is_named).filter(|call| call.text.contains(part)).collect()
    }

    /// The first such call that began after `after` had ended.
    #[track_caller]
    fn next(&self, name: &str, part: &str, after: &Call) -> &Call {
        match self.all(name, part).into_iter().find(|call| call.began > after.ended) {
            Some(call) => call,
            None => panic!("no {name} of {part} after {after:?}"),
        }
    }

    #[track_caller]
    fn first(&self, name: &str, part: &str) -> &Call {
        match self.all(name, part).first() {
            Some(call) => call,
            None => panic!("no {name} of {part}"),
        }
    }

    #[track_caller]
    fn last_before(&self, name: &str, part: &str, before: &Call) -> &Call {
        match self.all(name, part).into_iter().rfind(|call| call.ended < before.began) {
            Some(call) => call,
            None => panic!("no {name} of {part} before {before:?}"),
        }
    }
}

#[track_caller]
fn in_order(calls: &[(&str, &Call)]) {
    for pair in calls.windows(2) {
        let [(one, earlier), (other, later)] = pair else { unreachable!() };
        assert!(earlier.ended < later.began, "{one} comes before {other}:\n{earlier:?}\n{later:?}");
    }
}

/// A call, and its recording once it is archived. Until then the endpoint is not asked: every question for recordings is an entry in the
/// audit log, and so a write into the catalogue at any moment.
fn record(appliance: &Appliance) -> Value {
    let facts = Facts::incoming(1);
    let voice = packets(&speech(1, 140.0, 8_000, 60 * FRAME));
    let mut client = Client::udp(appliance.sip());
    let media = client.call(&webex(&facts, appliance.sip()));
    play_ulaw(&media, &[&voice, &voice]);
    client.bye();
    wait_until("the recording is archived", || appliance.log().contains("archived and verified"));
    appliance.archived(&facts.call_id)
}

#[test]
fn the_system_calls_of_a_recording_come_in_the_order_that_is_written_down() {
    let mut appliance = Appliance::prepare(AS_RECEIVED);
    let path = appliance.home().join("trace");
    appliance.launch_traced(SYSTEM_CALLS, &path);
    let recording = record(&appliance);
    wait_until("no job is left", || appliance.jobs_left().is_empty());
    let id = recording["id"].as_str().unwrap();
    let removed = appliance.ctl(&["recordings", "delete", "--yes", id]);
    assert!(removed.status.success(), "{removed:?}");
    wait_until("the archive is gone", || rig::inspect::archive_files(&appliance).is_empty());
    wait_until("no job is left", || appliance.jobs_left().is_empty());
    appliance.stop();
    let trace = Trace::read(&path);

    // 1. The session's checkpoint is there before the client has its answer.
    let answer = trace.first("send", "SIP/2.0 200 OK");
    trace.last_before("rename", ".session", answer);
    // 4 to 7. What a row is made of was synced, and a Commit frame said so, before the row is written.
    let row = trace.next("pwrite64", "catalogue.db-wal", answer);
    let synced = trace.last_before("sync", ".cvj", row);
    let committed = trace.next("pwrite64", ".cvj", synced);
    // 8. The row is durable before the queue has the job, and the queue before the job is no longer owed.
    let row_synced = trace.next("sync", "catalogue.db-wal", row);
    let queued = trace.next("sync", "/db>", row_synced);
    in_order(&[
        ("the end's sync", synced),
        ("its Commit", committed),
        ("the row", row),
        ("its sync", row_synced),
        ("the queue's", queued),
        ("taking the job off", trace.next("pwrite64", "catalogue.db-wal", queued)),
    ]);
    // 10 to 13. Written aside, synced, renamed, the folder synced; read back; on record; only then is the journal freed.
    let (temporary, archive) = (format!(".{id}.cva.tmp"), format!("/{id}.cva"));
    let renamed = trace.first("rename", &temporary);
    let written = trace.last_before("pwrite64", &temporary, renamed);
    let file_synced = trace.last_before("sync", &temporary, renamed);
    let folder = archive_folder(&renamed.text);
    let folder_synced = trace.next("sync", &format!("{folder}>"), renamed);
    let read_back = trace.next("openat", &archive, folder_synced);
    let on_record = trace.next("sync", "catalogue.db-wal", read_back);
    let freed = trace.first("unlink", ".cvj");
    in_order(&[
        ("the last write", written),
        ("the file's sync", file_synced),
        ("the renaming", renamed),
        ("the folder's sync", folder_synced),
        ("the reading back", read_back),
        ("the record", on_record),
        ("the journal's removal", freed),
        ("its folder's sync", trace.next("sync", "/journal>", freed)),
    ]);
    // Deleting: the tombstone, the keys, the file, its folder, and only then is the deletion done.
    let unlinked = trace.first("unlink", &format!("\"{id}.cva\""));
    let erased = trace.last_before("sync", &archive, unlinked);
    let gone = trace.next("sync", &format!("{folder}>"), unlinked);
    let no_longer_owed = trace.next("sync", "catalogue.db-wal", gone);
    in_order(&[
        ("the tombstone", trace.last_before("sync", "catalogue.db-wal", erased)),
        ("the keys' end", erased),
        ("the file's removal", unlinked),
        ("its folder's sync", gone),
        ("the deletion's end", no_longer_owed),
        ("the job's end", trace.next("sync", "/db>", no_longer_owed)),
    ]);
}

#[test]
fn the_system_calls_of_a_move_come_in_the_order_that_is_written_down() {
    let mut appliance = Appliance::start(AS_RECEIVED);
    let recording = record(&appliance);
    wait_until("no job is left", || appliance.jobs_left().is_empty());
    appliance.stop();
    let (trace_path, other) = (appliance.home().join("trace"), appliance.home().join("other"));
    appliance.launch_traced(SYSTEM_CALLS, &trace_path);
    assert!(appliance.ctl(&["store", "migrate", "--to", other.to_str().unwrap()]).status.success());
    let log = |appliance: &Appliance| appliance.log().contains("every archive is in the store");
    wait_until("the move has ended", || log(&appliance));
    appliance.stop();
    let trace = Trace::read(&trace_path);
    let id = recording["id"].as_str().unwrap();
    let (temporary, archive) = (format!(".{id}.cva.tmp"), format!("other/{}", archive_path(&recording)));
    // Where it goes is durable before anything goes there.
    let recorded = trace.first("rename", "stores.json.tmp");
    let created = trace.first("openat", &format!("\"{temporary}\""));
    let renamed = trace.first("rename", &temporary);
    let read_back = trace.next("openat", &format!("\"{id}.cva\""), renamed);
    let on_record = trace.next("sync", "catalogue.db-wal", read_back);
    let unlinked = trace.next("unlink", &format!("\"{id}.cva\""), on_record);
    assert!(unlinked.text.contains("data/store/"), "{unlinked:?}");
    let gone = trace.next("sync", "data/store/", unlinked);
    in_order(&[
        ("the record of the stores", recorded),
        ("its folder's sync", trace.next("sync", "/data>", recorded)),
        ("the word of a copy", trace.last_before("sync", "catalogue.db-wal", created)),
        ("the copy", created),
        ("its last write", trace.last_before("pwrite64", &temporary, renamed)),
        ("its sync", trace.last_before("sync", &temporary, renamed)),
        ("the renaming", renamed),
        ("the folder's sync", trace.last_before("sync", "other/", read_back)),
        ("the reading back", read_back),
        ("the record", on_record),
        ("the original's removal", unlinked),
        ("its folder's sync", gone),
        ("the end of the word", trace.next("sync", "catalogue.db-wal", gone)),
    ]);
    assert!(appliance.home().join(archive).exists());
}

/// Path of a recording's archive in its store.
fn archive_path(recording: &Value) -> String {
    let day = recording["started_at"].as_str().unwrap()[..10].replace('-', "/");
    format!("{day}/{}.cva", recording["id"].as_str().unwrap())
}

/// The folder that an archive was renamed in.
fn archive_folder(text: &str) -> String {
    let from = text.split('"').nth(1).unwrap();
    Path::new(from).parent().unwrap().to_str().unwrap().to_owned()
}

#[test]
fn a_lost_catalogue_comes_back_by_one_command() {
    let mut appliance = Appliance::start(AS_RECEIVED);
    let recording = record(&appliance);
    let sound = appliance.wav(&recording);
    let refused = appliance.ctl(&["recover"]);
    assert_eq!(refused.status.code(), Some(1));
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(said.contains("callvaultd is running"), "{said}");
    appliance.stop();
    for name in ["catalogue.db", "catalogue.db-wal", "catalogue.db-shm"] {
        let _ = fs::remove_file(appliance.data().join(name));
    }
    let dry = appliance.ctl(&["recover", "--dry-run"]);
    assert!(dry.status.success() && !appliance.data().join("catalogue.db").exists(), "{dry:?}");
    let done = appliance.ctl(&["--json", "recover"]);
    let said: Value = serde_json::from_slice(&done.stdout).unwrap();
    assert_eq!((said["from_archives"].as_u64(), said["changed"].as_bool()), (Some(1), Some(true)), "{said:#}");
    appliance.launch();
    let found = appliance.recordings();
    assert_eq!(found.len(), 1);
    let same = ["id", "call_id", "local_number", "remote_number", "started_at", "duration_ms", "archive"];
    assert!(same.iter().all(|name| found[0][name] == recording[name]), "{:#}\n{recording:#}", found[0]);
    assert_eq!(appliance.wav(&found[0]).channels, sound.channels);
    appliance.assert_verifies();
}
