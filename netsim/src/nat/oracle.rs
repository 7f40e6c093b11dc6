//! Whether two nodes can have a direct path, from what their NATs do and nothing else.

use super::{Behaviour, Scope};

/// What two nodes are owed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Owed {
    /// A direct path: each can know where the other will be seen, or be found by who knows.
    Direct,
    /// A direct path if one opens many ports and the other guesses them.
    DirectByBirthday,
    /// The relay.
    Relay,
}

/// What two nodes behind these chains are owed, where both punch at the same time and know their mapped
/// addresses from a STUN server. A chain does what the strictest of its NATs does.
pub(crate) fn direct_path_possible(here: &[Behaviour], there: &[Behaviour]) -> Owed {
    if here.iter().chain(there).any(|nat| nat.blocks_udp) {
        return Owed::Relay;
    }
    match (is_predictable(here), is_predictable(there)) {
        // Each sends to where the other will be seen, which permits the other.
        (true, true) => Owed::Direct,
        (true, false) => owed_by_easy(here),
        (false, true) => owed_by_easy(there),
        (false, false) => Owed::Relay,
    }
}

/// Whether a STUN server sees the address that a peer will see.
fn is_predictable(chain: &[Behaviour]) -> bool {
    chain.iter().all(|nat| nat.mapping == Scope::EndpointIndependent)
}

/// The side whose address is known waits for the other, whose port it cannot know but whose address it
/// does.
fn owed_by_easy(chain: &[Behaviour]) -> Owed {
    match chain.iter().map(|nat| nat.filtering).max() {
        None | Some(Scope::EndpointIndependent | Scope::AddressDependent) => Owed::Direct,
        Some(Scope::AddressAndPortDependent) => Owed::DirectByBirthday,
    }
}
