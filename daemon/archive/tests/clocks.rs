//! Senders whose clocks differ from ours and from each other: what is corrected, what is left alone, and what sender reports add.
#![allow(clippy::unwrap_used)]

use callvault_archive::timeline::{Alignment, PacketHeader, ReportHeader, STEP_TICKS, Timeline};

const MS: u64 = 1_000_000;
const SECOND: u64 = 1_000 * MS;
const TICKS_PER_MS: i64 = 48;
/// Our clock when the call begins.
const BEGIN: u64 = 50 * SECOND;

/// A sender of 20 ms packets and the path from it.
#[derive(Debug, Clone, Copy)]
struct Sender {
    clock_rate: u32,
    seconds: u64,
    /// How fast its clock is, in millionths, at the beginning and at the end.
    ppm: (i64, i64),
    delay_ms: u64,
    jitter_ms: u64,
    burst_ms: u64,
    /// The path becomes longer by `.1` ms (negative: shorter) after `.0` seconds.
    route: (u64, i64),
    /// Speech and silence in seconds, when it sends nothing in silence.
    talk_s: (u64, u64),
}

const STEADY: Sender = Sender {
    clock_rate: 8_000,
    seconds: 3_600,
    ppm: (0, 0),
    delay_ms: 50,
    jitter_ms: 20,
    burst_ms: 60,
    route: (u64::MAX, 0),
    talk_s: (1, 0),
};

/// A packet and when it was sent, by our clock.
type Sent = (PacketHeader, u64);

/// Numbers that look like chance, the same each time.
struct Chance(u64);

impl Chance {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        if bound == 0 { 0 } else { self.0 % bound }
    }
}

impl Sender {
    fn at(ppm: i64) -> Self {
        Self { ppm: (ppm, ppm), ..STEADY }
    }

    fn packets(self, track: u8) -> Vec<Sent> {
        let mut chance = Chance(0x9e37_79b9_7f4a_7c15 + u64::from(track));
        let (mut sent_ns, mut arrived_ns, mut all, mut seq) = (BEGIN, 0, Vec::new(), 65_536);
        let count = self.seconds * 50;
        for number in 0..count {
            let ppm = self.ppm.0 + (self.ppm.1 - self.ppm.0) * number as i64 / count as i64;
            let (second, (talk, silence)) = (number / 50, self.talk_s);
            let is_burst = number / 13 % 17 == 0;
            let jitter_ms = if is_burst { self.burst_ms } else { self.jitter_ms };
            let route_ms = if second >= self.route.0 { self.route.1 } else { 0 };
            let delay_ns =
                (self.delay_ms * MS).saturating_add_signed(route_ms * MS as i64) + chance.below(jitter_ms * MS);
            if second % (talk + silence) < talk {
                arrived_ns = (sent_ns + delay_ns).max(arrived_ns + 1);
                let step = self.clock_rate / 50;
                let header = PacketHeader {
                    track,
                    source: 0,
                    seq,
                    timestamp: (number as u32).wrapping_mul(step).wrapping_add(0xfff0_0000),
                    arrival_ns: arrived_ns,
                    clock_rate: self.clock_rate,
                    duration_ticks: Some(step),
                };
                seq += 1;
                all.push((header, sent_ns));
            }
            sent_ns = (sent_ns + 20 * MS).saturating_add_signed(-20 * ppm);
        }
        all
    }
}

fn align(tracks: &[Vec<Sent>], reports: &[ReportHeader]) -> Alignment {
    let mut all: Vec<_> = tracks.iter().flatten().collect();
    all.sort_by_key(|(header, _)| header.arrival_ns);
    let mut timeline = Timeline::new();
    all.iter().for_each(|(header, _)| timeline.observe(header));
    reports.iter().for_each(|report| timeline.observe_report(report));
    timeline.finish()
}

/// Where a track's packets are, against when they were sent, in ticks: the least and the most.
fn errors(alignment: &Alignment, track: &[Sent]) -> (i64, i64) {
    let error = |(header, sent_ns): &Sent| {
        let truth = (sent_ns - BEGIN) as i64 * TICKS_PER_MS / MS as i64;
        alignment.position(header).unwrap() as i64 - truth
    };
    let errors = || track.iter().map(error);
    (errors().min().unwrap(), errors().max().unwrap())
}

/// The tracks are within 20 ms of the truth and of each other from beginning to end, and no packet is off its predecessor's end by more
/// than a step.
#[track_caller]
fn check_together(senders: &[Sender]) {
    let tracks: Vec<_> = (0..).zip(senders).map(|(number, sender)| sender.packets(number)).collect();
    let alignment = align(&tracks, &[]);
    let errors: Vec<_> = tracks.iter().map(|track| errors(&alignment, track)).collect();
    let (least, most) = (errors.iter().map(|e| e.0).min().unwrap(), errors.iter().map(|e| e.1).max().unwrap());
    assert!(least >= -20 * TICKS_PER_MS && most <= 20 * TICKS_PER_MS, "{errors:?} of {senders:?}");
    assert!(most - least <= 20 * TICKS_PER_MS, "{errors:?} of {senders:?}");
    for track in &tracks {
        for pair in track.windows(2).filter(|pair| pair[1].1 - pair[0].1 < 30 * MS) {
            let [one, other] = [0, 1].map(|place| alignment.position(&pair[place].0).unwrap());
            assert!((other - one).abs_diff(960) <= STEP_TICKS, "{senders:?}: from {one} to {other}");
        }
    }
}

