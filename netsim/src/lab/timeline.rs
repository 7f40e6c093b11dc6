//! Everything the daemons told and the lab did, in the order in which it was seen.

use std::io::{BufWriter, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::Context;
use serde_json::{Value, json};

use crate::bench::http::Http;
use crate::bench::process::Node;

/// Who speaks when the lab itself does something.
pub(super) const LAB: &str = "lab";

/// One line.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) at: Instant,
    /// A host's handle, or [`LAB`].
    pub(crate) who: String,
    /// An event of the node's API, or what was done.
    pub(crate) what: Value,
}

/// The log of a whole run.
#[derive(Debug)]
pub(crate) struct Timeline {
    began: Instant,
    entries: Mutex<Vec<Entry>>,
    grown: Condvar,
}

impl Timeline {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self { began: Instant::now(), entries: Mutex::default(), grown: Condvar::new() })
    }

    fn entries(&self) -> MutexGuard<'_, Vec<Entry>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a line.
    pub(super) fn note(&self, who: &str, what: Value) {
        self.entries().push(Entry { at: Instant::now(), who: who.to_owned(), what });
        self.grown.notify_all();
    }

    /// How many lines there are: where a later look begins.
    pub(super) fn len(&self) -> usize {
        self.entries().len()
    }

    /// The first line from `begin` on that says so, as soon as it is there. None after `until`.
    pub(super) fn await_line(
        &self,
        begin: usize,
        until: Instant,
        says: impl Fn(&Entry) -> bool,
    ) -> Option<Entry> {
        let mut entries = self.entries();
        let mut looked = begin;
        loop {
            if let Some(found) = entries[looked..].iter().find(|entry| says(entry)) {
                return Some(found.clone());
            }
            looked = entries.len();
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return None;
            }
            let waited = self.grown.wait_timeout(entries, left);
            entries = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Every line from `begin` on that says so.
    pub(super) fn lines(&self, begin: usize, says: impl Fn(&Entry) -> bool) -> Vec<Entry> {
        self.entries()[begin..].iter().filter(|entry| says(entry)).cloned().collect()
    }

    /// Writes it as JSON lines: milliseconds since the lab was built, who, what.
    pub(super) fn write(&self, path: &Path) -> anyhow::Result<()> {
        let file =
            std::fs::File::create(path).with_context(|| format!("failed to make {}", path.display()))?;
        let mut file = BufWriter::new(file);
        for entry in self.entries().iter() {
            let at_ms = (entry.at - self.began).as_secs_f64() * 1_000.0;
            writeln!(file, "{}", json!({"at_ms": at_ms, "who": entry.who, "what": entry.what}))?;
        }
        file.flush().with_context(|| format!("failed to write {}", path.display()))
    }
}

/// Copies one daemon's events into the timeline until it is dropped or the daemon ends.
#[derive(Debug)]
pub(crate) struct Follower {
    stream: UnixStream,
    thread: Option<JoinHandle<()>>,
}

impl Follower {
    pub(super) fn of(node: &Node, handle: &str, timeline: Arc<Timeline>) -> anyhow::Result<Self> {
        let mut events = node.api()?;
        events.open_stream("/v1/events")?;
        events.wait_for_ever()?;
        let stream = events.stream()?;
        let handle = handle.to_owned();
        let thread = std::thread::spawn(move || copy(&mut events, &handle, &timeline));
        Ok(Self { stream, thread: Some(thread) })
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        // A daemon that ended has closed it already.
        self.stream.shutdown(Shutdown::Both).unwrap_or_default();
        if let Some(thread) = self.thread.take()
            && let Err(panic) = thread.join()
        {
            std::panic::resume_unwind(panic);
        }
    }
}

fn copy(events: &mut Http<UnixStream>, handle: &str, timeline: &Timeline) {
    let mut text = Vec::new();
    while events.chunk(&mut text).is_ok_and(|more| more) {
        let whole = text.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
        for line in text[..whole].split(|byte| *byte == b'\n') {
            let data = line.strip_prefix(b"data:");
            if let Some(event) = data.and_then(|data| serde_json::from_slice(data).ok()) {
                timeline.note(handle, event);
            }
        }
        text.drain(..whole);
    }
}

/// Milliseconds with fractions, for people.
pub(super) fn millis(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1e4).round() / 10.0
}
