//! One end of a reliable stream over links that lose, delay, reorder and duplicate: as much of a
//! transport as its delays and deaths need, and no more.
//!
//! What is pushed leaves as numbered segments and comes out of the other end once, in order. Every
//! transmission has a number of its own (`order`), as in QUIC; every segment received is acknowledged
//! with it and with the number below which nothing is missing, so a lost acknowledgement costs nothing.
//!
//! - A transmission is lost when one that left three later was acknowledged, or when the timer ends:
//!   smoothed round trip and four deviations, doubled each time it ends in a row.
//! - The window grows by a segment for each acknowledged one, above the threshold by one a round trip.
//!   A loss halves it, at most once a round trip; the timer leaves two segments of it.
//! - An end whose transmissions stay without any answer for as long as its transport bears it is dead.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::time::Duration;

/// What a transport bears.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Manners {
    /// The timer before a round trip was measured.
    timer_first: Duration,
    timer_min: Duration,
    timer_max: Duration,
    /// A silent flow is kept alive this often.
    keep_alive: Option<Duration>,
    /// Death, when what was sent stays without any answer for so long, or for so many round trips.
    unanswered_max: Duration,
    unanswered_round_trips: u32,
    /// Bytes the first segment has at least.
    first_bytes: usize,
}

/// Linux: RFC 6298 timers with 200 ms at least; fifteen retransmissions take a quarter of an hour.
pub(crate) const TCP: Manners = Manners {
    timer_first: Duration::from_secs(1),
    timer_min: Duration::from_millis(200),
    timer_max: Duration::from_secs(120),
    keep_alive: None,
    unanswered_max: Duration::from_secs(924),
    unanswered_round_trips: 0,
    first_bytes: 0,
};

/// `transports/quic`: a first guess of 100 ms, kept alive every 5 s, given up when a question stays
/// unanswered for a second or twelve round trips. Its first datagram is padded to 1,200 bytes (RFC 9000
/// §14.1).
pub(crate) const QUIC: Manners = Manners {
    timer_first: Duration::from_millis(300),
    timer_min: Duration::from_millis(26),
    timer_max: Duration::from_secs(60),
    keep_alive: Some(Duration::from_secs(5)),
    unanswered_max: Duration::from_secs(1),
    unanswered_round_trips: 12,
    first_bytes: 1_200,
};

/// Bytes of content one segment carries: what QUIC and TCP over a tunnel may count on.
const SEGMENT_BYTES: usize = 1_200;

/// IP, UDP or TCP, TLS or QUIC: what a segment is longer than its content.
const HEAD_BYTES: usize = 60;

/// Segments in flight before anything was acknowledged (RFC 6928, RFC 9002 §7.2).
const WINDOW_FIRST: usize = 10;

/// Segments that may be in flight at most: 300 KiB.
const WINDOW_MAX: usize = 256;

/// Segments that may be in flight after a timer ended, and never fewer.
const WINDOW_MIN: usize = 2;

/// Transmissions acknowledged beyond one that was not, until it counts as lost.
const OVERTAKEN: u64 = 3;

/// What passes between the two ends.
#[derive(Clone, Debug)]
pub(crate) enum Packet<T> {
    Data { order: u64, segment: Segment<T> },
    Ack { order: u64, through: u64 },
}

/// A piece of the stream; the last piece of an item carries it.
#[derive(Clone, Debug)]
pub(crate) struct Segment<T> {
    number: u64,
    bytes: usize,
    item: Option<T>,
}

impl<T> fmt::Display for Packet<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Data { order, segment } => {
                write!(f, "packet {order}: segment {} of {} bytes", segment.number, segment.bytes)
            }
            Self::Ack { order, through } => {
                write!(f, "acknowledges packet {order}, segments below {through}")
            }
        }
    }
}

#[derive(Debug)]
struct Flying<T> {
    segment: Segment<T>,
    sent_at: Duration,
}

