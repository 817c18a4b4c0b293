//! The messages, in both directions.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use callvault_journal::facts::CallFacts;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::checkpoint_key::CheckpointKey;
use crate::transport::{TlsIdentity, TransportCounts};

/// From the daemon to the recorder.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum ToRecorder {
    /// What the sockets beside this message are, in their order.
    Sockets(Vec<SocketKind>),
    /// What TLS connections are secured with from now on; those that are open stay as they are. Sent before [`ToRecorder::Start`]
    /// where there are TLS sockets, and again whenever it changes. `None`: there is nothing that can be used, so new connections over
    /// TLS are closed at once.
    Certificates(Option<Box<TlsIdentity>>),
    /// Everything the recorder needs to know; sent once, after the sockets.
    Start(Box<Start>),
    /// What becomes of a recording.
    Verdict {
        /// Which recording.
        recording: Uuid,
        /// What becomes of it.
        decision: Decision,
    },
    /// Asks for the live calls; answered by [`ToDaemon::Calls`] with the same number.
    Calls {
        /// Repeated in the answer.
        request: u32,
    },
    /// Does something about a live call; answered by [`ToDaemon::Controlled`] with the same number.
    Control {
        /// Repeated in the answer.
        request: u32,
        /// A recording of the call: the one that is made now, or an earlier one of the same session.
        recording: Uuid,
        /// What to do.
        action: CallAction,
    },
    /// Take no new sessions; those that live go on. Before [`ToRecorder::Start`]: not even the first.
    Drain,
    /// Take new sessions again.
    Undrain,
    /// Flush and exit.
    Stop {
        /// Whether every session is ended in order, with a BYE. Otherwise they are left for the next recorder to go on with, where
        /// there are checkpoints.
        end_calls: bool,
    },
    /// Whether the sockets outlive the daemon, from now on: replaces [`Start::sockets_stay`].
    SocketsStay(bool),
}

/// From the recorder to the daemon.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum ToDaemon {
    /// These recordings go on: they were begun by an earlier recorder. Sent before [`ToDaemon::Ready`], as often as needed.
    Resumed {
        /// At most [`crate::RESUMED_PER_MESSAGE_MAX`] of them.
        recordings: Vec<Uuid>,
    },
    /// The recorder answers calls from now on. What it goes on with is in its journal.
    Ready {
        /// The generation that `Start` named.
        generation: Uuid,
        /// Pairs of media ports it can give.
        port_pairs: u32,
    },
    /// Sent twice a second: what is moving.
    Heartbeat(Box<Heartbeat>),
    /// A session began: what becomes of it? Capture goes on meanwhile.
    Decide {
        /// Which recording.
        recording: Uuid,
        /// What is known of the call.
        facts: Box<CallFacts>,
    },
    /// A recording ended and its end is durable in the journal.
    Ended {
        /// Which recording.
        recording: Uuid,
    },
    /// A journal file was closed and is durable; a new one is written.
    Rotated {
        /// Sequence number of the file that was closed.
        closed_file: u32,
    },
    /// Live calls, in answer to [`ToRecorder::Calls`].
    Calls {
        /// Number from the question.
        request: u32,
        /// Whether this is the last message of the answer.
        last: bool,
        /// At most [`crate::CALLS_PER_MESSAGE_MAX`] of them.
        calls: Vec<LiveCall>,
    },
    /// The answer to [`ToRecorder::Control`]: what is asked holds from the moment of this answer's making on, or why not.
    Controlled {
        /// Number from the request.
        request: u32,
        /// How the call stands now.
        result: Result<CallStanding, Refusal>,
    },
    /// Something that the operator must hear about.
    Alarm {
        /// Stable short name.
        code: String,
        /// One sentence, without personal data.
        text: String,
    },
}

/// What becomes of a recording.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Decision {
    /// It is kept: its sealed key may be written.
    Keep,
    /// It is discarded by the named rule: its key is forgotten, nobody can ever read it.
    Discard {
        /// Name of the rule, for the counters.
        rule: String,
    },
    /// Its key waits in memory until somebody asks for the call to be kept, and is forgotten when the call ends unasked.
    OnDemand,
}

