//! Tokens of programs and people.

use serde_json::json;

use crate::cli::Tokens;
use crate::client::{Method, Request};
use crate::error::{CtlError, Exit};
use crate::format::{text, time};
use crate::table::{Table, harmless, write_pairs};
use crate::verbs::{Session, rows};

/// Runs a verb on the tokens.
pub(crate) fn run(session: &mut Session<'_, '_>, verb: &Tokens) -> Result<Exit, CtlError> {
    match verb {
        Tokens::Create { name, level, user, expires } => {
            let body = json!({"name": name, "level": level, "user": user, "expires_days": expires});
            let request = Request::new(Method::Post, "/v1/tokens", "make a token").with_body(&body);
            let made = session.client.json(&request)?;
            if session.printed_json(&made)? {
                return Ok(Exit::Done);
            }
            let pairs = [
                ("token", text(&made["token"])),
                ("id", text(&made["id"])),
                ("level", text(&made["level"])),
                ("user", text(&made["email"])),
                ("expires", time(&made["expires_at"], &session.around.zone)),
            ];
            write_pairs(session.around.stdout, &pairs)?;
            session.say("Keep the token now: it is kept nowhere else and not shown again.")?;
            Ok(Exit::Done)
        }
        Tokens::List => list(session),
        Tokens::Revoke { id } => {
            let request = Request::new(Method::Delete, format!("/v1/tokens/{id}"), format!("revoke the token {id}"));
            let answer = session.client.json(&request)?;
            if !session.printed_json(&answer)? {
                session.say(&harmless(&format!("{} ({}) is worth nothing any more", id, text(&answer["name"]))))?;
            }
            Ok(Exit::Done)
        }
    }
}

fn list(session: &mut Session<'_, '_>) -> Result<Exit, CtlError> {
    let answer = session.client.json(&Request::get("/v1/tokens", "list the tokens"))?;
    if session.printed_json(&answer)? {
        return Ok(Exit::Done);
    }
    let mut table = Table::new(&["NAME", "LEVEL", "USER", "STATE", "CREATED", "EXPIRES", "USED", "ID"]);
    for token in rows(&answer, "tokens", "list the tokens")? {
        let zone = &session.around.zone;
        table.row([
            text(&token["name"]),
            text(&token["level"]),
            text(&token["email"]),
            text(&token["state"]),
            time(&token["created_at"], zone),
            time(&token["expires_at"], zone),
            text(&token["used_on"]),
            text(&token["id"]),
        ]);
    }
    session.write_table(&table, "there is no token but the control token")?;
    Ok(Exit::Done)
}
