//! A fork raises evidence: a node that kept a message whose sender signed another log than the node's own
//! says so to its people.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::model::{Fact, History};

pub(super) fn check(history: &History) -> Vec<(Option<Duration>, String)> {
    let mut logs: BTreeMap<(usize, u64), _> = BTreeMap::new();
    let mut signed = Vec::new();
    let mut alarmed = BTreeSet::new();
    for (at, fact) in &history.facts {
        if let Fact::Head { node, head } = fact {
            logs.insert((*node, head.size), head.hash);
        } else if let Fact::Kept { node, message, proof, .. } = fact {
            signed.push((*at, *node, *message, proof.head));
        } else if let Fact::Alarmed { node, .. } = fact {
            alarmed.insert(*node);
        }
    }
    let mut found = Vec::new();
    let mut silent = BTreeSet::new();
    for (at, node, message, head) in signed {
        let own = logs.get(&(node, head.size));
        if own.is_some_and(|own| *own != head.hash) && !alarmed.contains(&node) && silent.insert(node) {
            let name = history.name(message);
            found.push((
                Some(at),
                format!("{name} was signed under another log, and node {node} said nothing"),
            ));
        }
    }
    found
}
