//! The certificates of SIP over TLS: read and checked here, because the recorder reads no files, and handed to it; read again when
//! they may have changed.
//!
//! What is wrong with them never stops the appliance: calls over UDP and TCP go on, and so do TLS connections that are open. Without
//! a usable certificate new TLS connections are closed at once, so that clients turn elsewhere; one that has expired is still shown,
//! because some clients do not look, and those that do refuse it themselves.

use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::{env, fs};

use callvault_config::{ClientCertificate, Config};
use callvault_control::{CHAIN_BYTES_MAX, CLIENT_CA_BYTES_MAX, KEY_BYTES_MAX, KeyPem, TlsIdentity};
use rustls::RootCertStore;
use rustls::client::verify_server_name;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::ParsedCertificate;
use rustls::sign::CertifiedKey;
use tokio::sync::watch;

use crate::appliance::{Metrics, Notes};
use crate::ingest::unix_ms;

/// Name of the private key as a systemd credential.
const CREDENTIAL_NAME: &str = "sip-tls.key";

/// Parts under which health shows what is wrong, the worst first.
pub(crate) const FAILING_PARTS: [&str; 2] = ["certificates-unusable", "certificates-expired"];
pub(crate) const DEGRADED_PARTS: [&str; 2] = ["certificates-changed", "certificates-expiring"];

/// Why certificates cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CertificatesError {
    #[error("read {path} ({key}): {error}; it must be there and readable by the user that callvaultd runs as")]
    Read { key: &'static str, path: String, error: io::Error },
    #[error("read {path} ({key}): it is longer than {most} bytes; it must hold nothing but {what}")]
    TooLong { key: &'static str, path: String, most: usize, what: &'static str },
    #[error("use {path} ({key}): there is no certificate in it that can be read; it must hold certificates in PEM")]
    NoCertificate { key: &'static str, path: String },
    #[error(
        "use {path} (sip.tls_key): there is no private key in it that can be read; it must hold one in PEM without a passphrase (`openssl pkey -in WITH -out WITHOUT` takes it away)"
    )]
    NoKey { path: String },
    #[error(
        "find the private key of SIP over TLS: name its file in sip.tls_key, or give it as the systemd credential {CREDENTIAL_NAME}"
    )]
    KeyUnnamed,
    #[error(
        "use {key_path} with {chain_path}: the private key is not the one of the certificate; replace both together, and put the recorder's own certificate first"
    )]
    Mismatch { chain_path: String, key_path: String },
    #[error("use {path} ({key}): {error}; ask whoever made it for another")]
    Unusable { key: &'static str, path: String, error: rustls::Error },
}

/// Where the certificates are.
#[derive(Debug, Clone)]
pub(crate) struct CertificateFiles {
    chain: PathBuf,
    key: Option<PathBuf>,
    client_ca: Option<PathBuf>,
    client_certificate_optional: bool,
    /// The name that clients look for; empty: nobody looks.
    name: String,
    /// So many seconds before its end a certificate is something to look after.
    expiring_s: i64,
}

/// What was read, all of it checked.
#[derive(Debug)]
pub(crate) struct Certificates {
    pub(crate) identity: TlsIdentity,
    /// From when to when the whole chain is valid, in seconds since the Unix epoch.
    valid_from_s: i64,
    valid_until_s: i64,
    /// The name that clients look for, and that the certificate is not for.
    misnamed: Option<String>,
    /// Where it was read.
    path: String,
}

impl CertificateFiles {
    /// None where nothing listens for TLS.
    pub(crate) fn of(config: &Config) -> Option<Self> {
        let chain = config.sip.tls_certificate.clone().filter(|_| !config.sip.tls.0.is_empty())?;
        let credential = || Some(PathBuf::from(env::var_os("CREDENTIALS_DIRECTORY")?).join(CREDENTIAL_NAME));
        Some(Self {
            chain,
            key: config.sip.tls_key.clone().or_else(credential),
            client_ca: config.sip.tls_client_ca.clone(),
            client_certificate_optional: config.sip.tls_client_certificate == ClientCertificate::Optional,
            name: config.sip.tls_name.clone(),
            expiring_s: i64::try_from(config.sip.tls_expiry_warning.as_secs()).unwrap_or(i64::MAX),
        })
    }

    /// The folders in which a change of them shows.
    pub(crate) fn folders(&self) -> impl Iterator<Item = &Path> {
        [Some(&self.chain), self.key.as_ref(), self.client_ca.as_ref()].into_iter().flatten().filter_map(|p| p.parent())
    }

