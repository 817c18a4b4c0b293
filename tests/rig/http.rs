//! As much of HTTP as asking the control endpoint takes.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use serde_json::Value;

#[derive(Debug)]
pub struct Response {
    pub status: u16,
    pub body: Vec<u8>,
}

impl Response {
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|_| panic!("not JSON: {}", String::from_utf8_lossy(&self.body)))
    }
}

/// Asks; an error when nobody answers.
pub fn ask(to: SocketAddr, method: &str, path: &str, token: Option<&str>) -> std::io::Result<Response> {
    ask_with(to, (method, path), token, "")
}

/// [`ask`] with a body of JSON.
pub fn ask_with(
    to: SocketAddr,
    (method, path): (&str, &str),
    token: Option<&str>,
    body: &str,
) -> std::io::Result<Response> {
    let stream = TcpStream::connect(to)?;
    stream.set_read_timeout(Some(Duration::from_secs(60)))?;
    ask_over(stream, (method, path), token, body)
}

/// [`ask_with`] over a connection that is there.
pub fn ask_over(
    mut stream: impl Read + Write,
    (method, path): (&str, &str),
    token: Option<&str>,
    body: &str,
) -> std::io::Result<Response> {
    let authorization = token.map(|token| format!("Authorization: Bearer {token}\r\n")).unwrap_or_default();
    let content = if body.is_empty() {
        String::new()
    } else {
        format!("Content-Type: application/json\r\nContent-Length: {}\r\n", body.len())
    };
    write!(
        stream,
        "{method} {path} HTTP/1.1\r\nHost: appliance\r\n{authorization}{content}Connection: close\r\n\r\n{body}"
    )?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    parse(&answer).ok_or_else(|| std::io::Error::other("the answer breaks off"))
}

fn parse(answer: &[u8]) -> Option<Response> {
    let head_end = answer.windows(4).position(|w| w == b"\r\n\r\n")?;
    let head = std::str::from_utf8(&answer[..head_end]).ok()?.to_ascii_lowercase();
    let status = head.split(' ').nth(1)?.parse().ok()?;
    let rest = &answer[head_end + 4..];
    let body = if head.contains("transfer-encoding: chunked") { dechunk(rest)? } else { rest.to_vec() };
    Some(Response { status, body })
}

/// None when the last chunk is missing.
fn dechunk(mut rest: &[u8]) -> Option<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let line_end = rest.windows(2).position(|w| w == b"\r\n")?;
        let length = usize::from_str_radix(std::str::from_utf8(&rest[..line_end]).ok()?.trim(), 16).ok()?;
        let chunk = rest.get(line_end + 2..line_end + 2 + length)?;
        if length == 0 {
            return Some(body);
        }
        body.extend_from_slice(chunk);
        rest = rest.get(line_end + 4 + length..)?;
    }
}
