//! `drain`: no new calls, and waiting for the last one to end.

use std::thread;
use std::time::Duration;

use serde_json::json;

use crate::cli;
use crate::client::{Method, Request};
use crate::error::{CtlError, Exit};
use crate::verbs::{Session, rows};

/// Between two looks at the live calls.
const LOOK: Duration = Duration::from_secs(1);

/// Looks in a row that may go without an answer: a recorder that died is started again within seconds.
const UNANSWERED_MAX: u32 = 30;

pub(crate) fn run(session: &mut Session<'_, '_>, parameters: &cli::Drain) -> Result<Exit, CtlError> {
    if parameters.cancel {
        let request = Request::new(Method::Delete, "/v1/drain", "end the drain");
        let answer = session.client.json(&request)?;
        if !session.printed_json(&answer)? {
            session.say("new calls are taken again")?;
        }
        return Ok(Exit::Done);
    }
    let answer = session.client.json(&Request::new(Method::Post, "/v1/drain", "drain the appliance"))?;
    if !parameters.wait {
        if !session.printed_json(&answer)? {
            session
                .say("new calls are refused from now on; `callvaultctl calls` shows those that are still going on")?;
        }
        return Ok(Exit::Done);
    }
    wait(session)?;
    if !session.printed_json(&json!({"draining": true, "calls": 0}))? {
        session.say("no call is going on, and new ones are refused")?;
    }
    Ok(Exit::Done)
}

/// Waits until no call lives. The recorder itself is asked each time: a count that is half a second old may lack the last call that
/// was taken.
fn wait(session: &mut Session<'_, '_>) -> Result<(), CtlError> {
    let what = "look at the calls that are going on";
    let (mut told, mut unanswered) = (None, 0);
    loop {
        let live = match session.client.json(&Request::get("/v1/calls", what)) {
            Ok(answer) => Some(rows(&answer, "calls", what).map(Vec::len)?),
            Err(error @ CtlError::Refused { .. }) if unanswered >= UNANSWERED_MAX => return Err(error),
            Err(CtlError::Refused { .. }) => None,
            Err(error) => return Err(error),
        };
        unanswered = if live.is_some() { 0 } else { unanswered + 1 };
        match live {
            Some(0) => return Ok(()),
            Some(live) if told != Some(live) => {
                let calls = if live == 1 { "call is" } else { "calls are" };
                writeln!(session.around.stderr, "{live} {calls} still going on")?;
                told = Some(live);
            }
            _ => {}
        }
        thread::sleep(LOOK);
    }
}
