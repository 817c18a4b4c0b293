//! A filter of system calls (seccomp(2)) for a process that computes and uses the streams that it has: no sockets of any kind, nothing
//! that changes names in the file system, no look into other processes, no change of its own surroundings. What is refused gives
//! EPERM, so that a library that merely asks goes on. It holds for all that the process starts.

use nix::errno::Errno;
use nix::libc::{self, c_long, sock_filter, sock_fprog};

/// What is refused. Reading files, memory, threads, clocks and starting programs (ffmpeg) are not.
const REFUSED: &[c_long] = &[
    // The network, and sockets of this machine.
    libc::SYS_socket,
    libc::SYS_socketpair,
    libc::SYS_connect,
    libc::SYS_bind,
    libc::SYS_listen,
    libc::SYS_accept,
    libc::SYS_accept4,
    libc::SYS_sendto,
    libc::SYS_sendmsg,
    libc::SYS_sendmmsg,
    libc::SYS_io_uring_setup,
    // Names, modes and owners of files.
    libc::SYS_mkdirat,
    libc::SYS_mknodat,
    libc::SYS_unlinkat,
    libc::SYS_renameat,
    libc::SYS_renameat2,
    libc::SYS_linkat,
    libc::SYS_symlinkat,
    libc::SYS_fchmod,
    libc::SYS_fchmodat,
    libc::SYS_fchown,
    libc::SYS_fchownat,
    libc::SYS_truncate,
    libc::SYS_setxattr,
    libc::SYS_removexattr,
    libc::SYS_open_by_handle_at,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_mkdir,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_rmdir,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_mknod,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_unlink,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_rename,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_link,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_symlink,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_chmod,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_chown,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_lchown,
    // Other processes.
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_pidfd_getfd,
    libc::SYS_perf_event_open,
    // The surroundings, and what has been a way to the kernel before.
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_pivot_root,
    libc::SYS_chroot,
    libc::SYS_unshare,
    libc::SYS_setns,
    libc::SYS_bpf,
    libc::SYS_userfaultfd,
    libc::SYS_keyctl,
    libc::SYS_add_key,
    libc::SYS_request_key,
];

/// What the kernel calls the architecture that this is built for (linux/audit.h).
#[cfg(target_arch = "x86_64")]
const ARCHITECTURE: u32 = 0xc000_003e;
#[cfg(target_arch = "aarch64")]
const ARCHITECTURE: u32 = 0xc000_00b7;

/// First number of x86-64's other set of calls (x32), by which the list could be gone round. Other architectures have no numbers there.
const OTHER_SET: u32 = 0x4000_0000;

/// Where `struct seccomp_data` has the call's number, and the architecture.
const NUMBER_AT: u32 = 0;
const ARCHITECTURE_AT: u32 = 4;

/// Instructions before those for each call, and after them.
const BEFORE: usize = 5;
const AFTER: usize = 2;
const LENGTH: usize = BEFORE + REFUSED.len() + AFTER;

/// Made when this is compiled, because between fork and exec nothing may be allocated.
static PROGRAM: [sock_filter; LENGTH] = program();

const fn instruction(code: u32, k: u32, then: u8, otherwise: u8) -> sock_filter {
    sock_filter { code: code as u16, jt: then, jf: otherwise, k }
}

const fn program() -> [sock_filter; LENGTH] {
    let load = libc::BPF_LD | libc::BPF_W | libc::BPF_ABS;
    let equal = libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K;
    let at_least = libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K;
    let answer = libc::BPF_RET | libc::BPF_K;
    // Jumps are counted from the next instruction; the last one refuses.
    let refuse = LENGTH - 1;
    let mut made = [instruction(answer, libc::SECCOMP_RET_ALLOW, 0, 0); LENGTH];
    made[0] = instruction(load, ARCHITECTURE_AT, 0, 0);
    made[1] = instruction(equal, ARCHITECTURE, 1, 0);
    made[2] = instruction(answer, libc::SECCOMP_RET_KILL_PROCESS, 0, 0);
    made[3] = instruction(load, NUMBER_AT, 0, 0);
    made[4] = instruction(at_least, OTHER_SET, (refuse - 5) as u8, 0);
    let mut number = 0;
    while number < REFUSED.len() {
        let at = BEFORE + number;
        made[at] = instruction(equal, REFUSED[number] as u32, (refuse - at - 1) as u8, 0);
        number += 1;
    }
    made[refuse] = instruction(answer, libc::SECCOMP_RET_ERRNO | libc::EPERM as u32, 0, 0);
    made
}

// Jumps have eight bits.
const _: () = assert!(LENGTH < 256);

/// Puts the filter on this process, for ever. To be called after no new privileges.
pub(super) fn enter() -> nix::Result<()> {
    let program = sock_fprog { len: LENGTH as u16, filter: PROGRAM.as_ptr().cast_mut() };
    // SAFETY: prctl(2) with PR_SET_SECCOMP reads the program behind the pointer, which is a static of as many instructions as it says,
    // and does not write to it; it keeps a copy of its own.
    #[allow(unsafe_code)]
    let result = unsafe { libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program, 0, 0) };
    Errno::result(result).map(drop)
}
