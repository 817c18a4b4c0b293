//! The waveform of a recording: made of its tracks' peaks while it is archived, kept sealed in the catalogue, shown beside the player.

use callvault_archive::ArchiveTrack;
use callvault_render_protocol::PEAK_PARTS;
use serde_json::{Value, json};

use crate::playback::channels;

/// What the catalogue keeps: the number of channels, then [`PEAK_PARTS`] bytes of each. A channel is as loud as the loudest of its tracks.
/// `None` where no track could be listened to.
pub(crate) fn of(tracks: &[ArchiveTrack], peaks: &[(usize, Vec<u8>)]) -> Option<Vec<u8>> {
    let places = channels(tracks);
    let count = if tracks.len() > 1 { 2 } else { 1 };
    let mut all = vec![0; usize::from(count) * PEAK_PARTS];
    let mut is_any = false;
    for (track, peaks) in peaks.iter().filter(|(_, peaks)| peaks.len() == PEAK_PARTS) {
        let Some(channel) = places.get(*track) else { continue };
        is_any = true;
        for (loudest, peak) in all.iter_mut().skip(usize::from(*channel) * PEAK_PARTS).zip(peaks) {
            *loudest = (*loudest).max(*peak);
        }
    }
    is_any.then(|| [vec![count], all].concat())
}

/// The same as people's programs read it: `{"channels": [[0…100, …], …]}`, `null` for what there is none of or was written in another form.
pub(crate) fn json(kept: Option<&[u8]>) -> Value {
    let channels = kept.and_then(<[u8]>::split_first).and_then(|(count, peaks)| {
        let channels: Vec<&[u8]> = peaks.chunks(PEAK_PARTS).collect();
        let is_whole = (1..=2).contains(count) && peaks.len() == usize::from(*count) * PEAK_PARTS;
        is_whole.then_some(channels)
    });
    json!({"channels": channels})
}

#[cfg(test)]
mod tests {
    use super::*;

    fn track(local: bool) -> ArchiveTrack {
        ArchiveTrack { local, ..ArchiveTrack::default() }
    }

    #[test]
    fn each_party_is_on_its_channel_and_the_loudest_counts() {
        let tracks = [track(false), track(true), track(false)];
        let kept =
            of(&tracks, &[(0, vec![10; PEAK_PARTS]), (1, vec![20; PEAK_PARTS]), (2, vec![30; PEAK_PARTS])]).unwrap();
        let shown = json(Some(&kept));
        assert_eq!(shown, json!({"channels": [vec![20; PEAK_PARTS], vec![30; PEAK_PARTS]]}));
        let alone = of(&[track(true)], &[(0, vec![5; PEAK_PARTS])]).unwrap();
        assert_eq!(json(Some(&alone)), json!({"channels": [vec![5; PEAK_PARTS]]}));
    }

    #[test]
    fn what_nobody_listened_to_has_none() {
        assert_eq!(of(&[track(true)], &[]), None);
        assert_eq!(of(&[track(true)], &[(0, vec![])]), None);
        assert_eq!(of(&[], &[(3, vec![1; PEAK_PARTS])]), None);
    }

    #[test]
    fn what_is_in_another_form_is_none() {
        for kept in [None, Some(b"".as_slice()), Some(b"\x01abc"), Some(b"\x00"), Some(&[3; 1 + 3 * PEAK_PARTS])] {
            assert_eq!(json(kept), json!({"channels": null}));
        }
    }
}