#[test]
fn tracks_do_not_slide_apart() {
    check_together(&[Sender::at(300), Sender::at(-300)]);
    check_together(&[Sender::at(-300), Sender::at(0)]);
    check_together(&[Sender::at(300), Sender { clock_rate: 48_000, ..Sender::at(-120) }]);
    // For two minutes, and for three hours, which are more windows than are kept.
    check_together(&[Sender { seconds: 120, ..Sender::at(300) }, Sender { seconds: 120, ..Sender::at(-300) }]);
    check_together(&[Sender { seconds: 11_000, ..Sender::at(300) }, Sender { seconds: 11_000, ..Sender::at(-300) }]);
    // They send nothing in silence.
    check_together(&[Sender { talk_s: (2, 3), ..Sender::at(300) }, Sender { talk_s: (4, 9), ..Sender::at(-250) }]);
    // A clock that is steered.
    check_together(&[Sender { ppm: (50, 300), seconds: 7_200, ..STEADY }, Sender::at(-300)]);
}

#[test]
fn a_longer_path_is_no_drift() {
    for second in [100, 1_500] {
        check_together(&[Sender { route: (second, 40), ..Sender::at(300) }, Sender::at(-300)]);
        check_together(&[Sender { route: (second, 40), ..Sender::at(0) }, Sender::at(0)]);
    }
    let short = |ppm| Sender { seconds: 300, ..Sender::at(ppm) };
    check_together(&[Sender { route: (150, 40), ..short(0) }, short(300)]);
    // Alone it changes no position.
    check_exact(Sender { route: (150, 40), ..short(0) });
    check_exact(Sender { route: (1_700, 40), ..Sender::at(10) });
    check_exact(Sender { route: (1_700, -40), ..Sender::at(-10) });
}

#[track_caller]
fn check_exact(sender: Sender) {
    let track = sender.packets(0);
    let alignment = align(std::slice::from_ref(&track), &[]);
    for (header, _) in &track {
        let exact = u64::from(header.timestamp.wrapping_sub(0xfff0_0000)) * 48_000 / u64::from(sender.clock_rate);
        assert_eq!(alignment.position(header), Some(exact), "{sender:?}");
    }
}

#[test]
fn ordinary_clocks_are_left_alone() {
    for ppm in [0, 10, -20, 20] {
        check_exact(Sender::at(ppm));
        check_exact(Sender { seconds: 60, ..Sender::at(ppm) });
        check_exact(Sender { talk_s: (1, 4), ..Sender::at(ppm) });
        check_exact(Sender { jitter_ms: 60, burst_ms: 150, seconds: 600, ..Sender::at(ppm) });
    }
    // A queue that grows and goes is no clock either.
    check_exact(Sender { seconds: 40, jitter_ms: 120, ..STEADY });
}

#[test]
fn what_adds_up_is_corrected_however_slowly() {
    // 144 ms in two hours.
    check_together(&[Sender { seconds: 7_200, ..Sender::at(20) }, Sender { seconds: 7_200, ..Sender::at(-20) }]);
}

#[test]
fn the_skew_is_told_when_it_can_be_known() {
    let told = |sender: Sender| align(&[sender.packets(0)], &[]).clock_skew_ppm(0);
    let check = |ppm: i64, tolerance: i64, sender: Sender| {
        let told = told(Sender { ppm: (ppm, ppm), ..sender }).unwrap();
        assert!((i64::from(told) - ppm).abs() <= tolerance, "{told} of {ppm}");
    };
    for ppm in [0, 7, -20, 90, -300, 300] {
        check(ppm, 1, STEADY);
        check(ppm, 8, Sender { seconds: 400, ..STEADY });
    }
    assert_eq!(told(Sender { seconds: 200, ..Sender::at(300) }), None);
    assert_eq!(align(&[], &[]).clock_skew_ppm(0), None);
}

/// Seconds from 1900 to some day.
const NTP: u64 = 3_900_000_000 << 32;

/// The reports of a sender, one each 30 s, by a clock that shows `NTP` when the call begins and is `ppm` fast.
fn reports(track: u8, sender: Sender, clock: u64, ppm: u64) -> Vec<ReportHeader> {
    let of_track = sender.packets(track);
    let report = |(header, sent_ns): &Sent| {
        let since_ns = sent_ns - BEGIN;
        let shown_ns = u128::from(since_ns + since_ns / 1_000_000 * ppm);
        let ntp = NTP + u64::try_from((shown_ns << 32) / u128::from(SECOND)).unwrap();
        let arrival_ns = header.arrival_ns + 3 * MS;
        ReportHeader { track, source: 0, ntp, timestamp: header.timestamp, arrival_ns, clock }
    };
    of_track.iter().skip(7 + usize::from(track)).step_by(1_500).map(report).collect()
}

