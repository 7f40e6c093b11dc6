//! One WebSocket: a task that reads frames for the hub and writes what the hub has for it.
//!
//! 1. [`accept`]  the upgrade
//! 2. `read_on`   bytes become frames, are taken apart here, and reach the hub in groups
//! 3. `write_on`  the outbox is written in one go; nothing is kept once it is out
//!
//! Built for thousands of quiet connections: beside its task a connection owns one read buffer of
//! 4 KiB. Reading is the library's; it answers pings and closes through the same outbox. Writing is
//! ours, because the library would keep a buffer as large as the largest frame it ever wrote.

use std::io;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::body::Body;
use axum::http::header::{
    CONNECTION, HeaderMap, HeaderName, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_VERSION,
    UPGRADE,
};
use axum::http::{Request, Response, StatusCode};
use bytes::Bytes;
use futures_util::{FutureExt, StreamExt};
use hyper_util::rt::TokioIo;
use peerloom_proto::limits::{FRAME_BYTES_MAX, HELLO_FRAME_BYTES_MAX};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf, ReadHalf, WriteHalf};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Error, Message};

use crate::arrived::Arrived;
use crate::engine::{Engine, Link};
use crate::outbox::{Next, Outbox, Outgoing, Pushed};

/// The library's read buffer. Its default is 128 KiB.
const READ_BUFFER_BYTES: usize = 4 << 10;

/// Frames that reach the hub as one input.
const GROUP_FRAMES: usize = 64;

/// Bytes of frames that reach the hub as one input.
const GROUP_BYTES: usize = 256 << 10;

/// Payloads from here on are written without being copied together with others.
const COPY_BYTES_MAX: usize = 16 << 10;

/// How long a closing socket may take for its last frames.
const GOODBYE_TIMEOUT: Duration = Duration::from_secs(2);

/// How long the peer may take to accept a write. The hub notices silence too; this frees the
/// memory of a socket whose peer reads nothing at all.
const WRITE_TIMEOUT: Duration = Duration::from_secs(75);

/// A close frame with status 1000.
const CLOSE_FRAME: [u8; 4] = [0x88, 0x02, 0x03, 0xe8];

/// Answers `GET /v2/link`: 101 and a session of its own, or 400 or 426 when the request is no
/// WebSocket upgrade. `addr` is where the request really comes from; `guard` lives as long as the session.
pub(crate) fn accept<G>(request: Request<Body>, addr: IpAddr, hub: &Engine, guard: G) -> Response<Body>
where
    G: Send + 'static,
{
    let headers = request.headers();
    let upgrades = has_token(headers, &CONNECTION, "upgrade") && has_token(headers, &UPGRADE, "websocket");
    if !upgrades || !has_token(headers, &SEC_WEBSOCKET_VERSION, "13") {
        return plain(StatusCode::UPGRADE_REQUIRED, "this address speaks WebSocket version 13\n");
    }
    let Some(key) = headers.get(SEC_WEBSOCKET_KEY) else {
        return plain(StatusCode::BAD_REQUEST, "Sec-WebSocket-Key is missing\n");
    };
    let accepted = derive_accept_key(key.as_bytes());
    let hub = hub.clone();
    let upgrade = hyper::upgrade::on(request);
    tokio::spawn(async move {
        match upgrade.await {
            Ok(upgraded) => run(TokioIo::new(upgraded), addr, &hub).await,
            Err(error) => tracing::debug!(%error, "Upgrade failed."),
        }
        drop(guard);
    });
    Response::builder()
        .status(StatusCode::SWITCHING_PROTOCOLS)
        .header(CONNECTION, "upgrade")
        .header(UPGRADE, "websocket")
        .header(SEC_WEBSOCKET_ACCEPT, accepted)
        .body(Body::empty())
        .expect("constant headers and a base64 key are valid")
}

/// Serves one upgraded socket until either side ends it.
pub(crate) async fn run<S>(socket: S, addr: IpAddr, hub: &Engine)
where
    S: AsyncRead + AsyncWrite + Send + 'static,
{
    let outbox = Arc::new(Outbox::default());
    let Some(link) = hub.open(addr, Arc::clone(&outbox)).await else { return };
    let (reader, writer) = tokio::io::split(socket);
    let greeted = Arc::new(AtomicBool::new(false));
    let inbound =
        Inbound { reader, outbox: Arc::clone(&outbox), greeted: Arc::clone(&greeted), stranger_read: 0 };
    let config = WebSocketConfig::default()
        .read_buffer_size(READ_BUFFER_BYTES)
        .write_buffer_size(0)
        .max_write_buffer_size(READ_BUFFER_BYTES)
        .max_message_size(Some(FRAME_BYTES_MAX))
        .max_frame_size(Some(FRAME_BYTES_MAX));
    let frames = WebSocketStream::from_raw_socket(inbound, Role::Server, Some(config)).await;
    let mut writing = std::pin::pin!(write_on(writer, &outbox));
    tokio::select! {
        () = read_on(frames, &greeted, &link) => {
            // What is left to say, a close above all, goes out if the peer still listens.
            outbox.close();
            outbox.wake();
            if tokio::time::timeout(GOODBYE_TIMEOUT, writing).await.is_err() {
                tracing::trace!("The peer did not wait for the last frames.");
            }
        }
        () = &mut writing => {}
    }
    link.closed().await;
}

/// Reads until the peer closes, sends what is no frame, or the hub is gone.
async fn read_on<S>(mut messages: WebSocketStream<S>, greeted: &AtomicBool, link: &Link)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    while let Some(first) = messages.next().await {
        let mut group = Group::default();
        let mut flow = group.add(first);
        greeted.store(true, Ordering::Relaxed);
        while flow == Flow::On && group.has_room() {
            let Some(Some(message)) = messages.next().now_or_never() else { break };
            flow = group.add(message);
        }
        if !group.frames.is_empty() && link.frames(group.frames).await.is_err() {
            return;
        }
        if flow == Flow::Ended {
            return;
        }
    }
}

