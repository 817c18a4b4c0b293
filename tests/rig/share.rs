//! A share that is mounted, fails as it is told, and is unmounted.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use super::{process, wait_until};
use nix::sys::signal::Signal;

/// A share of the server in `share.py`. Its mount goes when it is dropped.
pub struct Share {
    folder: PathBuf,
    point: PathBuf,
    fault: PathBuf,
    server: Option<Child>,
}

impl Share {
    /// Whether this machine can mount such a share; says loudly why not.
    pub fn can_be_had() -> bool {
        let is_root = nix::unistd::geteuid().is_root();
        // Root of a container may have no right to mount anything.
        let may_mount =
            || Command::new("unshare").args(["--mount", "true"]).status().is_ok_and(|status| status.success());
        let can = is_root && fs::File::open("/dev/fuse").is_ok() && may_mount();
        if !can {
            eprintln!("SKIPPED: a share can be mounted by root alone, where there is /dev/fuse");
        }
        can
    }

    /// A share in a folder, mounted at `share` there.
    pub fn mount(place: &Path) -> Self {
        let below = |name: &str| place.join(name);
        let (folder, point) = (below("served"), below("share"));
        for folder in [&folder, &point] {
            fs::create_dir(folder).unwrap();
        }
        let mut share = Self { folder, point, fault: below("fault"), server: None };
        share.set("");
        share.mount_again();
        share
    }

    /// The mount point.
    pub fn point(&self) -> &Path {
        &self.point
    }

    /// The fault in force from now on: a word of `share.py`'s, or nothing.
    pub fn set(&self, fault: &str) {
        let next = self.fault.with_extension("next");
        fs::write(&next, fault).unwrap();
        fs::rename(&next, &self.fault).unwrap();
    }

    fn is_mounted(&self) -> bool {
        let point = format!(" {} ", self.point.display());
        fs::read_to_string("/proc/self/mountinfo").unwrap().lines().any(|line| line.contains(&point))
    }

    pub fn mount_again(&mut self) {
        // Debian's own: the module that it needs is one of its packages.
        let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/rig/share.py");
        let mut command = Command::new("/usr/bin/python3");
        command.arg(program).args([&self.folder, &self.point, &self.fault]).stdin(Stdio::null());
        self.server = Some(command.spawn().unwrap());
        wait_until("the share is mounted", || self.is_mounted());
    }

    /// Unmounts it as an administrator does, which works only while nobody holds anything open there.
    pub fn unmount(&mut self) {
        wait_until("the share can be unmounted", || {
            let said = Command::new("umount").arg(&self.point).stderr(Stdio::null()).status().unwrap();
            said.success() || !self.is_mounted()
        });
        self.server.take().unwrap().wait().unwrap();
    }

    /// Kills the server; the mount stays, and answers with errors.
    pub fn kill_server(&mut self) {
        let mut server = self.server.take().unwrap();
        process::send(server.id(), Signal::SIGKILL);
        server.wait().unwrap();
    }

    /// Unmounts what a dead server has left.
    pub fn unmount_dead(&self) {
        let said = Command::new("umount").arg("-l").arg(&self.point).status().unwrap();
        assert!(said.success());
    }

    /// What lies at the mount point now, by name.
    pub fn seen(&self) -> Vec<String> {
        let names = fs::read_dir(&self.point).unwrap();
        names.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned()).collect()
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        // Nothing here may panic. The server first: requests that wait end with it.
        if let Some(mut server) = self.server.take() {
            let _ = server.kill();
            let _ = server.wait();
        }
        let _ = Command::new("umount").args(["-q", "-l"]).arg(&self.point).status();
    }
}
