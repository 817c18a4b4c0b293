//! `recording`: stopping and starting it as a whole.

use serde_json::{Value, json};

use crate::cli::Recording;
use crate::client::{Method, Request};
use crate::error::{CtlError, Exit};
use crate::format::{text, time};
use crate::table::harmless;
use crate::verbs::Session;

/// Stops, starts, or shows which of both it is.
pub(crate) fn run(session: &mut Session<'_, '_>, verb: &Recording) -> Result<Exit, CtlError> {
    let answer = match verb {
        Recording::Stop { reason } => {
            let request = Request::new(Method::Post, "/v1/recording/stop", "stop recording");
            session.client.json(&request.with_body(&json!({"reason": reason})))?
        }
        Recording::Start => {
            session.client.json(&Request::new(Method::Post, "/v1/recording/start", "start recording"))?
        }
        Recording::Status => {
            let status = session.client.json(&Request::get("/v1/status", "ask whether recording is stopped"))?;
            status["recording"].clone()
        }
    };
    if session.printed_json(&answer)? {
        return Ok(Exit::Done);
    }
    let line = if answer["stopped"] == Value::Bool(true) {
        let since = time(&answer["since"], &session.around.zone);
        let (reason, calls) = (text(&answer["reason"]), text(&answer["calls"]));
        format!("stopped since {since}: {reason}. New calls are refused; {calls} go on")
    } else {
        "new calls are recorded".to_owned()
    };
    session.say(&harmless(&line))?;
    Ok(Exit::Done)
}
