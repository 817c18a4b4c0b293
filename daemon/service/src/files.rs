//! The few file operations on which durability rests, each written once.
//!
//! A file that must be there after a power cut is written in this order: create under a temporary name, write, `fsync`,
//! `rename` over the final name, `fsync` of the folder. Before the last step it may be absent; after it, it is whole.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

/// Ending of files that are being written; what has it after a crash is rubbish.
pub(crate) const TEMPORARY_ENDING: &str = "tmp";

/// Makes a folder and what is missing above it, for this user only, and makes the new entries durable.
///
/// # Errors
/// What the system calls say.
pub(crate) fn make_folder(folder: &Path) -> io::Result<()> {
    if folder.is_dir() {
        return Ok(());
    }
    let parent = folder.parent().filter(|p| !p.as_os_str().is_empty());
    if let Some(parent) = parent {
        make_folder(parent)?;
    }
    match fs::DirBuilder::new().mode(0o700).create(folder) {
        Ok(()) => {}
        // Somebody else was faster; or it is something else.
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists && folder.is_dir() => return Ok(()),
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => return Err(io::ErrorKind::NotADirectory.into()),
        Err(e) => return Err(e),
    }
    sync_folder(parent.unwrap_or(Path::new(".")))
}

/// Makes the entries of a folder durable.
///
/// # Errors
/// What the system calls say.
pub(crate) fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

/// Makes durable what is written to the files of a folder.
///
/// # Errors
/// The first of what the system calls say; the other files are synced all the same.
pub(crate) fn sync_files(folder: &Path) -> io::Result<()> {
    let mut result = Ok(());
    for entry in fs::read_dir(folder)? {
        let synced = entry.and_then(|entry| File::open(entry.path())).and_then(|file| file.sync_data());
        // One may be removed meanwhile, since nobody needs it any more.
        if let Err(error) = synced
            && error.kind() != io::ErrorKind::NotFound
        {
            result = result.and(Err(error));
        }
    }
    result
}

/// Writes a small file whole and durably, for this user only.
///
/// # Errors
/// What the system calls say; the final name is then untouched.
pub(crate) fn write_whole(path: &Path, content: &[u8]) -> io::Result<()> {
    let folder = path.parent().ok_or(io::ErrorKind::InvalidInput)?;
    let temporary = path.with_added_extension(TEMPORARY_ENDING);
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
    file.write_all(content)?;
    file.sync_all()?;
    fs::rename(&temporary, path)?;
    sync_folder(folder)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::{make_folder, write_whole};

    #[test]
    fn a_file_is_replaced_whole_and_is_private() {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join("a/b");
        make_folder(&folder).unwrap();
        make_folder(&folder).unwrap();
        let path = folder.join("secret.key");
        write_whole(&path, b"first").unwrap();
        write_whole(&path, b"second").unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"second");
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 1);
    }
}
