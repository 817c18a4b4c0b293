//! HTTP as deliveries need it: one request at a time, everything bounded, no redirects, no environment.

use std::error::Error as _;
use std::fs;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use reqwest::header::{HeaderMap, HeaderName, LINK, RETRY_AFTER};
use reqwest::{Certificate, Client, Proxy, RequestBuilder, Url, redirect};

use crate::fetch::Fetched;
use crate::{Answer, SecretFile, Trouble};

/// Longest body of an answer that is read, in bytes: all that is wanted of one is short.
const ANSWER_BYTES_MAX: usize = 64 * 1024;

/// Most bytes of a file of authorities' certificates: those of a whole system are smaller.
const CA_BYTES_MAX: u64 = 1 << 20;

/// How often a request that is under way is looked at.
const LOOK: Duration = Duration::from_millis(100);

/// How the other side is reached.
#[derive(Debug, Clone)]
pub struct WebSettings {
    /// The section of the configuration, for error texts.
    pub section: &'static str,
    /// The proxy, `http://host:port`; none: directly.
    pub proxy: Option<String>,
    /// `user:password` for the proxy.
    pub proxy_credentials: Option<SecretFile>,
    /// Authorities that are trusted beside the system's.
    pub ca: Option<PathBuf>,
    /// How long connecting may take, TLS included.
    pub connect_within: Duration,
    /// How long nothing may move: no byte accepted, no answer begun.
    pub silent_max: Duration,
    /// How long a request may take at all.
    pub total_max: Duration,
    /// Whether a connection is used again for the next request: for who asks hundreds of times in a row.
    pub keeps_connection: bool,
}

/// Whether `text` is an address that recordings and secrets may be sent to: https, or http on this machine itself; without a user's
/// name in it, which would end up in logs.
///
/// # Errors
/// What is wrong and what to write, without repeating it.
pub fn check_url(text: &str) -> Result<(), &'static str> {
    let url = Url::parse(text).map_err(|_| "is not a URL; write it whole, \"https://host/path\"")?;
    if !url.username().is_empty() || url.password().is_some() {
        return Err("holds a user's name or password; they belong into a file of their own");
    }
    let host = url.host_str().unwrap_or_default();
    let ip = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    let is_here = host == "localhost" || ip.is_ok_and(|ip| ip.is_loopback());
    match url.scheme() {
        "https" if !host.is_empty() => Ok(()),
        "http" if is_here => Ok(()),
        _ => Err("is not https; only on this machine itself (127.0.0.1, [::1], localhost) may it be http"),
    }
}

/// Why there is no answer.
#[derive(Debug)]
pub(crate) enum NoAnswer {
    /// The other side could not be reached at all.
    Unreachable(String),
    /// It was reached, and then nothing came of it.
    Broken(String),
    /// The answer has more bytes than it may.
    TooLong(usize),
    /// What was to be sent could not be had, or we are stopping.
    Ours(Trouble),
}

fn too_long(bytes_max: usize) -> String {
    format!("the answer is longer than {bytes_max} bytes")
}

impl NoAnswer {
    /// What follows, where the request was about one recording. `what` says what failed.
    pub(crate) fn about_recording(self, what: &str) -> Trouble {
        match self {
            Self::Unreachable(text) => Trouble::sink(format!("{what}: {text}")),
            Self::Broken(text) => Trouble::Recording(format!("{what}: {text}")),
            Self::TooLong(bytes_max) => Trouble::Recording(format!("{what}: {}", too_long(bytes_max))),
            Self::Ours(trouble) => trouble,
        }
    }

    /// What follows, where it was about none.
    pub(crate) fn about_sink(self, what: &str) -> Trouble {
        match self {
            Self::Unreachable(text) | Self::Broken(text) => Trouble::sink(format!("{what}: {text}")),
            Self::TooLong(bytes_max) => Trouble::sink(format!("{what}: {}", too_long(bytes_max))),
            Self::Ours(trouble) => trouble,
        }
    }
}

/// A client of HTTP with a runtime of its own, for one thread.
pub struct Web {
    runtime: tokio::runtime::Runtime,
    pub(crate) client: Client,
    silent_max: Duration,
    total_max: Duration,
    /// Bytes of bodies that have left.
    pub(crate) sent: Arc<AtomicU64>,
}

