//! Moves sealed frames between peers and to the coordinator. Sees addresses and sizes; holds no
//! plaintext, keeps no store, chooses no path. Read the modules in this order.

// What a link is.
mod identity;
mod transport;
// What every adapter is made of.
mod end;
mod expected;
mod framing;
mod queue;
mod race;
mod tls;
mod udp;
// One adapter each.
#[cfg(feature = "test-util")]
mod memory;
mod quic;
#[cfg(feature = "webrtc")]
mod webrtc;
mod websocket;
// What every adapter must pass.
#[cfg(feature = "test-util")]
pub mod conformance;

pub use identity::{EXPORTER_LABEL, LinkBinding, cert_hash};
#[cfg(feature = "test-util")]
pub use memory::{MemoryNetwork, MemoryTransport};
pub use quic::{BindError, QuicTransport};
pub use tls::{TlsTrust, TrustError, client_config, provider};
pub use transport::{
    AcceptError, BoxFuture, CloseReason, DialError, ExpectError, LinkError, LinkProperties, LinkRole,
    PathKind, PeerAddr, PeerLink, PeerTransport, SEND_BUFFER_BYTES_MAX,
};
pub use udp::{AddressWatch, CandidateScope, Datagram, bind_udp};
#[cfg(feature = "webrtc")]
pub use webrtc::WebRtcTransport;
pub use websocket::{ConnectError, WebSocketConnector};
