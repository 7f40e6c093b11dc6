//! What reaches the engine's thread, and how: one bounded channel, bounded in items and, for frames,
//! in bytes. When it is full, sockets are not read.

use std::sync::Arc;

use bytes::Bytes;
use peerloom_proto::PeerId;
use peerloom_proto::endpoint::{Fill, Input, LinkId, Reply, Request};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};

use crate::mesh::EngineError;
use crate::store::LocalWrite;
use crate::views::Look;

/// One thing for the engine to take up.
#[derive(Debug)]
pub(crate) enum Work {
    /// Something happened outside.
    Input {
        /// Where.
        source: Source,
        /// What.
        input: Input,
    },
    /// Frames of one socket that arrived together.
    Frames {
        /// Where.
        source: Source,
        /// What.
        frames: Vec<Bytes>,
        /// Their share of the byte bound, given back when the engine has handled them.
        room: OwnedSemaphorePermit,
    },
    /// Programs want something, in one batch.
    Requests {
        /// What is asked of the machine.
        requests: Vec<Request>,
        /// What is written beside.
        local: Vec<LocalWrite>,
        /// Told when all is answered and on disk.
        answer: oneshot::Sender<Answers>,
    },
    /// Somebody wants to see how this node, and a peer if one is named, stand in the network.
    Look {
        /// Whose way.
        peer: Option<PeerId>,
        /// Told at once.
        answer: oneshot::Sender<Result<Look, EngineError>>,
    },
    /// The end.
    Stop(oneshot::Sender<()>),
}

/// One answer a request, or one reason for none at all.
pub(crate) type Answers = Result<Vec<Result<Reply, EngineError>>, EngineError>;

/// Which socket something came from. What an earlier socket left behind is not meant for the machine
/// that was rebuilt since.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    /// The n-th uplink of this process.
    Uplink(u64),
    /// A direct link.
    Link(LinkId),
    /// The direct transport itself.
    Transport,
}

/// The way in for sockets.
#[derive(Clone, Debug)]
pub(crate) struct Inlet {
    works: mpsc::Sender<Work>,
    bytes: Arc<Semaphore>,
}

/// The engine is gone.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("the engine has stopped")]
pub(crate) struct Gone;

impl Inlet {
    pub(crate) fn new() -> (Self, mpsc::Receiver<Work>) {
        let (works, queue) = mpsc::channel(WORKS_MAX);
        (Self { works, bytes: Arc::new(Semaphore::new(FRAME_BYTES_MAX)) }, queue)
    }

    /// Waits for room and hands something over.
    pub(crate) async fn put(&self, source: Source, input: Input) -> Result<(), Gone> {
        self.works.send(Work::Input { source, input }).await.map_err(|_| Gone)
    }

    /// Waits for room and hands frames over.
    pub(crate) async fn put_frames(&self, source: Source, frames: Vec<Bytes>) -> Result<(), Gone> {
        let size: usize = frames.iter().map(Bytes::len).sum();
        let share = u32::try_from(size.min(FRAME_BYTES_MAX)).expect("the bound is far below 4 GiB");
        let room = self.bytes.clone().acquire_many_owned(share).await.map_err(|_| Gone)?;
        self.works.send(Work::Frames { source, frames, room }).await.map_err(|_| Gone)
    }

    /// The sending half itself, for requests.
    pub(crate) fn works(&self) -> &mpsc::Sender<Work> {
        &self.works
    }
}

/// Items that wait for the engine. A batch takes 256; four of them keep it busy.
const WORKS_MAX: usize = 1_024;

/// Bytes of received frames that wait for the engine. Several of the largest frames; beyond it the
/// sockets are not read, and their senders feel it.
const FRAME_BYTES_MAX: usize = 16 << 20;

impl Work {
    /// Adds what this counts for in a batch.
    pub(super) fn weigh(&self, fill: &mut Fill) {
        match self {
            Self::Input { .. } | Self::Look { .. } | Self::Stop(_) => fill.add(1, 0),
            Self::Frames { frames, .. } => fill.add(frames.len(), frames.iter().map(Bytes::len).sum()),
            Self::Requests { requests, local, .. } => fill.add(requests.len() + local.len(), 0),
        }
    }
}
