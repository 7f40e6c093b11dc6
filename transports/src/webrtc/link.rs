//! One WebRTC link: a task that drives the session between the send buffer and the channel, a reader in
//! whoever receives.
//!
//! The channel's binary messages, put together, are QUIC's byte stream: u32be length, then the frame. Its
//! one text is the close code in decimal and the last thing a side says.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex as SyncMutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncRead, ReadBuf};
use tokio::sync::{Mutex, mpsc};
use tokio::time::timeout;

use super::Open;
use super::peer::MESSAGE_BYTES_MAX;
use super::session::Session;
use crate::end::LinkEnd;
use crate::framing::{FrameError, FrameReader, encode};
use crate::identity::LinkBinding;
use crate::queue::{FrameReceiver, FrameSender, frame_queue};
use crate::transport::{BoxFuture, CloseReason, LinkError, LinkProperties, LinkRole, PathKind, PeerLink};

#[derive(Debug)]
pub(super) struct WebRtcLink {
    role: LinkRole,
    binding: LinkBinding,
    path: Arc<SyncMutex<Path>>,
    outgoing: FrameSender,
    incoming: Mutex<FrameReader<Incoming>>,
    end: Arc<LinkEnd>,
}

/// What the session last knew of its path.
#[derive(Clone, Copy, Debug, Default)]
struct Path {
    remote: Option<SocketAddr>,
    rtt: Option<Duration>,
}

impl WebRtcLink {
    /// Takes over an open session. `open` is given up when the session is over.
    pub(super) fn new(session: Session, role: LinkRole, binding: LinkBinding, open: Open) -> Self {
        let end = Arc::new(LinkEnd::new());
        let (outgoing, queued) = frame_queue(end.clone());
        let (messages, incoming) = mpsc::channel(MESSAGES_WAITING_MAX);
        let mut carrier = Carrier {
            session,
            queued,
            pieces: VecDeque::new(),
            room: 0,
            messages,
            unread: None,
            told: None,
            end: end.clone(),
            path: Arc::default(),
            looked: None,
        };
        carrier.look();
        let path = carrier.path.clone();
        tokio::spawn(async move {
            carrier.carry().await;
            drop(open);
        });
        let incoming = Mutex::new(FrameReader::new(Incoming { messages: incoming, rest: Bytes::new() }));
        Self { role, binding, path, outgoing, incoming, end }
    }

    pub(super) fn end(&self) -> &Arc<LinkEnd> {
        &self.end
    }

    async fn receive(&self, frames_max: usize, bytes_max: usize) -> Result<Vec<Bytes>, LinkError> {
        let mut reader = self.incoming.lock().await;
        // What arrived before the end is still delivered, so reading goes first.
        let error = tokio::select! {
            biased;
            read = reader.recv_many(frames_max, bytes_max) => match read {
                Ok(frames) => return Ok(frames),
                Err(error) => error,
            },
            end = self.end.wait() => return Err(end),
        };
        let cause = match error {
            FrameError::Oversize => LinkError::Malformed { what: "length prefix over the frame limit" },
            FrameError::Cut => LinkError::Malformed { what: "stream ended inside a frame" },
            FrameError::Ended => LinkError::Closed(CloseReason::Finished),
            FrameError::Io(error) => LinkError::Lost(error.kind()),
        };
        Err(self.end.set(cause))
    }

    fn path(&self) -> Path {
        *lock(&self.path)
    }
}

impl PeerLink for WebRtcLink {
    fn properties(&self) -> LinkProperties {
        LinkProperties {
            kind: PathKind::WebRtc,
            role: self.role,
            remote: self.path().remote,
            binding: Some(self.binding),
        }
    }

    fn send_many(&self, frames: Vec<Bytes>) -> BoxFuture<'_, Result<(), LinkError>> {
        Box::pin(self.outgoing.send_many(frames))
    }

    fn recv_many(&self, frames_max: usize, bytes_max: usize) -> BoxFuture<'_, Result<Vec<Bytes>, LinkError>> {
        Box::pin(self.receive(frames_max, bytes_max))
    }

    fn drained(&self) -> BoxFuture<'_, ()> {
        Box::pin(self.outgoing.drained())
    }

    fn rtt(&self) -> Option<Duration> {
        self.path().rtt
    }

    fn close(&self, reason: CloseReason) {
        self.end.set(LinkError::Closed(reason));
    }
}

impl Drop for WebRtcLink {
    fn drop(&mut self) {
        self.close(CloseReason::Finished);
    }
}

/// The channel's messages as one stream of bytes.
#[derive(Debug)]
struct Incoming {
    messages: mpsc::Receiver<Bytes>,
    rest: Bytes,
}

impl AsyncRead for Incoming {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        while self.rest.is_empty() {
            match ready!(self.messages.poll_recv(cx)) {
                Some(message) => self.rest = message,
                None => return Poll::Ready(Ok(())),
            }
        }
        let taken = self.rest.len().min(into.remaining());
        into.put_slice(&self.rest[..taken]);
        self.rest.advance(taken);
        Poll::Ready(Ok(()))
    }
}

/// The driving side of a link.
struct Carrier {
    session: Session,
    queued: FrameReceiver,
    /// What was taken from the queue and is not yet with SCTP …
    pieces: VecDeque<BytesMut>,
    /// … and the room in the queue that it still holds.
    room: usize,
    messages: mpsc::Sender<Bytes>,
    /// A message the reader has no room for. While there is one, the library is not asked for more, and
    /// its window closes.
    unread: Option<Bytes>,
    /// What the peer said last.
    told: Option<CloseReason>,
    end: Arc<LinkEnd>,
    path: Arc<SyncMutex<Path>>,
    looked: Option<Instant>,
}

