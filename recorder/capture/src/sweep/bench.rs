//! The sweep as a benchmark sees it: driven by hand, without threads, with what it has for the journal handed out. Nothing
//! else may use this.

use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver as Queue, SyncSender, sync_channel};

use callvault_control::{CheckpointKey, Start};
use callvault_journal::AudioBatch;
use callvault_media::PayloadType;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use uuid::Uuid;

use super::{Command, Counters, NewTrack, Sweep, SweepState};
use crate::Feedback;
use crate::appender::{Entry, spare_batches};
use crate::checkpoint::MediaState;
use crate::clock::journal_ns;
use crate::ports::PortPair;

/// Entries for the journal between two calls of [`HandSweep::flush`]: far more than a benchmark makes.
const ENTRIES_MAX: usize = 65_536;

/// A sweep over the sockets of sessions with PCMU on every track.
pub struct HandSweep {
    sweep: Sweep,
    sessions: usize,
    entries: Queue<Entry>,
    used: SyncSender<AudioBatch>,
    // Kept open, as the signalling keeps it.
    _feedback: UnboundedReceiver<Feedback>,
}

impl HandSweep {
    /// Opens one session for each `tracks_per_session` (at least 1) pairs of sockets (RTP, RTCP).
    pub fn open(sockets: Vec<(OwnedFd, OwnedFd)>, tracks_per_session: usize) -> Self {
        let (journal, entries) = sync_channel(ENTRIES_MAX);
        let (used, spare) = spare_batches();
        let (feedback, kept) = unbounded_channel();
        let state = Arc::new(SweepState::default());
        let mut this = Self {
            sweep: Sweep::new(Arc::new(start()), journal, spare, feedback, state),
            sessions: 0,
            entries,
            used,
            _feedback: kept,
        };
        let mut sockets = sockets.into_iter().peekable();
        while sockets.peek().is_some() {
            let tracks = (0..).zip(sockets.by_ref().take(tracks_per_session.max(1)));
            let tracks = tracks.map(|(number, (rtp, rtcp))| NewTrack {
                number,
                pair: Arc::new(PortPair { port: 0, rtp, rtcp }),
                payload_types: PayloadType::assigned(0).into_iter().collect(),
                paused: false,
                unprotector: None,
                protector: None,
                remote_ports: (0, None),
            });
            let (recording, tracks) = (Uuid::from_u128(this.sessions as u128), tracks.collect());
            let counters = Arc::new(Counters::default());
            this.sweep.handle(Command::Open { recording, tracks, counters, opened_ns: journal_ns() });
            this.sessions += 1;
        }
        this
    }

    /// How many sessions there are.
    pub fn sessions(&self) -> usize {
        self.sessions
    }

    /// Goes over all sockets once, as the recorder's media thread does every 20 ms.
    pub fn sweep(&mut self) {
        self.sweep.sweep();
    }

    /// Ends the batches of all sessions, as the recorder does every `journal.batch_interval`, and gives each with the number of
    /// its session to `each`, which takes the place of the appender.
    pub fn flush(&mut self, mut each: impl FnMut(usize, &mut AudioBatch)) {
        for session in &mut self.sweep.sessions {
            session.out.flush(MediaState::default(), &self.sweep.ways);
        }
        while let Ok(entry) = self.entries.try_recv() {
            if let Entry::Audio { recording, mut batch, .. } = entry {
                // The ids are the numbers, see `open`.
                each(usize::try_from(recording.as_u128()).unwrap_or(usize::MAX), &mut batch);
                batch.clear();
                let _ = self.used.try_send(batch);
            }
        }
    }
}

/// Settings under which no batch ends and no session falls silent by itself.
fn start() -> Start {
    Start {
        generation: Uuid::nil(),
        journal_dir: PathBuf::new(),
        checkpoint_dir: None,
        checkpoint_key: CheckpointKey::from_bytes([0; 32]),
        boot: Uuid::nil(),
        sockets_stay: false,
        recipients: Vec::new(),
        media_address: None,
        media_bound: IpAddr::V4(Ipv4Addr::LOCALHOST),
        sip_listeners: Vec::new(),
        allowed_peers: Vec::new(),
        server_name: String::new(),
        session_expires_s: 0,
        session_expires_min_s: 0,
        sessions_max: u32::MAX,
        retry_after_s: 0,
        tracks_per_session_max: u8::MAX,
        sessions_per_peer_max: 0,
        invites_per_second: 0,
        invites_per_peer_per_second: 0,
        connections_max: 0,
        connections_per_peer_max: 0,
        connection_idle_s: 0,
        body_bytes_max: 0,
        media_timeout_s: 0,
        paused_timeout_s: 0,
        receiver_reports: true,
        commit_interval_ms: u32::MAX,
        batch_interval_ms: u32::MAX,
        file_bytes_max: u64::MAX,
        file_age_max_s: u32::MAX,
        spool_free_min_bytes: 0,
    }
}
