//! The tracks of a recording as an archive lists them.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use callvault_archive::timeline::Alignment;
use callvault_archive::{ArchiveCodec, ArchiveTrack};
use callvault_journal::facts::SessionEvent;

use crate::sound::TICKS_PER_SECOND;
use crate::walk::CodecTable;

/// Place of each (track, codec as met) among the listed tracks and their codecs.
pub(crate) type Places = HashMap<(u8, u8), (u8, u8)>;

/// From where to where, in ticks.
type Stretch = (u64, u64);

/// By how much signalling and audio of a pause may differ.
const EDGE_TICKS: u64 = TICKS_PER_SECOND;

/// The tracks as an archive lists them: only codecs that were heard, since the highest rate among them is that of the output.
pub(crate) fn tracks(
    table: &CodecTable,
    heard: &BTreeMap<(u8, u8), u64>,
    alignment: &Alignment,
    events: &[SessionEvent],
) -> (Vec<ArchiveTrack>, Places) {
    let mut tracks = Vec::new();
    let mut places = Places::new();
    let call = callvault_policy::fold_call(events);
    for (&number, known) in &table.tracks {
        let mut codecs = Vec::new();
        for (&(_, met), _) in heard.range((number, 0)..=(number, u8::MAX)) {
            if let (Some(codec), Ok(track), Ok(place)) =
                (known.codecs.get(usize::from(met)), u8::try_from(tracks.len()), u8::try_from(codecs.len()))
            {
                places.insert((number, met), (track, place));
                codecs.push(ArchiveCodec {
                    encoding: codec.encoding.clone(),
                    clock_rate: codec.clock_rate,
                    channels: codec.channels,
                    fmtp: codec.fmtp.clone(),
                    pre_skip: 0,
                });
            }
        }
        let label = &known.facts.label;
        let speaker = std::iter::once(&call.local)
            .chain(&call.remotes)
            .find(|p| p.labels.contains(label))
            .and_then(|p| p.name.clone().or_else(|| p.number.clone()));
        let pauses = pauses_of(events, number, alignment);
        let holes = outside(alignment.holes(number), &pauses);
        tracks.push(ArchiveTrack {
            label: label.clone(),
            participant: speaker.map(Into::into),
            local: known.facts.local,
            codecs,
            holes,
            pauses,
        });
    }
    (tracks, places)
}

/// The pauses of a track, in ticks. The client's and those by control overlap freely: it is paused while any of them lasts.
fn pauses_of(events: &[SessionEvent], track: u8, alignment: &Alignment) -> Vec<Stretch> {
    let mut pauses = Vec::new();
    let mut paused_by: BTreeSet<&str> = BTreeSet::new();
    let mut since: Option<u64> = None;
    let end = alignment.total_ticks();
    let ticks = |at_ns: u64| (at_ns.saturating_sub(alignment.start_ns()) / 1_000).saturating_mul(48) / 1_000;
    for event in events {
        let (pause, begins) = match event {
            SessionEvent::Paused(pause) => (pause, true),
            SessionEvent::Resumed(pause) => (pause, false),
            _ => continue,
        };
        // What is said of all tracks is said of each of them.
        if pause.track.is_some_and(|number| number != track) {
            continue;
        }
        if begins {
            paused_by.insert(&pause.by);
        } else {
            paused_by.remove(pause.by.as_str());
        }
        let at = ticks(pause.at_ns).min(end);
        match (since, paused_by.is_empty()) {
            (None, false) => since = Some(at),
            (Some(from), true) => {
                pauses.push((from, at));
                since = None;
            }
            _ => {}
        }
    }
    pauses.extend(since.map(|from| (from, end)));
    pauses.retain(|(from, to)| to > from);
    pauses
}

/// Takes from the holes what lies in a pause: that is there on purpose. A rest of less than [`EDGE_TICKS`] is the difference
/// between the signalling and the audio, not a loss.
fn outside(holes: Vec<Stretch>, pauses: &[Stretch]) -> Vec<Stretch> {
    let mut left = holes;
    for &(from, to) in pauses {
        left = left
            .into_iter()
            .flat_map(|(start, end)| {
                if end <= from || to <= start {
                    return [Some((start, end)), None];
                }
                let rest = |start: u64, end: u64| (end.saturating_sub(start) >= EDGE_TICKS).then_some((start, end));
                [rest(start, from), rest(to, end)]
            })
            .flatten()
            .collect();
    }
    left
}

#[cfg(test)]
mod tests {
    use super::{Stretch, outside};

    const S: u64 = 48_000;

    #[track_caller]
    fn check(holes: &[Stretch], pauses: &[Stretch], left: &[Stretch]) {
        assert_eq!(outside(holes.to_vec(), pauses), left);
    }

    #[test]
    fn what_lies_in_a_pause_is_no_loss() {
        check(&[], &[(0, S)], &[]);
        check(&[(S, 2 * S)], &[], &[(S, 2 * S)]);
        check(&[(S, 2 * S)], &[(2 * S, 9 * S)], &[(S, 2 * S)]);
        check(&[(S, 2 * S)], &[(0, 9 * S)], &[]);
        // The audio stopped a little before the pause was signalled.
        check(&[(4 * S, 7 * S)], &[(4 * S + 2_000, 7 * S + 960)], &[]);
        // Ten seconds are missing of which one was a pause.
        check(&[(0, 10 * S)], &[(4 * S, 5 * S)], &[(0, 4 * S), (5 * S, 10 * S)]);
        check(&[(0, 10 * S)], &[(2 * S, 3 * S), (6 * S, 9 * S)], &[(0, 2 * S), (3 * S, 6 * S), (9 * S, 10 * S)]);
    }
}
