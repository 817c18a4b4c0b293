//! What a process takes away from itself, for ever and from all that it starts: system calls ([`refuse`], seccomp(2)) and the file
//! system ([`beneath`], [`programs`], landlock(7)). Both need no privilege, hold for the calling thread and what it starts, and so are to be used before
//! there are other threads. It knows no program: what each may do is said by whoever confines itself.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod files;
mod filter;

pub use files::{beneath, programs};
pub use filter::{Instruction, length, program, refuse};
