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
