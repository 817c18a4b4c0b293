//! `callvault-render`: decodes the packets of a recording and encodes what people and programs ask for.
//!
//! A short-lived child of the daemon that reads jobs and packets from its input and writes results to its output, in the
//! conversation that `callvault-render-protocol` describes. It is the only place of callvault where C code (libopus, LAME) meets
//! callers' bytes; so it deliberately has no network, no files, no keys, no clock and no configuration, and
//! holds about a second of audio at a time (half a minute where ffmpeg, its own child in the same sandbox, decodes), however long
//! the call is.
//!
//! The way of a packet, one module each:
//!
//! ```text
//! serve ─▶ foreign: what ffmpeg decodes becomes L16 ─▶ job ─▶ track: continuity, holes, overlaps ─▶ decode ─▶ resample (only where rates differ)
//!                   ├─▶ tones: masked ─▶ mix: channels on one timeline ─▶ wav | ogg_opus | mp3
//!                   └─▶ heard: figures ─▶ opus_tracks: each track encoded by itself, for the archive
//! ```
//!
//! # What holds
//!
//! - A sample is placed by its packet's position and by nothing else: no output slides because of loss, holes or order.
//! - With one audio rate in the job nothing is resampled: G.711 comes out of WAV as the exact values of ITU-T G.711.
//! - Holes are silence, also where a sender leaves its silence out (DTX, comfort noise): nothing is made up. What a packet of Opus
//!   repeats of the one lost before it is not made up, and is heard. Where packets of one track overlap, the earlier wins.
//! - A range is what the whole would have there: for G.711 exactly, for codecs with memory after the pre-roll.
//! - A payload that a decoder refuses is counted and silent. It ends neither the job nor the process.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod decode;
mod depacketise;
mod error;
mod foreign;
mod g711;
mod g722;
mod heard;
mod job;
mod mix;
mod mp3;
mod ogg_opus;
mod opus_encode;
mod opus_tracks;
mod peaks;
mod resample;
mod serve;
mod tones;
mod track;
mod wav;

use std::io::{self, BufReader, IsTerminal};
use std::path::PathBuf;
use std::process::ExitCode;

use callvault_render_protocol::{EXIT_NOT_CONFINED, Swelling};

pub use serve::serve;

/// Buffer for each direction in bytes: a pipe's usual capacity.
const PIPE_BYTES: usize = 64 * 1024;

/// The program: serves jobs on the standard streams until the input ends. Exit code 0 for an orderly end, 1 otherwise, 2 when
/// somebody starts it by hand, [`EXIT_NOT_CONFINED`] when it could not confine itself.
pub fn main() -> ExitCode {
    if io::stdin().is_terminal() {
        eprintln!(
            "callvault-render is started by callvaultd and speaks over pipes; there is nothing to do with it by hand"
        );
        return ExitCode::from(2);
    }
    if let Err(error) = callvault_confine::keep_memory().and_then(|()| callvault_confine::leave_no_core()) {
        eprintln!("callvault-render goes on although it failed to keep its memory out of core dumps: {error}");
    }
    // Before the first byte of a caller: what finds a way in by a codec finds no key, no recording and no file.
    let ffmpeg = std::env::args_os().nth(1).map(PathBuf::from);
    if let Err(error) = callvault_confine::programs(ffmpeg.as_deref()) {
        eprintln!("callvault-render failed to give up the file system: {error}");
        return ExitCode::from(EXIT_NOT_CONFINED);
    }
    let mut input = BufReader::with_capacity(PIPE_BYTES, io::stdin().lock());
    let mut output = Swelling::new(io::stdout().lock(), PIPE_BYTES);
    match serve(&mut input, &mut output) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("callvault-render failed to {error}");
            ExitCode::FAILURE
        }
    }
}
