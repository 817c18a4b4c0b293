//! A mail as it goes over the wire.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use lettre::Address;
use lettre::message::header::{self, ContentDisposition, ContentType, HeaderName, HeaderValue, Headers};
use lettre::message::{Mailbox, Mailboxes, MultiPart, MultiPartKind, SinglePart};
use sha2::{Digest as _, Sha256};
use uuid::Uuid;

use crate::notice::{Attachment, Notice};
use crate::templates::{TemplateFlaw, Templates};

/// Largest attachment, whatever the settings allow: it is held in memory while it is sent, and no mail server takes as much.
pub const ATTACHMENT_BYTES_MAX: u64 = 100 << 20;

/// Characters of a subject that are kept. Programs show about 70.
const SUBJECT_CHARS_MAX: usize = 200;

/// Characters of a name beside an address that are kept.
const NAME_CHARS_MAX: usize = 100;

/// Characters of the other party in the name of the attached file that are kept.
const FILE_PARTY_CHARS_MAX: usize = 40;

/// Bytes of audio in a line of base64: 76 characters (RFC 2045 section 6.8).
const LINE_BYTES: usize = 57;

/// Lines of base64 that are made at a time.
const LINES: usize = 512;

/// Who mails come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sender {
    /// The address.
    pub address: String,
    /// The name beside it; may be empty.
    pub name: String,
}

/// Why there is no mail. The texts hold nothing personal.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ComposeError {
    /// Nothing can be sent to what the user's record has as address.
    #[error("compose a mail: the user's address is none; correct it in the directory")]
    Recipient,
    /// Nothing can come from the sender's address.
    #[error("compose a mail: mail.from is not an address; correct it in the configuration")]
    Sender,
    /// A template failed although it was tried before.
    #[error("compose a mail: {0}")]
    Template(#[from] TemplateFlaw),
}

/// A mail, ready to be sent. Its `Debug` shows nothing personal.
#[derive(Clone)]
pub struct Message {
    /// The Message-ID, without angle brackets.
    pub id: String,
    pub(crate) from: Address,
    pub(crate) to: Address,
    head: Vec<u8>,
    attachment: Vec<u8>,
    tail: Vec<u8>,
}

impl fmt::Debug for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Message").field("bytes", &self.bytes()).finish_non_exhaustive()
    }
}

impl Message {
    /// Its length on the wire, in bytes, as the SIZE extension (RFC 1870) counts.
    pub fn bytes(&self) -> u64 {
        let lines = self.attachment.len().div_ceil(LINE_BYTES);
        let encoded = self.attachment.len().div_ceil(3).saturating_mul(4).saturating_add(lines.saturating_mul(2));
        (self.head.len().saturating_add(encoded).saturating_add(self.tail.len())) as u64
    }

    /// Whether the audio is in it.
    pub fn has_attachment(&self) -> bool {
        !self.attachment.is_empty()
    }

    /// The mail, piece by piece; nothing holds the audio in base64.
    pub fn parts(&self) -> impl Iterator<Item = Vec<u8>> + '_ {
        let encoded = self.attachment.chunks(LINE_BYTES * LINES).map(|piece| {
            let mut text = String::with_capacity(piece.len().div_ceil(3).saturating_mul(4) + 2 * LINES);
            for line in piece.chunks(LINE_BYTES) {
                BASE64.encode_string(line, &mut text);
                text.push_str("\r\n");
            }
            text.into_bytes()
        });
        std::iter::once(self.head.clone()).chain(encoded).chain(std::iter::once(self.tail.clone()))
    }
}

/// The Message-ID of the mail that tells `address` of `recording`: always the same.
pub fn message_id(recording: Uuid, address: &str, sender_address: &str) -> String {
    let domain = sender_address.rsplit_once('@').map_or("callvault.invalid", |(_, domain)| domain);
    format!("{recording}.{}@{domain}", recipient_hash(address))
}

fn recipient_hash(address: &str) -> String {
    let hash = Sha256::digest(address.trim().to_lowercase().as_bytes());
    hash.iter().take(8).map(|byte| format!("{byte:02x}")).collect()
}

