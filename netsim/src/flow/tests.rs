//! Two ends and two links between them.

use super::*;
use crate::link::{Line, Link, Shape};
use crate::network::Delay;

const MS: Duration = Duration::from_millis(1);

fn shape() -> Shape {
    Shape {
        delay: Delay { least: 20 * MS, jitter: Duration::ZERO },
        loss_percent: 0.0,
        burst: None,
        line: None,
        reorder_percent: 0.0,
        reorder_by: Duration::ZERO,
        duplicate_percent: 0.0,
        mtu: 1500,
    }
}

/// End 0 pushes, end 1 takes.
struct Pair {
    now: Duration,
    ends: [Flow<u32>; 2],
    links: [Link; 2],
    under_way: BTreeMap<(Duration, u64), (usize, Packet<u32>)>,
    planned: u64,
    sent: u32,
    taken: Vec<(Duration, u32)>,
    dead: [bool; 2],
    /// Packets are lost while it lasts.
    cut: bool,
}

impl Pair {
    fn new(manners: Manners, shape: Shape) -> Self {
        let ends = [0, 1].map(|_| Flow::new(manners, Duration::ZERO));
        let links = ["there", "back"].map(|name| Link::new(shape, 7, name));
        let (under_way, taken) = (BTreeMap::new(), Vec::new());
        Self {
            now: Duration::ZERO,
            ends,
            links,
            under_way,
            planned: 0,
            sent: 0,
            taken,
            dead: [false; 2],
            cut: false,
        }
    }

    fn push(&mut self, items: std::ops::Range<u32>, bytes: usize) {
        items.for_each(|item| self.ends[0].push(item, bytes));
        self.pump();
    }

    fn pump(&mut self) {
        for end in 0..2 {
            while let Some((packet, bytes)) = self.ends[end].poll_packet(self.now) {
                self.sent += 1;
                for at in self.links[end].pass(self.now, bytes).filter(|_| !self.cut) {
                    self.planned += 1;
                    self.under_way.insert((at, self.planned), (1 - end, packet.clone()));
                }
            }
        }
    }

    fn pass_until(&mut self, until: Duration) {
        loop {
            let arrival = self.under_way.first_key_value().map(|((at, _), _)| *at);
            let deadlines = (0..2).filter(|end| !self.dead[*end]).filter_map(|end| self.ends[end].deadline());
            let Some(next) = deadlines.chain(arrival).min().filter(|next| *next <= until) else { break };
            self.now = self.now.max(next);
            if arrival == Some(next) {
                let (_, (end, packet)) = self.under_way.pop_first().unwrap();
                let now = self.now;
                let items = self.ends[end].heard(now, packet);
                self.taken.extend(items.into_iter().map(|item| (now, item)));
            }
            for end in 0..2 {
                let due = self.ends[end].deadline().is_some_and(|due| due <= self.now);
                self.dead[end] |= due && self.ends[end].timeout(self.now);
            }
            self.pump();
        }
        self.now = until;
    }

    #[track_caller]
    fn took_each_once_in_order(&self, count: u32) {
        let items: Vec<u32> = self.taken.iter().map(|(_, item)| *item).collect();
        assert!(items == (0..count).collect::<Vec<_>>(), "{} of {count}", items.len());
    }
}

#[test]
fn a_good_link_adds_its_delay_and_nothing_else() {
    let mut pair = Pair::new(QUIC, shape());
    pair.push(0..5, 600);
    pair.pass_until(Duration::from_secs(1));
    pair.took_each_once_in_order(5);
    assert!(pair.taken.iter().all(|(at, _)| *at == 20 * MS));
    assert_eq!(pair.sent, 10, "five segments and their acknowledgements");
    assert_eq!(pair.ends[0].unacknowledged(), 0);
}

#[test]
fn loss_reorder_and_duplicates_cost_time_and_nothing_else() {
    let foul = Shape {
        loss_percent: 15.0,
        reorder_percent: 20.0,
        reorder_by: 50 * MS,
        duplicate_percent: 10.0,
        ..shape()
    };
    for manners in [TCP, QUIC] {
        let mut pair = Pair::new(manners, foul);
        pair.push(0..500, 3000);
        pair.pass_until(Duration::from_secs(300));
        pair.took_each_once_in_order(500);
        assert!(pair.taken.last().unwrap().0 > Duration::from_secs(1));
        assert_eq!((pair.ends[0].unacknowledged(), pair.dead), (0, [false; 2]));
    }
}

