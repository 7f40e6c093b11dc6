//! Every queue stays within its bound.

use std::time::Duration;

use crate::model::{Fact, History};

pub(super) fn check(history: &History) -> Vec<(Option<Duration>, String)> {
    let mut found = Vec::new();
    for (time, fact) in &history.facts {
        if let Fact::Depth { what, at, count, limit } = fact
            && count > limit
        {
            found.push((Some(*time), format!("{count} {what} at {at}, {limit} are allowed")));
        }
    }
    found
}
