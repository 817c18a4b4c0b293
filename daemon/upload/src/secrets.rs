//! Secrets that live in files: read when they are needed, so that a changed one is in force at once, and kept nowhere.

use std::fs::File;
use std::io::Read;
use std::path::PathBuf;

use callvault_seal::Secret;

use crate::Trouble;

/// Longest secret, in bytes: longer than any that services hand out.
pub const SECRET_BYTES_MAX: usize = 4096;

/// A secret as text, wiped when it is dropped.
pub type SecretText = Secret<String>;

/// Where a secret is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SecretFile {
    /// The setting that names the file, for error texts.
    pub key: &'static str,
    /// The file; none when it is neither named nor given as a systemd credential.
    pub path: Option<PathBuf>,
}

impl SecretFile {
    /// Reads it, without the space around it.
    ///
    /// # Errors
    /// [`Trouble::Sink`] with what to do; the text never holds any of the secret.
    pub fn read(&self) -> Result<SecretText, Trouble> {
        let key = self.key;
        let Some(path) = &self.path else {
            return Err(Trouble::sink(format!(
                "find the secret: name its file in {key}, or give it as a systemd credential"
            )));
        };
        let shown = path.display();
        // Room for all of it, so that no copies are left behind by a buffer that grew.
        let mut text = Secret::new(String::with_capacity(SECRET_BYTES_MAX + 1));
        File::open(path)
            .and_then(|file| file.take(SECRET_BYTES_MAX as u64 + 1).read_to_string(text.expose_mut()))
            .map_err(|error| Trouble::sink(format!("read {shown} ({key}): {error}")))?;
        let trimmed = text.expose().trim();
        if trimmed.is_empty() || text.expose().len() > SECRET_BYTES_MAX || trimmed.contains(['\n', '\r', '\0']) {
            return Err(Trouble::sink(format!(
                "use {shown} ({key}): it must hold one line of at most {SECRET_BYTES_MAX} bytes"
            )));
        }
        Ok(Secret::new(trimmed.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_one_line() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("secret");
        let check = |content: &str, expected: Option<&str>| {
            std::fs::write(&path, content).unwrap();
            let read = SecretFile { key: "analytics.client_secret", path: Some(path.clone()) }.read();
            if let Err(trouble) = &read {
                assert!(!trouble.to_string().contains("s3cret"), "{trouble}");
            }
            assert_eq!(read.ok().as_ref().map(|text| text.expose().as_str()), expected);
        };
        check("s3cret", Some("s3cret"));
        check(" s3cret\n", Some("s3cret"));
        check("", None);
        check("s3cret\nmore", None);
        check(&"s3cret".repeat(1000), None);
        assert!(SecretFile { key: "k", path: None }.read().is_err());
        assert!(SecretFile { key: "k", path: Some(folder.path().join("none")) }.read().is_err());
    }
}
