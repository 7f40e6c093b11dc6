//! One host talks to another: what became of every message, by which path, how soon.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::ensure;
use serde::Serialize;

use super::daemon::Host;
use super::timeline::{Entry, Timeline, millis};

/// Between two messages of a conversation that waits for its path to become direct.
const APART: Duration = Duration::from_millis(100);

/// Messages after the path became direct, to see that it carries.
const AFTERWARDS: usize = 3;

/// What a conversation came to. Times are milliseconds since the first send.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Outcome {
    /// Of the last message: `direct`, `relay` or `queue`.
    pub(crate) path: String,
    pub(crate) transport: Option<String>,
    /// Until the path event that says direct.
    pub(crate) direct_ms: Option<f64>,
    /// Until the recipient had stored the first message and told its readers.
    pub(crate) first_stored_ms: Option<f64>,
    /// Until the sender knew that.
    pub(crate) first_known_ms: Option<f64>,
    /// The sender's word on why it is not direct.
    pub(crate) why_not_direct: Option<String>,
    pub(crate) sent: usize,
    pub(crate) lost: usize,
    pub(crate) doubled: usize,
    pub(crate) reordered: usize,
}

impl Outcome {
    /// Whether every message arrived once and in order.
    pub(crate) fn is_whole(&self) -> bool {
        self.lost + self.doubled + self.reordered == 0
    }
}

/// Sends until the path is direct and a little longer, or until `patience` is over; then waits
/// until everything is stored.
pub(crate) fn talk(
    from: &Host,
    to: &Host,
    timeline: &Timeline,
    run: u32,
    patience: Duration,
) -> anyhow::Result<Outcome> {
    let before = from.peer(&to.handle)?;
    ensure!(before["path"] != "direct", "{} and {} are direct before the first send", from.handle, to.handle);
    let begin = timeline.len();
    let began = Instant::now();
    let until = began + patience;
    let mut mouth = from.mouth()?;
    let mut numbers = 0..;
    let mut sent = 0;
    let mut send = || {
        let number = numbers.next().unwrap_or_default();
        sent = number + 1;
        mouth.say(&to.handle, &id(run, from, to, number), &text(run, number))
    };
    send()?;
    let mut direct = None;
    while direct.is_none() && Instant::now() < until {
        let next = (Instant::now() + APART).min(until);
        direct = timeline.await_line(begin, next, |entry| is_direct(entry, from, to));
        if direct.is_none() {
            send()?;
        }
    }
    for _ in 0..AFTERWARDS {
        std::thread::sleep(APART);
        send()?;
    }
    let last = timeline.await_line(begin, Instant::now() + patience, |entry| {
        is_stored(entry, from, &id(run, from, to, sent - 1))
    });
    let first = id(run, from, to, 0);
    let now = Instant::now();
    let stored = timeline.await_line(begin, now, |entry| is_readable(entry, to, &first));
    let known = timeline.await_line(begin, now, |entry| is_stored(entry, from, &first));
    let since = |entry: &Entry| millis(entry.at - began);
    let word = |name: &str| {
        last.as_ref().and_then(|entry| entry.what["recipient"][name].as_str().map(str::to_owned))
    };
    let peer = from.peer(&to.handle)?;
    let order = Order::of(&to.texts_from(&from.handle)?, run, sent);
    Ok(Outcome {
        path: word("path").unwrap_or_else(|| "none".to_owned()),
        transport: word("transport"),
        direct_ms: direct.as_ref().map(since),
        first_stored_ms: stored.as_ref().map(since),
        first_known_ms: known.as_ref().map(since),
        why_not_direct: peer["why_not_direct"].as_str().map(str::to_owned),
        sent,
        lost: order.lost,
        doubled: order.doubled,
        reordered: order.reordered,
    })
}

/// Run, hosts and number of a message, as its id.
fn id(run: u32, from: &Host, to: &Host, number: usize) -> String {
    format!("{run:08x}{:04x}{:04x}{number:016x}", from.site.number(), to.site.number())
}

/// What a message says; an inbox has those of earlier runs too.
pub(super) fn text(run: u32, number: usize) -> String {
    format!("{run} {number}")
}

fn is_direct(entry: &Entry, from: &Host, to: &Host) -> bool {
    entry.who == from.handle
        && entry.what["type"] == "path"
        && entry.what["path"] == "direct"
        && entry.what["peer"]["handle"] == to.handle.as_str()
}

fn is_readable(entry: &Entry, to: &Host, id: &str) -> bool {
    entry.who == to.handle && entry.what["type"] == "inbox" && entry.what["message"]["id"] == id
}

fn is_stored(entry: &Entry, from: &Host, id: &str) -> bool {
    entry.who == from.handle
        && entry.what["type"] == "outbox"
        && entry.what["id"] == id
        && (entry.what["recipient"]["state"] == "stored" || entry.what["recipient"]["state"] == "surfaced")
}

/// How far what arrived is from what was sent: the numbers from 0 up, once each, in order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Order {
    pub(crate) lost: usize,
    pub(crate) doubled: usize,
    pub(crate) reordered: usize,
}

impl Order {
    /// Of one run's messages as they stand in the inbox.
    pub(crate) fn of(texts: &[String], run: u32, sent: usize) -> Self {
        let prefix = format!("{run} ");
        let numbers: Vec<usize> =
            texts.iter().filter_map(|text| text.strip_prefix(&prefix)?.parse().ok()).collect();
        Self::of_numbers(&numbers, sent)
    }

    /// Of messages by their numbers.
    pub(crate) fn of_numbers(numbers: &[usize], sent: usize) -> Self {
        let mut times: BTreeMap<usize, usize> = BTreeMap::new();
        for number in numbers {
            *times.entry(*number).or_default() += 1;
        }
        Self {
            lost: (0..sent).filter(|number| !times.contains_key(number)).count(),
            doubled: times.values().map(|times| times - 1).sum(),
            reordered: numbers.windows(2).filter(|pair| pair[1] < pair[0]).count(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order(texts: &[&str], sent: usize) -> (usize, usize, usize) {
        let mut texts: Vec<String> = texts.iter().map(|number| format!("3 {number}")).collect();
        texts.insert(0, text(2, 0));
        let Order { lost, doubled, reordered } = Order::of(&texts, 3, sent);
        (lost, doubled, reordered)
    }

    #[test]
    fn lost_doubled_and_reordered_messages_are_told_apart() {
        assert_eq!(order(&["0", "1", "2"], 3), (0, 0, 0));
        assert_eq!(order(&["0", "2"], 4), (2, 0, 0));
        assert_eq!(order(&["0", "1", "1"], 2), (0, 1, 0));
        assert_eq!(order(&["1", "0"], 2), (0, 0, 1));
    }
}
