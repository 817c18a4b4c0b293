//! The users as everybody here sees them: a snapshot that is replaced as a whole when users change.

use std::sync::{Arc, PoisonError, RwLock};

use callvault_directory::{Directory, Found, Names, NumberingPlan, User};
use uuid::Uuid;

/// The users that there are.
#[derive(Debug, Default)]
pub(crate) struct People(RwLock<Arc<Directory>>);

impl People {
    /// Those of the catalogue.
    pub(crate) fn new(users: Vec<User>, plan: NumberingPlan) -> Self {
        Self(RwLock::new(Arc::new(Directory::new(users, plan))))
    }

    /// All of them, as they are now.
    pub(crate) fn now(&self) -> Arc<Directory> {
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// The one with that id, also a removed one.
    pub(crate) fn by_id(&self, id: Uuid) -> Option<Arc<User>> {
        self.now().by_id(id).cloned()
    }

    /// The one with that Webex e-mail, in any case, unless removed.
    pub(crate) fn by_email(&self, email: &str) -> Option<Arc<User>> {
        self.now().by_email(email).cloned()
    }

    /// The one with that number, or that name by which clients call them; none where several have it, or nobody.
    pub(crate) fn by_number(&self, number: &str) -> Option<Arc<User>> {
        match self.now().find(&Names { number: Some(number), ..Names::default() }) {
            Found::User(user, _) => Some(user),
            Found::Ambiguous | Found::Nobody => None,
        }
    }

    /// Puts others in their place.
    pub(crate) fn set(&self, users: impl IntoIterator<Item = User>) {
        let mut place = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let directory = Directory::new(users, place.plan().clone());
        *place = Arc::new(directory);
    }
}
