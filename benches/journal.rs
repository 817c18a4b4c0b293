//! What it costs to append audio to the journal, and to make it durable.

#![allow(clippy::unwrap_used)]

mod floor;
mod traffic;

use std::fs::File;
use std::os::unix::fs::FileExt;

use callvault_journal::{AUDIO_BATCH_BYTES, AudioBatch, Lane, Limits, Packet, Pushed, Writer};
use callvault_seal::{Cipher, DataKey};
use floor::{Bench, Row, Turn};
use traffic::{PACKETS_PER_BATCH, PAYLOAD_BYTES, RawCipher, TRACKS};
use uuid::Uuid;

/// Size at which the benchmark's files begin again, so that a long run fills no disk.
const FILE_BYTES_MAX: u64 = 256 << 20;

fn main() {
    let bench = Bench::begin("journal: what a batch of audio costs the appender");
    append(&bench, "200 ms of two G.711 tracks (3.5 KB): seal, frame", TRACKS * PACKETS_PER_BATCH);
    append(&bench, "a full batch (32 KiB): seal, frame", usize::MAX);
    for sessions in [1, 32, bench.pick(1_000, 100)] {
        group_commit(&bench, sessions);
    }
}

/// A journal, and batches on their way into it.
struct Appending {
    writer: Writer,
    lanes: Vec<(Lane, Cipher)>,
    batches: Vec<AudioBatch>,
    packets: usize,
    cipher: RawCipher,
    /// As many bytes as the batches have.
    plain: Vec<Vec<u8>>,
}

impl Appending {
    /// Batches of `packets` packets, or as many as fit, each of another session.
    fn new(sessions: usize, packets: usize) -> Self {
        let mut writer = Writer::new(Uuid::from_u128(1), 0, 0, Limits::default());
        let lane = |n: usize| {
            let lane = writer.open_lane(Uuid::from_u128(n as u128), 0).unwrap();
            (lane, DataKey::from_bytes([n as u8; 32]).cipher())
        };
        let lanes = (0..sessions).map(lane).collect();
        let batches = (0..sessions).map(|_| AudioBatch::new()).collect();
        let mut this = Self { writer, lanes, batches, packets, cipher: RawCipher::new(), plain: Vec::new() };
        this.fill();
        let bytes = |batch: &AudioBatch| 8 + batch.packets() as usize * (17 + PAYLOAD_BYTES);
        this.plain = this.batches.iter().map(|batch| vec![0; bytes(batch)]).collect();
        assert!(this.plain.iter().all(|plain| plain.len() <= AUDIO_BATCH_BYTES));
        this
    }

    /// Fills the batches, as the sweep does.
    fn fill(&mut self) {
        for batch in &mut self.batches {
            batch.clear();
            for n in 0..self.packets as u64 {
                let packet = Packet {
                    track: (n % TRACKS as u64) as u8,
                    source: 0,
                    payload_type: 0,
                    marker: false,
                    seq: n as u32,
                    timestamp: n as u32,
                    arrival_ns: n * 10_000_000,
                    payload: &[n as u8; PAYLOAD_BYTES],
                };
                match batch.push(&packet) {
                    Pushed::Taken => {}
                    Pushed::Full => break,
                    Pushed::TooLong => panic!("a packet of 20 ms is not too long"),
                }
            }
        }
    }

    /// Seals and frames them all.
    fn append(&mut self) {
        for ((lane, cipher), batch) in self.lanes.iter().zip(&mut self.batches) {
            self.writer.write_audio(*lane, cipher, batch).unwrap();
        }
    }

    fn seal_raw(&mut self) {
        self.plain.iter_mut().for_each(|plain| self.cipher.seal(plain));
    }
}

fn append(bench: &Bench, what: &str, packets: usize) {
    /// Of as many sessions as are written at once on a busy machine.
    const BATCHES: usize = 128;
    let subject = |state: &mut Appending| {
        state.fill();
        let turn = Turn::timed(BATCHES, || state.append());
        let written = state.writer.take();
        assert!(written.bytes.len() > state.plain.iter().map(Vec::len).sum());
        state.writer.recycle(written.bytes);
        turn
    };
    let floor = |state: &mut Appending| Turn::timed(BATCHES, || state.seal_raw());
    let row = Row { what, unit: "batch", floor: "AES-256-GCM of the same bytes" };
    bench.compare(&row, &mut Appending::new(BATCHES, packets), subject, floor);
}

/// A file that is written from its end on, and begins again when it is long.
struct Appended {
    file: File,
    bytes: u64,
}

impl Appended {
    fn new() -> Self {
        Self { file: tempfile::tempfile_in(env!("CARGO_TARGET_TMPDIR")).unwrap(), bytes: 0 }
    }

    fn prepare(&mut self) {
        if self.bytes > FILE_BYTES_MAX {
            self.file.set_len(0).unwrap();
            self.file.sync_all().unwrap();
            self.bytes = 0;
        }
    }

    fn write(&mut self, bytes: &[u8]) {
        self.file.write_all_at(bytes, self.bytes).unwrap();
        self.file.sync_data().unwrap();
        self.bytes += bytes.len() as u64;
    }
}

/// What has gathered in a while, made durable at once: the more sessions there are, the less of the sync each pays.
fn group_commit(bench: &Bench, sessions: usize) {
    let appending = Appending::new(sessions, TRACKS * PACKETS_PER_BATCH);
    let raw: Vec<u8> = appending.plain.concat();
    let mut state = (appending, Appended::new(), Appended::new());
    let subject = |(appending, file, _): &mut (Appending, Appended, Appended)| {
        appending.fill();
        file.prepare();
        Turn::timed(sessions, || {
            appending.append();
            let batch = appending.writer.take();
            file.write(&batch.bytes);
            appending.writer.commit(batch.last_seq, 0, 0);
            appending.writer.recycle(batch.bytes);
        })
    };
    let floor = |(_, _, file): &mut (Appending, Appended, Appended)| {
        file.prepare();
        Turn::timed(sessions, || file.write(&raw))
    };
    let what = format!("a commit of {sessions}: seal, frame, write, fdatasync");
    let row = Row { what: &what, unit: "batch", floor: "write and fdatasync of the same bytes" };
    bench.compare(&row, &mut state, subject, floor);
}
