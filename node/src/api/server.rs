//! The socket of the local API: one user's, on one machine.
//!
//! The home is 0700 before the socket is bound, the socket is 0600, and the kernel names the user
//! at the other end of every connection: anybody else but root is told so and sent away.

use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::time::Duration;

use axum::extract::DefaultBodyLimit;
use axum::serve::Listener;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::time::timeout;
use tracing::{debug, warn};

use super::{Api, openapi};
use crate::failure::{Failure, Kind};
use crate::home::{Home, HomeError};

/// Why there is no API.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    /// The home gives no place for the socket.
    #[error(transparent)]
    Home(#[from] HomeError),
    /// The socket cannot be made.
    #[error("failed to listen on {}", path.display())]
    Bind {
        /// Where.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

/// The bound socket. Removed when dropped.
#[derive(Debug)]
pub struct ApiSocket {
    listener: UnixListener,
    path: PathBuf,
    uid: u32,
}

impl ApiSocket {
    /// Binds the home's socket. The caller holds the home's lock, so whatever stands there was left
    /// by a process that died.
    pub fn bind(home: &Home) -> Result<Self, ApiError> {
        let path = home.socket()?;
        let failed = |source| ApiError::Bind { path: path.clone(), source };
        match std::fs::remove_file(&path) {
            Ok(()) => debug!("A stale socket was removed."),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(failed(error)),
        }
        let listener = UnixListener::bind(&path).map_err(failed)?;
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(SOCKET_MODE)).map_err(failed)?;
        Ok(Self { listener, path: path.clone(), uid: rustix::process::geteuid().as_raw() })
    }

    /// Serves until the API's token is cancelled and the calls in progress have ended.
    pub async fn serve(self, api: Api) -> io::Result<()> {
        let stop = api.stop.clone();
        let (router, _) = openapi::router().split_for_parts();
        let router = router
            .fallback(no_route)
            .method_not_allowed_fallback(no_method)
            .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
            .with_state(api);
        axum::serve(self, router).with_graceful_shutdown(stop.cancelled_owned()).await
    }

    fn admits(&self, stream: &UnixStream) -> bool {
        match stream.peer_cred() {
            Ok(caller) => caller.uid() == self.uid || caller.uid() == ROOT,
            Err(error) => {
                warn!(%error, "A caller without a user was refused.");
                false
            }
        }
    }
}

impl Listener for ApiSocket {
    type Io = UnixStream;
    type Addr = ();

    async fn accept(&mut self) -> (UnixStream, ()) {
        loop {
            match self.listener.accept().await {
                Ok((stream, _)) if self.admits(&stream) => return (stream, ()),
                // Apart from the loop: a caller that says nothing must not hold up the others.
                Ok((stream, _)) => drop(tokio::spawn(refuse(stream))),
                Err(error) => {
                    // Out of descriptors, most likely: others may be closed in the meantime.
                    warn!(%error, "A call could not be accepted.");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    fn local_addr(&self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for ApiSocket {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_file(&self.path) {
            debug!(%error, "The socket could not be removed.");
        }
    }
}

/// Tells another user's process why it gets nothing.
async fn refuse(mut stream: UnixStream) {
    warn!("Another user's call was refused.");
    let failure = Failure::new(Kind::Denied, "other-user", "this node belongs to another user")
        .next("set PEERLOOM_HOME to a home of your own");
    let body = serde_json::to_string(&failure.to_json()).expect("strings and numbers have a JSON form");
    let answer = format!(
        "HTTP/1.1 403 Forbidden\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    );
    // An answer that comes before the question is none to an HTTP client, and closing on unread
    // bytes would take it back. Whoever it is may be gone already; that is its own affair.
    let told = async {
        let mut unread = [0; 4096];
        if stream.read(&mut unread).await? == 0 {
            return Ok(());
        }
        stream.write_all(answer.as_bytes()).await?;
        stream.shutdown().await?;
        while stream.read(&mut unread).await? > 0 {}
        io::Result::Ok(())
    };
    if !matches!(timeout(REFUSAL_TIMEOUT, told).await, Ok(Ok(()))) {
        debug!("The refused caller did not hear it out.");
    }
}

async fn no_route() -> Failure {
    Failure::new(Kind::NotFound, "no-route", "the local API has no such path")
        .next("GET /v1/openapi.json lists all")
}

async fn no_method() -> Failure {
    Failure::new(Kind::Usage, "no-method", "that path has no such method")
        .next("GET /v1/openapi.json lists all")
}

const SOCKET_MODE: u32 = 0o600;
const ROOT: u32 = 0;
/// One call's body: thousands of messages of a batch, or the largest message as escaped JSON.
const BODY_BYTES_MAX: usize = 64 << 20;
/// Longest attention for a caller that is sent away.
const REFUSAL_TIMEOUT: Duration = Duration::from_secs(1);
/// Between two attempts to accept after a failure.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

#[cfg(test)]
mod tests;
