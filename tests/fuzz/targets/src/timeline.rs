//! The alignment of tracks, for packets whose times and numbers a peer made up. The input is a list of packet headers.

use callvault_archive::timeline::{PacketHeader, Timeline};

use crate::input::Input;

/// Packets of an input: more make it slower, not deeper.
const PACKETS_MAX: usize = 400;

/// Aligns the packets.
pub fn run(input: &[u8]) {
    let mut input = Input::new(input);
    let (mut headers, mut last) = (Vec::new(), [(65_536_u32, 0_u32); 4]);
    let mut now_ns = 10_000_000_000_u64;
    while !input.is_empty() && headers.len() < PACKETS_MAX {
        let header = packet(&mut input, &mut last, &mut now_ns);
        headers.push(header);
    }
    check(&headers);
}

/// The next packet of one of four sources; mostly it follows the one before.
fn packet(input: &mut Input<'_>, last: &mut [(u32, u32); 4], now_ns: &mut u64) -> PacketHeader {
    let kind = input.u8();
    let of = &mut last[usize::from(kind & 3)];
    *of = match kind >> 2 & 7 {
        0..=3 => (of.0.wrapping_add(1), of.1.wrapping_add(160)),
        4 => (of.0.wrapping_add(input.u8().into()), of.1.wrapping_add(u32::from(input.u8()) * 160)),
        5 => (input.u32(), of.1),
        6 => (of.0, input.u32()),
        _ => (input.u32(), input.u32()),
    };
    *now_ns = match kind >> 5 {
        0..=4 => now_ns.saturating_add(20_000_000),
        5 => now_ns.saturating_add(u64::from(input.u16()) * 1_000_000),
        6 => *now_ns,
        _ => input.u64(),
    };
    let clock_rate = input.one_of(&[8_000, 8_000, 8_000, 8_000, 48_000, 16_000, 0, 1, u32::MAX]);
    let duration_ticks = input.one_of(&[Some(160), Some(160), Some(160), Some(960), Some(0), None, Some(u32::MAX)]);
    PacketHeader {
        track: kind & 1,
        source: kind >> 1 & 1,
        seq: of.0,
        timestamp: of.1,
        arrival_ns: *now_ns,
        clock_rate,
        duration_ticks,
    }
}

/// Positions lie within the track, holes are in order, and nothing is later than the end.
fn check(headers: &[PacketHeader]) {
    let mut timeline = Timeline::new();
    headers.iter().for_each(|header| timeline.observe(header));
    let alignment = timeline.finish();
    assert!(alignment.unplaced() <= headers.len() as u64);
    for header in headers {
        let Some(position) = alignment.position(header) else { continue };
        let (start, end) = alignment.extent(header.track).expect("a track with a packet has an extent");
        assert!((start..=end).contains(&position) && end <= alignment.total_ticks());
    }
    for track in 0..2 {
        let holes = alignment.holes(track);
        assert!(holes.iter().all(|(from, to)| from < to), "a hole without length: {holes:?}");
        assert!(holes.windows(2).all(|pair| pair[0].1 <= pair[1].0), "holes out of order: {holes:?}");
    }
}
