//! Effects at most once: a message is kept once and shown once, as it was sent, and no store is given
//! what it would refuse.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::model::{Fact, History};

pub(super) fn check(history: &History) -> Vec<(Option<Duration>, String)> {
    let (mut kept, mut shown) = (BTreeSet::new(), BTreeSet::new());
    let mut found = Vec::new();
    for (at, fact) in &history.facts {
        let what = match fact {
            Fact::Kept { node, message, .. } if !kept.insert((*node, *message)) => {
                format!("{} was kept twice", history.name(*message))
            }
            Fact::Shown { node, message } if !shown.insert((*node, *message)) => {
                format!("{} was shown twice", history.name(*message))
            }
            Fact::Kept { node, message, .. } | Fact::Shown { node, message }
                if history.messages[*message].to != *node =>
            {
                format!("{} came to node {node}", history.name(*message))
            }
            Fact::Strange { node, what } => format!("node {node} kept {what}"),
            Fact::Broke { at, what } => format!("{at}'s store was asked for nonsense: {what}"),
            Fact::Kept { .. }
            | Fact::Shown { .. }
            | Fact::Submitted { .. }
            | Fact::Acknowledged { .. }
            | Fact::Refused { .. }
            | Fact::Told { .. }
            | Fact::Head { .. }
            | Fact::Learned { .. }
            | Fact::Depth { .. } => continue,
        };
        found.push((Some(*at), what));
    }
    found
}
