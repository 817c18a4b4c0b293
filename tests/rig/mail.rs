//! A mail server that is not ours, with a mailbox.

use std::fs;
use std::net::{IpAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use tempfile::TempDir;

use super::offer::Offer;
use super::shapes::{Facts, webex_offering};
use super::sip::Client;
use super::sound::{FRAME, correlation, decoded, packets, speech};
use super::speaker::Speaker;
use super::tls::{Authority, GOOD};
use super::{Appliance, wait_for, wait_until};

/// Where it listens, at the address of the test's appliance.
pub const MAIL_PORT: u16 = 15_025;

/// Who gets the mails of calls.
pub const ANN: &str = "ann@example.com";

pub const USER: &str = "callvault";
pub const PASSWORD: &str = "not-in-any-log";

/// The server of `mail.py`; it ends when it is dropped.
pub struct MailServer {
    place: TempDir,
    server: Child,
}

impl MailServer {
    /// Listens at this address with a certificate of the authority's; `protection` is a word of `mail.py`'s.
    pub fn start(ip: IpAddr, protection: &str, authority: &Authority) -> Self {
        let place = TempDir::new_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let below = |name: &str| place.path().join(name);
        let pair = authority.sign_for(&ip.to_string(), GOOD);
        fs::write(below("chain.pem"), &pair.chain).unwrap();
        fs::write(below("key.pem"), &pair.key).unwrap();
        fs::write(below("fault"), "").unwrap();
        fs::create_dir(below("mailbox")).unwrap();
        let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/rig/mail.py");
        // Debian's own: the module that it needs is one of its packages.
        let mut command = Command::new("/usr/bin/python3");
        command.arg(program).args([ip.to_string(), MAIL_PORT.to_string()]);
        command.args([below("mailbox"), below("fault")]).arg(protection).args([below("chain.pem"), below("key.pem")]);
        command.args([USER, PASSWORD]).stdin(Stdio::null());
        let server = command.spawn().unwrap();
        let started = Self { place, server };
        wait_until("the mail server listens (it needs python3-aiosmtpd)", || {
            TcpStream::connect((ip, MAIL_PORT)).is_ok()
        });
        started
    }

    /// The fault in force from now on.
    pub fn set(&self, fault: &str) {
        let next = self.place.path().join("fault.next");
        fs::write(&next, fault).unwrap();
        fs::rename(&next, self.place.path().join("fault")).unwrap();
    }

    /// The mails in the mailbox, oldest first.
    pub fn mails(&self) -> Vec<String> {
        let entries = fs::read_dir(self.place.path().join("mailbox")).unwrap();
        let mut paths: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
        paths.retain(|path| path.extension().is_some_and(|extension| extension == "eml"));
        paths.sort();
        paths.iter().map(|path| String::from_utf8(fs::read(path).unwrap()).unwrap()).collect()
    }

    /// Waits until a mail has come of which the server says nothing.
    pub fn wait_stalled(&self) {
        wait_until("a mail that stalls", || self.place.path().join("mailbox/stalled").exists());
    }

    /// The mails once there are so many.
    pub fn wait_for_mails(&self, count: usize) -> Vec<String> {
        wait_for("mails in the mailbox", || Some(self.mails()).filter(|mails| mails.len() >= count))
    }
}

impl Drop for MailServer {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

/// An appliance that is prepared to send mail to the server at its own address; `more` is TOML of the section.
pub fn prepare(protection: &str, authority: &Authority, more: &str) -> Appliance {
    let appliance = Appliance::prepare("");
    fs::write(appliance.home().join("mail-ca.pem"), authority.pem()).unwrap();
    fs::write(appliance.home().join("mail.password"), format!("{PASSWORD}\n")).unwrap();
    configure(&appliance, protection, more);
    appliance
}

/// Puts the section of mail in its place.
pub fn configure(appliance: &Appliance, protection: &str, more: &str) {
    let text = format!(
        "[organisation]\ntime_zone = \"Europe/Rome\"\n\n[mail]\nserver = \"{}\"\nport = {MAIL_PORT}\ntls = \"{protection}\"\n\
         ca = \"mail-ca.pem\"\nuser = \"{USER}\"\npassword_file = \"mail.password\"\nfrom = \"callvault@example.org\"\n{more}\n",
        appliance.place.ip
    );
    appliance.configure(&text);
}

/// A user who is told, with the audio; the one whose number calls with this number come to.
pub fn import_user(appliance: &Appliance, number: u32) {
    let file = appliance.home().join("users.csv");
    let local = Facts::incoming(number).local_number;
    let text = format!(
        "webex_email;first_name;last_name;preferred_language;first_extension;notify;attach\n\
         {ANN};Ann;Lee;fr;{local};yes;yes\n"
    );
    fs::write(&file, text).unwrap();
    let output = appliance.ctl(&["users", "import", file.to_str().unwrap()]);
    assert!(output.status.success(), "{output:?}");
}

/// Two seconds of what is said by each side, and the call's facts.
pub fn call(appliance: &Appliance, number: u32) -> (Facts, [Vec<i16>; 2]) {
    let facts = Facts::incoming(number);
    let offer = Offer::two(appliance.place.ip);
    let mut client = Client::udp(appliance.sip());
    let media = client.call(&webex_offering(&facts, &offer.text()));
    let said = [120.0, 200.0].map(|pitch| speech(u64::from(number), pitch, 8_000, 100 * FRAME));
    let sent = said.each_ref().map(|voice| packets(voice));
    Speaker::start(&media).say_all(&[&sent[0], &sent[1]]);
    client.bye();
    (facts, said)
}

/// The file that is attached to a mail.
fn attached(mail: &str) -> Vec<u8> {
    let from = mail.find("Content-Type: audio/mpeg").expect("nothing is attached");
    let from = from + mail[from..].find("\r\n\r\n").unwrap() + 4;
    let encoded: String = mail[from..].lines().take_while(|line| !line.starts_with("--")).collect();
    STANDARD.decode(encoded).unwrap()
}

/// What is attached plays, and is the call: the user on the left, the other on the right, or the other way round.
pub fn assert_holds_the_call(mail: &str, said: &[Vec<i16>; 2]) {
    let channels = decoded(&attached(mail), 8_000, 2);
    let like = |channel: usize, voice: usize| correlation(&channels[channel], &said[voice], 2_000);
    let best = (like(0, 0).min(like(1, 1))).max(like(0, 1).min(like(1, 0)));
    assert!(best > 0.8, "the audio is like the call by {best} only");
}
