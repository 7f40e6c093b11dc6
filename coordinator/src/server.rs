//! From a configuration to a listening process and back.
//!
//! 1. [`serve`]     data directory, store, key, sockets, hub: whatever is wrong is said before anyone connects
//! 2. `accept`      the accept loop, `server/accept.rs`
//! 3. `stop`        not ready, no new connections, everybody told when to come back, all commits flushed

mod accept;

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use peerloom_proto::{IdentityKey, Origin, PeerId};
use tokio::net::{TcpListener, TcpSocket, UdpSocket};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::config::{Config, Stun, StunSecond, Tls};
use crate::datadir::{DataDir, DataDirError, MeshToken, TokenOrigin};
use crate::engine::{self, EngineError};
use crate::http::{App, Creation, StunPlaces, router};
use crate::hub::HubConfig;
use crate::metrics::Metrics;
use crate::rate::Allowance;
use crate::store::{Store, StoreError};
use crate::tls::TlsError;
use accept::Acceptor;
pub(crate) use accept::ConnectionGuard;

/// Connections still open this long after the hub has ended are dropped: the whole drain stays
/// within ten seconds.
const LINGER_MAX: Duration = Duration::from_secs(2);

/// Connections the kernel holds until they are accepted. After a restart all nodes come at once, and
/// one that finds the queue full waits a second before it tries again.
const LISTEN_BACKLOG: u32 = 4_096;

/// Ports tried for a listener and its STUN responder when the system chooses the port.
const PORT_PAIRS_TRIED: usize = 16;

