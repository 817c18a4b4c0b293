//! A filter of system calls that refuses those of a list, with EPERM, so that a library that merely asks goes on.

use nix::errno::Errno;
use nix::libc::{self, c_long, sock_filter, sock_fprog};
use nix::sys::prctl;

/// One instruction of a filter.
pub type Instruction = sock_filter;

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

/// How many instructions a filter has that refuses these calls. At most 248 can be refused, because jumps have eight bits.
#[must_use]
pub const fn length(refused: &[c_long]) -> usize {
    BEFORE + refused.len() + AFTER
}

const fn instruction(code: u32, k: u32, then: u8, otherwise: u8) -> sock_filter {
    sock_filter { code: code as u16, jt: then, jf: otherwise, k }
}

/// The filter that refuses these calls and allows all others; `LENGTH` is [`length`] of them. For a constant: between fork and exec
/// nothing may be allocated.
#[must_use]
pub const fn program<const LENGTH: usize>(refused: &[c_long]) -> [Instruction; LENGTH] {
    assert!(LENGTH == length(refused) && LENGTH < 256);
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
    made[4] = instruction(at_least, OTHER_SET, (refuse - BEFORE) as u8, 0);
    let mut number = 0;
    while number < refused.len() {
        let at = BEFORE + number;
        made[at] = instruction(equal, refused[number] as u32, (refuse - at - 1) as u8, 0);
        number += 1;
    }
    made[refuse] = instruction(answer, libc::SECCOMP_RET_ERRNO | libc::EPERM as u32, 0, 0);
    made
}

/// Puts a filter on this thread and what it starts, for ever, and takes away new privileges, without which it may not. Allocates nothing.
///
/// # Errors
/// Those of prctl(2): a kernel without filters.
pub fn refuse(program: &'static [Instruction]) -> nix::Result<()> {
    prctl::set_no_new_privs()?;
    let len = u16::try_from(program.len()).map_err(|_| Errno::E2BIG)?;
    let program = sock_fprog { len, filter: program.as_ptr().cast_mut() };
    // SAFETY: prctl(2) with PR_SET_SECCOMP reads the program behind the pointer, which is a static of as many instructions as it says,
    // and does not write to it; it keeps a copy of its own.
    #[allow(unsafe_code)]
    let result = unsafe { libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program, 0, 0) };
    Errno::result(result).map(drop)
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;
    use std::process::Command;
    use std::thread;

    use nix::libc::{self, c_long};

    use super::{Instruction, length, program, refuse};

    const REFUSED: &[c_long] = &[libc::SYS_socket, libc::SYS_execve];
    static FILTER: [Instruction; length(REFUSED)] = program(REFUSED);

    #[test]
    fn what_is_on_the_list_is_refused_and_nothing_else() {
        let confined = thread::spawn(|| {
            refuse(&FILTER).unwrap();
            let socket = UdpSocket::bind("127.0.0.1:0").map(drop).map_err(|error| error.raw_os_error());
            let program = Command::new("/bin/true").status().map(drop).map_err(|error| error.raw_os_error());
            (socket, program, std::fs::read("/proc/self/status").is_ok())
        });
        let refused = Err(Some(libc::EPERM));
        assert_eq!(confined.join().unwrap(), (refused, refused, true));
        // Other threads are as they were.
        UdpSocket::bind("127.0.0.1:0").unwrap();
    }
}
