//! What comes from the render process: frames in a pipe, read as a whole and in pieces.

use std::fmt::Debug;

use callvault_render_protocol::{
    FRAME_BYTES_MAX, FrameBuffer, FromRender, RenderError, ToRender, read_frame, write_frame,
};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Reads the input as what goes in either direction.
pub fn run(input: &[u8]) {
    check::<FromRender>(input);
    for message in check::<ToRender>(input) {
        if let ToRender::Job(job) = message {
            let _ = (job.check(), job.ticks());
            let _ = job.tracks.iter().flat_map(|track| &track.codecs).filter_map(|codec| codec.audio_rate()).max();
        }
    }
}

/// Both readers read the same messages, and those are the same when they are written.
fn check<M: Serialize + DeserializeOwned + PartialEq + Debug>(input: &[u8]) -> Vec<M> {
    let (messages, ended) = read_whole::<M>(input);
    let (pieces, broken, rest) = read_pieces::<M>(input);
    assert!(messages == pieces, "the two readers read different messages");
    match ended {
        Ok(()) => assert!(!broken && !rest),
        Err(RenderError::Truncated) => assert!(!broken && rest),
        Err(_) => assert!(broken),
    }
    let (mut written, mut scratch) = (Vec::new(), Vec::new());
    for message in &messages {
        write_frame(&mut written, message, &mut scratch).expect("what was read within the limit can be written");
    }
    assert!(written.len() <= messages.len() * (FRAME_BYTES_MAX + 4));
    assert!(read_whole::<M>(&written).0 == messages, "a message changed on the way");
    messages
}

fn read_whole<M: DeserializeOwned>(mut input: &[u8]) -> (Vec<M>, Result<(), RenderError>) {
    let (mut messages, mut scratch) = (Vec::new(), Vec::new());
    loop {
        match read_frame(&mut input, &mut scratch) {
            Ok(Some(message)) => messages.push(message),
            Ok(None) => return (messages, Ok(())),
            Err(error) => return (messages, Err(error)),
        }
    }
}

/// The messages, whether the stream is broken, and whether it ends within a message.
fn read_pieces<M: DeserializeOwned>(input: &[u8]) -> (Vec<M>, bool, bool) {
    let (mut buffer, mut messages) = (FrameBuffer::default(), Vec::new());
    for piece in input.chunks(1 + input.len() % 37) {
        buffer.extend(piece);
        loop {
            match buffer.next() {
                Ok(Some(message)) => messages.push(message),
                Ok(None) => break,
                Err(_) => return (messages, true, !buffer.is_empty()),
            }
        }
    }
    (messages, false, !buffer.is_empty())
}
