//! Calls whose audio is SRTP: the offer, and ffmpeg that secures the audio.

use std::io::Write;
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::thread;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::random::Chance;
use super::shapes::{Facts, webex};
use super::sip::Invite;
use super::sound::FRAME;

pub const SUITE: &str = "AES_CM_128_HMAC_SHA1_80";

/// The tag of the attribute that can be taken; the one before it has a suite that nobody knows.
pub const TAG: u32 = 7;

/// Key and salt of [`SUITE`] in base64.
pub fn key(seed: u64) -> String {
    let mut chance = Chance(seed);
    let bytes: Vec<u8> = (0..30).map(|_| chance.next() as u8).collect();
    STANDARD.encode(bytes)
}

/// A call of two secured lines, whose keys these are.
pub fn secured(facts: &Facts, client: SocketAddr, keys: &[String; 2]) -> Invite {
    let mut invite = webex(facts, client);
    let plain = String::from_utf8(invite.body).unwrap().replace("RTP/AVP", "RTP/SAVP");
    let mut keys = keys.iter();
    let lines = plain.split_inclusive("\r\n").map(|line| match line {
        "a=ptime:20\r\n" => format!(
            "a=crypto:1 UNKNOWN_SUITE inline:{other}\r\na=crypto:{TAG} {SUITE} inline:{key}|2^31\r\n{line}",
            other = STANDARD.encode([0; 30]),
            key = keys.next().expect("there are as many lines as keys"),
        ),
        line => line.to_owned(),
    });
    invite.body = lines.collect::<String>().into_bytes();
    invite
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