/// Track 0 comes over a path of 50 ms, track 1 over one of 130; with what `change` makes of track 1's reports, that one is `late_ms` late.
#[track_caller]
fn check_reports(change: impl Fn(usize, &mut ReportHeader), late_ms: i64, ignored: bool) {
    let one = Sender { seconds: 900, ..STEADY };
    let other = Sender { delay_ms: 130, ..one };
    let tracks = [one.packets(0), other.packets(1)];
    let mut later = reports(1, other, 9, 100);
    later.iter_mut().enumerate().for_each(|(number, report)| change(number, report));
    let alignment = align(&tracks, &[reports(0, one, 9, 100), later].concat());
    let late = errors(&alignment, &tracks[1]).0 - errors(&alignment, &tracks[0]).0;
    assert!((late - late_ms * TICKS_PER_MS).abs() <= 10 * TICKS_PER_MS, "{late} ticks late");
    assert_eq!((alignment.reports_ignored(0), alignment.reports_ignored(1)), (false, ignored));
}

#[test]
fn reports_of_one_clock_align_tracks_whose_paths_differ() {
    check_reports(|_, _| {}, 0, false);
    // Of other clocks, of none, of a clock that nobody named.
    check_reports(|_, report| report.clock = 8, 80, false);
    check_reports(|_, report| report.clock = 0, 80, false);
    check_reports(|_, report| report.ntp = 0, 80, false);
    // A single one is enough, and one that is wrong among many changes nothing.
    check_reports(|number, report| report.clock *= u64::from(number == 3), 0, false);
    check_reports(|number, report| report.timestamp ^= u32::from(number == 3) << 30, 0, false);
}

#[test]
fn a_segment_without_reports_is_on_the_path_of_its_track() {
    let one = Sender { seconds: 300, ..STEADY };
    let other = Sender { delay_ms: 130, ..one };
    let mut tracks = [one.packets(0), other.packets(1)];
    // Its timestamps begin anew before the last minute, in which no report comes.
    tracks[1]
        .iter_mut()
        .skip(240 * 50)
        .for_each(|(header, _)| header.timestamp = header.timestamp.wrapping_add(1 << 30));
    let until = |report: &ReportHeader| report.arrival_ns < BEGIN + 239 * SECOND;
    let reports: Vec<_> = [reports(0, one, 9, 0), reports(1, other, 9, 0)].concat();
    let alignment = align(&tracks, &reports.into_iter().filter(until).collect::<Vec<_>>());
    let errors = [0, 1].map(|track: usize| errors(&alignment, &tracks[track]));
    assert!(errors.iter().all(|(least, most)| *least >= 0 && *most <= 10 * TICKS_PER_MS), "{errors:?}");
}

#[test]
fn reports_that_cannot_be_true_are_ignored() {
    // The packets were renewed on the way and the reports were not.
    check_reports(|_, report| report.timestamp = report.timestamp.wrapping_add(0x1234_5678), 80, true);
    check_reports(|_, report| report.timestamp = report.timestamp.wrapping_add(9_000), 80, true);
    check_reports(|_, report| report.timestamp = 0, 80, true);
    // The clock jumps to and fro, or is another one of the same name.
    check_reports(|number, report| report.ntp += (number as u64 % 2) << 31, 80, true);
    check_reports(|_, report| report.ntp = report.ntp.wrapping_sub(2 << 32), 80, true);
    check_reports(|number, report| report.ntp = report.ntp.wrapping_mul(number as u64 * 7_919 + 1), 80, true);
}

#[test]
fn reports_and_skew_go_together() {
    let one = Sender::at(300);
    let other = Sender { delay_ms: 150, ..Sender::at(-300) };
    let tracks = [one.packets(0), other.packets(1)];
    let alignment = align(&tracks, &[reports(0, one, 9, 0), reports(1, other, 9, 0)].concat());
    let errors = [0, 1].map(|track: usize| errors(&alignment, &tracks[track]));
    let (least, most) = (errors[0].0.min(errors[1].0), errors[0].1.max(errors[1].1));
    assert!(least >= -20 * TICKS_PER_MS && most <= 20 * TICKS_PER_MS, "{errors:?}");
}

#[test]
fn the_same_ssrc_and_timestamps_on_two_tracks_are_two_sources() {
    let tracks = [STEADY.packets(0), Sender { delay_ms: 350, ..STEADY }.packets(1)];
    let alignment = align(&tracks, &[]);
    assert_eq!(errors(&alignment, &tracks[0]), (0, 0));
    assert_eq!(errors(&alignment, &tracks[1]), (300 * TICKS_PER_MS, 300 * TICKS_PER_MS));
}
