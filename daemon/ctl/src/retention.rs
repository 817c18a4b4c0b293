//! `retention`: what would be deleted, and the answer to what is asked.

use serde_json::{Value, json};

use crate::cli::Retention;
use crate::client::{Method, Request};
use crate::error::{CtlError, Exit};
use crate::format::{size, text, time};
use crate::table::{harmless, write_pairs};
use crate::verbs::Session;

/// Runs a verb on retention.
pub(crate) fn run(session: &mut Session<'_, '_>, verb: &Retention) -> Result<Exit, CtlError> {
    match verb {
        Retention::Plan | Retention::Run { dry_run: true } => {
            let plan = plan(session)?;
            show(session, &plan)
        }
        Retention::Run { dry_run: false } => {
            let request = Request::new(Method::Post, "/v1/retention/run", "run retention");
            let plan = session.client.json(&request.long())?;
            if session.printed_json(&plan)? {
                return Ok(Exit::Done);
            }
            session.say(&format!("{} recordings are being deleted", text(&plan["plan"]["goes_now"])))?;
            ask(session, &plan)
        }
        Retention::Confirm { token, yes } => confirm(session, token, *yes),
    }
}

fn plan(session: &Session<'_, '_>) -> Result<Value, CtlError> {
    session.client.json(&Request::get("/v1/retention", "ask what retention would do").long())
}

fn show(session: &mut Session<'_, '_>, answer: &Value) -> Result<Exit, CtlError> {
    if session.printed_json(answer)? {
        return Ok(Exit::Done);
    }
    let (plan, zone) = (&answer["plan"], &session.around.zone);
    let pairs = [
        ("rule", format!("{} ({})", text(&answer["rule"]["name"]), text(&answer["rule"]["text"]))),
        ("in force", text(&answer["in_force"]["text"])),
        ("recordings", text(&plan["recordings"])),
        ("due", text(&plan["due"])),
        ("deleted now", text(&plan["goes_now"])),
        ("held", text(&plan["held"])),
        ("archives", size(&plan["bytes"])),
        ("oldest", time(&plan["oldest"], zone)),
        ("newest", time(&plan["newest"], zone)),
        ("last run", time(&answer["last_run"]["at"], zone)),
    ];
    write_pairs(session.around.stdout, &pairs)?;
    ask(session, answer)
}

/// What waits for an answer, and how it is given.
fn ask(session: &mut Session<'_, '_>, answer: &Value) -> Result<Exit, CtlError> {
    let question = &answer["question"];
    if question.is_object() {
        let line = format!(
            "{}\nTo confirm it: callvaultctl retention confirm {}",
            harmless(&text(&question["text"])),
            harmless(&text(&question["token"]))
        );
        session.say(&line)?;
    }
    Ok(Exit::Done)
}

fn confirm(session: &mut Session<'_, '_>, token: &str, yes: bool) -> Result<Exit, CtlError> {
    let answer = plan(session)?;
    let asked = harmless(&text(&answer["question"]["text"]));
    if answer["question"].is_object() && !session.confirmed(&format!("{asked}\nConfirm it?"), yes)? {
        return Ok(Exit::Failed);
    }
    let request = Request::new(Method::Post, "/v1/retention/confirm", "confirm what retention asks");
    let done = session.client.json(&request.with_body(&json!({"token": token})).long())?;
    if !session.printed_json(&done)? {
        session.say("confirmed; it is done now")?;
    }
    Ok(Exit::Done)
}
