//! The system calls that who meets strangers has no use for.

use nix::libc::{self, c_long};

use crate::filter::{Instruction, length, program, refuse};

/// System calls with which an intruder goes on: to another program, another process, other surroundings, the kernel.
const ESCAPES: &[c_long] = &[
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

static FILTER: [Instruction; length(ESCAPES)] = program(ESCAPES);

/// Refuses this thread and what it starts the system calls that start programs, look into other processes or change their
/// surroundings, for ever.
///
/// # Errors
/// Those of [`refuse`].
pub fn refuse_escapes() -> nix::Result<()> {
    refuse(&FILTER)
}
