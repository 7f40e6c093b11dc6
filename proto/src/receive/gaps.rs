//! Gaps in conversations: what ends the wait behind one, other than what was missing.

use crate::endpoint::{Endpoint, Event, Row, Write};
use crate::id::{Generation, PeerId};
use crate::limits::{CLOCK_SKEW_MAX, GENERATIONS_PER_SENDER_MAX};
use crate::time::{Now, UnixMs};

impl Endpoint {
    /// The sender said that everything below `lowest` is settled.
    pub(crate) fn conversation_settled(&mut self, from: PeerId, generation: Generation, lowest: u64) {
        let key = (from, generation);
        let Some(conversation) = self.inbox.conversations.get_mut(&key) else { return };
        let released = conversation.settle(lowest);
        self.inbox.moved.insert(key);
        self.release(released);
        self.save_conversations();
    }

    /// Gives up gaps whose waiting message has expired.
    pub(crate) fn release_gaps(&mut self, now: Now) {
        if self.inbox.gap_ends().is_none_or(|ends| ends > now.wall) {
            return;
        }
        let ended = now.wall.minus(CLOCK_SKEW_MAX);
        let keys: Vec<_> = self.inbox.conversations.keys().copied().collect();
        for key in keys {
            let released =
                self.inbox.conversations.get_mut(&key).map_or_else(Vec::new, |held| held.give_up(ended));
            if !released.is_empty() {
                self.inbox.moved.insert(key);
                self.release(released);
            }
        }
        self.save_conversations();
    }

    /// Nothing more comes from this sender: what waits behind its gaps waits for nothing.
    pub(crate) fn release_all_of(&mut self, from: PeerId) {
        let keys: Vec<_> = self.inbox.conversations.keys().copied().filter(|(of, _)| *of == from).collect();
        for key in keys {
            let Some(conversation) = self.inbox.conversations.get_mut(&key) else { continue };
            let released = conversation.give_up(UnixMs(u64::MAX));
            if !released.is_empty() {
                self.inbox.moved.insert(key);
                self.release(released);
            }
        }
        self.save_conversations();
    }

    /// A sender begins another life of its counters. Where it has too many, the one ends in which least
    /// waits, and what waits there is shown: a member that makes up lives uses up its own.
    pub(super) fn make_room(&mut self, key: (PeerId, Generation)) {
        if self.inbox.conversations.contains_key(&key) {
            return;
        }
        let lives: Vec<_> = self.inbox.of_sender(key.0).map(|(key, held)| (held.held(), *key)).collect();
        if lives.len() < GENERATIONS_PER_SENDER_MAX {
            return;
        }
        let ended = lives.into_iter().min();
        if let Some(mut ended) = ended.and_then(|(_, key)| self.inbox.conversations.remove(&key)) {
            self.release(ended.give_up(UnixMs(u64::MAX)));
        }
    }

    fn release(&mut self, rows: Vec<Row>) {
        for row in rows {
            let position = self.inbox.next_position;
            self.inbox.next_position += 1;
            self.write(Write::Release { row, position });
            self.event(Event::Inbox { position, row });
        }
    }

    pub(super) fn save_conversations(&mut self) {
        for (from, generation) in std::mem::take(&mut self.inbox.moved) {
            if let Some(conversation) = self.inbox.conversations.get(&(from, generation)) {
                let next = conversation.next();
                self.write(Write::Conversation { from, generation, next });
            }
        }
    }
}
