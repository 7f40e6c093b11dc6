//! Members that misbehave.

use serde::Deserialize;

use super::Seconds;

/// A member that misbehaves beside what its node does.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct HostileMember {
    /// Which node.
    pub(crate) node: usize,
    /// What it does, drawn each time.
    #[serde(rename = "do")]
    pub(crate) deeds: Vec<Hostility>,
    /// Towards whom, drawn each time; everybody otherwise.
    pub(crate) towards: Option<Vec<usize>>,
    #[serde(default)]
    pub(crate) from_s: Seconds,
    /// The end of the scenario's duration otherwise.
    pub(crate) until_s: Option<Seconds>,
    #[serde(default = "every_second")]
    pub(crate) every_s: Seconds,
    /// So often each time.
    #[serde(default = "once")]
    pub(crate) burst: usize,
}

/// A way to misbehave.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Hostility {
    /// Messages under ids of others' messages to the same recipient, and under its own used ones.
    ReuseIds,
    /// Envelopes again, its own and others', by relay and by direct link.
    Replay,
    /// Frames that are noise, cut short or too long.
    Garbage,
    /// Binds that are spoiled or of another link.
    Binds,
    /// Messages from the future and the past, and for too long.
    Times,
    /// Messages handed to somebody they are not for.
    Recipients,
    /// Receipts for what it never got, in its own name and in others'.
    Receipts,
    /// Messages that record heads of no log, and of a time before it was a member.
    Heads,
    /// Boxes that do not open, under keys that nobody holds, or under another header.
    Seals,
    /// Offers, answers, echoes and settled signals.
    Signals,
    /// Requests at the coordinator that are none of its business.
    Requests,
    /// Messages that each begin another life of its counters, behind a gap.
    Lives,
    /// Good messages.
    Flood,
    /// Messages after it was revoked, which a coordinator lets through.
    GoOn,
}

impl HostileMember {
    /// What is wrong with it, whatever the rest of the file says.
    pub(super) fn nonsense(&self) -> Option<&'static str> {
        if self.deeds.is_empty() {
            return Some("a hostile member does something");
        }
        if self.every_s.0 < 0.01 || self.burst == 0 {
            return Some("a hostile member acts every 0.01 s at most, and at least once each time");
        }
        let to_itself =
            self.towards.as_ref().is_some_and(|nodes| nodes.iter().all(|node| *node == self.node));
        to_itself.then_some("a hostile member acts towards others")
    }

    /// Nodes it names.
    pub(super) fn nodes(&self) -> impl Iterator<Item = usize> {
        self.towards.iter().flatten().copied().chain([self.node])
    }

    pub(super) fn times(&self) -> impl Iterator<Item = Seconds> {
        [self.from_s, self.every_s].into_iter().chain(self.until_s)
    }
}

fn every_second() -> Seconds {
    Seconds(1.0)
}

fn once() -> usize {
    1
}
