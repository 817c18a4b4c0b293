//! SIPp as the client: a scenario, and a capture with both streams of the call that it plays.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use super::Appliance;
use super::place::SIPP_MEDIA_PORT;
use super::rtp::Source;

/// Plays one call. `words` are put into the scenario in place of `@name@`.
pub fn call(appliance: &Appliance, scenario: &str, transport: &str, words: &[(&str, &str)], tracks: [&[Vec<u8>]; 2]) {
    let folder = tempfile::tempdir().unwrap();
    write_capture(&folder.path().join("call.pcap"), tracks);
    let mut text = fs::read_to_string(Path::new("tests/sipp").join(scenario)).unwrap();
    let length_ms = (tracks[0].len().max(tracks[1].len()) * 20 + 300).to_string();
    let capture = folder.path().join("call.pcap");
    let own = [("capture", capture.to_str().unwrap()), ("length_ms", length_ms.as_str())];
    for (name, value) in own.iter().chain(words) {
        text = text.replace(&format!("@{name}@"), value);
    }
    fs::write(folder.path().join("scenario.xml"), text).unwrap();
    let ip = appliance.place.ip.to_string();
    let output = Command::new("sipp")
        .arg(appliance.sip().to_string())
        .args(["-sf", "scenario.xml", "-t", transport, "-i", &ip, "-mi", &ip, "-m", "1", "-nostdin", "-timeout", "60s"])
        .args(["-mp", &SIPP_MEDIA_PORT.to_string()])
        .args(["-trace_err", "-error_file", "errors.log"])
        .current_dir(folder.path())
        .env("TERM", "dumb")
        .stdin(Stdio::null())
        .output()
        .expect("SIPp cannot be run (Debian: sip-tester); `make test` installs it");
    let errors = fs::read_to_string(folder.path().join("errors.log")).unwrap_or_default();
    assert!(
        output.status.success(),
        "SIPp, which needs root to send audio, ended with {}:\n{}\n{errors}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
}

/// A capture of µ-law streams to ports P and P+2: SIPp sends them to the first port of the answer and to the second after it.
fn write_capture(path: &Path, tracks: [&[Vec<u8>]; 2]) {
    let mut capture = Vec::new();
    for field in [0xa1b2_c3d4_u32, 0x0004_0002, 0, 0, 65_535, 1] {
        capture.extend(field.to_le_bytes());
    }
    let mut sources = [Source::new(0x1111_1111, 0, 160), Source::new(0x2222_2222, 0, 160)];
    for n in 0..tracks[0].len().max(tracks[1].len()) {
        for ((track, source), port) in tracks.iter().zip(&mut sources).zip([20_000_u16, 20_002]) {
            let Some(payload) = track.get(n) else { continue };
            let frame = ethernet_frame(port, &source.packet(payload));
            let us = n * 20_000;
            for field in [us / 1_000_000, us % 1_000_000, frame.len(), frame.len()] {
                capture.extend((field as u32).to_le_bytes());
            }
            capture.extend(frame);
        }
    }
    fs::write(path, capture).unwrap();
}

fn ethernet_frame(port: u16, rtp: &[u8]) -> Vec<u8> {
    let udp_length = u16::try_from(8 + rtp.len()).unwrap();
    let mut ip = vec![0x45, 0];
    ip.extend((20 + udp_length).to_be_bytes());
    ip.extend([0, 0, 0, 0, 64, 17, 0, 0, 127, 0, 0, 1, 127, 0, 0, 1]);
    let sum: u32 = ip.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(pair[1])).sum();
    let checksum = !(((sum & 0xffff) + (sum >> 16)) as u16);
    ip[10..12].copy_from_slice(&checksum.to_be_bytes());
    let mut frame = vec![0; 12];
    frame.extend([8, 0]);
    frame.extend(ip);
    for field in [port, port, udp_length, 0] {
        frame.extend(field.to_be_bytes());
    }
    frame.extend(rtp);
    frame
}
