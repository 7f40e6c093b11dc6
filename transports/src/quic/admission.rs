//! Who is let in: a connection whose certificate is expected, once it has named its attempt.

use std::sync::Arc;

use peerloom_proto::limits::HANDSHAKE_TIMEOUT;
use peerloom_proto::{CertHash, ConnId};
use quinn::{Connection, Endpoint, Incoming};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tracing::{debug, trace};

use super::link::{QuicLink, link_error};
use super::{close_code, credential};
use crate::expected::Expectations;
use crate::transport::{CloseReason, LinkError, LinkRole, PeerLink};

/// What an inbound connection is judged by, and where it goes.
#[derive(Clone, Debug)]
pub(super) struct Admission {
    pub(super) local_cert: CertHash,
    pub(super) expected: Arc<Expectations>,
    pub(super) links: mpsc::Sender<Box<dyn PeerLink>>,
}

pub(super) async fn admit_all(endpoint: Endpoint, admission: Admission) {
    let mut handshakes = JoinSet::new();
    while let Some(incoming) = endpoint.accept().await {
        while handshakes.try_join_next().is_some() {}
        if admission.expected.is_empty() || handshakes.len() >= HANDSHAKES_MAX {
            incoming.refuse();
            continue;
        }
        // A flood from forged addresses must not keep the real peer out.
        if handshakes.len() >= HANDSHAKES_UNVALIDATED_MAX && !incoming.remote_address_validated() {
            if incoming.retry().is_err() {
                trace!("Address was validated after all; the peer will try again.");
            }
            continue;
        }
        handshakes.spawn(admit_in_time(incoming, admission.clone()));
    }
}

async fn admit_in_time(incoming: Incoming, admission: Admission) {
    match timeout(HANDSHAKE_TIMEOUT, admit(incoming, admission)).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => debug!(%error, "Inbound QUIC connection refused."),
        Err(_) => debug!("Inbound QUIC connection never named its attempt."),
    }
}

async fn admit(incoming: Incoming, admission: Admission) -> Result<(), LinkError> {
    let connection = incoming.await.map_err(|error| link_error(&error))?;
    let Some(peer_cert) = credential::peer_cert(&connection) else {
        return Err(refuse(&connection));
    };
    let (send, mut recv) = connection.accept_bi().await.map_err(|error| link_error(&error))?;
    let mut conn = ConnId([0; ConnId::LEN]);
    if recv.read_exact(&mut conn.0).await.is_err() {
        return Err(refuse(&connection));
    }
    if !admission.expected.take(&conn, &peer_cert) {
        return Err(refuse(&connection));
    }
    let link =
        QuicLink::new(connection, LinkRole::Acceptor, conn, admission.local_cert, peer_cert, send, recv);
    // Waiting for room is bounded by the handshake's time; a link nobody takes is dropped and closed.
    admission.links.send(Box::new(link)).await.map_err(|_| LinkError::Closed(CloseReason::ShuttingDown))
}

fn refuse(connection: &Connection) -> LinkError {
    connection.close(close_code(CloseReason::Refused), b"");
    LinkError::Closed(CloseReason::Refused)
}

/// Handshakes in progress; beyond it peers are refused and stay on the relay.
pub(super) const HANDSHAKES_MAX: usize = 64;

/// Handshakes in progress before a peer must prove its address first (RFC 9000 §8.1.2).
const HANDSHAKES_UNVALIDATED_MAX: usize = 16;
