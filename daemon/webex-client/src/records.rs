//! Call detail records: the stream of what has come in lately, and the feed of what ended when.

use callvault_webex::{Record, read_page};
use jiff::{SignedDuration, Timestamp};

use crate::{Access, Client, Fault, Outside};

/// Records of one page.
const PAGE: u32 = 500;

/// A request of the stream is of two hours at most, in milliseconds.
pub const STREAM_WINDOW_MS: i64 = 2 * 3600 * 1000;

/// The stream goes back twelve hours; a quarter of an hour of it is left, as clocks differ and requests take time.
pub const STREAM_BACK_MS: i64 = 12 * 3600 * 1000 - 15 * 60 * 1000;

/// A request of the feed is of twelve hours at most, in milliseconds.
pub const FEED_WINDOW_MS: i64 = 12 * 3600 * 1000;

/// The feed goes back thirty days; an hour of it is left.
pub const FEED_BACK_MS: i64 = 30 * 24 * 3600 * 1000 - 3600 * 1000;

/// By how much records are late at most, as a rule, in milliseconds.
const LATE_MS: i64 = 3600 * 1000;

/// Which of the two.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Feed {
    /// By when a record came in at Webex: nothing is passed over, however late it came.
    Stream,
    /// By when the call ended: for what is too old for the stream.
    Feed,
}

impl Feed {
    fn path(self) -> &'static str {
        match self {
            Self::Stream => "cdr_stream",
            Self::Feed => "cdr_feed",
        }
    }

    /// The latest moment that may be asked for at `now`.
    pub fn end_at(self, now: Timestamp) -> Timestamp {
        let behind_s = match self {
            Self::Stream => 60,
            Self::Feed => 5 * 60,
        };
        // A clock that goes a little before Webex's is the usual reason for a refusal.
        now.checked_sub(SignedDuration::from_secs(behind_s + 30)).unwrap_or(Timestamp::MIN)
    }
}

/// What is to be read at `now`, where everything was read up to `read_to` (none: never), in the order in which it is: what is too old for the stream
/// by the feed, the rest by the stream. Empty where it is too early. A clock that went back reads again what it has.
pub fn windows(read_to: Option<Timestamp>, now: Timestamp) -> Vec<(Feed, Timestamp, Timestamp)> {
    let ago = |ms: i64| now.checked_sub(SignedDuration::from_millis(ms)).unwrap_or(Timestamp::MIN);
    let stream_from = ago(STREAM_BACK_MS);
    let mut windows = Vec::new();
    let mut cut = |feed: Feed, from: Timestamp, to: Timestamp, longest_ms: i64| {
        let mut start = from;
        while start < to {
            let end = start.checked_add(SignedDuration::from_millis(longest_ms)).map_or(to, |end| end.min(to));
            windows.push((feed, start, end));
            start = end;
        }
    };
    let read_to = read_to.map(|at| at.min(now));
    if let Some(old) = read_to.filter(|at| *at < stream_from) {
        // A record comes in after its call has ended: those that came in since then are of calls that ended a while before.
        let from = old.checked_sub(SignedDuration::from_millis(LATE_MS)).unwrap_or(Timestamp::MIN);
        cut(Feed::Feed, from.max(ago(FEED_BACK_MS)), stream_from, FEED_WINDOW_MS);
    }
    cut(Feed::Stream, read_to.unwrap_or(stream_from).max(stream_from), Feed::Stream.end_at(now), STREAM_WINDOW_MS);
    windows
}

impl Client {
    /// The records from `start` to `end`, page by page. How many requests it took, and how many records were passed over because they do not
    /// say when the call was.
    ///
    /// # Errors
    /// Where not all of them were had.
    pub fn records(
        &self,
        access: &Access,
        outside: &Outside<'_>,
        (feed, start, end): (Feed, Timestamp, Timestamp),
        take: &mut dyn FnMut(Vec<Record>) -> Result<(), &'static str>,
    ) -> Result<(u64, usize), Fault> {
        let base = self.settings.records_url.trim_end_matches('/');
        let url = format!("{base}/{}?startTime={start:.3}&endTime={end:.3}&max={PAGE}", feed.path());
        let mut passed_over = 0;
        let requests = self.walk(access, outside, &url, &mut |body| {
            let (records, passed) =
                read_page(body).map_err(|_| "the call detail records of Webex have another form than documented")?;
            passed_over += passed;
            take(records)
        })?;
        Ok((requests, passed_over))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_read_after_a_pause() {
        #[track_caller]
        fn check(read_to_min_ago: Option<i64>, expected: &str) {
            let now: Timestamp = "2026-11-23T12:00:00Z".parse().unwrap();
            let ago = |min: i64| now.checked_sub(SignedDuration::from_mins(min)).unwrap();
            let windows = windows(read_to_min_ago.map(ago), now);
            let told = |(feed, start, end): &(Feed, Timestamp, Timestamp)| {
                let minutes = |at: &Timestamp| now.duration_since(*at).as_secs().div_euclid(60);
                format!("{feed:?} {}-{}", minutes(start), minutes(end))
            };
            assert_eq!(windows.iter().map(told).collect::<Vec<_>>().join(", "), expected, "{read_to_min_ago:?}");
        }
        check(Some(0), "");
        check(Some(1), "");
        check(Some(5), "Stream 5-1");
        check(Some(180), "Stream 180-60, Stream 60-1");
        // A clock that went back.
        check(Some(-600), "");
        let stream = "Stream 705-585, Stream 585-465, Stream 465-345, Stream 345-225, Stream 225-105, Stream 105-1";
        check(None, stream);
        check(Some(705), stream);
        check(Some(1_000), &format!("Feed 1060-705, {stream}"));
        check(Some(2_000), &format!("Feed 2060-1340, Feed 1340-705, {stream}"));
        let month = windows(Some(Timestamp::UNIX_EPOCH), "2026-11-23T12:00:00Z".parse().unwrap());
        let feeds = month.iter().filter(|(feed, ..)| *feed == Feed::Feed).count();
        assert_eq!((feeds, month[0].1.to_string().as_str()), (59, "2026-10-24T13:00:00Z"));
    }
}
