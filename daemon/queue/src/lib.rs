//! The durable queue of work that a recording owes after its call: archive, upload, notify, delete.
//!
//! It keeps jobs, hands out the one that is due next, counts attempts, spaces retries, parks what cannot succeed, and
//! acknowledges nothing that is not on the device. It deliberately has no clock (times are Unix milliseconds given by the
//! caller), no randomness (a retry is given a random number), no thread (callers lend theirs), and no idea of what a job
//! does: running a job twice must be the same as running it once, because after a crash it will be.
//!
//! **Calls block** on the disk, for one sync, which on a disk that turns is tens of milliseconds: never call from an
//! asynchronous worker. [`Queue`] is `Sync`; callers that wait at the same time share one sync (group commit).
//!
//! # Two halves
//!
//! [`machine`] decides: states, order, retries, limits; pure, all jobs in memory. [`Queue`] is the driver: it writes every
//! job that the machine touched into sled and reads them all back when it opens. sled is a log here, not an index.
//!
//! # On disk
//!
//! ```text
//! DIR/lock          flock()ed for as long as the queue is open
//! DIR/current       decimal number N of the folder in force, and a newline
//! DIR/jobs-N/       sled's files: db, conf, snap.*, blobs/
//! ```
//!
//! Key: the job's id as text. Value: one byte, the format version (1), then JSON (see the source of `record`).
//!
//! # What is durable, and how
//!
//! sled's `flush()` ends in `sync_file_range`, which leaves the data in the device's cache and the file's new length in the
//! kernel. Therefore a commit is:
//!
//! 1. write the touched jobs into sled (under the queue's lock, in the order of the decisions);
//! 2. `sled::Db::flush()`: sled's buffers go to its file;
//! 3. `fdatasync` of `blobs/*` not yet synced, and of `blobs/` if there were any;
//! 4. `fdatasync` of `db` through a descriptor opened before the first write, so that no write-back error is missed;
//! 5. only then do the callers that shared this commit return.
//!
//! A step that fails fails all callers that shared it, and the queue refuses every change from then on
//! ([`QueueError::Broken`]) until [`Queue::reopen`] has read the truth back from the disk. A failed sync is never repeated
//! in the hope of a better answer.
//!
//! [`Queue::claim`] alone does not wait: losing it repeats a job, which is allowed. It becomes durable with the next commit.
//!
//! Making a folder (first start, [`Queue::compact`]): create `jobs-N`, fill it, commit as above, `fdatasync` `conf` and
//! `snap.*`, fsync `blobs/`, `jobs-N/` and `DIR`; write `current.new`, fdatasync, rename to `current`, fsync `DIR`; remove the
//! old folder. So whenever the power goes, `current` names a complete folder, and others are leftovers.
//!
//! Files that are damaged beyond reading: remove `current`, fsync `DIR`, rename what is there to `set-aside-N`, make an empty folder.
//! The catalogue owes what was in it.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod commit;
mod error;
mod folder;
mod job;
pub mod machine;
mod record;
mod retry;
mod store;

pub use error::QueueError;
pub use folder::{Device, RealDevice};
pub use job::{
    DONE_KEPT, ERROR_BYTES_MAX, JOBS_MAX, Job, JobId, JobKind, NewJob, PAYLOAD_BYTES_MAX, ParkReason, State, StateName,
};
pub use machine::{Counts, Enqueued, Filter, KindLimits, Next};
pub use retry::{Failure, RetryPolicies, RetryPolicy, WAIT_MS_MAX, backoff_ms};
pub use store::{OpenReport, Queue, Settings, Stats};
