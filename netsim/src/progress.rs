//! One line on a terminal that says what is being done.

use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

/// The line, on stderr and only if that is a terminal.
pub(crate) struct Progress {
    what: &'static str,
    shown: bool,
}

/// How far a run is in its virtual time.
pub(crate) struct Pace {
    progress: Progress,
    said: Instant,
}

/// Happenings between two looks at the machine's clock.
const LOOK_EVERY: u64 = 4_096;

/// How often a line is written anew.
const SAY_EVERY: Duration = Duration::from_millis(200);

impl Progress {
    pub(crate) fn new(what: &'static str) -> Self {
        Self { what, shown: std::io::stderr().is_terminal() }
    }

    /// Replaces the line.
    pub(crate) fn say(&self, text: &str) {
        if self.shown {
            self.put(&format!("\r\x1b[K{}: {text}", self.what));
        }
    }

    /// Replaces the line by how far something is.
    pub(crate) fn at(&self, text: &str, done: usize, of: usize) {
        if self.shown {
            self.say(&format!("{text} {done} of {of}"));
        }
    }

    /// Takes the line away.
    pub(crate) fn done(&self) {
        if self.shown {
            self.put("\r\x1b[K");
        }
    }

    fn put(&self, text: &str) {
        let mut err = std::io::stderr().lock();
        // Whoever closed the terminal does not want to know.
        err.write_all(text.as_bytes()).and_then(|()| err.flush()).unwrap_or(());
    }
}

impl Pace {
    /// For a run that a person may look at.
    pub(crate) fn new(what: &'static str) -> Self {
        Self { progress: Progress::new(what), said: Instant::now() }
    }

    /// For a run among many.
    pub(crate) fn silent() -> Self {
        Self { progress: Progress { what: "", shown: false }, said: Instant::now() }
    }

    /// So much has passed, so much will at least.
    pub(crate) fn passed(&mut self, now: Duration, of: Duration, events: u64) {
        if !self.progress.shown || !events.is_multiple_of(LOOK_EVERY) || self.said.elapsed() < SAY_EVERY {
            return;
        }
        self.said = Instant::now();
        let rest = if now > of { "everything drains" } else { "" };
        let text = format!(
            "{} of {} s virtual, {events} events {rest}",
            now.as_secs(),
            of.as_secs().max(now.as_secs())
        );
        self.progress.say(text.trim_end());
    }

    /// Takes the line away.
    pub(crate) fn done(&self) {
        self.progress.done();
    }
}
