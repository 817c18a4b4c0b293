//! A render process that is kept between jobs. To start one costs some milliseconds and its memory anew; to keep one for ever would let
//! grow what a codec library does not give back, and would give one call's bytes all the time in the world to work on the next calls.

use std::time::Duration;

use callvault_render_protocol::{Limits, RenderError, Renderer};

use crate::appliance::Appliance;
use crate::playback;

/// So many jobs one process does. At five milliseconds for a start and half a second for a job, starting is far below a thousandth.
const JOBS_MAX: u32 = 200;

/// A worker's own render process, when there is one.
#[derive(Default)]
pub(crate) struct Warm {
    renderer: Option<Renderer>,
    /// The program for rare codecs that it may run.
    ffmpeg: Option<String>,
    /// Jobs that it has done.
    jobs: u32,
}

impl Warm {
    /// Runs a job with the process that is there, or a new one whose jobs may each take `job_max`. It is kept only after a job that went
    /// well: nobody knows in which state an error leaves a codec.
    pub(crate) fn run<T, E: From<RenderError>>(
        &mut self,
        appliance: &Appliance,
        job_max: Duration,
        run: impl FnOnce(&mut Renderer) -> Result<T, E>,
    ) -> Result<T, E> {
        let ffmpeg = playback::ffmpeg(appliance);
        let is_current = ffmpeg == self.ffmpeg;
        let mut ready = match self.renderer.take().filter(|renderer| renderer.is_ready() && is_current) {
            Some(ready) => ready,
            None => {
                (self.jobs, self.ffmpeg) = (0, ffmpeg);
                let limits = Limits { job_max, ..Limits::default() };
                Renderer::spawn(&appliance.render_program, self.ffmpeg.as_deref(), limits)?
            }
        };
        let result = run(&mut ready);
        self.jobs = self.jobs.saturating_add(1);
        if is_kept(result.is_ok(), ready.is_ready(), self.jobs) {
            self.renderer = Some(ready);
        }
        result
    }

    /// Ends the process.
    pub(crate) fn cool(&mut self) {
        self.renderer = None;
    }

    /// The process that the next job gets, if it is there already.
    #[cfg(test)]
    pub(crate) fn pid(&self) -> Option<u32> {
        self.renderer.as_ref().map(Renderer::pid)
    }
}

/// Whether a process does another job after `jobs`, the last of which went well or not.
const fn is_kept(went_well: bool, is_ready: bool, jobs: u32) -> bool {
    went_well && is_ready && jobs < JOBS_MAX
}

#[cfg(test)]
mod tests {
    use super::{JOBS_MAX, is_kept};

    #[test]
    fn a_process_is_kept_after_what_went_well_and_not_for_ever() {
        assert!(is_kept(true, true, 1));
        assert!(is_kept(true, true, JOBS_MAX - 1));
        assert!(!is_kept(true, true, JOBS_MAX));
        assert!(!is_kept(false, true, 1));
        assert!(!is_kept(true, false, 1));
    }
}
