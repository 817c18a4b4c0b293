//! What clients send: the messages of the corpus, as a whole and in their parts.

use std::fs;
use std::path::{Path, PathBuf};

use callvault_sip::{Limits, Message, Request, multipart, parse_datagram};
use serde_json::Value;

use crate::{Seeds, add};

fn corpus() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../corpus")
}

/// Every file of the corpus with this ending, and its name with the client's in front.
fn files(ending: &str) -> Vec<(String, PathBuf)> {
    let clients = fs::read_dir(corpus()).unwrap().map(|client| client.unwrap().path());
    let files = clients.flat_map(|client| fs::read_dir(client).unwrap()).map(|file| file.unwrap().path());
    let mut files: Vec<_> = files
        .filter(|path| path.extension().is_some_and(|found| found == ending))
        .map(|path| {
            let client = path.parent().unwrap().file_name().unwrap().to_str().unwrap();
            (format!("{client}-{}", path.file_stem().unwrap().to_str().unwrap()), path)
        })
        .collect();
    files.sort();
    files
}

/// A message as it is sent: CRLF at the line ends, and the length of its body filled in.
fn on_the_wire(text: &str) -> Vec<u8> {
    let text = text.replace("\r\n", "\n").replace('\n', "\r\n");
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    let head = head.replace("{length}", &body.len().to_string());
    format!("{head}\r\n\r\n{body}").into_bytes()
}

fn request(bytes: &[u8]) -> Request {
    let Message::Request(request) = parse_datagram(bytes, &Limits::default()).unwrap().unwrap() else {
        panic!("a response in the corpus")
    };
    request
}

pub(crate) fn add_all(seeds: &mut Seeds) {
    for (name, path) in files("sip") {
        let bytes = on_the_wire(&fs::read_to_string(path).unwrap());
        let request = request(&bytes);
        if let Some(kind) = request.headers.get("Content-Type").filter(|kind| kind.starts_with("multipart")) {
            let body = [kind.as_bytes(), b"\n", &request.body].concat();
            add(seeds, "multipart", &name, body);
        }
        for part in multipart::bodies(&request).unwrap().parts {
            let target = if part.is_sdp() { "sdp" } else { "metadata" };
            add(seeds, target, &name, part.body);
        }
        add(seeds, "sip_message", &name, bytes);
    }
    for (name, path) in files("sdp") {
        add(seeds, "sdp", &name, fs::read(path).unwrap());
    }
    for (name, path) in files("xml") {
        add(seeds, "metadata", &name, fs::read(path).unwrap());
    }
    for (name, path) in files("json") {
        add_pairs(seeds, &name, &path);
    }
}

/// Metadata that came one after the other in a call, with a NUL between.
fn add_pairs(seeds: &mut Seeds, name: &str, case: &Path) {
    let steps: Value = serde_json::from_slice(&fs::read(case).unwrap()).unwrap();
    let documents: Vec<Vec<u8>> =
        steps["steps"].as_array().unwrap().iter().filter_map(|step| metadata(step, case)).collect();
    for (number, pair) in documents.windows(2).enumerate() {
        add(seeds, "metadata", &format!("{name}-{number}-then"), [&pair[0], &b"\0"[..], &pair[1]].concat());
    }
}

fn metadata(step: &Value, case: &Path) -> Option<Vec<u8>> {
    if let Some(file) = step["metadata"].as_str() {
        return Some(fs::read(case.with_file_name(file)).unwrap());
    }
    let message = fs::read_to_string(case.with_file_name(step["message"].as_str()?)).unwrap();
    let request = request(&on_the_wire(&message));
    let bodies = multipart::bodies(&request).unwrap();
    bodies.recording_metadata().map(|part| part.body.clone())
}
