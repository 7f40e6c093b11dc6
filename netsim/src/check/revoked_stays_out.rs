//! Nothing of a revoked key is kept by a node that has committed the revocation.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::model::{Fact, History};

pub(super) fn check(history: &History) -> Vec<(Option<Duration>, String)> {
    let mut learned = BTreeSet::new();
    let mut found = Vec::new();
    for (at, fact) in &history.facts {
        if let Fact::Learned { node, revoked } = fact {
            learned.insert((*node, *revoked));
        } else if let Fact::Kept { node, message, .. } = fact {
            let sender = history.members[history.messages[*message].from];
            if learned.contains(&(*node, sender)) {
                let what = format!("{} was kept after its sender's revocation", history.name(*message));
                found.push((Some(*at), what));
            }
        }
    }
    found
}
