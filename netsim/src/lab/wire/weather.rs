//! What the internet does to a packet.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use crate::chance::Chance;

/// The line between a site and the internet, the same in both directions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Access {
    /// One way.
    pub(crate) delay: Duration,
    /// Up to so much more, drawn for each packet. Order is kept.
    pub(crate) jitter: Duration,
    /// Packets of a hundred that are lost.
    pub(crate) loss_percent: u8,
    /// Packets of a hundred that are held back by [`HELD_BACK`], so that others overtake them.
    pub(crate) reorder_percent: u8,
    /// Bytes a second in each direction; unlimited if 0.
    pub(crate) rate: u64,
}

/// How long a packet is held back to arrive out of order: later than the next few of a busy sender.
const HELD_BACK: Duration = Duration::from_millis(5);

/// How long a packet may stand in front of a line of limited rate. One that would wait longer is
/// dropped: a home router's buffer.
const QUEUE_TIME_MAX: Duration = Duration::from_millis(200);

/// What becomes of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It arrives there, then.
    Arrives { to: usize, due: Instant },
    /// The line lost it.
    Lost,
    /// Nothing passes between the two sites.
    Cut,
    /// It stood too long in front of a slow line, or too much is under way.
    QueueFull,
    /// No site has its destination.
    NoRoute,
    /// It was not to come so far.
    TtlExceeded,
    /// It is nothing that travels.
    NotIp,
}

impl Fate {
    /// For the capture. None for a packet that arrives.
    pub(super) fn comment(self) -> Option<&'static str> {
        match self {
            Self::Arrives { .. } => None,
            Self::Lost => Some("lost"),
            Self::Cut => Some("cut"),
            Self::QueueFull => Some("queue full"),
            Self::NoRoute => Some("no route"),
            Self::TtlExceeded => Some("TTL exceeded"),
            Self::NotIp => Some("not IP"),
        }
    }
}

/// The lines of all sites, and which pairs are cut.
#[derive(Debug)]
pub(crate) struct Weather {
    access: Vec<Access>,
    /// From and to.
    cuts: BTreeSet<(usize, usize)>,
    /// When each line has sent what it has, upwards and downwards.
    busy: Vec<[Option<Instant>; 2]>,
    /// When the last packet in order arrives, by direction.
    last: BTreeMap<(usize, usize), Instant>,
    chance: Chance,
}

impl Weather {
    /// A line for each site.
    pub(crate) fn new(access: Vec<Access>, seed: u64) -> Self {
        let busy = vec![[None; 2]; access.len()];
        let chance = Chance::new(seed, "wire", "fate");
        Self { access, cuts: BTreeSet::new(), busy, last: BTreeMap::new(), chance }
    }

    /// A site's line is another one from here on.
    pub(crate) fn lay(&mut self, site: usize, access: Access) {
        self.access[site] = access;
    }

    /// Nothing passes between the two sites from here on.
    pub(crate) fn cut(&mut self, one: usize, other: usize) {
        self.cuts.extend([(one, other), (other, one)]);
    }

    /// It passes again.
    pub(crate) fn heal(&mut self, one: usize, other: usize) {
        self.cuts.retain(|pair| *pair != (one, other) && *pair != (other, one));
    }

    /// Decides.
    pub(super) fn fate(&mut self, from: usize, to: usize, bytes: usize, now: Instant) -> Fate {
        if self.cuts.contains(&(from, to)) {
            return Fate::Cut;
        }
        let lines = [(from, Direction::Up), (to, Direction::Down)];
        let mut due = now;
        let mut held_back = false;
        for (site, direction) in lines {
            let access = self.access[site];
            if self.chance.percent(access.loss_percent) {
                return Fate::Lost;
            }
            match self.leave(site, direction, bytes, due) {
                Some(left) => due = left + access.delay,
                None => return Fate::QueueFull,
            }
            if !access.jitter.is_zero() {
                due += self.chance.between(Duration::ZERO, access.jitter);
            }
            held_back |= self.chance.percent(access.reorder_percent);
        }
        if held_back {
            return Fate::Arrives { to, due: due + HELD_BACK };
        }
        let last = self.last.entry((from, to)).or_insert(due);
        due = due.max(*last);
        *last = due;
        Fate::Arrives { to, due }
    }

