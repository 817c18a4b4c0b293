//! Export of all that a search finds: a file a call, and a manifest of all of them.
//!
//! A file has its name only when all of it is there and on the device; until then it is a `.part` that the next run makes anew. So a run
//! that was interrupted is simply started again, and what is there is not asked for twice.

use std::collections::VecDeque;
use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::audit::csv_cell;
use crate::cli::{Export, Format};
use crate::client::{Client, Request, with_query};
use crate::error::{CtlError, Exit};
use crate::format::text;
use crate::table::harmless;
use crate::verbs::{Session, rows};

/// Bytes moved at a time.
const BLOCK: usize = 64 * 1024;

/// Failures that are told one by one; the manifest has all.
const FAILURES_SHOWN: usize = 20;

/// What became of one recording.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Exported,
    /// It was there, from a run before.
    Skipped,
    /// There is nothing to hear of it.
    NoAudio,
    Failed,
}

impl Outcome {
    fn as_str(self) -> &'static str {
        match self {
            Self::Exported => "exported",
            Self::Skipped => "there-already",
            Self::NoAudio => "no-audio",
            Self::Failed => "failed",
        }
    }
}

/// A recording and what became of it.
struct Done {
    recording: Value,
    file: Option<String>,
    bytes: u64,
    /// Of the file, in hexadecimal digits.
    sha256: Option<String>,
    outcome: Outcome,
    why: String,
}

/// What all the threads know.
struct Work<'a> {
    client: &'a Client,
    folder: &'a Path,
    format: Format,
    waiting: Mutex<VecDeque<Value>>,
    /// The daemon cannot be reached: the rest would fail in the same way.
    ended: Mutex<Option<CtlError>>,
    bar: &'a ProgressBar,
}

/// Exports all that the search finds.
pub(crate) fn run(session: &mut Session<'_, '_>, parameters: &Export, folder: &Path) -> Result<Exit, CtlError> {
    let format = parameters.format.unwrap_or(Format::Wav);
    let failed = |what: &str| {
        let what = format!("{what} {}", folder.display());
        move |error: std::io::Error| CtlError::File { what, reason: error.to_string() }
    };
    // Recordings are people's voices: they are for whoever exports them alone.
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(failed("make the folder"))?;
    let found = session.all(&parameters.search)?;
    let recordings = rows(&found, "recordings", "find the recordings")?;
    let bar = progress_bar(session.around.shows_progress, recordings.len());
    let work = Work {
        client: session.client,
        folder,
        format,
        waiting: Mutex::new(recordings.iter().cloned().collect()),
        ended: Mutex::default(),
        bar: &bar,
    };
    let mut done: Vec<Done> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..parameters.parallel).map(|_| scope.spawn(|| work.take())).collect();
        threads.into_iter().filter_map(|thread| thread.join().ok()).flatten().collect()
    });
    bar.finish_and_clear();
    let ended = work.ended.into_inner().unwrap_or_else(PoisonError::into_inner);
    done.sort_by_key(|done| std::cmp::Reverse((text(&done.recording["started_at"]), text(&done.recording["id"]))));
    write_manifest(folder, format, &done).map_err(failed("write the manifest into"))?;
    let exit = report(session, folder, &done, recordings.len())?;
    ended.map_or(Ok(exit), Err)
}

