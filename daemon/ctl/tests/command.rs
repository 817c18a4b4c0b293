//! The command against a stand-in for the daemon: what it asks, what it prints, how it fails.
#![allow(clippy::unwrap_used)]

use std::ffi::OsString;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::sync::{Arc, Mutex};

use callvault_ctl::{Exit, Surroundings, run};
use jiff::tz::TimeZone;
use serde_json::{Value, json};

const ID: &str = "0199c0de-0000-7000-8000-000000000001";
const TOKEN: &str = "the-token";

/// A daemon that knows a few answers: path (with query) to status, content type and body.
struct Daemon {
    folder: tempfile::TempDir,
    asked: Arc<Mutex<Vec<String>>>,
}

type Answers = Vec<(&'static str, u16, Vec<u8>)>;

impl Daemon {
    fn tcp(answers: Answers) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let listen = listener.local_addr().unwrap().to_string();
        let daemon = Self::configured(&listen);
        let asked = Arc::clone(&daemon.asked);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                serve(stream.unwrap(), &answers, &asked);
            }
        });
        daemon
    }

    fn unix(answers: Answers) -> Self {
        let daemon = Self::configured("unix:control.sock");
        let listener = UnixListener::bind(daemon.folder.path().join("control.sock")).unwrap();
        let asked = Arc::clone(&daemon.asked);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                serve(stream.unwrap(), &answers, &asked);
            }
        });
        daemon
    }

    /// Nobody listens; only the files are there.
    fn configured(listen: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(
            folder.path().join("c.toml"),
            format!("data_dir = \".\"\nruntime_dir = \"run\"\n[http]\nlisten = \"{listen}\"\n"),
        )
        .unwrap();
        std::fs::write(folder.path().join("control.token"), format!("{TOKEN}\n")).unwrap();
        Self { folder, asked: Arc::default() }
    }

    /// Runs the command; gives its exit, standard output and standard error.
    fn run(&self, arguments: &[&str]) -> (Exit, String, String) {
        command(&self.folder.path().join("c.toml"), arguments)
    }

    fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }

    fn path(&self, name: &str) -> String {
        self.folder.path().join(name).display().to_string()
    }
}

fn command(config: &Path, arguments: &[&str]) -> (Exit, String, String) {
    let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
    let mut surroundings = Surroundings {
        stdout: &mut stdout,
        stderr: &mut stderr,
        shows_progress: false,
        answers: false,
        zone: TimeZone::UTC,
        environment: Vec::new(),
    };
    let config = config.display().to_string();
    let all =
        ["callvaultctl", "--config", config.as_str()].into_iter().chain(arguments.iter().copied()).map(OsString::from);
    let exit = run(all, &mut surroundings);
    (exit, String::from_utf8(stdout).unwrap(), String::from_utf8(stderr).unwrap())
}

fn serve(mut stream: impl Read + Write, answers: &Answers, asked: &Mutex<Vec<String>>) {
    let mut lines = Vec::new();
    let mut reader = BufReader::new(&mut stream);
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).unwrap_or(0) == 0 || line == "\r\n" {
            break;
        }
        lines.push(line.trim_end().to_owned());
    }
    // A body is read before the answer: whoever closes with bytes unread resets the connection, and its answer with it.
    let length = lines.iter().find_map(|line| line.to_ascii_lowercase().strip_prefix("content-length: ")?.parse().ok());
    if reader.read_exact(&mut vec![0; length.unwrap_or(0)]).is_err() {
        return;
    }
    let Some(first) = lines.first().and_then(|line| line.strip_suffix(" HTTP/1.1")) else { return };
    assert!(!lines.iter().any(|l| l.to_ascii_lowercase().starts_with("transfer-encoding")), "{lines:?}");
    asked.lock().unwrap().push(first.to_owned());
    let authorised = lines.iter().any(|l| l.eq_ignore_ascii_case(&format!("authorization: bearer {TOKEN}")));
    let known = answers.iter().find(|(path, _, _)| *path == first);
    let error = |code: &str, text: &str| json!({"error": {"code": code, "message": text}}).to_string().into_bytes();
    let (status, body) = match known {
        _ if !authorised && !first.contains("/health") => (401, error("unauthorised", "wrong token")),
        Some((_, status, body)) => (*status, body.clone()),
        None => (404, error("not-found", "there is no such recording")),
    };
    let head = format!("HTTP/1.1 {status} X\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len());
    let _ = stream.write_all(head.as_bytes());
    let _ = stream.write_all(&body);
}

fn body(value: Value) -> Vec<u8> {
    value.to_string().into_bytes()
}

fn recording() -> Value {
    json!({
        "id": ID, "verdict": "degraded", "started_at": "2026-11-05T09:30:15.250Z", "ended_at": "2026-11-05T09:33:22.250Z",
        "duration_ms": 187_000, "owner": null, "direction": "incoming", "local_number": "+442079460001",
        "local_name": "Ann", "remote_number": "+441632960002", "remote_name": "Bob \u{1b}[31m", "traffic": "external",
        "call_id": "abc", "linked": ["0199c0de-0000-7000-8000-000000000002"], "tracks": [
            {"label": "1", "participant": "Ann", "codec": "PCMU", "packets": 9350, "lost": 3, "duplicates": 0, "late": 1, "gaps_ms": 60},
            {"label": "2", "participant": null, "codec": "opus", "packets": 9350, "lost": 0, "duplicates": 0, "late": 0, "gaps_ms": 0}],
        "flaws": [{"code": "loss", "text": "3 packets were lost"}],
        "archive": {"state": "archived", "bytes": 1_572_864, "store": "local"},
    })
}

/// The command does this, and prints exactly that.
fn prints(answers: Answers, arguments: &[&str], exit: Exit, expected: &str) {
    let daemon = Daemon::tcp(answers);
    let (got, stdout, stderr) = daemon.run(arguments);
    assert_eq!((got, stdout.as_str()), (exit, expected), "{arguments:?}\n{stderr}");
}

