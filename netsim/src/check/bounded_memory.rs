//! What a node's machine holds stays within its bounds, whoever it has to do with.

use std::time::Duration;

use crate::model::{Fact, History};

pub(super) fn check(history: &History) -> Vec<(Option<Duration>, String)> {
    let mut found = Vec::new();
    for (time, fact) in &history.facts {
        if let Fact::Holds { node, holding } = fact
            && holding.count > holding.most
        {
            let (count, what, most) = (holding.count, holding.what, holding.most);
            found.push((Some(*time), format!("node {node} held {count} {what}, {most} are allowed")));
        }
    }
    found
}