#[derive(Default)]
struct Group {
    frames: Vec<Arrived>,
    bytes: usize,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Flow {
    On,
    Ended,
}

impl Group {
    fn has_room(&self) -> bool {
        self.frames.len() < GROUP_FRAMES && self.bytes < GROUP_BYTES
    }

    fn add(&mut self, message: Result<Message, Error>) -> Flow {
        match message {
            Ok(Message::Binary(frame)) => {
                self.bytes += frame.len();
                self.frames.push(Arrived::read(&frame));
                Flow::On
            }
            Ok(Message::Text(_)) => {
                self.frames.push(Arrived::Garbage { text: "frames are binary messages".to_owned() });
                Flow::On
            }
            Ok(Message::Ping(_) | Message::Pong(_) | Message::Close(_) | Message::Frame(_)) => Flow::On,
            Err(error) => {
                tracing::trace!(%error, "Reading ended.");
                if matches!(error, Error::Capacity(_) | Error::Protocol(_) | Error::Utf8(_)) {
                    self.frames.push(Arrived::Garbage { text: error.to_string() });
                }
                Flow::Ended
            }
        }
    }
}

/// Writes until the outbox closes or the peer stops taking anything.
async fn write_on<S>(mut socket: WriteHalf<S>, outbox: &Outbox)
where
    S: AsyncWrite,
{
    loop {
        let written = match outbox.next().await {
            Next::Write(frames) => {
                tokio::time::timeout(WRITE_TIMEOUT, write_frames(&mut socket, &frames)).await
            }
            Next::Close => tokio::time::timeout(GOODBYE_TIMEOUT, goodbye(&mut socket)).await,
            Next::GiveUp => return,
        };
        match written {
            Ok(Ok(Flow::On)) => {}
            Ok(Ok(Flow::Ended)) => return,
            Ok(Err(error)) => return tracing::trace!(%error, "Writing ended."),
            Err(_) => return tracing::debug!("The peer takes nothing more."),
        }
    }
}

async fn write_frames<S: AsyncWrite>(socket: &mut WriteHalf<S>, frames: &[Outgoing]) -> io::Result<Flow> {
    let small = |frame: &Outgoing| if frame.len() <= COPY_BYTES_MAX { frame.len() + 10 } else { 10 };
    let mut together = Vec::with_capacity(frames.iter().map(small).sum());
    for frame in frames {
        let bytes = match frame {
            Outgoing::Message(bytes) => {
                write_header(&mut together, bytes.len());
                bytes
            }
            Outgoing::Raw(bytes) => bytes,
        };
        if bytes.len() <= COPY_BYTES_MAX {
            together.extend_from_slice(bytes);
        } else {
            socket.write_all(&together).await?;
            together.clear();
            socket.write_all(bytes).await?;
        }
    }
    socket.write_all(&together).await?;
    socket.flush().await?;
    Ok(Flow::On)
}

async fn goodbye<S: AsyncWrite>(socket: &mut WriteHalf<S>) -> io::Result<Flow> {
    socket.write_all(&CLOSE_FRAME).await?;
    socket.shutdown().await?;
    Ok(Flow::Ended)
}

/// Head of a whole binary message, unmasked as a server's are (RFC 6455 §5.2).
fn write_header(into: &mut Vec<u8>, payload: usize) {
    const FIN_BINARY: u8 = 0x82;
    into.push(FIN_BINARY);
    match (u8::try_from(payload), u16::try_from(payload)) {
        (Ok(short), _) if short < 126 => into.push(short),
        (_, Ok(medium)) => {
            into.push(126);
            into.extend_from_slice(&medium.to_be_bytes());
        }
        (_, Err(_)) => {
            into.push(127);
            into.extend_from_slice(&(payload as u64).to_be_bytes());
        }
    }
}

/// The library's view of the socket: it reads here, and what it answers goes into the outbox.
struct Inbound<S> {
    reader: ReadHalf<S>,
    outbox: Arc<Outbox>,
    /// Set with the first message. Until then a stranger may send as much as a hello needs.
    greeted: Arc<AtomicBool>,
    stranger_read: usize,
}

/// A hello frame and its WebSocket header.
const STRANGER_BYTES_MAX: usize = HELLO_FRAME_BYTES_MAX + 14;

impl<S: AsyncRead> AsyncRead for Inbound<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.reader).poll_read(cx, buf))?;
        if !self.greeted.load(Ordering::Relaxed) {
            self.stranger_read += buf.filled().len() - before;
            if self.stranger_read > STRANGER_BYTES_MAX {
                return Poll::Ready(Err(io::Error::other("too many bytes before the hello")));
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl<S> AsyncWrite for Inbound<S> {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self.outbox.push(Outgoing::Raw(Bytes::copy_from_slice(buf))) {
            Pushed::Taken => {
                self.outbox.wake();
                Poll::Ready(Ok(buf.len()))
            }
            Pushed::Overflow => Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.outbox.close();
        self.outbox.wake();
        Poll::Ready(Ok(()))
    }
}

fn has_token(headers: &HeaderMap, name: &HeaderName, token: &str) -> bool {
    let texts = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
    texts.flat_map(|text| text.split(',')).any(|found| found.trim().eq_ignore_ascii_case(token))
}

fn plain(status: StatusCode, text: &'static str) -> Response<Body> {
    let mut response = Response::new(Body::from(text));
    *response.status_mut() = status;
    response
}

#[cfg(test)]
mod tests;
