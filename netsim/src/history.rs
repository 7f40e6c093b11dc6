//! A run's history as JSON lines, for programs that share no code with this one. `tests/history/check.py`
//! reads it and decides the invariants itself; the harness of the real processes writes the same shape.
//!
//! One object a line, its `kind` first. `header` begins: `schema_version` 1, `source` (`netsim`, or
//! `daemons`), `scenario`, `seed`, `members` (one key a node, nodes are numbered from 0). A `message`
//! line a planned message follows: `message` (its number), `id`, `from` and `to` (nodes). Then every
//! fact in the order of happening, each with `at_us`, microseconds since the run began: `submitted`,
//! `acknowledged`, `refused`, `told`, `kept`, `shown`, `strange`, `head`, `learned`, `forked`, `alarmed`, `depth`, `holds`, `broke`, as
//! [`Fact`] has them. `end` closes: `revoked` (nodes that were removed) and `left` (what had not drained).
//! Fields and kinds may be added, never renamed; a file without its `end` was cut off.

use std::io::{self, Write};
use std::path::Path;
use std::time::Duration;

use peerloom_proto::endpoint::{Holding, PathKind};
use serde::Serialize;

use crate::model::{Fact, History, Standing};
use crate::world::Options;

/// One line.
#[derive(Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
enum Line<'a> {
    Header {
        schema_version: u32,
        source: &'static str,
        scenario: String,
        seed: String,
        crash_at: Option<u64>,
        members: Vec<String>,
    },
    Message {
        message: usize,
        id: String,
        from: usize,
        to: usize,
    },
    Submitted {
        at_us: u64,
        message: usize,
    },
    Acknowledged {
        at_us: u64,
        message: usize,
    },
    Refused {
        at_us: u64,
        message: usize,
        why: &'a str,
    },
    Told {
        at_us: u64,
        message: usize,
        state: &'static str,
        code: Option<&'a str>,
    },
    Kept {
        at_us: u64,
        node: usize,
        message: usize,
        path: &'static str,
        signed: bool,
        head_size: u64,
        head_hash: String,
        standing: &'static str,
        standing_at_head: Option<&'static str>,
    },
    Shown {
        at_us: u64,
        node: usize,
        message: usize,
    },
    Strange {
        at_us: u64,
        node: usize,
        what: &'a str,
    },
    Head {
        at_us: u64,
        node: usize,
        size: u64,
        hash: String,
    },
    Learned {
        at_us: u64,
        node: usize,
        revoked: String,
    },
    Forked {
        at_us: u64,
        size: u64,
    },
    Alarmed {
        at_us: u64,
        node: usize,
        what: &'a str,
    },
    Holds {
        at_us: u64,
        node: usize,
        what: &'static str,
        count: usize,
        most: usize,
    },
    Depth {
        at_us: u64,
        what: &'static str,
        place: String,
        count: usize,
        limit: usize,
    },
    Broke {
        at_us: u64,
        place: String,
        what: &'a str,
    },
    End {
        at_us: u64,
        revoked: &'a [usize],
        left: &'a [String],
    },
}

/// The shape's version.
const SCHEMA_VERSION: u32 = 1;

impl History {
    /// Writes all of it: what `scenario` came to with these options by the instant `end`.
    pub(crate) fn write(
        &self,
        scenario: &Path,
        options: Options,
        end: Duration,
        out: &mut impl Write,
    ) -> io::Result<()> {
        let mut line = |line: &Line<'_>| {
            serde_json::to_writer(&mut *out, line)?;
            out.write_all(b"\n")
        };
        line(&Line::Header {
            schema_version: SCHEMA_VERSION,
            source: "netsim",
            scenario: scenario.display().to_string(),
            seed: format!("{:#x}", options.seed),
            crash_at: options.crash_at,
            members: self.members.iter().map(ToString::to_string).collect(),
        })?;
        for (message, planned) in self.messages.iter().enumerate() {
            let (from, to) = (planned.from, planned.to);
            line(&Line::Message { message, id: planned.id.to_string(), from, to })?;
        }
        for (at, fact) in &self.facts {
            line(&line_of(micros(*at), fact))?;
        }
        line(&Line::End { at_us: micros(end), revoked: &self.revoked, left: &self.left })
    }
}

fn line_of(at_us: u64, fact: &Fact) -> Line<'_> {
    match fact {
        Fact::Submitted { message } => Line::Submitted { at_us, message: *message },
        Fact::Acknowledged { message } => Line::Acknowledged { at_us, message: *message },
        Fact::Refused { message, why } => Line::Refused { at_us, message: *message, why },
        Fact::Told { message, state } => {
            Line::Told { at_us, message: *message, state: state.name(), code: state.code() }
        }
        Fact::Kept { node, message, path, proof } => Line::Kept {
            at_us,
            node: *node,
            message: *message,
            path: path_word(*path),
            signed: proof.holds,
            head_size: proof.head.size,
            head_hash: proof.head.hash.to_string(),
            standing: standing_word(proof.standing),
            standing_at_head: proof.at_head.map(standing_word),
        },
        Fact::Shown { node, message } => Line::Shown { at_us, node: *node, message: *message },
        Fact::Strange { node, what } => Line::Strange { at_us, node: *node, what },
        Fact::Head { node, head } => {
            Line::Head { at_us, node: *node, size: head.size, hash: head.hash.to_string() }
        }
        Fact::Learned { node, revoked } => Line::Learned { at_us, node: *node, revoked: revoked.to_string() },
        Fact::Forked { size } => Line::Forked { at_us, size: *size },
        Fact::Alarmed { node, what } => Line::Alarmed { at_us, node: *node, what },
        Fact::Holds { node, holding: Holding { what, count, most } } => {
            Line::Holds { at_us, node: *node, what, count: *count, most: *most }
        }
        Fact::Depth { what, at, count, limit } => {
            Line::Depth { at_us, what, place: at.to_string(), count: *count, limit: *limit }
        }
        Fact::Broke { at, what } => Line::Broke { at_us, place: at.to_string(), what },
    }
}

fn standing_word(standing: Standing) -> &'static str {
    match standing {
        Standing::Member => "member",
        Standing::Stranger => "stranger",
        Standing::Revoked => "revoked",
    }
}

fn path_word(path: PathKind) -> &'static str {
    match path {
        PathKind::Direct => "direct",
        PathKind::Relay => "relay",
        PathKind::Queue => "queue",
    }
}

fn micros(at: Duration) -> u64 {
    u64::try_from(at.as_micros()).expect("a run is far shorter than 2^64 microseconds")
}
