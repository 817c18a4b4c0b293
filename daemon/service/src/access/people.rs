//! The users, as they are now: a snapshot that others take the place of.

use std::sync::{Arc, PoisonError, RwLock};

use callvault_directory::{Directory, Found, Names, User};
use uuid::Uuid;

/// Where the snapshot is.
#[derive(Debug, Default)]
pub(crate) struct People(RwLock<Arc<Directory>>);

impl People {
    /// The users as they are now.
    pub(crate) fn now(&self) -> Arc<Directory> {
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// The one with that id, also one that was removed.
    pub(crate) fn by_id(&self, id: Uuid) -> Option<Arc<User>> {
        self.now().by_id(id).cloned()
    }

    /// The one with that Webex e-mail, unless removed.
    pub(crate) fn by_email(&self, email: &str) -> Option<Arc<User>> {
        self.now().by_email(email).cloned()
    }

    /// The one who is called by that number, while the call lasts; none where several are, or nobody.
    pub(crate) fn by_number(&self, number: &str) -> Option<Arc<User>> {
        match self.now().find(&Names { number: Some(number), ..Names::default() }) {
            Found::User(user, _) => Some(user),
            Found::Ambiguous | Found::Nobody => None,
        }
    }

    /// Puts others in their place.
    #[cfg_attr(not(test), expect(dead_code, reason = "users come with the directory"))]
    pub(crate) fn set(&self, users: Directory) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(users);
    }
}
