//! Postfix, which takes mail with STARTTLS and a password, and Dovecot, which keeps the mailbox and opens it over IMAPS: both with
//! configuration and folders of their own, at an address of the test's. They need root.

use std::fs;
use std::net::{IpAddr, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use tempfile::TempDir;

use super::mail::{ANN, MAIL_PORT, PASSWORD, USER};
use super::tls::{Authority, GOOD};
use super::{wait_for, wait_until};

const IMAPS_PORT: u16 = 15_993;

/// What opens the mailbox.
const OWNER_PASSWORD: &str = "opens-the-mailbox";

/// Both servers; they end when it is dropped.
pub struct MailServers {
    /// In the folder for what is temporary, since servers that give up root must get there.
    place: TempDir,
    ip: IpAddr,
    dovecot: Child,
}

/// Runs a program that ends by itself, and must succeed.
fn run(command: &mut Command) -> Output {
    let output = command.stdin(Stdio::null()).output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(output.status.success(), "{command:?}: {output:?}");
    output
}

/// The number of this user of Debian's.
fn number_of(user: &str) -> String {
    String::from_utf8(run(Command::new("id").args(["-u", user])).stdout).unwrap().trim().to_owned()
}

impl MailServers {
    pub fn start(ip: IpAddr, authority: &Authority) -> Self {
        let place = TempDir::new().unwrap();
        let home = place.path();
        fs::set_permissions(home, fs::Permissions::from_mode(0o755)).unwrap();
        let pair = authority.sign_for(&ip.to_string(), GOOD);
        fs::write(home.join("chain.pem"), &pair.chain).unwrap();
        fs::write(home.join("key.pem"), &pair.key).unwrap();
        fs::write(home.join("ca.pem"), authority.pem()).unwrap();
        fs::write(
            home.join("users"),
            format!("{USER}:{{PLAIN}}{PASSWORD}::::::\n{ANN}:{{PLAIN}}{OWNER_PASSWORD}::::::\n"),
        )
        .unwrap();
        let dovecot = dovecot(home, ip);
        // From here on they end, whatever fails.
        let started = Self { place, ip, dovecot };
        postfix(started.place.path(), ip);
        for port in [MAIL_PORT, IMAPS_PORT] {
            wait_until("the mail servers listen", || TcpStream::connect((ip, port)).is_ok());
        }
        started
    }

    /// What the servers have logged.
    pub fn log(&self) -> String {
        ["postfix.log", "dovecot.log"].map(|name| self.read(name)).concat()
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.place.path().join(name)).unwrap_or_default()
    }

    /// The mail of this number, from 1, as the owner's mail program gets it over IMAPS; `None` while it is not there.
    fn fetched(&self, number: usize) -> Option<String> {
        let output = Command::new("curl")
            .args(["--silent", "--max-time", "20", "--cacert"])
            .arg(self.place.path().join("ca.pem"))
            .args(["--user", &format!("{ANN}:{OWNER_PASSWORD}")])
            .arg(format!("imaps://{}:{IMAPS_PORT}/INBOX;MAILINDEX={number}", self.ip))
            .output()
            .unwrap();
        (output.status.success() && !output.stdout.is_empty())
            .then(|| String::from_utf8(output.stdout).expect("a mail is text"))
    }

    /// Waits for the mail of this number.
    pub fn wait_for_mail(&self, number: usize) -> String {
        wait_for("a mail in the mailbox", || self.fetched(number))
    }

    pub fn has_mail(&self, number: usize) -> bool {
        self.fetched(number).is_some()
    }
}

impl Drop for MailServers {
    fn drop(&mut self) {
        let _ = postfix_command(self.place.path()).arg("stop").output();
        let _ = self.dovecot.kill();
        let _ = self.dovecot.wait();
    }
}

