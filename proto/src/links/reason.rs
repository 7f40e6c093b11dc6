//! Why there is no direct link, in a sentence that says what was tried and what was learned.

use super::Agreed;
use crate::endpoint::Endpoint;
use crate::id::PeerId;
use crate::paths::{CandidateState, CandidateView, Mapping, Nat};

impl Endpoint {
    /// What an attempt tried, and what it learned.
    pub(super) fn why_nothing_answered(&self, agreed: &Agreed) -> String {
        let (here, there) = (self.links.gathering.nat(), agreed.peer_nat);
        let rows = agreed.view().candidates;
        if here.mapping == Mapping::Blocked {
            return "UDP does not get out of this network: no STUN server answered".to_owned();
        }
        if there.mapping == Mapping::Blocked {
            return "UDP does not get out of the peer's network: no STUN server answered there".to_owned();
        }
        if rows.is_empty() {
            return "the peer named no address that can be reached from here".to_owned();
        }
        if rows.iter().any(|row| matches!(row.state, CandidateState::Proven | CandidateState::Heard)) {
            return "checks got through, but no channel was made in time".to_owned();
        }
        let named = |row: &CandidateView| format!("{} {}", row.kind.name(), row.addr);
        let mut tried: Vec<String> = rows.iter().take(TRIED_NAMED).map(named).collect();
        if rows.len() > TRIED_NAMED {
            tried.push(format!("{} more", rows.len() - TRIED_NAMED));
        }
        let guessed = if agreed.check.celebrated() { " nor from guessed ports" } else { "" };
        let known = |place: &str, nat: Nat| {
            (nat.mapping != Mapping::Unknown).then(|| format!("; {place} is {}", nat.mapping))
        };
        let between = [known("here", here), known("there", there)].map(Option::unwrap_or_default);
        format!("no answer from {}{guessed}{}", tried.join(", "), between.concat())
    }

    pub(super) fn why_not(&mut self, peer: PeerId, why: &str) {
        let record = self.peers.entry(peer);
        if record.why_not_direct.as_deref() != Some(why) {
            record.why_not_direct = Some(why.to_owned());
            self.links.reasons += 1;
        }
    }
}

/// Addresses named in a reason; people look no further.
const TRIED_NAMED: usize = 3;
