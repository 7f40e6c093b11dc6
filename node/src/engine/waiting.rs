//! Who waits for which reply. Requests that came together are answered together.

use std::collections::BTreeMap;

use peerloom_proto::endpoint::{Reply, Token};
use tokio::sync::oneshot;

use super::work::Answers;
use crate::mesh::EngineError;

/// Groups of requests without all their replies, by the token of their first.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    groups: BTreeMap<Token, Group>,
    next: Token,
}

#[derive(Debug)]
struct Group {
    replies: Vec<Option<Reply>>,
    missing: usize,
    answer: oneshot::Sender<Answers>,
}

impl Waiting {
    /// Numbers a group's requests from the token given on.
    pub(super) fn open(&mut self, count: usize, answer: oneshot::Sender<Answers>) -> Token {
        let first = self.next;
        self.next += count as u64;
        self.groups.insert(first, Group { replies: vec![None; count], missing: count, answer });
        first
    }

    /// Takes a reply; the last of a group answers its caller.
    pub(super) fn reply(&mut self, token: Token, reply: Reply) {
        let Some((&first, group)) = self.groups.range_mut(..=token).next_back() else { return };
        let place = usize::try_from(token - first).unwrap_or(usize::MAX);
        // A token beyond its group belongs to one that was answered with a failure.
        let Some(slot) = group.replies.get_mut(place) else { return };
        if slot.replace(reply).is_none() {
            group.missing -= 1;
        }
        if group.missing > 0 {
            return;
        }
        if let Some(group) = self.groups.remove(&first) {
            answer(group.answer, Ok(group.replies.into_iter().flatten().map(Ok).collect()));
        }
    }

    /// Answers everyone with the same failure.
    pub(super) fn fail_all(&mut self, reason: &EngineError) {
        for group in std::mem::take(&mut self.groups).into_values() {
            answer(group.answer, Err(reason.clone()));
        }
    }
}

/// Answers a caller, who may be gone.
pub(super) fn answer(to: oneshot::Sender<Answers>, answers: Answers) {
    if to.send(answers).is_err() {
        tracing::trace!("The caller did not wait for its answer.");
    }
}
