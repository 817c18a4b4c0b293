//! The appliance without its processes, and the journal's writer in the recorder's place.

use std::fs::OpenOptions;
use std::io::{Read, Write};
use std::path::PathBuf;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use callvault_archive::Played;
use callvault_catalogue::Recording;
use callvault_config::Config;
use callvault_control::CheckpointKey;
use callvault_journal::facts::{CodecFacts, Ended, Resumed, SessionEvent, Started, TrackCounts, TrackFacts};
use callvault_journal::{AudioBatch, Batch, EarlierKey, Lane, LaneEnd, Limits, Packet, Pushed, Writer, file_name};
use callvault_seal::{Cipher, DataKey, PublicKey, SealedKey, seal_key};
use jiff::Timestamp;
use uuid::Uuid;

use crate::appliance::{Appliance, Bell};
use crate::ingest::{Ingest, unix_ms};
use crate::playback::{self, Format, open_archive};
use crate::sound::SoundError;
use crate::start::{self, Channels};
use crate::warm::Warm;
use crate::workers;

/// How often a lock is tried, 20 ms apart.
const LOCK_TRIES: u32 = 250;

/// A place where an appliance lives.
pub(super) struct Rig {
    root: tempfile::TempDir,
}

/// The appliance, started.
pub(super) struct Running {
    pub(super) appliance: Arc<Appliance>,
    pub(super) channels: Channels,
}

impl Rig {
    /// `archive` is what stands in that section of the configuration.
    pub(super) fn new(archive: &str) -> Self {
        let root = tempfile::tempdir().unwrap();
        let text = format!("data_dir = \"data\"\nruntime_dir = \"run\"\n[archive]\n{archive}\n");
        std::fs::write(root.path().join("callvault.toml"), text).unwrap();
        std::fs::create_dir_all(root.path().join("data/journal")).unwrap();
        Self { root }
    }

    /// Puts this into the place of its configuration, for the next start.
    pub(super) fn configure(&self, sections: &str) {
        let text = format!("data_dir = \"data\"\nruntime_dir = \"run\"\n{sections}\n");
        std::fs::write(self.root.path().join("callvault.toml"), text).unwrap();
    }

    pub(super) fn as_received() -> Self {
        Self::new("codec = \"as-received\"")
    }

    /// Opens what a daemon opens.
    pub(super) fn start(&self) -> Running {
        // What another test is about to start has copies of the locks of the one that was here, until it is its own program.
        let is_held = |error: &anyhow::Error| error.to_string().contains("another callvaultd uses");
        let open = || start::open(self.config(), Bell::default(), CheckpointKey::from_bytes([0; 32]));
        let mut opened = open();
        for _ in 0..LOCK_TRIES {
            if !opened.as_ref().is_err_and(is_held) {
                break;
            }
            thread::sleep(Duration::from_millis(20));
            opened = open();
        }
        let (mut appliance, channels) = opened.unwrap();
        Arc::get_mut(&mut appliance).unwrap().render_program = render_program();
        // A recorder is there, and goes on with nothing that others left.
        channels.state.send_modify(|s| s.ready = Some(Uuid::now_v7()));
        Running { appliance, channels }
    }

    pub(super) fn config(&self) -> Config {
        Config::load(&self.root.path().join("callvault.toml"), []).unwrap()
    }

    pub(super) fn path(&self, below: &str) -> PathBuf {
        self.root.path().join(below)
    }

    /// The archives in the store, and whatever else lies in its dated folders.
    pub(super) fn stored(&self) -> Vec<PathBuf> {
        let mut found = Vec::new();
        let mut folders = vec![self.path("data/store")];
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(&folder).into_iter().flatten() {
                let path = entry.unwrap().path();
                match path.is_dir() {
                    true => folders.push(path),
                    false if path.ends_with(".callvault-store") => {}
                    false => found.push(path),
                }
            }
        }
        found
    }

    pub(super) fn journal_files(&self) -> usize {
        std::fs::read_dir(self.path("data/journal")).unwrap().count()
    }
}

/// `cargo test` builds it with the examples of this crate.
fn render_program() -> PathBuf {
    let tests = std::env::current_exe().unwrap();
    let program = tests.parent().unwrap().parent().unwrap().join("examples/callvault-render");
    assert!(program.exists(), "{} is missing: build the examples of callvault-service", program.display());
    program
}

impl Running {
    /// Does every job that is due; returns how many.
    pub(super) fn work(&self) -> usize {
        let (mut renderer, mut done) = (Warm::default(), 0);
        while let Some(job) = self.appliance.queue.claim(unix_ms(), &workers::limits(&self.appliance)).unwrap() {
            workers::work(&self.appliance, &mut renderer, &job);
            done += 1;
            assert!(done < 100, "jobs come back for ever");
        }
        done
    }

    /// Two rounds and the jobs between them: everything that there is to do.
    pub(super) fn settle(&self) {
        let mut ingest = Ingest::new(&self.appliance);
        ingest.round();
        self.work();
        ingest.round();
    }

