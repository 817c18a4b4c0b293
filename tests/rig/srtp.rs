//! Audio that ffmpeg secures: SRTP with keys from the session description.

use std::io::Write;
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::thread;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::random::Chance;
use super::sound::FRAME;

/// The crypto-suite (RFC 4568).
pub const SUITE: &str = "AES_CM_128_HMAC_SHA1_80";

/// Key and salt of [`SUITE`] in base64.
pub fn key(seed: u64) -> String {
    let mut chance = Chance(seed);
    let bytes: Vec<u8> = (0..30).map(|_| chance.next() as u8).collect();
    STANDARD.encode(bytes)
}

/// ffmpeg, sending µ-law as it is, in packets of 20 ms and as fast as it is spoken.
pub fn send(to: SocketAddr, key: &str, sound: Vec<u8>) -> Child {
    // The packet without the 14 bytes that ffmpeg sets aside for SRTP is a header and 160 bytes.
    let url = format!("srtp://{to}?pkt_size={}", 12 + FRAME + 14);
    let mut ffmpeg = Command::new("ffmpeg")
        .args(["-loglevel", "error", "-re", "-f", "mulaw", "-ar", "8000", "-ac", "1", "-i", "-", "-c:a", "copy"])
        .args(["-f", "rtp", "-srtp_out_suite", SUITE, "-srtp_out_params", key, &url])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .expect("ffmpeg cannot be run; `make test` installs it");
    let mut input = ffmpeg.stdin.take().unwrap();
    thread::spawn(move || input.write_all(&sound).unwrap());
    ffmpeg
}
