//! The accept loop. A connection costs a permit from the first byte to the last, also after it
//! became a link; who says nothing for ten seconds loses it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::ConnectInfo;
use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use prometheus_client::metrics::gauge::Gauge;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::ServiceExt;

use crate::metrics::Metrics;

/// A request's header, a TLS handshake and an idle keep-alive each may take this long.
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);

/// Largest request header. Ours are under 1 KiB; the library's own minimum is 8 KiB.
const HEADER_BYTES_MAX: usize = 16 << 10;

/// Pause after an accept that failed for want of file descriptors or memory: the connection stays
/// in the kernel's queue, and trying at once would only burn the processor.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// One connection under the cap. The permit returns when the last holder lets go.
#[derive(Debug)]
pub(crate) struct ConnectionGuard {
    _permit: OwnedSemaphorePermit,
    open: Gauge,
}

impl Drop for ConnectionGuard {
    fn drop(&mut self) {
        self.open.dec();
    }
}

/// What every connection needs.
#[derive(Clone)]
pub(super) struct Acceptor {
    router: Router,
    tls: Option<TlsAcceptor>,
    permits: Arc<Semaphore>,
    metrics: Metrics,
}

impl Acceptor {
    pub(super) fn new(
        router: Router,
        tls: Option<TlsAcceptor>,
        connections_max: usize,
        metrics: Metrics,
    ) -> Self {
        let permits = Arc::new(Semaphore::new(connections_max.min(Semaphore::MAX_PERMITS)));
        Self { router, tls, permits, metrics }
    }

    /// Accepts until `stop`. Dropping the listener refuses what the kernel has not handed over.
    pub(super) async fn run(self, listener: TcpListener, stop: CancellationToken, tasks: TaskTracker) {
        loop {
            let accepted = tokio::select! {
                () = stop.cancelled() => return,
                accepted = listener.accept() => accepted,
            };
            let (socket, peer) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::warn!(%error, "Accept failed.");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            self.metrics.connections_accepted.inc();
            let Ok(permit) = Arc::clone(&self.permits).try_acquire_owned() else {
                self.metrics.connections_over_cap.inc();
                continue;
            };
            self.metrics.connections.inc();
            let guard = ConnectionGuard { _permit: permit, open: self.metrics.connections.clone() };
            tasks.spawn(self.clone().connection(socket, peer, Arc::new(guard), stop.clone()));
        }
    }

    async fn connection(
        self,
        socket: TcpStream,
        peer: SocketAddr,
        guard: Arc<ConnectionGuard>,
        stop: CancellationToken,
    ) {
        if let Err(error) = socket.set_nodelay(true) {
            tracing::debug!(%error, "The connection was gone before it began.");
            return;
        }
        let Self { router, tls, metrics, permits: _ } = self;
        match tls {
            None => http(socket, router, peer, guard, stop).await,
            Some(tls) => match tokio::time::timeout(HEADER_TIMEOUT, tls.accept(socket)).await {
                Ok(Ok(socket)) => http(socket, router, peer, guard, stop).await,
                Ok(Err(error)) => {
                    metrics.tls_failures.inc();
                    tracing::debug!(%error, "TLS handshake failed.");
                }
                Err(_) => {
                    metrics.tls_failures.inc();
                    tracing::debug!("TLS handshake took too long.");
                }
            },
        }
    }
}

/// HTTP/1.1 until the connection closes or becomes a link, which takes the guard with it.
async fn http<S>(
    socket: S,
    router: Router,
    peer: SocketAddr,
    guard: Arc<ConnectionGuard>,
    stop: CancellationToken,
) where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let service = service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(ConnectInfo(peer));
        request.extensions_mut().insert(Arc::clone(&guard));
        router.clone().oneshot(request)
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .max_buf_size(HEADER_BYTES_MAX)
        .serve_connection(TokioIo::new(socket), service)
        .with_upgrades();
    let mut connection = std::pin::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "Connection ended.");
    }
}
