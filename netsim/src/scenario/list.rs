//! Messages that a scenario names one by one.

use std::collections::BTreeSet;

use serde::Deserialize;

use super::{Seconds, Workload};

/// A message that is not drawn.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Listed {
    pub(crate) at_s: Seconds,
    pub(crate) from: usize,
    pub(crate) to: usize,
    /// What its id, its text and its priority follow from; the next after the drawn ones and those
    /// before it otherwise.
    number: Option<usize>,
}

impl Workload {
    /// The listed messages with their numbers.
    pub(crate) fn listed(&self) -> impl Iterator<Item = (usize, Listed)> {
        let places = self.messages..;
        places.zip(&self.list).map(|(place, listed)| (listed.number.unwrap_or(place), *listed))
    }

    pub(super) fn check_list(&self) -> Result<(), String> {
        let mut numbers: BTreeSet<usize> = (0..self.messages).collect();
        for (number, listed) in self.listed() {
            if !numbers.insert(number) {
                return Err(format!("two messages have the number {number}"));
            }
            if listed.from == listed.to {
                return Err(format!("message {number}: node {} sends to itself", listed.from));
            }
        }
        Ok(())
    }
}
