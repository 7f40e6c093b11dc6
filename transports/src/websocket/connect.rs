//! From a coordinator's origin to an open WebSocket, each step with its own failure.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::ClientConfig;
use tokio::net::{TcpStream, lookup_host};
use tokio::sync::OnceCell;
use tokio::time::timeout_at;
use tokio_tungstenite::tungstenite::Error as WsError;
use tokio_tungstenite::tungstenite::http::StatusCode;
use tokio_tungstenite::tungstenite::http::header::RETRY_AFTER;
use tokio_tungstenite::{Connector, client_async_tls_with_config};
use url::Url;

use super::{WebSocketLink, config};
use crate::race::first_success;
use crate::tls::{TlsTrust, TrustError, client_config};
use crate::transport::{LinkRole, PeerLink};

/// Why there is no uplink.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// Not `http://host` or `https://host`, with an optional port.
    #[error("{origin:?} is not an http or https origin")]
    BadOrigin {
        /// As given.
        origin: String,
    },
    /// The name has no address here and now.
    #[error("name {host} cannot be resolved")]
    Dns {
        /// The name.
        host: String,
        /// What the resolver said; none when it knows the name but no address.
        #[source]
        source: Option<io::Error>,
    },
    /// The machine answers, the port does not: nothing listens there.
    #[error("{addr} refused the connection")]
    Refused {
        /// The last address tried.
        addr: SocketAddr,
    },
    /// No connection to any address of the name.
    #[error("{addr} is unreachable")]
    Unreachable {
        /// The last address tried.
        addr: SocketAddr,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Not done by the deadline.
    #[error("no answer within {waited:?}")]
    TimedOut {
        /// How long.
        waited: Duration,
    },
    /// This machine has nothing to check a certificate with.
    #[error("no certificate can be checked")]
    Trust(#[from] TrustError),
    /// The server's certificate or TLS was refused.
    #[error("TLS failed")]
    Tls(#[source] io::Error),
    /// The server speaks HTTP but gave no WebSocket: wrong origin, a proxy in between, or overload.
    #[error("HTTP status {status}")]
    Http {
        /// The status code.
        status: u16,
        /// When the server asks to be tried again.
        retry_after: Option<Duration>,
    },
    /// What answered is no WebSocket server.
    #[error("not a WebSocket server")]
    NotWebSocket(#[source] Box<WsError>),
}

/// Opens uplinks. Reads the root certificates at the first `https` origin and keeps them.
#[derive(Debug, Default)]
pub struct WebSocketConnector {
    trust: TlsTrust,
    tls: OnceCell<Arc<ClientConfig>>,
}

impl WebSocketConnector {
    /// A connector that trusts the machine's roots and `trust`.
    pub fn new(trust: TlsTrust) -> Self {
        Self { trust, tls: OnceCell::new() }
    }

    /// Opens `/v2/link` at the coordinator's origin by `deadline`. The link is a plain carrier: the
    /// hello above it proves both ends. Cancel safe: dropping the future closes the socket.
    pub async fn connect(&self, origin: &str, deadline: Instant) -> Result<Box<dyn PeerLink>, ConnectError> {
        let started = Instant::now();
        match timeout_at(deadline.into(), self.open(origin)).await {
            Ok(outcome) => outcome,
            Err(_) => Err(ConnectError::TimedOut { waited: started.elapsed() }),
        }
    }

    async fn open(&self, origin: &str) -> Result<Box<dyn PeerLink>, ConnectError> {
        let target =
            Target::parse(origin).ok_or_else(|| ConnectError::BadOrigin { origin: origin.to_owned() })?;
        let connector = match target.tls {
            true => Connector::Rustls(self.tls.get_or_try_init(|| self.load()).await?.clone()),
            false => Connector::Plain,
        };
        let socket = connect_tcp(&target.host, target.port).await?;
        let remote = socket.peer_addr().ok();
        let (stream, _response) =
            client_async_tls_with_config(target.url.as_str(), socket, Some(config()), Some(connector))
                .await
                .map_err(|error| handshake_error(error, &target))?;
        Ok(Box::new(WebSocketLink::new(stream, LinkRole::Dialler, remote)))
    }

    /// Hundreds of files: not on a runtime worker.
    async fn load(&self) -> Result<Arc<ClientConfig>, TrustError> {
        let trust = self.trust.clone();
        tokio::task::spawn_blocking(move || client_config(&trust))
            .await
            .expect("loading roots does not panic")
    }
}

/// An origin taken apart.
#[derive(Debug, PartialEq, Eq)]
struct Target {
    url: String,
    tls: bool,
    host: String,
    port: u16,
}

impl Target {
    fn parse(origin: &str) -> Option<Self> {
        let url = Url::parse(origin).ok()?;
        let (scheme, tls) = match url.scheme() {
            "http" => ("ws", false),
            "https" => ("wss", true),
            _ => return None,
        };
        let bare = url.path() == "/" && url.query().is_none() && url.fragment().is_none();
        if !bare || !url.username().is_empty() || url.password().is_some() {
            return None;
        }
        let host = url.host_str()?;
        let port = url.port_or_known_default()?;
        Some(Self {
            url: format!("{scheme}://{host}:{port}{LINK_PATH}"),
            tls,
            host: host.trim_start_matches('[').trim_end_matches(']').to_owned(),
            port,
        })
    }
}

async fn connect_tcp(host: &str, port: u16) -> Result<TcpStream, ConnectError> {
    let unresolved = |source| ConnectError::Dns { host: host.to_owned(), source };
    let addresses: Vec<SocketAddr> =
        lookup_host((host, port)).await.map_err(|error| unresolved(Some(error)))?.collect();
    let attempts = addresses
        .into_iter()
        .map(|addr| async move { TcpStream::connect(addr).await.map_err(|error| (addr, error)) });
    let socket = match first_success(attempts, ADDRESS_STAGGER).await {
        Ok(socket) => socket,
        Err(mut errors) => {
            let Some((addr, source)) = errors.pop() else { return Err(unresolved(None)) };
            let refused = source.kind() == io::ErrorKind::ConnectionRefused;
            return Err(if refused {
                ConnectError::Refused { addr }
            } else {
                ConnectError::Unreachable { addr, source }
            });
        }
    };
    if let Err(error) = socket.set_nodelay(true) {
        tracing::debug!(%error, "The kernel keeps Nagle's algorithm.");
    }
    Ok(socket)
}

fn handshake_error(error: WsError, target: &Target) -> ConnectError {
    if let WsError::Http(response) = &error {
        let retry_after = response
            .headers()
            .get(RETRY_AFTER)
            .and_then(|value| value.to_str().ok()?.parse().ok())
            .map(Duration::from_secs);
        if response.status() != StatusCode::SWITCHING_PROTOCOLS {
            return ConnectError::Http { status: response.status().as_u16(), retry_after };
        }
    }
    if let WsError::Io(source) = error {
        // Inside a TLS handshake the provider's verdict comes as an IO error.
        let tls = target.tls && source.get_ref().is_some_and(|inner| inner.is::<rustls::Error>());
        return if tls {
            ConnectError::Tls(source)
        } else {
            ConnectError::NotWebSocket(Box::new(source.into()))
        };
    }
    ConnectError::NotWebSocket(Box::new(error))
}

/// Where the coordinator takes links.
const LINK_PATH: &str = "/v2/link";

/// Head start of one address on the next (RFC 8305 §5 asks for 100 ms to 2 s).
const ADDRESS_STAGGER: Duration = Duration::from_millis(100);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_origin_becomes_the_link_address() {
        let url = |origin| Target::parse(origin).map(|target| target.url);
        assert_eq!(url("https://mesh.example").as_deref(), Some("wss://mesh.example:443/v2/link"));
        assert_eq!(url("http://127.0.0.1:7700").as_deref(), Some("ws://127.0.0.1:7700/v2/link"));
        assert_eq!(url("http://[::1]:7700").as_deref(), Some("ws://[::1]:7700/v2/link"));
        assert_eq!(Target::parse("http://[::1]:7700").unwrap().host, "::1");
    }

    #[test]
    fn what_is_no_origin_is_refused() {
        for refused in
            ["", "mesh.example", "ftp://a", "https://a/x", "https://a?x", "https://a#x", "https://u@a"]
        {
            assert_eq!(Target::parse(refused), None, "{refused}");
        }
    }
}