#[test]
fn tables_for_people() {
    let list = json!({"recordings": [recording()], "next": null});
    prints(
        vec![("GET /v1/recordings?limit=50", 200, body(list))],
        &["recordings", "list"],
        Exit::Done,
        "STARTED              LENGTH  DIRECTION  USER           OTHER          NAME       VERDICT   ARCHIVE   ID\n\
         2026-11-05 09:30:15    3:07  incoming   +442079460001  +441632960002  Bob \u{fffd}[31m  degraded  archived  0199c0de-0000-7000-8000-000000000001\n",
    );
    prints(
        vec![("GET /v1/recordings/0199c0de-0000-7000-8000-000000000001", 200, body(recording()))],
        &["recordings", "show", ID],
        Exit::Done,
        "recording    0199c0de-0000-7000-8000-000000000001\n\
         verdict      degraded\n\
         began        2026-11-05 09:30:15\n\
         ended        2026-11-05 09:33:22\n\
         length       3:07\n\
         direction    incoming\n\
         user         +442079460001 (Ann)\n\
         other party  +441632960002 (Bob \u{fffd}[31m)\n\
         traffic      external\n\
         owner        -\n\
         call id      abc\n\
         linked with  0199c0de-0000-7000-8000-000000000002\n\
         archive      archived, 1.50 MiB, store local\n\
         \n\
         TRACK  PARTICIPANT  CODEC  PACKETS  LOST  DUPLICATES  LATE   GAPS\n\
         1      Ann          PCMU      9350     3           0     1  60 ms\n\
         2      -            opus      9350     0           0     0   0 ms\n\
         flaw: loss: 3 packets were lost\n",
    );
    let calls = json!({"calls": [{"id": "s1", "started_at": "2026-11-05T09:30:15Z", "duration_ms": 61_000, "local_number": "1",
        "remote_number": "2", "remote_name": null, "direction": "outgoing", "tracks": 2, "packets": 6100, "state": "recording",
        "kept": true}]});
    prints(
        vec![("GET /v1/calls", 200, body(calls))],
        &["calls"],
        Exit::Done,
        "STARTED              LENGTH  DIRECTION  USER  OTHER  NAME  TRACKS  PACKETS  STATE      KEPT  ID\n\
         2026-11-05 09:30:15    1:01  outgoing   1     2      -          2     6100  recording  yes   s1\n",
    );
    prints(
        vec![("GET /v1/calls", 200, body(json!({"calls": []})))],
        &["calls"],
        Exit::Done,
        "no call is being recorded\n",
    );
    let jobs = json!({"jobs": [{"id": "archive:x", "kind": "archive", "recording": "x", "state": "parked", "attempts": 4,
        "next_at": null, "last_error": "the store is full"}]});
    prints(
        vec![("GET /v1/jobs", 200, body(jobs))],
        &["jobs", "list"],
        Exit::Done,
        "JOB        STATE   TRIES  NEXT  LAST ERROR\narchive:x  parked      4  -     the store is full\n",
    );
}

#[test]
fn status_shows_what_is_wrong_and_tells_it_by_its_exit() {
    let health = |status: &str| {
        body(json!({"status": status, "components": {"journal": {"status": status, "reason": "disk almost full"}}}))
    };
    let status = || body(json!({"version": "0.1.0", "spool": {"free_bytes": 1_572_864}, "uptime_ms": 61_000}));
    let expected = |word: &str| {
        let width = " ".repeat(word.len().max(6) - word.len());
        let head = " ".repeat(word.len().max(6) - 6);
        format!(
            "callvault is {word}\n\nCOMPONENT  STATUS{head}  REASON\njournal    {word}{width}  disk almost full\n\n\
             spool.free bytes  1.50 MiB\nuptime ms         1:01\nversion           0.1.0\n"
        )
    };
    prints(
        vec![("GET /health", 200, health("degraded")), ("GET /v1/status", 200, status())],
        &["status"],
        Exit::Done,
        &expected("degraded"),
    );
    prints(
        vec![("GET /health", 503, health("failing")), ("GET /v1/status", 200, status())],
        &["status"],
        Exit::Failed,
        &expected("failing"),
    );
}

#[test]
fn json_is_the_endpoints_own() {
    let daemon = Daemon::tcp(vec![("GET /v1/jobs", 200, body(json!({"jobs": [], "new": {"field": 1}})))]);
    let (exit, stdout, _) = daemon.run(&["--json", "jobs", "list"]);
    assert_eq!(exit, Exit::Done);
    assert_eq!(serde_json::from_str::<Value>(&stdout).unwrap(), json!({"jobs": [], "new": {"field": 1}}));
}

#[test]
fn a_unix_socket_works_like_an_address() {
    let daemon = Daemon::unix(vec![
        ("GET /v1/calls", 200, body(json!({"calls": []}))),
        ("POST /v1/drain", 200, body(json!({}))),
    ]);
    assert_eq!(daemon.run(&["calls"]), (Exit::Done, "no call is being recorded\n".into(), String::new()));
    assert_eq!(daemon.run(&["drain"]).0, Exit::Done);
    assert_eq!(daemon.asked(), ["GET /v1/calls", "POST /v1/drain"]);
}

#[test]
fn a_live_call_is_controlled_and_told_how_it_stands() {
    const ID: &str = "01900000-0000-7000-8000-000000000001";
    fn check(action: &str, answer: Value, expected: &str) {
        let path: &'static str = format!("POST /v1/calls/{ID}/{action}").leak();
        let daemon = Daemon::tcp(vec![(path, 200, body(answer))]);
        let (exit, stdout, _) = daemon.run(&["calls", action, ID]);
        assert_eq!((exit, stdout.as_str()), (Exit::Done, expected), "{action}");
        assert_eq!(daemon.asked(), [path]);
    }
    check("pause", json!({"id": "a", "state": "paused", "kept": true}), "a: paused, kept: yes\n");
    check("resume", json!({"id": "a", "state": "on-demand", "kept": false}), "a: on-demand, kept: no\n");
    check("stop", json!({"id": "a", "state": "stopped", "kept": null}), "a: stopped, kept: -\n");
    check("start", json!({"id": "b", "state": "recording", "kept": true}), "b: recording, kept: yes\n");
    check("keep", json!({"id": "a", "state": "recording", "kept": true}), "a: recording, kept: yes\n");
}

