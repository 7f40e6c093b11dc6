//! One QUIC link: a writer task between the send buffer and the stream, a reader in whoever receives.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use peerloom_proto::{CertHash, ConnId};
use quinn::{Connection, ConnectionError, RecvStream, SendStream, TransportErrorCode, WriteError};
use tokio::sync::Mutex;

use super::close_code;
use super::silence::silent;
use crate::end::LinkEnd;
use crate::framing::{FrameError, FrameReader, encode};
use crate::identity::{EXPORTER_LABEL, LinkBinding};
use crate::queue::{FrameReceiver, FrameSender, frame_queue};
use crate::transport::{BoxFuture, CloseReason, LinkError, LinkProperties, LinkRole, PathKind, PeerLink};

#[derive(Debug)]
pub(super) struct QuicLink {
    connection: Connection,
    role: LinkRole,
    binding: LinkBinding,
    outgoing: FrameSender,
    incoming: Mutex<FrameReader<RecvStream>>,
    end: Arc<LinkEnd>,
}

impl QuicLink {
    pub(super) fn new(
        connection: Connection,
        role: LinkRole,
        conn: ConnId,
        local_cert: CertHash,
        peer_cert: CertHash,
        send: SendStream,
        recv: RecvStream,
    ) -> Self {
        let mut exporter = [0; 32];
        let exported = connection.export_keying_material(&mut exporter, EXPORTER_LABEL, conn.as_bytes());
        let exporter = exported.ok().map(|()| exporter);
        let end = Arc::new(LinkEnd::new());
        let (outgoing, queued) = frame_queue(end.clone());
        tokio::spawn(write_until_end(connection.clone(), send, queued, end.clone()));
        Self {
            connection,
            role,
            binding: LinkBinding { conn, local_cert, peer_cert, exporter },
            outgoing,
            incoming: Mutex::new(FrameReader::new(recv)),
            end,
        }
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
        match error {
            FrameError::Oversize => Err(self.misbehaved("length prefix over the frame limit")),
            FrameError::Cut => Err(self.misbehaved("stream ended inside a frame")),
            FrameError::Ended => {
                self.close(CloseReason::Finished);
                Err(self.end.set(LinkError::Closed(CloseReason::Finished)))
            }
            FrameError::Io(error) => {
                let cause = match self.connection.close_reason() {
                    Some(reason) => link_error(&reason),
                    // The peer reset the stream of a living connection: there is no other.
                    None => LinkError::Lost(error.kind()),
                };
                self.connection.close(close_code(CloseReason::Finished), b"");
                Err(self.end.set(cause))
            }
        }
    }

    fn misbehaved(&self, what: &'static str) -> LinkError {
        let cause = self.end.set(LinkError::Malformed { what });
        self.connection.close(close_code(CloseReason::Misbehaved), b"");
        cause
    }
}

impl PeerLink for QuicLink {
    fn properties(&self) -> LinkProperties {
        let remote = self.connection.remote_address();
        LinkProperties {
            kind: PathKind::Quic,
            role: self.role,
            remote: Some(std::net::SocketAddr::new(remote.ip().to_canonical(), remote.port())),
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
        Some(self.connection.rtt())
    }

    fn close(&self, reason: CloseReason) {
        self.end.set(LinkError::Closed(reason));
        self.connection.close(close_code(reason), b"");
    }
}

impl Drop for QuicLink {
    fn drop(&mut self) {
        self.close(CloseReason::Finished);
    }
}

async fn write_until_end(connection: Connection, send: SendStream, queued: FrameReceiver, end: Arc<LinkEnd>) {
    let cause = tokio::select! {
        written = write_all(send, queued) => match written {
            // The link was dropped, which closed the connection.
            Ok(()) => return,
            Err(WriteError::ConnectionLost(error)) => link_error(&error),
            Err(WriteError::Stopped(_)) => LinkError::Malformed { what: "stopped the only stream" },
            Err(WriteError::ClosedStream | WriteError::ZeroRttRejected) => {
                LinkError::Lost(io::ErrorKind::BrokenPipe)
            }
        },
        error = connection.closed() => link_error(&error),
        () = silent(&connection) => LinkError::Lost(io::ErrorKind::TimedOut),
    };
    let told = match cause {
        LinkError::Malformed { .. } => CloseReason::Misbehaved,
        LinkError::TooLarge { .. } | LinkError::Closed(_) | LinkError::Lost(_) => CloseReason::Finished,
    };
    end.set(cause);
    connection.close(close_code(told), b"");
}

/// Ends well when no sender is left.
async fn write_all(mut send: SendStream, mut queued: FrameReceiver) -> Result<(), WriteError> {
    let mut frames = Vec::new();
    loop {
        let room = queued.take(&mut frames, BATCH_FRAMES_MAX, BATCH_BYTES_MAX).await;
        if room == 0 {
            return Ok(());
        }
        let mut chunks = encode(&mut frames);
        send.write_all_chunks(&mut chunks).await?;
        queued.release(room);
    }
}

/// What a QUIC connection's end means to its link.
pub(super) fn link_error(error: &ConnectionError) -> LinkError {
    match error {
        ConnectionError::ApplicationClosed(close) => {
            LinkError::Closed(CloseReason::from_code(close.error_code.into_inner()))
        }
        ConnectionError::ConnectionClosed(close) if refuses(close.error_code) => {
            LinkError::Closed(CloseReason::Refused)
        }
        ConnectionError::ConnectionClosed(_) => LinkError::Lost(io::ErrorKind::ConnectionAborted),
        ConnectionError::TransportError(error) if refuses(error.code) => {
            LinkError::Closed(CloseReason::Refused)
        }
        ConnectionError::TransportError(_) => LinkError::Malformed { what: "not QUIC" },
        ConnectionError::Reset => LinkError::Lost(io::ErrorKind::ConnectionReset),
        ConnectionError::TimedOut => LinkError::Lost(io::ErrorKind::TimedOut),
        // A link that closes itself has recorded why; else the whole endpoint was closed.
        ConnectionError::LocallyClosed => LinkError::Closed(CloseReason::ShuttingDown),
        ConnectionError::VersionMismatch => LinkError::Lost(io::ErrorKind::Unsupported),
        ConnectionError::CidsExhausted => LinkError::Lost(io::ErrorKind::Other),
    }
}

/// TLS alerts (RFC 9001 §4.8: 0x100 to 0x1ff) and the refusal before TLS.
fn refuses(code: TransportErrorCode) -> bool {
    code == TransportErrorCode::CONNECTION_REFUSED || (0x100..0x200).contains(&u64::from(code))
}

/// Frames one write coalesces.
const BATCH_FRAMES_MAX: usize = 256;

/// Bytes one write coalesces: enough for several segmentation offloads, small beside the window.
const BATCH_BYTES_MAX: usize = 256 << 10;
