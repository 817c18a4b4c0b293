//! What a program in the sandbox can do, tried from inside: a shell is put in the child's place.

#![allow(clippy::unwrap_used)]

use std::net::TcpListener;
use std::path::Path;

use super::{Limits, command};

/// What bash says to a line of shell.
fn inside(line: &str) -> String {
    let mut shell = command(Path::new("/bin/bash"), Limits::default());
    let output = shell.args(["-c", &format!("{{ {line}; }} 2>&1")]).output().unwrap();
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn it_computes_and_uses_its_streams_and_starts_programs() {
    fn check(line: &str, expected: &str) {
        assert_eq!(inside(line).trim(), expected, "{line}");
    }
    check("echo $((6 * 7))", "42");
    check("echo a | /bin/cat", "a");
    check("grep -E '^(NoNewPrivs|Seccomp):' /proc/self/status | tr -d '\\t\\n'", "NoNewPrivs:1Seccomp:2");
}

#[test]
fn it_reaches_nothing_and_changes_nothing() {
    fn check(line: &str, refused: &str) {
        let said = inside(line);
        assert!(said.contains(refused) && !said.contains("done"), "{line}: {said}");
    }
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    check(&format!("exec 3<>/dev/tcp/127.0.0.1/{port} && echo done"), "Operation not permitted");
    check("exec 3<>/dev/udp/127.0.0.1/9 && echo done", "Operation not permitted");
    let folder = std::env::temp_dir().join(format!("callvault-sandbox-{}", std::process::id()));
    std::fs::create_dir(&folder).unwrap();
    let at = folder.display();
    std::fs::write(folder.join("there"), "x").unwrap();
    check(&format!("/bin/mkdir {at}/new && echo done"), "Operation not permitted");
    check(&format!("/bin/rm {at}/there && echo done"), "Operation not permitted");
    check(&format!("/bin/mv {at}/there {at}/away && echo done"), "Operation not permitted");
    check(&format!("/bin/chmod 777 {at}/there && echo done"), "Operation not permitted");
    check(&format!("/bin/ln -s there {at}/link && echo done"), "Operation not permitted");
    check("/usr/bin/unshare --user /bin/true && echo done", "Operation not permitted");
    assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 1);
    std::fs::remove_dir_all(&folder).unwrap();
}