    /// When a packet has left on a line of limited rate; none if it had to wait too long.
    fn leave(&mut self, site: usize, direction: Direction, bytes: usize, at: Instant) -> Option<Instant> {
        let rate = self.access[site].rate;
        if rate == 0 {
            return Some(at);
        }
        let busy = &mut self.busy[site][direction as usize];
        let begins = busy.map_or(at, |until| until.max(at));
        if begins.duration_since(at) > QUEUE_TIME_MAX {
            return None;
        }
        let nanos = (bytes as u64).saturating_mul(1_000_000_000) / rate;
        let left = begins + Duration::from_nanos(nanos);
        *busy = Some(left);
        Some(left)
    }
}

#[derive(Clone, Copy, Debug)]
enum Direction {
    Up = 0,
    Down = 1,
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn weather(access: Access) -> Weather {
        Weather::new(vec![access, access], 7)
    }

    /// Delays of packets sent a millisecond apart; none for those that did not arrive.
    fn delays(weather: &mut Weather, packets: u32) -> Vec<Option<Duration>> {
        let began = Instant::now();
        let send = |number: u32| {
            let now = began + MS * number;
            if let Fate::Arrives { due, .. } = weather.fate(0, 1, 1_000, now) {
                Some(due - now)
            } else {
                None
            }
        };
        (0..packets).map(send).collect()
    }

    #[test]
    fn both_lines_delay_a_packet() {
        let mut weather = weather(Access { delay: MS * 10, ..Access::default() });
        assert_eq!(delays(&mut weather, 2), [Some(MS * 20), Some(MS * 20)]);
    }

    #[test]
    fn jitter_keeps_the_order_and_reordering_does_not() {
        let arrivals = |access| -> Vec<Duration> {
            let delays = delays(&mut weather(access), 200);
            delays.into_iter().zip(0..).map(|(delay, number)| delay.unwrap() + MS * number).collect()
        };
        assert!(arrivals(Access { jitter: MS * 20, ..Access::default() }).is_sorted());
        assert!(!arrivals(Access { reorder_percent: 10, ..Access::default() }).is_sorted());
    }

    #[test]
    fn a_tenth_lost_on_each_line_leaves_about_eighty_one_of_a_hundred() {
        let mut weather = weather(Access { loss_percent: 10, ..Access::default() });
        let arrived = delays(&mut weather, 2_000).into_iter().flatten().count();
        assert!((1_550..1_690).contains(&arrived), "{arrived} arrived");
    }

    #[test]
    fn a_slow_line_delays_a_burst_and_drops_its_end() {
        let mut weather = weather(Access { rate: 100_000, ..Access::default() });
        let delays = delays(&mut weather, 100);
        assert_eq!(delays[0], Some(MS * 20));
        assert!(delays[..20].iter().is_sorted());
        assert_eq!(delays[99], None);
    }

    #[test]
    fn a_cut_takes_both_directions_of_one_pair_until_it_heals() {
        let mut weather = Weather::new(vec![Access::default(); 3], 7);
        let now = Instant::now();
        let passes = |weather: &mut Weather, from, to| weather.fate(from, to, 100, now) != Fate::Cut;
        weather.cut(0, 1);
        assert!(!passes(&mut weather, 0, 1) && !passes(&mut weather, 1, 0));
        assert!(passes(&mut weather, 0, 2) && passes(&mut weather, 2, 1));
        weather.heal(1, 0);
        assert!(passes(&mut weather, 0, 1) && passes(&mut weather, 1, 0));
    }
}
