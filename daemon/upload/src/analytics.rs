//! The driver of Voice Analytics: token, create, put, as the machine in the module `steps` says.
//!
//! # What is guaranteed
//!
//! The identifier, state and URL that creating gave are durable before the audio is put. A delivery that is repeated puts the same
//! bytes to the same URL, which leaves one recording on the other side, however often and wherever it was broken off. Only when the
//! daemon died between the service's acceptance and its own note of it, and the URL has expired before the next attempt, is the
//! recording created a second time: with the same `fileName` (which holds the recording's id) and the same `contentMd5`, by which
//! the two can be told to be one. Creates whose answer was lost leave an entry without audio on the other side.

use std::sync::Arc;

use bytes::Bytes;
use jiff::Timestamp;

use crate::answer::said;
use crate::audio::KEPT_BYTES_MAX;
use crate::body::AudioBody;
use crate::{
    Action, Audio, Begun, Call, Created, Delivery, Prepared, SecretFile, SecretText, Tokens, Trouble, Web, check_url,
    meaning,
};

/// What must be known to deliver to Voice Analytics.
#[derive(Debug, Clone)]
pub struct AnalyticsSettings {
    /// The service's base, for example `https://eu.api.imagicle.com/voice-analytics`.
    pub url: String,
    /// Where tokens are given out.
    pub token_url: String,
    /// Who we are.
    pub client_id: String,
    /// And how we show it.
    pub client_secret: SecretFile,
    /// What we want to do.
    pub scope: String,
    /// The language spoken, empty: the service finds out.
    pub language: String,
    /// How many people speak; 0: as many as there are tracks.
    pub speakers: u32,
    /// The wall clock, for dates in answers.
    pub now: fn() -> Timestamp,
}

/// What remembers how far a delivery got. Each call returns when it is durable.
pub trait Ledger {
    /// What was remembered last, if anything.
    ///
    /// # Errors
    /// [`Trouble::Gone`]; [`Trouble::Recording`] when it cannot be read.
    fn begun(&self) -> Result<Option<Begun>, Trouble>;

    /// Remembers this.
    ///
    /// # Errors
    /// [`Trouble::Gone`] when the recording was deleted; [`Trouble::Recording`] when it cannot be written.
    fn note(&self, begun: &Begun) -> Result<(), Trouble>;
}

/// A driver for one thread.
pub struct Analytics<'a> {
    /// The client of HTTP.
    pub web: &'a Web,
    /// The settings.
    pub settings: &'a AnalyticsSettings,
    /// The tokens, shared by all threads.
    pub tokens: &'a Tokens,
    /// Whether to leave off.
    pub stopping: &'a dyn Fn() -> bool,
}

impl Analytics<'_> {
    /// Delivers a recording, or goes on delivering it. What it gives is to be remembered with the fact that it is delivered.
    ///
    /// # Errors
    /// Why it is not delivered.
    pub fn deliver(&self, call: &Call, audio: &Arc<dyn Audio>, ledger: &dyn Ledger) -> Result<Begun, Trouble> {
        let prepared = Prepared::of(&**audio, KEPT_BYTES_MAX, self.stopping)?;
        let md5 = prepared.md5_base64();
        let mut delivery = Delivery::new(ledger.begun()?, &md5);
        let mut token: Option<Arc<SecretText>> = None;
        loop {
            if (self.stopping)() {
                return Err(Trouble::Stopping);
            }
            match delivery.next().clone() {
                Action::Token { renew } => {
                    let refused = token.as_ref().filter(|_| renew);
                    token = Some(self.tokens.get(self.web, self.settings, refused, self.stopping)?);
                    delivery.has_token();
                }
                Action::Create => self.create(&mut delivery, call, &md5, token.as_deref())?,
                Action::Note(begun) => {
                    ledger.note(&begun)?;
                    delivery.noted();
                }
                Action::Put(begun) => self.put(&mut delivery, &begun, audio, &prepared)?,
                Action::Delivered(begun) => return Ok(begun),
                Action::Stop(trouble) => {
                    // A URL that was refused is not tried again after a restart.
                    if delivery.begun().url.is_empty() && delivery.begun().refusals > 0 {
                        ledger.note(delivery.begun())?;
                    }
                    return Err(trouble);
                }
            }
        }
    }

    fn create(
        &self,
        delivery: &mut Delivery,
        call: &Call,
        md5: &str,
        token: Option<&SecretText>,
    ) -> Result<(), Trouble> {
        let url = format!("{}/v1/recordings", self.settings.url.trim_end_matches('/'));
        let json = call.analytics_json(md5, &self.settings.language, self.settings.speakers);
        let request = self
            .web
            .client
            .post(url)
            .bearer_auth(token.map_or("", |token| token.expose().as_str()))
            .header("content-type", "application/json")
            .header("accept", "application/json")
            .body(json.to_string());
        let answer =
            self.web.ask(request, self.stopping).map_err(|error| error.about_recording("create the recording"))?;
        let gave = Created::parse(&answer.body).and_then(|created| {
            check_url(&created.presigned_url).map_err(|_| "its presignedUrl is not https")?;
            Ok(created)
        });
        delivery.created(meaning(&answer, (self.settings.now)()), &said(&answer), gave);
        Ok(())
    }

    fn put(
        &self,
        delivery: &mut Delivery,
        begun: &Begun,
        audio: &Arc<dyn Audio>,
        prepared: &Prepared,
    ) -> Result<(), Trouble> {
        let body = AudioBody::new(audio, prepared, Bytes::new(), Bytes::new(), Arc::clone(&self.web.sent))?;
        // No other header than the documented one: a presigned URL is good for exactly what was signed.
        let request =
            self.web.client.put(&begun.url).header("x-amz-meta-state", &begun.state).body(reqwest::Body::wrap(body));
        let answer = self.web.ask(request, self.stopping).map_err(|error| error.about_recording("put the audio"))?;
        delivery.put(meaning(&answer, (self.settings.now)()), &said(&answer));
        Ok(())
    }
}