#[test]
fn draining_waits_for_the_last_call_and_can_be_taken_back() {
    let daemon = Daemon::tcp(vec![
        ("POST /v1/drain", 200, body(json!({"draining": true, "calls": 0}))),
        ("GET /v1/calls", 200, body(json!({"calls": []}))),
        ("DELETE /v1/drain", 200, body(json!({"draining": false, "calls": 0}))),
    ]);
    let (exit, stdout, _) = daemon.run(&["drain", "--wait"]);
    assert_eq!((exit, stdout.as_str()), (Exit::Done, "no call is going on, and new ones are refused\n"));
    assert_eq!(daemon.run(&["drain", "--cancel"]).1, "new calls are taken again\n");
    assert_eq!(daemon.asked(), ["POST /v1/drain", "GET /v1/calls", "DELETE /v1/drain"]);
    assert_eq!(daemon.run(&["drain", "--wait", "--cancel"]).0, Exit::Usage);
}

#[test]
fn a_list_can_be_narrowed_and_followed_to_its_end() {
    let page = |id: &str, next: Value| body(json!({"recordings": [{"id": id}], "next": next}));
    let daemon = Daemon::tcp(vec![
        ("GET /v1/recordings?limit=200", 200, page("a", json!("c/1"))),
        ("GET /v1/recordings?limit=200&cursor=c%2F1", 200, page("b", Value::Null)),
        (
            "GET /v1/recordings?from=2026-11-05T00%3A00%3A00Z&verdict=ok&number=%2B44&limit=3",
            200,
            page("c", json!("more")),
        ),
    ]);
    let (exit, stdout, stderr) = daemon.run(&["recordings", "list", "--all", "--json"]);
    assert_eq!(exit, Exit::Done, "{stderr}");
    assert_eq!(
        serde_json::from_str::<Value>(&stdout).unwrap(),
        json!({"recordings": [{"id": "a"}, {"id": "b"}], "next": null})
    );
    let narrowed = ["recordings", "list", "--from", "2026-11-05", "--verdict", "ok", "--number", "+44", "--limit", "3"];
    let (exit, _, stderr) = daemon.run(&narrowed);
    assert_eq!((exit, stderr.as_str()), (Exit::Done, "there are more: add --all, or --cursor more\n"));
}

#[test]
fn verify_fails_when_something_is_found() {
    let path = "GET /v1/recordings/0199c0de-0000-7000-8000-000000000001/verify";
    let finding = json!({"recording": ID, "where": "archive chunk 7", "kind": "damaged", "text": "20 s of audio are lost", "invariant": 1, "remedy": "restore it"});
    prints(
        vec![("GET /v1/verify", 200, body(json!({"checked": 12, "findings": []})))],
        &["recordings", "verify"],
        Exit::Done,
        "12 recordings checked: whole\n",
    );
    prints(
        vec![(path, 200, body(json!({"checked": 1, "findings": [finding]})))],
        &["recordings", "verify", ID],
        Exit::Failed,
        "INVARIANT  RECORDING                             WHERE            WHAT     DETAILS\n        1  0199c0de-0000-7000-8000-000000000001  archive chunk 7  damaged  20 s of audio are lost\n\
         invariant 1: restore it\n\
         1 recording checked: 1 flaw found\n",
    );
}

#[test]
fn deliveries_are_listed_and_asked_for() {
    let delivery = json!({"sink": "analytics", "job": format!("upload:{ID}"), "step": "begun", "remote_id": "r\u{1b}1",
        "error": "put the audio: answered 500", "owed_at": "2026-11-05T10:00:00.000Z", "changed_at": "2026-11-05T10:00:00.000Z"});
    let daemon = Daemon::tcp(vec![
        (
            "GET /v1/recordings/0199c0de-0000-7000-8000-000000000001/deliveries",
            200,
            body(json!({"deliveries": [delivery]})),
        ),
        (
            "POST /v1/recordings/0199c0de-0000-7000-8000-000000000001/deliveries/webhook",
            200,
            body(json!({"id": ID, "sink": "webhook", "job": format!("webhook:{ID}")})),
        ),
    ]);
    let (_, listed, _) = daemon.run(&["deliveries", "list", ID]);
    assert!(listed.contains("analytics") && listed.contains("answered 500") && !listed.contains('\u{1b}'), "{listed}");
    let (_, sent, _) = daemon.run(&["deliveries", "send", "--to", "webhook", ID]);
    assert_eq!(sent, format!("{ID} will be delivered (webhook:{ID})\n"));
}

#[test]
fn what_changes_something_is_asked_for_as_it_should_be() {
    let daemon = Daemon::tcp(vec![
        ("DELETE /v1/recordings/0199c0de-0000-7000-8000-000000000001", 204, Vec::new()),
        ("POST /v1/jobs/archive%3Ax%2F..%2Fy/retry", 200, body(json!({}))),
        ("POST /v1/keys/rotate", 200, body(json!({"current": {"id": "ab", "public": "callvault-public-1:x"}}))),
    ]);
    assert_eq!(daemon.run(&["recordings", "delete", ID]).1, format!("deleted {ID}\n"));
    assert_eq!(daemon.run(&["jobs", "retry", "archive:x/../y"]).1, "archive:x/../y will be tried again\n");
    let (exit, stdout, _) = daemon.run(&["keys", "rotate"]);
    assert_eq!(exit, Exit::Done);
    assert!(stdout.starts_with("current.id      ab\ncurrent.public  callvault-public-1:x\nBack up"), "{stdout}");
    assert_eq!(daemon.asked().len(), 3);
}

