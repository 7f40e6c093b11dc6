//! One session: a peer connection, its place at the socket, and whoever drives them.

use std::collections::BTreeSet;
use std::future::pending;
use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use peerloom_proto::CertHash;
use peerloom_proto::stun::{StunKind, StunMessage, is_stun};
use rtc::data_channel::{RTCDataChannelId, RTCDataChannelMessage};
use rtc::peer_connection::RTCPeerConnection;
use rtc::peer_connection::event::{RTCDataChannelEvent, RTCPeerConnectionEvent};
use rtc::peer_connection::message::RTCMessage;
use rtc::peer_connection::state::RTCPeerConnectionState;
use rtc::sansio::Protocol;
use rtc::shared::{TaggedBytesMut, TransportContext, TransportProtocol};
use rtc::statistics::StatsSelector;
use tokio::time::sleep_until;
use tracing::debug;

use super::peer;
use super::sessions::{Came, Seat};
use crate::identity::cert_hash;

/// Why a session never opened.
#[derive(Debug)]
pub(super) enum OpenError {
    /// The peer does not expect this attempt, or refused our certificate.
    Refused,
    /// The peer proved to hold another certificate.
    WrongPeer { presented: CertHash },
    /// The library gave up.
    Failed(io::Error),
}

pub(super) struct Session {
    peer: RTCPeerConnection,
    channel: RTCDataChannelId,
    seat: Seat,
    state: State,
    came: Vec<Came>,
    run: Vec<u8>,
}

/// What the library has told so far.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct State {
    pub(super) open: bool,
    /// By the peer; final.
    pub(super) closed: bool,
    /// The path is dead; final.
    pub(super) dead: bool,
    /// The peer opened a channel that nobody agreed on.
    pub(super) stray: bool,
}

impl Session {
    pub(super) fn new(peer: RTCPeerConnection, channel: RTCDataChannelId, seat: Seat) -> Self {
        Self { peer, channel, seat, state: State::default(), came: Vec::new(), run: Vec::new() }
    }

    /// Drives the session until its channel is open and the peer's certificate is `expected`. With
    /// `candidates` of them having refused there is nobody left to ask.
    pub(super) async fn open(&mut self, expected: CertHash, candidates: usize) -> Result<(), OpenError> {
        let mut refusing = BTreeSet::new();
        loop {
            self.settle();
            // Before anything is said or read: everything below rests on it.
            if let Some(presented) = self.peer_cert() {
                if presented != expected {
                    self.finish().await;
                    return Err(OpenError::WrongPeer { presented });
                }
                self.seat.seal();
                if self.state.open {
                    return Ok(());
                }
            }
            if self.state.closed {
                return Err(OpenError::Refused);
            }
            if self.state.dead {
                return Err(OpenError::Failed(io::ErrorKind::TimedOut.into()));
            }
            self.flush().await;
            self.step().await.map_err(OpenError::Failed)?;
            self.read(|from| {
                refusing.insert(from);
            });
            if candidates > 0 && refusing.len() >= candidates {
                return Err(OpenError::Refused);
            }
        }
    }

    /// Hands over datagrams that came before there was a session.
    pub(super) fn begin(&mut self, came: Vec<Came>) {
        self.came = came;
        self.read(|_| {});
    }

    pub(super) fn state(&self) -> State {
        self.state
    }

    /// Waits for datagrams or for the next timer, whichever is first. Cancel safe. An error is a
    /// handshake that was given up.
    pub(super) async fn step(&mut self) -> io::Result<()> {
        if !self.came.is_empty() {
            return Ok(());
        }
        let due = self.peer.poll_timeout();
        let timer = async {
            match due {
                // Timers of a network are not finer than this; an overdue one must not spin.
                Some(due) => sleep_until(due.max(Instant::now() + TICK).into()).await,
                None => pending().await,
            }
        };
        tokio::select! {
            learned = self.seat.recv_or_learn(&mut self.came) => {
                if let Some(addr) = learned
                    && let Err(error) = self.peer.add_remote_candidate(peer::host(addr))
                {
                    debug!(%error, "A further address was of no use.");
                }
                Ok(())
            }
            () = timer => self.peer.handle_timeout(Instant::now()).map_err(io::Error::other),
        }
    }

    /// Feeds what came to the library; tells who refused a check.
    pub(super) fn read(&mut self, mut refused_by: impl FnMut(SocketAddr)) {
        for (from, message) in self.came.drain(..) {
            if is_stun(&message)
                && let Some(StunMessage { kind: StunKind::Error, error: Some(401), .. }) =
                    StunMessage::parse(&message)
            {
                refused_by(from);
                continue;
            }
            let transport = TransportContext {
                local_addr: peer::local(from.ip()),
                peer_addr: from,
                transport_protocol: TransportProtocol::UDP,
                ecn: None,
            };
            if let Err(error) =
                self.peer.handle_read(TaggedBytesMut { now: Instant::now(), transport, message })
            {
                debug!(%error, "A datagram was of no use.");
            }
        }
    }

