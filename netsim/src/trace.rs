//! What a run did, as one hash: equal hashes mean equal runs. The last lines are kept for people.

use std::collections::VecDeque;
use std::fmt::Write;
use std::time::Duration;

use peerloom_proto::{hex_of, sha256};

/// Lines kept for people.
const KEPT_LINES: usize = 80;

/// Bytes gathered before they are hashed.
const CHUNK_BYTES: usize = 8 << 10;

/// The running hash.
#[derive(Debug, Default)]
pub(crate) struct Trace {
    hash: [u8; 32],
    open: String,
    last: VecDeque<String>,
    events: u64,
}

impl Trace {
    /// Notes one happening.
    pub(crate) fn note(&mut self, at: Duration, what: std::fmt::Arguments<'_>) {
        self.events += 1;
        let begin = self.open.len();
        writeln!(self.open, "{:>12.6} {what}", at.as_secs_f64()).expect("a string takes all text");
        if self.last.len() == KEPT_LINES {
            self.last.pop_front();
        }
        self.last.push_back(self.open[begin..].trim_end().to_owned());
        if self.open.len() >= CHUNK_BYTES {
            self.fold();
        }
    }

    /// Happenings noted.
    pub(crate) fn events(&self) -> u64 {
        self.events
    }

    /// The hash of everything noted, and the last lines.
    pub(crate) fn finish(mut self) -> (String, Vec<String>) {
        self.fold();
        (hex_of(&self.hash[..16]), self.last.into())
    }

    fn fold(&mut self) {
        self.open.push_str(&hex_of(&self.hash));
        self.hash = sha256(self.open.as_bytes());
        self.open.clear();
    }
}

/// A short name of bytes, for lines of the trace.
pub(crate) fn name_of(bytes: &[u8]) -> u64 {
    // FNV-1a: it only has to differ where the bytes do.
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}
