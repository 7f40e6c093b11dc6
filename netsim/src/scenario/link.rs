//! What links are like, where a scenario says more of them than their delay.

use std::time::Duration;

use serde::Deserialize;

use crate::link::{Burst, Line, Shape};
use crate::network::{Delay, Shapes};

/// `[topology.link.uplink]` and `[topology.link.direct]`. A kind that is named goes packet by packet over
/// links like this, each direction of each pair by itself; one that is not keeps the cheap streams.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Links {
    uplink: Option<Link>,
    direct: Option<Link>,
}

/// One kind of link.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Link {
    /// Of a hundred datagrams so many are lost, each by itself.
    #[serde(default)]
    loss_percent: f64,
    /// Times in which most are lost; none otherwise.
    burst: Option<Bursts>,
    /// Kilobits a second; as fast as anything is sent otherwise.
    rate_kbps: Option<u64>,
    /// Bytes that wait for a slow line; what does not fit is dropped. Needs `rate_kbps`.
    queue_bytes: Option<usize>,
    /// Of a hundred datagrams so many are overtaken.
    #[serde(default)]
    reorder_percent: f64,
    /// By how much those are late.
    #[serde(default = "reorder_default")]
    reorder_ms: u64,
    /// Of a hundred datagrams so many arrive twice.
    #[serde(default)]
    duplicate_percent: f64,
    /// Bytes of the longest datagram that passes.
    #[serde(default = "mtu_default")]
    mtu: usize,
}

/// Bad times of a link, and how bad they are.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Bursts {
    /// Mean time between two.
    every_ms: u64,
    /// Mean length of one.
    for_ms: u64,
    /// Of a hundred datagrams that meet one so many are lost.
    #[serde(default = "all")]
    loss_percent: f64,
}

impl Links {
    /// With NATs direct streams go by packets in any case: a NAT sees nothing else.
    pub(crate) fn shapes(&self, uplink: Delay, direct: Delay, has_nats: bool) -> Shapes {
        let shape = |link: Option<Link>, delay| link.map(|link| link.shape(delay));
        let plain = has_nats.then_some(Link::PLAIN);
        Shapes { uplink: shape(self.uplink, uplink), direct: shape(self.direct.or(plain), direct) }
    }

    /// Whether it says nothing of any link.
    #[cfg(all(feature = "lab", target_os = "linux"))]
    pub(crate) fn is_plain(&self) -> bool {
        self.uplink.is_none() && self.direct.is_none()
    }

    pub(super) fn check(&self) -> Result<(), String> {
        for (kind, link) in [("uplink", self.uplink), ("direct", self.direct)] {
            if let Some(link) = link {
                link.check().map_err(|what| format!("topology.link.{kind}: {what}"))?;
            }
        }
        Ok(())
    }
}

impl Link {
    /// Nothing but its delay.
    const PLAIN: Self = Self {
        loss_percent: 0.0,
        burst: None,
        rate_kbps: None,
        queue_bytes: None,
        reorder_percent: 0.0,
        reorder_ms: 0,
        duplicate_percent: 0.0,
        mtu: MTU_DEFAULT,
    };

    fn shape(self, delay: Delay) -> Shape {
        let line = self.rate_kbps.map(|kbps| Line {
            bytes_per_s: kbps * 125,
            queue_bytes: self.queue_bytes.unwrap_or(QUEUE_DEFAULT),
        });
        let burst = self.burst.map(|burst| Burst {
            every: Duration::from_millis(burst.every_ms),
            lasts: Duration::from_millis(burst.for_ms),
            loss_percent: burst.loss_percent,
        });
        Shape {
            delay,
            loss_percent: self.loss_percent,
            burst,
            line,
            reorder_percent: self.reorder_percent,
            reorder_by: Duration::from_millis(self.reorder_ms),
            duplicate_percent: self.duplicate_percent,
            mtu: self.mtu,
        }
    }

    fn check(&self) -> Result<(), String> {
        let shares = [
            ("loss_percent", self.loss_percent),
            ("reorder_percent", self.reorder_percent),
            ("duplicate_percent", self.duplicate_percent),
            ("burst.loss_percent", self.burst.map_or(0.0, |burst| burst.loss_percent)),
        ];
        if let Some((name, share)) = shares.into_iter().find(|(_, share)| !(0.0..=100.0).contains(share)) {
            return Err(format!("{name} is 0 to 100, not {share}"));
        }
        if self.loss_percent > LOSS_PERCENT_MAX {
            return Err(format!(
                "loss_percent is at most {LOSS_PERCENT_MAX}: beyond it no transport gets through"
            ));
        }
        if self.burst.is_some_and(|burst| burst.every_ms < BURST_MS_MIN || burst.for_ms < BURST_MS_MIN) {
            return Err(format!("burst: every_ms and for_ms are at least {BURST_MS_MIN}"));
        }
        if self.rate_kbps.is_some_and(|rate| !(RATE_KBPS_MIN..=RATE_KBPS_MAX).contains(&rate)) {
            return Err(format!("rate_kbps is {RATE_KBPS_MIN} to {RATE_KBPS_MAX}"));
        }
        if self.queue_bytes.is_some() && self.rate_kbps.is_none() {
            return Err("queue_bytes is for a line with a rate_kbps".to_owned());
        }
        if self.queue_bytes.is_some_and(|bytes| bytes < self.mtu) {
            return Err(format!("queue_bytes holds at least one datagram of {} bytes", self.mtu));
        }
        if self.mtu < MTU_MIN {
            return Err(format!("mtu is at least {MTU_MIN}: segments are as long"));
        }
        if self.reorder_ms > REORDER_MS_MAX {
            return Err(format!("reorder_ms is at most {REORDER_MS_MAX}"));
        }
        Ok(())
    }
}

/// What a home router holds back: `txqueuelen` is counted in packets, modems have 64 KiB and more.
const QUEUE_DEFAULT: usize = 64 << 10;

/// More makes runs that wait for nothing but timers.
const LOSS_PERCENT_MAX: f64 = 60.0;

/// Lives of a state are drawn in sixteenths of their mean.
const BURST_MS_MIN: u64 = 16;

/// Ethernet's.
const MTU_DEFAULT: usize = 1_500;

const RATE_KBPS_MIN: u64 = 8;

/// Ten gigabits: a datagram takes about a microsecond, the step of the clock.
const RATE_KBPS_MAX: u64 = 10_000_000;

/// A segment with its head.
const MTU_MIN: usize = 1_280;

const REORDER_MS_MAX: u64 = 60_000;

fn reorder_default() -> u64 {
    30
}

fn mtu_default() -> usize {
    MTU_DEFAULT
}

fn all() -> f64 {
    100.0
}
