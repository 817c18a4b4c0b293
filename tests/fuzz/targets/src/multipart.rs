//! The bodies of a message. The first line of the input is Content-Type, the rest is the body.

use callvault_sip::Headers;
use callvault_sip::multipart::{Multipart, PARTS_MAX, bodies_of, split};

/// Splits the body.
pub fn run(input: &[u8]) {
    let at = input.iter().position(|&byte| byte == b'\n').unwrap_or(input.len());
    let content_type = String::from_utf8_lossy(&input[..at]);
    let body = input.get(at + 1..).unwrap_or_default();
    if let Ok(parts) = split(&content_type, body) {
        check(&parts, body);
    }
    let mut headers = Headers::new();
    headers.push("Content-Type", &content_type);
    if let Ok(parts) = bodies_of(&headers, body) {
        check(&parts, body);
    }
}

/// Parts are stretches of the body, in their order and without overlap.
fn check(parts: &Multipart, body: &[u8]) {
    assert!(parts.parts.len() <= PARTS_MAX);
    let bytes: usize = parts.parts.iter().map(|part| part.body.len()).sum();
    assert!(bytes <= body.len(), "{bytes} bytes of parts from {} of body", body.len());
    let mut rest = body;
    for part in &parts.parts {
        let found = part.body.is_empty().then_some(0);
        let found = found.or_else(|| rest.windows(part.body.len()).position(|window| window == part.body));
        let Some(at) = found else { panic!("a part that is nowhere in the body") };
        rest = &rest[at + part.body.len()..];
        let _ = (part.is_sdp(), part.is_recording_metadata(), part.content_id());
    }
    let mut flaws = parts.flaws.clone();
    flaws.sort_unstable();
    flaws.dedup();
    assert!(flaws.len() == parts.flaws.len(), "a flaw is noted twice");
}
