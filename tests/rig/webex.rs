//! The stand-in for Webex as a process: what it is told, what it saw, and what a browser would do there.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use serde_json::Value;

/// The secret of the integration that it knows.
pub const SECRET: &str = "the-integration-secret";

/// What all of its tokens and codes begin with.
pub const TOKENS: &str = "standin-";

/// The stand-in; it ends when it is dropped.
pub struct Process {
    child: Child,
    address: String,
    pub port: u16,
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Process {
    /// Listens at a port of its own; `tls` is a chain and its key.
    pub fn start(address: &str, tls: &[PathBuf]) -> Self {
        // This is a part of the tests of more than one package.
        let here = Path::new(env!("CARGO_MANIFEST_DIR"));
        let program = ["tests/rig/webex.py", "../../tests/rig/webex.py"].map(|path| here.join(path));
        let program = program.iter().find(|path| path.exists()).unwrap();
        let mut command = Command::new("python3");
        command.arg(program).arg(address).args(tls).stdin(Stdio::null()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut port = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut port).unwrap();
        Self { child, address: address.to_owned(), port: port.trim().parse().unwrap() }
    }

    fn ask(&self, method: &str, path: &str, body: &str) -> String {
        let mut stream = TcpStream::connect((self.address.as_str(), self.port)).unwrap();
        let length = body.len();
        write!(
            stream,
            "{method} {path} HTTP/1.1\r\nHost: here\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}"
        )
        .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }

    pub fn set(&self, told: &Value) {
        assert!(self.ask("POST", "/_set", &told.to_string()).starts_with("HTTP/1.1 200"));
    }

    pub fn seen(&self) -> Value {
        let answer = self.ask("GET", "/_seen", "");
        serde_json::from_str(answer.split_once("\r\n\r\n").unwrap().1).unwrap()
    }

    /// What a browser does with the address: where it is sent to.
    pub fn agree(&self, url: &str) -> String {
        let path = url.split_once("/v1/").unwrap().1;
        let answer = self.ask("GET", &format!("/v1/{path}"), "");
        let location = answer.lines().find_map(|line| line.strip_prefix("Location: "));
        location.unwrap_or_else(|| panic!("no redirect: {answer}")).to_owned()
    }
}
