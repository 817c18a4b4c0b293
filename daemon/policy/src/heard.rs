//! What the audio itself says about a recording: it is listened to once, when the archive is made.

use callvault_journal::facts::Flaw;

/// A track is judged from so much audio on, milliseconds. Somebody may well say nothing for ten seconds, but not leave the line without
/// any noise for as long while the other one talks.
pub const LISTENED_MS_MIN: u64 = 10_000;

/// Milliseconds with a signal that a track without one may have: the click of a line that is switched.
const CLICK_MS_MAX: u64 = 100;

/// Milliseconds for which somebody else must have talked: a greeting.
const OTHER_TALKS_MS_MIN: u64 = 1_000;

/// What was heard on a track.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TrackHeard {
    /// Its label.
    pub label: String,
    /// Milliseconds of audio.
    pub audio_ms: u64,
    /// Milliseconds of it without any signal, below -60 dB of full scale.
    pub silent_ms: u64,
    /// Milliseconds of it in which somebody speaks.
    pub active_ms: u64,
}

impl TrackHeard {
    /// Audio came all the time, and nothing is in it.
    fn is_dead(&self) -> bool {
        self.audio_ms >= LISTENED_MS_MIN && self.audio_ms.saturating_sub(self.silent_ms) <= CLICK_MS_MAX
    }
}

/// What makes a recording a degraded one by what is heard on its tracks: `one-leg-silent` for each without any signal while another
/// talks. A line that is dead at the client looks like that; so does somebody who was muted all the time, which cannot be told apart.
pub fn flaws_heard(tracks: &[TrackHeard]) -> Vec<Flaw> {
    let talks = |track: &TrackHeard| track.active_ms >= OTHER_TALKS_MS_MIN;
    if !tracks.iter().any(talks) {
        return Vec::new();
    }
    let dead = tracks.iter().filter(|track| track.is_dead());
    dead.map(|track| Flaw {
        code: "one-leg-silent".to_owned(),
        text: format!("track {}: {} ms of audio came without any sound", track.label, track.audio_ms),
    })
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn track(audio_ms: u64, silent_ms: u64, active_ms: u64) -> TrackHeard {
        TrackHeard { label: "7".to_owned(), audio_ms, silent_ms, active_ms }
    }

    #[track_caller]
    fn check(tracks: &[TrackHeard], dead: usize) {
        let flaws = flaws_heard(tracks);
        assert_eq!(flaws.len(), dead);
        assert!(flaws.iter().all(|flaw| flaw.code == "one-leg-silent" && flaw.text.contains("track 7: ")));
    }

    #[test]
    fn a_leg_is_silent_when_the_other_talks() {
        let talks = track(60_000, 20_000, 30_000);
        check(&[], 0);
        check(&[talks.clone(), track(60_000, 60_000, 0)], 1);
        check(&[track(10_000, 10_000, 0), talks.clone()], 1);
        check(&[talks.clone(), track(60_000, 59_900, 0)], 1);
        check(&[talks.clone(), track(60_000, 59_899, 0)], 0);
        check(&[talks.clone(), track(60_000, 60_000, 0), track(20_000, 20_000, 0)], 2);
        // Too short to say, nothing received at all (which is another flaw), somebody who listens in a room.
        check(&[talks.clone(), track(9_999, 9_999, 0)], 0);
        check(&[talks.clone(), track(0, 0, 0)], 0);
        check(&[talks.clone(), track(60_000, 1_000, 0)], 0);
        // Nobody talks: music on hold at most, or a call in which nobody spoke.
        check(&[track(60_000, 60_000, 0), track(60_000, 60_000, 0)], 0);
        check(&[track(60_000, 60_000, 0), track(60_000, 50_000, 999)], 0);
        check(&[track(60_000, 60_000, 0)], 0);
    }
}
