//! TLS towards the coordinator: one crypto provider, named here, and the roots to trust. The node uses
//! the same configuration for the WebSocket and for HTTP.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::{self, PemObject};
use rustls::{ClientConfig, RootCertStore};
use tracing::debug;

/// What to trust beside the machine's own roots.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TlsTrust {
    /// A PEM file of further certificate authorities.
    pub extra_ca: Option<PathBuf>,
}

/// Why there is no trust to check a certificate with.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TrustError {
    /// The file could not be read or is not PEM.
    #[error("certificate file {} is unreadable", path.display())]
    Unreadable {
        /// As configured.
        path: PathBuf,
        /// What the reader said.
        #[source]
        source: pem::Error,
    },
    /// The file is PEM but a certificate in it is not usable as an authority.
    #[error("certificate file {} holds no usable authority", path.display())]
    Unusable {
        /// As configured.
        path: PathBuf,
        /// What the parser said; none when the file holds no certificate.
        #[source]
        source: Option<rustls::Error>,
    },
    /// Neither the machine nor the configuration names an authority.
    #[error("this machine has no root certificates; install ca-certificates or name a file")]
    NoRoots(#[source] Option<io::Error>),
}

/// The provider of all cryptography in TLS here. Never the process default, which another library of
/// the same process may set or unset.
pub fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// A client configuration that trusts the machine's roots and `trust`. Reads files: keep the result.
pub fn client_config(trust: &TlsTrust) -> Result<Arc<ClientConfig>, TrustError> {
    let mut roots = RootCertStore::empty();
    let native = rustls_native_certs::load_native_certs();
    let (added, ignored) = roots.add_parsable_certificates(native.certs);
    debug!(added, ignored, errors = native.errors.len(), "Root certificates loaded.");
    if let Some(path) = &trust.extra_ca {
        add_file(&mut roots, path)?;
    }
    if roots.is_empty() {
        return Err(TrustError::NoRoots(native.errors.into_iter().next().map(io::Error::other)));
    }
    let config = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .expect("ring supports TLS 1.2 and 1.3")
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(Arc::new(config))
}

fn add_file(roots: &mut RootCertStore, path: &PathBuf) -> Result<(), TrustError> {
    let unreadable = |source| TrustError::Unreadable { path: path.clone(), source };
    let before = roots.len();
    for certificate in CertificateDer::pem_file_iter(path).map_err(unreadable)? {
        let certificate = certificate.map_err(unreadable)?;
        roots
            .add(certificate)
            .map_err(|source| TrustError::Unusable { path: path.clone(), source: Some(source) })?;
    }
    if roots.len() == before {
        return Err(TrustError::Unusable { path: path.clone(), source: None });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_certificate_file_is_named_in_the_error() {
        let trust = TlsTrust { extra_ca: Some(PathBuf::from("/nonexistent/ca.pem")) };
        let error = client_config(&trust).unwrap_err();
        assert_eq!(error.to_string(), "certificate file /nonexistent/ca.pem is unreadable");
    }

    #[test]
    fn a_file_without_certificates_is_refused() {
        let path = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml"));
        let error = client_config(&TlsTrust { extra_ca: Some(path) }).unwrap_err();
        assert!(matches!(error, TrustError::Unusable { source: None, .. }), "{error:?}");
    }
}
