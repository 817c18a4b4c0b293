//! Whose a recording is, for mail.

use std::sync::{Arc, PoisonError, RwLock};

use callvault_catalogue::Recording;
use callvault_directory::User;

/// The users that mail knows.
#[derive(Default)]
pub(crate) struct Users(RwLock<Vec<Arc<User>>>);

impl std::fmt::Debug for Users {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Users").finish_non_exhaustive()
    }
}

impl Users {
    /// The owner of the recording.
    pub(crate) fn user_of(&self, row: &Recording) -> Option<Arc<User>> {
        let owner = row.owner.as_deref()?;
        let users = self.0.read().unwrap_or_else(PoisonError::into_inner);
        users.iter().find(|user| user.webex_email.eq_ignore_ascii_case(owner)).cloned()
    }

    /// These are the users from now on.
    #[allow(dead_code, reason = "the directory sets them")]
    pub(crate) fn set(&self, users: impl IntoIterator<Item = User>) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = users.into_iter().map(Arc::new).collect();
    }
}