/// What can be done about a live call. Doing what is done already changes nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum CallAction {
    /// Nothing that arrives from now on is stored, whatever the client signals.
    Pause,
    /// Ends such a pause; one of the client's goes on.
    Resume,
    /// Ends the recording; the session goes on, and what it sends is thrown away.
    Stop,
    /// Begins another recording after a stop; keeps a call that is recorded on demand.
    Start,
    /// Keeps the recording.
    Keep,
}

/// Why nothing was done about a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Refusal {
    /// No live call has this recording.
    Unknown,
    /// The recording was stopped: there is nothing to pause, to resume or to keep.
    Stopped,
    /// The session has had as many recordings as one may have.
    TooMany,
}

/// How a live call is recorded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct CallStanding {
    /// The recording that is made, or was last made.
    pub recording: Uuid,
    /// Its state.
    pub state: CallState,
    /// Whether it is kept; none while nobody has decided.
    pub kept: Option<bool>,
    /// Whether the client has paused or held all of it.
    pub paused_by_client: bool,
    /// Whether it is paused by [`CallAction::Pause`].
    pub paused_by_control: bool,
}

/// What a socket sent beside [`ToRecorder::Sockets`] is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum SocketKind {
    /// SIP over UDP, bound.
    SipUdp,
    /// SIP over TCP, listening.
    SipTcp,
    /// SIP over TLS, listening.
    SipTls,
    /// One of a pair of media ports: RTP on the even, RTCP on the odd one.
    Media {
        /// The UDP port it is bound to.
        port: u16,
    },
    /// No socket: an open file whose lock (`flock(2)`) keeps another daemon from starting a recorder as long as this one lives.
    Lock,
}

/// An address range: `address/prefix`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Network {
    /// Any address in it.
    pub address: IpAddr,
    /// Leading bits that count, 0 to 32 or 128.
    pub prefix: u8,
}

impl Network {
    /// Whether `address` is in this range. An IPv4 address that came through an IPv6 socket counts as IPv4.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        fn same(a: &[u8], b: &[u8], bits: u8) -> bool {
            let (whole, rest) = (usize::from(bits / 8), bits % 8);
            if a.get(..whole) != b.get(..whole) || a.len() < whole {
                return false;
            }
            rest == 0
                || match (a.get(whole), b.get(whole)) {
                    (Some(x), Some(y)) => x >> (8 - rest) == y >> (8 - rest),
                    _ => false,
                }
        }
        match (self.address.to_canonical(), address.to_canonical()) {
            (IpAddr::V4(a), IpAddr::V4(b)) => same(&a.octets(), &b.octets(), self.prefix),
            (IpAddr::V6(a), IpAddr::V6(b)) => same(&a.octets(), &b.octets(), self.prefix),
            _ => false,
        }
    }
}

