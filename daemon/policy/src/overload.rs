//! Who gives way when the machine cannot do everything: capture first, then answering, then playing, then archiving, then exports.
//!
//! The order is kept in two ways. Each kind of work has a *niceness*, so that the kernel lets the earlier ones go first whenever both
//! could run. And what the recorder says of itself is watched: when it is in trouble, later work is not even begun until it has been
//! well for a while, since what runs already still takes memory bandwidth, caches and the disk.

use std::time::Duration;

/// Kinds of work, the most important first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rank {
    /// Taking packets and writing them down.
    Capture,
    /// Answering clients and deciding about their calls.
    Answering,
    /// Playing to people, who wait for it.
    Playing,
    /// From the journal to the archive, and what keeps the disks in order.
    Archive,
    /// Giving recordings out: uploads, webhooks, mails, moves to another store.
    Exports,
}

impl Rank {
    /// The niceness of threads that do this work, as setpriority(2) takes it. Each step of five gives a third of the processor's time.
    pub const fn niceness(self) -> i32 {
        match self {
            Self::Capture | Self::Answering => 0,
            Self::Playing => 5,
            Self::Archive => 10,
            Self::Exports => 15,
        }
    }
}

/// Counters of the recorder since the daemon's start, and how it is now.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Signs {
    /// Packets that were thrown away because the journal did not follow.
    pub dropped: u64,
    /// The journal cannot be written as fast as calls come in; new calls are refused for it.
    pub behind: bool,
    /// INVITEs that were refused because they came too fast.
    pub too_fast: u64,
    /// Deaths of the recorder, by its own fault or because it stood still.
    pub deaths: u64,
}

/// What is strained.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Strain {
    /// Nothing.
    #[default]
    None,
    /// Clients are turned away for their number.
    Answering,
    /// Audio is lost, or nearly.
    Capture,
}

impl Strain {
    /// Every value.
    pub const ALL: [Self; 3] = [Self::None, Self::Answering, Self::Capture];

    /// Its name in metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Answering => "answering",
            Self::Capture => "capture",
        }
    }

    /// How many archives may be begun at once, of those that are configured.
    pub fn archives(self, parallel: usize) -> usize {
        match self {
            Self::None => parallel,
            Self::Answering => parallel.min(1),
            Self::Capture => 0,
        }
    }

    /// Whether an export may be begun. Archiving comes first also where the journal's disk is about to be full.
    pub fn exports(self, disk_is_filling: bool) -> bool {
        self == Self::None && !disk_is_filling
    }
}

/// So long a strain is remembered after its last sign: work that comes back at once would bring it back as well.
pub const CALM_AFTER: Duration = Duration::from_secs(10);

/// What was seen of the recorder, and what follows.
#[derive(Debug, Clone, Default)]
pub struct Overload {
    last: Option<Signs>,
    /// What was strained, and when that showed last.
    strained: Option<(Strain, Duration)>,
}

impl Overload {
    /// Looks at the signs at a moment of a clock that does not jump back; what is strained now.
    ///
    /// The first look finds only what is so now: counters may have risen long before. Counters that fell are those of another process and
    /// begin anew.
    pub fn see(&mut self, at: Duration, signs: Signs) -> Strain {
        let before = self.last.replace(signs).unwrap_or(signs);
        let shown = if signs.behind || signs.dropped > before.dropped || signs.deaths > before.deaths {
            Strain::Capture
        } else if signs.too_fast > before.too_fast {
            Strain::Answering
        } else {
            Strain::None
        };
        let remembered = self.strained.filter(|(_, seen)| at.saturating_sub(*seen) < CALM_AFTER);
        self.strained = match (shown, remembered) {
            (Strain::None, remembered) => remembered,
            // A lesser sign does not end a greater strain early, nor make it last.
            (shown, Some((strain, seen))) if strain > shown => Some((strain, seen)),
            (shown, _) => Some((shown, at)),
        };
        self.strained.map_or(Strain::None, |(strain, _)| strain)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{Overload, Rank, Signs, Strain};

    const WELL: Signs = Signs { dropped: 7, behind: false, too_fast: 3, deaths: 1 };

    /// What each look finds, at its second.
    fn check(looks: &[(u64, Signs, Strain)]) {
        let mut overload = Overload::default();
        for (at_s, signs, strain) in looks {
            assert_eq!(overload.see(Duration::from_secs(*at_s), *signs), *strain, "at {at_s} s of {looks:?}");
        }
    }

    #[test]
    fn what_was_counted_before_the_first_look_is_no_strain() {
        check(&[(0, WELL, Strain::None), (1, WELL, Strain::None)]);
    }

    #[test]
    fn each_sign_shows_its_strain_until_it_has_been_calm_for_a_while() {
        let too_fast = Signs { too_fast: 4, ..WELL };
        check(&[
            (0, WELL, Strain::None),
            (1, too_fast, Strain::Answering),
            (10, too_fast, Strain::Answering),
            (11, too_fast, Strain::None),
        ]);
        let dropped = Signs { dropped: 8, ..WELL };
        check(&[
            (0, WELL, Strain::None),
            (1, dropped, Strain::Capture),
            (10, dropped, Strain::Capture),
            (11, dropped, Strain::None),
        ]);
        let died = Signs { deaths: 2, ..WELL };
        check(&[(0, WELL, Strain::None), (1, died, Strain::Capture)]);
    }

    #[test]
    fn a_journal_that_is_behind_is_a_strain_for_as_long_as_it_is() {
        let behind = Signs { behind: true, ..WELL };
        check(&[
            (0, behind, Strain::Capture),
            (60, behind, Strain::Capture),
            (69, WELL, Strain::Capture),
            (70, WELL, Strain::None),
        ]);
    }

    #[test]
    fn a_lesser_sign_does_not_hide_a_greater_strain_and_outlasts_it() {
        let dropped = Signs { dropped: 8, ..WELL };
        let both = Signs { too_fast: 4, ..dropped };
        let more = Signs { too_fast: 5, ..dropped };
        check(&[
            (0, WELL, Strain::None),
            (1, dropped, Strain::Capture),
            (5, both, Strain::Capture),
            (12, more, Strain::Answering),
            (22, more, Strain::None),
        ]);
    }

    #[test]
    fn counters_that_begin_anew_are_no_sign() {
        check(&[
            (0, WELL, Strain::None),
            (1, Signs::default(), Strain::None),
            (2, Signs { dropped: 1, ..Signs::default() }, Strain::Capture),
        ]);
    }

    #[test]
    fn work_gives_way_in_the_order_of_its_rank() {
        let check = |strain: Strain, parallel: usize, archives: usize, exports: bool| {
            assert_eq!((strain.archives(parallel), strain.exports(false)), (archives, exports), "{strain:?}");
        };
        check(Strain::None, 4, 4, true);
        check(Strain::Answering, 4, 1, false);
        check(Strain::Answering, 1, 1, false);
        check(Strain::Capture, 4, 0, false);
        assert!(!Strain::None.exports(true), "a disk that is about to be full needs its archives first");
        let ranks = [Rank::Capture, Rank::Answering, Rank::Playing, Rank::Archive, Rank::Exports];
        assert!(ranks.is_sorted_by(|a, b| a < b && a.niceness() <= b.niceness()));
        assert!(
            Rank::Answering.niceness() < Rank::Playing.niceness()
                && Rank::Playing.niceness() < Rank::Archive.niceness()
                && Rank::Archive.niceness() < Rank::Exports.niceness()
        );
    }
}
