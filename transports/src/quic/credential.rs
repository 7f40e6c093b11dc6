//! The certificate of this process and the two verifiers. A certificate is nothing but a hash that
//! sealed signalling named; the signature that proves its possession is checked by the provider.

use std::sync::{Arc, OnceLock};

use peerloom_proto::CertHash;
use quinn::Connection;
use rcgen::{CertificateParams, KeyPair, PKCS_ED25519};
use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer, ServerName, UnixTime};
use rustls::server::NoServerSessionStorage;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::version::TLS13;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, DistinguishedName, Error, PeerIncompatible,
    ServerConfig, SignatureScheme,
};

use super::BindError;
use crate::expected::Expectations;
use crate::identity::cert_hash;
use crate::tls::provider;

/// Named in certificates and never looked at: the hash decides. It is not sent either.
pub(super) const SERVER_NAME: &str = "peerloom";

const ALPN: &[u8] = b"peerloom/2";

/// A self-signed ed25519 certificate and its key, in memory only.
#[derive(Clone, Debug)]
pub(super) struct Credential {
    resolver: Arc<SingleCertAndKey>,
    hash: CertHash,
}

impl Credential {
    pub(super) fn generate() -> Result<Self, BindError> {
        let key = KeyPair::generate_for(&PKCS_ED25519)?;
        let certificate = CertificateParams::new(vec![SERVER_NAME.to_owned()])?.self_signed(&key)?;
        let der = certificate.der().clone();
        let hash = cert_hash(&der);
        let signer =
            provider().key_provider.load_private_key(PrivatePkcs8KeyDer::from(key.serialize_der()).into())?;
        let resolver = Arc::new(SingleCertAndKey::from(CertifiedKey::new(vec![der], signer)));
        Ok(Self { resolver, hash })
    }

    pub(super) fn hash(&self) -> CertHash {
        self.hash
    }

    pub(super) fn client_config(&self, verifier: Arc<dyn ServerCertVerifier>) -> ClientConfig {
        let mut config = ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&TLS13])
            .expect("ring supports TLS 1.3")
            .dangerous()
            .with_custom_certificate_verifier(verifier)
            .with_client_cert_resolver(self.resolver.clone());
        config.alpn_protocols = vec![ALPN.to_vec()];
        config.resumption = Resumption::disabled();
        config.enable_sni = false;
        config
    }

    pub(super) fn server_config(&self, expected: Arc<Expectations>) -> ServerConfig {
        let mut config = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&TLS13])
            .expect("ring supports TLS 1.3")
            .with_client_cert_verifier(Arc::new(ExpectedClients { expected, algorithms: algorithms() }))
            .with_cert_resolver(self.resolver.clone());
        config.alpn_protocols = vec![ALPN.to_vec()];
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        config
    }
}

/// The hash of the certificate the peer proved to hold; none if it proved none or several.
pub(super) fn peer_cert(connection: &Connection) -> Option<CertHash> {
    let chain = connection.peer_identity()?.downcast::<Vec<CertificateDer<'static>>>().ok()?;
    match chain.as_slice() {
        [end_entity] => Some(cert_hash(end_entity)),
        _ => None,
    }
}

/// Dialler's side: exactly one certificate will do.
#[derive(Debug)]
pub(super) struct ExpectedServer {
    expected: CertHash,
    mismatch: OnceLock<CertHash>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl ExpectedServer {
    pub(super) fn new(expected: CertHash) -> Self {
        Self { expected, mismatch: OnceLock::new(), algorithms: algorithms() }
    }

    /// The first other certificate that was presented.
    pub(super) fn mismatch(&self) -> Option<CertHash> {
        self.mismatch.get().copied()
    }
}

impl ServerCertVerifier for ExpectedServer {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let presented = cert_hash(end_entity);
        if presented == self.expected {
            return Ok(ServerCertVerified::assertion());
        }
        self.mismatch.get_or_init(|| presented);
        Err(CertificateError::ApplicationVerificationFailure.into())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(Error::PeerIncompatible(PeerIncompatible::Tls12NotOffered))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

/// Acceptor's side: a certificate some live expectation names. The conn id on the stream decides
/// which one.
#[derive(Debug)]
struct ExpectedClients {
    expected: Arc<Expectations>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl ClientCertVerifier for ExpectedClients {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        if self.expected.names(&cert_hash(end_entity)) {
            return Ok(ClientCertVerified::assertion());
        }
        Err(CertificateError::ApplicationVerificationFailure.into())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(Error::PeerIncompatible(PeerIncompatible::Tls12NotOffered))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

fn algorithms() -> WebPkiSupportedAlgorithms {
    provider().signature_verification_algorithms
}
