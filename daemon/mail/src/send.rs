//! Handing a mail to a server (RFC 5321), one connection for each: what was said, how far it came, and what that means.

use std::fmt;
use std::time::Duration;

use lettre::transport::smtp::authentication::{Credentials, Mechanism};
use lettre::transport::smtp::client::{Certificate, CertificateStore, SmtpConnection, TlsParameters};
use lettre::transport::smtp::commands::{Data, Ehlo, Mail, Rcpt};
use lettre::transport::smtp::extension::{ClientId, Extension, MailParameter};

use crate::message::Message;

/// Bytes of a server's answer that are shown.
const REPLY_CHARS_MAX: usize = 300;

/// How a connection is protected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protection {
    /// By STARTTLS (RFC 3207), or not used.
    Starttls,
    /// By TLS from its beginning.
    Tls,
    /// Not.
    None,
}

/// A mail server, and how to speak with it. It holds the password: there is no `Debug`.
pub struct Server {
    /// Its name or address.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// How the connection is protected.
    pub protection: Protection,
    /// PEM of the authorities that its certificate must be signed by; none: those of this machine.
    pub ca: Option<Vec<u8>>,
    /// Name and password to sign in with.
    pub credentials: Option<(String, String)>,
    /// How this machine calls itself in EHLO.
    pub hello: String,
    /// How long one step may take: a connection, a write, an answer.
    pub timeout: Duration,
}

/// The steps of handing a mail over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// Certificates and names, before anything is sent.
    Prepare,
    /// The connection, its TLS from the beginning, the greeting, EHLO.
    Connect,
    /// STARTTLS, its TLS, EHLO again.
    Starttls,
    /// AUTH.
    SignIn,
    /// MAIL FROM.
    Sender,
    /// RCPT TO.
    Recipient,
    /// DATA.
    Data,
    /// The mail itself and its answer.
    Content,
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Prepare => "prepare the connection",
            Self::Connect => "connect",
            Self::Starttls => "encrypt the connection (STARTTLS)",
            Self::SignIn => "sign in (AUTH)",
            Self::Sender => "name the sender (MAIL FROM)",
            Self::Recipient => "name the recipient (RCPT TO)",
            Self::Data => "begin the mail (DATA)",
            Self::Content => "hand the mail over",
        })
    }
}

/// What a failure means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failing {
    /// It is about the server or how we are set up to speak with it: other mails would fail as well.
    Server,
    /// The server has put this mail off (4xx), as greylisting does.
    Later,
    /// The server refuses this mail or its recipient for good (5xx).
    Refused,
    /// It is larger than the server takes.
    TooLarge,
    /// The mail was under way when the connection was lost, or the answer was not understood: whether it was taken is not known.
    Unknown,
    /// The caller did not want to go on; the mail was not sent.
    Stopped,
}

/// Why a mail was not, or not knowingly, taken. The display holds nothing personal: servers repeat addresses in their answers, so of an
/// answer there are only its codes.
#[derive(Clone, PartialEq, Eq, thiserror::Error)]
#[error("{stage}: {what}")]
pub struct Failed {
    /// What it means.
    pub failing: Failing,
    /// How far it came.
    pub stage: Stage,
    /// What went wrong.
    pub what: String,
    /// What the server said, which may name the recipient; for whoever asked for a try.
    pub reply: Option<String>,
}

impl fmt::Debug for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Failed")
            .field("failing", &self.failing)
            .field("stage", &self.stage)
            .field("what", &self.what)
            .finish()
    }
}

impl Failed {
    fn new(failing: Failing, stage: Stage, what: impl Into<String>) -> Self {
        Self { failing, stage, what: what.into(), reply: None }
    }
}

/// The server has taken responsibility for the mail (250 to its end).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Accepted {
    /// What it said.
    pub reply: String,
    /// Whether the connection was encrypted.
    pub encrypted: bool,
}

/// Hands the mail over. `about_to` is called when all that can be refused beforehand was not, right before the mail itself is sent: from
/// then on the server may have taken it, whatever is heard of that. It says whether to go on.
///
/// # Errors
/// See [`Failing`]. [`Failing::Unknown`] is the one after which the mail may be there all the same.
pub fn send(server: &Server, message: &Message, about_to: impl FnOnce() -> bool) -> Result<Accepted, Failed> {
    let hello = ClientId::Domain(server.hello.clone());
    let tls = match server.protection {
        Protection::None => None,
        _ => Some(tls_parameters(server)?),
    };
    let mut connection = connect(server, &hello, tls.as_ref())?;
    // Whatever comes of it, the server is told that this is the end.
    let result = hand_over(server, &hello, &mut connection, message, about_to);
    connection.abort();
    result
}

/// Connects, encrypts and signs in as for a mail, and leaves again.
///
/// # Errors
/// How far it came, with [`Failing::Server`].
pub fn try_server(server: &Server) -> Result<(), Failed> {
    let hello = ClientId::Domain(server.hello.clone());
    let tls = match server.protection {
        Protection::None => None,
        _ => Some(tls_parameters(server)?),
    };
    connect(server, &hello, tls.as_ref())?.abort();
    Ok(())
}

