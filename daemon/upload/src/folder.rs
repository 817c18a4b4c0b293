//! A folder: for each recording an MP3 and a JSON file beside it, each whole or not there.
//!
//! # What is guaranteed
//!
//! The audio is complete, on the device and under its name before the JSON appears: who waits for the JSON finds both whole. A
//! delivery that is repeated replaces both by the same.
//!
//! # A share that is not mounted
//!
//! Below a mount point there is a folder too, and writing there would fill the local disk unseen. So at the first delivery a file with
//! a random text is put into the folder, and the same text is remembered beside the appliance's data; from then on nothing is written
//! where it is missing.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};
use uuid::Uuid;

use crate::audio::{BLOCK_BYTES, hex, read};
use crate::{Audio, Call, Trouble};

/// Name of the file by which the folder is known again.
pub const IDENTITY_NAME: &str = ".callvault-export";

/// Longest identity that is read.
const IDENTITY_BYTES_MAX: u64 = 4096;

/// A folder that recordings are delivered to.
#[derive(Debug, Clone)]
pub struct Folder {
    /// The folder, which must be there.
    pub path: PathBuf,
    /// Where it is remembered which folder it is: on the appliance's own disk.
    pub remembered: PathBuf,
}

impl Folder {
    /// Delivers a recording: `YYYY/MM/DD/NAME.mp3` and `NAME.json` (UTC).
    ///
    /// # Errors
    /// Why it is not delivered.
    pub fn deliver(&self, call: &Call, audio: &dyn Audio, stopping: &dyn Fn() -> bool) -> Result<(), Trouble> {
        self.check()?;
        let folder = self.path.join(call.started_at.strftime("%Y/%m/%d").to_string());
        let what = |error: io::Error| {
            Trouble::sink(format!("write into {} (export_folder.path): {error}", self.path.display()))
        };
        make_folders(&self.path, &folder).map_err(what)?;
        let name = call.file_name();
        let mut reader = audio.open()?;
        let (mut hash, mut bytes, mut trouble) = (Sha256::new(), 0_u64, None);
        let written = write_whole(&folder, &name, |file| {
            let mut block = vec![0; BLOCK_BYTES];
            loop {
                let read = if stopping() { Err(Trouble::Stopping) } else { read(&mut *reader, &mut block) };
                let count = match read {
                    Ok(count) => count,
                    Err(error) => {
                        trouble = Some(error);
                        return Err(io::Error::other("the audio broke off"));
                    }
                };
                if count == 0 {
                    return Ok(());
                }
                bytes = bytes.saturating_add(count as u64);
                hash.update(&block[..count]);
                file.write_all(&block[..count])?;
            }
        });
        if let Some(trouble) = trouble {
            return Err(trouble);
        }
        written.map_err(what)?;
        let sha256: [u8; 32] = hash.finalize().into();
        let json = call.metadata_json(bytes, &hex(&sha256));
        let json_name = format!("{}.json", name.trim_end_matches(".mp3"));
        write_whole(&folder, &json_name, |file| file.write_all(format!("{json:#}\n").as_bytes())).map_err(what)
    }

    /// That the folder is the one that it was; the first time, that there is one.
    fn check(&self) -> Result<(), Trouble> {
        let shown = self.path.display();
        let trouble = |error: io::Error| Trouble::sink(format!("use {shown} (export_folder.path): {error}"));
        // A folder that was configured anew is another one.
        let here = self.path.to_string_lossy();
        let known = read_line(&self.remembered).map_err(trouble)?;
        let known = known.as_deref().and_then(|text| text.split_once(' ')).filter(|(_, path)| *path == here);
        let found = read_line(&self.path.join(IDENTITY_NAME)).map_err(trouble)?;
        match (known, found) {
            (Some((known, _)), Some(found)) if known == found => Ok(()),
            (Some(_), _) => Err(Trouble::sink(format!(
                "use {shown} (export_folder.path): it is not the folder that it was, {IDENTITY_NAME} is missing in it or another; is the share mounted? To use it as a new one, remove {}",
                self.remembered.display()
            ))),
            (None, found) => self.take(found, &here).map_err(trouble),
        }
    }

    /// Begins with a folder: what is in it already is respected, as another appliance may use it too.
    fn take(&self, found: Option<String>, here: &str) -> io::Result<()> {
        if !self.path.is_dir() {
            return Err(io::Error::other("it is not there; make it, or mount the share"));
        }
        let identity = match found {
            Some(identity) => identity,
            None => {
                let identity = Uuid::new_v4().to_string();
                write_whole(&self.path, IDENTITY_NAME, |file| file.write_all(identity.as_bytes()))?;
                identity
            }
        };
        let folder = self.remembered.parent().unwrap_or(Path::new("/"));
        let name = self.remembered.file_name().and_then(|name| name.to_str()).unwrap_or("export-folder");
        write_whole(folder, name, |file| write!(file, "{identity} {here}"))
    }
}

