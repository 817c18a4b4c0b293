//! Export: the audio goes into a temporary file beside the final one, and gets its name only when all of it is there.

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::json;
use ureq::Body;

use crate::cli::{Export, Format};
use crate::client::{Request, with_query};
use crate::error::{CtlError, Exit};
use crate::export_many;
use crate::format::size;
use crate::verbs::Session;

/// Bytes moved at a time.
const BLOCK: usize = 64 * 1024;

/// Exports one recording, or many.
pub(crate) fn run(session: &mut Session<'_, '_>, parameters: &Export) -> Result<Exit, CtlError> {
    if let Some(folder) = &parameters.folder {
        return export_many::run(session, parameters, folder);
    }
    let format = parameters.format.unwrap_or_else(|| format_of(parameters.output.as_deref()));
    let Some(id) = &parameters.id else {
        return Err(CtlError::Usage("export: name a recording, or a folder for all that is searched for".into()));
    };
    let output = parameters.output.clone().unwrap_or_else(|| PathBuf::from(format!("{id}.{}", format.as_str())));
    let to_stdout = output.as_os_str() == "-";
    if !to_stdout {
        refuse_overwrite(&output, parameters.force)?;
    }
    let what = format!("export the recording {id}");
    let range = |ms: Option<u64>| ms.map(|ms| ms.to_string());
    let query = [
        ("format", Some(format.as_str().to_owned())),
        ("start_ms", range(parameters.start_ms)),
        ("end_ms", range(parameters.end_ms)),
    ];
    let request = Request::get(with_query(&format!("/v1/recordings/{id}/audio"), &query), what.clone()).long();
    let (body, length) = session.client.body(&request)?;
    let bar = progress_bar(session.around.shows_progress && !to_stdout, length);
    let copied = if to_stdout {
        copy(body, session.around.stdout, &bar).map_err(|fault| fault.into_error(session, &what, "standard output"))
    } else {
        write_whole(session, body, &output, parameters.force, &what, &bar)
    };
    bar.finish_and_clear();
    let bytes = copied?;
    if !to_stdout {
        let shown = output.display().to_string();
        if !session
            .printed_json(&json!({"recording": id, "format": format.as_str(), "output": shown, "bytes": bytes}))?
        {
            session.say(&format!("wrote {shown} ({})", size(&bytes.into())))?;
        }
    }
    Ok(Exit::Done)
}

/// The format that a file's ending names, else WAV.
fn format_of(output: Option<&Path>) -> Format {
    let ending = output.and_then(Path::extension).and_then(|ending| ending.to_str()).map(str::to_ascii_lowercase);
    match ending.as_deref() {
        Some("opus" | "ogg") => Format::Opus,
        Some("mp3") => Format::Mp3,
        _ => Format::Wav,
    }
}

fn refuse_overwrite(output: &Path, force: bool) -> Result<(), CtlError> {
    if !force && output.symlink_metadata().is_ok() {
        let what = format!("write {}", output.display());
        return Err(CtlError::File {
            what,
            reason: "there is such a file already; name another, or replace it with --force".into(),
        });
    }
    Ok(())
}

fn progress_bar(shown: bool, length: Option<u64>) -> ProgressBar {
    if !shown {
        return ProgressBar::with_draw_target(length, ProgressDrawTarget::hidden());
    }
    let (bar, template) = match length {
        Some(length) => (ProgressBar::new(length), "{bar:40} {bytes}/{total_bytes} {eta}"),
        None => (ProgressBar::new_spinner(), "{spinner} {bytes}"),
    };
    bar.set_style(ProgressStyle::with_template(template).expect("the template is fixed and valid"));
    bar.enable_steady_tick(Duration::from_millis(200));
    bar
}

/// Which side of a copy failed.
enum Fault {
    Source(std::io::Error),
    Sink(std::io::Error),
}

impl Fault {
    fn into_error(self, session: &Session<'_, '_>, what: &str, sink: &str) -> CtlError {
        match self {
            Self::Source(error) => session.client.broken_off(what, &error),
            Self::Sink(error) if sink == "standard output" => CtlError::Output(error),
            Self::Sink(error) => CtlError::File { what: format!("write {sink}"), reason: error.to_string() },
        }
    }
}

fn copy(body: Body, sink: &mut dyn Write, bar: &ProgressBar) -> Result<u64, Fault> {
    let mut source = body.into_reader();
    let mut block = vec![0; BLOCK];
    let mut copied = 0;
    loop {
        let length = source.read(&mut block).map_err(Fault::Source)?;
        if length == 0 {
            sink.flush().map_err(Fault::Sink)?;
            return Ok(copied);
        }
        sink.write_all(&block[..length]).map_err(Fault::Sink)?;
        copied += length as u64;
        bar.set_position(copied);
    }
}

/// Writes under a temporary name and renames. A recording is someone's voice: the file is for its owner alone.
fn write_whole(
    session: &Session<'_, '_>,
    body: Body,
    output: &Path,
    force: bool,
    what: &str,
    bar: &ProgressBar,
) -> Result<u64, CtlError> {
    let shown = output.display().to_string();
    let failed = |error: std::io::Error| CtlError::File { what: format!("write {shown}"), reason: error.to_string() };
    let name = output.file_name().ok_or_else(|| failed(std::io::ErrorKind::IsADirectory.into()))?;
    let temporary = output.with_file_name(format!(".{}.{}.part", name.to_string_lossy(), std::process::id()));
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary).map_err(failed)?;
    let written = copy(body, &mut file, bar)
        .map_err(|fault| fault.into_error(session, what, &shown))
        .and_then(|bytes| file.sync_all().map(|()| bytes).map_err(failed))
        .and_then(|bytes| refuse_overwrite(output, force).map(|()| bytes))
        .and_then(|bytes| std::fs::rename(&temporary, output).map(|()| bytes).map_err(failed));
    match &written {
        Ok(_) => sync_folder(output),
        // What is not whole is not left behind; that it could not be removed is not the fault to report.
        Err(_) => drop(std::fs::remove_file(&temporary)),
    }
    written
}

/// Makes the new name durable; not every file system can, and the file is there all the same.
fn sync_folder(output: &Path) {
    let folder = output.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    if let Ok(folder) = File::open(folder) {
        let _ = folder.sync_all();
    }
}