#[test]
fn access_is_asked_for_as_it_should_be() {
    let made = json!({"id": ID, "name": "script", "level": "base", "email": "ann@example.com", "token": "cvt-1",
        "state": "good", "created_at": "2026-11-05T09:30:15.250Z", "expires_at": null, "used_on": null});
    let stopped = json!({"stopped": true, "since": "2026-11-05T09:30:15.250Z", "reason": "moving", "calls": 2});
    let head = "2:ab";
    let entry = |number: u64, outcome: &str| {
        json!({"number": number, "at": "2026-11-05T09:30:15.250Z", "name": "ann@example.com", "from": "unix",
            "through": "token", "action": "play", "recording": ID, "outcome": outcome, "details": {"format": "wav"}})
    };
    let export = "GET /v1/audit?order=oldest&limit=1000";
    let daemon = Daemon::tcp(vec![
        ("POST /v1/tokens", 200, body(made.clone())),
        ("GET /v1/tokens", 200, body(json!({"tokens": [made.clone()]}))),
        ("DELETE /v1/tokens/0199c0de-0000-7000-8000-000000000001", 200, body(made)),
        ("POST /v1/recording/stop", 200, body(stopped.clone())),
        ("GET /v1/status", 200, body(json!({"recording": stopped}))),
        ("POST /v1/recording/start", 200, body(json!({"stopped": false}))),
        ("GET /v1/audit/verify?head=2%3Aab", 200, body(json!({"checked": 2, "head": head, "findings": []}))),
        (
            "GET /v1/audit/verify",
            200,
            body(json!({"checked": 2, "head": head, "findings": [{"number": 2, "text": "was changed"}]})),
        ),
        (export, 200, body(json!({"entries": [entry(1, "allowed")], "next": "1", "damaged": []}))),
        (
            "GET /v1/audit?order=oldest&limit=1000&cursor=1",
            200,
            body(json!({"entries": [entry(2, "refused")], "next": null, "damaged": []})),
        ),
    ]);
    let check = |arguments: &[&str], exit: Exit, said: &str| {
        let (found, stdout, stderr) = daemon.run(arguments);
        assert_eq!(found, exit, "{arguments:?}: {stderr}");
        assert!(stdout.contains(said), "{arguments:?}: {stdout}");
    };
    let create = ["tokens", "create", "--name", "script", "--level", "base", "--user", "ann@example.com"];
    check(&create, Exit::Done, "token    cvt-1\n");
    check(&create, Exit::Done, "Keep the token now");
    check(&["tokens", "list"], Exit::Done, "script  base   ann@example.com  good");
    check(&["tokens", "revoke", ID], Exit::Done, "worth nothing any more");
    check(&["tokens", "revoke", "script"], Exit::Usage, "");
    check(&["recording", "stop", "--reason", "moving"], Exit::Done, "moving. New calls are refused; 2 go on");
    check(&["recording", "stop"], Exit::Usage, "");
    check(&["recording", "status"], Exit::Done, "stopped since");
    check(&["recording", "start"], Exit::Done, "new calls are recorded");
    check(&["audit", "verify", "--head", head], Exit::Done, "2 entries, all as they were written\nhead: 2:ab\n");
    check(&["audit", "verify"], Exit::Failed, "entry 2: was changed");
    let lines = format!(
        "Date,Email,IpAddress,AppName,ActionType,Details\n\
         2026-11-05 09:30:15 +0000 UTC,ann@example.com,unix,token,play,\"recording={ID}; format=wav\"\n\
         2026-11-05 09:30:15 +0000 UTC,ann@example.com,unix,token,play,\"recording={ID}; outcome=refused; format=wav\"\n"
    );
    check(&["audit", "export"], Exit::Done, &lines);
    check(&["audit", "export", "--format", "json"], Exit::Done, "\"number\":2");
    let other = daemon.path("ann.token");
    std::fs::write(&other, "another").unwrap();
    let (exit, _, stderr) = daemon.run(&["--token-file", &other, "tokens", "list"]);
    assert!(exit == Exit::Failed && stderr.contains("ann.token was refused"), "{stderr}");
}

#[test]
fn retention_shows_what_it_asks_and_takes_the_answer() {
    let rule = |name: &str, text: &str| json!({"name": name, "text": text});
    let answer = json!({
        "rule": rule("12-months", "recordings are kept for 12 months"), "in_force": rule("keep-all", "everything is kept"),
        "plan": {"recordings": 900, "due": 321, "due_by_new_rule": 300, "goes_now": 21, "held": 2, "bytes": 2_048,
            "oldest": null, "newest": null},
        "question": {"kind": "shorter-rule", "token": "5f0c", "text": "300 of 900 recordings would be deleted"},
        "last_run": {"at": null, "deleted": 0, "error": null},
    });
    let daemon = Daemon::tcp(vec![
        ("GET /v1/retention", 200, body(answer.clone())),
        ("POST /v1/retention/run", 200, body(answer.clone())),
        ("POST /v1/retention/confirm", 200, body(json!({"confirmed": "shorter-rule", "recordings": 300}))),
    ]);
    let check = |arguments: &[&str], expected: &[&str]| {
        let (exit, stdout, stderr) = daemon.run(arguments);
        assert_eq!(exit, Exit::Done, "{stderr}");
        for text in expected {
            assert!(stdout.contains(text), "{arguments:?} lacks {text}: {stdout}");
        }
    };
    let asked = ["300 of 900", "callvaultctl retention confirm 5f0c"];
    check(&["retention", "plan"], &["everything is kept", "321", asked[0], asked[1]]);
    check(&["retention", "run", "--dry-run"], &asked);
    check(&["retention", "run"], &["21 recordings are being deleted", asked[1]]);
    check(&["retention", "confirm", "5f0c", "--yes"], &["confirmed"]);
    let posts: Vec<String> = daemon.asked().into_iter().filter(|line| line.starts_with("POST")).collect();
    assert_eq!(posts.len(), 2, "a dry run changes nothing: {posts:?}");
}