    /// Reads and checks them.
    pub(crate) fn read(&self) -> Result<Certificates, CertificatesError> {
        const CHAIN: &str = "sip.tls_certificate";
        const CLIENT_CA: &str = "sip.tls_client_ca";
        let chain_path = self.chain.display().to_string();
        let chain_pem = read(&self.chain, CHAIN, CHAIN_BYTES_MAX, "a certificate and those above it")?;
        let chain = certificates(&chain_pem, &self.chain, CHAIN)?;
        let (mut valid_from_s, mut valid_until_s) = (i64::MIN, i64::MAX);
        for certificate in &chain {
            let Ok((_, parsed)) = x509_parser::parse_x509_certificate(certificate) else {
                return Err(CertificatesError::NoCertificate { key: CHAIN, path: chain_path });
            };
            valid_from_s = valid_from_s.max(parsed.validity().not_before.timestamp());
            valid_until_s = valid_until_s.min(parsed.validity().not_after.timestamp());
        }

        let misnamed = (!self.name.is_empty() && !is_for(&chain, &self.name)).then(|| self.name.clone());

        let key = self.key.as_ref().ok_or(CertificatesError::KeyUnnamed)?;
        let key_path = key.display().to_string();
        let key_pem = KeyPem::new(read(key, "sip.tls_key", KEY_BYTES_MAX, "a private key")?);
        let key = PrivateKeyDer::from_pem_slice(key_pem.expose())
            .map_err(|_| CertificatesError::NoKey { path: key_path.clone() })?;
        match CertifiedKey::from_der(chain, key, &aws_lc_rs::default_provider()) {
            Ok(_) => {}
            Err(rustls::Error::InconsistentKeys(_)) => {
                return Err(CertificatesError::Mismatch { chain_path, key_path });
            }
            Err(error) => return Err(CertificatesError::Unusable { key: "sip.tls_key", path: key_path, error }),
        }

        let mut client_ca_pem = Vec::new();
        if let Some(path) = &self.client_ca {
            client_ca_pem = read(path, CLIENT_CA, CLIENT_CA_BYTES_MAX, "authorities' certificates")?;
            let mut roots = RootCertStore::empty();
            for certificate in certificates(&client_ca_pem, path, CLIENT_CA)? {
                roots.add(certificate).map_err(|error| CertificatesError::Unusable {
                    key: CLIENT_CA,
                    path: path.display().to_string(),
                    error,
                })?;
            }
        }
        let client_certificate_optional = self.client_certificate_optional;
        let identity = TlsIdentity { chain_pem, key_pem, client_ca_pem, client_certificate_optional };
        Ok(Certificates { identity, valid_from_s, valid_until_s, misnamed, path: chain_path })
    }
}

