//! The invariants, one a file. Each reads a [`History`] and says where it does not hold.

mod at_most_once;
mod authentic;
mod bounded_memory;
mod bounded_queues;
mod drains;
mod forks_raise_evidence;
mod head_grows;
mod in_order;
mod no_loss;
pub(crate) mod no_plaintext_outside;
mod revoked_stays_out;
mod word_follows_fact;

use std::time::Duration;

use crate::model::History;

/// Where an invariant does not hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Violation {
    /// The invariant's file.
    pub(crate) invariant: &'static str,
    /// When; none for the end of the run.
    pub(crate) at: Option<Duration>,
    /// What was seen.
    pub(crate) what: String,
}

impl std::fmt::Display for Violation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.at {
            Some(at) => write!(f, "{} at {:.3} s: {}", self.invariant, at.as_secs_f64(), self.what),
            None => write!(f, "{} at the end: {}", self.invariant, self.what),
        }
    }
}

type Check = fn(&History) -> Vec<(Option<Duration>, String)>;

/// Every invariant by its name.
const CHECKS: [(&str, Check); 11] = [
    ("no_loss", no_loss::check),
    ("word_follows_fact", word_follows_fact::check),
    ("at_most_once", at_most_once::check),
    ("in_order", in_order::check),
    ("revoked_stays_out", revoked_stays_out::check),
    ("authentic", authentic::check),
    ("head_grows", head_grows::check),
    ("forks_raise_evidence", forks_raise_evidence::check),
    ("bounded_queues", bounded_queues::check),
    ("bounded_memory", bounded_memory::check),
    ("drains", drains::check),
];

/// Everything that is wrong with a history.
pub(crate) fn all(history: &History) -> Vec<Violation> {
    let found = CHECKS.iter().flat_map(|(invariant, check)| {
        check(history).into_iter().map(|(at, what)| Violation { invariant, at, what })
    });
    found.collect()
}

#[cfg(test)]
mod tests;