/// Starts Dovecot: accounts from a file, IMAPS, a socket at which Postfix asks for passwords, and one at which it delivers.
fn dovecot(home: &Path, ip: IpAddr) -> Child {
    let home_text = home.display();
    let text = format!(
        "protocols = imap lmtp\nbase_dir = {home_text}/dovecot\nlog_path = {home_text}/dovecot.log\n\
         ssl = required\nssl_cert = <{home_text}/chain.pem\nssl_key = <{home_text}/key.pem\n\
         default_internal_user = dovecot\ndefault_login_user = dovenull\n\
         first_valid_uid = 1\nmail_location = maildir:{home_text}/mail/%u\n\
         passdb {{\n  driver = passwd-file\n  args = {home_text}/users\n}}\n\
         userdb {{\n  driver = static\n  args = uid=mail gid=mail home={home_text}/mail/%u\n}}\n\
         service imap-login {{\n  inet_listener imap {{\n    port = 0\n  }}\n  inet_listener imaps {{\n    address = {ip}\n    port = {IMAPS_PORT}\n    ssl = yes\n  }}\n}}\n\
         service auth {{\n  unix_listener {home_text}/sockets/auth {{\n    mode = 0666\n  }}\n}}\n\
         service lmtp {{\n  unix_listener {home_text}/sockets/lmtp {{\n    mode = 0666\n  }}\n}}\n"
    );
    for folder in ["dovecot", "mail", "queue", "sockets"] {
        fs::create_dir_all(home.join(folder)).unwrap();
    }
    run(Command::new("chown").arg("mail:mail").arg(home.join("mail")));
    fs::write(home.join("dovecot.conf"), text).unwrap();
    let mut command = Command::new("/usr/sbin/dovecot");
    command.arg("-F").arg("-c").arg(home.join("dovecot.conf")).stdin(Stdio::null());
    command.spawn().expect("Dovecot is installed (packaging/prerequisites mail)")
}

fn postfix_command(home: &Path) -> Command {
    let mut command = Command::new("/usr/sbin/postfix");
    command.arg("-c").arg(home.join("postfix"));
    command
}

/// Starts Postfix: one port that wants STARTTLS and a password, everything for our domain goes to Dovecot. Its interface is only for its
/// own mail, which there is none of: the address at which it listens is with the service.
fn postfix(home: &Path, ip: IpAddr) {
    let (home_text, config) = (home.display(), home.join("postfix"));
    fs::create_dir_all(&config).unwrap();
    fs::create_dir_all(home.join("data")).unwrap();
    run(Command::new("chown").arg(format!("{}:root", number_of("postfix"))).arg(home.join("data")));
    let main = format!(
        "compatibility_level = 3.6\nqueue_directory = {home_text}/queue\ndata_directory = {home_text}/data\n\
         maillog_file = {home_text}/postfix.log\nmaillog_file_prefixes = {home_text}\n\
         myhostname = mail.example.com\nmydestination =\ninet_interfaces = 127.0.0.1\ninet_protocols = all\nmynetworks =\n\
         alias_maps =\nalias_database =\nlocal_recipient_maps =\n\
         virtual_mailbox_domains = example.com\nvirtual_mailbox_maps = static:here\n\
         virtual_transport = lmtp:unix:{home_text}/sockets/lmtp\n\
         smtpd_tls_chain_files = {home_text}/key.pem, {home_text}/chain.pem\nsmtpd_tls_security_level = encrypt\n\
         smtpd_sasl_auth_enable = yes\nsmtpd_sasl_type = dovecot\nsmtpd_sasl_path = {home_text}/sockets/auth\nsmtpd_tls_auth_only = yes\n\
         smtpd_relay_restrictions = permit_sasl_authenticated, reject\nsmtpd_recipient_restrictions = permit_sasl_authenticated, reject\n"
    );
    fs::write(config.join("main.cf"), main).unwrap();
    // Debian's own table of services, without its chroot, and at our port.
    let services = fs::read_to_string("/usr/share/postfix/master.cf.dist")
        .or_else(|_| fs::read_to_string("/etc/postfix/master.cf"))
        .expect("Postfix is installed (packaging/prerequisites mail)");
    let ours: Vec<String> = services.lines().map(|line| service(line, ip)).collect();
    fs::write(config.join("master.cf"), ours.join("\n") + "\n").unwrap();
    let started = postfix_command(home).arg("start").stdin(Stdio::null()).output().unwrap();
    let log = || fs::read_to_string(home.join("postfix.log")).unwrap_or_default();
    assert!(started.status.success(), "{started:?}\n{}", log());
}

/// A line of `master.cf`, as it is here.
fn service(line: &str, ip: IpAddr) -> String {
    let mut fields: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
    if line.starts_with(['#', ' ', '\t']) || fields.len() < 8 {
        return line.to_owned();
    }
    "n".clone_into(&mut fields[4]);
    if fields[0] == "smtp" && fields[1] == "inet" {
        fields[0] = format!("{ip}:{MAIL_PORT}");
    }
    fields.join(" ")
}
