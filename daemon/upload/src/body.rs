//! The body of a request that carries audio: of a length that is known, in small pieces, counted as they leave, so that a stall can
//! be told from a slow line.

use std::collections::VecDeque;
use std::io::Read;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::thread;

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use tokio::sync::mpsc;

use crate::audio::{Audio, Prepared};
use crate::trouble::Trouble;

/// Bytes that are handed to the connection at once.
const PIECE_BYTES: usize = 32 * 1024;

/// Blocks of audio that may wait for a slow line.
const BLOCKS_MAX: usize = 4;

/// Pieces that are at hand, and those that are still being made.
pub(crate) struct AudioBody {
    ready: VecDeque<Bytes>,
    coming: Option<mpsc::Receiver<Result<Bytes, Trouble>>>,
    left: u64,
    sent: Arc<AtomicU64>,
}

impl AudioBody {
    /// The audio, with these bytes before and behind it. `sent` counts what has left. Where the audio was not kept it is made again,
    /// on a thread of its own that ends with the body.
    pub(crate) fn new(
        audio: &Arc<dyn Audio>,
        prepared: &Prepared,
        before: Bytes,
        behind: Bytes,
        sent: Arc<AtomicU64>,
    ) -> Result<Self, Trouble> {
        let left = prepared.bytes.saturating_add(before.len() as u64).saturating_add(behind.len() as u64);
        let mut ready = VecDeque::from([before]);
        let mut coming = None;
        match prepared.kept() {
            Some(kept) => ready.extend([kept.clone(), behind]),
            None => coming = Some(replay(audio.open()?, prepared, behind)?),
        }
        Ok(Self { ready, coming, left, sent })
    }
}

fn replay(
    mut reader: Box<dyn Read + Send>,
    prepared: &Prepared,
    behind: Bytes,
) -> Result<mpsc::Receiver<Result<Bytes, Trouble>>, Trouble> {
    let (to, coming) = mpsc::channel(BLOCKS_MAX);
    let (bytes, sha256) = (prepared.bytes, prepared.sha256);
    let run = move || {
        let result = Prepared::replay(bytes, &sha256, &mut *reader, |block| {
            // Nobody there any more: the request was broken off.
            to.blocking_send(Ok(block)).map_err(|_| Trouble::Stopping)
        });
        let _ = to.blocking_send(result.map(|()| behind));
    };
    let spawned = thread::Builder::new().name("upload-audio".into()).spawn(run);
    spawned.map_err(|error| Trouble::Recording(format!("start a thread for the audio: {error}")))?;
    Ok(coming)
}

impl http_body::Body for AudioBody {
    type Data = Bytes;
    type Error = Trouble;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Trouble>>> {
        let this = &mut *self;
        loop {
            if let Some(mut block) = this.ready.pop_front() {
                if block.is_empty() {
                    continue;
                }
                let piece = block.split_to(block.len().min(PIECE_BYTES));
                this.ready.push_front(block);
                this.left = this.left.saturating_sub(piece.len() as u64);
                this.sent.fetch_add(piece.len() as u64, Ordering::Relaxed);
                return Poll::Ready(Some(Ok(Frame::data(piece))));
            }
            let Some(coming) = &mut this.coming else { return Poll::Ready(None) };
            match coming.poll_recv(context) {
                Poll::Ready(Some(Ok(block))) => this.ready.push_back(block),
                Poll::Ready(Some(Err(trouble))) => return Poll::Ready(Some(Err(trouble))),
                Poll::Ready(None) => this.coming = None,
                Poll::Pending => return Poll::Pending,
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}
