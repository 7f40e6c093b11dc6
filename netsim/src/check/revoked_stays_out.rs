//! Nothing of a revoked key is kept by a node that has committed the revocation.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::model::{Fact, History};

pub(super) fn check(history: &History) -> Vec<(Option<Duration>, String)> {
    let mut learned = BTreeSet::new();
    let mut found = Vec::new();
    for (at, fact) in &history.facts {
        match fact {
            Fact::Learned { node, revoked } => drop(learned.insert((*node, *revoked))),
            Fact::Kept { node, message, .. } => {
                let sender = history.members[history.messages[*message].from];
                if learned.contains(&(*node, sender)) {
                    let what = format!("{} was kept after its sender's revocation", history.name(*message));
                    found.push((Some(*at), what));
                }
            }
            Fact::Submitted { .. }
            | Fact::Acknowledged { .. }
            | Fact::Refused { .. }
            | Fact::Told { .. }
            | Fact::Shown { .. }
            | Fact::Strange { .. }
            | Fact::Head { .. }
            | Fact::Depth { .. }
            | Fact::Broke { .. } => {}
        }
    }
    found
}