impl Work<'_> {
    fn take(&self) -> Vec<Done> {
        let mut done = Vec::new();
        while let Some(recording) = self.next() {
            done.push(self.one(recording));
            self.bar.inc(1);
        }
        done
    }

    fn next(&self) -> Option<Value> {
        let has_ended = self.ended.lock().unwrap_or_else(PoisonError::into_inner).is_some();
        (!has_ended).then(|| self.waiting.lock().unwrap_or_else(PoisonError::into_inner).pop_front())?
    }

    fn one(&self, recording: Value) -> Done {
        let done = |recording, file, (bytes, sha256), outcome| Done {
            recording,
            file,
            bytes,
            sha256,
            outcome,
            why: String::new(),
        };
        if matches!(recording["verdict"].as_str(), Some("no-media" | "discarded")) {
            return done(recording, None, (0, None), Outcome::NoAudio);
        }
        let name = file_name(&recording, self.format);
        let path = self.folder.join(&name);
        if let Ok(there) = path.symlink_metadata()
            && there.is_file()
        {
            // What the manifest says is of the file as it is now.
            return match digest_of(&path) {
                Ok((bytes, sha256)) => done(recording, Some(name), (bytes, Some(sha256)), Outcome::Skipped),
                Err(error) => {
                    let why = format!("read {}: {error}", path.display());
                    Done { why, ..done(recording, None, (0, None), Outcome::Failed) }
                }
            };
        }
        match self.fetch(&recording, &path, &name) {
            Ok((bytes, sha256)) => done(recording, Some(name), (bytes, Some(sha256)), Outcome::Exported),
            Err(error) => {
                let why = error.to_string();
                if matches!(error, CtlError::Unreachable { .. }) {
                    *self.ended.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
                }
                Done { why, ..done(recording, None, (0, None), Outcome::Failed) }
            }
        }
    }

    fn fetch(&self, recording: &Value, path: &Path, name: &str) -> Result<(u64, String), CtlError> {
        let id = text(&recording["id"]);
        let what = format!("export the recording {id}");
        let failed = |error: std::io::Error| CtlError::File {
            what: format!("write {}", path.display()),
            reason: error.to_string(),
        };
        let part: PathBuf = self.folder.join(format!(".{name}.part"));
        let open = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&part);
        let mut file = open.map_err(failed)?;
        if file.try_lock().is_err() {
            let reason = "another export writes it now; let it end, or give another folder";
            return Err(CtlError::File { what: format!("write {}", path.display()), reason: reason.into() });
        }
        file.set_len(0).map_err(failed)?;
        let query = [("format", Some(self.format.as_str().to_owned()))];
        let request = Request::get(with_query(&format!("/v1/recordings/{id}/audio"), &query), what.clone()).long();
        let got = self.client.body(&request).and_then(|(body, _)| {
            let mut source = body.into_reader();
            let (mut block, mut bytes, mut digest) = (vec![0; BLOCK], 0, Sha256::new());
            loop {
                let length = source.read(&mut block).map_err(|error| self.client.broken_off(&what, &error))?;
                if length == 0 {
                    return Ok((bytes, hexadecimal(digest)));
                }
                digest.update(&block[..length]);
                file.write_all(&block[..length]).map_err(failed)?;
                bytes += length as u64;
            }
        });
        let whole = got
            .and_then(|got| file.sync_all().and_then(|()| std::fs::rename(&part, path)).map(|()| got).map_err(failed));
        if whole.is_err() {
            // What is not whole is not left behind; that it could not be removed is not the fault to report.
            let _ = std::fs::remove_file(&part);
        }
        whole
    }
}

fn hexadecimal(digest: Sha256) -> String {
    digest.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Length and SHA-256 of a file.
fn digest_of(path: &Path) -> std::io::Result<(u64, String)> {
    let (mut file, mut digest) = (File::open(path)?, Sha256::new());
    let (mut block, mut bytes) = (vec![0; BLOCK], 0);
    loop {
        let length = file.read(&mut block)?;
        if length == 0 {
            return Ok((bytes, hexadecimal(digest)));
        }
        digest.update(&block[..length]);
        bytes += length as u64;
    }
}

/// When the call began, in UTC, and the recording's id: in order, never twice, and nothing about anybody.
fn file_name(recording: &Value, format: Format) -> String {
    let fit = |text: &str| text.chars().filter(|c| c.is_ascii_alphanumeric() || *c == '-').collect::<String>();
    let began = recording["started_at"].as_str().unwrap_or_default();
    let began = began.split('.').next().unwrap_or_default().trim_end_matches('Z');
    let id = recording["id"].as_str().unwrap_or_default();
    format!("{}Z_{}.{}", fit(&began.replace(':', "")), fit(id), format.as_str())
}

fn progress_bar(shown: bool, files: usize) -> ProgressBar {
    let files = files as u64;
    if !shown {
        return ProgressBar::with_draw_target(Some(files), ProgressDrawTarget::hidden());
    }
    let bar = ProgressBar::new(files);
    let style = ProgressStyle::with_template("{bar:40} {pos}/{len} {eta}");
    bar.set_style(style.expect("the template is fixed and valid"));
    bar
}

/// The columns of the manifest after file, bytes and outcome: fields of the recording's JSON.
const COLUMNS: [&str; 13] = [
    "id",
    "started_at",
    "ended_at",
    "duration_ms",
    "verdict",
    "direction",
    "traffic",
    "owner",
    "local_number",
    "local_name",
    "remote_number",
    "remote_name",
    "call_id",
];

/// `manifest.json` and `manifest.csv`, each whole or not there.
fn write_manifest(folder: &Path, format: Format, done: &[Done]) -> std::io::Result<()> {
    let entries: Vec<Value> = done.iter().map(entry).collect();
    let manifest = json!({"format": format.as_str(), "recordings": entries});
    write_file(&folder.join("manifest.json"), format!("{manifest:#}\n").as_bytes())?;
    let mut lines = format!("file,bytes,sha256,outcome,{},tags,notes\r\n", COLUMNS.join(","));
    for done in done {
        lines.push_str(&csv_line(done));
        lines.push_str("\r\n");
    }
    write_file(&folder.join("manifest.csv"), lines.as_bytes())?;
    File::open(folder)?.sync_all()
}

fn entry(done: &Done) -> Value {
    let mut entry = serde_json::Map::new();
    entry.insert("file".into(), json!(done.file));
    entry.insert("bytes".into(), json!(done.bytes));
    entry.insert("sha256".into(), json!(done.sha256));
    entry.insert("outcome".into(), json!(done.outcome.as_str()));
    if !done.why.is_empty() {
        entry.insert("why".into(), json!(done.why));
    }
    for name in COLUMNS.iter().chain(&["preserved", "tags", "notes"]) {
        entry.insert((*name).to_owned(), done.recording[*name].clone());
    }
    Value::Object(entry)
}

fn csv_line(done: &Done) -> String {
    let list = |name: &str, field: Option<&str>| {
        let parts = done.recording[name].as_array().into_iter().flatten();
        let parts = parts.filter_map(|part| field.map_or(part, |field| &part[field]).as_str());
        parts.collect::<Vec<_>>().join("; ").replace(['\n', '\t'], " ")
    };
    let plain = |value: &Value| match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    let first = [
        done.file.clone().unwrap_or_default(),
        done.bytes.to_string(),
        done.sha256.clone().unwrap_or_default(),
        done.outcome.as_str().to_owned(),
    ];
    let fields = COLUMNS.iter().map(|name| plain(&done.recording[*name]));
    let cells = first.into_iter().chain(fields).chain([list("tags", None), list("notes", Some("text"))]);
    cells.map(|cell| csv_cell(&cell)).collect::<Vec<_>>().join(",")
}

fn write_file(path: &Path, content: &[u8]) -> std::io::Result<()> {
    let part = path.with_extension("part");
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&part)?;
    file.write_all(content)?;
    file.sync_all()?;
    std::fs::rename(&part, path)
}

