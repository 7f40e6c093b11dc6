//! One socket for STUN and QUIC (RFC 9443). A datagram whose first two bits are zero and which carries
//! STUN's magic cookie is taken aside for the node's machine; quinn sees everything else, less what a
//! [`Sharer`] takes first.

use std::fmt;
use std::io::{self, IoSliceMut};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use peerloom_proto::limits::DATAGRAM_BYTES_MAX;
use peerloom_proto::stun::is_stun;
use quinn::udp::{RecvMeta, Transmit};
use quinn::{AsyncUdpSocket, UdpPoller};
use tokio::sync::mpsc;

use super::canonical;

/// A STUN datagram that came in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Datagram {
    /// The socket it came in on; 0 is the main one.
    pub socket: u16,
    /// Who sent it, as this machine saw it. An IPv4 address is never written as an IPv6 one.
    pub from: SocketAddr,
    /// The whole datagram, at most [`DATAGRAM_BYTES_MAX`].
    pub bytes: Bytes,
}

/// The way of STUN datagrams from all sockets to the machine.
#[derive(Clone, Debug)]
pub(crate) struct StunQueue {
    queue: mpsc::Sender<Datagram>,
    dropped: Arc<AtomicU64>,
}

impl StunQueue {
    pub(crate) fn new() -> (Self, mpsc::Receiver<Datagram>) {
        let (queue, waiting) = mpsc::channel(DATAGRAMS_WAITING_MAX);
        (Self { queue, dropped: Arc::default() }, waiting)
    }

    pub(crate) fn put(&self, socket: u16, from: SocketAddr, datagram: &[u8]) {
        let taken = datagram.len() <= DATAGRAM_BYTES_MAX && {
            let bytes = Bytes::copy_from_slice(datagram);
            self.queue.try_send(Datagram { socket, from: canonical(from), bytes }).is_ok()
        };
        if !taken {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// How many were oversize or found no room.
    pub(crate) fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }
}

/// Another transport that lives on the same socket.
pub(crate) trait Sharer: fmt::Debug + Send + Sync {
    /// Takes a datagram, or leaves it to the machine and to quinn. Must not wait.
    fn take(&self, from: SocketAddr, datagram: &[u8]) -> bool;
}

/// Where a sharer is put once there is one.
pub(crate) type SharerSlot = Arc<OnceLock<Arc<dyn Sharer>>>;

/// Quinn's own socket, offloads and all, less the STUN that arrives on it.
pub(crate) struct SharedSocket {
    quic: Arc<dyn AsyncUdpSocket>,
    name: u16,
    stun: StunQueue,
    sharer: SharerSlot,
}

impl SharedSocket {
    pub(crate) fn new(quic: Arc<dyn AsyncUdpSocket>, name: u16, stun: StunQueue, sharer: SharerSlot) -> Self {
        Self { quic, name, stun, sharer }
    }

    /// Closes the gaps that others' datagrams leave in a buffer of coalesced ones.
    fn take_others(&self, buffer: &mut [u8], meta: &mut RecvMeta) {
        let stride = meta.stride.max(1);
        let (mut at, mut kept) = (0, 0);
        while at < meta.len {
            let end = (at + stride).min(meta.len);
            if self.sharer.get().is_some_and(|sharer| sharer.take(canonical(meta.addr), &buffer[at..end])) {
                // Not quinn's.
            } else if is_stun(&buffer[at..end]) {
                self.stun.put(self.name, meta.addr, &buffer[at..end]);
            } else {
                if kept < at {
                    buffer.copy_within(at..end, kept);
                }
                kept += end - at;
            }
            at = end;
        }
        meta.len = kept;
    }
}

impl fmt::Debug for SharedSocket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SharedSocket({})", self.name)
    }
}

impl AsyncUdpSocket for SharedSocket {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        self.quic.clone().create_io_poller()
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        self.quic.try_send(transmit)
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        buffers: &mut [IoSliceMut<'_>],
        metas: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        let received = ready!(self.quic.poll_recv(cx, buffers, metas))?;
        for (buffer, meta) in buffers.iter_mut().zip(metas.iter_mut()).take(received) {
            self.take_others(buffer, meta);
        }
        Poll::Ready(Ok(received))
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.quic.local_addr()
    }

    fn max_transmit_segments(&self) -> usize {
        self.quic.max_transmit_segments()
    }

