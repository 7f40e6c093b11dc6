//! A node's log only grows, and two nodes with logs of one size have the same log, unless the coordinator
//! itself gave one place twice.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::model::{Fact, History};

pub(super) fn check(history: &History) -> Vec<(Option<Duration>, String)> {
    let mut sizes: BTreeMap<usize, u64> = BTreeMap::new();
    let mut hashes = BTreeMap::new();
    let mut found = Vec::new();
    let mut forked_at = u64::MAX;
    for (at, fact) in &history.facts {
        if let Fact::Forked { size } = fact {
            forked_at = *size;
        }
        let Fact::Head { node, head } = fact else { continue };
        let before = sizes.insert(*node, head.size).unwrap_or_default();
        if head.size < before {
            found.push((
                Some(*at),
                format!("node {node}'s log shrank from {before} to {} entries", head.size),
            ));
        }
        if *hashes.entry(head.size).or_insert(head.hash) != head.hash && head.size < forked_at {
            found.push((Some(*at), format!("node {node} has another log of {} entries", head.size)));
        }
    }
    found
}
