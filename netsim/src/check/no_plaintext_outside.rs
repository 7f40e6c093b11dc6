//! Nothing of what messages say leaves the endpoints. Not by a search for known words alone: two runs of
//! one seed, whose messages say different things of the same length, look the same from outside, so
//! nothing that is seen there can depend on what was said. What hides content (a ciphertext, a hash, a
//! keyed fingerprint) differs and cannot be compared; there the content itself is searched for.

use std::time::Duration;

use super::Violation;
use crate::outside::{Outside, Sighting};

/// Compares what was seen of the two runs.
pub(crate) fn compare(one: &Outside, other: &Outside) -> Vec<Violation> {
    let mut found: Vec<Violation> =
        [one, other].iter().flat_map(|outside| outside.leaks()).map(violation).collect();
    let (a, b) = (one.seen(), other.seen());
    if let Some(place) = (0..a.len().max(b.len())).find(|place| a.get(*place) != b.get(*place)) {
        let at = [a, b].iter().filter_map(|seen| seen.get(place)).map(|(at, _)| *at).min();
        let [a, b] = [a, b].map(|seen| seen.get(place).map_or_else(|| "nothing".to_owned(), told));
        found.push(Violation {
            invariant: INVARIANT,
            at,
            what: format!("what was said decides what is seen: {a}; with other contents {b}"),
        });
    } else if one.rest() != other.rest() {
        let what = "what was said decides what is seen, late in the run".to_owned();
        found.push(Violation { invariant: INVARIANT, at: None, what });
    }
    found
}

const INVARIANT: &str = "no_plaintext_outside";

fn violation((at, what): &(Duration, String)) -> Violation {
    Violation { invariant: INVARIANT, at: Some(*at), what: what.clone() }
}

fn told((at, what): &Sighting) -> String {
    format!("at {:.6} s {what}", at.as_secs_f64())
}
