//! The users, as everything that asks for them has them: a snapshot, and whoever changes them puts another in its place.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use callvault_config::Config;
use callvault_directory::{Directory, Found, Names, NumberingPlan, User};
use uuid::Uuid;

/// The users that there are.
#[derive(Debug, Default)]
pub(crate) struct People {
    directory: RwLock<Arc<Directory>>,
    /// Held from when a change is planned until it is there.
    changing: Mutex<()>,
}

/// How the organisation writes its numbers.
pub(crate) fn numbering_plan(config: &Config) -> NumberingPlan {
    let settings = &config.directory;
    let internal = settings.internal_numbers.0.clone();
    NumberingPlan::new(&settings.country_code, &settings.national_prefix, &settings.international_prefix, internal)
}

impl People {
    /// These users under this plan.
    pub(crate) fn new(users: impl IntoIterator<Item = User>, plan: NumberingPlan) -> Self {
        Self { directory: RwLock::new(Arc::new(Directory::new(users, plan))), changing: Mutex::default() }
    }

    /// All of them, as they are now.
    pub(crate) fn directory(&self) -> Arc<Directory> {
        Arc::clone(&self.directory.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// The one with that id, also a removed one.
    pub(crate) fn by_id(&self, id: Uuid) -> Option<Arc<User>> {
        self.directory().by_id(id).cloned()
    }

    /// The one with that Webex e-mail, in any case, unless removed.
    pub(crate) fn by_email(&self, email: &str) -> Option<Arc<User>> {
        self.directory().by_email(email).cloned()
    }

    /// The one with that number, or that name by which clients call them; none where several have it, or nobody.
    pub(crate) fn by_number(&self, number: &str) -> Option<Arc<User>> {
        match self.directory().find(&Names { number: Some(number), ..Names::default() }) {
            Found::User(user, _) => Some(user),
            Found::Ambiguous | Found::Nobody => None,
        }
    }

    /// Nobody else changes users while this is held.
    pub(crate) fn change(&self) -> MutexGuard<'_, ()> {
        self.changing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts others in their place.
    pub(crate) fn set(&self, users: impl IntoIterator<Item = User>) {
        let directory = Directory::new(users, self.directory().plan().clone());
        *self.directory.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(directory);
    }
}
