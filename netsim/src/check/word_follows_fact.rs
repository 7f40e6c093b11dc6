//! No word is ahead of the fact: `stored` follows the recipient's commit, `surfaced` its reader.

use std::collections::BTreeSet;
use std::time::Duration;

use peerloom_proto::endpoint::OutboxState;

use crate::model::{Fact, History};

pub(super) fn check(history: &History) -> Vec<(Option<Duration>, String)> {
    let (mut kept, mut shown) = (BTreeSet::new(), BTreeSet::new());
    let mut found = Vec::new();
    for (at, fact) in &history.facts {
        if let Fact::Kept { message, .. } = fact {
            kept.insert(*message);
        } else if let Fact::Shown { message, .. } = fact {
            shown.insert(*message);
        } else if let Fact::Told { message, state } = fact {
            let is_true = match state {
                OutboxState::Stored => kept.contains(message),
                OutboxState::Surfaced => shown.contains(message),
                OutboxState::Pending
                | OutboxState::InFlight
                | OutboxState::Accepted
                | OutboxState::Rejected(_)
                | OutboxState::Expired(_)
                | OutboxState::Dead(_)
                | OutboxState::Aborted => true,
            };
            if !is_true {
                let what = format!("{} was called {} before it was", history.name(*message), state.name());
                found.push((Some(*at), what));
            }
        }
    }
    found
}
