//! What the recorder takes away from itself before it reads the first byte of a peer: of the file system it keeps the journal's folder
//! and that of the checkpoints, and of the system calls those that start programs, look into other processes or change its surroundings
//! are refused. So who finds a way in finds no key, no catalogue, no queue and no program.

use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;

use callvault_confine::{Instruction, beneath, length, program, refuse};
use callvault_control::Start;
use nix::libc::{self, c_long};

/// System calls that a recorder has no use for and an intruder has.
const REFUSED: &[c_long] = &[
    libc::SYS_execve,
    libc::SYS_execveat,
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_pidfd_getfd,
    libc::SYS_perf_event_open,
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_pivot_root,
    libc::SYS_chroot,
    libc::SYS_unshare,
    libc::SYS_setns,
    libc::SYS_bpf,
    libc::SYS_userfaultfd,
    libc::SYS_io_uring_setup,
    libc::SYS_open_by_handle_at,
    libc::SYS_keyctl,
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_kexec_load,
];

static FILTER: [Instruction; length(REFUSED)] = program(REFUSED);

/// Confines this thread and all that it starts. What a kernel cannot do is said and is no reason not to record.
pub(crate) fn enter(settings: &Start) {
    let checkpoints = settings.checkpoint_dir.as_deref().filter(|folder| is_there(folder));
    let folders: Vec<&Path> = checkpoints.into_iter().chain([settings.journal_dir.as_path()]).collect();
    match beneath(&folders) {
        Ok(true) => {}
        Ok(false) => tracing::warn!("this kernel has no Landlock: the recorder could read other files of its user"),
        Err(error) => tracing::error!(%error, "failed to give up the other folders: {error}"),
    }
    if let Err(error) = refuse(&FILTER) {
        tracing::error!(%error, "failed to give up system calls: {error}");
    }
}

/// Whether the folder is there; it is made where it is missing, as it could not be afterwards. It is judged when it is opened.
fn is_there(folder: &Path) -> bool {
    let _ = DirBuilder::new().mode(0o700).create(folder);
    folder.is_dir()
}
