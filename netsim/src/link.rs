//! One direction of a link: what becomes of a datagram between leaving and arriving.
//!
//! 1. what is longer than the MTU is dropped
//! 2. what finds the queue of a slow line full is dropped, else it waits its turn
//! 3. what is lost is lost: each by itself, or most of what meets a burst
//! 4. the rest arrives after delay and jitter in the order it left, but for what is overtaken
//! 5. some of it arrives twice

use std::time::Duration;

use crate::chance::Chance;
use crate::network::Delay;

/// What a link is like.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shape {
    pub(crate) delay: Delay,
    /// Of a hundred datagrams so many are lost, each by itself.
    pub(crate) loss_percent: f64,
    pub(crate) burst: Option<Burst>,
    pub(crate) line: Option<Line>,
    /// Of a hundred datagrams so many are overtaken by those behind them.
    pub(crate) reorder_percent: f64,
    /// By how much they are late.
    pub(crate) reorder_by: Duration,
    pub(crate) duplicate_percent: f64,
    /// Bytes of the longest datagram that passes.
    pub(crate) mtu: usize,
}

/// Gilbert and Elliott's two states, in time: a link is good for a while, then bad for a while.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Burst {
    /// Mean life of the good state.
    pub(crate) every: Duration,
    /// Mean life of the bad state.
    pub(crate) lasts: Duration,
    /// Of a hundred datagrams that meet the bad state so many are lost.
    pub(crate) loss_percent: f64,
}

/// A line that is slow, and what waits for it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Line {
    pub(crate) bytes_per_s: u64,
    /// Bytes that may wait; what comes when it is full is dropped.
    pub(crate) queue_bytes: usize,
}

/// One direction.
#[derive(Debug)]
pub(crate) struct Link {
    shape: Shape,
    chance: Chance,
    is_bad: bool,
    /// When the state changes.
    changes_at: Duration,
    /// When the line has sent everything that waits.
    idle_at: Duration,
    /// When the last datagram that was not overtaken arrives.
    last: Duration,
}

impl Link {
    pub(crate) fn new(shape: Shape, seed: u64, name: &str) -> Self {
        let mut chance = Chance::new(seed, name, "datagrams");
        let changes_at = shape.burst.map_or(Duration::ZERO, |burst| life(&mut chance, burst.every));
        let (idle_at, last) = (Duration::ZERO, Duration::ZERO);
        Self { shape, chance, is_bad: false, changes_at, idle_at, last }
    }

    /// When a datagram arrives: never, once or twice.
    pub(crate) fn pass(&mut self, now: Duration, bytes: usize) -> impl Iterator<Item = Duration> + use<> {
        let arrives = self.arrives(now, bytes);
        let twice = arrives.is_some() && self.chance.happens(self.shape.duplicate_percent);
        let again = arrives.filter(|_| twice).map(|at| at + self.jitter());
        arrives.into_iter().chain(again)
    }

    fn arrives(&mut self, now: Duration, bytes: usize) -> Option<Duration> {
        if bytes > self.shape.mtu {
            return None;
        }
        let sent = self.send(now, bytes)?;
        self.turn(now);
        let bad_percent = self.shape.burst.filter(|_| self.is_bad).map_or(0.0, |burst| burst.loss_percent);
        let (alone, in_burst) =
            (self.chance.happens(self.shape.loss_percent), self.chance.happens(bad_percent));
        let (delay, overtaken) = (self.shape.delay.least + self.jitter(), self.is_overtaken());
        if alone || in_burst {
            return None;
        }
        if overtaken {
            return Some(self.last.max(sent + delay) + self.shape.reorder_by);
        }
        self.last = self.last.max(sent + delay);
        Some(self.last)
    }

    /// When the line has sent it, if there is room for it to wait.
    fn send(&mut self, now: Duration, bytes: usize) -> Option<Duration> {
        let Some(line) = self.shape.line else { return Some(now) };
        let waits = self.idle_at.saturating_sub(now);
        let waiting = waits.as_micros() * u128::from(line.bytes_per_s) / 1_000_000;
        if waiting + bytes as u128 > line.queue_bytes as u128 {
            return None;
        }
        let takes = Duration::from_micros(bytes as u64 * 1_000_000 / line.bytes_per_s);
        self.idle_at = self.idle_at.max(now) + takes;
        Some(self.idle_at)
    }

    /// Changes the state as often as it was due.
    fn turn(&mut self, now: Duration) {
        let Some(burst) = self.shape.burst else { return };
        while self.changes_at <= now {
            self.is_bad = !self.is_bad;
            let mean = if self.is_bad { burst.lasts } else { burst.every };
            self.changes_at += life(&mut self.chance, mean);
        }
    }

    fn jitter(&mut self) -> Duration {
        self.chance.between(Duration::ZERO, self.shape.delay.jitter)
    }

    fn is_overtaken(&mut self) -> bool {
        self.chance.happens(self.shape.reorder_percent)
    }
}

/// Steps of a state's mean life.
const LIFE_STEPS: usize = 16;

/// A state's life, geometric in sixteenths of its mean: no logarithm, whose last bit differs between
/// machines.
fn life(chance: &mut Chance, mean: Duration) -> Duration {
    let step = mean / u32::try_from(LIFE_STEPS).expect("a small number");
    let mut lasts = step;
    while chance.below(LIFE_STEPS) != 0 {
        lasts += step;
    }
    lasts
}

#[cfg(test)]
mod tests;
