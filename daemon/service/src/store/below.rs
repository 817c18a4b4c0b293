//! Files and folders below the store's folder, reached from the descriptor through which its identity was read. However the path to the
//! store changes in between, by an unmount, a mount or a rename, what is written goes to the file system whose identity was read, or
//! nowhere.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::{Component, Path};

use nix::dir::{Dir, Type};
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, openat, renameat};
use nix::sys::stat::{Mode, SFlag, fstatat, mkdirat};
use nix::unistd::{UnlinkatFlags, unlinkat};

/// An identity file is a hundred bytes; more is none.
const SMALL_BYTES_MAX: u64 = 4_096;

/// Flags of every folder that is opened on the way. A link in the store's place of a folder could lead out of the store.
const FOLDER: OFlag = OFlag::O_RDONLY.union(OFlag::O_DIRECTORY).union(OFlag::O_CLOEXEC).union(OFlag::O_NOFOLLOW);

/// The folders on the way to a file, and its own name.
///
/// # Errors
/// A name that leads out of the store, or to nothing.
pub(super) fn split(name: &Path) -> io::Result<(Vec<OsString>, OsString)> {
    let mut parts = parts(name)?;
    let last = parts.pop().ok_or(io::ErrorKind::InvalidFilename)?;
    Ok((parts, last))
}

/// The folders on the way to a folder, and its own name; none for the store's own folder.
///
/// # Errors
/// A name that leads out of the store.
pub(super) fn parts(name: &Path) -> io::Result<Vec<OsString>> {
    let part = |part: Component<'_>| match part {
        Component::Normal(part) => Ok(part.to_owned()),
        _ => Err(io::ErrorKind::InvalidFilename.into()),
    };
    name.components().map(part).collect()
}

/// What is in a folder.
pub(crate) struct StoreEntry {
    /// Its name.
    pub(crate) name: OsString,
    /// Whether it is a folder itself.
    pub(crate) is_folder: bool,
}

/// What is in the folder at the end of `parts` below `root`.
pub(super) fn list(root: &OwnedFd, parts: &[OsString]) -> io::Result<Vec<StoreEntry>> {
    // Opened anew, since the place in a folder that is read goes with its descriptor and its copies.
    let at = folder(root, parts, false)?;
    let mut entries = Vec::new();
    for entry in Dir::openat(&at, ".", FOLDER, Mode::empty())?.iter() {
        let entry = entry?;
        let name = OsString::from_vec(entry.file_name().to_bytes().to_vec());
        if name == "." || name == ".." {
            continue;
        }
        let is_folder = match entry.file_type() {
            Some(kind) => kind == Type::Directory,
            // Not every file system says.
            None => {
                fstatat(&at, name.as_os_str(), AtFlags::AT_SYMLINK_NOFOLLOW)?.st_mode & SFlag::S_IFMT.bits()
                    == SFlag::S_IFDIR.bits()
            }
        };
        entries.push(StoreEntry { name, is_folder });
    }
    Ok(entries)
}

/// The folder at the end of `parts` below `root`; with `make`, what is missing is made, durably.
pub(super) fn folder(root: &OwnedFd, parts: &[OsString], make: bool) -> io::Result<OwnedFd> {
    let mut at = root.try_clone()?;
    for part in parts {
        if make {
            match mkdirat(&at, part.as_os_str(), Mode::S_IRWXU) {
                Ok(()) => sync_folder(&at)?,
                Err(Errno::EEXIST) => {}
                // A folder that is there may be on a file system that takes no new ones; the next step tells.
                Err(error @ (Errno::EROFS | Errno::EACCES)) => {
                    if openat(&at, part.as_os_str(), FOLDER, Mode::empty()).is_err() {
                        return Err(error.into());
                    }
                }
                Err(error) => return Err(error.into()),
            }
        }
        at = openat(&at, part.as_os_str(), FOLDER, Mode::empty())?;
    }
    Ok(at)
}

/// A file in a folder, opened for reading; with `write` for writing as well.
pub(super) fn open(folder: &OwnedFd, name: &OsString, write: bool) -> io::Result<File> {
    let access = if write { OFlag::O_RDWR } else { OFlag::O_RDONLY };
    let flags = access | OFlag::O_CLOEXEC | OFlag::O_NOFOLLOW;
    Ok(openat(folder, name.as_os_str(), flags, Mode::empty())?.into())
}

