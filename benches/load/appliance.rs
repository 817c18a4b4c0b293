//! The appliance that is loaded, its clients, and what it says of its work.

use std::collections::HashMap;
use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustls::version::TLS13;
use serde_json::Value;

use super::plan::{Plan, Transport};
use super::rig::Appliance;
use super::rig::shapes::{Facts, webex};
use super::rig::sip::Client;
use super::rig::srtp;
use super::rig::tls::{self, Authority, GOOD, metric};
use super::sender::{Done, Sent, Speech};

/// Pairs for 4,000 calls of two tracks at once, and connections for as many.
const SETTINGS: &str = "[media]\nports = \"16000-31999\"\n\
    [limits]\nsessions_max = 4000\nconnections_max = 5000\nconnections_per_peer_max = 5000\n";
/// Tracks of a call.
pub(crate) const TRACKS: usize = 2;
/// So long without a further archive, and there will be none.
const STALLED: Duration = Duration::from_secs(90);

/// An appliance and those who call it.
pub(crate) struct Loaded<'a> {
    pub(crate) appliance: Appliance,
    plan: &'a Plan,
    authority: Option<Authority>,
    /// Who makes the calls has failed: nobody need wait for archives any more.
    given_up: AtomicBool,
}

/// Tells those who wait when whoever holds this has failed.
pub(crate) struct Alarm<'a>(&'a AtomicBool);

impl Drop for Alarm<'_> {
    fn drop(&mut self) {
        if thread::panicking() {
            self.0.store(true, Ordering::Relaxed);
        }
    }
}

impl<'a> Loaded<'a> {
    pub(crate) fn start(plan: &'a Plan) -> Self {
        let authority = (plan.transport == Transport::Tls).then(|| Authority::new("Load"));
        let mut appliance = match &authority {
            Some(authority) => tls::prepare(SETTINGS, &authority.sign(GOOD), None),
            None => Appliance::prepare(SETTINGS),
        };
        // The last file wins.
        fs::write(appliance.home().join("conf.d/zz-load.toml"), &plan.settings).unwrap();
        appliance.launch();
        Self { appliance, plan, authority, given_up: AtomicBool::new(false) }
    }

