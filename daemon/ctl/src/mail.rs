//! `mail`: whether mails are sent.

use crate::cli::MailVerb;
use crate::client::{Method, Request, with_query};
use crate::error::{CtlError, Exit};
use crate::format::text;
use crate::table::harmless;
use crate::verbs::Session;

/// Runs a verb on mail.
pub(crate) fn run(session: &mut Session<'_, '_>, verb: &MailVerb) -> Result<Exit, CtlError> {
    let MailVerb::Test { address, language } = verb;
    let query = [("address", Some(address.clone())), ("language", language.clone())];
    let path = with_query("/v1/mail/test", &query);
    // A server that stalls is given its time at each step.
    let answer = session.client.json(&Request::new(Method::Post, path, "send a mail to try it out").long())?;
    if session.printed_json(&answer)? {
        return Ok(Exit::Done);
    }
    let how = if answer["encrypted"] == true { "encrypted" } else { "NOT encrypted" };
    session.say(&format!("the mail server took the mail ({how}): {}", harmless(&text(&answer["reply"]))))?;
    Ok(Exit::Done)
}
