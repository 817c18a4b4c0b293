//! What a run does, as variables say it.

use std::str::FromStr;
use std::time::Duration;

use super::floor::Bench;
use super::sender::Trouble;
use super::voice::Coding;

/// More calls at once than this need more media ports than there are below those that the kernel gives out.
pub(crate) const CALLS_MAX: usize = 3_500;

/// How calls are signalled.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Transport {
    Udp,
    /// Each call has a connection of its own.
    Tcp,
    Tls,
}

/// What a run does.
pub(crate) struct Plan {
    pub(crate) calls: Vec<usize>,
    /// New calls a second.
    pub(crate) rate: f64,
    /// How long all of a step's calls speak together.
    pub(crate) hold: Duration,
    pub(crate) trouble: Trouble,
    pub(crate) transport: Transport,
    pub(crate) coding: Coding,
    /// Whether the audio is SRTP with keys in the session description.
    pub(crate) srtp: bool,
    /// Percent of the time that each party speaks.
    pub(crate) talk: usize,
    /// Threads that send audio; 0: one for each two thousand tracks.
    pub(crate) threads: usize,
    /// Further settings of the appliance.
    pub(crate) settings: String,
    /// Agents of a day instead of steps; 0: none.
    pub(crate) agents: usize,
    /// Into how long a time the day is pressed.
    pub(crate) day: Duration,
}

impl Plan {
    pub(crate) fn read(bench: &Bench) -> Self {
        let calls: String = variable("CALLS", bench.pick("50,100,200,500".to_owned(), "2,4".to_owned()));
        let calls =
            calls.split(',').map(|calls| calls.trim().parse().expect("CALLVAULT_LOAD_CALLS is a list of numbers"));
        let calls: Vec<usize> = calls.collect();
        assert!(calls.iter().all(|calls| (1..=CALLS_MAX).contains(calls)), "a step has 1 to {CALLS_MAX} calls");
        let trouble = Trouble {
            lost: variable("LOST", bench.pick(0, 5)),
            late: variable("LATE", bench.pick(0, 5)),
            jitter_ms: variable("JITTER_MS", bench.pick(0, 15)),
        };
        assert!(trouble.lost + trouble.late <= 50, "at most half of the packets are lost or late");
        assert!(trouble.jitter_ms < 20, "CALLVAULT_LOAD_JITTER_MS is below 20, so that what is late is so on purpose");
        let rate: f64 = variable("RATE", 50.0);
        assert!(rate > 0.0 && rate <= 1_000.0, "CALLVAULT_LOAD_RATE is above 0 and at most 1000");
        let talk = variable("TALK", 100);
        assert!((1..=100).contains(&talk), "CALLVAULT_LOAD_TALK is 1 to 100");
        Self {
            calls,
            rate,
            hold: Duration::from_secs(variable("SECONDS", bench.pick(20, 2))),
            trouble,
            transport: one_of("TRANSPORT", [("udp", Transport::Udp), ("tcp", Transport::Tcp), ("tls", Transport::Tls)]),
            coding: one_of("CODEC", [("pcmu", Coding::Pcmu), ("g722", Coding::G722), ("opus", Coding::Opus)]),
            srtp: one_of("SRTP", [("0", false), ("1", true)]),
            talk,
            threads: variable("THREADS", 0),
            settings: variable("SETTINGS", String::new()),
            agents: variable("AGENTS", 0),
            day: Duration::from_secs(variable("DAY_SECONDS", bench.pick(600, 10))),
        }
    }

    /// Whether what is recorded becomes Opus in the archive.
    pub(crate) fn makes_opus(&self) -> bool {
        self.coding != Coding::Opus && !self.settings.contains("as-received")
    }

    /// In a few words.
    pub(crate) fn words(&self) -> String {
        let transport = match self.transport {
            Transport::Udp => "UDP",
            Transport::Tcp => "TCP, a connection for each call",
            Transport::Tls => "TLS, a connection for each call",
        };
        let audio = if self.srtp { "SRTP (AES_CM_128_HMAC_SHA1_80)" } else { "RTP" };
        let Trouble { lost, late, jitter_ms } = self.trouble;
        format!(
            "{} in {audio}; signalling over {transport}; each party speaks {} % of the time; {lost} % lost, {late} % late on purpose, \
             jitter {jitter_ms} ms",
            self.coding.name(),
            self.talk
        )
    }
}

/// The variable `CALLVAULT_LOAD_…`, or what stands for it.
fn variable<T: FromStr>(name: &str, otherwise: T) -> T {
    let name = format!("CALLVAULT_LOAD_{name}");
    std::env::var(&name).map_or(otherwise, |value| value.parse().unwrap_or_else(|_| panic!("{name} cannot be read")))
}

/// One of some words; the first when there is none.
fn one_of<T: Copy, const N: usize>(name: &str, words: [(&str, T); N]) -> T {
    let said: String = variable(name, words[0].0.to_owned());
    let found = words.iter().find(|(word, _)| *word == said);
    let names = words.map(|(word, _)| word).join(", ");
    found.unwrap_or_else(|| panic!("CALLVAULT_LOAD_{name} is one of {names}")).1
}
