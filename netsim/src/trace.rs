//! What a run did, as one hash: equal hashes mean equal runs. The last lines are kept for people.

use std::fmt::Write;
use std::time::Duration;

use peerloom_proto::{hex_of, sha256};

/// Lines kept for people.
const KEPT_LINES: usize = 80;

/// Bytes gathered before they are hashed: more than the kept lines have.
const CHUNK_BYTES: usize = 16 << 10;

/// The running hash.
#[derive(Debug, Default)]
pub(crate) struct Trace {
    hash: [u8; 32],
    open: String,
    /// What was hashed last.
    folded: String,
    events: u64,
}

impl Trace {
    /// Notes one happening.
    pub(crate) fn note(&mut self, at: Duration, what: std::fmt::Arguments<'_>) {
        self.events += 1;
        let (seconds, micros) = (at.as_secs(), at.subsec_micros());
        writeln!(self.open, "{seconds:>5}.{micros:06} {what}").expect("a string takes all text");
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
        let lines: Vec<&str> = self.folded.lines().chain(self.open.lines()).collect();
        let kept = &lines[lines.len().saturating_sub(KEPT_LINES)..];
        let last = kept.iter().map(|line| (*line).to_owned()).collect();
        self.fold();
        (hex_of(&self.hash[..16]), last)
    }

    fn fold(&mut self) {
        let end = self.open.len();
        self.open.push_str(&hex_of(&self.hash));
        self.hash = sha256(self.open.as_bytes());
        self.open.truncate(end);
        std::mem::swap(&mut self.open, &mut self.folded);
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
