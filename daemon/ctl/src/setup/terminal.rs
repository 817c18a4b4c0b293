//! Asking a person at a terminal.

use inquire::error::InquireError;
use inquire::{Confirm, Password, PasswordDisplayMode, Select, Text};

use super::questions::{Kind, Question};
use crate::error::CtlError;

/// What a person says, `shown` where nothing is changed.
pub(super) fn ask(question: &Question, shown: &str) -> Result<String, CtlError> {
    match question.kind {
        Kind::Choice(choices) => {
            let start = choices.iter().position(|choice| *choice == shown).unwrap_or_default();
            let select = Select::new(question.text, choices.to_vec()).with_help_message(question.hint);
            select.with_starting_cursor(start).without_filtering().prompt().map(str::to_owned).map_err(stopped)
        }
        _ => {
            let text = Text::new(question.text).with_default(shown).with_help_message(question.hint);
            text.prompt().map_err(stopped)
        }
    }
}

/// A secret, which is not shown; none where nothing was typed.
pub(super) fn secret(question: &Question) -> Result<Option<String>, CtlError> {
    let password = Password::new(question.text).with_help_message(question.hint).without_confirmation();
    let typed = password.with_display_mode(PasswordDisplayMode::Hidden).prompt().map_err(stopped)?;
    Ok(Some(typed).filter(|typed| !typed.is_empty()))
}

/// Whether a topic with something wrong is asked again.
pub(super) fn again() -> Result<bool, CtlError> {
    let hint = "no: go on with it as it is, and mend it later";
    Confirm::new("Answer again?").with_default(true).with_help_message(hint).prompt().map_err(stopped)
}

/// Whether it is to be written.
pub(super) fn writes() -> Result<bool, CtlError> {
    Confirm::new("Write it?").with_default(true).prompt().map_err(stopped)
}

/// Ctrl-C and Escape are the end, and nothing has happened yet.
fn stopped(error: InquireError) -> CtlError {
    let reason = match error {
        InquireError::OperationCanceled | InquireError::OperationInterrupted => {
            "it was stopped; nothing was written".to_owned()
        }
        other => format!("{other}; nothing was written"),
    };
    CtlError::File { what: "set the appliance up".into(), reason }
}
