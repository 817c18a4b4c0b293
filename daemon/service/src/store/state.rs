//! In which state a store is, told from what the file system says, with what is to be done about it. Pure.

use std::io;

use nix::errno::Errno;

/// How a store is. All but the first mean that the work on it waits; nothing has failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub(crate) enum StoreState {
    /// It is there, it is the right one, and it takes files.
    #[default]
    Ok,
    /// There is no identity file at its place: the share is not mounted.
    Absent,
    /// Another store is at its place.
    Foreign,
    /// A system call on it does not return.
    Hung,
    /// Its server cannot be reached, and the system says so.
    Gone,
    /// The server does not know any more what it gave us (ESTALE).
    Stale,
    /// It is mounted read-only, or its file system made itself so after an error.
    ReadOnly,
    /// No space, no entries or no quota is left.
    Full,
    /// We may not do what we must.
    Denied,
    /// Any other error that speaks of the whole of it: a device that fails, a server that was lost on a soft mount.
    Failing,
}

impl StoreState {
    /// All of them, in the order in which metrics list them.
    pub(crate) const ALL: [Self; 10] = [
        Self::Ok,
        Self::Absent,
        Self::Foreign,
        Self::Hung,
        Self::Gone,
        Self::Stale,
        Self::ReadOnly,
        Self::Full,
        Self::Denied,
        Self::Failing,
    ];

    /// Its name in metrics, health and the API.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Absent => "absent",
            Self::Foreign => "foreign",
            Self::Hung => "hung",
            Self::Gone => "gone",
            Self::Stale => "stale",
            Self::ReadOnly => "read-only",
            Self::Full => "full",
            Self::Denied => "denied",
            Self::Failing => "io-error",
        }
    }

    /// What to do about it.
    pub(crate) fn remedy(self) -> &'static str {
        match self {
            Self::Ok => "nothing is to be done",
            Self::Absent => "is the share mounted?",
            Self::Foreign => {
                "mount the right share, or move the old archives here together with their .callvault-store"
            }
            Self::Hung => "are the file server and the network to it up?",
            Self::Gone => "start the file server, or repair the network to it",
            Self::Stale => {
                "unmount the share and mount it again: the server exports another file system under its name"
            }
            Self::ReadOnly => "mount it writable; after an error of its device, check that first",
            Self::Full => "make room in it, or raise its quota",
            Self::Denied => {
                "give the user of callvaultd the right to write there; on NFS look at root_squash and the owner"
            }
            Self::Failing => "look at the kernel's log: either its device fails, or the server of a soft mount is away",
        }
    }
}

/// What a system call was for. A file that cannot be read tells nothing of the others; a store that cannot be written is one that
/// nothing can be put into.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// To read what is in the store.
    Read,
    /// To put something into it, to read back what was just put, to take something out, or to enter it at all.
    Write,
}

/// The state of which an error of the file system speaks, if it speaks of the store as a whole.
pub(crate) fn state_of(error: &io::Error, purpose: Purpose) -> Option<StoreState> {
    let errno = Errno::from_raw(error.raw_os_error()?);
    let always = match errno {
        Errno::ENOSPC | Errno::EDQUOT => Some(StoreState::Full),
        Errno::EROFS => Some(StoreState::ReadOnly),
        Errno::ESTALE => Some(StoreState::Stale),
        Errno::ENOTCONN
        | Errno::EHOSTDOWN
        | Errno::EHOSTUNREACH
        | Errno::ENETDOWN
        | Errno::ENETUNREACH
        | Errno::ETIMEDOUT
        | Errno::ECONNREFUSED
        | Errno::ECONNRESET
        | Errno::ECONNABORTED
        | Errno::ESHUTDOWN
        | Errno::EREMOTEIO
        | Errno::ECOMM => Some(StoreState::Gone),
        Errno::ENODEV | Errno::ENXIO | Errno::ENOMEDIUM => Some(StoreState::Failing),
        _ => None,
    };
    always.or(match (errno, purpose) {
        (Errno::EACCES | Errno::EPERM, Purpose::Write) => Some(StoreState::Denied),
        // When reading, a bad sector of one file gives this as well.
        (Errno::EIO, Purpose::Write) => Some(StoreState::Failing),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::io;

    use nix::errno::Errno;

    use super::{Purpose, StoreState, state_of};

    fn check(errno: Errno, read: Option<StoreState>, write: Option<StoreState>) {
        let error = io::Error::from_raw_os_error(errno as i32);
        assert_eq!((state_of(&error, Purpose::Read), state_of(&error, Purpose::Write)), (read, write), "{errno}");
    }

    #[test]
    fn errors_tell_the_state_of_the_store() {
        let both = |errno, state| check(errno, Some(state), Some(state));
        both(Errno::ENOSPC, StoreState::Full);
        both(Errno::EDQUOT, StoreState::Full);
        both(Errno::EROFS, StoreState::ReadOnly);
        both(Errno::ESTALE, StoreState::Stale);
        both(Errno::EHOSTDOWN, StoreState::Gone);
        both(Errno::ETIMEDOUT, StoreState::Gone);
        both(Errno::ENOTCONN, StoreState::Gone);
        both(Errno::ENODEV, StoreState::Failing);
    }

    #[test]
    fn an_error_of_one_file_is_not_one_of_the_store() {
        check(Errno::EIO, None, Some(StoreState::Failing));
        check(Errno::EACCES, None, Some(StoreState::Denied));
        check(Errno::EPERM, None, Some(StoreState::Denied));
        check(Errno::ENOENT, None, None);
        check(Errno::ENOTDIR, None, None);
        check(Errno::ENAMETOOLONG, None, None);
    }

    #[test]
    fn every_state_has_a_name_of_its_own() {
        let names: BTreeSet<_> = StoreState::ALL.iter().map(|state| state.name()).collect();
        assert_eq!(names.len(), StoreState::ALL.len());
    }
}