#[test]
fn an_export_is_whole_or_not_there() {
    let wav = "GET /v1/recordings/0199c0de-0000-7000-8000-000000000001/audio?format=wav";
    let mp3 = "GET /v1/recordings/0199c0de-0000-7000-8000-000000000001/audio?format=mp3&start_ms=100&end_ms=200";
    let audio: Vec<u8> = (0..200_000_u32).map(|n| n as u8).collect();
    let daemon = Daemon::tcp(vec![(wav, 200, audio.clone()), (mp3, 200, b"mp3".to_vec())]);
    let output = daemon.path("call.wav");
    let (exit, stdout, stderr) = daemon.run(&["recordings", "export", ID, "--output", &output]);
    assert_eq!((exit, stdout), (Exit::Done, format!("wrote {output} (195 KiB)\n")), "{stderr}");
    assert_eq!(std::fs::read(&output).unwrap(), audio);
    assert_eq!(std::fs::metadata(&output).unwrap().permissions().mode() & 0o777, 0o600);

    let (exit, _, stderr) = daemon.run(&["recordings", "export", ID, "--output", &output]);
    assert_eq!(exit, Exit::Failed);
    assert!(stderr.contains("replace it with --force"), "{stderr}");
    assert_eq!(daemon.run(&["recordings", "export", ID, "--output", &output, "--force"]).0, Exit::Done);

    let mp3 = daemon.path("call.mp3");
    let (exit, _, stderr) =
        daemon.run(&["recordings", "export", ID, "-o", &mp3, "--start-ms", "100", "--end-ms", "200"]);
    assert_eq!(exit, Exit::Done, "the format follows the file's ending: {stderr}");
    assert_eq!(
        daemon
            .run(&["recordings", "export", ID, "-o", "-", "--format", "mp3", "--start-ms", "100", "--end-ms", "200"])
            .1,
        "mp3"
    );

    let missing = daemon.path("missing/call.wav");
    assert_eq!(daemon.run(&["recordings", "export", ID, "-o", &missing]).0, Exit::Failed);
    let (exit, _, stderr) = daemon.run(&["recordings", "export", ID, "-o", &daemon.path("call.opus")]);
    assert_eq!(exit, Exit::Failed, "not offered by this daemon");
    assert!(stderr.contains("there is no such recording"), "{stderr}");
    let mut left: Vec<String> = std::fs::read_dir(daemon.folder.path())
        .unwrap()
        .map(|e| e.unwrap().file_name().to_string_lossy().into_owned())
        .collect();
    left.sort();
    assert_eq!(left, ["c.toml", "call.mp3", "call.wav", "control.token"], "nothing half-written stays");
}

#[test]
fn an_export_that_breaks_off_leaves_nothing() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let daemon = Daemon::configured(&listener.local_addr().unwrap().to_string());
    std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let _ = stream.read(&mut [0; 4096]);
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nonly this");
    });
    let output = daemon.path("call.wav");
    let (exit, _, stderr) = daemon.run(&["recordings", "export", ID, "-o", &output]);
    assert_eq!(exit, Exit::Failed);
    assert!(stderr.contains("the answer broke off"), "{stderr}");
    assert_eq!(std::fs::read_dir(daemon.folder.path()).unwrap().count(), 2);
}

/// The command fails like this, with this in its words.
fn fails(daemon: &Daemon, arguments: &[&str], exit: Exit, expected: &str) {
    let (got, stdout, stderr) = daemon.run(arguments);
    assert_eq!(got, exit, "{arguments:?}\n{stdout}{stderr}");
    assert!(stderr.contains(expected), "{arguments:?}\n{stderr}\nlacks: {expected}");
    assert!(!stderr.contains(TOKEN), "the token is in: {stderr}");
}

#[test]
fn a_daemon_that_is_not_there_is_exit_3_and_says_what_to_do() {
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    fails(
        &Daemon::configured(&free),
        &["calls"],
        Exit::Unreachable,
        "nothing listens there; start it with `systemctl start callvaultd`",
    );
    fails(&Daemon::configured("unix:none.sock"), &["status"], Exit::Unreachable, "there is no such socket; start it");
    let never_started = Daemon::configured(&free);
    std::fs::remove_file(never_started.path("control.token")).unwrap();
    fails(&never_started, &["jobs", "list"], Exit::Unreachable, "control.token, which it makes when it starts");
    fails(&never_started, &["selftest"], Exit::Unreachable, "which it makes when it starts");
}

#[test]
fn refusals_are_exit_1_in_the_daemons_words() {
    let daemon = Daemon::tcp(vec![
        ("GET /v1/calls", 200, b"<html>".to_vec()),
        ("GET /v1/jobs", 200, body(json!({"other": []}))),
        ("POST /v1/jobs/x/retry", 409, body(json!({"error": {"code": "conflict", "message": "it is running"}}))),
        ("POST /v1/drain", 500, Vec::new()),
    ]);
    fails(
        &daemon,
        &["recordings", "show", ID],
        Exit::Failed,
        "failed to show the recording 0199c0de-0000-7000-8000-000000000001: there is no such recording",
    );
    fails(&daemon, &["jobs", "retry", "x"], Exit::Failed, "failed to retry the job x: it is running");
    fails(&daemon, &["calls"], Exit::Failed, "something unexpected (not JSON");
    fails(&daemon, &["jobs", "list"], Exit::Failed, "it has no list `jobs`");
    fails(&daemon, &["drain"], Exit::Failed, "answered 500");
    std::fs::write(daemon.path("control.token"), "another").unwrap();
    fails(
        &daemon,
        &["calls"],
        Exit::Failed,
        "control.token was refused: wrong token. Does callvaultd run with another configuration?",
    );
    std::fs::write(daemon.path("control.token"), "").unwrap();
    fails(&daemon, &["calls"], Exit::Failed, "it does not hold a token");
    std::fs::write(daemon.path("control.token"), [0xff, 0xfe]).unwrap();
    fails(&daemon, &["calls"], Exit::Failed, "read the control token");
}

