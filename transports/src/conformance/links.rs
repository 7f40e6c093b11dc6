//! What any two connected ends owe each other.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use peerloom_proto::limits::FRAME_BYTES_MAX;
use tokio::time::{sleep, timeout};

use super::soon;
use crate::transport::{CloseReason, LinkError, PeerLink, SEND_BUFFER_BYTES_MAX};

/// Two ends of one link.
type Ends = (Box<dyn PeerLink>, Box<dyn PeerLink>);

/// What one direction may hold while nobody reads: our buffer, the adapter's windows, the kernel's
/// buffers for both sockets.
const UNREAD_BYTES_MAX: usize = SEND_BUFFER_BYTES_MAX + (30 << 20);

/// What one direction may hold while somebody reads slowly: the same without the growth that the kernel
/// allows a reader who has never read.
const UNDER_WAY_BYTES_MAX: usize = SEND_BUFFER_BYTES_MAX + (14 << 20);

/// Runs the list for links; `connect` makes a fresh pair for each item.
pub async fn links<C, F>(connect: C)
where
    C: Fn() -> F,
    F: Future<Output = Ends>,
{
    frames_arrive_unaltered_and_in_order(connect().await).await;
    close_is_told_to_both(connect().await).await;
    a_dropped_link_is_closed(connect().await).await;
    oversize_is_an_error(connect().await).await;
    a_reader_that_does_not_read_stops_the_writer(connect().await).await;
    a_slow_reader_sets_the_pace(connect().await).await;
    an_abandoned_receive_loses_nothing(connect().await).await;
}

async fn frames_arrive_unaltered_and_in_order((a, b): Ends) {
    let sizes = [0, 1, 125, 126, 1 << 10, 16 << 10, (16 << 10) + 1, 65_535, 65_536, FRAME_BYTES_MAX, 0, 7];
    let sent: Vec<Bytes> = sizes.iter().zip(0..).map(|(size, seed)| patterned(*size, seed)).collect();
    for (from, to) in [(&a, &b), (&b, &a)] {
        let sending = async {
            from.send_many(sent.clone()).await.expect("send_many on a live link");
            for frame in &sent {
                from.send(frame.clone()).await.expect("send on a live link");
            }
        };
        let receiving = async {
            let mut received = Vec::new();
            while received.len() < 2 * sent.len() {
                let limit = 1 + received.len() % 3;
                let frames = to.recv_many(limit, 1 << 10).await.expect("recv_many on a live link");
                assert!(
                    !frames.is_empty() && frames.len() <= limit,
                    "recv_many gave {} of {limit}",
                    frames.len()
                );
                received.extend(frames);
            }
            received
        };
        let (received, ()) = soon("frames of every size", async { tokio::join!(receiving, sending) }).await;
        for (index, (got, wanted)) in received.iter().zip(sent.iter().chain(&sent)).enumerate() {
            assert!(got == wanted, "frame {index} of {} bytes arrived altered or out of order", wanted.len());
        }
    }
}

async fn close_is_told_to_both((a, b): Ends) {
    a.send(Bytes::from_static(b"before")).await.expect("send on a live link");
    assert_eq!(soon("frame before close", b.recv()).await.as_deref(), Ok(&b"before"[..]));
    a.close(CloseReason::Superseded);
    a.close(CloseReason::Idle);
    let ended = Err(LinkError::Closed(CloseReason::Superseded));
    assert_eq!(soon("close at the peer", b.recv()).await, ended);
    assert_eq!(soon("close at home", a.recv()).await, ended);
    for link in [&a, &b] {
        assert_eq!(link.recv().await, ended, "the first cause stays");
        let sent = link.send(Bytes::from_static(b"after")).await;
        assert_eq!(sent, Err(LinkError::Closed(CloseReason::Superseded)));
    }
}

async fn a_dropped_link_is_closed((a, b): Ends) {
    drop(a);
    assert_eq!(soon("end of a dropped link", b.recv()).await, Err(LinkError::Closed(CloseReason::Finished)));
}

