//! Looking at processes and ending them.

use std::fs;
use std::path::PathBuf;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::wait_until;

pub fn send(process: u32, signal: Signal) {
    kill(Pid::from_raw(process.cast_signed()), signal).expect("the process is there to be signalled");
}

/// Stops a process. It stands still when this returns: the signal alone is only the beginning of that.
pub fn halt(process: u32) {
    send(process, Signal::SIGSTOP);
    wait_until("every thread stands still", || {
        let threads = fs::read_dir(format!("/proc/{process}/task")).unwrap().map(|thread| thread.unwrap().path());
        threads.map(|thread| fs::read_to_string(thread.join("stat")).unwrap()).all(|stat| stat.contains(") T "))
    });
}

pub fn lives(process: u32) -> bool {
    // A zombie has no program any more.
    fs::read_link(format!("/proc/{process}/exe")).is_ok()
}

/// The children of a process that run this program.
pub fn children(parent: u32, program: &str) -> Vec<u32> {
    let processes =
        fs::read_dir("/proc").unwrap().filter_map(|entry| entry.unwrap().file_name().to_str()?.parse().ok());
    processes
        .filter(|process| {
            parent_of(*process) == Some(parent)
                && fs::read_link(format!("/proc/{process}/exe")).is_ok_and(|exe| exe.ends_with(program))
        })
        .collect()
}

fn parent_of(process: u32) -> Option<u32> {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    // The name, which stands in brackets, may hold anything.
    stat.rsplit_once(") ")?.1.split(' ').nth(1)?.parse().ok()
}

/// What a process has open, as the kernel names it.
pub fn open_files(process: u32) -> Vec<PathBuf> {
    let entries = fs::read_dir(format!("/proc/{process}/fd")).unwrap();
    entries.filter_map(|entry| fs::read_link(entry.ok()?.path()).ok()).collect()
}

/// CPU time that a process has taken so far, in milliseconds.
pub fn cpu_ms(process: u32) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).unwrap();
    // utime and stime, in hundredths of a second.
    let fields: Vec<&str> = stat.rsplit_once(") ").unwrap().1.split(' ').collect();
    [11, 12].map(|field: usize| fields[field].parse::<u64>().unwrap() * 10).iter().sum()
}
