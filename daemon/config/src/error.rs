//! The crate's error: one flaw of the configuration, with its place.

use std::fmt;

/// One flaw of the configuration: where it stands and what to do about it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}", self.line_for_people())]
pub struct ConfigError {
    /// The file, or `environment` for a variable.
    pub file: String,
    /// The line, counted from 1; 0 where there is none (an unreadable file, a variable, values that do not go together).
    pub line: usize,
    /// The column in characters, counted from 1; 0 where there is none.
    pub column: usize,
    /// The dotted key that the flaw is about; for a variable its name; empty when it is about the file itself.
    pub key: String,
    /// What is wrong and what to write instead.
    pub message: String,
}

impl ConfigError {
    /// A flaw of a file as a whole.
    pub(crate) fn file(file: impl Into<String>, message: impl Into<String>) -> Self {
        Self { file: file.into(), line: 0, column: 0, key: String::new(), message: message.into() }
    }

    fn line_for_people(&self) -> impl fmt::Display {
        let mut text = self.file.clone();
        if self.line > 0 {
            text.push_str(&format!(":{}", self.line));
        }
        if self.column > 0 {
            text.push_str(&format!(":{}", self.column));
        }
        text.push_str(": ");
        if !self.key.is_empty() {
            text.push_str(&format!("{}: ", self.key));
        }
        text + &self.message
    }
}
