//! The send buffer every adapter has: frames between callers and the task that writes them, bounded
//! by bytes. A caller waits when it is full; nothing is dropped or cut.

use std::sync::Arc;

use bytes::Bytes;
use peerloom_proto::limits::FRAME_BYTES_MAX;
use tokio::sync::{Semaphore, mpsc};

use crate::end::LinkEnd;
use crate::transport::{CloseReason, LinkError, SEND_BUFFER_BYTES_MAX};

/// What a queued frame costs beside its bytes, so that empty frames are bounded too.
const FRAME_OVERHEAD_BYTES: usize = 64;

pub(crate) fn frame_queue(end: Arc<LinkEnd>) -> (FrameSender, FrameReceiver) {
    let room = Arc::new(Semaphore::new(SEND_BUFFER_BYTES_MAX));
    // The semaphore bounds this channel.
    let (frames, queued) = mpsc::unbounded_channel();
    (FrameSender { room: room.clone(), frames, end }, FrameReceiver { room, queued })
}

#[derive(Debug)]
pub(crate) struct FrameSender {
    room: Arc<Semaphore>,
    frames: mpsc::UnboundedSender<Bytes>,
    end: Arc<LinkEnd>,
}

impl FrameSender {
    /// Queues all of `frames`, or none when one is over the limit. A dropped future leaves a prefix.
    pub(crate) async fn send_many(&self, frames: Vec<Bytes>) -> Result<(), LinkError> {
        if let Some(end) = self.end.get() {
            return Err(end);
        }
        if let Some(large) = frames.iter().find(|frame| frame.len() > FRAME_BYTES_MAX) {
            return Err(LinkError::TooLarge { bytes: large.len(), bytes_max: FRAME_BYTES_MAX });
        }
        for frame in frames {
            let room = self.room.acquire_many(permits(cost(&frame))).await.map_err(|_| self.ended())?;
            self.frames.send(frame).map_err(|_| self.ended())?;
            // Given back by the receiver when the frame has left.
            room.forget();
        }
        Ok(())
    }

    /// Waits until the receiver has given all room back, or is gone. Cancel safe.
    pub(crate) async fn drained(&self) {
        let all = u32::try_from(SEND_BUFFER_BYTES_MAX).expect("the buffer is a few MiB");
        // An error says that the receiver is gone, and with it what was queued.
        drop(self.room.acquire_many(all).await);
    }

    fn ended(&self) -> LinkError {
        self.end.get().unwrap_or(LinkError::Closed(CloseReason::Finished))
    }
}

/// Dropping it fails every waiting and later send.
#[derive(Debug)]
pub(crate) struct FrameReceiver {
    room: Arc<Semaphore>,
    queued: mpsc::UnboundedReceiver<Bytes>,
}

impl FrameReceiver {
    /// Waits for a frame and takes what else is queued until `frames_max` are in `into` or their bytes
    /// reach `bytes_max`. Gives the room to [`release`](Self::release); zero when no sender is left.
    /// Cancel safe.
    pub(crate) async fn take(&mut self, into: &mut Vec<Bytes>, frames_max: usize, bytes_max: usize) -> usize {
        let mut taken = 0;
        let mut bytes = 0;
        let mut next = self.queued.recv().await;
        while let Some(frame) = next {
            taken += cost(&frame);
            bytes += frame.len();
            into.push(frame);
            if into.len() >= frames_max || bytes >= bytes_max {
                break;
            }
            next = self.queued.try_recv().ok();
        }
        taken
    }

    /// Makes room for others once what was taken has left.
    pub(crate) fn release(&self, taken: usize) {
        self.room.add_permits(taken);
    }
}

impl Drop for FrameReceiver {
    fn drop(&mut self) {
        self.room.close();
    }
}

fn cost(frame: &Bytes) -> usize {
    frame.len() + FRAME_OVERHEAD_BYTES
}

fn permits(cost: usize) -> u32 {
    u32::try_from(cost).expect("a frame is at most FRAME_BYTES_MAX, checked on entry")
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;
    use tokio::task::unconstrained;

    use super::*;

    #[tokio::test]
    async fn a_full_queue_waits_until_frames_have_left() {
        let (sender, mut receiver) = frame_queue(Arc::new(LinkEnd::new()));
        let frame = Bytes::from(vec![0; FRAME_BYTES_MAX]);
        assert_eq!(sender.send_many(vec![frame.clone()]).now_or_never(), Some(Ok(())));
        assert_eq!(sender.send_many(vec![frame.clone()]).now_or_never(), None);

        let mut taken = Vec::new();
        let room = receiver.take(&mut taken, 8, usize::MAX).await;
        assert_eq!(sender.send_many(vec![frame.clone()]).now_or_never(), None);
        receiver.release(room);
        assert_eq!(sender.send_many(vec![frame]).now_or_never(), Some(Ok(())));
    }

    #[tokio::test]
    async fn it_is_drained_once_every_frame_has_left() {
        let (sender, mut receiver) = frame_queue(Arc::new(LinkEnd::new()));
        sender.send_many(vec![Bytes::from_static(b"one"), Bytes::from_static(b"two")]).await.unwrap();
        assert_eq!(sender.drained().now_or_never(), None);
        let room = receiver.take(&mut Vec::new(), 8, usize::MAX).await;
        assert_eq!(sender.drained().now_or_never(), None, "taken is not yet written");
        receiver.release(room);
        assert_eq!(sender.drained().now_or_never(), Some(()));
        drop(receiver);
        assert_eq!(sender.drained().now_or_never(), Some(()));
    }

    #[tokio::test]
    async fn empty_frames_are_bounded_too() {
        let (sender, _receiver) = frame_queue(Arc::new(LinkEnd::new()));
        let mut queued = 0;
        while unconstrained(sender.send_many(vec![Bytes::new()])).now_or_never().is_some() {
            queued += 1;
        }
        assert_eq!(queued, SEND_BUFFER_BYTES_MAX / FRAME_OVERHEAD_BYTES);
    }

    #[tokio::test]
    async fn a_waiting_send_learns_why_the_link_ended() {
        let end = Arc::new(LinkEnd::new());
        let (sender, receiver) = frame_queue(end.clone());
        let frames = vec![Bytes::from(vec![0; FRAME_BYTES_MAX]); 3];
        let (sent, ()) = tokio::join!(sender.send_many(frames), async {
            end.set(LinkError::Closed(CloseReason::Revoked));
            drop(receiver);
        });
        assert_eq!(sent, Err(LinkError::Closed(CloseReason::Revoked)));
    }
}
