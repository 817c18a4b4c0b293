//! The paths under `/v1/`, and the document that describes them. What is not in this list is not answered, and the tests hold list, router
//! and document against each other, so none of them knows of a path, a method, a parameter or a field of a body that another does not.

/// The OpenAPI document of the endpoint.
pub(crate) const OPENAPI: &str = include_str!("../../../docs/openapi.json");

/// All paths under `/v1/`, in the order of the document; `{…}` stands for one part of any text.
const PATHS: &[&str] = &[
    "openapi.json",
    "status",
    "calls",
    "calls/{id}/{action}",
    "recordings",
    "recordings/{id}",
    "recordings/{id}/audio",
    "recordings/{id}/waveform",
    "recordings/{id}/deliveries",
    "recordings/{id}/deliveries/{sink}",
    "recordings/{id}/verify",
    "verify",
    "recordings/{id}/preserve",
    "recordings/{id}/notes",
    "recordings/{id}/notes/{note}",
    "recordings/{id}/tags/{tag}",
    "imports",
    "imports/{id}",
    "imports/{id}/audio",
    "imports/{id}/finish",
    "jobs",
    "jobs/{id}/retry",
    "drain",
    "recording/stop",
    "recording/start",
    "keys",
    "keys/rotate",
    "settings",
    "capacity",
    "mail/test",
    "store",
    "store/migrate",
    "retention",
    "retention/run",
    "retention/confirm",
    "me",
    "tokens",
    "tokens/{id}",
    "audit",
    "audit/verify",
    "sign-in",
    "sign-in/begin",
    "sign-in/finish",
    "sign-out",
    "sessions",
    "sessions/{id}",
    "users",
    "users/import",
    "users/{email}",
    "users/{email}/picture",
    "webex",
    "webex/authorisation",
    "webex/authorisation/answer",
    "webex/authorisation/service-app",
    "users/sync",
    "users/sync/{id}",
    "users/unmatched",
    "completeness",
    "discards",
];

/// Whether there is such a path, given by its parts.
pub(crate) fn is_known(parts: &[&str]) -> bool {
    let fits = |pattern: &str| {
        let pattern = pattern.split('/');
        pattern.clone().count() == parts.len()
            && pattern.zip(parts).all(|(wanted, part)| wanted.starts_with('{') || wanted == *part)
    };
    PATHS.iter().any(|pattern| fits(pattern))
}

#[cfg(test)]
mod tests;
