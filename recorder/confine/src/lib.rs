//! What a process takes away from itself, for ever and from all that it starts: system calls ([`refuse`], [`refuse_escapes`], seccomp(2)) and
//! the file system ([`beneath`], [`programs`], [`to_read`], landlock(7)). Both need no privilege, hold for the calling thread and what it starts, and so are to be used before
//! there are other threads; and [`keep_memory`], what others could see of it. It knows no program: what each may do is said by whoever confines itself.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod escapes;
mod files;
mod filter;
mod memory;

pub use escapes::refuse_escapes;
pub use files::{beneath, programs, to_read};
pub use filter::{Instruction, length, program, refuse};
pub use memory::keep_memory;
