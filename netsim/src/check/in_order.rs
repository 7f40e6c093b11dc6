//! Order per conversation: what was handed over after another message was acknowledged is shown after it.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::model::{Fact, History};

/// When a message was first handed over, acknowledged and shown, by place in the history.
#[derive(Clone, Copy, Default)]
struct Times {
    submitted: Option<usize>,
    acknowledged: Option<usize>,
    shown: Option<usize>,
}

pub(super) fn check(history: &History) -> Vec<(Option<Duration>, String)> {
    let mut times = vec![Times::default(); history.messages.len()];
    for (place, (_, fact)) in history.facts.iter().enumerate() {
        if let Fact::Submitted { message } = fact {
            times[*message].submitted.get_or_insert(place);
        } else if let Fact::Acknowledged { message } = fact {
            times[*message].acknowledged.get_or_insert(place);
        } else if let Fact::Shown { message, .. } = fact {
            times[*message].shown.get_or_insert(place);
        }
    }
    let mut conversations: BTreeMap<(usize, usize), Vec<usize>> = BTreeMap::new();
    for (message, planned) in history.messages.iter().enumerate() {
        if times[message].shown.is_some() {
            conversations.entry((planned.from, planned.to)).or_default().push(message);
        }
    }
    conversations.into_values().flat_map(|messages| overtaken(history, &times, messages)).collect()
}

/// Walks what was shown in that order. A later one that was acknowledged before this one was handed
/// over has been overtaken.
fn overtaken(
    history: &History,
    times: &[Times],
    mut messages: Vec<usize>,
) -> Vec<(Option<Duration>, String)> {
    messages.sort_by_key(|message| times[*message].shown);
    let mut found = Vec::new();
    // The earliest acknowledgement among those shown later.
    let mut later: Option<(usize, usize)> = None;
    for message in messages.into_iter().rev() {
        let times = times[message];
        if let (Some((acknowledged, other)), Some(submitted), Some(shown)) =
            (later, times.submitted, times.shown)
            && acknowledged < submitted
        {
            let what = format!("{} was shown before {}", history.name(message), history.name(other));
            found.push((Some(history.facts[shown].0), what));
        }
        if let Some(acknowledged) = times.acknowledged
            && later.is_none_or(|(earliest, _)| acknowledged < earliest)
        {
            later = Some((acknowledged, message));
        }
    }
    found
}