/// Why the server did not start, or ended by itself.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServeError {
    /// The data directory, its key or its token.
    #[error(transparent)]
    DataDir(#[from] DataDirError),
    /// The database.
    #[error(transparent)]
    Store(StoreError),
    /// The hub or a thread of its.
    #[error(transparent)]
    Engine(EngineError),
    /// The certificate files.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The TCP port.
    #[error("failed to listen on {address}: is another server there? Choose another --listen")]
    Listen {
        /// As configured.
        address: SocketAddr,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// A UDP port.
    #[error("failed to open the STUN port {address}/udp: choose another {flag}, or {flag} off")]
    Stun {
        /// What it was configured by.
        flag: &'static str,
        /// As configured.
        address: SocketAddr,
        /// The cause.
        #[source]
        source: io::Error,
    },
}

impl ServeError {
    /// What the process ends with, and the same as a name.
    pub fn exit_code(&self) -> (u8, &'static str) {
        match self {
            Self::DataDir(error) => error.exit_code(),
            Self::Store(error) => error.exit_code(),
            Self::Engine(_) => FAILED,
            Self::Tls(_) => (2, "usage"),
            Self::Listen { source, .. } | Self::Stun { source, .. } => io_exit_code(source),
        }
    }
}

/// The exit code of what has no code of its own.
pub(crate) const FAILED: (u8, &str) = (1, "failed");

/// The exit code of a failed system call.
pub(crate) fn io_exit_code(error: &io::Error) -> (u8, &'static str) {
    if error.kind() == io::ErrorKind::PermissionDenied { (5, "denied") } else { FAILED }
}

impl From<StoreError> for ServeError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl From<EngineError> for ServeError {
    fn from(error: EngineError) -> Self {
        match error {
            EngineError::Store(error) => Self::Store(error),
            other @ (EngineError::Thread(_) | EngineError::Entropy(_) | EngineError::Panicked) => {
                Self::Engine(other)
            }
        }
    }
}

/// What a person or a script wants to know once the port answers.
#[derive(Debug)]
pub struct Started {
    /// Where it listens.
    pub url: String,
    /// What nodes know it as.
    pub origin: Origin,
    /// Its public key.
    pub coordinator: PeerId,
    /// The STUN responder's address.
    pub stun: Option<SocketAddr>,
    /// The second STUN responder's address.
    pub stun_second: Option<SocketAddr>,
    /// Everything it keeps.
    pub data: PathBuf,
    /// The token for creating meshes, if this start made it: shown now or looked up in the file.
    pub mesh_token: Option<String>,
}

/// Runs until `shutdown`, then drains. `started` is called once, when the port answers.
pub async fn serve(
    config: &Config,
    shutdown: impl Future<Output = ()>,
    started: impl FnOnce(Started),
) -> Result<(), ServeError> {
    let dir = DataDir::open(&config.data)?;
    let acceptor = match &config.tls {
        Tls::Off => None,
        Tls::Files { certificate, key } => Some(crate::tls::acceptor(certificate, key)?),
    };
    let mut store = Store::open(dir.path(), dir.identity()).await?;
    let key = dir.key(store.serves_meshes().await?)?;
    let Sockets { tcp, bound, stun } = bind(config).await?;
    let stun_second = bind_second(config, stun.as_ref()).await?;
    let origin = config.origin_at(bound);
    let (creation, mesh_token) = creation(&dir, &origin, bound)?;
    let metrics = Metrics::default();
    let coordinator = key.id();
    let health = store.health();
    let (engine, threads) =
        engine::start(hub_config(config, key, origin.clone()), store, metrics.clone()).await?;
    let [stun_address, second_address] =
        [&stun, &stun_second].map(|socket| socket.as_ref().and_then(|socket| socket.local_addr().ok()));
    let app = Arc::new(App {
        engine: engine.clone(),
        coordinator,
        origin: origin.clone(),
        creation,
        stun: StunPlaces::new(stun_address, second_address),
        trusted_proxies: config.trusted_proxies.clone(),
        store: health,
        draining: AtomicBool::new(false),
        registry: metrics.registry(),
        metrics: metrics.clone(),
    });

    let stop = CancellationToken::new();
    let tasks = TaskTracker::new();
    for socket in stun.into_iter().chain(stun_second) {
        tasks.spawn(crate::stun::serve(socket, metrics.clone(), stop.clone()));
    }
    let scheme = if acceptor.is_some() { "https" } else { "http" };
    let accepting = Acceptor::new(router(Arc::clone(&app)), acceptor, config.connections_max, metrics);
    tasks.spawn(accepting.run(tcp, stop.clone(), tasks.clone()));
    started(Started {
        url: format!("{scheme}://{bound}"),
        origin,
        coordinator,
        stun: stun_address,
        stun_second: second_address,
        data: config.data.clone(),
        mesh_token,
    });

    let mut ended = std::pin::pin!(threads.ended());
    let result = tokio::select! {
        result = &mut ended => result,
        () = shutdown => {
            tracing::info!("Draining.");
            app.draining.store(true, Ordering::Relaxed);
            if engine.drain().await.is_err() {
                tracing::debug!("The hub had ended before it was asked to.");
            }
            stop.cancel();
            ended.await
        }
    };
    stop.cancel();
    tasks.close();
    if tokio::time::timeout(LINGER_MAX, tasks.wait()).await.is_err() {
        tracing::debug!(open = tasks.len(), "Connections dropped.");
    }
    Ok(result?)
}

struct Sockets {
    tcp: TcpListener,
    bound: SocketAddr,
    stun: Option<UdpSocket>,
}

async fn bind(config: &Config) -> Result<Sockets, ServeError> {
    let address = config.listen;
    for attempt in 1..=PORT_PAIRS_TRIED {
        let failed = |source| ServeError::Listen { address, source };
        let tcp = listen(address).map_err(failed)?;
        let bound = tcp.local_addr().map_err(failed)?;
        let stun = match config.stun {
            Stun::Off => return Ok(Sockets { tcp, bound, stun: None }),
            Stun::BesideListener => bound,
            Stun::At(address) => address,
        };
        match UdpSocket::bind(stun).await {
            Ok(socket) => return Ok(Sockets { tcp, bound, stun: Some(socket) }),
            // The system chose a port that is free for TCP alone: let it choose again.
            Err(source)
                if source.kind() == io::ErrorKind::AddrInUse && address.port() == 0 && stun == bound =>
            {
                tracing::debug!(attempt, "UDP port taken.");
            }
            Err(source) => return Err(ServeError::Stun { flag: "--stun", address: stun, source }),
        }
    }
    Err(ServeError::Listen { address, source: io::ErrorKind::AddrInUse.into() })
}

/// The companion of the first responder. Whatever port it gets is announced, so any will do.
async fn bind_second(config: &Config, first: Option<&UdpSocket>) -> Result<Option<UdpSocket>, ServeError> {
    let Some(first) = first.and_then(|socket| socket.local_addr().ok()) else { return Ok(None) };
    let next = SocketAddr::new(first.ip(), first.port().wrapping_add(1));
    let address = match config.stun_second {
        StunSecond::Off => return Ok(None),
        StunSecond::NextPort => match UdpSocket::bind(next).await {
            Ok(socket) => return Ok(Some(socket)),
            Err(error) => {
                tracing::debug!(%error, port = next.port(), "The STUN port next up is taken.");
                SocketAddr::new(first.ip(), 0)
            }
        },
        StunSecond::At(address) => address,
    };
    let failed = |source| ServeError::Stun { flag: "--stun-second", address, source };
    UdpSocket::bind(address).await.map(Some).map_err(failed)
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    // A restart must not wait for the old connections' TIME_WAIT.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(LISTEN_BACKLOG)
}

/// Who may create meshes, and the token if it is to be shown. Only what nobody else can reach needs
/// none: both the origin and the listener are loopback.
fn creation(
    dir: &DataDir,
    origin: &Origin,
    bound: SocketAddr,
) -> Result<(Creation, Option<String>), DataDirError> {
    if origin.is_loopback() && bound.ip().is_loopback() {
        return Ok((Creation::Open, None));
    }
    let MeshToken { text, origin } = dir.mesh_token()?;
    let shown = match origin {
        TokenOrigin::Kept => None,
        TokenOrigin::Made => Some(text.to_string()),
    };
    Ok((Creation::Token(text), shown))
}

fn hub_config(config: &Config, key: IdentityKey, origin: Origin) -> HubConfig {
    let hellos = f64::from(config.hellos_per_second);
    HubConfig {
        hellos: Allowance { per_second: hellos, burst: 3.0 * hellos },
        member_messages: Allowance::sustained(config.member_messages_per_second),
        member_bytes: Allowance::sustained(config.member_bytes_per_second),
        ..HubConfig::new(key, origin)
    }
}

#[cfg(test)]
mod tests;