    fn max_receive_segments(&self) -> usize {
        self.quic.max_receive_segments()
    }

    fn may_fragment(&self) -> bool {
        self.quic.may_fragment()
    }
}

/// STUN datagrams that wait for the engine, half a second of a birthday punch's probes. When full,
/// further ones are dropped and counted; whoever sent them repeats them.
const DATAGRAMS_WAITING_MAX: usize = 2_048;

#[cfg(test)]
mod tests {
    use super::*;

    fn stun(size: usize, mark: u8) -> Vec<u8> {
        let mut datagram = vec![mark; size];
        datagram[..2].copy_from_slice(&[0, 1]);
        datagram[4..8].copy_from_slice(&[0x21, 0x12, 0xa4, 0x42]);
        datagram
    }

    fn quic(size: usize, mark: u8) -> Vec<u8> {
        let mut datagram = vec![mark; size];
        datagram[0] = 0x40;
        datagram
    }

    /// What quinn and the machine get of one coalesced buffer.
    fn split(parts: &[Vec<u8>], stride: usize) -> (Vec<u8>, Vec<Vec<u8>>) {
        let (queue, mut waiting) = StunQueue::new();
        let quic = Arc::new(Silent);
        let socket = SharedSocket::new(quic, 0, queue, SharerSlot::default());
        let mut buffer = parts.concat();
        let addr = "192.0.2.1:9".parse().unwrap();
        let mut meta = RecvMeta { addr, len: buffer.len(), stride, ecn: None, dst_ip: None };
        socket.take_others(&mut buffer, &mut meta);
        buffer.truncate(meta.len);
        let mut taken = Vec::new();
        while let Ok(datagram) = waiting.try_recv() {
            taken.push(datagram.bytes.to_vec());
        }
        (buffer, taken)
    }

    #[test]
    fn stun_is_cut_out_of_a_coalesced_buffer_wherever_it_stands() {
        let (a, b, c) = (quic(40, 1), quic(40, 2), quic(40, 3));
        let (x, y) = (stun(40, 4), stun(24, 5));
        for (parts, left) in [
            (vec![x.clone(), a.clone(), b.clone()], vec![a.clone(), b.clone()]),
            (vec![a.clone(), x.clone(), b.clone(), c.clone()], vec![a.clone(), b.clone(), c.clone()]),
            (vec![a.clone(), b.clone(), x.clone()], vec![a.clone(), b.clone()]),
        ] {
            assert_eq!(split(&parts, 40), (left.concat(), vec![x.clone()]));
        }
        // The last of a buffer may be shorter than the rest.
        assert_eq!(split(&[x.clone(), a.clone(), y.clone()], 40), (a, vec![x.clone(), y]));
        assert_eq!(split(std::slice::from_ref(&x), 40), (Vec::new(), vec![x.clone()]));
    }

    #[test]
    fn oversize_stun_and_stun_without_room_are_counted_and_nothing_else_happens() {
        let (queue, mut waiting) = StunQueue::new();
        let from = "192.0.2.1:9".parse().unwrap();
        queue.put(0, from, &stun(DATAGRAM_BYTES_MAX + 1, 1));
        assert_eq!(queue.dropped(), 1);
        for _ in 0..DATAGRAMS_WAITING_MAX + 3 {
            queue.put(0, from, &stun(DATAGRAM_BYTES_MAX, 1));
        }
        assert_eq!(queue.dropped(), 4);
        assert_eq!(waiting.try_recv().unwrap().bytes.len(), DATAGRAM_BYTES_MAX);
        assert_eq!(waiting.len(), DATAGRAMS_WAITING_MAX - 1);
    }

    #[derive(Debug)]
    struct Silent;

    impl AsyncUdpSocket for Silent {
        fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
            unreachable!("nothing is sent")
        }

        fn try_send(&self, _: &Transmit<'_>) -> io::Result<()> {
            Ok(())
        }

        fn poll_recv(
            &self,
            _: &mut Context<'_>,
            _: &mut [IoSliceMut<'_>],
            _: &mut [RecvMeta],
        ) -> Poll<io::Result<usize>> {
            Poll::Pending
        }

        fn local_addr(&self) -> io::Result<SocketAddr> {
            Ok("127.0.0.1:1".parse().expect("a literal address"))
        }
    }
}