impl Carrier {
    async fn carry(mut self) {
        let cause = loop {
            self.session.settle();
            self.take_in();
            if let Some(cause) = self.over() {
                break self.end.set(cause);
            }
            if let Err(error) = self.put_out() {
                break self.end.set(LinkError::Lost(error.kind()));
            }
            self.session.flush().await;
            self.look();
            if let Some(cause) = self.wait().await {
                break cause;
            }
            self.session.read(|_| {});
        };
        // The peer that spoke last knows; a dead path carries nothing.
        if self.told.is_none() && !self.session.state().closed && !self.session.state().dead {
            let reason = match cause {
                LinkError::Closed(reason) => reason,
                LinkError::Malformed { .. } => CloseReason::Misbehaved,
                LinkError::TooLarge { .. } | LinkError::Lost(_) => CloseReason::Finished,
            };
            drop(timeout(LINGER, self.say_last(reason)).await);
        }
        self.session.finish().await;
    }

    /// Why the link is over, if the peer or the path ended it.
    fn over(&self) -> Option<LinkError> {
        let state = self.session.state();
        if state.stray {
            Some(LinkError::Malformed { what: "a channel that was not agreed on" })
        } else if state.dead {
            Some(LinkError::Lost(io::ErrorKind::TimedOut))
        } else if self.unread.is_some() {
            // The reader gets what came before the end.
            None
        } else if let Some(reason) = self.told {
            Some(LinkError::Closed(reason))
        } else {
            state.closed.then_some(LinkError::Closed(CloseReason::Finished))
        }
    }

    /// Passes messages on while the reader has room.
    fn take_in(&mut self) {
        while self.unread.is_none() && self.told.is_none() {
            let Some(message) = self.session.message() else { return };
            if message.is_string {
                let code = str::from_utf8(&message.data).ok().and_then(|text| text.parse().ok());
                self.told = Some(code.map_or(CloseReason::Finished, CloseReason::from_code));
            } else if let Err(mpsc::error::TrySendError::Full(message)) =
                self.messages.try_send(message.data.freeze())
            {
                self.unread = Some(message);
            }
        }
    }

    /// Gives SCTP as much as it may hold, and makes room in the queue once all taken from it is there.
    fn put_out(&mut self) -> io::Result<()> {
        while !self.pieces.is_empty() && self.session.outstanding() < OUTSTANDING_BYTES_MAX {
            if let Some(piece) = self.pieces.pop_front() {
                self.session.say(piece)?;
            }
        }
        if self.pieces.is_empty() {
            self.queued.release(std::mem::take(&mut self.room));
        }
        Ok(())
    }

    /// Waits until there is something to do; gives the end if this side set it.
    async fn wait(&mut self) -> Option<LinkError> {
        let mut frames = Vec::new();
        let may_take = self.pieces.is_empty() && self.session.outstanding() < OUTSTANDING_BYTES_MAX;
        tokio::select! {
            biased;
            end = self.end.wait() => return Some(end),
            stepped = self.session.step() => {
                // A handshake timer of a session that is long past its handshake.
                drop(stepped);
            }
            permit = self.messages.reserve(), if self.unread.is_some() => {
                if let (Ok(permit), Some(message)) = (permit, self.unread.take()) {
                    permit.send(message);
                }
            }
            room = self.queued.take(&mut frames, BATCH_FRAMES_MAX, BATCH_BYTES_MAX), if may_take => {
                self.room = room;
                self.pieces.extend(encode(&mut frames).into_iter().flat_map(pieces));
            }
        }
        None
    }

    /// Says why, and waits until the peer has it or will not have it.
    async fn say_last(&mut self, reason: CloseReason) {
        if self.session.say_last(&reason.code().to_string()).is_err() {
            return;
        }
        loop {
            self.session.settle();
            while self.session.message().is_some() {}
            let state = self.session.state();
            if state.closed || state.dead || self.session.outstanding() == 0 {
                return;
            }
            self.session.flush().await;
            if self.session.step().await.is_err() {
                return;
            }
            self.session.read(|_| {});
        }
    }

    /// Looks at the path now and then.
    fn look(&mut self) {
        if self.looked.is_some_and(|looked| looked.elapsed() < LOOK_EVERY) {
            return;
        }
        self.looked = Some(Instant::now());
        if let Some((remote, rtt)) = self.session.path() {
            *lock(&self.path) = Path { remote: Some(remote), rtt: Some(rtt) };
        }
    }
}

/// Cuts a chunk of the byte stream into messages.
fn pieces(mut chunk: Bytes) -> impl Iterator<Item = BytesMut> {
    std::iter::from_fn(move || {
        if chunk.is_empty() {
            return None;
        }
        let piece = chunk.split_to(chunk.len().min(MESSAGE_BYTES_MAX));
        Some(piece.try_into_mut().unwrap_or_else(|shared| BytesMut::from(&shared[..])))
    })
}

fn lock(path: &SyncMutex<Path>) -> MutexGuard<'_, Path> {
    // Two plain values, set at once.
    path.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Messages that wait for the reader, 256 KiB at their largest. When full, the library keeps up to 256
/// more and a window of 1 MiB, and then the peer must wait.
const MESSAGES_WAITING_MAX: usize = 16;

/// Bytes SCTP may hold unacknowledged; what it has it repeats by itself, and more only delays.
const OUTSTANDING_BYTES_MAX: usize = 128 << 10;

/// Frames one batch of messages coalesces.
const BATCH_FRAMES_MAX: usize = 256;

/// Bytes one batch takes from the queue.
const BATCH_BYTES_MAX: usize = 64 << 10;

/// The last word gets this long to arrive; a peer that is there acknowledges it within a round trip.
const LINGER: Duration = Duration::from_secs(1);

const LOOK_EVERY: Duration = Duration::from_secs(2);
