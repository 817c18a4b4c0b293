//! Users are told once, of the right call, and not at all where that is not wanted; whatever the mail server does.

use std::collections::VecDeque;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use base64::Engine as _;
use callvault_catalogue::{AuditFilter, Lane, MailStep, NewRecording, OwedJob, Recording, Verdict};
use callvault_directory::User;
use callvault_queue::{Job, JobId, JobKind, StateName};
use jiff::Timestamp;
use uuid::Uuid;

use super::rig::{Generation, Rig, Running, pcmu, whole_call};
use crate::ingest::{Ingest, unix_ms};
use crate::mailing::{self, NotSent, Outcome};
use crate::playback::Format;
use crate::row::nameless;

/// A call of two seconds, in packets.
const SHORT: u32 = 100;

/// One whose MP3 is larger than a mebibyte.
const LONG: u32 = 12_000;

/// What a mail server does with a mail, in the place of taking it.
#[derive(Debug, Clone, Copy)]
enum Fault {
    /// Greylisting.
    Later,
    /// There is no such recipient.
    Refused,
    /// It takes the mail, and the connection breaks before its answer.
    Cut,
    /// The mail is too large for it.
    TooLarge,
}

/// A mail server that does what it is told, and keeps what it took.
struct Post {
    address: SocketAddr,
    faults: Arc<Mutex<VecDeque<Fault>>>,
    mails: Arc<Mutex<Vec<String>>>,
}

impl Post {
    fn open() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let post = Self { address: listener.local_addr().unwrap(), faults: Arc::default(), mails: Arc::default() };
        let (faults, mails) = (Arc::clone(&post.faults), Arc::clone(&post.mails));
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let fault = faults.lock().unwrap().pop_front();
                talk(stream.unwrap(), fault, &mails);
            }
        });
        post
    }

    fn expect(&self, faults: &[Fault]) {
        self.faults.lock().unwrap().extend(faults);
    }

    fn taken(&self) -> Vec<String> {
        self.mails.lock().unwrap().clone()
    }

    /// The settings that name it.
    fn settings(&self) -> String {
        let port = self.address.port();
        format!(
            "codec = \"opus\"\n[queue]\nbackoff_min = \"100ms\"\nbackoff_max = \"1s\"\n[mail]\nserver = \"127.0.0.1\"\nport = {port}\ntls = \"none\"\nfrom = \"callvault@example.org\"\n\
             timeout = \"5s\"\n"
        )
    }
}

fn talk(mut stream: TcpStream, fault: Option<Fault>, mails: &Mutex<Vec<String>>) {
    let mut lines = BufReader::new(stream.try_clone().unwrap()).lines().map_while(Result::ok);
    let mut say = |text: &str| stream.write_all(format!("{text}\r\n").as_bytes()).is_ok();
    say("220 post.test");
    while let Some(line) = lines.next() {
        let answer = match (line.split(' ').next().unwrap_or_default(), fault) {
            ("RCPT", Some(Fault::Later)) => "450 4.2.0 <ann@example.com>: Greylisted",
            ("RCPT", Some(Fault::Refused)) => "550 5.1.1 <ann@example.com>: no such user",
            ("DATA", _) => {
                say("354 go on");
                let mail: Vec<String> = lines.by_ref().take_while(|line| line != ".").collect();
                if let Some(Fault::TooLarge) = fault {
                    say("552 5.3.4 too large");
                    continue;
                }
                mails.lock().unwrap().push(mail.join("\r\n"));
                if let Some(Fault::Cut) = fault {
                    return;
                }
                "250 2.0.0 taken"
            }
            _ => "250 OK",
        };
        if !say(answer) {
            return;
        }
    }
}

const ANN: Uuid = Uuid::from_u128(0x0190_0000_0000_7000_8000_0000_0000_00aa);

fn ann() -> User {
    User {
        id: ANN,
        webex_email: "ann@example.com".into(),
        first_name: "Ann".into(),
        preferred_language: "de".into(),
        notify: true,
        attach: true,
        ..User::default()
    }
}