/// Says what became of all of them.
fn report(session: &mut Session<'_, '_>, folder: &Path, done: &[Done], found: usize) -> Result<Exit, CtlError> {
    let count = |outcome| done.iter().filter(|done| done.outcome == outcome).count();
    let (exported, skipped) = (count(Outcome::Exported), count(Outcome::Skipped));
    let (no_audio, failed) = (count(Outcome::NoAudio), count(Outcome::Failed));
    let exit = if failed == 0 && done.len() == found { Exit::Done } else { Exit::Failed };
    let summary = json!({
        "folder": folder.display().to_string(), "found": found, "exported": exported, "there_already": skipped,
        "no_audio": no_audio, "failed": failed,
    });
    if session.printed_json(&summary)? {
        return Ok(exit);
    }
    session.say(&format!(
        "{found} recordings found: {exported} exported, {skipped} there already, {no_audio} without audio, {failed} failed; {}",
        folder.join("manifest.csv").display()
    ))?;
    for one in done.iter().filter(|done| done.outcome == Outcome::Failed).take(FAILURES_SHOWN) {
        writeln!(session.around.stderr, "failed to {}", harmless(&one.why))?;
    }
    if failed > 0 {
        writeln!(session.around.stderr, "start it again with the same folder: what is there is not asked for again")?;
    }
    Ok(exit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_files_name_is_of_letters_and_digits_alone() {
        let check = |began: &str, id: &str, expected: &str| {
            assert_eq!(file_name(&json!({"started_at": began, "id": id}), Format::Mp3), expected);
        };
        check("2027-01-15T08:00:00.001Z", "0199-ab", "2027-01-15T080000Z_0199-ab.mp3");
        check("../../etc", "a/b", "Z_ab.mp3");
        check("", "", "Z_.mp3");
    }

    #[test]
    fn a_line_of_the_manifest_is_no_formula() {
        let recording = json!({
            "id": "1", "remote_name": "=HYPERLINK(\"x\")", "remote_number": "+391234", "tags": ["-a", "b"],
            "notes": [{"text": "two\nlines"}], "duration_ms": 5,
        });
        let file = Some("a.wav".into());
        let line = csv_line(&Done {
            recording,
            file,
            bytes: 7,
            sha256: Some("ab".into()),
            outcome: Outcome::Exported,
            why: String::new(),
        });
        assert_eq!(line, "a.wav,7,ab,exported,1,,,5,,,,,,,'+391234,\"'=HYPERLINK(\"\"x\"\")\",,\"'-a; b\",two lines");
    }
}