impl Web {
    /// A client by these settings. Files are read now.
    ///
    /// # Errors
    /// [`Trouble::Sink`]: a file cannot be read, or does not hold what it must.
    pub fn new(settings: &WebSettings) -> Result<Self, Trouble> {
        let section = settings.section;
        let mut builder = Client::builder()
            .user_agent("callvault")
            .redirect(redirect::Policy::none())
            .no_proxy()
            .referer(false)
            .connect_timeout(settings.connect_within)
            // A connection that waited for the next recording is often one that the other side has closed.
            .pool_max_idle_per_host(usize::from(settings.keeps_connection));
        if let Some(proxy) = &settings.proxy {
            let wrong = |_| Trouble::sink(format!("use {section}.proxy: it is not the URL of a proxy"));
            let mut proxy = Proxy::all(proxy).map_err(wrong)?;
            if let Some(credentials) = &settings.proxy_credentials {
                let text = credentials.read()?;
                let (user, password) = text
                    .expose()
                    .split_once(':')
                    .ok_or_else(|| Trouble::sink(format!("use {}: it must hold `user:password`", credentials.key)))?;
                proxy = proxy.basic_auth(user, password);
            }
            builder = builder.proxy(proxy);
        }
        if let Some(path) = &settings.ca {
            let shown = path.display();
            let pem = fs::metadata(path).and_then(|about| match about.len() {
                0..=CA_BYTES_MAX => fs::read(path),
                _ => Err(std::io::Error::other("it is too long")),
            });
            let pem = pem.map_err(|error| Trouble::sink(format!("read {shown} ({section}.ca): {error}")))?;
            let bundle = Certificate::from_pem_bundle(&pem).ok().filter(|bundle| !bundle.is_empty());
            let bundle = bundle.ok_or_else(|| {
                Trouble::sink(format!("use {shown} ({section}.ca): it must hold authorities' certificates in PEM"))
            })?;
            builder = builder.tls_certs_merge(bundle);
        }
        let client = builder
            .build()
            .map_err(|error| Trouble::sink(format!("prepare TLS ({section}): {}", innermost(&error.without_url()))))?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| Trouble::sink(format!("start a runtime: {error}")))?;
        let (silent_max, total_max) = (settings.silent_max, settings.total_max);
        Ok(Self { runtime, client, silent_max, total_max, sent: Arc::default() })
    }

    /// Sends a request and reads its answer.
    pub(crate) fn ask(&self, request: RequestBuilder, stopping: &dyn Fn() -> bool) -> Result<Answer, NoAnswer> {
        let fetched = self.exchange(request, ANSWER_BYTES_MAX, stopping)?;
        Ok(Answer { status: fetched.status, retry_after: fetched.retry_after, body: fetched.body })
    }

    /// The same, with an answer of at most `bytes_max` bytes.
    pub(crate) fn exchange(
        &self,
        request: RequestBuilder,
        bytes_max: usize,
        stopping: &dyn Fn() -> bool,
    ) -> Result<Fetched, NoAnswer> {
        let exchange = async {
            let mut response = request.send().await.map_err(no_answer)?;
            let status = response.status().as_u16();
            let [link, retry_after] = [LINK, RETRY_AFTER].map(|name| joined(response.headers(), &name));
            let mut body = Vec::new();
            while let Some(block) = response.chunk().await.map_err(no_answer)? {
                self.sent.fetch_add(1, Ordering::Relaxed);
                if body.len() + block.len() > bytes_max {
                    return Err(NoAnswer::TooLong(bytes_max));
                }
                body.extend_from_slice(&block);
            }
            Ok(Fetched { status, link, retry_after, body })
        };
        self.runtime.block_on(async {
            tokio::select! {
                answer = exchange => answer,
                given_up = self.watch(stopping) => Err(given_up),
            }
        })
    }

    /// Ends when a request is to be given up.
    async fn watch(&self, stopping: &dyn Fn() -> bool) -> NoAnswer {
        let begun = Instant::now();
        let mut moved = (self.sent.load(Ordering::Relaxed), begun);
        loop {
            tokio::time::sleep(LOOK).await;
            if stopping() {
                return NoAnswer::Ours(Trouble::Stopping);
            }
            let sent = self.sent.load(Ordering::Relaxed);
            if sent != moved.0 {
                moved = (sent, Instant::now());
            }
            if moved.1.elapsed() > self.silent_max {
                return NoAnswer::Broken(format!("nothing moved for {} s", self.silent_max.as_secs()));
            }
            if begun.elapsed() > self.total_max {
                return NoAnswer::Broken(format!("it took longer than {} s", self.total_max.as_secs()));
            }
        }
    }
}

/// The values of a header, by commas; none where there is none that is text.
fn joined(headers: &HeaderMap, name: &HeaderName) -> Option<String> {
    let values: Vec<&str> = headers.get_all(name).iter().filter_map(|value| value.to_str().ok()).collect();
    (!values.is_empty()).then(|| values.join(", "))
}

fn no_answer(error: reqwest::Error) -> NoAnswer {
    let error = error.without_url();
    // What the body ended with is ours.
    let mut source = error.source();
    while let Some(inner) = source {
        if let Some(trouble) = inner.downcast_ref::<Trouble>() {
            return NoAnswer::Ours(trouble.clone());
        }
        source = inner.source();
    }
    if error.is_connect() {
        return NoAnswer::Unreachable(format!("it cannot be reached: {}", innermost(&error)));
    }
    NoAnswer::Broken(format!("the connection broke off: {}", innermost(&error)))
}

/// What lies at the bottom of an error: the system's or TLS's own words, without addresses or what was asked.
fn innermost(error: &reqwest::Error) -> String {
    let mut at: &dyn std::error::Error = error;
    while let Some(source) = at.source() {
        at = source;
    }
    at.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_travel_only_where_nobody_listens() {
        #[track_caller]
        fn check(url: &str, expected: bool) {
            assert_eq!(check_url(url).is_ok(), expected, "{url}");
        }
        check("https://eu.api.example/voice-analytics", true);
        check("https://10.0.0.1:8443/", true);
        check("http://127.0.0.1:8080/x", true);
        check("http://[::1]:8080/x", true);
        check("http://localhost/x", true);
        check("http://eu.api.example/", false);
        check("http://127.0.0.1.example/", false);
        check("https://user:password@eu.api.example/", false);
        check("https://user@eu.api.example/", false);
        check("ftp://eu.api.example/", false);
        check("eu.api.example", false);
        check("", false);
    }
}
