//! TLS of SIP connections: what the daemon sends becomes configurations for both directions, and a failed handshake a reason.
//!
//! TLS 1.2 and 1.3, nothing older. Sessions are not resumed: connections live long, so it would save nothing, and a client whose
//! certificate has expired must not come back without showing it.

use std::io;
use std::sync::Arc;

use callvault_control::{HandshakeFailure, TlsIdentity};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{Resumption, verify_server_cert_signed_by_trust_anchor};
use rustls::crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::{NoServerSessionStorage, ParsedCertificate, WebPkiClientVerifier};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, InvalidMessage, RootCertStore, ServerConfig,
    SignatureScheme,
};

/// The versions that are spoken.
const VERSIONS: [&rustls::SupportedProtocolVersion; 2] = [&rustls::version::TLS13, &rustls::version::TLS12];

/// Why what the daemon sent cannot be used. It checks before it sends, so this is a difference of opinion that is a bug.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TlsError {
    /// A text that is no PEM.
    #[error("use the TLS certificates that the daemon sent: {what} is no PEM")]
    Pem { what: &'static str },
    /// Anything that the TLS library does not like.
    #[error("use the TLS certificates that the daemon sent: {0}")]
    Library(#[from] Error),
    /// The client authorities make no verifier.
    #[error("use the TLS certificates that the daemon sent: {0}")]
    Verifier(#[from] rustls::server::VerifierBuilderError),
}

/// What connections are secured with.
#[derive(Clone)]
pub(crate) struct Tls {
    /// Connections that peers open.
    pub(crate) server: Arc<ServerConfig>,
    /// Connections that we open.
    pub(crate) client: Arc<ClientConfig>,
}

impl Tls {
    pub(crate) fn new(identity: &TlsIdentity) -> Result<Self, TlsError> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let chain = certificates(&identity.chain_pem, "the chain")?;
        let roots = Arc::new(roots(&identity.client_ca_pem)?);
        let key =
            || PrivateKeyDer::from_pem_slice(identity.key_pem.expose()).map_err(|_| TlsError::Pem { what: "the key" });

        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider)).with_protocol_versions(&VERSIONS)?;
        let builder = if roots.is_empty() {
            builder.with_no_client_auth()
        } else {
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::clone(&roots), Arc::clone(&provider));
            let verifier =
                if identity.client_certificate_optional { verifier.allow_unauthenticated() } else { verifier };
            builder.with_client_cert_verifier(verifier.build()?)
        };
        let mut server = builder.with_single_cert(chain.clone(), key()?)?;
        server.session_storage = Arc::new(NoServerSessionStorage {});
        server.send_tls13_tickets = 0;

        let verifier = PeerVerifier { roots, provider: Arc::clone(&provider) };
        let mut client = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&VERSIONS)?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier))
            .with_client_auth_cert(chain, key()?)?;
        client.resumption = Resumption::disabled();
        // The peer is known by its address alone.
        client.enable_sni = false;
        Ok(Self { server: Arc::new(server), client: Arc::new(client) })
    }
}

fn certificates(pem: &[u8], what: &'static str) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    CertificateDer::pem_slice_iter(pem).collect::<Result<_, _>>().map_err(|_| TlsError::Pem { what })
}

fn roots(pem: &[u8]) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(pem, "the client authorities")? {
        roots.add(certificate)?;
    }
    Ok(roots)
}

/// Looks at the certificate of a peer to which we have opened a connection. Where that leads is what the peer said in its Contact, an
/// address, and certificates name hosts: so what is looked at is who signed it, not whom it names. Without authorities any will do,
/// as a client without a certificate does in the other direction.
#[derive(Debug)]
struct PeerVerifier {
    roots: Arc<RootCertStore>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for PeerVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        if !self.roots.is_empty() {
            let certificate = ParsedCertificate::try_from(end_entity)?;
            let algorithms = self.provider.signature_verification_algorithms.all;
            verify_server_cert_signed_by_trust_anchor(&certificate, &self.roots, intermediates, now, algorithms)?;
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signature, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signature, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// Why a handshake failed.
pub(crate) fn failure(error: &io::Error) -> HandshakeFailure {
    let Some(error) = error.get_ref().and_then(|inner| inner.downcast_ref::<Error>()) else {
        return match error.kind() {
            io::ErrorKind::UnexpectedEof
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionAborted
            | io::ErrorKind::BrokenPipe => HandshakeFailure::Closed,
            _ => HandshakeFailure::Other,
        };
    };
    match error {
        Error::InvalidMessage(InvalidMessage::InvalidContentType) => HandshakeFailure::Plaintext,
        Error::NoCertificatesPresented => HandshakeFailure::NoClientCertificate,
        Error::InvalidCertificate(error) => match error {
            // A wrong signature is what an authority of the same name and another key makes.
            CertificateError::UnknownIssuer | CertificateError::BadSignature => HandshakeFailure::UnknownAuthority,
            CertificateError::Expired
            | CertificateError::ExpiredContext { .. }
            | CertificateError::NotValidYet
            | CertificateError::NotValidYetContext { .. } => HandshakeFailure::Expired,
            _ => HandshakeFailure::BadCertificate,
        },
        Error::AlertReceived(_) => HandshakeFailure::RefusedByPeer,
        Error::PeerIncompatible(_) => HandshakeFailure::Incompatible,
        _ => HandshakeFailure::Other,
    }
}

#[cfg(test)]
mod tests;
