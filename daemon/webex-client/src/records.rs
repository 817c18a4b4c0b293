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
