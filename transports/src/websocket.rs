//! The uplink's path: one binary WebSocket message is one frame. [`WebSocketConnector::connect`]
//! resolves, connects, shakes hands; the link then has a writer task between the send buffer and the
//! socket, and reads in whoever receives. Pings keep it alive and measure the round trip.

mod connect;
#[cfg(test)]
mod tests;

use std::fmt;
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt, StreamExt};
use peerloom_proto::limits::{FRAME_BYTES_MAX, LINK_SILENCE_MAX, PING_EVERY};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::Mutex;
use tokio::time::{Instant, interval_at, timeout, timeout_at};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::error::ProtocolError;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Error as WsError, Message, Utf8Bytes};
use tracing::trace;

pub use self::connect::{ConnectError, WebSocketConnector};
use crate::end::LinkEnd;
use crate::queue::{FrameReceiver, FrameSender, frame_queue};
use crate::transport::{
    BoxFuture, CloseReason, LinkError, LinkProperties, LinkRole, PathKind, PeerLink, SEND_BUFFER_BYTES_MAX,
};

/// One WebSocket as a link.
pub(crate) struct WebSocketLink<S> {
    properties: LinkProperties,
    outgoing: FrameSender,
    incoming: Mutex<Incoming<S>>,
    clock: Arc<PingClock>,
    end: Arc<LinkEnd>,
}

struct Incoming<S> {
    stream: SplitStream<WebSocketStream<S>>,
    heard: Instant,
}

