//! Live calls, pushed: server-sent events, one with the whole list whenever it changed.

use std::{net::IpAddr, sync::Arc, time::Duration};

use axum::body::Body;
use bytes::Bytes;
use http_body_util::channel::{Channel, Sender};
use hyper::{Method, Response};
use serde_json::Value;
use tokio::{sync::OwnedSemaphorePermit, time::sleep};

use crate::daemon::{Daemon, Question};

/// Pages that follow live calls at once: each asks the daemon once in [`EVERY`].
pub const FOLLOWERS_MAX: usize = 200;

/// How often is asked.
const EVERY: Duration = Duration::from_secs(2);

/// Asked so often without news, a comment is sent: who is not there any more is noticed by that.
const QUIET_MAX: u32 = 8;

/// How long one page is followed before it has to come again, which it does by itself: nobody follows for ever with a session that ended.
const ROUNDS_MAX: u32 = 1_800;

/// Follows the calls that the session may see, until it ends or nobody listens.
pub fn follow(daemon: Daemon, session: String, from: IpAddr, place: OwnedSemaphorePermit) -> Response<Body> {
    let (sender, body) = Channel::<Bytes, std::convert::Infallible>::new(1);
    tokio::spawn(async move {
        tell(&daemon, &session, from, sender).await;
        drop(place);
    });
    let mut answer = Response::new(Body::new(body));
    let headers = answer.headers_mut();
    headers.insert("content-type", hyper::header::HeaderValue::from_static("text/event-stream"));
    answer
}

async fn tell(daemon: &Daemon, session: &str, from: IpAddr, mut sender: Sender<Bytes>) {
    let (mut before, mut quiet) = (None::<Arc<Value>>, 0);
    for _ in 0..ROUNDS_MAX {
        let question =
            Question { method: Method::GET, target: "/v1/calls", session: Some(session), from, body: Bytes::new() };
        let event = match daemon.ask_json(question).await {
            Ok((status, calls)) if status.is_success() => {
                let calls = Arc::new(calls);
                let is_news = before.as_ref().is_none_or(|before| shown(before) != shown(&calls));
                before = Some(Arc::clone(&calls));
                is_news.then(|| format!("data: {calls}\n\n"))
            }
            Ok((status, _)) if status == 401 || status == 403 => return,
            // The daemon is just being restarted, or has much to do: the page goes on showing what it has.
            Ok(_) | Err(_) => None,
        };
        quiet = if event.is_some() { 0 } else { quiet + 1 };
        let text = event.or_else(|| (quiet >= QUIET_MAX).then(|| ":\n\n".to_owned()));
        if let Some(text) = text {
            quiet = 0;
            if sender.send_data(Bytes::from(text)).await.is_err() {
                return;
            }
        }
        sleep(EVERY).await;
    }
}

/// A call without what changes all the time, which the page counts by itself.
fn shown(calls: &Value) -> Vec<Value> {
    let mut calls = calls.get("calls").and_then(Value::as_array).cloned().unwrap_or_default();
    for call in calls.iter_mut().filter_map(Value::as_object_mut) {
        call.remove("packets");
        call.remove("duration_ms");
    }
    calls
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn news_is_what_people_see() {
        let check = |one: Value, other: Value, is_news: bool| {
            assert_eq!(shown(&json!({"calls": one})) != shown(&json!({"calls": other})), is_news);
        };
        check(
            json!([{"id": 1, "packets": 1, "duration_ms": 1}]),
            json!([{"id": 1, "packets": 2, "duration_ms": 3}]),
            false,
        );
        check(json!([{"id": 1, "state": "recording"}]), json!([{"id": 1, "state": "paused"}]), true);
        check(json!([{"id": 1}]), json!([]), true);
        check(json!([]), json!(null), false);
    }
}
