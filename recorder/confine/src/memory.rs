//! The memory of a process that holds secrets.

use std::io;

use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// Keeps this process' memory from files and from other processes of its user: a crash leaves no core, whatever takes cores on the machine
/// (a pipe in core_pattern heeds no limit but that of [`leave_no_core`]), and nobody but root traces it or reads /proc/PID/mem. It ends when another program is run
/// (PR_SET_DUMPABLE, prctl(2)).
///
/// # Errors
/// When the kernel refuses.
pub fn keep_memory() -> io::Result<()> {
    Ok(nix::sys::prctl::set_dumpable(false)?)
}

/// The one limit that a pipe in core_pattern heeds (do_coredump() in the kernel's fs/coredump.c), and less than any file of a core has.
const NOT_EVEN_A_PIPE: u64 = 1;

/// Leaves no core of this process and what it starts, neither in a file nor to a pipe, while others of its user still see in /proc how it does.
/// Where the limit was set to 0 before, which cannot be undone, a pipe still gets one.
///
/// # Errors
/// When the kernel refuses.
pub fn leave_no_core() -> io::Result<()> {
    let (_, hard) = getrlimit(Resource::RLIMIT_CORE)?;
    let limit = hard.min(NOT_EVEN_A_PIPE);
    Ok(setrlimit(Resource::RLIMIT_CORE, limit, limit)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_kept() {
        keep_memory().unwrap();
        assert!(!nix::sys::prctl::get_dumpable().unwrap());
    }

    #[test]
    fn cores_have_no_room() {
        leave_no_core().unwrap();
        let (soft, hard) = getrlimit(Resource::RLIMIT_CORE).unwrap();
        assert!(soft <= 1 && hard <= 1, "{soft} {hard}");
        leave_no_core().unwrap();
    }
}
