//! What a process takes away from itself, for ever and from all that it starts: system calls ([`refuse`], [`refuse_escapes`], seccomp(2)) and
//! the file system ([`beneath`], [`programs`], [`to_read`], landlock(7)). Both need no privilege, hold for the calling thread and what it starts, and so are to be used before
//! there are other threads; and [`keep_memory`] and [`leave_no_core`], what others could see of it, and [`give_memory_back`], what it keeps of it. It knows no program: what each may do is said by whoever confines itself.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod allocator;
mod escapes;
mod files;
mod filter;
mod memory;

pub use allocator::give_memory_back;
pub use escapes::refuse_escapes;
pub use files::{beneath, programs, to_read};
pub use filter::{Instruction, length, program, refuse};
pub use memory::{keep_memory, leave_no_core};