fn tls_parameters(server: &Server) -> Result<TlsParameters, Failed> {
    let failed = |what: &str| Failed::new(Failing::Server, Stage::Prepare, what);
    let mut builder = TlsParameters::builder(server.host.clone());
    if let Some(pem) = &server.ca {
        let authorities =
            Certificate::from_pem(pem).map_err(|_| failed("mail.ca is not a PEM file of certificates"))?;
        builder = builder.certificate_store(CertificateStore::None).add_root_certificate(authorities);
    }
    builder.build_rustls().map_err(|error| failed(&format!("TLS cannot be set up ({})", causes(&error))))
}

fn connect(server: &Server, hello: &ClientId, tls: Option<&TlsParameters>) -> Result<SmtpConnection, Failed> {
    let at_once = tls.filter(|_| server.protection == Protection::Tls);
    let address = (server.host.as_str(), server.port);
    let mut connection = SmtpConnection::connect(address, Some(server.timeout), hello, at_once, None)
        .map_err(|error| about_server(Stage::Connect, &error))?;
    if let (Protection::Starttls, Some(tls)) = (server.protection, tls) {
        if !connection.can_starttls() {
            connection.abort();
            let what = "the server does not offer STARTTLS; set mail.tls to what it offers, \"none\" only in a network that you trust";
            return Err(Failed::new(Failing::Server, Stage::Starttls, what));
        }
        connection.starttls(tls, hello).map_err(|error| about_server(Stage::Starttls, &error))?;
    }
    if let Some((user, password)) = &server.credentials {
        let credentials = Credentials::new(user.clone(), password.clone());
        let signed_in = connection.auth(&[Mechanism::Plain, Mechanism::Login], &credentials);
        signed_in.map_err(|error| {
            connection.abort();
            about_server(Stage::SignIn, &error)
        })?;
    }
    Ok(connection)
}

fn hand_over(
    server: &Server,
    hello: &ClientId,
    connection: &mut SmtpConnection,
    message: &Message,
    about_to: impl FnOnce() -> bool,
) -> Result<Accepted, Failed> {
    let encrypted = connection.is_encrypted();
    if server.protection != Protection::None && !encrypted {
        return Err(Failed::new(Failing::Server, Stage::Starttls, "the connection is not encrypted"));
    }
    let size_max = size_max(connection, hello)?;
    if size_max.is_some_and(|max| max < message.bytes()) {
        let what = format!("the mail has {} bytes, and the server takes {}", message.bytes(), size_max.unwrap_or(0));
        return Err(Failed::new(Failing::TooLarge, Stage::Sender, what));
    }
    let mut parameters = Vec::new();
    if size_max.is_some() {
        parameters.push(MailParameter::Size(usize::try_from(message.bytes()).unwrap_or(usize::MAX)));
    }
    if !AsRef::<str>::as_ref(&message.to).is_ascii() {
        if !connection.server_info().supports_feature(Extension::SmtpUtfEight) {
            let what = "the recipient's address is not ASCII, and the server does not take such (SMTPUTF8)";
            return Err(Failed::new(Failing::Refused, Stage::Recipient, what));
        }
        parameters.push(MailParameter::SmtpUtfEight);
    }
    let sender = Mail::new(Some(message.from.clone()), parameters);
    connection.command(sender).map_err(|error| at_sender(&error))?;
    let recipient = Rcpt::new(message.to.clone(), Vec::new());
    connection.command(recipient).map_err(|error| about_mail(Stage::Recipient, &error))?;
    if !about_to() {
        return Err(Failed::new(Failing::Stopped, Stage::Data, "it was not to be sent any more"));
    }
    let begun = connection.command(Data).map_err(|error| about_mail(Stage::Data, &error))?;
    if !begun.has_code(354) {
        return Err(Failed::new(Failing::Server, Stage::Data, "the server answered DATA by something else than 354"));
    }
    let answer = connection.message_iter(message.parts()).map_err(|error| after_content(&error))?;
    if !answer.has_code(250) {
        return Err(Failed::new(
            Failing::Unknown,
            Stage::Content,
            "the server answered the mail by something else than 250",
        ));
    }
    Ok(Accepted { reply: shown(&answer.message().collect::<Vec<_>>().join(" ")), encrypted })
}

/// The largest mail that the server says it takes (RFC 1870): `Some(u64::MAX)` where it names the extension and no size.
fn size_max(connection: &mut SmtpConnection, hello: &ClientId) -> Result<Option<u64>, Failed> {
    // EHLO once more, which changes nothing: the crate keeps none of what the server said about sizes.
    let said = connection.command(Ehlo::new(hello.clone())).map_err(|error| about_server(Stage::Connect, &error))?;
    let size = said.message().find_map(|line| {
        let mut words = line.split_ascii_whitespace();
        words.next().filter(|word| word.eq_ignore_ascii_case("SIZE"))?;
        Some(words.next().and_then(|number| number.parse().ok()).filter(|max| *max > 0).unwrap_or(u64::MAX))
    });
    Ok(size)
}