/// Makes the mail. `now` is for its `Date`.
///
/// # Errors
/// What cannot be an address, or a template that failed.
pub fn compose(
    templates: &Templates,
    notice: &Notice,
    sender: &Sender,
    zone: &TimeZone,
    now: Timestamp,
) -> Result<Message, ComposeError> {
    let to: Address = notice.to.address.trim().parse().map_err(|_| ComposeError::Recipient)?;
    let from: Address = sender.address.trim().parse().map_err(|_| ComposeError::Sender)?;
    let texts = templates.render(notice, &sender.name, zone)?;
    let id = message_id(notice.recording, &notice.to.address, &sender.address);
    // Nobody can know it in advance and put it into a text.
    let boundary = |which: &str| format!("callvault-{}-{which}", recipient_hash(&id));
    let mut headers = Headers::new();
    let mailbox = |name: &str, address: &Address| {
        let name = one_line(name, NAME_CHARS_MAX);
        // A name that is the address says nothing, and would have to be encoded.
        let says_more = !name.is_empty() && name != address.to_string();
        Mailbox::new(says_more.then_some(name), address.clone())
    };
    headers.set(header::From::from(Mailboxes::from(mailbox(&sender.name, &from))));
    headers.set(header::To::from(Mailboxes::from(mailbox(&notice.to.name, &to))));
    headers.set(header::Subject::from(one_line(&texts.subject, SUBJECT_CHARS_MAX)));
    headers.set(header::Date::new(now.into()));
    headers.set(header::MessageId::from(format!("<{id}>")));
    headers.insert_raw(HeaderValue::new(HeaderName::new_from_ascii_str("Auto-Submitted"), "auto-generated".into()));
    headers.insert_raw(HeaderValue::new(HeaderName::new_from_ascii_str("Content-Language"), texts.language.clone()));
    headers.set(header::MIME_VERSION_1_0);
    let body = MultiPart::builder()
        .kind(MultiPartKind::Alternative)
        .boundary(boundary("texts"))
        .build()
        .singlepart(SinglePart::plain(texts.text))
        .singlepart(SinglePart::html(texts.html));
    let Attachment::Mp3(mp3) = &notice.attachment else {
        let mut head = headers.to_string().into_bytes();
        head.extend(body.formatted());
        return Ok(Message { id, from, to, head, attachment: Vec::new(), tail: Vec::new() });
    };
    let whole = boundary("whole");
    let content_type = format!("multipart/mixed; boundary=\"{whole}\"");
    headers.insert_raw(HeaderValue::new(HeaderName::new_from_ascii_str("Content-Type"), content_type));
    let mut head = headers.to_string().into_bytes();
    head.extend(format!("\r\n--{whole}\r\n").into_bytes());
    head.extend(body.formatted());
    let mut attached = Headers::new();
    attached.set(ContentType::parse("audio/mpeg").expect("it is a media type"));
    attached.set(header::ContentTransferEncoding::Base64);
    let disposition = disposition(&attachment_name(notice, zone));
    head.extend(format!("\r\n--{whole}\r\n{attached}{disposition}\r\n").into_bytes());
    let tail = format!("--{whole}--\r\n").into_bytes();
    Ok(Message { id, from, to, head, attachment: mp3.clone(), tail })
}

/// Makes a mail of plain text to an administrator: `name` tells it from all others. `now` is for its `Date`.
///
/// # Errors
/// What cannot be an address.
pub fn compose_plain(
    sender: &Sender,
    to: &str,
    name: Uuid,
    (subject, text): (&str, &str),
    now: Timestamp,
) -> Result<Message, ComposeError> {
    let address: Address = to.trim().parse().map_err(|_| ComposeError::Recipient)?;
    let from: Address = sender.address.trim().parse().map_err(|_| ComposeError::Sender)?;
    let id = message_id(name, to, &sender.address);
    let sender_name = one_line(&sender.name, NAME_CHARS_MAX);
    let mut headers = Headers::new();
    let from_box = Mailbox::new(Some(sender_name).filter(|name| !name.is_empty()), from.clone());
    headers.set(header::From::from(Mailboxes::from(from_box)));
    headers.set(header::To::from(Mailboxes::from(Mailbox::new(None, address.clone()))));
    headers.set(header::Subject::from(one_line(subject, SUBJECT_CHARS_MAX)));
    headers.set(header::Date::new(now.into()));
    headers.set(header::MessageId::from(format!("<{id}>")));
    headers.insert_raw(HeaderValue::new(HeaderName::new_from_ascii_str("Auto-Submitted"), "auto-generated".into()));
    headers.set(header::MIME_VERSION_1_0);
    let mut head = headers.to_string().into_bytes();
    head.extend(SinglePart::plain(text.to_owned()).formatted());
    Ok(Message { id, from, to: address, head, attachment: Vec::new(), tail: Vec::new() })
}

/// The header that names the file. Some programs know nothing of RFC 2231, so it is used only for what it is needed for.
fn disposition(name: &str) -> String {
    if name.bytes().all(|b| b.is_ascii_alphanumeric() || b"+-_.".contains(&b)) {
        return format!("Content-Disposition: attachment;\r\n filename=\"{name}\"\r\n");
    }
    let mut headers = Headers::new();
    headers.set(ContentDisposition::attachment(name));
    headers.to_string()
}

/// `2026-11-05_14-30_Robin_Example.mp3`: when, and with whom, which the mail says too.
pub(crate) fn attachment_name(notice: &Notice, zone: &TimeZone) -> String {
    let call = &notice.call;
    let when = call.started_at.to_zoned(zone.clone()).strftime("%Y-%m-%d_%H-%M").to_string();
    let party = if call.remote_name.is_empty() { &call.remote_number } else { &call.remote_name };
    let mut name = String::new();
    for c in party.chars().take(FILE_PARTY_CHARS_MAX) {
        match c {
            c if c.is_alphanumeric() || c == '+' => name.push(c),
            _ if name.ends_with('_') || name.is_empty() => {}
            _ => name.push('_'),
        }
    }
    match name.trim_end_matches('_') {
        "" => format!("{when}.mp3"),
        party => format!("{when}_{party}.mp3"),
    }
}

/// The text on one line without control characters or what turns the direction of writing around, cut.
fn one_line(text: &str, chars_max: usize) -> String {
    let turns = |c: char| matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{2028}' | '\u{2029}');
    let plain: String = text.chars().map(|c| if c.is_control() || turns(c) { ' ' } else { c }).collect();
    let words: Vec<&str> = plain.split_whitespace().collect();
    words.join(" ").chars().take(chars_max).collect()
}
