//! Senders whose clocks and paths differ, and our own wall clock that is set during a call: from the journal to the row and to what is
//! heard.

use callvault_journal::facts::{SenderReportFacts, SessionEvent};

use super::rig::{Generation, Rig, both, pcmu, whole_call};
use crate::playback::Format;
use crate::sound::{Reading, open_lanes};

/// A call of six minutes. The sender of track 1 has a clock that is fast by 300 ppm, and a path that is longer by 80 ms; its reports and
/// those of track 0 are of one clock. All samples are the same, so that a hole would show.
fn call(running: &super::rig::Running) -> uuid::Uuid {
    let mut generation = Generation::begin(running);
    let mut call = generation.call(&[pcmu(), pcmu()]);
    call.keep(&mut generation);
    let mut audio = both(&pcmu(), 18_000);
    for packet in &mut audio {
        packet.payload = vec![0x55; 160];
        if packet.track == 1 {
            packet.at_ms = packet.at_ms - packet.at_ms * 3 / 10_000 + 80;
        }
    }
    audio.sort_by_key(|packet| packet.at_ms);
    for (number, part) in audio.chunks(3_000).enumerate() {
        call.audio(&mut generation, part);
        for packet in part.iter().rev().take(2) {
            let path_ms = if packet.track == 1 { 80 } else { 0 };
            let report = SenderReportFacts {
                track: packet.track,
                source: 0,
                ntp: (3_900_000_000 << 32) + ((packet.at_ms - path_ms) << 32) / 1_000,
                rtp_timestamp: packet.timestamp,
                at_ns: packet.at_ms * 1_000_000 + 1_000 * number as u64,
                clock: 77,
            };
            call.fact(&mut generation, &SessionEvent::SenderReport(report));
        }
    }
    call.end(&mut generation);
    generation.finish();
    call.id
}

#[test]
fn tracks_of_different_clocks_and_paths_stay_together() {
    let rig = Rig::as_received();
    let running = rig.start();
    let id = call(&running);
    crate::ingest::Ingest::new(&running.appliance).round();

    let pinned = running.appliance.journals.pin(id);
    let lanes = open_lanes(&pinned, &running.appliance.keyring).unwrap();
    let reading = Reading::of_journal(&pinned.folder, &lanes).unwrap();
    let all: Vec<_> =
        reading.packets(&pinned.folder, &lanes, 0..u64::MAX).unwrap().map(|packet| packet.unwrap()).collect();
    let last = |track: u8| all.iter().rfind(|packet| packet.track == track).unwrap().position;
    // The 18,000th packet is sent after 359.98 s by our clock, and 108 ms before that by the other.
    assert_eq!(last(0), 359_980 * 48);
    assert!(last(1).abs_diff((359_980 - 108) * 48) <= 10 * 48, "{}", last(1));

    let row = running.row(id);
    assert_eq!((row.tracks[0].clock_skew_ppm, row.verdict.as_str()), (Some(0), "ok"));
    assert!(
        row.tracks[1].clock_skew_ppm.is_some_and(|ppm| (295..=305).contains(&ppm)),
        "{:?}",
        row.tracks[1].clock_skew_ppm
    );
    assert!(row.flaws.is_empty(), "{:?}", row.flaws);

    // A sample less now and then, and no hole.
    let wav = running.play(&row, Format::Wav).unwrap();
    let samples: Vec<&[u8]> = wav[wav.len() - 4 * 8_000 * 359..].chunks_exact(4).collect();
    let silent = samples.iter().take(8_000 * 358).filter(|frame| frame[..2] == [0, 0] || frame[2..] == [0, 0]).count();
    assert_eq!(silent, 0);
}

/// The wall clock is set by so many seconds during a call, and there is another call after it.
fn check_wall_clock_set(by_s: i64) {
    let rig = Rig::as_received();
    let running = rig.start();
    let mut generation = Generation::begin(&running);
    let begun_ns = generation.wall_ns;
    let mut call = generation.call(&[pcmu(), pcmu()]);
    call.keep(&mut generation);
    let audio = both(&pcmu(), 100);
    call.audio(&mut generation, &audio[..100]);
    generation.wall_ns += by_s * 1_000_000_000;
    generation.rotate();
    call.audio(&mut generation, &audio[100..]);
    call.end(&mut generation);
    let next = whole_call(&mut generation, &pcmu(), 50);
    generation.finish();
    // By the daemon that makes the archives, and by the next.
    drop(running);
    for _ in 0..2 {
        let running = rig.start();
        running.settle();
        let (row, after) = (running.row(call.id), running.row(next.id));
        assert_eq!(row.started_at.as_millisecond(), begun_ns / 1_000_000, "{by_s}");
        assert_eq!((row.duration_ms, after.duration_ms), (2_000, 1_000), "{by_s}");
        assert_eq!(row.ended_at.as_millisecond() - row.started_at.as_millisecond(), 2_000, "{by_s}");
        assert_eq!((row.verdict.as_str(), row.flaws.len()), ("ok", 0), "{by_s}");
        let archived: Vec<_> = running.archived(call.id).into_iter().map(|(track, _, at, _)| (track, at)).collect();
        let said: Vec<_> = audio.iter().map(|packet| (packet.track, packet.at_ms * 48)).collect();
        assert_eq!(archived, said, "{by_s}");
        assert_eq!((running.recordings().len(), rig.stored().len()), (2, 2), "{by_s}");
    }
}

#[test]
fn a_wall_clock_that_is_set_changes_no_order_and_no_length_and_deletes_nothing() {
    check_wall_clock_set(3_600);
    check_wall_clock_set(-3_600);
    check_wall_clock_set(400 * 24 * 3_600);
    check_wall_clock_set(-400 * 24 * 3_600);
}
