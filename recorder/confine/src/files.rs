//! The file system that is left: what is beneath some folders (landlock(7)).

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::path::Path;

use nix::errno::Errno;
use nix::libc;
use nix::sys::prctl;

// linux/landlock.h: what may be done with files and folders.
const EXECUTE: u64 = 1;
const WRITE_FILE: u64 = 1 << 1;
const READ_FILE: u64 = 1 << 2;
const READ_DIR: u64 = 1 << 3;
const REMOVE_DIR: u64 = 1 << 4;
const REMOVE_FILE: u64 = 1 << 5;
const MAKE_DIR: u64 = 1 << 7;
const MAKE_REG: u64 = 1 << 8;
/// All that the first version knows.
const FIRST: u64 = (1 << 13) - 1;
/// Since the third version.
const TRUNCATE: u64 = 1 << 14;
const TRUNCATE_SINCE: i64 = 3;

/// What may be done beneath the folders that are left: everything with plain files and folders but to run them.
const LEFT: u64 = WRITE_FILE | READ_FILE | READ_DIR | REMOVE_DIR | REMOVE_FILE | MAKE_DIR | MAKE_REG;

/// What may be done beneath the folders that hold programs and what these need.
const RUN: u64 = EXECUTE | READ_FILE | READ_DIR;
/// Where a system has its programs and their libraries. Those that a system does not have are passed over.
const PROGRAMS: [&str; 6] = ["/usr", "/bin", "/lib", "/lib32", "/lib64", "/opt"];
/// What the dynamic linker reads, and what stands for an end of a pipe that nobody has.
const FOR_PROGRAMS: [(&str, u64); 3] =
    [("/etc/ld.so.cache", READ_FILE), ("/etc/ld.so.preload", READ_FILE), ("/dev/null", READ_FILE | WRITE_FILE)];

/// `LANDLOCK_CREATE_RULESET_VERSION`.
const ASK_VERSION: libc::c_uint = 1;
/// `LANDLOCK_RULE_PATH_BENEATH`.
const PATH_BENEATH: libc::c_uint = 1;

/// `struct landlock_ruleset_attr` of the first version; the kernel takes it for what is not there.
#[repr(C)]
struct Ruleset {
    handled_access_fs: u64,
}

/// `struct landlock_path_beneath_attr`.
#[repr(C, packed)]
struct PathBeneath {
    allowed_access: u64,
    parent_fd: i32,
}

/// Leaves this thread, and what it starts, plain files and folders beneath `folders`, to read and to write and not to run, and nothing
/// else of the file system. What is open already stays open. No new privileges can be had from then on. Says whether it holds: kernels
/// without Landlock, and containers that do not let it be used, leave everything as it is.
///
/// # Errors
/// When a folder cannot be opened, or the kernel does not do what it says it can.
pub fn beneath(folders: &[&Path]) -> io::Result<bool> {
    let rules = folders.iter().map(|folder| Ok((File::open(folder)?, LEFT)));
    restrict(&rules.collect::<io::Result<Vec<_>>>()?)
}

/// Leaves this thread, and what it starts, the system's programs and their libraries and the program `besides`, to read and to run, and
/// nothing else of the file system: no file of anybody's, and none to write to. What is open already stays open. No new privileges can be had
/// from then on. Says whether it holds: kernels without Landlock, and containers that do not let it be used, leave everything as it is.
///
/// # Errors
/// When the kernel does not do what it says it can.
pub fn programs(besides: Option<&Path>) -> io::Result<bool> {
    let system = PROGRAMS.iter().map(|folder| (Path::new(*folder), RUN));
    let files = FOR_PROGRAMS.iter().map(|(file, rights)| (Path::new(*file), *rights));
    let all = system.chain(files).chain(besides.map(|program| (program, EXECUTE | READ_FILE)));
    // What cannot be opened here could not be used either.
    let rules: Vec<_> = all.filter_map(|(path, rights)| Some((File::open(path).ok()?, rights))).collect();
    restrict(&rules)
}

/// Leaves this thread, and what it starts, plain files and folders beneath `folders`, to read, and nothing else of the file system: none to
/// write to and none to run. What is open already stays open. No new privileges can be had from then on. Says whether it holds, as
/// [`beneath`] does.
///
/// # Errors
/// When the kernel does not do what it says it can.
pub fn to_read(folders: &[&Path]) -> io::Result<bool> {
    // What cannot be opened here could not be used either.
    let rules = folders.iter().filter_map(|folder| Some((File::open(folder).ok()?, READ_FILE | READ_DIR)));
    restrict(&rules.collect::<Vec<_>>())
}