/// Whether a client that looks for this name or address takes the certificate for it (RFC 9525).
fn is_for(chain: &[CertificateDer<'_>], name: &str) -> bool {
    let Some(Ok(certificate)) = chain.first().map(ParsedCertificate::try_from) else { return false };
    ServerName::try_from(name).is_ok_and(|name| verify_server_name(&certificate, &name).is_ok())
}

/// Reads a whole file that is no longer than it may be.
fn read(path: &Path, key: &'static str, most: usize, what: &'static str) -> Result<Vec<u8>, CertificatesError> {
    let shown = || path.display().to_string();
    // Room for all of it, so that no copies of a key are left behind by a buffer that grew.
    let mut bytes = Vec::with_capacity(most + 1);
    fs::File::open(path)
        .and_then(|file| file.take(most as u64 + 1).read_to_end(&mut bytes))
        .map_err(|error| CertificatesError::Read { key, path: shown(), error })?;
    if bytes.len() > most {
        return Err(CertificatesError::TooLong { key, path: shown(), most, what });
    }
    Ok(bytes)
}

/// All certificates of a file, at least one.
fn certificates(pem: &[u8], path: &Path, key: &'static str) -> Result<Vec<CertificateDer<'static>>, CertificatesError> {
    let read = CertificateDer::pem_slice_iter(pem).collect::<Result<Vec<_>, _>>();
    let found = read.ok().filter(|found| !found.is_empty());
    found.ok_or_else(|| CertificatesError::NoCertificate { key, path: path.display().to_string() })
}

impl Certificates {
    /// What is wrong with their time: a part of health and a sentence.
    pub(crate) fn untimely(&self, now_s: i64, expiring_s: i64) -> Option<(&'static str, String)> {
        if self.valid_until_s <= now_s {
            let text = format!(
                "the certificate of SIP over TLS expired on {}; clients that look refuse it. Replace {} (sip.tls_certificate)",
                date(self.valid_until_s),
                self.path
            );
            return Some((FAILING_PARTS[1], text));
        }
        if self.valid_from_s > now_s {
            let text = format!(
                "the certificate of SIP over TLS is not valid before {}; clients that look refuse it. Is this machine's clock right, and {} (sip.tls_certificate)?",
                date(self.valid_from_s),
                self.path
            );
            return Some((FAILING_PARTS[1], text));
        }
        if let Some(name) = &self.misnamed {
            let text = format!(
                "the certificate of SIP over TLS, {}, is not for {name} (sip.tls_name); clients that look refuse it. Have one made for that name, or set sip.tls_name to the name that clients use",
                self.path
            );
            return Some((FAILING_PARTS[1], text));
        }
        (self.valid_until_s.saturating_sub(now_s) < expiring_s).then(|| {
            let text = format!(
                "the certificate of SIP over TLS expires on {}; replace {} (sip.tls_certificate) before",
                date(self.valid_until_s),
                self.path
            );
            (DEGRADED_PARTS[1], text)
        })
    }
}

/// The wall clock, in seconds since the Unix epoch: what certificates are dated by.
pub(crate) fn unix_s() -> i64 {
    i64::try_from(unix_ms() / 1_000).unwrap_or(i64::MAX)
}

fn date(unix_s: i64) -> String {
    let at = jiff::Timestamp::from_second(unix_s);
    at.map_or_else(|_| "a day far away".to_owned(), |at| at.strftime("%Y-%m-%d %H:%M UTC").to_string())
}

/// The certificates in force, and their files.
pub(crate) struct CertificateWatch {
    files: Option<CertificateFiles>,
    latest: Option<Certificates>,
    in_force: watch::Sender<Option<Arc<TlsIdentity>>>,
}

impl CertificateWatch {
    /// The watch, and where what is in force can be had.
    pub(crate) fn new(files: Option<CertificateFiles>) -> (Self, watch::Receiver<Option<Arc<TlsIdentity>>>) {
        let (in_force, shown) = watch::channel(None);
        (Self { files, latest: None, in_force }, shown)
    }

    pub(crate) fn files(&self) -> Option<&CertificateFiles> {
        self.files.as_ref()
    }

    /// Reads the files. What is good and new is in force from now on; what is wrong is noted, and what was in force stays.
    pub(crate) fn look(&mut self, now_s: i64, notes: &Notes, metrics: &Metrics) {
        let Some(files) = &self.files else { return };
        let mut noted = None;
        match files.read() {
            Ok(read) => {
                if self.latest.as_ref().is_none_or(|latest| latest.identity != read.identity) {
                    let until = date(read.valid_until_s);
                    tracing::info!(
                        until,
                        "SIP over TLS: this certificate is in force from now on; it expires on {until}"
                    );
                    self.in_force.send_replace(Some(Arc::new(read.identity.clone())));
                }
                self.latest = Some(read);
            }
            Err(error) if self.latest.is_none() => {
                noted = Some((FAILING_PARTS[0], format!("failed to {error} (no call over TLS is taken until then)")));
            }
            Err(error) => {
                noted = Some((DEGRADED_PARTS[0], format!("failed to {error} (those before stay in force)")));
            }
        }
        let untimely = self.latest.as_ref().and_then(|latest| latest.untimely(now_s, files.expiring_s));
        for part in FAILING_PARTS.into_iter().chain(DEGRADED_PARTS) {
            match [&noted, &untimely].into_iter().flatten().find(|(wrong, _)| *wrong == part) {
                Some((_, text)) => notes.set(part, text.clone()),
                None => notes.clear(part),
            }
        }
        let until_s = self.latest.as_ref().map_or(0, |latest| latest.valid_until_s);
        metrics.certificate_expires_unix_s.store(until_s, Ordering::Relaxed);
    }
}

/// What `--check` says of the certificates of a configuration that is good otherwise: whether they can be used, and a line where there
/// is something to say.
pub(crate) fn check(config: &Config, now_s: i64) -> (bool, String) {
    let Some(files) = CertificateFiles::of(config) else { return (true, String::new()) };
    match files.read() {
        Ok(read) => match read.untimely(now_s, files.expiring_s) {
            Some((part, text)) if FAILING_PARTS.contains(&part) => (false, format!("{text}\n")),
            Some((_, text)) => (true, format!("remark: {text}\n")),
            None => (true, String::new()),
        },
        Err(error) => (false, format!("failed to {error}\n")),
    }
}

#[cfg(test)]
mod tests;
