//! What is read from the texts of the kernel, and what is found on machines that lack something.

use std::fs::{self, Permissions};
use std::net::UdpSocket;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::atomic::{AtomicU8, Ordering};

use super::machine::{files_max, holder_in};
use super::ports::{Entry, entries};
use super::{Diagnosis, State, examine};

#[test]
fn the_holder_of_a_lock_is_read_from_the_kernels_list() {
    let locks = "1: POSIX  ADVISORY  WRITE 11 08:01:77 0 EOF\n2: FLOCK  ADVISORY  WRITE 22 08:01:77 0 EOF\n\
                 3: FLOCK  ADVISORY  WRITE 33 08:01:78 0 EOF\n3: -> FLOCK  ADVISORY  WRITE 44 08:01:79 0 EOF\n";
    let check = |inode, expected| assert_eq!(holder_in(locks, inode), expected, "{inode}");
    check(77, Some(22));
    check(78, Some(33));
    // Who waits for a lock has none.
    check(79, None);
    check(80, None);
    assert_eq!(holder_in("", 77), None);
}

#[test]
fn the_limit_of_open_files_is_read() {
    let check = |text: &str, expected| assert_eq!(files_max(text), expected, "{text}");
    check("Limit    Soft Limit  Hard Limit  Units\nMax open files   1024   524288   files\n", Some(524_288));
    check("Max open files            unlimited            unlimited            files", Some(u64::MAX));
    check("Max open files", None);
    check("", None);
}

#[test]
fn sockets_are_read_from_the_kernels_tables() {
    let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n\
                 0: 0100007F:3AD4 00000000:0000 0A 00000000:00000000 00:00000000 00000000   106        0 4711 1 0\n\
                 1: 0100007F:3AD5 0100007F:1234 01 00000000:00000000 00:00000000 00000000     0        0 4712 1 0\n\
                 2: 00000000000000000000000001000000:13C4 00000000:0000 0A 0:0 0:0 0     7        0 4713 1 0\n3: cut";
    let ports = |state| entries(table, state).iter().map(|entry| entry.port).collect::<Vec<_>>();
    assert_eq!(ports(None), [15_060, 15_061, 5_060]);
    assert_eq!(ports(Some("0A")), [15_060, 5_060]);
    assert_eq!(entries(table, None)[0], Entry { port: 15_060, user: 106, inode: 4_711 });
    assert_eq!(entries("", None), []);
}

/// A machine that has all that is needed, at an address of its own, changed as a case wants it.
fn examined(change: impl FnOnce(&Path), configuration: &str) -> Diagnosis {
    static NEXT: AtomicU8 = AtomicU8::new(1);
    examined_at(NEXT.fetch_add(1, Ordering::Relaxed), change, configuration)
}

/// The last number of the address is that of the case: tests run beside each other.
fn examined_at(number: u8, change: impl FnOnce(&Path), configuration: &str) -> Diagnosis {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("callvault.toml");
    let text = format!(
        "data_dir = \"data\"\nruntime_dir = \"run\"\n[sip]\nudp = [\"127.66.0.{number}:15060\"]\ntcp = []\n[media]\nports = \"15100-15119\"\n\
         [http]\nlisten = \"127.66.0.{number}:15080\"\n[journal]\nspool_free_min = \"16MiB\"\n[limits]\nsessions_max = 4\n{configuration}"
    );
    fs::write(&path, text).unwrap();
    change(home.path());
    examine(&path, &[])
}

/// The finding of this part has this state and these words.
#[track_caller]
fn check(diagnosis: &Diagnosis, part: &str, state: State, words: &[&str]) {
    let found: Vec<_> = diagnosis.findings.iter().filter(|finding| finding.part == part).collect();
    let is_it = |text: &str| words.iter().all(|word| text.contains(word));
    assert!(
        found.iter().any(|finding| finding.state == state && is_it(&finding.text)),
        "{part}: no {state:?} with {words:?} in {found:#?}"
    );
}

#[test]
fn what_is_well_is_said_to_be_well() {
    let diagnosis = examined(|_| {}, "");
    for part in ["configuration", "keys", "data", "spool", "store", "ports", "certificates", "mail", "uploads"] {
        check(&diagnosis, part, State::Well, &[]);
    }
    check(&diagnosis, "service", State::Problem, &["no call is recorded"]);
    assert_eq!(diagnosis.running, None);
}

#[test]
fn each_thing_that_is_wrong_is_said_with_what_to_do() {
    let diagnosis = examined(|_| {}, "[nonsense]\nkey = 1\n");
    check(&diagnosis, "configuration", State::Problem, &["nonsense"]);

    let key = |home: &Path, text: &str, mode: u32| {
        let path = home.join("data/keys/appliance.key");
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
    };
    let diagnosis = examined(|home| key(home, "no key", 0o644), "");
    check(&diagnosis, "keys", State::Problem, &["others may read", "chmod 600", "rotate"]);
    let diagnosis = examined(|home| key(home, "no key", 0o600), "");
    check(&diagnosis, "keys", State::Problem, &["restore it from your backup"]);
    let diagnosis = examined(
        |home| {
            fs::create_dir_all(home.join("data")).unwrap();
            fs::write(home.join("data/catalogue.db"), "").unwrap();
        },
        "",
    );
    check(&diagnosis, "keys", State::Problem, &["no private key", "restore it"]);

    let diagnosis = examined(|home| fs::write(home.join("data"), "a file").unwrap(), "");
    check(&diagnosis, "data", State::Problem, &["is not a folder", "name another one"]);

    let diagnosis = examined(
        |home| {
            fs::create_dir_all(home.join("data")).unwrap();
            fs::write(home.join("data/store.identity"), "{\"store\":\"018f0000-0000-7000-8000-000000000001\"}")
                .unwrap();
            fs::create_dir_all(home.join("share")).unwrap();
        },
        "[store]\npath = \"share\"\n",
    );
    check(&diagnosis, "store", State::Problem, &["is the share mounted?"]);

    let _taken = UdpSocket::bind("127.66.0.250:15060").unwrap();
    let diagnosis = examined_at(250, |_| {}, "");
    check(&diagnosis, "ports", State::Problem, &["127.66.0.250:15060", "ss -lntup"]);
}

#[test]
fn a_mail_server_that_is_not_there_and_a_missing_certificate_are_said() {
    let mail = "[mail]\nserver = \"127.66.0.251\"\nport = 15025\nfrom = \"callvault@example.org\"\n";
    let diagnosis = examined(|_| {}, mail);
    check(&diagnosis, "mail", State::Problem, &["127.66.0.251", "connect", "mails wait"]);
    let tls = |home: &Path| {
        let at = home.join("callvault.toml");
        let more = "tcp = []\ntls = [\"127.66.0.252:15061\"]\ntls_certificate = \"chain.pem\"\ntls_key = \"key.pem\"";
        let text = fs::read_to_string(&at).unwrap().replace("tcp = []", more);
        fs::write(&at, text).unwrap();
    };
    let diagnosis = examined(tls, "");
    check(&diagnosis, "certificates", State::Problem, &["chain.pem"]);
}