#[test]
fn a_lost_first_segment_waits_for_the_first_timer() {
    for (manners, timer) in [(TCP, 1000 * MS), (QUIC, 300 * MS)] {
        let mut pair = Pair::new(manners, shape());
        pair.cut = true;
        pair.push(0..1, 100);
        pair.cut = false;
        pair.pass_until(Duration::from_secs(5));
        assert_eq!(pair.taken, [(timer + 20 * MS, 0)]);
    }
}

#[test]
fn a_segment_lost_among_others_is_sent_again_without_the_timer() {
    let mut pair = Pair::new(TCP, shape());
    pair.push(0..1, 100);
    pair.pass_until(100 * MS);
    pair.cut = true;
    pair.push(1..2, 100);
    pair.cut = false;
    pair.push(2..6, 100);
    pair.pass_until(Duration::from_secs(5));
    pair.took_each_once_in_order(6);
    assert_eq!(pair.taken[1].0, 160 * MS, "three later ones were acknowledged after a round trip");
}

#[test]
fn a_slow_line_is_filled_and_not_flooded() {
    // 100 kB over 100 kB/s with a queue of 10 kB take a second, not much more.
    let line = Line { bytes_per_s: 100_000, queue_bytes: 10_000 };
    let mut pair = Pair::new(QUIC, Shape { line: Some(line), ..shape() });
    pair.push(0..100, 1000);
    pair.pass_until(Duration::from_secs(20));
    pair.took_each_once_in_order(100);
    let took = pair.taken.last().unwrap().0;
    assert!((1000 * MS..2500 * MS).contains(&took), "{took:?}");
    // The window knows the line: it overshoots by a segment a round trip, not by a flight.
    let before = pair.sent;
    pair.push(100..200, 1000);
    pair.pass_until(Duration::from_secs(40));
    pair.took_each_once_in_order(200);
    assert!((200..240).contains(&(pair.sent - before)), "{} packets", pair.sent - before);
}

#[test]
fn quic_keeps_a_silent_link_alive_and_gives_up_a_second_after_an_unanswered_question() {
    let mut pair = Pair::new(QUIC, shape());
    pair.push(0..1, 100);
    pair.pass_until(Duration::from_secs(601));
    assert_eq!(pair.dead, [false; 2]);
    pair.cut = true;
    pair.push(1..2, 100);
    pair.pass_until(Duration::from_millis(601_900));
    assert_eq!(pair.dead, [false; 2]);
    pair.pass_until(Duration::from_millis(602_100));
    assert_eq!(pair.dead, [true, false], "the end that asked");
    pair.pass_until(Duration::from_secs(608));
    assert_eq!(pair.dead, [true; 2], "the other when its keep-alive stays unanswered");
}

#[test]
fn tcp_bears_silence_until_something_is_to_be_said() {
    let mut pair = Pair::new(TCP, shape());
    pair.push(0..1, 100);
    pair.cut = true;
    pair.pass_until(Duration::from_secs(2000));
    assert_eq!(pair.dead, [false; 2]);
    pair.cut = false;
    pair.pass_until(Duration::from_secs(2001));
    pair.push(1..2, 100);
    pair.pass_until(Duration::from_secs(2002));
    pair.took_each_once_in_order(2);
    pair.cut = true;
    pair.push(2..3, 100);
    pair.pass_until(Duration::from_secs(2900));
    assert_eq!(pair.dead, [false; 2]);
    pair.pass_until(Duration::from_secs(3000));
    assert_eq!(pair.dead, [true, false], "the end that waits for an answer");
}

#[test]
fn the_timer_doubles_while_nothing_comes_back() {
    let mut pair = Pair::new(TCP, shape());
    pair.push(0..1, 100);
    pair.pass_until(100 * MS);
    pair.cut = true;
    pair.push(1..2, 100);
    let before = pair.sent;
    pair.pass_until(Duration::from_secs(13));
    // 0.2, 0.4, 0.8, 1.6, 3.2 and 6.4 s.
    assert_eq!(pair.sent - before, 6);
}
