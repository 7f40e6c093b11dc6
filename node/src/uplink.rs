//! The socket to the coordinator. The machine says when to connect, what to send and when to close;
//! this file moves frames and reports what became of the socket.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use peerloom_proto::Origin;
use peerloom_proto::endpoint::Input;
use peerloom_proto::limits::HANDSHAKE_TIMEOUT;
use peerloom_transports::{CloseReason, LinkError, PeerLink, TlsTrust, WebSocketConnector};
use tokio::runtime::Handle;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::clock::deadline;
use crate::engine::{Inlet, Source};
use crate::failure::chain;
use crate::outlet::{Outflow, Outlet, outlet};

/// Owned by the engine's thread.
#[derive(Debug)]
pub(crate) struct Uplink {
    origin: Origin,
    connector: Arc<WebSocketConnector>,
    inlet: Inlet,
    runtime: Handle,
    /// Counts the sockets of this process: what an old one still reports is not for the machine.
    serial: u64,
    live: Option<Live>,
}

#[derive(Debug)]
struct Live {
    outlet: Outlet,
    task: JoinHandle<()>,
}

impl Uplink {
    pub(crate) fn new(origin: Origin, trust: TlsTrust, inlet: Inlet, runtime: Handle) -> Self {
        let connector = Arc::new(WebSocketConnector::new(trust));
        Self { origin, connector, inlet, runtime, serial: 0, live: None }
    }

    /// Whether what comes from `serial` is of the present socket.
    pub(crate) fn is_current(&self, serial: u64) -> bool {
        self.live.is_some() && self.serial == serial
    }

    /// Begins to open a socket; the outcome arrives as an input.
    pub(crate) fn connect(&mut self) {
        self.close();
        self.serial += 1;
        let (outlet, outflow) = outlet(QUEUE_BYTES_MAX);
        let source = Source::Uplink(self.serial);
        let (connector, origin, inlet) = (self.connector.clone(), self.origin.clone(), self.inlet.clone());
        let task = self.runtime.spawn(async move {
            let why = match connector.connect(origin.as_str(), deadline(HANDSHAKE_TIMEOUT)).await {
                Ok(link) => carry(Arc::from(link), outflow, &inlet, source).await,
                Err(error) => chain(&error),
            };
            if inlet.put(source, Input::UplinkClosed(why)).await.is_err() {
                tracing::debug!("The uplink outlived its engine.");
            }
        });
        self.live = Some(Live { outlet, task });
    }

    /// Queues a frame. When the socket does not keep up it is closed, and the machine hears of it.
    pub(crate) fn send(&mut self, frame: Bytes) -> Result<(), String> {
        let Some(live) = &self.live else { return Ok(()) };
        live.outlet.put(frame).map_err(|error| {
            self.close();
            error.to_string()
        })
    }

    /// Lets the queue run out, then closes the socket. Waits for neither.
    pub(crate) fn close(&mut self) {
        if let Some(live) = self.live.take() {
            self.runtime.spawn(live.end());
        }
    }

    /// The same, and waits until the socket is closed.
    pub(crate) async fn stop(&mut self) {
        if let Some(live) = self.live.take() {
            live.end().await;
        }
    }
}

impl Live {
    async fn end(self) {
        let Self { outlet, mut task } = self;
        drop(outlet);
        if timeout(DRAIN_TIMEOUT, &mut task).await.is_err() {
            task.abort();
        }
    }
}

/// Moves frames both ways until one side ends; says why it did.
async fn carry(link: Arc<dyn PeerLink>, outflow: Outflow, inlet: &Inlet, source: Source) -> String {
    if inlet.put(source, Input::UplinkOpened).await.is_err() {
        return "stopping".to_owned();
    }
    tokio::select! {
        why = read(link.as_ref(), inlet, source) => why,
        why = write(link.as_ref(), outflow) => why,
    }
}

/// Hands arriving frames to the engine. Waiting for room there is what holds a fast sender back.
pub(crate) async fn read(link: &dyn PeerLink, inlet: &Inlet, source: Source) -> String {
    loop {
        match link.recv_many(READ_FRAMES_MAX, READ_BYTES_MAX).await {
            Ok(frames) => {
                if inlet.put_frames(source, frames).await.is_err() {
                    link.close(CloseReason::ShuttingDown);
                    return "stopping".to_owned();
                }
            }
            Err(error) => return error.to_string(),
        }
    }
}

/// Writes queued frames, many at a time; closes the link when the queue has ended.
pub(crate) async fn write(link: &dyn PeerLink, mut outflow: Outflow) -> String {
    while let Some(frames) = outflow.take().await {
        match link.send_many(frames).await {
            Ok(()) => {}
            // The machine makes no frame of that size; if it did, the link would be of no use to it.
            Err(error @ LinkError::TooLarge { .. }) => {
                link.close(CloseReason::Misbehaved);
                return error.to_string();
            }
            Err(error) => return error.to_string(),
        }
    }
    // The last words, goodbye among them, are to be heard.
    link.drained().await;
    link.close(CloseReason::Finished);
    "closed".to_owned()
}

/// Bytes that wait for the socket. The machine keeps at most 8 MiB a recipient in flight; beyond eight
/// such recipients a stuck socket is given up.
const QUEUE_BYTES_MAX: usize = 64 << 20;

/// Frames taken from a socket at once: an engine's batch.
const READ_FRAMES_MAX: usize = 256;

/// Bytes taken from a socket at once.
const READ_BYTES_MAX: usize = 1 << 20;

/// How long a socket that is no longer wanted may take to send what is queued.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(1);
