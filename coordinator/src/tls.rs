//! TLS from certificate files. Content does not depend on it (envelopes are sealed end to end); it
//! keeps metadata and bearer tokens from the network.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::TlsAcceptor;

/// Why the certificate files do not make a server.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The chain could not be read.
    #[error("failed to read a PEM certificate chain from {path}")]
    Certificate {
        /// Which file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: pem::Error,
    },
    /// The file has no certificate in it.
    #[error("{path} holds no PEM certificate")]
    NoCertificate {
        /// Which file.
        path: PathBuf,
    },
    /// The key could not be read.
    #[error("failed to read a PEM private key from {path}")]
    Key {
        /// Which file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: pem::Error,
    },
    /// The two do not belong together, or are of a kind that is not supported.
    #[error("certificate {certificate} and key {key} do not work together")]
    Mismatch {
        /// The chain.
        certificate: PathBuf,
        /// The key.
        key: PathBuf,
        /// The cause.
        #[source]
        source: rustls::Error,
    },
}

/// Builds the acceptor once, at start: TLS 1.2 and 1.3, ring, HTTP/1.1 by ALPN.
pub(crate) fn acceptor(certificate: &Path, key: &Path) -> Result<TlsAcceptor, TlsError> {
    let failed = |source| TlsError::Certificate { path: certificate.to_owned(), source };
    let chain: Vec<_> =
        CertificateDer::pem_file_iter(certificate).and_then(Iterator::collect).map_err(failed)?;
    if chain.is_empty() {
        return Err(TlsError::NoCertificate { path: certificate.to_owned() });
    }
    let secret =
        PrivateKeyDer::from_pem_file(key).map_err(|source| TlsError::Key { path: key.to_owned(), source })?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mismatch =
        |source| TlsError::Mismatch { certificate: certificate.to_owned(), key: key.to_owned(), source };
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(mismatch)?
        .with_no_client_auth()
        .with_single_cert(chain, secret)
        .map_err(mismatch)?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}