#[test]
fn wrong_command_lines_are_exit_2() {
    let daemon = Daemon::configured("127.0.0.1:1");
    fails(&daemon, &[], Exit::Usage, "Usage:");
    fails(&daemon, &["recordigns"], Exit::Usage, "recordings");
    fails(&daemon, &["recordings", "show", "../health"], Exit::Usage, "not the id of a recording");
    fails(&daemon, &["recordings", "export", ID, "--format", "flac"], Exit::Usage, "[possible values: wav, opus, mp3]");
    fails(&daemon, &["recordings", "list", "--from", "yesterday"], Exit::Usage, "\"yesterday\" is not a time");
    fails(&daemon, &["users", "import", "/nowhere/users.csv"], Exit::Failed, "/nowhere/users.csv: No such file");
    fails(&daemon, &["users", "set", "ann@example.com", "group"], Exit::Usage, "write FIELD=VALUE");
    assert_eq!(daemon.run(&["--help"]).0, Exit::Done);
}

#[test]
fn settings_are_those_of_the_daemon() {
    let body = json!({"settings": [
        {"key": "mail.server", "value": "\"a\"", "origin": "x.toml:3", "default": "\"\"", "takes_effect": "at once", "waiting": null},
        {"key": "mail.server_name", "value": "1", "origin": "default", "default": "1", "takes_effect": "at once", "waiting": null},
        {"key": "limits.sessions_max", "value": "5", "origin": "default", "default": "5", "takes_effect": "restart",
         "waiting": {"value": "7", "origin": "y.toml:2"}},
    ], "refused": "failed to use the changed configuration"});
    let daemon = Daemon::tcp(vec![("GET /v1/settings", 200, body.to_string().into_bytes())]);
    let (exit, stdout, _) = daemon.run(&["settings", "show"]);
    assert_eq!(exit, Exit::Done);
    for part in ["mail.server_name", "x.toml:3", "with a restart", "failed to use the changed"] {
        assert!(stdout.contains(part), "no {part} in {stdout}");
    }
    let (_, stdout, _) = daemon.run(&["settings", "show", "limits.sessions_max"]);
    assert!(stdout.contains("7 (y.toml:2)") && !stdout.contains("mail."), "{stdout}");
    let (_, stdout, _) = daemon.run(&["settings", "show", "mail", "--json"]);
    let shown: Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!(shown["settings"].as_array().unwrap().len(), 2);
    let (_, stdout, _) = daemon.run(&["settings", "show", "mail.server"]);
    assert!(stdout.contains("x.toml:3") && !stdout.contains("server_name"), "{stdout}");
    let (exit, _, stderr) = daemon.run(&["settings", "show", "mail.colour"]);
    assert!(exit == Exit::Usage && stderr.contains("no such key"), "{stderr}");
}

#[test]
fn a_mail_is_tried_and_the_servers_answer_shown() {
    let taken = json!({"accepted": true, "reply": "2.0.0 in the mailbox", "encrypted": false});
    let path = "POST /v1/mail/test?address=ann%40example.com&language=it";
    let daemon = Daemon::tcp(vec![(path, 200, taken.to_string().into_bytes())]);
    let (exit, stdout, stderr) = daemon.run(&["mail", "test", "ann@example.com", "--language", "it"]);
    assert_eq!(exit, Exit::Done, "{stderr}");
    assert!(stdout.contains("NOT encrypted") && stdout.contains("in the mailbox"), "{stdout}");
}

#[test]
fn the_configuration_is_checked_and_shown_without_a_daemon() {
    let daemon = Daemon::configured("127.0.0.1:1");
    let (exit, stdout, _) = daemon.run(&["config", "check"]);
    assert_eq!(exit, Exit::Done);
    assert!(stdout.contains("good; 3 of"), "{stdout}");
    let (_, stdout, _) = daemon.run(&["config", "show"]);
    let listen: Vec<&str> = stdout.lines().filter(|line| line.starts_with("http.listen")).collect();
    assert!(listen.len() == 1 && listen[0].contains("127.0.0.1:1") && listen[0].contains("c.toml:4"), "{stdout}");
    assert!(daemon.run(&["config", "sample"]).1.contains("#data_dir ="));
    std::fs::write(daemon.path("c.toml"), "datadir = 1\n[sip]\nudp = 2\n").unwrap();
    let (exit, stdout, _) = daemon.run(&["config", "check"]);
    assert_eq!(exit, Exit::Failed);
    assert!(
        stdout.contains("c.toml:1:1: datadir: unknown key; did you mean `data_dir`?") && stdout.contains("2 errors"),
        "{stdout}"
    );
    fails(&daemon, &["calls"], Exit::Failed, "failed to read the configuration:\n");
}

#[test]
fn the_first_key_is_made_once_and_for_the_owner_alone() {
    let daemon = Daemon::configured("127.0.0.1:1");
    let (exit, stdout, stderr) = daemon.run(&["keys", "init", "--json"]);
    assert_eq!(exit, Exit::Done, "{stderr}");
    let made: Value = serde_json::from_str(&stdout).unwrap();
    let path = daemon.path("keys/appliance.key");
    assert_eq!(made["path"], path.as_str());
    let text = std::fs::read_to_string(&path).unwrap();
    assert!(
        text.starts_with("callvault-private-1:") && made["public"].as_str().unwrap().starts_with("callvault-public-1:")
    );
    assert!(!stdout.contains(&text) && !stdout.contains("private"), "the private key is printed nowhere");
    let mode = |path: &str| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&path), mode(&daemon.path("keys"))), (0o600, 0o700));
    fails(&daemon, &["keys", "init"], Exit::Failed, "there is one already, and recordings may depend on it");
    assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
}

#[test]
fn the_self_test_reports_calls_that_fail() {
    // The control endpoint is there, the recorder is not.
    let daemon = Daemon::tcp(vec![("GET /v1/recordings?limit=1", 200, body(json!({"recordings": [], "next": null})))]);
    let free = std::net::UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let (exit, stdout, stderr) = daemon.run(&["selftest", "--sip", &free, "--seconds", "2", "--wait", "0"]);
    assert_eq!(exit, Exit::Failed, "{stderr}");
    assert!(stdout.contains("call 1: FAILED") && stdout.contains("is callvaultd running?"), "{stdout}");
    let (_, stdout, _) =
        daemon.run(&["selftest", "--sip", &free, "--seconds", "2", "--wait", "0", "--calls", "3", "--json"]);
    let report: Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!((&report["ok"], &report["failed"]), (&json!(false), &json!(3)));
    fails(&daemon, &["selftest", "--calls", "0"], Exit::Failed, "0 calls are not between 1 and 1000");
}

