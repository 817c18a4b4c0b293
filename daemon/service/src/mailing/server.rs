//! The mail server, as the settings name it.

use std::path::{Path, PathBuf};
use std::{env, fs, io};

use callvault_config::{Mail, MailTls};
use callvault_mail::{Protection, Server};

/// Name of the password as a systemd credential.
const CREDENTIAL_NAME: &str = "mail.password";

/// Longest file of a password or of authorities that is read.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// How to speak with the server. Password and authorities are read anew each time, so that they can be changed.
///
/// # Errors
/// A file that is named and cannot be used; a fragment for people, without the password.
pub(super) fn of(mail: &Mail) -> Result<Server, String> {
    let credentials = match mail.user.is_empty() {
        true => None,
        false => Some((mail.user.clone(), password(mail)?)),
    };
    let ca = mail
        .ca
        .as_deref()
        .map(|path| read(path).map_err(|error| format!("read the authorities {} (mail.ca): {error}", path.display())));
    let port = u16::try_from(mail.port).unwrap_or_default();
    Ok(Server {
        host: mail.server.clone(),
        port: if port == 0 { mail.tls.usual_port() } else { port },
        protection: match mail.tls {
            MailTls::Starttls => Protection::Starttls,
            MailTls::Tls => Protection::Tls,
            MailTls::None => Protection::None,
        },
        ca: ca.transpose()?,
        credentials,
        hello: host_name(),
        timeout: mail.timeout,
    })
}

fn password(mail: &Mail) -> Result<String, String> {
    let credential = || Some(PathBuf::from(env::var_os("CREDENTIALS_DIRECTORY")?).join(CREDENTIAL_NAME));
    let path = mail.password_file.clone().or_else(credential).ok_or_else(|| {
        format!("find the password for mail: name its file in mail.password_file, or give it as the systemd credential {CREDENTIAL_NAME}")
    })?;
    let failed = |what: &str| format!("read the password for mail {} (mail.password_file): {what}", path.display());
    let bytes = read(&path).map_err(|error| failed(&error.to_string()))?;
    let text = String::from_utf8(bytes).map_err(|_| failed("it is not UTF-8 text"))?;
    match text.lines().next().map(str::trim_end) {
        None | Some("") => Err(failed("its first line is empty; write the password there")),
        Some(password) => Ok(password.to_owned()),
    }
}

fn read(path: &Path) -> io::Result<Vec<u8>> {
    use io::Read as _;
    let mut bytes = Vec::new();
    fs::File::open(path)?.take(FILE_BYTES_MAX).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// How this machine calls itself, in the letters that EHLO may have (RFC 5321 section 4.1.2).
fn host_name() -> String {
    let name = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let name: String =
        name.trim().chars().filter(|c| c.is_ascii_alphanumeric() || "-.".contains(*c)).take(255).collect();
    if name.is_empty() { "localhost".to_owned() } else { name }
}