/// Everything that a recorder needs to know. It reads no file of its own.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Start {
    /// Names this run of the recorder and its journal files.
    pub generation: Uuid,
    /// Folder of the journal.
    pub journal_dir: PathBuf,
    /// Folder in memory in which checkpoints of the calls are kept; none: there are no checkpoints.
    pub checkpoint_dir: Option<PathBuf>,
    /// What checkpoints are sealed under: each recorder of one daemon is told the same.
    pub checkpoint_key: CheckpointKey,
    /// Names the time since the machine was started (`/proc/sys/kernel/random/boot_id`).
    pub boot: Uuid,
    /// Whether the sockets outlive the daemon. Then a recorder whose daemon is gone leaves its sessions to the next one; otherwise it
    /// ends them.
    pub sockets_stay: bool,
    /// Public keys, as text, that every recording's key is sealed to; the first is the appliance's.
    pub recipients: Vec<String>,
    /// Address written into answers; none: the address that the INVITE came to.
    pub media_address: Option<IpAddr>,
    /// Address that media sockets are bound to.
    pub media_bound: IpAddr,
    /// Where the SIP listeners are, as bound, in the order of their sockets.
    pub sip_listeners: Vec<SocketAddr>,
    /// Sources that may open sessions.
    pub allowed_peers: Vec<Network>,
    /// Value of the `Server` header.
    pub server_name: String,
    /// Interval of session timers that clients are asked for, in seconds; 0: none is asked for.
    pub session_expires_s: u32,
    /// Shortest interval of session timers that is agreed to, in seconds.
    pub session_expires_min_s: u32,
    /// Sessions at the same time; above it 503.
    pub sessions_max: u32,
    /// Seconds that a client is asked to wait after a 503.
    pub retry_after_s: u32,
    /// Tracks of one session; further media lines are refused (port 0) and noted.
    pub tracks_per_session_max: u8,
    /// Sessions of one source address at the same time; above it 503. 0: no limit of its own.
    pub sessions_per_peer_max: u32,
    /// New sessions a second; above it 503. 0: no limit.
    pub invites_per_second: u32,
    /// New sessions a second of one source address; above it 503. 0: no limit.
    pub invites_per_peer_per_second: u32,
    /// TCP and TLS connections at the same time.
    pub connections_max: u32,
    /// TCP and TLS connections of one source address at the same time.
    pub connections_per_peer_max: u32,
    /// Seconds after which a connection without a dialog and without traffic is closed.
    pub connection_idle_s: u32,
    /// Largest SIP body in bytes; above it 413.
    pub body_bytes_max: u32,
    /// Seconds without any media after which a session ends as `media-timeout`; 0: never.
    pub media_timeout_s: u32,
    /// The same while all tracks are paused.
    pub paused_timeout_s: u32,
    /// Whether senders are told by RTCP how they are received.
    pub receiver_reports: bool,
    /// Milliseconds between two commits (`fdatasync`) of the journal.
    pub commit_interval_ms: u32,
    /// Milliseconds that audio may wait in memory before it is appended.
    pub batch_interval_ms: u32,
    /// Size at which a journal file is closed and a new one begun.
    pub file_bytes_max: u64,
    /// Age in seconds at which a journal file is closed and a new one begun.
    pub file_age_max_s: u32,
    /// Free bytes on the journal's disk below which new sessions get 503.
    pub spool_free_min_bytes: u64,
}

/// What is moving in the recorder. Counters only grow while it lives.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Heartbeat {
    /// Rounds of the signalling loop.
    pub signalling_rounds: u64,
    /// Sweeps over the media sockets.
    pub sweeps: u64,
    /// Rounds of the appender.
    pub append_rounds: u64,
    /// Bytes appended to the journal.
    pub appended_bytes: u64,
    /// Commits (`fdatasync` done).
    pub commits: u64,
    /// Sessions accepted.
    pub accepted: u64,
    /// Further recordings, begun in sessions whose earlier ones were stopped.
    pub started_again: u64,
    /// INVITEs answered with 503 for a limit.
    pub overloaded: u64,
    /// INVITEs refused for what they are (no audio, not allowed, malformed).
    pub refused: u64,
    /// Sessions that live now.
    pub live: u32,
    /// Media packets kept.
    pub packets: u64,
    /// Media packets that could not be stored because the journal did not follow.
    pub dropped: u64,
    /// SIP messages that could not be read.
    pub invalid_messages: u64,
    /// Pairs of media ports in use or resting.
    pub port_pairs_used: u32,
    /// Free bytes on the journal's disk when last looked at.
    pub spool_free_bytes: u64,
    /// Whether new sessions are refused because of a drain.
    pub draining: bool,
    /// Whether the journal cannot be written as fast as calls come in: new sessions are refused for it.
    pub behind: bool,
    /// Connections and what was turned away before it was a session.
    pub transport: TransportCounts,
}

/// State of a live call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CallState {
    /// Being recorded.
    Recording,
    /// Paused or held.
    Paused,
    /// The recording has ended, the session goes on.
    Stopped,
    /// Being recorded, and not kept unless somebody asks for it.
    OnDemand,
}

/// A call that is being recorded now.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LiveCall {
    /// The recording and its state.
    pub standing: CallStanding,
    /// Wall clock of its start, milliseconds since the Unix epoch.
    pub started_unix_ms: i64,
    /// How long it has lasted, by the monotonic clock.
    pub duration_ms: u64,
    /// Number of the recorded user.
    pub local_number: Option<String>,
    /// Number of the main remote party.
    pub remote_number: Option<String>,
    /// Name of the main remote party.
    pub remote_name: Option<String>,
    /// "incoming", "outgoing" or "unknown".
    pub direction: String,
    /// Number of tracks.
    pub tracks: u8,
    /// Packets kept so far.
    pub packets: u64,
}
