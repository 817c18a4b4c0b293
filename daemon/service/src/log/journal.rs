//! Lines of the log with their fields, in the native protocol of systemd's journal (systemd's `JOURNAL_NATIVE_PROTOCOL`): one datagram
//! for each.

use std::fmt::{self, Write as _};
use std::io::{self, Write as _};
use std::os::unix::net::UnixDatagram;
use std::time::Duration;

use nix::sys::stat::fstat;
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;

use super::events;

/// Where the journal takes them.
const SOCKET: &str = "/run/systemd/journal/socket";

/// What the journal calls who writes, as it does with a line on the standard error stream.
const IDENTIFIER: &str = "callvaultd";

/// Bytes of a datagram: more than any line of ours has, and less than every socket takes. What has no place in it is left out.
const DATAGRAM_BYTES_MAX: usize = 64 << 10;

/// Bytes of one value; what is longer is cut.
const VALUE_BYTES_MAX: usize = 16 << 10;

/// How long a line waits for a journal that is behind. A stream would wait for ever.
const WAIT_MAX: Duration = Duration::from_secs(1);

/// The journal, as a layer of the log.
#[derive(Debug)]
pub(super) struct Journal(UnixDatagram);

impl Journal {
    /// The journal, when it is what the standard error stream goes to, which systemd says in `JOURNAL_STREAM` (systemd.exec(5)).
    pub(super) fn of_stderr() -> Option<Self> {
        let said = std::env::var("JOURNAL_STREAM").ok()?;
        let stat = fstat(io::stderr()).ok()?;
        if !is_stream(&said, stat.st_dev, stat.st_ino) {
            return None;
        }
        let socket = UnixDatagram::unbound().ok()?;
        socket.connect(SOCKET).ok()?;
        socket.set_write_timeout(Some(WAIT_MAX)).ok()?;
        Some(Self(socket))
    }
}

/// Whether `JOURNAL_STREAM` means the file with this device and inode.
fn is_stream(said: &str, device: u64, inode: u64) -> bool {
    said.split_once(':').is_some_and(|(dev, ino)| dev.parse() == Ok(device) && ino.parse() == Ok(inode))
}

impl<S: Subscriber> Layer<S> for Journal {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut fields = Fields::default();
        event.record(&mut fields);
        let datagram = fields.datagram(*event.metadata().level());
        if self.0.send(&datagram).is_err() {
            // The journal is starting again, perhaps: its stream is kept meanwhile.
            let _ = writeln!(io::stderr(), "{}", fields.line());
        }
    }
}

/// What a line says: its text, and its values by their names.
#[derive(Default)]
struct Fields {
    message: String,
    values: Vec<(&'static str, String)>,
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.take(field.name(), format!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.take(field.name(), value.to_owned());
    }
}

impl Fields {
    fn take(&mut self, name: &'static str, mut value: String) {
        let end = (0..=VALUE_BYTES_MAX.min(value.len())).rev().find(|at| value.is_char_boundary(*at)).unwrap_or(0);
        value.truncate(end);
        if name == "message" {
            self.message = value;
        } else {
            self.values.push((name, value));
        }
    }

    /// The text, and of the values those that it does not tell already.
    fn line(&self) -> String {
        let mut line = self.message.clone();
        for (name, value) in self.values.iter().filter(|(name, _)| *name != "event") {
            if !self.message.contains(value.as_str()) {
                // Nothing fails that writes into a text.
                let _ = write!(line, " {name}={value}");
            }
        }
        line
    }

    fn datagram(&self, level: Level) -> Vec<u8> {
        let priority = match level {
            Level::ERROR => "3",
            Level::WARN => "4",
            Level::INFO => "6",
            _ => "7",
        };
        let mut datagram = Vec::new();
        put(&mut datagram, "PRIORITY", priority);
        put(&mut datagram, "SYSLOG_IDENTIFIER", IDENTIFIER);
        put(&mut datagram, "MESSAGE", &self.line());
        for (name, value) in &self.values {
            if *name == "event"
                && let Some(id) = events::message_id(value)
            {
                put(&mut datagram, "MESSAGE_ID", id);
            }
            put(&mut datagram, &format!("CALLVAULT_{}", field_name(name)), value);
        }
        datagram
    }
}

/// A name as the journal takes it: capital letters, digits, underscores.
fn field_name(name: &str) -> String {
    name.chars().map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_uppercase() } else { '_' }).collect()
}