/// One end.
#[derive(Debug)]
pub(crate) struct Flow<T> {
    manners: Manners,
    waiting: VecDeque<Segment<T>>,
    flying: BTreeMap<u64, Flying<T>>,
    next_number: u64,
    next_order: u64,
    window: usize,
    threshold: usize,
    /// Acknowledged since the window last grew by one.
    grown: usize,
    /// Losses of transmissions before this one have been paid for.
    paid: u64,
    round_trip: Option<(Duration, Duration)>,
    doublings: u32,
    timer_from: Duration,
    /// The first transmission since anything was heard.
    asked_at: Option<Duration>,
    acks: VecDeque<(u64, u64)>,
    expected: u64,
    early: BTreeMap<u64, Segment<T>>,
    heard_at: Option<Duration>,
    said_at: Duration,
    /// Segments that came again.
    repeats: u64,
}

impl<T: Clone> Flow<T> {
    pub(crate) fn new(manners: Manners, now: Duration) -> Self {
        Self {
            manners,
            waiting: VecDeque::new(),
            flying: BTreeMap::new(),
            next_number: 0,
            next_order: 0,
            window: WINDOW_FIRST,
            threshold: WINDOW_MAX,
            grown: 0,
            paid: 0,
            round_trip: None,
            doublings: 0,
            timer_from: now,
            asked_at: None,
            acks: VecDeque::new(),
            expected: 0,
            early: BTreeMap::new(),
            heard_at: None,
            said_at: now,
            repeats: 0,
        }
    }

    /// Takes an item of so many bytes.
    pub(crate) fn push(&mut self, item: T, bytes: usize) {
        let mut left = bytes;
        while left > SEGMENT_BYTES {
            self.add(SEGMENT_BYTES, None);
            left -= SEGMENT_BYTES;
        }
        self.add(left, Some(item));
    }

    fn add(&mut self, bytes: usize, item: Option<T>) {
        let bytes = if self.next_number == 0 { bytes.max(self.manners.first_bytes) } else { bytes };
        self.waiting.push_back(Segment { number: self.next_number, bytes, item });
        self.next_number += 1;
    }

    /// Bytes that were pushed and not acknowledged.
    pub(crate) fn unacknowledged(&self) -> usize {
        let flying = self.flying.values().map(|flying| &flying.segment);
        self.waiting.iter().chain(flying).map(|segment| segment.bytes).sum()
    }

    /// Segments that came again.
    pub(crate) fn repeats(&self) -> u64 {
        self.repeats
    }

    /// The next packet to send, with its bytes on the link.
    pub(crate) fn poll_packet(&mut self, now: Duration) -> Option<(Packet<T>, usize)> {
        if let Some((order, through)) = self.acks.pop_front() {
            return Some((Packet::Ack { order, through }, HEAD_BYTES));
        }
        if self.flying.len() >= self.window {
            return None;
        }
        let segment = self.waiting.pop_front()?;
        let (order, bytes) = (self.next_order, segment.bytes + HEAD_BYTES);
        self.next_order += 1;
        self.said_at = now;
        if self.flying.is_empty() {
            self.timer_from = now;
        }
        self.asked_at.get_or_insert(now);
        self.flying.insert(order, Flying { segment: segment.clone(), sent_at: now });
        Some((Packet::Data { order, segment }, bytes))
    }

    /// A packet of the other end; gives the items that are complete and next.
    pub(crate) fn heard(&mut self, now: Duration, packet: Packet<T>) -> Vec<T> {
        self.heard_at = Some(now);
        self.asked_at = None;
        match packet {
            Packet::Ack { order, through } => {
                self.acknowledged(now, order, through);
                Vec::new()
            }
            Packet::Data { order, segment } => {
                if segment.number < self.expected || self.early.contains_key(&segment.number) {
                    self.repeats += 1;
                } else {
                    self.early.insert(segment.number, segment);
                }
                let mut items = Vec::new();
                while let Some(next) = self.early.remove(&self.expected) {
                    self.expected += 1;
                    items.extend(next.item);
                }
                self.acks.push_back((order, self.expected));
                items
            }
        }
    }