const OTHER: &str = "0199c0de-0000-7000-8000-000000000002";

#[test]
fn what_people_add_is_asked_for_by_path_and_body() {
    let check = |arguments: &[&str], asked: &'static str| {
        let answer = json!({"id": ID, "preserved": null, "notes": [], "tags": ["red"]});
        let daemon = Daemon::tcp(vec![(asked, 200, body(answer))]);
        let arguments: Vec<&str> = ["recordings"].iter().chain(arguments).copied().collect();
        let (exit, stdout, stderr) = daemon.run(&arguments);
        assert_eq!((exit, daemon.asked()), (Exit::Done, vec![asked.to_owned()]), "{stderr}");
        assert!(stdout.contains("tags: red"), "{stdout}");
    };
    check(&["preserve", ID], "PUT /v1/recordings/0199c0de-0000-7000-8000-000000000001/preserve");
    check(&["release", ID], "DELETE /v1/recordings/0199c0de-0000-7000-8000-000000000001/preserve");
    check(
        &["note", "add", ID, "hear this", "--at-ms", "5"],
        "POST /v1/recordings/0199c0de-0000-7000-8000-000000000001/notes",
    );
    check(
        &["note", "edit", ID, OTHER, "hear that"],
        "PATCH /v1/recordings/0199c0de-0000-7000-8000-000000000001/notes/0199c0de-0000-7000-8000-000000000002",
    );
    check(
        &["note", "delete", ID, OTHER],
        "DELETE /v1/recordings/0199c0de-0000-7000-8000-000000000001/notes/0199c0de-0000-7000-8000-000000000002",
    );
    check(
        &["tag", "add", ID, "very angry/x"],
        "PUT /v1/recordings/0199c0de-0000-7000-8000-000000000001/tags/very%20angry%2Fx",
    );
    check(&["tag", "remove", ID, "a"], "DELETE /v1/recordings/0199c0de-0000-7000-8000-000000000001/tags/a");
}

const SEARCHED: &str = "GET /v1/recordings?number=4711&number_match=part&tag=red%2Cblue&limit=200";
const AUDIO: &str = "GET /v1/recordings/0199c0de-0000-7000-8000-000000000001/audio?format=mp3";
const OTHER_AUDIO: &str = "GET /v1/recordings/0199c0de-0000-7000-8000-000000000002/audio?format=mp3";

fn export_many(daemon: &Daemon, folder: &str) -> (Exit, String, String) {
    let search = ["--number", "4711", "--number-match", "part", "--tag", "red", "--tag", "blue"];
    let export = ["recordings", "export", "--folder", folder, "--format", "mp3"];
    daemon.run(&export.into_iter().chain(search).collect::<Vec<_>>())
}

#[test]
fn all_that_is_found_is_exported_and_what_is_there_is_not_asked_for_again() {
    let other = json!({"id": OTHER, "verdict": "ok", "started_at": "2026-11-05T09:00:00.000Z"});
    let silent = json!({"id": "0199c0de-0000-7000-8000-000000000003", "verdict": "no-media", "started_at": "2026-11-05T08:00:00.000Z"});
    let list = || body(json!({"recordings": [recording(), other, silent], "next": null}));
    // one fails
    let daemon = Daemon::tcp(vec![(SEARCHED, 200, list()), (AUDIO, 200, b"sound".to_vec())]);
    let folder = daemon.path("exported");
    let (exit, stdout, stderr) = export_many(&daemon, &folder);
    assert_eq!(exit, Exit::Failed);
    assert!(stdout.contains("3 recordings found: 1 exported, 0 there already, 1 without audio, 1 failed"), "{stdout}");
    assert!(stderr.contains(&format!("export the recording {OTHER}")), "{stderr}");
    let first = Path::new(&folder).join(format!("2026-11-05T093015Z_{ID}.mp3"));
    assert_eq!(std::fs::read(&first).unwrap(), b"sound");
    assert_eq!(std::fs::metadata(&first).unwrap().permissions().mode() & 0o777, 0o600);
    // what an interrupted run left is no reason to believe it
    std::fs::write(Path::new(&folder).join(format!(".2026-11-05T090000Z_{OTHER}.mp3.part")), b"half and more").unwrap();
    let again = Daemon::tcp(vec![(SEARCHED, 200, list()), (OTHER_AUDIO, 200, b"voice".to_vec())]);
    let (exit, stdout, _) = export_many(&again, &folder);
    assert_eq!(exit, Exit::Done, "{stdout}");
    assert!(stdout.contains("1 exported, 1 there already, 1 without audio, 0 failed"), "{stdout}");
    assert_eq!(again.asked(), [SEARCHED, OTHER_AUDIO]);
    let second = Path::new(&folder).join(format!("2026-11-05T090000Z_{OTHER}.mp3"));
    assert_eq!(std::fs::read(second).unwrap(), b"voice");
    let manifest = std::fs::read(Path::new(&folder).join("manifest.json")).unwrap();
    let manifest: Value = serde_json::from_slice(&manifest).unwrap();
    assert_eq!(manifest["recordings"].as_array().unwrap().len(), 3);
    assert_eq!(manifest["recordings"][1]["bytes"], 5);
    let csv = std::fs::read_to_string(Path::new(&folder).join("manifest.csv")).unwrap();
    assert_eq!(csv.lines().count(), 4);
    assert!(csv.contains("'+441632960002"), "{csv}");
    let names = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    assert!(!names.into_iter().any(|name| name.contains("part")), "nothing unfinished is left");
}

