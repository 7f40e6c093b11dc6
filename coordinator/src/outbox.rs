//! Frames on their way to one socket: the hub's thread puts them in, the socket's task takes them out.
//!
//! Empty, it owns no memory. A socket that lets more than [`OUTBOX_BYTES_MAX`] gather is too slow to
//! be served: it is given up, and its mail waits in the store.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tokio::sync::Notify;

/// Bytes that may wait for one socket.
pub(crate) const OUTBOX_BYTES_MAX: usize = 2 << 20;

/// Bytes taken out at once: the socket's task holds no more than this beside the outbox.
const TAKE_BYTES: usize = 64 << 10;

/// Places that an emptied outbox keeps.
const KEPT_PLACES: usize = 8;

/// One thing to write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Outgoing {
    /// The payload of one binary message.
    Message(Bytes),
    /// Whole WebSocket frames: answers to pings and closes.
    Raw(Bytes),
}

impl Outgoing {
    pub(crate) fn len(&self) -> usize {
        match self {
            Self::Message(bytes) | Self::Raw(bytes) => bytes.len(),
        }
    }
}

#[derive(Debug, Default)]
pub(crate) struct Outbox {
    waiting: Mutex<Waiting>,
    wake: Notify,
}

#[derive(Debug, Default)]
struct Waiting {
    frames: VecDeque<Outgoing>,
    bytes: usize,
    fate: Fate,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Fate {
    #[default]
    Open,
    /// To be closed once empty.
    Closing,
    /// Nothing more is written.
    GivenUp,
}

/// Whether a frame was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub(crate) enum Pushed {
    /// It will be written, or the socket ends before.
    Taken,
    /// The socket is too slow; it was given up with this frame.
    Overflow,
}

/// What a socket's task does next.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// Write these, in order.
    Write(Vec<Outgoing>),
    /// Say goodbye.
    Close,
    /// Go without a word.
    GiveUp,
}

impl Outbox {
    /// Adds a frame. The task learns of it by [`wake`](Self::wake).
    pub(crate) fn push(&self, frame: Outgoing) -> Pushed {
        let mut waiting = self.lock();
        if waiting.fate != Fate::Open {
            return Pushed::Taken;
        }
        if waiting.bytes + frame.len() > OUTBOX_BYTES_MAX {
            *waiting = Waiting { fate: Fate::GivenUp, ..Waiting::default() };
            return Pushed::Overflow;
        }
        waiting.bytes += frame.len();
        waiting.frames.push_back(frame);
        Pushed::Taken
    }

    /// Closes once all frames are written. Later frames are dropped.
    pub(crate) fn close(&self) {
        let mut waiting = self.lock();
        if waiting.fate == Fate::Open {
            waiting.fate = Fate::Closing;
        }
    }

    /// Tells the task that something changed.
    pub(crate) fn wake(&self) {
        self.wake.notify_one();
    }

    /// Waits for something to do. Cancel safe.
    pub(crate) async fn next(&self) -> Next {
        loop {
            if let Some(next) = self.take() {
                return next;
            }
            self.wake.notified().await;
        }
    }

    fn take(&self) -> Option<Next> {
        let mut waiting = self.lock();
        match waiting.fate {
            Fate::GivenUp => return Some(Next::GiveUp),
            Fate::Closing if waiting.frames.is_empty() => return Some(Next::Close),
            Fate::Open | Fate::Closing => {}
        }
        if waiting.frames.is_empty() {
            return None;
        }
        let mut bytes = 0;
        let mut count = 0;
        for frame in &waiting.frames {
            if count > 0 && bytes + frame.len() > TAKE_BYTES {
                break;
            }
            bytes += frame.len();
            count += 1;
        }
        let taken = waiting.frames.drain(..count).collect();
        waiting.bytes -= bytes;
        if waiting.frames.is_empty() && waiting.frames.capacity() > KEPT_PLACES {
            waiting.frames = VecDeque::new();
        }
        Some(Next::Write(taken))
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        // Nothing panics while the lock is held; if it ever does, the queue is still whole.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(bytes: usize) -> Outgoing {
        Outgoing::Message(Bytes::from(vec![7; bytes]))
    }

    #[test]
    fn a_socket_that_does_not_keep_up_is_given_up() {
        let outbox = Outbox::default();
        assert_eq!(outbox.push(message(OUTBOX_BYTES_MAX)), Pushed::Taken);
        assert_eq!(outbox.push(message(1)), Pushed::Overflow);
        assert_eq!(outbox.take(), Some(Next::GiveUp));
    }

    #[test]
    fn a_closing_outbox_is_emptied_first_and_takes_nothing_more() {
        let outbox = Outbox::default();
        assert_eq!(outbox.push(message(3)), Pushed::Taken);
        outbox.close();
        assert_eq!(outbox.push(message(4)), Pushed::Taken);
        assert_eq!(outbox.take(), Some(Next::Write(vec![message(3)])));
        assert_eq!(outbox.take(), Some(Next::Close));
    }

    #[test]
    fn one_large_frame_is_taken_whole_and_alone() {
        let outbox = Outbox::default();
        for bytes in [1, TAKE_BYTES + 1, 2] {
            assert_eq!(outbox.push(message(bytes)), Pushed::Taken);
        }
        for bytes in [1, TAKE_BYTES + 1, 2] {
            assert_eq!(outbox.take(), Some(Next::Write(vec![message(bytes)])));
        }
        assert_eq!(outbox.take(), None);
    }
}
