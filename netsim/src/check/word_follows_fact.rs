//! No word is ahead of the fact: `stored` follows the recipient's commit, `surfaced` its reader.

use std::collections::BTreeSet;
use std::time::Duration;

use peerloom_proto::endpoint::OutboxState;

use crate::model::{Fact, History};

pub(super) fn check(history: &History) -> Vec<(Option<Duration>, String)> {
    let (mut kept, mut shown) = (BTreeSet::new(), BTreeSet::new());
    let mut found = Vec::new();
    for (at, fact) in &history.facts {
        match fact {
            Fact::Kept { message, .. } => drop(kept.insert(*message)),
            Fact::Shown { message, .. } => drop(shown.insert(*message)),
            Fact::Told { message, state } => {
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
                    let what =
                        format!("{} was called {} before it was", history.name(*message), state.name());
                    found.push((Some(*at), what));
                }
            }
            Fact::Submitted { .. }
            | Fact::Acknowledged { .. }
            | Fact::Refused { .. }
            | Fact::Strange { .. }
            | Fact::Head { .. }
            | Fact::Learned { .. }
            | Fact::Depth { .. }
            | Fact::Broke { .. } => {}
        }
    }
    found
}
