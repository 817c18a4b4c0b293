//! An authority of the tests' own, what it signs, and clients that trust it.

use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, date_time_ymd};
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned, SupportedProtocolVersion};

use super::Appliance;
use super::sip::TlsStream;

/// The name in the recorder's certificate.
pub const NAME: &str = "recorder.example";

pub const VERSIONS: [&SupportedProtocolVersion; 2] = [&TLS12, &TLS13];

/// The last year of certificates.
pub const GOOD: i32 = 4_000;
pub const EXPIRED: i32 = 2_021;

/// How long the recorder may take for its part of a handshake.
const HANDSHAKE_WITHIN: Duration = Duration::from_secs(30);

pub struct Authority(CertifiedIssuer<'static, KeyPair>);

/// A certificate and its key, in PEM.
pub struct Pair {
    pub chain: String,
    pub key: String,
}

impl Authority {
    pub fn new(name: &str) -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    pub fn pem(&self) -> String {
        self.0.pem()
    }

    /// A certificate that is valid until the end of this year.
    pub fn sign(&self, until: i32) -> Pair {
        self.sign_for(NAME, until)
    }

    /// The same for another name, or an address.
    pub fn sign_for(&self, name: &str, until: i32) -> Pair {
        let mut params = CertificateParams::new(vec![name.into()]).unwrap();
        params.not_before = date_time_ymd(2020, 1, 1);
        params.not_after = date_time_ymd(until, 12, 31);
        let key = KeyPair::generate().unwrap();
        Pair { chain: params.signed_by(&key, &self.0).unwrap().pem(), key: key.serialize_pem() }
    }
}

impl Pair {
    /// Puts it where the appliance finds it.
    pub fn install(&self, home: &Path) {
        fs::write(home.join("chain.pem"), &self.chain).unwrap();
        fs::write(home.join("key.pem"), &self.key).unwrap();
    }
}

/// An appliance that listens for TLS with this certificate; with an authority of clients it wants theirs.
pub fn prepare(settings: &str, shown: &Pair, clients: Option<&Authority>) -> Appliance {
    let appliance = Appliance::prepare(settings);
    shown.install(appliance.home());
    let mut text =
        format!("[sip]\ntls = \"{}\"\ntls_certificate = \"chain.pem\"\ntls_key = \"key.pem\"\n", appliance.place.tls());
    if let Some(clients) = clients {
        fs::write(appliance.home().join("clients.pem"), clients.pem()).unwrap();
        text += "tls_client_ca = \"clients.pem\"\n";
    }
    fs::write(appliance.home().join("conf.d/tls.toml"), text).unwrap();
    appliance
}

/// [`prepare`], started and ready.
pub fn start(settings: &str, shown: &Pair, clients: Option<&Authority>) -> Appliance {
    let mut appliance = prepare(settings, shown, clients);
    appliance.launch();
    appliance
}

/// Connects, trusting this authority, and shows this certificate. The error is that of the handshake, or of the first byte after it:
/// in TLS 1.3 a client hears only then that it was refused.
pub fn connect(
    to: SocketAddr,
    trusted: &Authority,
    shown: Option<&Pair>,
    version: &'static SupportedProtocolVersion,
) -> Result<TlsStream, String> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(trusted.pem().as_bytes()).unwrap()).unwrap();
    let builder = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()));
    let builder = builder.with_protocol_versions(&[version]).unwrap().with_root_certificates(roots);
    let config = match shown {
        None => builder.with_no_client_auth(),
        Some(pair) => {
            let chain = vec![CertificateDer::from_pem_slice(pair.chain.as_bytes()).unwrap()];
            let key = PrivateKeyDer::from_pem_slice(pair.key.as_bytes()).unwrap();
            builder.with_client_auth_cert(chain, key).unwrap()
        }
    };
    let mut socket = TcpStream::connect(to).map_err(|error| error.to_string())?;
    socket.set_read_timeout(Some(HANDSHAKE_WITHIN)).unwrap();
    let mut tls = ClientConnection::new(Arc::new(config), ServerName::try_from(NAME).unwrap()).unwrap();
    while tls.is_handshaking() {
        tls.complete_io(&mut socket).map_err(|error| error.to_string())?;
    }
    let mut stream = StreamOwned::new(tls, socket);
    // A keep-alive and its answer.
    std::io::Write::write_all(&mut stream, b"\r\n\r\n").map_err(|error| error.to_string())?;
    std::io::Read::read_exact(&mut stream, &mut [0; 2]).map_err(|error| error.to_string())?;
    Ok(stream)
}

/// A metric of the appliance, with its labels as they are written.
pub fn metric(appliance: &Appliance, name: &str) -> f64 {
    let metrics = super::http::ask(appliance.place.http(), "GET", "/metrics", None).unwrap();
    let metrics = String::from_utf8(metrics.body).unwrap();
    let prefix = format!("callvault_{name} ");
    let line = metrics.lines().find_map(|line| line.strip_prefix(&prefix)).unwrap_or_else(|| panic!("no {name}"));
    line.parse().unwrap()
}