    pub(super) fn recordings(&self) -> Vec<Recording> {
        self.appliance.catalogue.list(&callvault_catalogue::Filter::default(), None).unwrap().recordings
    }

    pub(super) fn row(&self, id: Uuid) -> Recording {
        self.appliance.catalogue.get(id).unwrap().unwrap()
    }

    /// Everything in the archive of a recording: track, encoding, position, payload.
    pub(super) fn archived(&self, id: Uuid) -> Vec<(u8, String, u64, Vec<u8>)> {
        let place = self.row(id).archive.place().unwrap();
        let file = self.appliance.store.get(place.path.as_ref()).unwrap();
        let mut archive = open_archive(file, &self.appliance.keyring, &self.appliance.catalogue).unwrap();
        let tracks = archive.facts().unwrap().tracks.clone();
        let played = archive.packets(0..u64::MAX).map(|played| match played.unwrap() {
            Played::Packet(p) => {
                let encoding = tracks[usize::from(p.track)].codecs[usize::from(p.codec)].encoding.clone();
                (p.track, encoding, p.position, p.payload)
            }
            Played::Hole(finding) => panic!("{finding}"),
        });
        played.collect()
    }

    /// The export of a recording.
    pub(super) fn play(&self, row: &Recording, format: Format) -> Result<Vec<u8>, SoundError> {
        let mut bytes = Vec::new();
        playback::render(&self.appliance, row, format, None..None)?.read_to_end(&mut bytes)?;
        Ok(bytes)
    }
}

/// A recorder's generation.
pub(super) struct Generation {
    folder: PathBuf,
    recipients: Vec<PublicKey>,
    pub(super) writer: Writer,
    pub(super) wall_ns: i64,
}

impl Generation {
    pub(super) fn begin(running: &Running) -> Self {
        let wall_ns = i64::try_from(Timestamp::now().as_nanosecond()).unwrap();
        Self {
            folder: running.appliance.config.journal_path(),
            recipients: running.appliance.recipients.clone(),
            writer: Writer::new(Uuid::now_v7(), wall_ns, 0, Limits::default()),
            wall_ns,
        }
    }

    pub(super) fn id(&self) -> Uuid {
        self.writer.generation()
    }

    /// Writes what has gathered.
    pub(super) fn flush(&mut self) {
        self.writer.commit(self.writer.last_seq(), self.wall_ns, 0);
        let batch = self.writer.take();
        self.append(&batch);
    }

    /// Writes what has gathered, of which no word comes that it is on the device; gives what was written.
    pub(super) fn write(&mut self) -> Batch {
        let batch = self.writer.take();
        self.append(&batch);
        batch
    }

    /// Gives the file up and writes these batches again, into the next.
    pub(super) fn give_up(&mut self, unsynced: Vec<Batch>) {
        self.writer.abandon_file(unsynced, self.wall_ns, 0).unwrap();
        self.write();
    }

    pub(super) fn rotate(&mut self) {
        let last = self.writer.rotate(self.wall_ns, 0).unwrap();
        self.append(&last);
    }

    pub(super) fn finish(mut self) {
        let last = self.writer.finish();
        self.append(&last);
    }

    fn append(&self, batch: &Batch) {
        let path = self.folder.join(file_name(self.id(), batch.file_seq));
        let mut file = OpenOptions::new().create(true).append(true).open(path).unwrap();
        file.write_all(&batch.bytes).unwrap();
    }

    /// Begins a session of these tracks.
    pub(super) fn call(&mut self, codecs: &[CodecFacts]) -> Call {
        let id = Uuid::now_v7();
        let lane = self.writer.open_lane(id, 0).unwrap();
        let key = DataKey::generate(&mut rand::rng());
        let context = lane.key_context();
        let keys = self.recipients.iter().map(|to| seal_key(&mut rand::rng(), to, &key, &context)).collect();
        let mut call = Call { id, lane, cipher: key.cipher(), keys, sent: Vec::new() };
        call.fact(self, &SessionEvent::Started(Started { wall_ns: self.wall_ns, at_ns: 0, ..Started::default() }));
        for (track, codec) in (0_u8..).zip(codecs) {
            let facts = TrackFacts {
                track,
                label: track.to_string(),
                local: track == 0,
                mixed: false,
                codecs: vec![codec.clone()],
            };
            call.fact(self, &SessionEvent::Track(facts));
        }
        call
    }
}

impl Generation {
    /// Goes on with a session that another recorder was cut off in; `sources_continue` says whether it knew of its media. Where the
    /// key of that one was not written, it is written here.
    pub(super) fn go_on(&mut self, before: &Call, with_key: bool, sources_continue: bool) -> Call {
        let lane = self.writer.open_lane(before.id, before.lane.segment() + 1).unwrap();
        let key = DataKey::generate(&mut rand::rng());
        let context = lane.key_context();
        let keys = self.recipients.iter().map(|to| seal_key(&mut rand::rng(), to, &key, &context)).collect();
        let mut call = Call { id: before.id, lane, cipher: key.cipher(), keys, sent: before.sent.clone() };
        let resumed = Some(Resumed { at_ns: 0, sources_continue });
        call.fact(self, &SessionEvent::Started(Started { resumed, ..Started::default() }));
        if with_key {
            let (generation, lane) = (before.lane.generation(), before.lane.number());
            let of = EarlierKey { generation, lane, keys: before.keys.clone() };
            self.writer.write_earlier_key(call.lane, &of).unwrap();
        }
        call.keep(self);
        call
    }
}

