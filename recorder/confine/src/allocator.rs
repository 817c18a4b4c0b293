//! What the allocator keeps of memory that was given back.

// mallopt(3).
#![allow(unsafe_code)]

use nix::libc;

/// From this size on memory is the kernel's again when it is given back, and free memory beyond it at an arena's end is given back too.
/// Left to itself the C library raises both, up to 32 MiB, with the first large buffer that it sees freed; then what the journal needs at a
/// busy moment stays in the process for good, in pieces between what lives long. Batches of some hundred calls are above it: kept by the
/// arena, they cost 9 KiB a call at 500 calls, and no less time.
const GIVEN_BACK_BYTES: libc::c_int = 64 << 10;

/// Limits what the allocator keeps: each of its arenas, of which there are `arenas_max` at most, keeps some. To be called before there is a second
/// thread. Where it cannot, it takes more, and nothing else is different.
pub fn give_memory_back(arenas_max: i32) {
    let options = [
        (libc::M_MMAP_THRESHOLD, GIVEN_BACK_BYTES),
        (libc::M_TRIM_THRESHOLD, GIVEN_BACK_BYTES),
        (libc::M_ARENA_MAX, arenas_max),
    ];
    for (option, value) in options {
        // SAFETY: mallopt takes two numbers, and is called before there is a second thread.
        let _ = unsafe { libc::mallopt(option, value) };
    }
}