    /// To be held while calls are made beside [`Loaded::progress`].
    pub(crate) fn alarm(&self) -> Alarm<'_> {
        Alarm(&self.given_up)
    }

    pub(crate) fn speech(&self, tracks: usize) -> Speech {
        let Plan { threads, coding, talk, trouble, .. } = *self.plan;
        let threads = if threads == 0 { 1 + tracks / 2_000 } else { threads };
        Speech::begin(threads, self.appliance.sip().ip(), coding, talk, trouble)
    }

    fn connect(&self) -> Client {
        match (self.plan.transport, &self.authority) {
            (Transport::Tls, Some(authority)) => {
                let to = self.appliance.place.tls();
                Client::tls(to, tls::connect(to, authority, None, &TLS13).expect("a connection over TLS"))
            }
            (Transport::Tcp, _) => Client::tcp(self.appliance.sip()),
            _ => Client::udp(self.appliance.sip()),
        }
    }

    /// Begins a call and its audio; its client, and how long the INVITE took in milliseconds.
    pub(crate) fn call(&self, number: usize, speech: &Speech) -> (Client, f64) {
        let facts = Facts::incoming(number as u32);
        let keys = [0, 1].map(|track| srtp::key((number * TRACKS + track) as u64 + 1));
        let invite = match self.plan.srtp {
            true => srtp::secured(&facts, self.appliance.sip(), &keys),
            false => webex(&facts, self.appliance.sip()),
        };
        let mut client = self.connect();
        let media = client.call(&invite);
        assert_eq!(media.len(), TRACKS);
        let took = client.took().as_secs_f64() * 1e3;
        for ((track, to), key) in media.into_iter().enumerate().zip(keys) {
            let key = self.plan.srtp.then(|| STANDARD.decode(key).unwrap().try_into().unwrap());
            speech.add(number * TRACKS + track, to, key);
        }
        (client, took)
    }

    /// Every recording that there is.
    pub(crate) fn recordings(&self) -> Vec<Value> {
        let (mut all, mut cursor) = (Vec::new(), None::<String>);
        loop {
            let after = cursor.map(|cursor| format!("&cursor={cursor}")).unwrap_or_default();
            let page = self.appliance.get(&format!("/v1/recordings?limit=1000{after}"));
            all.extend(page["recordings"].as_array().unwrap().iter().cloned());
            cursor = page["next"].as_str().map(str::to_owned);
            if cursor.is_none() {
                return all;
            }
        }
    }

    /// Bytes that the journal was given, and its commits.
    pub(crate) fn journal(&self) -> [f64; 2] {
        ["journal_appended_bytes_total", "journal_commits_total"].map(|name| metric(&self.appliance, name))
    }

    /// Looks every so often, until so many recordings are archived, how far the appliance has come; the longer it takes the more seldom, as
    /// each question is work for the appliance.
    pub(crate) fn progress(&self, calls: usize, every: Duration) -> Progress {
        let mut progress = Progress::default();
        let (began, mut last) = (Instant::now(), Instant::now());
        loop {
            let [listed, archived] = ["recordings_ingested_total", "recordings_archived_total"]
                .map(|name| metric(&self.appliance, name) as usize);
            if progress.0.last().is_none_or(|look| (listed, archived) != (look.listed, look.archived)) {
                progress.0.push(Look { at: Instant::now(), listed, archived });
                last = Instant::now();
            }
            if listed.min(archived) >= calls {
                return progress;
            }
            let stalled = last.elapsed() > STALLED && metric(&self.appliance, "calls_live") == 0.0;
            let given_up = self.given_up.load(Ordering::Relaxed);
            assert!(!stalled && !given_up, "only {archived} of {calls} recordings were archived");
            thread::sleep((began.elapsed() / 20).clamp(every, every * 5));
        }
    }

    /// Waits until so many recordings are in the catalogue: of long calls that end together the last one waits for all others.
    pub(crate) fn wait_listed(&self, calls: usize) {
        let (mut before, mut last) = (0, Instant::now());
        while before < calls {
            let listed = metric(&self.appliance, "recordings_ingested_total") as usize;
            if listed > before {
                (before, last) = (listed, Instant::now());
            }
            assert!(last.elapsed() < STALLED, "only {listed} of {calls} recordings are in the catalogue");
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// Whether every recording has what was sent, track by track.
    pub(crate) fn check(&self, done: &Done) -> Checked {
        let mut by_call: HashMap<String, Value> = HashMap::new();
        for recording in self.recordings() {
            let before = by_call.insert(recording["call_id"].as_str().unwrap().to_owned(), recording);
            assert!(before.is_none(), "one call has two recordings");
        }
        let mut checked =
            Checked { deaths: metric(&self.appliance, "recorder_restarts_total") as u64, ..Checked::default() };
        for (number, sent) in done.tracks.chunks(TRACKS).enumerate() {
            let call_id = Facts::incoming(number as u32).call_id;
            let recording = by_call.remove(&call_id).expect("every call has its recording");
            for (sent, track) in sent.iter().zip(recording["tracks"].as_array().unwrap()) {
                checked.sent.packets += sent.packets;
                checked.sent.lost += sent.lost;
                checked.sent.late += sent.late;
                checked.missing += sent.packets.saturating_sub(track["packets"].as_u64().unwrap());
            }
            if let Err(text) = check_one(&recording, sent, self.plan) {
                checked.wrong += 1;
                checked.first_wrong.get_or_insert(text);
            }
            checked.recordings.push(recording);
        }
        assert!(by_call.is_empty(), "there are recordings of calls that nobody made");
        checked
    }
}

/// What the recordings have of what was sent.
#[derive(Default)]
pub(crate) struct Checked {
    pub(crate) sent: Sent,
    /// Packets that were sent and are in no recording.
    pub(crate) missing: u64,
    /// Recordings that are not what was sent, and what is wrong with the first of them.
    pub(crate) wrong: u64,
    pub(crate) first_wrong: Option<String>,
    /// How often the recorder died.
    pub(crate) deaths: u64,
    /// In the order of the calls.
    pub(crate) recordings: Vec<Value>,
}

impl Checked {
    /// Why the run was not good.
    pub(crate) fn failed(&self) -> Option<String> {
        let Self { missing, wrong, deaths, .. } = self;
        let first = self.first_wrong.as_ref()?;
        Some(format!(
            "{wrong} recordings are not what was sent, {missing} packets are missing, the recorder died {deaths} times; the first: {first}"
        ))
    }
}

fn check_one(recording: &Value, sent: &[Sent], plan: &Plan) -> Result<(), String> {
    let tracks = recording["tracks"].as_array().unwrap();
    let said = |text: String| Err(format!("{text}: {}", recording["id"]));
    if tracks.len() != TRACKS {
        return said(format!("{} tracks", tracks.len()));
    }
    for (sent, track) in sent.iter().zip(tracks) {
        let count = |name: &str| track[name].as_u64().unwrap();
        let kept = Sent { packets: count("packets"), lost: count("lost"), late: count("late") };
        if kept != *sent {
            return said(format!("{sent:?} was sent, {kept:?} recorded"));
        }
        let codec = track["codec"].as_str().unwrap();
        if !codec.eq_ignore_ascii_case(plan.coding.encoding()) {
            return said(format!("the codec is {codec}"));
        }
    }
    if recording["archive"]["state"] != "archived" {
        return said(format!("the archive is {}", recording["archive"]["state"]));
    }
    if plan.trouble.lost == 0 && recording["verdict"] != "ok" {
        return said(format!("nothing was lost, and yet it is {} for {}", recording["verdict"], recording["flaws"]));
    }
    Ok(())
}

/// How many recordings there were at a moment.
#[derive(Clone, Copy)]
pub(crate) struct Look {
    pub(crate) at: Instant,
    /// Those in the catalogue: they can be found and played.
    pub(crate) listed: usize,
    pub(crate) archived: usize,
}

/// How the work went on.
#[derive(Default)]
pub(crate) struct Progress(pub(crate) Vec<Look>);

impl Progress {
    /// How long it took, in seconds, until as many recordings as calls had ended had come so far: for each end, in the order of the ends.
    pub(crate) fn after(&self, ends: &[Instant], of: impl Fn(&Look) -> usize) -> Vec<f64> {
        let mut looks = self.0.iter().peekable();
        let mut after = Vec::new();
        for (n, end) in ends.iter().enumerate() {
            while looks.next_if(|look| of(look) <= n).is_some() {}
            let look = looks.peek().expect("all of them came that far");
            after.push(look.at.saturating_duration_since(*end).as_secs_f64());
        }
        after
    }
}

/// What an hour of a call is in the archive.
pub(crate) fn archived_bytes_per_hour(recordings: &[Value]) -> f64 {
    let sum = |pointer: &str| recordings.iter().map(|r| r.pointer(pointer).unwrap().as_f64().unwrap()).sum::<f64>();
    sum("/archive/bytes") / (sum("/duration_ms") / 3_600_000.0)
}

/// How long all recordings are together, in seconds.
pub(crate) fn recorded_s(recordings: &[Value]) -> f64 {
    recordings.iter().map(|recording| recording["duration_ms"].as_f64().unwrap() / 1e3).sum()
}