impl<S> fmt::Debug for WebSocketLink<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WebSocketLink").field("properties", &self.properties).finish_non_exhaustive()
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send + 'static> WebSocketLink<S> {
    pub(crate) fn new(socket: WebSocketStream<S>, role: LinkRole, remote: Option<SocketAddr>) -> Self {
        let end = Arc::new(LinkEnd::new());
        let clock = Arc::new(PingClock { started: Instant::now(), rtt_micros: AtomicU64::new(0) });
        let (outgoing, queued) = frame_queue(end.clone());
        let (sink, stream) = socket.split();
        tokio::spawn(write_until_end(sink, queued, end.clone(), clock.clone()));
        Self {
            properties: LinkProperties { kind: PathKind::WebSocket, role, remote, binding: None },
            outgoing,
            incoming: Mutex::new(Incoming { stream, heard: Instant::now() }),
            clock,
            end,
        }
    }

    async fn receive(&self, frames_max: usize, bytes_max: usize) -> Result<Vec<Bytes>, LinkError> {
        let mut incoming = self.incoming.lock().await;
        let mut frames = Vec::new();
        let mut bytes = 0;
        loop {
            let message = if frames.is_empty() {
                // What arrived before the end is still delivered, so reading goes first.
                tokio::select! {
                    biased;
                    message = incoming.next() => message,
                    end = self.end.wait() => return Err(end),
                }
            } else {
                match incoming.next_if_ready().await {
                    Some(message) => message,
                    None => return Ok(frames),
                }
            };
            match self.frame_of(message) {
                Ok(None) => {}
                Ok(Some(frame)) => {
                    bytes += frame.len();
                    frames.push(frame);
                    if frames.len() >= frames_max || bytes >= bytes_max {
                        return Ok(frames);
                    }
                }
                Err(cause) => {
                    let cause = self.end.set(cause);
                    return if frames.is_empty() { Err(cause) } else { Ok(frames) };
                }
            }
        }
    }

    fn frame_of(&self, message: Heard) -> Result<Option<Bytes>, LinkError> {
        match message {
            Heard::Silence => Err(LinkError::Lost(io::ErrorKind::TimedOut)),
            Heard::Message(None) => Err(LinkError::Lost(io::ErrorKind::UnexpectedEof)),
            Heard::Message(Some(Err(error))) => Err(link_error(&error)),
            Heard::Message(Some(Ok(message))) => match message {
                Message::Binary(frame) => Ok(Some(frame)),
                // The library answers pings by itself while we read.
                Message::Ping(_) => Ok(None),
                Message::Pong(echo) => {
                    self.clock.answered(&echo);
                    Ok(None)
                }
                Message::Close(frame) => Err(LinkError::Closed(reason_of(frame.as_ref()))),
                Message::Text(_) => Err(LinkError::Malformed { what: "text message" }),
                Message::Frame(_) => Err(LinkError::Malformed { what: "raw frame" }),
            },
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send + 'static> PeerLink for WebSocketLink<S> {
    fn properties(&self) -> LinkProperties {
        self.properties
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
        self.clock.rtt()
    }

    fn close(&self, reason: CloseReason) {
        self.end.set(LinkError::Closed(reason));
    }
}

impl<S> Drop for WebSocketLink<S> {
    fn drop(&mut self) {
        self.end.set(LinkError::Closed(CloseReason::Finished));
    }
}

/// What one wait for the peer brought.
enum Heard {
    Message(Option<Result<Message, WsError>>),
    Silence,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Incoming<S> {
    /// The next message, or silence for [`LINK_SILENCE_MAX`]. What already lies in the socket counts as
    /// heard, however late this is called. Cancel safe.
    async fn next(&mut self) -> Heard {
        match timeout_at(self.heard + LINK_SILENCE_MAX, self.stream.next()).await {
            Ok(message) => {
                self.heard = Instant::now();
                Heard::Message(message)
            }
            Err(_) => Heard::Silence,
        }
    }

    async fn next_if_ready(&mut self) -> Option<Heard> {
        poll_fn(|cx| match self.stream.poll_next_unpin(cx) {
            Poll::Ready(message) => Poll::Ready(Some(Heard::Message(message))),
            Poll::Pending => Poll::Ready(None),
        })
        .await
    }
}

/// Round trips by pings that carry their own time of sending.
#[derive(Debug)]
struct PingClock {
    started: Instant,
    /// Zero until the first answer.
    rtt_micros: AtomicU64,
}

impl PingClock {
    fn now(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    fn ping(&self) -> Message {
        Message::Ping(Bytes::copy_from_slice(&self.now().to_be_bytes()))
    }

    /// A pong with other contents is somebody's keep-alive and measures nothing.
    fn answered(&self, echo: &[u8]) {
        if let Ok(sent) = echo.try_into().map(u64::from_be_bytes)
            && let Some(rtt) = self.now().checked_sub(sent)
        {
            self.rtt_micros.store(rtt.max(1), Ordering::Relaxed);
        }
    }

    fn rtt(&self) -> Option<Duration> {
        match self.rtt_micros.load(Ordering::Relaxed) {
            0 => None,
            micros => Some(Duration::from_micros(micros)),
        }
    }
}

async fn write_until_end<S: AsyncRead + AsyncWrite + Unpin>(
    mut sink: SplitSink<WebSocketStream<S>, Message>,
    queued: FrameReceiver,
    end: Arc<LinkEnd>,
    clock: Arc<PingClock>,
) {
    let cause = tokio::select! {
        biased;
        cause = end.wait() => cause,
        written = write_all(&mut sink, queued, &clock) => match written {
            Ok(()) => end.set(LinkError::Closed(CloseReason::Finished)),
            Err(error) => end.set(link_error(&error)),
        },
    };
    let farewell = Message::Close(Some(close_frame(cause)));
    let told = timeout(CLOSE_TIMEOUT, async {
        sink.send(farewell).await?;
        sink.close().await
    });
    match told.await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => trace!(%error, "The peer was gone before it was told."),
        Err(_) => trace!("The peer took no close frame."),
    }
}

/// Ends well when no sender is left.
async fn write_all<S: AsyncRead + AsyncWrite + Unpin>(
    sink: &mut SplitSink<WebSocketStream<S>, Message>,
    mut queued: FrameReceiver,
    clock: &PingClock,
) -> Result<(), WsError> {
    let mut pings = interval_at(Instant::now() + PING_EVERY, PING_EVERY);
    let mut frames = Vec::new();
    loop {
        tokio::select! {
            biased;
            _ = pings.tick() => sink.send(clock.ping()).await?,
            room = queued.take(&mut frames, BATCH_FRAMES_MAX, BATCH_BYTES_MAX) => {
                if room == 0 {
                    return Ok(());
                }
                for frame in frames.drain(..) {
                    sink.feed(Message::Binary(frame)).await?;
                }
                sink.flush().await?;
                queued.release(room);
            }
        }
    }
}

pub(crate) fn config() -> WebSocketConfig {
    WebSocketConfig::default()
        .read_buffer_size(READ_BUFFER_BYTES)
        .write_buffer_size(WRITE_BUFFER_BYTES)
        .max_write_buffer_size(SEND_BUFFER_BYTES_MAX)
        .max_message_size(Some(FRAME_BYTES_MAX))
        .max_frame_size(Some(FRAME_BYTES_MAX))
}

/// What a failed read or write means to the link.
fn link_error(error: &WsError) -> LinkError {
    match error {
        WsError::ConnectionClosed | WsError::AlreadyClosed => LinkError::Closed(CloseReason::Finished),
        WsError::Io(error) => LinkError::Lost(error.kind()),
        WsError::Tls(_) => LinkError::Lost(io::ErrorKind::InvalidData),
        WsError::Capacity(_) => LinkError::Malformed { what: "message over the frame limit" },
        WsError::Protocol(ProtocolError::ResetWithoutClosingHandshake) => {
            LinkError::Lost(io::ErrorKind::ConnectionReset)
        }
        WsError::Protocol(_) => LinkError::Malformed { what: "not WebSocket" },
        WsError::Utf8(_) => LinkError::Malformed { what: "text that is not UTF-8" },
        WsError::AttackAttempt => LinkError::Malformed { what: "attack on the handshake" },
        // Flushed before every next batch, a batch never fills the buffer.
        WsError::WriteBufferFull(_) => LinkError::Lost(io::ErrorKind::WriteZero),
        WsError::Url(_) | WsError::Http(_) | WsError::HttpFormat(_) => LinkError::Lost(io::ErrorKind::Other),
    }
}

/// Standard codes where a proxy or a library speaks, ours where a peer does.
#[expect(clippy::wildcard_enum_match_arm, reason = "close codes are an open set")]
fn reason_of(frame: Option<&CloseFrame>) -> CloseReason {
    let Some(frame) = frame else { return CloseReason::Finished };
    match frame.code {
        CloseCode::Away | CloseCode::Restart | CloseCode::Again => CloseReason::ShuttingDown,
        CloseCode::Policy => CloseReason::Refused,
        CloseCode::Protocol | CloseCode::Unsupported | CloseCode::Invalid | CloseCode::Size => {
            CloseReason::Misbehaved
        }
        other => CloseReason::from_code(u64::from(u16::from(other).saturating_sub(PRIVATE_CODES))),
    }
}

fn close_frame(cause: LinkError) -> CloseFrame {
    let reason = match cause {
        LinkError::Closed(reason) => reason,
        LinkError::Malformed { .. } => CloseReason::Misbehaved,
        LinkError::TooLarge { .. } | LinkError::Lost(_) => CloseReason::Finished,
    };
    let code = match reason {
        CloseReason::Finished => CloseCode::Normal,
        CloseReason::Idle
        | CloseReason::Superseded
        | CloseReason::Refused
        | CloseReason::Revoked
        | CloseReason::Misbehaved
        | CloseReason::ShuttingDown => CloseCode::from(PRIVATE_CODES + reason.code()),
    };
    CloseFrame { code, reason: Utf8Bytes::from(reason.to_string()) }
}

/// RFC 6455 §7.4.2: codes from here are for private use.
const PRIVATE_CODES: u16 = 4000;

/// One read takes this much: a mailbox drains in few system calls, and a node has few uplinks.
const READ_BUFFER_BYTES: usize = 64 << 10;

/// Buffered before the library writes on its own; a flush follows every batch.
const WRITE_BUFFER_BYTES: usize = 64 << 10;

/// Frames one flush coalesces.
const BATCH_FRAMES_MAX: usize = 256;

/// Bytes one flush coalesces.
const BATCH_BYTES_MAX: usize = 256 << 10;

/// A farewell that takes longer is not worth the socket.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);
