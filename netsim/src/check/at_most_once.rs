//! Effects at most once: a message is kept once and shown once, as it was sent, and no store is given
//! what it would refuse.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::model::{Fact, History};

pub(super) fn check(history: &History) -> Vec<(Option<Duration>, String)> {
    let (mut kept, mut shown) = (BTreeSet::new(), BTreeSet::new());
    let mut found = Vec::new();
    for (at, fact) in &history.facts {
        if let Fact::Kept { node, message, .. } = fact {
            let first = kept.insert((*node, *message));
            found.extend(wrong(history, *node, *message, first, "kept").map(|what| (Some(*at), what)));
        } else if let Fact::Shown { node, message } = fact {
            let first = shown.insert((*node, *message));
            found.extend(wrong(history, *node, *message, first, "shown").map(|what| (Some(*at), what)));
        } else if let Fact::Strange { node, what } = fact {
            found.push((Some(*at), format!("node {node} kept {what}")));
        } else if let Fact::Broke { at: place, what } = fact {
            found.push((Some(*at), format!("{place}'s store was asked for nonsense: {what}")));
        }
    }
    found
}

fn wrong(history: &History, node: usize, message: usize, first: bool, word: &str) -> Option<String> {
    if !first {
        return Some(format!("{} was {word} twice", history.name(message)));
    }
    let strayed = history.messages[message].to != node;
    strayed.then(|| format!("{} came to node {node}", history.name(message)))
}
