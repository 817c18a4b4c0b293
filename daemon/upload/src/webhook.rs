//! A web server of one's own: one POST (multipart/form-data, RFC 7578) with the metadata and the audio.
//!
//! # What is guaranteed
//!
//! At least once. `Idempotency-Key` is the recording's id, so a server that remembers it has each recording once; a server may answer
//! 409 to one that it has. `X-Callvault-Signature` is `v1=` and HMAC-SHA256 in hexadecimal, under the shared secret, over the text
//! `X-Callvault-Timestamp`, a full stop, and the SHA-256 of the whole body in hexadecimal: who checks it knows who sent what, and by
//! the timestamp that it was now.

use std::sync::Arc;

use bytes::Bytes;
use hmac::{Hmac, KeyInit, Mac};
use jiff::Timestamp;
use sha2::{Digest as _, Sha256};

use crate::answer::said;
use crate::audio::{KEPT_BYTES_MAX, hex};
use crate::body::AudioBody;
use crate::{Audio, Call, Meaning, Prepared, SecretFile, Trouble, Web, meaning};

/// What must be known to deliver to a web server.
#[derive(Debug, Clone)]
pub struct WebhookSettings {
    /// Where to.
    pub url: String,
    /// The shared secret that requests are signed with.
    pub secret: SecretFile,
    /// The wall clock.
    pub now: fn() -> Timestamp,
}

/// A driver for one thread.
pub struct Webhook<'a> {
    /// The client of HTTP.
    pub web: &'a Web,
    /// The settings.
    pub settings: &'a WebhookSettings,
    /// Whether to leave off.
    pub stopping: &'a dyn Fn() -> bool,
}

/// The signature of a body, as the header has it.
pub fn signature(secret: &[u8], timestamp_s: i64, body_sha256: &[u8; 32]) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret).expect("HMAC takes keys of any length");
    mac.update(format!("{timestamp_s}.{}", hex(body_sha256)).as_bytes());
    format!("v1={}", hex(&mac.finalize().into_bytes()))
}

impl Webhook<'_> {
    /// Delivers a recording.
    ///
    /// # Errors
    /// Why it is not delivered.
    pub fn deliver(&self, call: &Call, audio: &Arc<dyn Audio>) -> Result<(), Trouble> {
        const WHAT: &str = "post the recording";
        let prepared = Prepared::of(&**audio, KEPT_BYTES_MAX, self.stopping)?;
        let boundary = format!("callvault-{}", call.id.simple());
        let (before, behind) = frame(call, &prepared, &boundary);
        let digest = body_digest(audio, &prepared, &before, &behind)?;
        let secret = self.settings.secret.read()?;
        let now = (self.settings.now)();
        let timestamp_s = now.as_second();
        let body = AudioBody::new(audio, &prepared, before.into(), behind.into(), Arc::clone(&self.web.sent))?;
        let request = self
            .web
            .client
            .post(&self.settings.url)
            .header("content-type", format!("multipart/form-data; boundary={boundary}"))
            .header("idempotency-key", call.id.to_string())
            .header("x-callvault-timestamp", timestamp_s.to_string())
            .header("x-callvault-signature", signature(secret.expose().as_bytes(), timestamp_s, &digest))
            .body(reqwest::Body::wrap(body));
        let answer = self.web.ask(request, self.stopping).map_err(|error| error.about_recording(WHAT))?;
        let said = said(&answer);
        match meaning(&answer, now) {
            Meaning::Good => Ok(()),
            // It has this one.
            Meaning::Refused if answer.status == 409 => Ok(()),
            Meaning::Busy { wait_ms } => {
                Err(Trouble::Sink { wait_ms, text: format!("{WHAT}: the server {said}; it is tried again by itself") })
            }
            Meaning::Failed => Err(Trouble::Recording(format!("{WHAT}: the server {said}"))),
            Meaning::Unauthorised | Meaning::Elsewhere => Err(Trouble::sink(format!(
                "{WHAT}: the server {said}; see webhook.url, webhook.proxy and the file of webhook.secret"
            ))),
            Meaning::Refused if answer.status == 403 => {
                Err(Trouble::sink(format!("{WHAT}: the server {said}; see the file of webhook.secret")))
            }
            Meaning::Refused => Err(Trouble::Refused(format!(
                "{WHAT}: the server {said}, and will not have it; when that is mended, `callvaultctl jobs retry`"
            ))),
        }
    }
}

/// What comes before and behind the audio.
fn frame(call: &Call, prepared: &Prepared, boundary: &str) -> (Vec<u8>, Vec<u8>) {
    let metadata = call.metadata_json(prepared.bytes, &prepared.sha256_hex());
    let before = format!(
        "--{boundary}\r\nContent-Disposition: form-data; name=\"metadata\"\r\nContent-Type: application/json\r\n\r\n{metadata}\r\n\
         --{boundary}\r\nContent-Disposition: form-data; name=\"audio\"; filename=\"{}\"\r\nContent-Type: audio/mpeg\r\n\r\n",
        call.file_name()
    );
    (before.into_bytes(), format!("\r\n--{boundary}--\r\n").into_bytes())
}

/// SHA-256 of the whole body; what was not kept is read once more for it.
fn body_digest(audio: &Arc<dyn Audio>, prepared: &Prepared, before: &[u8], behind: &[u8]) -> Result<[u8; 32], Trouble> {
    let mut hash = Sha256::new();
    hash.update(before);
    match prepared.kept() {
        Some(kept) => hash.update(kept),
        None => Prepared::replay(prepared.bytes, &prepared.sha256, &mut *audio.open()?, |block: Bytes| {
            hash.update(&block);
            Ok(())
        })?,
    }
    hash.update(behind);
    Ok(hash.finalize().into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audio::tests::Given;
    use crate::call::tests::call;

    #[test]
    fn the_signature_is_over_time_and_body() {
        let digest: [u8; 32] = Sha256::digest(b"body").into();
        // printf '1700000000.%s' "$(printf body | sha256sum | cut -d' ' -f1)" | openssl dgst -sha256 -hmac secret
        let known = signature(b"secret", 1_700_000_000, &digest);
        assert_eq!(known, "v1=5b1c5a36562e3b5acb0a5683f5a01adf1a0eec95263a30423dbe8afbcd410b88");
        assert_ne!(known, signature(b"secret", 1_700_000_001, &digest));
        assert_ne!(known, signature(b"other", 1_700_000_000, &digest));
        assert_ne!(known, signature(b"secret", 1_700_000_000, &[0; 32]));
    }

    #[test]
    fn the_digest_is_that_of_what_is_sent_whether_it_was_kept_or_not() {
        let audio: Arc<dyn Audio> = Arc::new(Given::always(b"audio"));
        let digest = |kept_max| {
            let prepared = Prepared::of(&*audio, kept_max, &|| false).unwrap();
            let (before, behind) = frame(&call(), &prepared, "b");
            let whole = [&before[..], b"audio", &behind].concat();
            (body_digest(&audio, &prepared, &before, &behind).unwrap(), <[u8; 32]>::from(Sha256::digest(whole)))
        };
        let (kept, again) = (digest(100), digest(0));
        assert_eq!(kept.0, kept.1);
        assert_eq!(kept, again);
    }
}