type SmtpError = lettre::transport::smtp::Error;

/// What it means before the server knows which mail it is about.
fn about_server(stage: Stage, error: &SmtpError) -> Failed {
    let mut what = what(error);
    if stage == Stage::SignIn && error.is_permanent() {
        what.push_str("; see mail.user and the password");
    }
    Failed { reply: reply(error), ..Failed::new(Failing::Server, stage, what) }
}

/// The sender is the same for every mail, so what is refused is refused to all; but a size is this mail's.
fn at_sender(error: &SmtpError) -> Failed {
    let failing = if is_too_large(error) { Failing::TooLarge } else { Failing::Server };
    let mut what = what(error);
    if error.is_permanent() && failing == Failing::Server {
        what.push_str("; does the server let mail.user send as mail.from?");
    }
    Failed { reply: reply(error), ..Failed::new(failing, Stage::Sender, what) }
}

fn about_mail(stage: Stage, error: &SmtpError) -> Failed {
    let failing = match error.status().map(u16::from) {
        // The server is about to close the connection, or wants somebody to sign in first.
        Some(421 | 530) | None => Failing::Server,
        _ if stage == Stage::Data && is_too_large(error) => Failing::TooLarge,
        _ if error.is_transient() => Failing::Later,
        _ => Failing::Refused,
    };
    Failed { reply: reply(error), ..Failed::new(failing, stage, what(error)) }
}

fn after_content(error: &SmtpError) -> Failed {
    let failing = match error.status().map(u16::from) {
        None => Failing::Unknown,
        _ if is_too_large(error) => Failing::TooLarge,
        _ if error.is_transient() => Failing::Later,
        _ => Failing::Refused,
    };
    let mut what = what(error);
    if failing == Failing::Unknown {
        what.push_str("; whether the server took the mail is not known");
    }
    Failed { reply: reply(error), ..Failed::new(failing, Stage::Content, what) }
}

/// 552 is "too much" in general; 5.3.4 says that it is the mail's size (RFC 3463).
fn is_too_large(error: &SmtpError) -> bool {
    let enhanced = enhanced(error);
    error.is_permanent()
        && (enhanced.as_deref() == Some("5.3.4") || enhanced.is_none() && error.status().map(u16::from) == Some(552))
}

/// What went wrong, without what the server said.
fn what(error: &SmtpError) -> String {
    match error.status() {
        Some(code) => {
            let enhanced = enhanced(error).map(|code| format!(" {code}")).unwrap_or_default();
            format!("the server answered {}{enhanced}", u16::from(code))
        }
        None if is_timeout(error) => "the server did not answer in time (mail.timeout)".to_owned(),
        None => causes(error),
    }
}

/// The enhanced status code (RFC 3463) in the server's answer.
fn enhanced(error: &SmtpError) -> Option<String> {
    let said = said(error)?;
    let mut words = said.split(|c: char| !c.is_ascii_digit() && c != '.');
    words
        .find(|word| {
            let parts: Vec<&str> = word.split('.').collect();
            parts.len() == 3
                && matches!(parts[0], "2" | "4" | "5")
                && parts.iter().all(|part| (1..=3).contains(&part.len()))
        })
        .map(str::to_owned)
}

/// What the server said, where it is an answer of the server.
fn said(error: &SmtpError) -> Option<String> {
    error.status()?;
    std::error::Error::source(error).map(ToString::to_string)
}

fn reply(error: &SmtpError) -> Option<String> {
    let code = error.status().map(u16::from)?;
    Some(shown(&format!("{code} {}", said(error).unwrap_or_default())))
}

/// A server's text on one line, without what does things to terminals.
fn shown(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .take(REPLY_CHARS_MAX)
        .collect::<String>()
        .trim()
        .to_owned()
}

/// Whether a read or a write took too long: the kernel calls that "try again".
fn is_timeout(error: &SmtpError) -> bool {
    let kinds = [std::io::ErrorKind::TimedOut, std::io::ErrorKind::WouldBlock];
    chain(error).any(|cause| cause.downcast_ref::<std::io::Error>().is_some_and(|io| kinds.contains(&io.kind())))
}

fn chain<'a>(
    error: &'a (dyn std::error::Error + 'static),
) -> impl Iterator<Item = &'a (dyn std::error::Error + 'static)> {
    std::iter::successors(Some(error), |error| error.source())
}

/// The error with its causes, each once.
fn causes(error: &SmtpError) -> String {
    let mut texts: Vec<String> = Vec::new();
    for cause in chain(error) {
        let text = shown(&cause.to_string());
        if !texts.iter().any(|known| known.contains(&text)) {
            texts.push(text);
        }
    }
    texts.join(": ")
}