/// An appliance with a call of Ann's that is archived.
struct Sut {
    post: Post,
    rig: Rig,
    running: Running,
    id: Uuid,
}

impl Sut {
    fn new() -> Self {
        Self::of(&ann(), "")
    }

    fn of(user: &User, more: &str) -> Self {
        Self::with(user, more, SHORT)
    }

    /// `packets` is the length of the call, in packets of 20 ms.
    fn with(user: &User, more: &str, packets: u32) -> Self {
        let post = Post::open();
        let rig = Rig::new(&(post.settings() + more));
        let running = start(&rig, user);
        let mut generation = Generation::begin(&running);
        let call = whole_call(&mut generation, &pcmu(), packets);
        let recording = Recording {
            owner_id: Some(user.id),
            remote_number: Some("+39061234".into()),
            duration_ms: 2_000,
            flaws: Vec::new(),
            ..nameless(call.id, Verdict::Ok, "", "")
        };
        let lane = Lane {
            generation: generation.id(),
            lane: call.lane.number(),
            recording: call.id,
            segment: 0,
            first_file: 0,
            last_file: 0,
        };
        let owed = vec![OwedJob::new("archive", call.id)];
        let new = NewRecording { recording, lanes: vec![lane], owed, links: Vec::new() };
        running.appliance.catalogue.ingest(&new, Timestamp::now()).unwrap();
        generation.finish();
        running.settle();
        assert!(running.row(call.id).archive.place().is_some(), "it is archived");
        Self { post, rig, id: call.id, running }
    }

    /// The daemon ends without another word, and is started again.
    fn restarted(self) -> Self {
        let Self { post, rig, running, id } = self;
        drop(running);
        let running = start(&rig, &ann());
        Self { post, rig, id, running }
    }

    fn job_id(&self) -> JobId {
        JobId::new(&JobKind::NOTIFY, self.id)
    }

    fn job(&self) -> Option<Job> {
        self.running.appliance.queue.get(&self.job_id())
    }

    fn claim(&self) -> Option<Job> {
        self.running.appliance.queue.claim(unix_ms(), &[(JobKind::NOTIFY, 1)].into()).unwrap()
    }

    fn notify(&self, job: &Job) -> Result<Outcome, NotSent> {
        mailing::notify(&self.running.appliance, &self.running.appliance.settings(), job)
    }

    /// Does the job, as the thread does; false when there is none.
    fn work(&self) -> bool {
        let Some(job) = self.claim() else { return false };
        mailing::tell(&self.running.appliance, &job, self.notify(&job));
        true
    }

