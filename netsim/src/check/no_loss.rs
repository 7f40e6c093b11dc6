//! No acknowledged message is lost: its recipient's reader sees it, or its sender is told why not.

use std::collections::BTreeSet;
use std::time::Duration;

use peerloom_proto::endpoint::OutboxState;

use crate::model::{Fact, History};

pub(super) fn check(history: &History) -> Vec<(Option<Duration>, String)> {
    let mut acknowledged = BTreeSet::new();
    let mut settled = BTreeSet::new();
    for (_, fact) in &history.facts {
        if let Fact::Acknowledged { message } = fact {
            acknowledged.insert(*message);
        } else if let Fact::Shown { message, .. } = fact {
            settled.insert(*message);
        } else if let Fact::Told { message, state } = fact
            && is_failure(state)
        {
            settled.insert(*message);
        }
    }
    // Nobody reads or is told anything at a node that was removed.
    let removed = |message: &usize| {
        let planned = &history.messages[*message];
        history.revoked.contains(&planned.from) || history.revoked.contains(&planned.to)
    };
    let lost = acknowledged.difference(&settled).filter(|message| !removed(message));
    lost.map(|message| {
        (None, format!("{} was acknowledged, and neither shown nor reported", history.name(*message)))
    })
    .collect()
}

/// Whether its sender knows that it will not arrive.
fn is_failure(state: &OutboxState) -> bool {
    match state {
        OutboxState::Rejected(_) | OutboxState::Expired(_) | OutboxState::Dead(_) | OutboxState::Aborted => {
            true
        }
        OutboxState::Pending
        | OutboxState::InFlight
        | OutboxState::Accepted
        | OutboxState::Stored
        | OutboxState::Surfaced => false,
    }
}
