//! The memory of a process that holds secrets.

use std::io;

/// Keeps this process' memory from files and from other processes of its user: a crash leaves no core, whatever takes cores on the machine
/// (a pipe in core_pattern heeds no limit), and nobody but root traces it or reads /proc/PID/mem. It ends when another program is run
/// (PR_SET_DUMPABLE, prctl(2)).
///
/// # Errors
/// When the kernel refuses.
pub fn keep_memory() -> io::Result<()> {
    Ok(nix::sys::prctl::set_dumpable(false)?)
}

#[cfg(test)]
mod tests {
    #[test]
    fn memory_is_kept() {
        super::keep_memory().unwrap();
        assert!(!nix::sys::prctl::get_dumpable().unwrap());
    }
}