/// A session that is being recorded.
pub(super) struct Call {
    pub(super) id: Uuid,
    pub(super) lane: Lane,
    cipher: Cipher,
    pub(super) keys: Vec<SealedKey>,
    pub(super) sent: Vec<Sent>,
}

/// A packet that was sent.
#[derive(Debug, Clone)]
pub(super) struct Sent {
    pub(super) track: u8,
    pub(super) source: u8,
    pub(super) seq: u32,
    pub(super) timestamp: u32,
    pub(super) at_ms: u64,
    pub(super) payload_type: u8,
    pub(super) payload: Vec<u8>,
}

impl Call {
    pub(super) fn fact(&mut self, to: &mut Generation, event: &SessionEvent) {
        to.writer.write_facts(self.lane, &self.cipher, event).unwrap();
    }

    pub(super) fn keep(&mut self, to: &mut Generation) {
        to.writer.write_key(self.lane, &self.keys).unwrap();
    }

    /// Writes packets, ten in a frame.
    pub(super) fn audio(&mut self, to: &mut Generation, packets: &[Sent]) {
        for some in packets.chunks(10) {
            let mut batch = AudioBatch::new();
            for p in some {
                let packet = Packet {
                    track: p.track,
                    source: p.source,
                    payload_type: p.payload_type,
                    marker: false,
                    seq: p.seq,
                    timestamp: p.timestamp,
                    arrival_ns: p.at_ms * 1_000_000,
                    payload: &p.payload,
                };
                if !matches!(batch.push(&packet), Pushed::Taken) {
                    to.writer.write_audio(self.lane, &self.cipher, &mut batch).unwrap();
                    assert!(matches!(batch.push(&packet), Pushed::Taken));
                }
            }
            to.writer.write_audio(self.lane, &self.cipher, &mut batch).unwrap();
        }
        self.sent.extend_from_slice(packets);
    }

    pub(super) fn end(&mut self, to: &mut Generation) {
        self.end_unsynced(to);
        to.flush();
    }

    /// Ends it; what it wrote waits in the writer.
    pub(super) fn end_unsynced(&mut self, to: &mut Generation) {
        let tracks = (0..=1_u8).map(|track| TrackCounts {
            track,
            packets: self.sent.iter().filter(|p| p.track == track).count() as u64,
            ..TrackCounts::default()
        });
        let at_ms = self.sent.iter().map(|p| p.at_ms).max().unwrap_or(0) + 20;
        let ended = Ended {
            wall_ns: to.wall_ns + i64::try_from(at_ms).unwrap() * 1_000_000,
            at_ns: at_ms * 1_000_000,
            reason: "bye".into(),
            tracks: tracks.collect(),
        };
        self.fact(to, &SessionEvent::Ended(ended));
        to.writer.end_lane(self.lane, LaneEnd::Ended, &self.keys).unwrap();
    }
}

pub(super) fn codec(payload_type: u8, encoding: &str, clock_rate: u32) -> CodecFacts {
    CodecFacts { payload_type, encoding: encoding.into(), clock_rate, channels: 1, fmtp: None }
}

pub(super) fn pcmu() -> CodecFacts {
    codec(0, "PCMU", 8_000)
}

/// `count` packets of 20 ms of one source on one track, each with bytes of its own.
pub(super) fn talk(track: u8, source: u8, codec: &CodecFacts, count: u32) -> Vec<Sent> {
    let step = codec.clock_rate / 50;
    let packet = |n: u32| {
        let mut payload: Vec<u8> = (0..160_u32).map(|i| (i * 7 + n * 13 + u32::from(track)) as u8).collect();
        if codec.encoding == "opus" {
            // One frame of 20 ms (RFC 6716 section 3.1, configuration 31).
            payload[0] = 31 << 3;
        }
        let (seq, timestamp) = (100 + n, 5_000 + n * step);
        Sent { track, source, seq, timestamp, at_ms: u64::from(n) * 20, payload_type: codec.payload_type, payload }
    };
    (0..count).map(packet).collect()
}

/// What two talk at the same time, in the order of its reception.
pub(super) fn both(codec: &CodecFacts, count: u32) -> Vec<Sent> {
    let mut all = talk(0, 0, codec, count);
    all.extend(talk(1, 0, codec, count));
    all.sort_by_key(|p| (p.at_ms, p.track));
    all
}

/// A whole call of two, kept and ended; its id.
pub(super) fn whole_call(to: &mut Generation, codec: &CodecFacts, count: u32) -> Call {
    let mut call = to.call(&[codec.clone(), codec.clone()]);
    call.keep(to);
    call.audio(to, &both(codec, count));
    call.end(to);
    call
}
