//! What a coordinator that is not honest does.

use serde::Deserialize;

/// A way not to be honest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Deed {
    /// What the hub says does not leave.
    Withhold,
    /// What it said before is said again, mail also under claims that nobody knows.
    Replay,
    /// What it says leaves later than what it says after that.
    Reorder,
    /// Some nodes are shown a log of their own from now on.
    Fork,
    /// What it says is not so.
    Lie,
}

/// What a coordinator says, by what it is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Sort {
    Mail,
    /// Receipts, and notices of what ended unread.
    Receipts,
    /// Its word on what it was given.
    Accepted,
    /// The log, and its word on appends.
    Entries,
    Presence,
}

/// What is not so.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Lie {
    /// That an envelope is kept which is thrown away.
    Accepted,
    /// Who is online.
    Presence,
    /// How long the log is.
    Size,
    /// That the log is shorter, or another, at the welcome.
    Head,
    /// Which claim mail and receipts are under.
    Claims,
    /// A bit of a receipt or of its signature.
    Receipts,
    /// A bit of an envelope.
    Envelopes,
    /// Who an envelope is for: somebody else gets a copy.
    Recipients,
    /// Who an envelope is from.
    Senders,
    /// Prekeys of nobody, and of members who did not sign them.
    Prekeys,
    /// Log entries whose author did not sign them, or may not act so.
    Entries,
}