/// The content of a small file without the space around it; none when it is not there.
fn read_line(path: &Path) -> io::Result<Option<String>> {
    let mut text = String::new();
    match File::open(path).and_then(|file| file.take(IDENTITY_BYTES_MAX).read_to_string(&mut text)) {
        Ok(_) => Ok(Some(text.trim().to_owned())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Makes the folders from `base` down to `folder`, each durable in the one above it. `base` itself is never made.
fn make_folders(base: &Path, folder: &Path) -> io::Result<()> {
    let missing: Vec<&Path> = folder.ancestors().take_while(|at| *at != base && !at.exists()).collect();
    for at in missing.into_iter().rev() {
        match fs::create_dir(at) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => sync_folder(at.parent().unwrap_or(base))?,
        }
    }
    Ok(())
}

/// Writes a file under a temporary name, syncs it, renames it, syncs the folder: whole or not there.
fn write_whole(folder: &Path, name: &str, write: impl FnOnce(&mut File) -> io::Result<()>) -> io::Result<()> {
    let temporary = folder.join(format!(".{name}.tmp"));
    let result = (|| {
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o640).open(&temporary)?;
        write(&mut file)?;
        file.sync_all()?;
        fs::rename(&temporary, folder.join(name))?;
        sync_folder(folder)
    })();
    if result.is_err() {
        let _ = fs::remove_file(&temporary);
    }
    result
}

fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audio::tests::Given;
    use crate::call::tests::call;

    fn rig() -> (tempfile::TempDir, Folder) {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir(root.path().join("out")).unwrap();
        let folder = Folder { path: root.path().join("out"), remembered: root.path().join("export-folder") };
        (root, folder)
    }

    fn deliver(folder: &Folder) -> Result<(), Trouble> {
        folder.deliver(&call(), &Given::always(b"audio"), &|| false)
    }

    #[test]
    fn audio_and_metadata_are_there_once_however_often_it_is_done() {
        let (_root, folder) = rig();
        for _ in 0..3 {
            deliver(&folder).unwrap();
            let day = folder.path.join("2026/11/23");
            let mut names: Vec<_> =
                fs::read_dir(&day).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
            names.sort();
            assert_eq!(
                names,
                [
                    "20261123T100000Z_019ab000-0000-7000-8000-000000000001.json",
                    "20261123T100000Z_019ab000-0000-7000-8000-000000000001.mp3"
                ]
            );
            assert_eq!(fs::read(day.join(&names[1])).unwrap(), b"audio");
            let json: serde_json::Value = serde_json::from_slice(&fs::read(day.join(&names[0])).unwrap()).unwrap();
            assert_eq!(json["audio"]["bytes"], 5);
            assert_eq!(json["audio"]["sha256"], hex(&Sha256::digest(b"audio")));
        }
    }

    #[test]
    fn nothing_is_written_where_the_share_is_not() {
        let (root, folder) = rig();
        deliver(&folder).unwrap();
        fs::rename(&folder.path, root.path().join("away")).unwrap();
        assert!(matches!(deliver(&folder), Err(Trouble::Sink { .. })));
        // what lies below the mount point
        fs::create_dir(&folder.path).unwrap();
        assert!(matches!(deliver(&folder), Err(Trouble::Sink { .. })));
        assert_eq!(fs::read_dir(&folder.path).unwrap().count(), 0);
        fs::remove_dir(&folder.path).unwrap();
        fs::rename(root.path().join("away"), &folder.path).unwrap();
        deliver(&folder).unwrap();
    }

    #[test]
    fn another_folder_is_begun_with_when_it_is_configured() {
        let (root, folder) = rig();
        deliver(&folder).unwrap();
        let other = Folder { path: root.path().join("other"), ..folder.clone() };
        assert!(deliver(&other).is_err(), "a folder is never made");
        fs::create_dir(&other.path).unwrap();
        deliver(&other).unwrap();
        assert!(other.path.join(IDENTITY_NAME).exists());
    }

    #[test]
    fn what_breaks_off_leaves_nothing() {
        struct Breaking;
        impl Audio for Breaking {
            fn open(&self) -> Result<Box<dyn Read + Send>, Trouble> {
                struct Broken(bool);
                impl Read for Broken {
                    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
                        if std::mem::replace(&mut self.0, true) {
                            Err(io::Error::other("no more"))
                        } else {
                            Ok(buf.len().min(3))
                        }
                    }
                }
                Ok(Box::new(Broken(false)))
            }
        }
        let (_root, folder) = rig();
        assert!(matches!(folder.deliver(&call(), &Breaking, &|| false), Err(Trouble::Audio { .. })));
        assert_eq!(fs::read_dir(folder.path.join("2026/11/23")).unwrap().count(), 0);
    }
}