    fn acknowledged(&mut self, now: Duration, order: u64, through: u64) {
        let before = self.flying.len();
        if let Some(flying) = self.flying.remove(&order) {
            self.measured(now.saturating_sub(flying.sent_at));
        }
        self.flying.retain(|_, flying| flying.segment.number >= through);
        self.waiting.retain(|segment| segment.number >= through);
        let arrived = before - self.flying.len();
        if arrived > 0 {
            self.doublings = 0;
            self.timer_from = now;
            // A window that was not filled proves nothing (RFC 9002 §7.8).
            if before >= self.window {
                self.grow(arrived);
            }
        }
        let lost: Vec<u64> =
            self.flying.range(..(order + 1).saturating_sub(OVERTAKEN)).map(|(order, _)| *order).collect();
        if lost.last().is_some_and(|last| *last >= self.paid) {
            self.paid = self.next_order;
            self.threshold = (self.window / 2).max(WINDOW_MIN);
            self.window = self.threshold;
        }
        self.send_again(&lost);
    }

    fn grow(&mut self, arrived: usize) {
        if self.window < self.threshold {
            self.window += arrived;
        } else {
            self.grown += arrived;
            if self.grown >= self.window {
                self.grown -= self.window;
                self.window += 1;
            }
        }
        self.window = self.window.min(WINDOW_MAX);
    }

    fn send_again(&mut self, lost: &[u64]) {
        for order in lost.iter().rev() {
            self.waiting.extend(self.flying.remove(order).map(|flying| flying.segment));
        }
        self.waiting.make_contiguous().sort_by_key(|segment| segment.number);
    }

    fn measured(&mut self, sample: Duration) {
        self.round_trip = Some(match self.round_trip {
            None => (sample, sample / 2),
            Some((smooth, deviation)) => {
                let off = smooth.abs_diff(sample);
                (smooth * 7 / 8 + sample / 8, deviation * 3 / 4 + off / 4)
            }
        });
    }

    /// When [`timeout`](Self::timeout) wants to be called.
    pub(crate) fn deadline(&self) -> Option<Duration> {
        let repeats = (!self.flying.is_empty()).then(|| self.timer_from + self.timer());
        [repeats, self.keeps_alive_at(), self.dies_at()].into_iter().flatten().min()
    }

    /// Does what is due. True if this end gives the other up.
    pub(crate) fn timeout(&mut self, now: Duration) -> bool {
        if self.dies_at().is_some_and(|at| at <= now) {
            return true;
        }
        if !self.flying.is_empty() && self.timer_from + self.timer() <= now {
            self.doublings += 1;
            self.timer_from = now;
            self.threshold = (self.window / 2).max(WINDOW_MIN);
            self.window = WINDOW_MIN;
            self.paid = self.next_order;
            let all: Vec<u64> = self.flying.keys().copied().collect();
            self.send_again(&all);
        }
        if self.keeps_alive_at().is_some_and(|at| at <= now) {
            self.add(0, None);
        }
        false
    }

    fn timer(&self) -> Duration {
        let Manners { timer_first, timer_min, timer_max, .. } = self.manners;
        let base = self.round_trip.map_or(timer_first, |(smooth, deviation)| smooth + deviation * 4);
        base.max(timer_min).saturating_mul(1 << self.doublings.min(16)).min(timer_max)
    }

    fn keeps_alive_at(&self) -> Option<Duration> {
        let is_silent = self.flying.is_empty() && self.waiting.is_empty();
        Some(self.heard_at.filter(|_| is_silent)?.max(self.said_at) + self.manners.keep_alive?)
    }

    /// A first word may stay unanswered: whoever dials has a deadline of its own.
    fn dies_at(&self) -> Option<Duration> {
        let Manners { unanswered_max, unanswered_round_trips, .. } = self.manners;
        let round_trips =
            self.round_trip.map_or(Duration::ZERO, |(smooth, _)| smooth * unanswered_round_trips);
        self.heard_at?;
        Some(self.asked_at? + unanswered_max.max(round_trips))
    }
}

#[cfg(test)]
mod tests;