#[test]
fn a_search_and_a_recording_are_not_exported_together() {
    let daemon = Daemon::tcp(Vec::new());
    let check = |arguments: &[&str]| {
        let arguments: Vec<&str> = ["recordings", "export"].iter().chain(arguments).copied().collect();
        assert_eq!(daemon.run(&arguments).0, Exit::Usage, "{arguments:?}");
    };
    check(&[]);
    check(&[ID, "--number", "1"]);
    check(&[ID, "--folder", "x"]);
    check(&["--number", "1"]);
    assert!(daemon.asked().is_empty());
}

/// A record of Webex of a call that began so many seconds after nine, as its detailed call history gives it.
fn call_record(call: &str, begins_s: u32, duration_s: u32) -> Value {
    json!({
        "Report ID": format!("report-{call}"), "Local call ID": call, "Answered": "true", "Duration": duration_s.to_string(),
        "Start time": format!("2026-11-05T09:{:02}:{:02}.000Z", begins_s / 60, begins_s % 60), "User": "Ann",
        "Location": "Rome", "Calling number": "+442079460001", "Called number": format!("+441632960{begins_s:03}"),
        "Call Recording Platform Name": "callvault", "Call Recording Trigger": "always",
    })
}

/// What is held, for a comparison: a call that is whole, one that is short, one that a rule did not keep, and one of which Webex knows nothing.
fn held_for_comparison() -> Value {
    let one = |last: u32, call: &str, begun: &str, duration_ms: u32, verdict: &str| {
        json!({
            "id": format!("0199c0de-0000-7000-8000-00000000000{last}"), "started_at": begun, "duration_ms": duration_ms,
            "call_id": if verdict == "discarded" { None } else { Some(call) }, "verdict": verdict, "local_number": null, "remote_number": null,
            "flaws": [{"code": "discarded", "text": "the recording was not kept, by the rule filter-traffic"}],
        })
    };
    json!({"next": null, "recordings": [
        one(1, "callhalf-1:0", "2026-11-05T09:00:01.000Z", 59_000, "ok"),
        one(2, "callhalf-2:0", "2026-11-05T09:01:00.000Z", 20_000, "ok"),
        one(3, "callhalf-3:0", "2026-11-05T09:02:00.000Z", 60_000, "discarded"),
        one(4, "callhalf-9:0", "2026-11-05T09:02:30.000Z", 60_000, "ok"),
        one(5, "callhalf-8:0", "2026-11-05T09:50:00.000Z", 60_000, "ok"),
    ]})
}

#[test]
fn what_webex_says_is_compared_with_what_is_held() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("records.json");
    let path = "GET /v1/recordings?from=2026-11-05T08%3A00%3A00Z&to=2026-11-05T10%3A03%3A00Z&limit=200";
    // The row of a call that is not kept has no names; what is noted of it for a while has.
    let not_kept = json!({"discards": [{
        "id": "0199c0de-0000-7000-8000-000000000003", "at": "2026-11-05T09:02:00.000Z", "rule": "filter-traffic",
        "local_number": "+442079460001", "remote_number": "+441632960120",
    }]});
    let check = |records: &[Value], arguments: &[&str], exit: Exit, expected: &str| {
        std::fs::write(&file, json!({"items": records}).to_string()).unwrap();
        let answers = vec![
            (path, 200, body(held_for_comparison())),
            ("GET /v1/discards?from=2026-11-05T08%3A00%3A00Z&limit=1000", 200, body(not_kept.clone())),
        ];
        let mut line = vec!["completeness", file.to_str().unwrap()];
        line.extend(arguments);
        prints(answers, &line, exit, expected);
    };
    let well = [
        call_record("1:0", 0, 60),
        call_record("3:0", 120, 60),
        call_record("9:0", 150, 60),
        call_record("2:0", 60, 20),
    ];
    let last = call_record("7:0", 180, 60);
    let mut unanswered = last.clone();
    unanswered["Answered"] = json!("false");
    let mut records = well.to_vec();
    records.push(unanswered);
    check(
        &records,
        &[],
        Exit::Done,
        "calls: 1 filtered, 3 recorded\n\
         VERDICT   BEGAN                 SECONDS  MISSING  RULE            USER  LOCATION  RECORDING\n\
         filtered  2026-11-05T09:02:00Z       60           filter-traffic  Ann   Rome      0199c0de-0000-7000-8000-000000000003\n",
    );
    let wrong = [call_record("1:0", 0, 60), call_record("2:0", 60, 60), last, json!({"User": "Ann"})];
    check(
        &wrong,
        &[],
        Exit::Failed,
        "calls: 1 extra, 1 missing, 1 recorded, 1 short\n\
         records passed over, as they do not say when the call was: 1\n\
         VERDICT  BEGAN                 SECONDS  MISSING  RULE  USER  LOCATION  RECORDING\n\
         short    2026-11-05T09:01:00Z       60       40  -     Ann   Rome      0199c0de-0000-7000-8000-000000000002\n\
         extra    2026-11-05T09:02:30Z       60           -     -     -         0199c0de-0000-7000-8000-000000000004\n\
         missing  2026-11-05T09:03:00Z       60           -     Ann   Rome      -\n",
    );
    check(
        &wrong,
        &["--csv"],
        Exit::Failed,
        "verdict,begun_at,duration_ms,missing_ms,rule,joined_by,recordings,local_call_id,user,location\r\n\
         short,2026-11-05T09:01:00Z,60000,40000,,call-id,0199c0de-0000-7000-8000-000000000002,2:0,Ann,Rome\r\n\
         extra,2026-11-05T09:02:30Z,60000,,,,0199c0de-0000-7000-8000-000000000004,,,\r\n\
         missing,2026-11-05T09:03:00Z,60000,,,,,7:0,Ann,Rome\r\n",
    );
}

#[test]
fn records_that_cannot_be_compared_are_told() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("records.json");
    let daemon = Daemon::tcp(Vec::new());
    std::fs::write(&file, "<html>").unwrap();
    fails(&daemon, &["completeness", file.to_str().unwrap()], Exit::Failed, "a list named items was expected");
    fails(&daemon, &["completeness", "/nowhere/records.json"], Exit::Failed, "read /nowhere/records.json");
}
