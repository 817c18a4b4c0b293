//! What the daemon tells, in that API's form.

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use uuid::Uuid;

use super::{Line, filter};

fn text<'a>(of: &'a Value, name: &str) -> Option<&'a str> {
    of.get(name).and_then(Value::as_str)
}

/// What is before the `@` of an e-mail.
fn user_name(email: &str) -> &str {
    email.split_once('@').map_or(email, |(user, _)| user)
}

/// First and last name: all but the last word, and that.
fn names(name: &str) -> (&str, &str) {
    name.trim().rsplit_once(' ').unwrap_or((name.trim(), ""))
}

/// ISO 8601, to the second.
fn duration(ms: Option<&Value>) -> String {
    let seconds = ms.and_then(Value::as_u64).unwrap_or(0).div_ceil(1_000);
    SignedDuration::from_secs(i64::try_from(seconds).unwrap_or(0)).to_string()
}

/// A number for people to name a recording by: when it began, and some digits of its id.
fn reference(recording: &Value) -> String {
    let at = text(recording, "started_at").and_then(|at| at.parse::<Timestamp>().ok());
    let id = text(recording, "id").and_then(|id| Uuid::try_parse(id).ok()).unwrap_or_default();
    let began = at.map(|at| at.strftime("%Y%m%d%H%M%S").to_string()).unwrap_or_default();
    format!("{began}{:06}", id.as_u128() % 1_000_000)
}

/// A recording in a list.
pub(super) fn recording(recording: &Value) -> Value {
    let direction = match text(recording, "direction") {
        Some("incoming") => 1,
        Some("outgoing") => 2,
        _ => 0,
    };
    json!({
        "id": recording.get("id"), "referenceNumber": reference(recording), "startTime": recording.get("started_at"),
        "duration": duration(recording.get("duration_ms")), "direction": direction,
        "localPartyNumber": recording.get("local_number"), "remotePartyNumber": recording.get("remote_number"),
        "ownerUsername": text(recording, "owner").map(user_name),
    })
}

/// All about one.
pub(super) fn detail(found: &Value) -> Value {
    let mut detail = recording(found);
    let owner = text(found, "owner").map(|owner| {
        let (first, last) = names(text(found, "owner_name").unwrap_or_default());
        json!({
            "username": user_name(owner), "firstName": first, "lastName": last, "phoneNumber": found.get("local_number"),
        })
    });
    let preserved = found.pointer("/preserved/by/name").and_then(Value::as_str);
    let preserving = preserved.map(|name| json!({"username": user_name(name)}));
    let call = found.get("call_id").cloned().unwrap_or_default();
    if let Some(fields) = detail.as_object_mut() {
        fields.remove("ownerUsername");
        fields.extend([
            ("owner".to_owned(), json!(owner)),
            ("preservingUser".to_owned(), json!(preserving)),
            ("pbxCallId".to_owned(), call.clone()),
            ("pbxInfo".to_owned(), json!({"callId": call})),
        ]);
    }
    detail
}

/// A live recording.
pub(super) fn live(call: &Value) -> Value {
    let (first, last) = names(text(call, "remote_name").unwrap_or_default());
    let is_paused = call.get("paused_by").and_then(Value::as_array).is_some_and(|by| !by.is_empty());
    json!({
        "id": call.get("id"), "duration": duration(call.get("duration_ms")), "startedAt": call.get("started_at"),
        "localParty": {"username": text(call, "owner").map(user_name)},
        "remoteParty": {"firstName": first, "lastName": last, "phoneNumber": call.get("remote_number")},
        "isPaused": is_paused,
    })
}

/// Whether a call is on that line.
pub(super) fn is_on(call: &Value, line: &Line) -> bool {
    let number = text(call, "local_number").map(filter::digits).unwrap_or_default();
    let device = text(call, "owner_device").unwrap_or_default();
    let numeric = call.get("owner_numeric_id").and_then(Value::as_u64).map(|id| id.to_string());
    line.device.as_ref().is_none_or(|wanted| wanted.eq_ignore_ascii_case(device))
        && line.number.as_ref().is_none_or(|wanted| filter::digits(wanted) == number)
        && line.user.as_ref().is_none_or(|wanted| filter::is_user(wanted, text(call, "owner").unwrap_or_default()))
        && line.numeric_user.as_ref().is_none_or(|wanted| numeric.as_deref() == Some(wanted))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_recording_has_the_documented_fields() {
        let found = json!({
            "id": "01900000-0000-7000-8000-000000000017", "started_at": "2023-01-01T10:00:00.250Z", "duration_ms": 89_001,
            "direction": "outgoing", "local_number": "225", "remote_number": null, "owner": "john.doe@example.com",
            "owner_name": "John Maria Doe", "call_id": "100", "preserved": {"by": {"name": "ann@example.com"}},
        });
        let reference = "20230101100000748183";
        assert_eq!(
            recording(&found),
            json!({
                "id": "01900000-0000-7000-8000-000000000017", "referenceNumber": reference,
                "startTime": "2023-01-01T10:00:00.250Z", "duration": "PT1M30S", "direction": 2, "localPartyNumber": "225",
                "remotePartyNumber": null, "ownerUsername": "john.doe",
            })
        );
        let detail = detail(&found);
        assert_eq!(detail["owner"]["firstName"], "John Maria");
        assert_eq!(
            (&detail["owner"]["lastName"], &detail["preservingUser"]["username"]),
            (&json!("Doe"), &json!("ann"))
        );
        assert_eq!(detail["pbxInfo"], json!({"callId": "100"}));
        assert!(detail.get("ownerUsername").is_none());
    }

    #[test]
    fn a_line_is_found_by_everything_that_is_said_of_it() {
        let call = json!({
            "id": "x", "local_number": "+49 30 101", "owner": "ann@example.com", "owner_device": "SEP1", "owner_numeric_id": 7,
            "paused_by": ["control"], "remote_name": "Bob",
        });
        let check = |line: Line, expected: bool| assert_eq!(is_on(&call, &line), expected, "{line:?}");
        let some = |text: &str| Some(text.to_owned());
        check(Line::default(), true);
        check(Line { number: some("+4930101"), ..Line::default() }, true);
        check(Line { number: some("101"), ..Line::default() }, false);
        check(Line { device: some("sep1"), ..Line::default() }, true);
        check(Line { device: some("sep1"), user: some("bob"), ..Line::default() }, false);
        check(Line { user: some("Ann"), numeric_user: some("7"), ..Line::default() }, true);
        check(Line { numeric_user: some("8"), ..Line::default() }, false);
        assert_eq!(live(&call)["isPaused"], true);
        assert_eq!(live(&call)["remoteParty"]["firstName"], "Bob");
    }
}
