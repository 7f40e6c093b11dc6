//! What a link does to datagrams, counted from one seed.

use super::*;

const MS: Duration = Duration::from_millis(1);

fn shape() -> Shape {
    Shape {
        delay: Delay { least: 10 * MS, jitter: Duration::ZERO },
        loss_percent: 0.0,
        burst: None,
        line: None,
        reorder_percent: 0.0,
        reorder_by: Duration::ZERO,
        duplicate_percent: 0.0,
        mtu: 1500,
    }
}

/// Sends datagrams at this pace and gives each one's arrivals.
fn sent(shape: Shape, count: u32, pace: Duration, bytes: usize) -> Vec<Vec<Duration>> {
    let mut link = Link::new(shape, 7, "test");
    (0..count).map(|number| link.pass(number * pace, bytes).collect()).collect()
}

fn lost(arrivals: &[Vec<Duration>]) -> usize {
    arrivals.iter().filter(|arrivals| arrivals.is_empty()).count()
}

#[test]
fn a_plain_link_delivers_everything_after_its_delay() {
    let arrivals = sent(shape(), 100, MS, 1000);
    for (number, arrivals) in (0..).zip(&arrivals) {
        assert_eq!(arrivals, &[number * MS + 10 * MS]);
    }
}

#[test]
fn jitter_delays_and_overtakes_nobody() {
    let delay = Delay { least: 10 * MS, jitter: 20 * MS };
    let arrivals = sent(Shape { delay, ..shape() }, 1000, MS, 100).concat();
    assert!(arrivals.is_sorted());
    let late = (0..).zip(&arrivals).filter(|(number, at)| **at > *number * MS + 15 * MS).count();
    assert!(late > 500, "{late} of 1000 are late by more than 5 ms");
}

#[test]
fn lone_losses_come_as_often_as_asked() {
    let arrivals = sent(Shape { loss_percent: 2.5, ..shape() }, 40_000, MS, 100);
    assert!((900..1100).contains(&lost(&arrivals)), "{} of 40000", lost(&arrivals));
    let pairs = arrivals.windows(2).filter(|pair| pair[0].is_empty() && pair[1].is_empty()).count();
    assert!(pairs < 50, "{pairs} pairs: each is lost by itself");
}

#[test]
fn bursts_lose_the_same_share_in_a_row() {
    let burst = Burst { every: 900 * MS, lasts: 100 * MS, loss_percent: 100.0 };
    let arrivals = sent(Shape { burst: Some(burst), ..shape() }, 200_000, MS, 100);
    let lost = lost(&arrivals);
    assert!((17_000..23_000).contains(&lost), "{lost} of 200000: a tenth of the time is bad");
    let begin = |pair: &&[Vec<Duration>]| !pair[0].is_empty() && pair[1].is_empty();
    let bursts = arrivals.windows(2).filter(begin).count();
    let mean = lost / bursts;
    assert!((80..120).contains(&mean), "a burst is {mean} ms on average");
}

#[test]
fn a_slow_line_spaces_datagrams_and_drops_what_its_queue_cannot_hold() {
    // 100 datagrams of 1000 bytes at once on 100 kB/s with room for 20 of them.
    let line = Line { bytes_per_s: 100_000, queue_bytes: 20_000 };
    let arrivals = sent(Shape { line: Some(line), ..shape() }, 100, Duration::ZERO, 1000);
    assert_eq!(lost(&arrivals), 80);
    let arrived = arrivals.concat();
    assert_eq!(arrived[0], 20 * MS, "10 ms on the line, 10 ms of delay");
    assert!(arrived.windows(2).all(|pair| pair[1] - pair[0] == 10 * MS));
    // The queue empties: at the line's own pace nothing is dropped.
    let arrivals = sent(Shape { line: Some(line), ..shape() }, 1000, 10 * MS, 1000);
    assert_eq!(lost(&arrivals), 0);
}

#[test]
fn overtaken_datagrams_are_late_by_as_much_as_asked() {
    let shape = Shape { reorder_percent: 10.0, reorder_by: 30 * MS, ..shape() };
    let arrivals = sent(shape, 10_000, 5 * MS, 100).concat();
    let late = (0..).zip(&arrivals).filter(|(number, at)| **at == *number * 5 * MS + 40 * MS).count();
    assert!((900..1100).contains(&late), "{late} of 10000");
    let overtaken = arrivals.windows(2).filter(|pair| pair[0] > pair[1]).count();
    assert!(overtaken > 700, "{overtaken} were overtaken");
}

#[test]
fn some_arrive_twice() {
    let arrivals = sent(Shape { duplicate_percent: 5.0, ..shape() }, 10_000, MS, 100);
    let twice = arrivals.iter().filter(|arrivals| arrivals.len() == 2).count();
    assert!((430..570).contains(&twice), "{twice} of 10000");
    assert_eq!(lost(&arrivals), 0);
}

#[test]
fn what_is_longer_than_the_mtu_does_not_pass() {
    assert_eq!(lost(&sent(shape(), 1, MS, 1500)), 0);
    assert_eq!(lost(&sent(shape(), 1, MS, 1501)), 1);
}
