//! STUN binding responder (RFC 8489): tells a socket the address it is seen from, and nothing else.
//!
//! Without authentication, state or any other method. What it says is
//! [`public_answer`](peerloom_proto::stun::public_answer)'s.

use std::io;

use peerloom_proto::stun::public_answer;
use tokio::net::UdpSocket;
use tokio_util::sync::CancellationToken;

use crate::metrics::Metrics;

/// Answers until `stop`. A full send buffer drops the answer: the client asks again.
pub(crate) async fn serve(socket: UdpSocket, metrics: Metrics, stop: CancellationToken) {
    let mut datagram = [0; 1_500];
    loop {
        let received = tokio::select! {
            () = stop.cancelled() => return,
            received = socket.recv_from(&mut datagram) => received,
        };
        match received {
            Ok((length, peer)) => match public_answer(&datagram[..length], peer) {
                Some(message) => report(socket.try_send_to(&message, peer), &metrics),
                None => {
                    metrics.stun_ignored.inc();
                }
            },
            // On Linux an ICMP error of an earlier answer may surface here; the socket stays good.
            Err(error) => tracing::debug!(%error, "STUN receive failed."),
        }
    }
}

fn report(sent: io::Result<usize>, metrics: &Metrics) {
    match sent {
        Ok(_) => {
            metrics.stun_answered.inc();
        }
        Err(error) => tracing::debug!(%error, "STUN answer dropped."),
    }
}
