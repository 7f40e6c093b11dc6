//! Frames on their way to a socket: a queue bounded in bytes. Full means the socket is too slow, and
//! its owner closes it; the outbox keeps what matters.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use tokio::sync::mpsc;

/// Makes a queue that holds at most `bytes_max`.
pub(crate) fn outlet(bytes_max: usize) -> (Outlet, Outflow) {
    let (frames, queue) = mpsc::unbounded_channel();
    let held = Arc::new(AtomicUsize::new(0));
    (Outlet { frames, held: held.clone(), bytes_max }, Outflow { queue, held })
}

/// The engine's end. Dropping it lets the queue run out.
#[derive(Debug)]
pub(crate) struct Outlet {
    frames: mpsc::UnboundedSender<Bytes>,
    held: Arc<AtomicUsize>,
    bytes_max: usize,
}

/// Why a frame was not queued.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum OutletError {
    /// The socket does not keep up.
    #[error("the peer is too slow: {held} bytes wait")]
    Full {
        /// Bytes in the queue.
        held: usize,
    },
    /// The socket is gone.
    #[error("the link is gone")]
    Gone,
}

impl Outlet {
    /// Queues a frame, or says why not. Never waits.
    pub(crate) fn put(&self, frame: Bytes) -> Result<(), OutletError> {
        let size = frame.len() + FRAME_OVERHEAD_BYTES;
        let held = self.held.fetch_add(size, Ordering::Relaxed) + size;
        if held > self.bytes_max {
            self.held.fetch_sub(size, Ordering::Relaxed);
            return Err(OutletError::Full { held: held - size });
        }
        self.frames.send(frame).map_err(|_| OutletError::Gone)
    }
}

/// The socket's end.
#[derive(Debug)]
pub(crate) struct Outflow {
    queue: mpsc::UnboundedReceiver<Bytes>,
    held: Arc<AtomicUsize>,
}

impl Outflow {
    /// Waits for a frame and takes what else is there, up to a write's worth. None at the end.
    pub(crate) async fn take(&mut self) -> Option<Vec<Bytes>> {
        let first = self.queue.recv().await?;
        let mut size = first.len() + FRAME_OVERHEAD_BYTES;
        let mut frames = vec![first];
        while frames.len() < WRITE_FRAMES_MAX && size < WRITE_BYTES_MAX {
            let Ok(frame) = self.queue.try_recv() else { break };
            size += frame.len() + FRAME_OVERHEAD_BYTES;
            frames.push(frame);
        }
        self.held.fetch_sub(size, Ordering::Relaxed);
        Some(frames)
    }
}

/// What a queued frame costs beside its bytes.
const FRAME_OVERHEAD_BYTES: usize = 64;

/// Frames of one write.
const WRITE_FRAMES_MAX: usize = 256;

/// Bytes after which a write ends: far beyond what one system call takes.
const WRITE_BYTES_MAX: usize = 512 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_full_queue_refuses_and_takes_again_once_it_was_read() {
        let (outlet, mut outflow) = outlet(1_000);
        let frame = Bytes::from(vec![7; 400]);
        outlet.put(frame.clone()).unwrap();
        outlet.put(frame.clone()).unwrap();
        assert_eq!(outlet.put(frame.clone()), Err(OutletError::Full { held: 928 }));

        assert_eq!(outflow.take().await.unwrap().len(), 2);
        outlet.put(frame).unwrap();
        drop(outlet);
        assert_eq!(outflow.take().await.unwrap().len(), 1);
        assert_eq!(outflow.take().await, None);
    }
}
