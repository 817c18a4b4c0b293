//! The catalogue of recordings: one row for each, where its audio is, and which jobs it owes.
//!
//! It keeps what must be found and changed; the audio and the raw facts stay in journal and archive, from which it can be
//! rebuilt. It has no clock (times come in), no randomness of its own (given when it is opened), no thread and no opinion on who may see
//! what. Calls block on the disk: never call from an asynchronous worker. [`Catalogue`] is `Sync`: one writer at a time,
//! readers beside it.
//!
//! # What is readable on the disk
//!
//! Ids, times, durations, verdict, direction, traffic, counts, where the archive is. **Numbers, names, identifiers of calls,
//! tracks, flaws and the owner are not**: they are one JSON text per row, sealed with AES-256-GCM under the catalogue's data
//! key, which is itself sealed (HPKE) to the appliance's public key in the table `meta`. So neither the database file nor its
//! write-ahead log, free pages or backups hold one in the clear.
//!
//! A sealed column is: version (1 byte, 1), nonce (12 bytes, random), ciphertext and tag. Associated data: `callvault catalogue 1`,
//! 0, the column's name, 0, the catalogue's id (16 bytes), the row's id (16 bytes): a value moved to another row, column or
//! catalogue does not open. Random nonces allow 2³² sealings under one key; a row is sealed once or twice in its life.
//! HPKE context of the data key: `catalogue` and the catalogue's id (16 bytes).
//!
//! Which recordings belong to one call is kept as keyed hashes of what they share (see the module `link`), under a key that is sealed
//! like a column: equal hashes show that two rows belong together, and nothing of by what.
//!
//! A waveform (module `waveform`) is sealed the same way, in a table of its own.
//!
//! What people add (module `annotations`) is one more sealed value for each recording that has any; that it is preserved is readable.
//!
//! # Searching
//!
//! A search looks through an index in memory (module `index`), which [`Catalogue::build_index`] reads after the start and every change
//! keeps up; rows that it names are opened and asked again, so it can be too generous and never wrong. Until it is built a search opens rows
//! one after the other, newest first, at most [`SCAN_ROWS_MAX`] a call, and [`Page::partial`] says so. Nothing of the index is on disk.
//!
//! # Durability
//!
//! WAL with `synchronous=FULL`: a call that changed something returns after its transaction is on the device. `secure_delete`
//! overwrites what is deleted, and [`Catalogue::delete`] also empties the write-ahead log. One call is one transaction.
//!
//! # Nothing lost, nothing twice
//!
//! 1. [`Catalogue::ingest`] writes, in one transaction, the recording, its lanes of the journal, and the jobs that it owes (the
//!    outbox). A lane is ingested once: `(generation, lane)` is unique, and stays so when the recording is deleted.
//! 2. The daemon reads [`Catalogue::owed`], enqueues (idempotent by the job's id), then calls [`Catalogue::settled`]. A crash
//!    between any two of these repeats what is the same done twice.
//! 3. [`Catalogue::set_archiving`], [`Catalogue::archived`], [`Catalogue::archive_failed`] only make the steps that are allowed
//!    from the state found, and say which was found.
//! 4. [`Catalogue::lanes_needed`] names what the journal must still keep.
//! 5. A deletion is owed by its tombstone until [`Catalogue::removed`] says that it is done: [`Catalogue::deletions_owed`] is what a
//!    queue that lost its jobs is filled from.
//! 6. A delivery to others (an upload, say) is owed by a row of its own from the transaction in which the recording is archived until
//!    [`Catalogue::delivered`]; [`Catalogue::undelivered`] is what a queue that lost its jobs is filled from.
//!
//! 7. An archive is moved to another store by [`Catalogue::copying`], [`Catalogue::moved`] and [`Catalogue::left_nothing`] (module `stores`):
//!    the file on record is always whole, and every other that there may be is written down.
//!
//! # Access
//!
//! The audit log is appended to in the transaction of the change that it tells of where there is one, and is a hash chain (module `audit`).
//! Tokens are found by the SHA-256 of the token (module `token`). What was decided for good is in `meta`, sealed (module `decree`).
//!
//! # Rebuilt
//!
//! A catalogue that is lost or damaged is made again as a new file: [`Catalogue::ids`], [`Catalogue::get`] and
//! [`Catalogue::buried`] give what can still be read of the old one, [`Catalogue::restore`] and [`Catalogue::bury`] enter it, and
//! what archives say, into the new one.
//!
//! # Migrations
//!
//! `user_version` counts the steps in the module `schema`; each step is one transaction. A catalogue that a newer version migrated is
//! refused. The SQL beyond that module is what PostgreSQL understands too; no table assumes that it has one writer.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod annotations;
mod archive;
mod archive_keys;
mod audit;
mod catalogue;
mod decree;
mod deliveries;
mod discard;
mod error;
mod find;
mod index;
mod ingest;
mod link;
mod mails;
mod outbox;
mod password;
mod recording;
mod restore;
mod retention;
mod row;
mod schema;
mod sealing;
mod stores;
mod token;
mod user;
mod waveform;
mod webex;
mod webex_records;

pub use annotations::{
    Annotations, Author, NOTE_CHARS_MAX, NOTES_MAX, Note, Preserved, TAG_CHARS_MAX, TAGS_MAX, note_text, tag,
};
pub use archive::{ArchiveBacklog, Archived, ArchivedSince, Archiving};
pub use audit::{
    AUDIT_FINDINGS_MAX, AUDIT_LIMIT_DEFAULT, AUDIT_LIMIT_MAX, AuditCheck, AuditFilter, AuditHead, AuditPage,
};
pub use catalogue::{Catalogue, Counts};
pub use decree::Decree;
pub use deliveries::{Backlog, DeliveryState, DeliveryStep};
pub use discard::Discard;
pub use error::CatalogueError;
pub use find::{Cursor, Filter, LIMIT_DEFAULT, LIMIT_MAX, Page, SCAN_ROWS_MAX};
pub use index::NumberMatch;
pub use ingest::{Deletion, IngestOutcome, Lane, NewRecording, Tombstone};
pub use link::{LINKED_MAX, LINKS_MAX};
pub use mails::{MailStanding, MailStep};
pub use outbox::OwedJob;
pub use recording::{Archive, ArchivePlace, ArchiveState, Direction, Flaw, Recording, Track, Traffic, Verdict};
pub use restore::{Buried, Restored};
pub use retention::{RETENTION_ROWS_MAX, RetentionRow};
pub use sealing::SEALED_BYTES_MAX;
pub use stores::{LEAVINGS_MAX, Leaving, STORED_ROWS_MAX, StoreHas, StoredArchive};
pub use token::{TOKENS_MAX, Token, TokenHash};
pub use webex::{Synchronised, WebexPerson, WebexRun};
pub use webex_records::{WEBEX_RECORDS_MAX, WebexRecord};
