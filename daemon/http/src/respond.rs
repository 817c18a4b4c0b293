//! Answers: JSON and text through tiny_http, audio by hand.

use std::io::{self, Cursor, Read, Write};

use serde_json::Value;
use tiny_http::{Header, Response, StatusCode};

use crate::{ApiError, Audio, AudioFormat, ErrorKind, api::error_json, head::Refusal};

/// Bytes of audio passed on at once.
const CHUNK_BYTES: usize = 64 << 10;

/// What every answer says: who speaks, that it is not to be kept, and that it is what it says it is.
const ALWAYS: [(&str, &str); 3] =
    [("Server", "callvault"), ("Cache-Control", "no-store"), ("X-Content-Type-Options", "nosniff")];

pub(crate) type Ready = Response<Cursor<Vec<u8>>>;

pub(crate) fn text(status: u16, content_type: &'static str, body: Vec<u8>) -> Ready {
    let bytes = body.len();
    let headers = ALWAYS.into_iter().chain([("Content-Type", content_type)]).map(|(name, value)| header(name, value));
    // never chunked: what is in memory has a length
    Response::new(StatusCode(status), headers.collect(), Cursor::new(body), Some(bytes), None)
        .with_chunked_threshold(usize::MAX)
}

pub(crate) fn json(status: u16, value: &Value) -> Ready {
    let mut body = value.to_string().into_bytes();
    body.push(b'\n');
    text(status, "application/json", body)
}

pub(crate) fn error(error: &ApiError) -> Ready {
    let response = json(error.kind.status().0, &error.json());
    match error.kind {
        ErrorKind::MethodNotAllowed => response.with_header(header("Allow", error.allow)),
        ErrorKind::Unavailable => response.with_header(header("Retry-After", "1")),
        ErrorKind::Unauthorized => response.with_header(header("WWW-Authenticate", "Bearer")),
        _ => response,
    }
}

pub(crate) fn refusal(refusal: Refusal) -> Ready {
    json(refusal.status, &error_json(refusal.code, refusal.text))
}

/// Sends audio. Broken off where the reader breaks off: chunks without the last one, or fewer bytes than announced.
pub(crate) fn audio(writer: &mut dyn Write, format: AudioFormat, audio: Audio) -> io::Result<()> {
    let mut head = String::from("HTTP/1.1 200 OK\r\n");
    for (name, value) in ALWAYS.into_iter().chain([("Content-Type", format.content_type())]) {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    match audio.bytes {
        Some(bytes) => head.push_str(&format!("Content-Length: {bytes}\r\n\r\n")),
        None => head.push_str("Transfer-Encoding: chunked\r\n\r\n"),
    }
    writer.write_all(head.as_bytes())?;
    let mut body = audio.body;
    match audio.bytes {
        Some(bytes) => {
            let sent = io::copy(&mut body.take(bytes), writer)?;
            if sent < bytes {
                return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the audio is shorter than announced"));
            }
        }
        None => {
            let mut chunk = vec![0; CHUNK_BYTES];
            loop {
                let bytes = match body.read(&mut chunk) {
                    Ok(0) => break,
                    Ok(bytes) => bytes,
                    Err(again) if again.kind() == io::ErrorKind::Interrupted => continue,
                    Err(broken) => return Err(broken),
                };
                write!(writer, "{bytes:x}\r\n")?;
                writer.write_all(&chunk[..bytes])?;
                writer.write_all(b"\r\n")?;
            }
            writer.write_all(b"0\r\n\r\n")?;
        }
    }
    writer.flush()
}

fn header(name: &str, value: &'static str) -> Header {
    Header::from_bytes(name, value).expect("names and values are constants in ASCII")
}