/// A field: on one line, or with its length where it has several.
fn put(datagram: &mut Vec<u8>, name: &str, value: &str) {
    if datagram.len() + name.len() + value.len() + 10 > DATAGRAM_BYTES_MAX {
        return;
    }
    datagram.extend_from_slice(name.as_bytes());
    if value.contains('\n') {
        datagram.push(b'\n');
        datagram.extend_from_slice(&(value.len() as u64).to_le_bytes());
    } else {
        datagram.push(b'=');
    }
    datagram.extend_from_slice(value.as_bytes());
    datagram.push(b'\n');
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::time::Duration;

    use tracing_subscriber::layer::SubscriberExt as _;

    use super::*;

    /// What the journal is sent while `say` runs.
    fn sent(say: impl FnOnce()) -> Vec<u8> {
        let (ours, theirs) = UnixDatagram::pair().unwrap();
        theirs.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        let subscriber = tracing_subscriber::registry().with(Journal(ours));
        tracing::subscriber::with_default(subscriber, say);
        let mut datagram = vec![0; DATAGRAM_BYTES_MAX + 1];
        let bytes = theirs.recv(&mut datagram).unwrap();
        datagram.truncate(bytes);
        datagram
    }

    #[test]
    fn an_event_has_its_id_and_its_values() {
        let found =
            sent(|| tracing::info!(event = events::CALL_ENDED, recording = %7, left_out = 3, "recording 7: ok"));
        let id = events::message_id("call-ended").unwrap();
        let expected = format!(
            "PRIORITY=6\nSYSLOG_IDENTIFIER=callvaultd\nMESSAGE=recording 7: ok left_out=3\nMESSAGE_ID={id}\n\
             CALLVAULT_EVENT=call-ended\nCALLVAULT_RECORDING=7\nCALLVAULT_LEFT_OUT=3\n"
        );
        assert_eq!(String::from_utf8(found).unwrap(), expected);
    }

    #[test]
    fn a_value_of_several_lines_cannot_make_a_field() {
        let found = sent(|| tracing::error!(part = "a\nMESSAGE_ID=b", "one\ntwo"));
        let mut expected = b"PRIORITY=3\nSYSLOG_IDENTIFIER=callvaultd\nMESSAGE\n".to_vec();
        let message = "one\ntwo part=a\nMESSAGE_ID=b";
        expected.extend_from_slice(&(message.len() as u64).to_le_bytes());
        expected.extend_from_slice(message.as_bytes());
        expected.extend_from_slice(b"\nCALLVAULT_PART\n\x0e\0\0\0\0\0\0\0a\nMESSAGE_ID=b\n");
        assert_eq!(String::from_utf8_lossy(&found), String::from_utf8_lossy(&expected));
    }

    #[test]
    fn a_datagram_has_a_largest_size() {
        let long = "é".repeat(VALUE_BYTES_MAX);
        let found = sent(|| tracing::warn!(one = long, two = long, three = long, four = long, "{long}"));
        assert!(found.len() <= DATAGRAM_BYTES_MAX && found.starts_with(b"PRIORITY=4\n"));
        assert!(std::str::from_utf8(&found).is_ok());
    }

    #[test]
    fn only_the_stream_that_is_meant_is_the_journal() {
        let check = |said: &str, expected: bool| assert_eq!(is_stream(said, 8, 4_711), expected, "{said}");
        check("8:4711", true);
        check("8:4712", false);
        check("9:4711", false);
        check("8:4711:1", false);
        check("8", false);
        check("", false);
    }
}