/// A file in a folder, made or emptied, for writing.
pub(super) fn create(folder: &OwnedFd, name: &OsString) -> io::Result<File> {
    let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_TRUNC | OFlag::O_CLOEXEC | OFlag::O_NOFOLLOW;
    Ok(openat(folder, name.as_os_str(), flags, Mode::S_IRUSR | Mode::S_IWUSR)?.into())
}

/// Renames within a folder and makes that durable.
pub(super) fn rename(folder: &OwnedFd, from: &OsString, to: &OsString) -> io::Result<()> {
    renameat(folder, from.as_os_str(), folder, to.as_os_str())?;
    sync_folder(folder)
}

/// Removes a file, if it is there; says whether it was.
pub(super) fn unlink(folder: &OwnedFd, name: &OsString) -> io::Result<bool> {
    match unlinkat(folder, name.as_os_str(), UnlinkatFlags::NoRemoveDir) {
        Ok(()) => Ok(true),
        Err(Errno::ENOENT) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Makes the entries of a folder durable.
pub(super) fn sync_folder(folder: &OwnedFd) -> io::Result<()> {
    Ok(nix::unistd::fsync(folder.as_fd())?)
}

/// A small file's content, if it is there.
pub(super) fn read_small(folder: &OwnedFd, name: &OsString) -> io::Result<Option<Vec<u8>>> {
    let file = match open(folder, name, false) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut bytes = Vec::new();
    file.take(SMALL_BYTES_MAX).read_to_end(&mut bytes)?;
    Ok(Some(bytes))
}

/// Writes a small file whole and durably; `temporary` is its name meanwhile.
pub(super) fn write_small(folder: &OwnedFd, temporary: &OsString, name: &OsString, content: &[u8]) -> io::Result<()> {
    let mut file = create(folder, temporary)?;
    file.write_all(content)?;
    file.sync_all()?;
    rename(folder, temporary, name)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::fs::{self, File};
    use std::os::fd::OwnedFd;
    use std::path::Path;

    use super::{create, folder, split};

    fn check_refused(name: &str) {
        assert!(split(Path::new(name)).is_err(), "{name:?}");
    }

    #[test]
    fn no_name_leads_out_of_the_store() {
        check_refused("");
        check_refused("/etc/passwd");
        check_refused("../a.cva");
        check_refused("2026/../../a.cva");
        let (folders, name) = split(Path::new("2026/11/a.cva")).unwrap();
        assert_eq!((folders.len(), name.to_str()), (2, Some("a.cva")));
    }

    #[test]
    fn what_is_written_goes_where_the_identity_was_read() {
        let place = tempfile::tempdir().unwrap();
        let (store, elsewhere) = (place.path().join("store"), place.path().join("elsewhere"));
        fs::create_dir(&store).unwrap();
        let root: OwnedFd = File::open(&store).unwrap().into();
        // As when the share is unmounted between the check and the write.
        fs::rename(&store, &elsewhere).unwrap();
        fs::create_dir(&store).unwrap();
        let at = folder(&root, &["2026".into()], true).unwrap();
        create(&at, &"a.cva".into()).unwrap();
        assert!(elsewhere.join("2026/a.cva").exists());
        assert_eq!(fs::read_dir(&store).unwrap().count(), 0);
    }

    #[test]
    fn what_is_in_a_folder_is_listed_each_time() {
        let place = tempfile::tempdir().unwrap();
        fs::create_dir_all(place.path().join("2026/11")).unwrap();
        fs::write(place.path().join("2026/a.cva"), "").unwrap();
        let root: OwnedFd = File::open(place.path()).unwrap().into();
        let names = |parts: &[std::ffi::OsString]| {
            let mut names: Vec<_> =
                super::list(&root, parts).unwrap().into_iter().map(|entry| (entry.name, entry.is_folder)).collect();
            names.sort();
            names
        };
        for _ in 0..2 {
            assert_eq!(names(&[]), [("2026".into(), true)]);
            assert_eq!(names(&["2026".into()]), [("11".into(), true), ("a.cva".into(), false)]);
        }
        assert!(super::list(&root, &["2027".into()]).is_err());
    }

    #[test]
    fn a_link_is_no_folder_of_the_store() {
        let place = tempfile::tempdir().unwrap();
        let store = place.path().join("store");
        fs::create_dir_all(place.path().join("outside")).unwrap();
        fs::create_dir(&store).unwrap();
        std::os::unix::fs::symlink("../outside", store.join("2026")).unwrap();
        let root: OwnedFd = File::open(&store).unwrap().into();
        assert!(folder(&root, &["2026".into(), "11".into()], true).is_err());
        assert_eq!(fs::read_dir(place.path().join("outside")).unwrap().count(), 0);
    }
}