    /// Does the job when it is due again; drives it where it waits for somebody to.
    fn again(&self) {
        if self.state() == StateName::Parked {
            self.running.appliance.queue.retry(&self.job_id(), unix_ms()).unwrap();
        }
        while !self.work() {
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
    }

    fn state(&self) -> StateName {
        self.job().unwrap().state.name()
    }

    fn step(&self) -> Option<MailStep> {
        self.running.appliance.catalogue.mail(self.id, "ann@example.com").unwrap().map(|mail| mail.step)
    }

    fn count(&self, outcome: &str) -> u64 {
        self.running.appliance.mailing.counts.all().iter().find(|(name, _)| *name == outcome).unwrap().1
    }
}

fn start(rig: &Rig, user: &User) -> Running {
    let running = rig.start();
    running.appliance.access.people.set([user.clone()]);
    running
}

fn message_id(mail: &str) -> &str {
    mail.lines().find(|line| line.starts_with("Message-ID:")).unwrap()
}

/// Without the soft line breaks of quoted-printable, so that a sentence is found.
fn flat(mail: &str) -> String {
    mail.replace("=\r\n", "")
}

/// The attached file.
fn attached(mail: &str) -> Vec<u8> {
    let from = mail.find("Content-Type: audio/mpeg").expect("nothing is attached");
    let from = from + mail[from..].find("\r\n\r\n").unwrap() + 4;
    let encoded: String = mail[from..].lines().take_while(|line| !line.starts_with("--")).collect();
    base64::engine::general_purpose::STANDARD.decode(encoded).unwrap()
}

#[test]
fn the_owner_is_told_once_with_the_call() {
    let sut = Sut::new();
    assert_eq!((sut.step(), sut.state()), (Some(MailStep::Owed), StateName::Ready));
    assert!(sut.work());
    assert_eq!((sut.step(), sut.state()), (Some(MailStep::Accepted), StateName::Done));
    let mails = sut.post.taken();
    let mail = &mails[0];
    for expected in
        ["To: Ann <ann@example.com>", "Call recording", "<callvault@example.org>", "+39061234", "Guten Tag Ann"]
    {
        assert!(flat(mail).contains(expected), "{expected}");
    }
    let row = sut.running.row(sut.id);
    assert!(attached(mail) == sut.running.play(&row, Format::Mp3).unwrap(), "it is the call");
    let log = sut.running.appliance.catalogue.audit_entries(&AuditFilter::default(), None).unwrap().entries;
    let entry = log.into_iter().map(|(_, entry)| entry).find(|entry| entry.action == "mail").unwrap();
    let details = entry.details.iter().map(|(name, value)| (name.as_str(), value.as_str()));
    assert_eq!(entry.recording, Some(sut.id));
    assert!(details.eq([("to", "ann@example.com"), ("attached", "true")]), "{:?}", entry.details);
    // The round that looks for what was forgotten finds nothing.
    Ingest::new(&sut.running.appliance).tidy();
    assert!(!sut.work());
    assert_eq!((sut.post.taken().len(), sut.count("accepted")), (1, 1));
}

#[test]
fn nobody_is_told_who_does_not_want_it() {
    fn check(user: &User, expected: bool) {
        let sut = Sut::of(user, "");
        assert_eq!(sut.work(), expected);
        assert_eq!(sut.post.taken().len(), usize::from(expected));
        assert_eq!(sut.step().is_some(), expected);
    }
    check(&User { attach: false, ..ann() }, true);
    check(&User { notify: false, ..ann() }, false);
    check(&User { removed_at: Some(Timestamp::now()), ..ann() }, false);
}

#[test]
fn who_changed_their_mind_meanwhile_is_not_told() {
    let sut = Sut::new();
    sut.running.appliance.access.people.set([User { notify: false, ..ann() }]);
    assert!(sut.work());
    assert_eq!((sut.step(), sut.state()), (Some(MailStep::Dropped), StateName::Done));
    assert!(sut.post.taken().is_empty());
}

#[test]
fn nobody_is_told_of_what_was_deleted() {
    let sut = Sut::new();
    sut.running.appliance.catalogue.delete(sut.id, Timestamp::now(), "test").unwrap();
    assert!(sut.work());
    assert_eq!((sut.step(), sut.state()), (None, StateName::Done));
    assert!(sut.post.taken().is_empty());
}

/// Between the server's answer and the note of it a mail may go twice, and is the same one; after the note never.
#[test]
fn a_crash_after_the_servers_answer_sends_nothing_again() {
    let sut = Sut::new();
    let job = sut.claim().unwrap();
    assert_eq!(sut.notify(&job).unwrap(), Outcome::Sent);
    let sut = sut.restarted();
    assert!(sut.work(), "the queue was not told");
    assert_eq!((sut.post.taken().len(), sut.state()), (1, StateName::Done));

    // As if the note had not been written any more.
    let catalogue = &sut.running.appliance.catalogue;
    catalogue.mail_came(sut.id, "ann@example.com", MailStep::Sending, Timestamp::now()).unwrap();
    let sut = sut.restarted();
    Ingest::new(&sut.running.appliance).tidy();
    assert!(sut.work());
    let mails = sut.post.taken();
    assert_eq!(mails.len(), 2);
    assert_eq!(message_id(&mails[0]), message_id(&mails[1]));
}

#[test]
fn a_queue_that_lost_its_jobs_gets_the_mail_back() {
    let sut = Sut::new();
    let queue = sut.running.appliance.config.queue_path();
    let Sut { post, rig, running, id } = sut;
    drop(running);
    std::fs::remove_dir_all(queue).unwrap();
    let sut = Sut { running: start(&rig, &ann()), post, rig, id };
    assert!(sut.job().is_none());
    Ingest::new(&sut.running.appliance).tidy();
    assert!(sut.work());
    assert_eq!(sut.post.taken().len(), 1);
}

#[test]
fn each_fault_of_the_server_has_its_end() {
    fn check(faults: &[Fault], states: &[(StateName, MailStep)], taken: usize) -> Sut {
        let sut = Sut::new();
        sut.post.expect(faults);
        for (round, expected) in states.iter().enumerate() {
            if round == 0 {
                assert!(sut.work())
            } else {
                sut.again()
            }
            assert_eq!((sut.state(), sut.step().unwrap()), *expected, "{faults:?}, round {round}");
            let error = sut.job().unwrap().last_error.unwrap_or_default();
            assert!(!error.contains("ann@"), "{error}");
        }
        let mails = sut.post.taken();
        assert_eq!(mails.len(), taken, "{faults:?}");
        assert!(mails.iter().all(|mail| message_id(mail) == message_id(&mails[0])));
        sut
    }
    let (waits, parked, done) = (StateName::Ready, StateName::Parked, StateName::Done);
    let sent = (done, MailStep::Accepted);
    check(&[Fault::Later, Fault::Later], &[(waits, MailStep::Owed), (waits, MailStep::Owed), sent], 1);
    check(&[Fault::Refused], &[(parked, MailStep::Owed), sent], 1);
    check(&[Fault::Cut, Fault::Cut], &[(waits, MailStep::Sending), (waits, MailStep::Sending), sent], 3);
    // One that never answers is not sent mails for ever.
    let cut = (waits, MailStep::Sending);
    check(&[Fault::Cut; 5], &[cut, cut, cut, cut, (parked, MailStep::Sending)], 5);
    let sut = check(&[Fault::TooLarge], &[sent], 1);
    let mail = &sut.post.taken()[0];
    assert!(flat(mail).contains("Mailserver nimmt keine") && !mail.contains("audio/mpeg"), "{mail}");
    assert_eq!(sut.count("without-attachment"), 1);
    let sut = check(&[Fault::TooLarge, Fault::TooLarge], &[(parked, MailStep::Owed)], 0);
    assert_eq!(sut.count("refused"), 1);
}

#[test]
fn a_server_that_is_away_costs_no_tries() {
    let sut = Sut::new();
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let here = format!("port = {}", sut.post.address.port());
    let settings = |from: &str, to: &str| {
        let path = sut.rig.path("callvault.toml");
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::write(&path, text.replace(from, to)).unwrap();
        sut.running.appliance.settings.take(sut.rig.config()).unwrap()
    };
    let away = format!("port = {port}");
    assert_eq!(settings(&here, &away).at_once, ["mail.port"]);
    assert!(sut.work());
    let job = sut.job().unwrap();
    assert_eq!((job.state.name(), job.failures), (StateName::Ready, 0), "{:?}", job.last_error);
    assert_eq!(sut.count("server"), 1);
    // The settings are put right, and it goes without a restart.
    settings(&away, &here);
    sut.again();
    assert_eq!((sut.post.taken().len(), sut.state()), (1, StateName::Done));
}

#[test]
fn a_call_above_the_limit_goes_without_its_audio() {
    let sut = Sut::with(&ann(), "attachment_max = \"1MiB\"\n", LONG);
    let row = sut.running.row(sut.id);
    assert!(sut.running.play(&row, Format::Mp3).unwrap().len() > 1 << 20, "the call is too short for this test");
    assert!(sut.work());
    let mail = &sut.post.taken()[0];
    assert!(flat(mail).contains("1 MB, die Grenze") && !mail.contains("audio/mpeg"), "{mail}");
    assert_eq!((sut.state(), sut.count("without-attachment")), (StateName::Done, 1));
}
