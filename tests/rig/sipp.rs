//! SIPp as the client: a scenario, and a capture with both streams of the call that it plays.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use tempfile::TempDir;

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
    run(appliance, folder.path(), transport);
}

/// SIPp with the scenario in this folder.
fn run(appliance: &Appliance, folder: &Path, transport: &str) {
    let ip = appliance.place.ip.to_string();
    let output = Command::new("sipp")
        .arg(appliance.sip().to_string())
        .args(["-sf", "scenario.xml", "-t", transport, "-i", &ip, "-mi", &ip, "-m", "1", "-nostdin", "-timeout", "60s"])
        .args(["-mp", &SIPP_MEDIA_PORT.to_string()])
        .args(["-trace_err", "-error_file", "errors.log"])
        .current_dir(folder)
        .env("TERM", "dumb")
        .stdin(Stdio::null())
        .output()
        .expect("SIPp cannot be run (Debian: sip-tester); `make test` installs it");
    let errors = fs::read_to_string(folder.join("errors.log")).unwrap_or_default();
    assert!(
        output.status.success(),
        "SIPp, which needs root to send audio, ended with {}:\n{}\n{errors}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
}

/// A capture of µ-law streams to ports P and P+2: SIPp sends them to the first port of the answer and to the second after it.
fn write_capture(path: &Path, tracks: [&[Vec<u8>]; 2]) {
    let mut sources = [Source::new(0x1111_1111, 0, 160), Source::new(0x2222_2222, 0, 160)];
    let streams: Vec<Vec<Vec<u8>>> =
        tracks.iter().zip(&mut sources).map(|(track, source)| stamped(source, track)).collect();
    write_streams(path, &streams);
}

fn stamped(source: &mut Source, payloads: &[Vec<u8>]) -> Vec<Vec<u8>> {
    payloads.iter().map(|payload| source.packet(payload)).collect()
}

/// A capture of RTP streams, one packet of each every 20 ms, to ports P, P+2, P+4 and so on.
fn write_streams(path: &Path, streams: &[Vec<Vec<u8>>]) {
    let mut capture = Vec::new();
    for field in [0xa1b2_c3d4_u32, 0x0004_0002, 0, 0, 65_535, 1] {
        capture.extend(field.to_le_bytes());
    }
    for n in 0..streams.iter().map(Vec::len).max().unwrap_or(0) {
        for (stream, port) in streams.iter().zip((20_000_u16..).step_by(2)) {
            let Some(packet) = stream.get(n) else { continue };
            let frame = ethernet_frame(port, packet);
            let us = n * 20_000;
            for field in [us / 1_000_000, us % 1_000_000, frame.len(), frame.len()] {
                capture.extend((field as u32).to_le_bytes());
            }
            capture.extend(frame);
        }
    }
    fs::write(path, capture).unwrap();
}

/// A call that SIPp is to make, step by step; [`Script::run`] makes it.
pub struct Script {
    folder: TempDir,
    steps: String,
    from: String,
    cseq: u32,
    captures: u32,
    /// The source of each track, which goes on from one part to the next.
    pub sources: Vec<Source>,
}

impl Script {
    pub fn new(from: &str) -> Self {
        let sources = (0x3100_0001..).take(4).map(|ssrc| Source::new(ssrc, 0, 160)).collect();
        Self {
            folder: tempfile::tempdir().unwrap(),
            steps: String::new(),
            from: from.into(),
            cseq: 0,
            captures: 0,
            sources,
        }
    }

    fn send(&mut self, method: &str, headers: &str, body: &str) {
        let (from, cseq) = (&self.from, self.cseq);
        // SIPp makes the line ends itself, and does not repeat an ACK.
        let (repeats, body) = (if method == "ACK" { "" } else { " retrans=\"500\"" }, body.replace("\r\n", "\n"));
        let headers = headers.replace("\r\n", "\n");
        self.steps += &format!(
            "<send{repeats}><![CDATA[\n{method} sip:[remote_ip]:[remote_port] SIP/2.0\n\
             Via: SIP/2.0/[transport] [local_ip]:[local_port];branch=[branch]\n\
             From: {from};tag=[pid]s[call_number]\nTo: <sip:[remote_ip]:[remote_port]>[peer_tag_param]\nCall-ID: [call_id]\n\
             CSeq: {cseq} {method}\nContact: <sip:[local_ip]:[local_port];transport=[transport]>;+sip.src\nMax-Forwards: 70\n\
             {headers}Content-Length: [len]\n\n{body}\n]]></send>\n"
        );
    }

    /// An INVITE, the first or a later one, and the acknowledgement of its answer.
    pub fn invite(&mut self, headers: &str, content_type: &str, body: &str) -> &mut Self {
        self.cseq += 1;
        self.send("INVITE", &format!("{headers}Content-Type: {content_type}\r\n"), body);
        self.steps += "<recv response=\"100\" optional=\"true\"/>\n<recv response=\"200\"/>\n";
        self.send("ACK", "", "");
        self
    }

    /// A request that is answered with 200 and nothing else.
    pub fn ask(&mut self, method: &str, headers: &str, body: &str) -> &mut Self {
        self.cseq += 1;
        self.send(method, headers, body);
        self.steps += "<recv response=\"200\"/>\n";
        self
    }

    /// Metadata alone in an UPDATE, as BroadWorks sends them.
    pub fn update(&mut self, metadata: &str) -> &mut Self {
        let headers = "Content-Type: application/rs-metadata+xml\r\nContent-Disposition: recording-session\r\n";
        self.ask("UPDATE", headers, metadata)
    }

    /// Audio on the first tracks: to the ports of the last answer.
    pub fn play(&mut self, tracks: &[&[Vec<u8>]]) -> &mut Self {
        let path = self.folder.path().join(format!("part{}.pcap", self.captures));
        self.captures += 1;
        let streams: Vec<_> =
            tracks.iter().zip(&mut self.sources).map(|(track, source)| stamped(source, track)).collect();
        write_streams(&path, &streams);
        let length_ms = tracks.iter().map(|track| track.len()).max().unwrap_or(0) * 20 + 100;
        self.steps += &format!(
            "<nop><action><exec play_pcap_audio=\"{}\"/></action></nop>\n<pause milliseconds=\"{length_ms}\"/>\n",
            path.display()
        );
        self
    }

    /// Ends the call and makes it.
    pub fn run(&mut self, appliance: &Appliance, transport: &str) {
        self.ask("BYE", "", "");
        let scenario = format!(
            "<?xml version=\"1.0\" encoding=\"UTF-8\" ?>\n<scenario name=\"rig\">\n{}</scenario>\n",
            self.steps
        );
        fs::write(self.folder.path().join("scenario.xml"), scenario).unwrap();
        run(appliance, self.folder.path(), transport);
    }
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
