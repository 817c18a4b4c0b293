//! Everything in callvault that reads bytes which somebody else made, each as one function from bytes to nothing that panics when
//! something does not hold which must hold for *any* bytes. Two programs call them: the short run of `make test`, which changes the
//! seeds in `tests/fuzz/seeds` a fixed number of times in a fixed way, and the programs of `tests/fuzz/engine`, in which libFuzzer
//! looks for inputs that reach new code (`make fuzz`).
//!
//! A target takes a microsecond to a tenth of a millisecond, touches neither files nor clock nor randomness, and does the same for
//! the same bytes, so that an input which was found once is found again. What is sealed is sealed here, with keys that are known: a
//! fuzzer does not guess a checksum or an authentication tag, so the targets for files put checksums right before reading
//! ([`journal`], [`archive`]), or take the input for what is *inside* a sealed frame ([`journal_contents`], [`archive_contents`]).

#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod archive;
pub mod archive_contents;
pub mod control;
pub mod crypto_attribute;
mod input;
pub mod journal;
pub mod journal_contents;
pub mod metadata;
pub mod multipart;
pub mod mutation;
pub mod render;
pub mod rtcp;
pub mod rtp;
pub mod sdp;
pub mod sip_endpoint;
pub mod sip_message;
pub mod srtp;
pub mod timeline;

/// Longest input that a target looks at, in bytes: the largest datagram. Longer ones are passed over.
pub const INPUT_BYTES_MAX: usize = 64 * 1024;

/// One thing that reads foreign bytes.
#[derive(Debug, Clone, Copy)]
pub struct Target {
    /// Its name: of the module, of the folder of its seeds and of the program in `tests/fuzz/engine`.
    pub name: &'static str,
    /// What must hold for any bytes; panics where it does not.
    pub run: fn(&[u8]),
}

macro_rules! targets {
    ($($name:ident),* $(,)?) => {
        /// All targets, the most exposed first.
        pub const TARGETS: &[Target] = &[$(Target { name: stringify!($name), run: $name::run }),*];
    };
}

targets![
    sip_message,
    sip_endpoint,
    multipart,
    sdp,
    metadata,
    rtp,
    rtcp,
    srtp,
    crypto_attribute,
    journal,
    journal_contents,
    archive,
    archive_contents,
    timeline,
    control,
    render,
];

/// The target of this name.
#[must_use]
pub fn target(name: &str) -> Option<&'static Target> {
    TARGETS.iter().find(|target| target.name == name)
}
