//! Webex: how the authorisation stands, and authorising.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{Ipv4Addr, Ipv6Addr, TcpListener, TcpStream};
use std::sync::mpsc::{Sender, channel};
use std::thread;
use std::time::Duration;

use clap::Subcommand;
use serde_json::{Value, json};

use crate::client::{Method, Request};
use crate::error::{CtlError, Exit};
use crate::format::{text, time};
use crate::table::{harmless, write_pairs};
use crate::verbs::Session;

/// Longest first line of a request that the browser makes, in bytes.
const LINE_BYTES_MAX: u64 = 16 << 10;

/// How long the browser may take to make it.
const LINE_WITHIN: Duration = Duration::from_secs(5);

/// How long an answer is waited for, unless the daemon says otherwise, in seconds.
const ANSWER_WITHIN_S: u64 = 1_800;

#[derive(Debug, Subcommand)]
pub(crate) enum Webex {
    /// How the authorisation stands, when users were synchronised and up to when call detail records have been read.
    Status,
    /// Authorise the appliance: prints an address that an administrator of Webex opens, and takes what comes back.
    Authorise {
        /// Wait for the address to be pasted only, and answer nothing at the redirect's port.
        #[arg(long)]
        paste: bool,
        /// Take the refresh token of a Service App from standard input instead.
        #[arg(long, conflicts_with = "paste")]
        service_app: bool,
    },
}

/// Runs a verb on Webex.
pub(crate) fn run(session: &mut Session<'_, '_>, verb: &Webex) -> Result<Exit, CtlError> {
    match verb {
        Webex::Status => {
            let answer = session.client.json(&Request::get("/v1/webex", "ask how Webex stands"))?;
            let is_well = answer["authorised"] == true && answer["problems"].as_array().is_none_or(Vec::is_empty);
            show(session, &answer)?;
            Ok(if is_well { Exit::Done } else { Exit::Failed })
        }
        Webex::Authorise { service_app: true, .. } => {
            if session.around.answers {
                writeln!(session.around.stderr, "the refresh token of the Service App:")?;
            }
            let token = line_of(std::io::stdin())?;
            finish(session, "/v1/webex/authorisation/service-app", token.trim())
        }
        Webex::Authorise { paste, service_app: false } => authorise(session, *paste),
    }
}

fn authorise(session: &mut Session<'_, '_>, only_pasted: bool) -> Result<Exit, CtlError> {
    let request = Request::new(Method::Post, "/v1/webex/authorisation", "begin the authorisation");
    let begun = session.client.json(&request)?;
    let url = begun["url"].as_str().unwrap_or_default();
    let redirect = begun["redirect_url"].as_str().unwrap_or_default();
    let (sender, answers) = channel();
    let listens = !only_pasted && listen(redirect, &sender);
    let out: &mut dyn std::io::Write = if session.json { session.around.stderr } else { session.around.stdout };
    writeln!(out, "an administrator of Webex opens this address and agrees:\n\n{}\n", harmless(url))?;
    let how = if listens {
        "if the browser runs on this machine, that is all; otherwise paste the address that it shows at the end:"
    } else {
        "then paste the address that the browser shows at the end, also when it says that there is nothing there:"
    };
    writeln!(out, "{how}")?;
    out.flush()?;
    thread::spawn(move || {
        if let Ok(line) = line_of(std::io::stdin())
            && !line.trim().is_empty()
        {
            let _ = sender.send(line);
        }
    });
    let within = Duration::from_secs(begun["expires_s"].as_u64().unwrap_or(ANSWER_WITHIN_S));
    let answer = answers.recv_timeout(within).map_err(|_| CtlError::Refused {
        what: "authorise Webex".to_owned(),
        message: "nothing came back; begin again, and paste the whole address that the browser shows at the end"
            .to_owned(),
    })?;
    finish(session, "/v1/webex/authorisation/answer", answer.trim())
}

fn finish(session: &mut Session<'_, '_>, path: &str, answer: &str) -> Result<Exit, CtlError> {
    let request = Request::new(Method::Post, path, "authorise Webex").with_body(&json!({"answer": answer})).long();
    let status = session.client.json(&request)?;
    if !session.json {
        session.say("Webex is authorised")?;
    }
    show(session, &status)?;
    Ok(Exit::Done)
}

fn show(session: &mut Session<'_, '_>, answer: &Value) -> Result<(), CtlError> {
    if session.printed_json(answer)? {
        return Ok(());
    }
    let zone = session.around.zone.clone();
    let mut pairs = vec![("enabled", text(&answer["enabled"])), ("authorisation", text(&answer["state"]))];
    for (name, key) in [
        ("again at", "again_at"),
        ("synchronised", "synced_at"),
        ("synchronising since", "syncing_since"),
        ("records read up to", "records_read_to"),
    ] {
        if !answer[key].is_null() {
            pairs.push((name, time(&answer[key], &zone)));
        }
    }
    if !answer["reason"].is_null() {
        pairs.push(("reason", text(&answer["reason"])));
    }
    let reason = text(&answer["reason"]);
    let problems = answer["problems"].as_array().into_iter().flatten().map(text);
    pairs.extend(problems.filter(|problem| *problem != reason).map(|problem| ("problem", problem)));
    Ok(write_pairs(session.around.stdout, &pairs)?)
}

fn line_of(from: impl std::io::Read) -> Result<String, CtlError> {
    let mut line = String::new();
    BufReader::new(from.take(LINE_BYTES_MAX)).read_line(&mut line)?;
    Ok(line)
}

/// Answers at the redirect, where that is on this machine; says whether it does.
fn listen(redirect: &str, sender: &Sender<String>) -> bool {
    let Some(rest) = redirect.strip_prefix("http://") else { return false };
    let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
    let (host, port) = authority.rsplit_once(':').unwrap_or((authority, "80"));
    let (Ok(port), path) = (port.parse::<u16>(), format!("/{path}")) else { return false };
    if !["localhost", "127.0.0.1", "[::1]"].contains(&host) {
        return false;
    }
    // A browser takes either for localhost.
    let both = [TcpListener::bind((Ipv4Addr::LOCALHOST, port)), TcpListener::bind((Ipv6Addr::LOCALHOST, port))];
    let listeners: Vec<TcpListener> = both.into_iter().flatten().collect();
    let listens = !listeners.is_empty();
    for listener in listeners {
        let (sender, path) = (sender.clone(), path.clone());
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if let Some(target) = answered(stream, &path)
                    && sender.send(target).is_err()
                {
                    return;
                }
            }
        });
    }
    listens
}

/// Answers a request of the browser; what it asked for, where that is the redirect.
fn answered(mut stream: TcpStream, path: &str) -> Option<String> {
    stream.set_read_timeout(Some(LINE_WITHIN)).ok()?;
    let line = line_of(&stream).ok()?;
    let target = line.strip_prefix("GET ")?.split(' ').next()?.to_owned();
    let is_it = target.split('?').next() == Some(path) && target.contains('?');
    let (status, said) = if is_it {
        ("200 OK", "You can close this window; callvaultctl says how it went.")
    } else {
        ("404 Not Found", "There is nothing here.")
    };
    let length = said.len();
    let head = format!("HTTP/1.1 {status}\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: {length}");
    // The browser may be gone; what it brought is here.
    let _ = stream.write_all(format!("{head}\r\nConnection: close\r\n\r\n{said}").as_bytes());
    is_it.then_some(target)
}
