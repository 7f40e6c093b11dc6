//! Nothing is kept, and so nothing shown, that does not verify at its recorded head: its bytes were signed
//! by the sender it is shown under, for this recipient, and that sender was a member both by the
//! recipient's log and at the head the bytes record, as far as that log knows it.

use std::time::Duration;

use crate::model::{Fact, History, Standing};

pub(super) fn check(history: &History) -> Vec<(Option<Duration>, String)> {
    let mut found = Vec::new();
    for (at, fact) in &history.facts {
        let Fact::Kept { node, message, proof, .. } = fact else { continue };
        let name = history.name(*message);
        if !proof.holds {
            found.push((
                Some(*at),
                format!("{name} was kept by node {node} in bytes its sender did not sign"),
            ));
        }
        for (standing, when) in
            [(Some(proof.standing), "by the recipient's log"), (proof.at_head, "at the head it records")]
        {
            let word = match standing {
                Some(Standing::Member) | None => continue,
                Some(Standing::Stranger) => "a stranger",
                Some(Standing::Revoked) => "revoked",
            };
            found.push((Some(*at), format!("{name} was kept by node {node}, its sender {word} {when}")));
        }
    }
    found
}
