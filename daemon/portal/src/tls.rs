//! The certificate: read at the start, and again when its files change. A pair that is wrong is said in the log, and the one before goes on.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::{Arc, PoisonError, RwLock},
    time::{SystemTime, UNIX_EPOCH},
};

use rustls::{
    ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
};
use x509_parser::time::ASN1Time;

/// Why a certificate cannot be used. Names files, never what is in them.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    /// A file cannot be read.
    #[error("read {path}: {source}; the portal's user must be able to")]
    Read {
        /// Which.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// A file is no PEM of its kind.
    #[error("read {0}: it holds no PEM of the kind that is expected there")]
    Pem(PathBuf),
    /// Certificate and key cannot be used, or are not of each other.
    #[error("use certificate and key: {0}")]
    Pair(#[from] rustls::Error),
}

/// Why Webex would not open the gadget behind a certificate, as far as the certificate itself tells: whether computers trust its authority
/// is known to them alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Remark {
    /// Nobody but itself has signed it.
    SelfSigned,
    /// It is not valid yet, or not any more.
    Expired,
}

impl Remark {
    /// Its word in answers.
    pub fn code(self) -> &'static str {
        match self {
            Self::SelfSigned => "self-signed",
            Self::Expired => "expired",
        }
    }

    /// Of a certificate, at that time; none of what cannot be read, which no handshake would take either.
    pub fn of(certificate: &[u8], at: SystemTime) -> Option<Self> {
        let (_, read) = x509_parser::parse_x509_certificate(certificate).ok()?;
        let since = at.duration_since(UNIX_EPOCH).ok()?;
        let at = ASN1Time::from_timestamp(i64::try_from(since.as_secs()).ok()?).ok()?;
        if read.issuer() == read.subject() {
            return Some(Self::SelfSigned);
        }
        (!read.validity().is_valid_at(at)).then_some(Self::Expired)
    }
}

/// The certificate in use.
#[derive(Debug)]
pub struct Certificate {
    chain: PathBuf,
    key: PathBuf,
    now: RwLock<(Arc<ServerConfig>, Stamp)>,
}

/// By what a changed file is told.
type Stamp = [Option<(SystemTime, u64)>; 2];

impl Certificate {
    /// Reads both files.
    ///
    /// # Errors
    /// See [`CertificateError`].
    pub fn load(chain: PathBuf, key: PathBuf) -> Result<Self, CertificateError> {
        let stamp = stamp(&chain, &key);
        let config = read(&chain, &key)?;
        Ok(Self { chain, key, now: RwLock::new((Arc::new(config), stamp)) })
    }

    /// What is to be said of the one in use, read from its file: it is asked for seldom.
    pub fn remark(&self, at: SystemTime) -> Option<Remark> {
        let bytes = fs::read(&self.chain).ok()?;
        Remark::of(CertificateDer::from_pem_slice(&bytes).ok()?.as_ref(), at)
    }

    /// What new connections use.
    pub fn config(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.now.read().unwrap_or_else(PoisonError::into_inner).0)
    }

    /// Reads the files again if they changed; whether another certificate is in use now.
    pub fn look_again(&self) -> bool {
        let stamp = stamp(&self.chain, &self.key);
        if self.now.read().unwrap_or_else(PoisonError::into_inner).1 == stamp {
            return false;
        }
        let read = read(&self.chain, &self.key);
        let mut now = self.now.write().unwrap_or_else(PoisonError::into_inner);
        now.1 = stamp;
        match read {
            Ok(config) => {
                now.0 = Arc::new(config);
                tracing::info!("another certificate is in use");
                true
            }
            Err(error) => {
                tracing::error!("failed to {error}; the certificate before goes on being used");
                false
            }
        }
    }
}

fn stamp(chain: &Path, key: &Path) -> Stamp {
    [chain, key].map(|path| {
        let about = fs::metadata(path).ok()?;
        Some((about.modified().ok()?, about.len()))
    })
}

/// TLS 1.2 and 1.3; HTTP/2 where the browser speaks it.
fn read(chain: &Path, key: &Path) -> Result<ServerConfig, CertificateError> {
    let bytes = |path: &Path| fs::read(path).map_err(|source| CertificateError::Read { path: path.to_owned(), source });
    let certificates: Vec<_> = CertificateDer::pem_slice_iter(&bytes(chain)?)
        .collect::<Result<_, _>>()
        .map_err(|_| CertificateError::Pem(chain.to_owned()))?;
    if certificates.is_empty() {
        return Err(CertificateError::Pem(chain.to_owned()));
    }
    let private = PrivateKeyDer::from_pem_slice(&bytes(key)?).map_err(|_| CertificateError::Pem(key.to_owned()))?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(certificates, private)?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}
