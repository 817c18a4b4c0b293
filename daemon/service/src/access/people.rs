//! The users, as access needs them: by id, those that were removed among them.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};

use callvault_directory::User;
use uuid::Uuid;

/// A snapshot of all users.
type All = Arc<BTreeMap<Uuid, Arc<User>>>;

/// The users that there are.
#[derive(Debug, Default)]
pub(crate) struct People(RwLock<All>);

impl People {
    /// All of them, as they are now.
    pub(crate) fn all(&self) -> All {
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// The one with that id.
    pub(crate) fn by_id(&self, id: Uuid) -> Option<Arc<User>> {
        self.all().get(&id).cloned()
    }

    /// The one with that Webex e-mail, in any case, unless removed.
    pub(crate) fn by_email(&self, email: &str) -> Option<Arc<User>> {
        let email = email.trim().to_lowercase();
        self.all().values().find(|user| user.removed_at.is_none() && user.webex_email.to_lowercase() == email).cloned()
    }

    /// The one with that number, or that name by which clients call them; none where several have it, or nobody.
    pub(crate) fn by_number(&self, number: &str) -> Option<Arc<User>> {
        let same = |own: &str| !own.is_empty() && own.eq_ignore_ascii_case(number.trim());
        let is_theirs = |user: &User| same(&user.first_extension) || same(&user.extension_alias);
        let all = self.all();
        let mut found = all.values().filter(|user| user.removed_at.is_none() && is_theirs(user));
        let one = found.next()?;
        found.next().is_none().then(|| Arc::clone(one))
    }

    /// Puts others in their place.
    #[cfg_attr(not(test), expect(dead_code, reason = "users come with the directory"))]
    pub(crate) fn set(&self, users: impl IntoIterator<Item = User>) {
        let users = users.into_iter().map(|user| (user.id, Arc::new(user))).collect();
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(users);
    }
}