/// Leaves what is beneath these, each with its rights, and nothing else.
fn restrict(left: &[(File, u64)]) -> io::Result<bool> {
    let version = call(libc::SYS_landlock_create_ruleset, [0, 0, ASK_VERSION as usize, 0]);
    let version = match version {
        Ok(version) => version,
        // EPERM: asked for the version the kernel refuses nothing, so it is a filter around a container that does not know these calls.
        Err(Errno::ENOSYS | Errno::EOPNOTSUPP | Errno::EPERM) => return Ok(false),
        Err(error) => return Err(error.into()),
    };
    let truncate = if version >= TRUNCATE_SINCE { TRUNCATE } else { 0 };
    let ruleset = Ruleset { handled_access_fs: FIRST | truncate };
    let at = (&raw const ruleset) as usize;
    let made = call(libc::SYS_landlock_create_ruleset, [at, size_of::<Ruleset>(), 0, 0])?;
    let made = i32::try_from(made).map_err(io::Error::other)?;
    // SAFETY: the kernel has just opened it for us, and nobody else knows of it.
    #[allow(unsafe_code)]
    let rules = unsafe { OwnedFd::from_raw_fd(made) };
    for (opened, rights) in left {
        let truncate = if rights & WRITE_FILE == 0 { 0 } else { truncate };
        let rule = PathBeneath { allowed_access: rights | truncate, parent_fd: opened.as_raw_fd() };
        let at = (&raw const rule) as usize;
        call(libc::SYS_landlock_add_rule, [descriptor(&rules), PATH_BENEATH as usize, at, 0])?;
    }
    prctl::set_no_new_privs()?;
    call(libc::SYS_landlock_restrict_self, [descriptor(&rules), 0, 0, 0])?;
    Ok(true)
}

fn descriptor(of: &OwnedFd) -> usize {
    // A descriptor that is open is not negative.
    of.as_raw_fd().unsigned_abs() as usize
}

/// One of Landlock's system calls.
fn call(number: libc::c_long, arguments: [usize; 4]) -> nix::Result<i64> {
    let [a, b, c, d] = arguments;
    // SAFETY: the calls of landlock(7) read at most a structure of ours behind a pointer, whose form is the kernel's and which lives until
    // the call is over, and write to nothing.
    #[allow(unsafe_code)]
    let result = unsafe { libc::syscall(number, a, b, c, d) };
    Errno::result(result)
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};
    use std::path::Path;
    use std::process::Command;
    use std::thread;

    use super::beneath;

    #[test]
    fn what_is_beneath_is_left_and_nothing_else() {
        let (own, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        fs::write(other.path().join("key"), "secret").unwrap();
        let (mine, elsewhere) = (own.path().to_owned(), other.path().to_owned());
        let confined = thread::spawn(move || {
            if !beneath(&[&mine]).unwrap() {
                println!("SKIPPED: this kernel has no Landlock");
                return;
            }
            fs::create_dir(mine.join("folder")).unwrap();
            fs::write(mine.join("folder/a"), "x").unwrap();
            fs::rename(mine.join("folder/a"), mine.join("folder/b")).unwrap();
            assert_eq!(fs::read(mine.join("folder/b")).unwrap(), b"x");
            File::options().write(true).truncate(true).open(mine.join("folder/b")).unwrap();
            fs::remove_file(mine.join("folder/b")).unwrap();
            let denied = |what: &str, result: std::io::Result<()>| {
                assert_eq!(result.unwrap_err().kind(), std::io::ErrorKind::PermissionDenied, "{what}");
            };
            denied("read", fs::read(elsewhere.join("key")).map(drop));
            denied("write", fs::write(elsewhere.join("new"), "x"));
            denied("remove", fs::remove_file(elsewhere.join("key")));
            denied("list", fs::read_dir("/etc").map(drop));
            denied("run", Command::new("/bin/true").status().map(drop));
        });
        confined.join().unwrap();
        assert!(other.path().join("key").exists());
    }

    #[test]
    fn what_is_left_to_read_is_not_written() {
        let (own, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        for folder in [&own, &other] {
            fs::write(folder.path().join("key"), "secret").unwrap();
        }
        let (mine, elsewhere) = (own.path().to_owned(), other.path().to_owned());
        let confined = thread::spawn(move || {
            if !super::to_read(&[&mine, Path::new("/not/there")]).unwrap() {
                println!("SKIPPED: this kernel has no Landlock");
                return;
            }
            assert_eq!(fs::read(mine.join("key")).unwrap(), b"secret");
            let denied = |what: &str, result: std::io::Result<()>| {
                assert_eq!(result.unwrap_err().kind(), std::io::ErrorKind::PermissionDenied, "{what}");
            };
            denied("read", fs::read(elsewhere.join("key")).map(drop));
            denied("write", fs::write(mine.join("key"), "x"));
            denied("make", fs::write(mine.join("new"), "x"));
            denied("remove", fs::remove_file(mine.join("key")));
            denied("run", Command::new("/bin/true").status().map(drop));
        });
        confined.join().unwrap();
    }

    #[test]
    fn programs_are_left_and_no_file() {
        let own = tempfile::tempdir().unwrap();
        fs::write(own.path().join("key"), "secret").unwrap();
        let program = own.path().join("program");
        fs::copy("/bin/true", &program).unwrap();
        let folder = own.path().to_owned();
        let confined = thread::spawn(move || {
            if !super::programs(Some(&program)).unwrap() {
                println!("SKIPPED: this kernel has no Landlock");
                return;
            }
            let denied = |what: &str, result: std::io::Result<()>| {
                assert_eq!(result.unwrap_err().kind(), std::io::ErrorKind::PermissionDenied, "{what}");
            };
            denied("a key", fs::read(folder.join("key")).map(drop));
            denied("a list", fs::read_dir(&folder).map(drop));
            denied("a file of the system's", fs::read("/etc/passwd").map(drop));
            denied("to write", fs::write(folder.join("new"), "x"));
            denied("to write a program", fs::write(&program, "x"));
            for runs in [Path::new("/bin/true"), &program] {
                assert!(Command::new(runs).status().unwrap().success(), "{}", runs.display());
            }
        });
        confined.join().unwrap();
    }
}