async fn oversize_is_an_error((a, b): Ends) {
    let large = patterned(FRAME_BYTES_MAX + 1, 1);
    let refused = Err(LinkError::TooLarge { bytes: large.len(), bytes_max: FRAME_BYTES_MAX });
    assert_eq!(a.send(large.clone()).await, refused);
    assert_eq!(a.send_many(vec![patterned(9, 2), large]).await, refused);
    a.send(patterned(5, 3)).await.expect("the link is unharmed");
    assert_eq!(
        soon("frame after an oversize one", b.recv()).await,
        Ok(patterned(5, 3)),
        "nothing else was sent"
    );
}

async fn a_reader_that_does_not_read_stops_the_writer((a, b): Ends) {
    let frame = patterned(256 << 10, 4);
    let mut taken = 0;
    // A wait this long on a loopback path is back-pressure, not scheduling.
    while let Ok(sent) = timeout(Duration::from_millis(500), a.send(frame.clone())).await {
        sent.expect("send on a live link");
        taken += 1;
        assert!(taken * frame.len() <= UNREAD_BYTES_MAX, "{taken} unread frames were taken");
    }
    for index in 0..taken {
        let received = soon("frame after back-pressure", b.recv()).await;
        assert!(received.as_ref() == Ok(&frame), "unread frame {index} was lost or altered");
    }
    soon("send after back-pressure", a.send(patterned(3, 5))).await.expect("send on a live link");
    assert_eq!(soon("frame after the others", b.recv()).await, Ok(patterned(3, 5)));
}

/// Reading a little makes room for a little: windows that open too far, or a queue somewhere that has no
/// bound, show as frames that were sent and are not yet read.
async fn a_slow_reader_sets_the_pace((a, b): Ends) {
    let frame = patterned(FRAME_BYTES_MAX, 6);
    let frames = (UNDER_WAY_BYTES_MAX + (8 << 20)) / frame.len();
    let sent = AtomicUsize::new(0);
    let sending = async {
        for _ in 0..frames {
            a.send(frame.clone()).await.expect("send on a live link");
            sent.fetch_add(1, Ordering::Relaxed);
        }
    };
    let receiving = async {
        let mut most = 0;
        for index in 0..frames {
            most = most.max(sent.load(Ordering::Relaxed) - index);
            sleep(Duration::from_millis(5)).await;
            let received = b.recv().await;
            assert!(received.as_ref() == Ok(&frame), "frame {index} to a slow reader was lost or altered");
        }
        most
    };
    let ((), most) = soon("frames to a slow reader", async { tokio::join!(sending, receiving) }).await;
    assert!(most * frame.len() <= UNDER_WAY_BYTES_MAX, "{most} frames of {} were under way", frame.len());
}

async fn an_abandoned_receive_loses_nothing((a, b): Ends) {
    const FRAMES: u16 = 500;
    let sending = async {
        for number in 0..FRAMES {
            let frame = patterned(usize::from(number) * 40, number);
            a.send(frame).await.expect("send on a live link");
            tokio::task::yield_now().await;
        }
    };
    let receiving = async {
        let mut number = 0;
        while number < FRAMES {
            // Polled once and dropped: the harshest caller there is.
            if let Some(received) = b.recv().now_or_never() {
                let wanted = patterned(usize::from(number) * 40, number);
                assert!(received == Ok(wanted), "frame {number} was lost by an abandoned receive");
                number += 1;
            }
            tokio::task::yield_now().await;
        }
    };
    soon("frames through abandoned receives", async { tokio::join!(sending, receiving) }).await;
}

fn patterned(size: usize, seed: u16) -> Bytes {
    let mut state = u32::from(seed).wrapping_mul(2_654_435_761) | 1;
    let mut frame = Vec::with_capacity(size);
    for _ in 0..size {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        frame.push(state.to_be_bytes()[0]);
    }
    Bytes::from(frame)
}