    /// Learns what the library has to tell.
    pub(super) fn settle(&mut self) {
        while let Some(event) = self.peer.poll_event() {
            if let RTCPeerConnectionEvent::OnDataChannel(event) = event {
                if let RTCDataChannelEvent::OnOpen(id) = event {
                    self.state.open |= id == self.channel;
                    self.state.stray |= id != self.channel;
                } else if let RTCDataChannelEvent::OnClose(id) = event {
                    self.state.closed |= id == self.channel;
                }
            } else if let RTCPeerConnectionEvent::OnConnectionStateChangeEvent(
                RTCPeerConnectionState::Failed,
            ) = event
            {
                self.state.dead = true;
            }
        }
    }

    /// The next message of the channel.
    pub(super) fn message(&mut self) -> Option<RTCDataChannelMessage> {
        while let Some(tagged) = self.peer.poll_read() {
            if let RTCMessage::DataChannelMessage(id, message) = tagged.message
                && id == self.channel
            {
                return Some(message);
            }
        }
        None
    }

    /// Opens a channel in band, as a link never does.
    #[cfg(test)]
    pub(super) fn open_stray(&mut self) {
        self.peer.create_data_channel("stray", None).expect("an open session takes another channel");
    }

    /// Bytes the peer has not acknowledged.
    pub(super) fn outstanding(&mut self) -> usize {
        self.peer.data_channel(self.channel).map_or(0, |channel| channel.outstanding_bytes())
    }

    /// Says a piece of the byte stream.
    pub(super) fn say(&mut self, piece: BytesMut) -> io::Result<()> {
        let mut channel = self.peer.data_channel(self.channel).ok_or(io::ErrorKind::BrokenPipe)?;
        channel.send(Instant::now(), piece).map_err(io::Error::other)
    }

    /// Says the last thing there is to say.
    pub(super) fn say_last(&mut self, text: &str) -> io::Result<()> {
        let mut channel = self.peer.data_channel(self.channel).ok_or(io::ErrorKind::BrokenPipe)?;
        channel.send_text(Instant::now(), text).map_err(io::Error::other)
    }

    /// Sends what the library wants sent.
    pub(super) async fn flush(&mut self) {
        let segments_max = self.seat.segments_max();
        let mut held = None;
        while let Some(first) = held.take().or_else(|| self.peer.poll_write()) {
            let (to, size) = (first.transport.peer_addr, first.message.len());
            self.run.clear();
            self.run.extend_from_slice(&first.message);
            let mut count = 1;
            // Every check is looked at on its way out.
            while count < segments_max && !is_stun(&first.message) {
                held = self.peer.poll_write();
                let Some(next) = held.take_if(|next| {
                    next.transport.peer_addr == to
                        && next.message.len() <= size
                        && self.run.len() + next.message.len() <= RUN_BYTES_MAX
                        && !is_stun(&next.message)
                }) else {
                    break;
                };
                self.run.extend_from_slice(&next.message);
                count += 1;
                if next.message.len() < size {
                    break;
                }
            }
            self.seat.send(to, &self.run, (count > 1).then_some(size)).await;
        }
    }

    /// Tells the peer that the session is over, and sends what is left.
    pub(super) async fn finish(&mut self) {
        if let Err(error) = self.peer.close() {
            debug!(%error, "A session did not end well.");
        }
        self.flush().await;
    }

    /// The chosen path: the peer's address and the latest round trip.
    pub(super) fn path(&mut self) -> Option<(SocketAddr, Duration)> {
        let ice = self.peer.sctp()?.transport().ice_transport();
        let pair = ice.get_selected_candidate_pair()?;
        let remote = SocketAddr::new(pair.remote().address.parse().ok()?, pair.remote().port);
        let report = self.peer.get_stats(Instant::now(), StatsSelector::None);
        let rtt = report.candidate_pairs().find(|pair| pair.nominated)?.current_round_trip_time;
        Some((remote, Duration::try_from_secs_f64(rtt).ok()?))
    }

    fn peer_cert(&self) -> Option<CertHash> {
        let dtls = self.peer.sctp()?.transport();
        dtls.get_remote_certificates().first().map(|der| cert_hash(der))
    }
}

const TICK: Duration = Duration::from_millis(1);

/// Bytes handed to the system at once; a UDP datagram of the kernel's own limit holds a little more.
const RUN_BYTES_MAX: usize = 60 << 10;
