//! The keys: made offline once, shown and rotated by the daemon.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, chown};
use std::path::Path;

use callvault_seal::PrivateKey;
use serde_json::{Value, json};

use crate::cli::Keys;
use crate::client::{Method, Request};
use crate::error::{CtlError, Exit};
use crate::format::text;
use crate::table::write_pairs;
use crate::verbs::{Session, flatten};

/// Said after every key that was made: nothing else is lost so easily and so completely.
const BACK_UP: &str = "Back up this folder now, apart from the recordings: without the private key no recording can ever be played again.";

/// Runs a verb on the keys.
pub(crate) fn run(session: &mut Session<'_, '_>, verb: &Keys) -> Result<Exit, CtlError> {
    match verb {
        Keys::Init => init(session),
        Keys::Show => show(session),
        Keys::Rotate { yes } => rotate(session, *yes),
    }
}

/// Makes the first key:
///
/// 1. make the folder (0700), 2. create the file exclusively (0600) and write it, 3. give both to the owner of the data
///    folder, so that a daemon which is not root can read what root made, 4. sync the file, 5. sync the folder.
fn init(session: &mut Session<'_, '_>) -> Result<Exit, CtlError> {
    let path = session.config.appliance_key_path();
    let folder = session.config.keys_path();
    let failed = |reason: String| CtlError::File { what: format!("make the key {}", path.display()), reason };
    if path.symlink_metadata().is_ok() {
        let reason = "there is one already, and recordings may depend on it; to get a new one for new recordings: callvaultctl keys rotate";
        return Err(failed(reason.into()));
    }
    let io = |error: std::io::Error| {
        failed(format!("{error}; run callvaultctl as root or as the user that callvaultd runs as"))
    };
    DirBuilder::new().recursive(true).mode(0o700).create(&folder).map_err(io)?;
    let key = PrivateKey::generate(&mut rand::rng());
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path).map_err(io)?;
    let written = file
        .write_all(key.to_text().expose().as_bytes())
        .and_then(|()| hand_over(&session.config.data_dir, &[&folder, &path]))
        .and_then(|()| file.sync_all())
        .and_then(|()| File::open(&folder)?.sync_all());
    if let Err(error) = written {
        // Nothing depends on a key that was never reported as made; a half-made one would only stand in the way.
        let _ = std::fs::remove_file(&path);
        return Err(io(error));
    }
    let made = json!({"path": path.display().to_string(), "id": key.public().id().to_string(), "public": key.public().to_text()});
    if !session.printed_json(&made)? {
        let pairs = [("key", text(&made["path"])), ("id", text(&made["id"])), ("public key", text(&made["public"]))];
        write_pairs(session.around.stdout, &pairs)?;
        session.say(BACK_UP)?;
    }
    Ok(Exit::Done)
}

/// Gives what root made to whom the data folder belongs.
fn hand_over(data: &Path, made: &[&Path]) -> std::io::Result<()> {
    let owner = match std::fs::metadata(data) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        other => other?,
    };
    for path in made {
        let now = std::fs::metadata(path)?;
        if (now.uid(), now.gid()) != (owner.uid(), owner.gid()) {
            chown(path, Some(owner.uid()), Some(owner.gid()))?;
        }
    }
    Ok(())
}

fn show(session: &mut Session<'_, '_>) -> Result<Exit, CtlError> {
    let answer = session.client.json(&Request::get("/v1/keys", "show the keys"))?;
    print_keys(session, &answer)?;
    Ok(Exit::Done)
}

fn rotate(session: &mut Session<'_, '_>, yes: bool) -> Result<Exit, CtlError> {
    let question = "Make a new key for recordings from now on? The old one stays for those before.";
    if !session.confirmed(question, yes)? {
        session.say("nothing was changed")?;
        return Ok(Exit::Failed);
    }
    let answer = session.client.json(&Request::new(Method::Post, "/v1/keys/rotate", "rotate the key"))?;
    print_keys(session, &answer)?;
    if !session.json {
        session.say(BACK_UP)?;
    }
    Ok(Exit::Done)
}

fn print_keys(session: &mut Session<'_, '_>, answer: &Value) -> Result<(), CtlError> {
    if session.printed_json(answer)? {
        return Ok(());
    }
    let mut pairs = Vec::new();
    flatten("", answer, &mut pairs);
    let pairs: Vec<(&str, String)> = pairs.iter().map(|(name, value)| (name.as_str(), value.clone())).collect();
    Ok(write_pairs(session.around.stdout, &pairs)?)
}
