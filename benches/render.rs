//! What it costs to render a call for those who listen.

#![allow(clippy::unwrap_used)]

mod floor;
mod rendering;
mod traffic;

use callvault_render_protocol::Output;
use floor::{Bench, Row, Turn};
use rendering::{BIT_RATE, COMPLEXITY, Call, RawOpus, Rendering, raw_mp3, raw_opus_decode};
use traffic::ulaw_table;

fn main() {
    let bench = Bench::begin("render: what it costs to give out a call of two tracks");
    let seconds = bench.pick(10, 2);
    let received = Call::pcmu(seconds);
    let archived = received.archived();
    wav_of_g711(&bench, &received);
    wav_of_opus(&bench, &archived);
    ogg_of_opus(&bench, &archived);
    mp3_of_opus(&bench, &archived);
    mp3_of_g711(&bench, &received, &archived);
}

/// Renders `call` and compares with `floor`. The file must have at least `bytes_min` bytes a second.
fn compare(bench: &Bench, row: &Row<'_>, call: &Call, output: Output, bytes_min: usize, mut floor: impl FnMut()) {
    let subject = |rendering: &mut Rendering| {
        let turn = Turn::timed(call.seconds, || rendering.work());
        let rendered = rendering.result();
        assert!(rendered.file_bytes >= call.seconds * bytes_min, "a file of {} bytes", rendered.file_bytes);
        let decoded: u64 = rendered.stats.tracks.iter().map(|track| track.packets).sum();
        assert_eq!(decoded, call.packets.len() as u64);
        turn
    };
    let floor = |_: &mut Rendering| Turn::timed(call.seconds, &mut floor);
    bench.compare(row, &mut Rendering::new(call, output), subject, floor);
}

fn wav_of_g711(bench: &Bench, call: &Call) {
    let table = ulaw_table();
    let mut file = Vec::new();
    let floor = || {
        file.clear();
        for (left, right) in call.payloads(0).zip(call.payloads(1)) {
            for codes in left.iter().zip(right) {
                file.extend_from_slice(&table[usize::from(*codes.0)].to_le_bytes());
                file.extend_from_slice(&table[usize::from(*codes.1)].to_le_bytes());
            }
        }
        std::hint::black_box(&file);
    };
    let row = Row { what: "WAV of G.711", unit: "s of call", floor: "table look-up, samples interleaved" };
    compare(bench, &row, call, Output::Wav, 32_000, floor);
}

/// Decodes both tracks at `rate`.
fn decode(call: &Call, rate: u32, samples: &mut [Vec<i16>; 2]) {
    for (track, samples) in (0..).zip(samples) {
        raw_opus_decode(call.payloads(track), rate, samples);
    }
}

fn wav_of_opus(bench: &Bench, call: &Call) {
    let mut samples = [Vec::new(), Vec::new()];
    let row = Row { what: "WAV of an archive's Opus", unit: "s of call", floor: "libopus decoding" };
    compare(bench, &row, call, Output::Wav, 32_000, || decode(call, 8_000, &mut samples));
}

fn ogg_of_opus(bench: &Bench, call: &Call) {
    let mut samples = [Vec::new(), Vec::new()];
    let mut encoder = RawOpus::new(8_000, COMPLEXITY);
    let floor = || {
        decode(call, 8_000, &mut samples);
        let packets: usize = samples.iter().map(|samples| encoder.encode(samples)).sum();
        assert_eq!(packets, call.packets.len());
    };
    let row = Row {
        what: "Ogg Opus of an archive's Opus, complexity 5",
        unit: "s of call",
        floor: "libopus decoding, encoding",
    };
    compare(bench, &row, call, Output::OggOpus { bit_rate: BIT_RATE, complexity: COMPLEXITY }, 500, floor);
}

fn mp3_of_opus(bench: &Bench, call: &Call) {
    let (mut samples, mut file) = ([Vec::new(), Vec::new()], Vec::new());
    let floor = || {
        decode(call, 16_000, &mut samples);
        raw_mp3(&samples[0], &samples[1], &mut file);
    };
    let row = Row { what: "MP3 of an archive's Opus", unit: "s of call", floor: "libopus decoding, LAME" };
    compare(bench, &row, call, Output::Mp3 { bit_rate_kbps: 0, quick: false }, 5_000, floor);
}

fn mp3_of_g711(bench: &Bench, call: &Call, archived: &Call) {
    // What LAME gets is prepared once: to bring the call to 16 kHz is the subject's work, not the floor's.
    let (mut samples, mut file) = ([Vec::new(), Vec::new()], Vec::new());
    decode(archived, 16_000, &mut samples);
    let row = Row { what: "MP3 of G.711, brought to 16 kHz", unit: "s of call", floor: "LAME at 16 kHz" };
    compare(bench, &row, call, Output::Mp3 { bit_rate_kbps: 0, quick: false }, 5_000, || {
        raw_mp3(&samples[0], &samples[1], &mut file)
    });
}
