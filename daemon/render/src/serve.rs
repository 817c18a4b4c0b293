//! The conversation: jobs from the input, results to the output.

use std::io::{Read, Write};

use callvault_render_protocol::{FromRender, Job, Packet, RenderError, Stats, ToRender, read_frame, write_frame};

use crate::error::JobError;
use crate::foreign::Foreign;
use crate::job::Run;

/// Serves one job after another until the input ends between two of them.
///
/// # Errors
/// When the input is not the conversation that the protocol describes, ends within a job, or the output cannot be written. A job
/// that fails by itself is no error: the other side is told, and the next job is served.
pub fn serve<R: Read, W: Write>(input: &mut R, output: &mut W) -> Result<(), RenderError> {
    let mut input = Input { reader: input, scratch: Vec::new(), at_end_of_job: true };
    let mut output = Output { writer: output, scratch: Vec::new() };
    while let Some(message) = input.next()? {
        let ToRender::Job(job) = message else {
            return Err(RenderError::Malformed("a packet or an end without a job"));
        };
        input.at_end_of_job = false;
        let last = match serve_job(job, &mut input, &mut output) {
            Ok(stats) => FromRender::Done(stats),
            Err(JobError::GivenUp { kind, text }) => FromRender::Failed { kind, text },
            Err(JobError::Pipe(error)) => return Err(error),
        };
        output.send(&last)?;
        output.writer.flush()?;
        if !input.at_end_of_job {
            input.skip_job()?;
        }
    }
    Ok(())
}

fn serve_job<R: Read, W: Write>(
    mut job: Job,
    input: &mut Input<'_, R>,
    output: &mut Output<'_, W>,
) -> Result<Stats, JobError> {
    let mut emit = |message: FromRender| output.send(&message).map_err(JobError::from);
    let mut foreign = Foreign::new(&mut job);
    let mut run = Run::new(job, &mut emit)?;
    while let Some(packet) = input.packet()? {
        match &mut foreign {
            None => run.packet(&packet, &mut emit)?,
            Some(foreign) => foreign.take(packet).iter().try_for_each(|packet| run.packet(packet, &mut emit))?,
        }
    }
    for packet in foreign.iter_mut().flat_map(Foreign::finish) {
        run.packet(&packet, &mut emit)?;
    }
    run.finish(&mut emit)
}

struct Input<'a, R> {
    reader: &'a mut R,
    scratch: Vec<u8>,
    at_end_of_job: bool,
}

impl<R: Read> Input<'_, R> {
    fn next(&mut self) -> Result<Option<ToRender>, RenderError> {
        read_frame(self.reader, &mut self.scratch)
    }

    /// The job's next packet; `None` after its last.
    fn packet(&mut self) -> Result<Option<Packet>, RenderError> {
        match self.next()? {
            Some(ToRender::Packet(packet)) => Ok(Some(packet)),
            Some(ToRender::End) => {
                self.at_end_of_job = true;
                Ok(None)
            }
            Some(ToRender::Job(_)) => Err(RenderError::Malformed("a job within a job")),
            None => Err(RenderError::Truncated),
        }
    }

    /// Reads on to the end of a job that was given up.
    fn skip_job(&mut self) -> Result<(), RenderError> {
        while self.packet()?.is_some() {}
        Ok(())
    }
}

struct Output<'a, W> {
    writer: &'a mut W,
    scratch: Vec<u8>,
}

impl<W: Write> Output<'_, W> {
    fn send(&mut self, message: &FromRender) -> Result<(), RenderError> {
        write_frame(self.writer, message, &mut self.scratch)
    }
}
