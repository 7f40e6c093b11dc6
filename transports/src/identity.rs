//! What ties a link to the statement that names its two ends. Nothing here decides whom to trust:
//! the node compares these values with signalling and with the signed `bind` (protocol.md §9).

use std::fmt;

use peerloom_proto::{CertHash, ConnId, sha256};

/// TLS exporter label of the bind; the context is the conn id, the length 32 bytes.
pub const EXPORTER_LABEL: &[u8] = b"EXPORTER-peerloom-bind";

/// SHA-256 of a certificate's DER.
pub fn cert_hash(der: &[u8]) -> CertHash {
    CertHash(sha256(der))
}

/// What both ends of a direct link know of it and nobody between them can forge.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct LinkBinding {
    /// The attempt this link belongs to.
    pub conn: ConnId,
    /// The certificate this side presented.
    pub local_cert: CertHash,
    /// The certificate the peer proved to hold.
    pub peer_cert: CertHash,
    /// Keying material equal at both ends of one TLS session; none where the transport has no
    /// exporter. QUIC has one: a bind over QUIC without it is to be refused.
    pub exporter: Option<[u8; 32]>,
}

impl fmt::Debug for LinkBinding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LinkBinding")
            .field("conn", &self.conn)
            .field("local_cert", &self.local_cert)
            .field("peer_cert", &self.peer_cert)
            .finish_non_exhaustive()
    }
}
