//! Mail that tells a user of a recording: what it says, how it looks on the wire, and how it is handed to a mail server.
//!
//! Composing is pure: facts, templates, time zone and the moment of sending come in as arguments, and the same arguments give the same
//! bytes. [`send()`] alone does something: it talks to one server about one mail, on the caller's thread, and says how far that came. There is
//! no clock here, no file, no queue, no database and no opinion on when to try again.
//!
//! # A mail that is sent twice
//!
//! A server that has taken a mail and whose answer is lost on the way leaves nobody wiser; such a mail has to be sent again. So that it is
//! recognised as the same by mail servers and programs that look for that, its Message-ID is derived from the recording and the
//! recipient, and nothing in it is random.
//!
//! # What a mail is
//!
//! `multipart/alternative` of text and HTML (RFC 2046), both from templates; with audio, that as first part of a `multipart/mixed` whose
//! second is `audio/mpeg` in base64. All lines are ASCII (RFC 2045, 2047, 2231), so every server takes it. `Auto-Submitted:
//! auto-generated` (RFC 3834) keeps holiday notices from answering. What comes from a call or a user's record gets into headers only
//! after control characters were taken out of it.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod language;
mod message;
mod notice;
mod send;
mod templates;

pub use message::{ATTACHMENT_BYTES_MAX, ComposeError, Message, Sender, compose, compose_plain, message_id};
pub use notice::{Attachment, Call, Direction, Notice, Person};
pub use send::{Accepted, Failed, Failing, Protection, Server, Stage, send, try_server};
pub use templates::{TEMPLATE_BYTES_MAX, TEMPLATES_MAX, TemplateFlaw, Templates};
