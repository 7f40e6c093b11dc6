//! One line on a terminal that says what a bench is doing.

use std::io::{IsTerminal, Write};

pub(crate) struct Progress {
    bench: &'static str,
    shown: bool,
}

impl Progress {
    pub(crate) fn new(bench: &'static str) -> Self {
        Self { bench, shown: std::io::stderr().is_terminal() }
    }

    /// Replaces the line.
    pub(crate) fn say(&self, text: &str) {
        if self.shown {
            self.put(&format!("\r\x1b[K{}: {text}", self.bench));
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
