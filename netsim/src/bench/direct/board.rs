//! What became of each message of a run, read from the sender's stream of events.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::ensure;

use crate::bench::Stage;
use crate::bench::process::Node;

/// Longest wait for the last `stored`.
const STORED_TIMEOUT: Duration = Duration::from_secs(120);

/// How often the outbox is asked whether anything is left.
const ASK_EVERY: Duration = Duration::from_millis(20);

/// What became of the messages of one run, by their numbers. Their ids carry the numbers.
pub(super) struct Board {
    run: u64,
    pub(super) began: Instant,
    /// Microseconds after `began`; 0 as long as it has not happened.
    stored: Vec<AtomicU64>,
    count: AtomicUsize,
    pub(super) direct: AtomicUsize,
    /// Events that the reader missed.
    pub(super) missed: AtomicUsize,
    /// Set once the API has accepted all of them.
    pub(super) all_sent: AtomicBool,
}

impl Board {
    pub(super) fn new(run: u64, messages: usize) -> Self {
        let stored = (0..messages).map(|_| AtomicU64::new(0)).collect();
        let (count, direct, missed) = (AtomicUsize::new(0), AtomicUsize::new(0), AtomicUsize::new(0));
        let all_sent = AtomicBool::new(false);
        Self { run, began: Instant::now(), stored, count, direct, missed, all_sent }
    }

    pub(super) fn id(&self, number: usize) -> String {
        format!("{:016x}{number:016x}", self.run)
    }

    /// Reads one event. Searched rather than parsed: two cores are shared with what is measured.
    fn read(&self, event: &str) {
        if event.contains("\"type\":\"lagged\"") {
            let missed = after(event, "\"missed\":").and_then(|rest| rest.trim_end_matches('}').parse().ok());
            self.missed.fetch_add(missed.unwrap_or(1), Ordering::Relaxed);
        }
        let stored = event.contains("\"state\":\"stored\"");
        let Some(id) = after(event, "\"id\":\"").and_then(|rest| rest.get(..32)).filter(|_| stored) else {
            return;
        };
        let (run, number) = id.split_at(16);
        let number = usize::from_str_radix(number, 16).ok();
        let Some(place) = number.and_then(|number| self.stored.get(number)) else { return };
        if u64::from_str_radix(run, 16) == Ok(self.run) && place.swap(self.now(), Ordering::Relaxed) == 0 {
            let direct = event.contains("\"path\":\"direct\"");
            self.direct.fetch_add(usize::from(direct), Ordering::Relaxed);
            self.count.fetch_add(1, Ordering::Release);
        }
    }

    pub(super) fn now(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_micros()).unwrap_or(u64::MAX).max(1)
    }

    pub(super) fn stored_at(&self, number: usize) -> Duration {
        Duration::from_micros(self.stored[number].load(Ordering::Relaxed))
    }

    pub(super) fn is_full(&self) -> bool {
        self.count.load(Ordering::Acquire) == self.stored.len()
    }

    /// Follows the sender's events until all messages are stored. When events were missed, the
    /// outbox is asked whether anything is left.
    pub(super) fn follow(&self, node: &Node, stage: &Stage) -> anyhow::Result<()> {
        let mut events = node.api()?;
        events.open_stream("/v1/events?types=outbox")?;
        let mut text = Vec::new();
        let mut asked = Instant::now();
        while !self.is_full() {
            events.chunk(&mut text)?;
            let whole = text.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
            for line in text[..whole].split(|byte| *byte == b'\n') {
                if let Some(event) = line.strip_prefix(b"data:") {
                    self.read(&String::from_utf8_lossy(event));
                }
            }
            text.drain(..whole);
            stage.progress.at("stored", self.count.load(Ordering::Relaxed), self.stored.len());
            ensure!(
                self.began.elapsed() < STORED_TIMEOUT,
                "{:?} of {} are stored",
                self.count,
                self.stored.len()
            );
            let may_end = self.missed.load(Ordering::Relaxed) > 0 && self.all_sent.load(Ordering::Acquire);
            if may_end && asked.elapsed() >= ASK_EVERY {
                asked = Instant::now();
                if nothing_pending(node)? {
                    return Ok(());
                }
            }
        }
        Ok(())
    }
}

fn after<'a>(text: &'a str, mark: &str) -> Option<&'a str> {
    text.split_once(mark).map(|(_, rest)| rest)
}

fn nothing_pending(node: &Node) -> anyhow::Result<bool> {
    Ok(node.api()?.get("/v1/status")?.text()?.contains("\"pending\":0"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(id: &str, state: &str) -> String {
        format!(
            r#"{{"type":"outbox","id":"{id}","recipient":{{"handle":"bob","state":"{state}","path":"direct"}}}}"#
        )
    }

    #[test]
    fn a_message_is_stored_once_however_often_it_is_said() {
        let board = Board::new(7, 2);
        board.read(&event(&board.id(1), "in-flight"));
        assert_eq!(board.count.load(Ordering::Relaxed), 0);
        for _ in 0..2 {
            board.read(&event(&board.id(1), "stored"));
        }
        assert_eq!((board.count.load(Ordering::Relaxed), board.direct.load(Ordering::Relaxed)), (1, 1));
        assert!(!board.is_full());
        board.read(&event(&board.id(0), "stored"));
        assert!(board.is_full());
    }

    #[test]
    fn messages_of_another_run_or_beyond_this_one_count_for_nothing() {
        let board = Board::new(7, 2);
        board.read(&event(&Board::new(6, 2).id(0), "stored"));
        board.read(&event(&board.id(2), "stored"));
        assert_eq!(board.count.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn missed_events_are_counted() {
        let board = Board::new(7, 1);
        board.read(r#"{"type":"lagged","missed":42}"#);
        assert_eq!(board.missed.load(Ordering::Relaxed), 42);
    }
}
