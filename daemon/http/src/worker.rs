//! The threads that take requests from tiny_http.

use std::{
    io::Read as _,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use callvault_access::Caller;
use serde_json::{Value, json};
use tiny_http::{Method, Request};
use uuid::Uuid;

use crate::{
    Api, ApiError, AudioRequest, ErrorKind, IMPORT_BYTES_MAX, Status,
    paths::OPENAPI,
    respond::{self, Ready},
    route::{Call, NOTHING_HERE, Open, route},
    snapshot::Board,
    tickets::{TICKET, Tickets},
};

/// How long a worker waits after tiny_http failed to give it a request, so that a lasting failure does not burn a core.
const PAUSE: Duration = Duration::from_millis(100);

/// Takes requests until `closing`; a panic while one is answered costs that one (tiny_http answers 500) and is reported.
pub(crate) fn serve(server: &tiny_http::Server, closing: &AtomicBool, answer: impl Fn(Request)) {
    while !closing.load(Ordering::Acquire) {
        match server.recv() {
            Ok(request) => {
                if catch_unwind(AssertUnwindSafe(|| answer(request))).is_err() {
                    tracing::error!("a request was not answered because of an internal error; please report it");
                }
            }
            Err(_) if closing.load(Ordering::Acquire) => return,
            Err(error) => {
                tracing::warn!(%error, "failed to take a request");
                thread::sleep(PAUSE);
            }
        }
    }
}

/// Health, readiness, metrics: from the board alone.
pub(crate) fn answer_open(board: &Board, request: Request) {
    let path = request.url().split('?').next().unwrap_or_default();
    let response = match (Open::of(path), request.method()) {
        (Some(what), Method::Get | Method::Head) => open(board, what),
        (Some(_), _) => respond::error(&ApiError::method("GET")),
        (None, _) => respond::error(&ApiError::new(ErrorKind::NotFound, NOTHING_HERE)),
    };
    send(request, response);
}

fn open(board: &Board, what: Open) -> Ready {
    let snapshot = board.read();
    match what {
        Open::Health => {
            let status = if snapshot.health.status() == Status::Failing { 503 } else { 200 };
            respond::json(status, &snapshot.health.json())
        }
        Open::Ready => match snapshot.not_ready {
            None => respond::json(200, &json!({"ready": true})),
            Some(reason) => respond::json(503, &json!({"ready": false, "reason": reason})),
        },
        // old figures would look like a quiet system: better none, which monitoring notices
        Open::Metrics if board.is_stale() => {
            respond::text(503, "text/plain", b"the figures are out of date\n".to_vec())
        }
        Open::Metrics => {
            let content_type = if snapshot.metrics.trim_end().ends_with("# EOF") {
                "application/openmetrics-text; version=1.0.0; charset=utf-8"
            } else {
                "text/plain; version=0.0.4; charset=utf-8"
            };
            respond::text(200, content_type, snapshot.metrics.into_bytes())
        }
    }
}

/// Everything under `/v1/`; the front has seen the token, and knows whose it is.
pub(crate) fn answer_api(api: &Arc<dyn Api>, tickets: &Tickets, mut request: Request) {
    let ticket = request.headers().iter().find(|header| header.field.equiv(TICKET)).map(|header| header.value.as_str());
    let Some(caller) = ticket.and_then(|ticket| tickets.take(ticket)) else {
        // the front has given up on this one: nobody is there to hear the answer
        let error = ApiError::new(ErrorKind::Unauthorized, "it is not known any more who asked");
        return send(request, respond::error(&error));
    };
    let mut body = Vec::new();
    let call = match request.as_reader().take(IMPORT_BYTES_MAX as u64).read_to_end(&mut body) {
        Ok(_) => route(request.method().as_str(), request.url(), &body),
        Err(_) => Err(ApiError::new(ErrorKind::BadRequest, "the request's body did not come to its end")),
    };
    let answer = match call {
        Ok(Call::OpenApi) => {
            return send(request, respond::text(200, "application/json", OPENAPI.as_bytes().to_vec()));
        }
        Ok(Call::Audio(id, audio)) => return answer_audio(&**api, &caller, request, id, &audio),
        Ok(call) => json_call(&**api, &caller, call),
        Err(error) => Err(error),
    };
    match answer {
        Ok(value) => send(request, respond::json(200, &value)),
        Err(error) => send(request, respond::error(&error)),
    }
}

fn json_call(api: &dyn Api, caller: &Caller, call: Call) -> Result<Value, ApiError> {
    match call {
        Call::Status => api.status(caller),
        Call::Calls => api.calls(caller),
        Call::Control(id, action) => api.control_call(caller, id, action),
        Call::Recordings(query) => api.recordings(caller, &query),
        Call::Recording(id) => api.recording(caller, id),
        Call::Deliver(id, sink) => api.deliver(caller, id, &sink),
        Call::Deliveries(id) => api.deliveries(caller, id),
        Call::Waveform(id) => api.waveform(caller, id),
        Call::Delete(id) => api.delete_recording(caller, id),
        Call::Annotate(id, change) => api.annotate(caller, id, &change),
        Call::Verify(id) => api.verify(caller, id),
        Call::Jobs => api.jobs(caller),
        Call::RetryJob(id) => api.retry_job(caller, &id),
        Call::Drain(wanted) => api.drain(caller, wanted),
        Call::Settings => api.settings(caller),
        Call::ChangeSettings(wanted) => api.change_settings(caller, &wanted),
        Call::Capacity => api.capacity(caller),
        Call::TryMail(address, language) => api.try_mail(caller, &address, language.as_deref()),
        Call::Keys => api.keys(caller),
        Call::RotateKeys => api.rotate_keys(caller),
        Call::Discards(query) => api.discards(caller, &query),
        Call::Me => api.me(caller),
        Call::SignIn(wanted) => api.sign_in(caller, &wanted),
        Call::Elsewhere(step) => api.sign_in_elsewhere(caller, &step),
        Call::SignOut => api.sign_out(caller),
        Call::Sessions => api.sessions(caller),
        Call::EndSession(id) => api.end_session(caller, id),
        Call::Users => api.users(caller),
        Call::User(email) => api.user(caller, &email),
        Call::SetUser(email, fields) => api.set_user(caller, &email, &fields),
        Call::UserPicture(email) => api.user_picture(caller, &email),
        Call::SetUserPicture(email, picture) => api.set_user_picture(caller, &email, picture.as_deref()),
        Call::RemoveUser(email) => api.remove_user(caller, &email),
        Call::ImportUsers(import) => api.import_users(caller, &import),
        Call::Tokens => api.tokens(caller),
        Call::CreateToken(token) => api.create_token(caller, &token),
        Call::RevokeToken(id) => api.revoke_token(caller, id),
        Call::Audit(query) => api.audit(caller, &query),
        Call::VerifyAudit(head) => api.verify_audit(caller, head.as_deref()),
        Call::StopRecording(reason) => api.stop_recording(caller, &reason),
        Call::StartRecording => api.start_recording(caller),
        Call::Store => api.store(caller),
        Call::MigrateStore(wanted) => api.migrate_store(caller, &wanted),
        Call::Retention => api.retention(caller),
        Call::RunRetention => api.run_retention(caller),
        Call::ConfirmRetention(token) => api.confirm_retention(caller, &token),
        Call::Webex(wanted) => api.webex(caller, &wanted),
        Call::Import(step) => api.import_recording(caller, &step),
        Call::Audio(..) | Call::OpenApi => Err(ApiError::new(ErrorKind::Internal, "this is answered elsewhere")),
    }
}

fn answer_audio(api: &dyn Api, caller: &Caller, request: Request, id: Uuid, asked: &AudioRequest) {
    if *request.http_version() < tiny_http::HTTPVersion(1, 1) {
        // without chunks, a body that broke off would look complete
        let error = ApiError::new(ErrorKind::BadRequest, "audio needs HTTP/1.1");
        return send(request, respond::error(&error));
    }
    match api.audio(caller, id, asked) {
        Err(error) => send(request, respond::error(&error)),
        Ok(audio) => {
            let mut writer = request.into_writer();
            if let Err(error) = respond::audio(&mut *writer, asked.format, audio) {
                tracing::warn!(recording = %id, %error, "audio was not sent to its end");
            }
        }
    }
}

fn send(request: Request, response: Ready) {
    if let Err(error) = request.respond(response) {
        tracing::debug!(%error, "an answer was not taken");
    }
}
