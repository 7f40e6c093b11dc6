//! Order (protocol.md §14): messages of one sender surface in the order they were sent, whatever
//! order and whichever path they came by.

use std::collections::{BTreeMap, BTreeSet};

use crate::endpoint::Row;
use crate::time::UnixMs;

/// One sender's life of counters, as the recipient follows it.
///
/// Out-of-order mail is recorded but held until the gap before it is filled, is settled by the
/// sender, or outlives the message that waits.
#[derive(Debug, Default)]
pub(crate) struct Inbound {
    next: u64,
    held: BTreeMap<u64, (Row, UnixMs)>,
}

impl Inbound {
    /// A conversation in which everything below `next` has surfaced or never will.
    pub(crate) fn resume(next: u64) -> Self {
        Self { next, held: BTreeMap::new() }
    }

    /// Puts back a row that was held when the node stopped.
    pub(crate) fn hold(&mut self, seq: u64, row: Row, exp: UnixMs) {
        self.held.insert(seq, (row, exp));
    }

    /// The seq that surfaces next.
    pub(crate) fn next(&self) -> u64 {
        self.next
    }

    /// Rows waiting behind a gap.
    pub(crate) fn held(&self) -> usize {
        self.held.len()
    }

    /// A recorded message arrived; gives the rows that surface, in order.
    pub(crate) fn arrive(&mut self, seq: u64, lowest: u64, row: Row, exp: UnixMs) -> Vec<Row> {
        let (seq, lowest) = (seq.min(SEQ_MAX), lowest.min(SEQ_MAX));
        // What comes after its gap was given up surfaces late rather than never.
        if seq < self.next || self.held.contains_key(&seq) {
            return vec![row];
        }
        self.held.insert(seq, (row, exp));
        self.settle(lowest)
    }

    /// Whether a message of this place would be held behind a gap.
    pub(crate) fn would_hold(&self, seq: u64, lowest: u64) -> bool {
        seq > self.next.max(lowest)
    }

    /// The sender says that everything below `lowest` is settled; gives the rows that surface.
    pub(crate) fn settle(&mut self, lowest: u64) -> Vec<Row> {
        let lowest = lowest.min(SEQ_MAX);
        let later = self.held.split_off(&lowest.max(self.next));
        let mut released: Vec<Row> =
            std::mem::replace(&mut self.held, later).into_values().map(|(row, _)| row).collect();
        self.next = self.next.max(lowest);
        while let Some((row, _)) = self.held.remove(&self.next) {
            released.push(row);
            self.next = (self.next + 1).min(SEQ_MAX);
        }
        released
    }

    /// Gives up gaps whose waiting message has expired; gives the rows that surface.
    pub(crate) fn give_up(&mut self, now: UnixMs) -> Vec<Row> {
        let expired = self.held.iter().filter(|(_, (_, exp))| *exp <= now).map(|(seq, _)| *seq).max();
        expired.map_or_else(Vec::new, |seq| self.settle(seq))
    }

    /// When the first gap will be given up.
    pub(crate) fn gap_ends(&self) -> Option<UnixMs> {
        self.held.values().map(|(_, exp)| *exp).min()
    }
}

/// One recipient's conversation, as its sender counts it.
#[derive(Debug, Default)]
pub(crate) struct Outbound {
    next_seq: u64,
    unsettled: BTreeSet<u64>,
    /// Places that will never be filled: the recipient waits behind them until it is told.
    holes: BTreeSet<u64>,
    /// Places below this may hide holes that a restart forgot.
    forgotten_below: Option<u64>,
}

impl Outbound {
    /// Goes on after the last seq used.
    pub(crate) fn resume(&mut self, next_seq: u64) {
        self.next_seq = self.next_seq.max(next_seq);
    }

    /// Goes on after a restart: which places failed before it, and whether the recipient was told, is
    /// not remembered, so it is told once more when all that is known has settled.
    pub(crate) fn resume_untold(&mut self, next_seq: u64) {
        self.resume(next_seq);
        self.forgotten_below = Some(next_seq);
    }

    /// Puts back a row that was unsettled when the node stopped.
    pub(crate) fn restore(&mut self, seq: u64) {
        self.unsettled.insert(seq);
        self.resume(seq + 1);
    }

    /// Places that are neither settled nor told to be holes.
    pub(crate) fn places(&self) -> usize {
        self.unsettled.len() + self.holes.len()
    }

    /// Takes the next place: its seq, and the lowest seq that may still arrive, itself included.
    pub(crate) fn take(&mut self) -> (u64, u64) {
        let seq = self.next_seq;
        self.next_seq += 1;
        self.unsettled.insert(seq);
        // This message tells as much as a word of its own; should it fail, it leaves a hole itself.
        self.told();
        (seq, self.lowest())
    }

    /// Gives the last place taken back: nothing was sealed into it.
    pub(crate) fn give_back(&mut self, seq: u64) {
        self.unsettled.remove(&seq);
        if seq + 1 == self.next_seq {
            self.next_seq = seq;
        }
    }

    /// This seq has arrived.
    pub(crate) fn settle(&mut self, seq: u64) {
        self.unsettled.remove(&seq);
    }

    /// This seq never will arrive.
    pub(crate) fn fail(&mut self, seq: u64) {
        self.unsettled.remove(&seq);
        self.holes.insert(seq);
    }

    /// Whether something is under way.
    pub(crate) fn is_open(&self) -> bool {
        !self.unsettled.is_empty()
    }

    /// Whether the recipient may wait for something that [`lowest`](Self::lowest) would spare it.
    pub(crate) fn owes_word(&self) -> bool {
        let lowest = self.lowest();
        let hole = self.holes.first().is_some_and(|hole| *hole < lowest);
        hole || self.forgotten_below.is_some_and(|end| end <= lowest)
    }

    /// The recipient could not read what it was told.
    pub(crate) fn unheard(&mut self) {
        self.forgotten_below = self.forgotten_below.max(Some(self.lowest()));
    }

    /// The recipient was told [`lowest`](Self::lowest).
    pub(crate) fn told(&mut self) {
        let lowest = self.lowest();
        self.holes = self.holes.split_off(&lowest);
        self.forgotten_below = self.forgotten_below.filter(|end| *end > lowest);
    }

    /// Everything below this is settled.
    pub(crate) fn lowest(&self) -> u64 {
        self.unsettled.first().copied().unwrap_or(self.next_seq)
    }
}

/// Largest place that is told apart. Stores keep signed 64-bit numbers, and one more must fit.
const SEQ_MAX: u64 = (1 << 62) - 1;

#[cfg(test)]
mod tests {
    use super::{Inbound, Outbound};
    use crate::endpoint::Row;
    use crate::time::UnixMs;

    const LATER: UnixMs = UnixMs(1_000);
    const NOTHING: [Row; 0] = [];

    #[test]
    fn messages_that_overtook_each_other_surface_in_the_order_sent() {
        let mut inbound = Inbound::default();
        assert_eq!(inbound.arrive(2, 0, 12, LATER), NOTHING);
        assert_eq!(inbound.arrive(1, 0, 11, LATER), NOTHING);
        assert_eq!(inbound.arrive(0, 0, 10, LATER), [10, 11, 12]);
        assert_eq!(inbound.next(), 3);
    }

    #[test]
    fn a_gap_that_the_sender_settled_is_not_waited_for() {
        let mut inbound = Inbound::default();
        assert_eq!(inbound.arrive(1, 0, 11, LATER), NOTHING);
        assert_eq!(inbound.arrive(4, 3, 14, LATER), [11]);
        assert_eq!(inbound.settle(4), [14]);
        assert_eq!(inbound.next(), 5);
    }

    #[test]
    fn a_gap_is_given_up_when_the_message_behind_it_expires() {
        let mut inbound = Inbound::default();
        assert_eq!(inbound.arrive(3, 0, 13, LATER), NOTHING);
        assert_eq!(inbound.gap_ends(), Some(LATER));
        assert_eq!(inbound.give_up(UnixMs(999)), NOTHING);
        assert_eq!(inbound.give_up(LATER), [13]);
        assert_eq!(inbound.arrive(0, 0, 10, LATER), [10]);
    }

    #[test]
    fn lowest_follows_the_oldest_unsettled_message() {
        let mut outbound = Outbound::default();
        assert_eq!(outbound.take(), (0, 0));
        assert_eq!(outbound.take(), (1, 0));
        outbound.settle(1);
        assert_eq!(outbound.take(), (2, 0));
        outbound.settle(0);
        assert_eq!(outbound.take(), (3, 2));
    }

    #[test]
    fn a_hole_is_told_when_nothing_below_it_can_still_arrive() {
        let mut outbound = Outbound::default();
        for _ in 0..3 {
            outbound.take();
        }
        outbound.fail(1);
        assert!(!outbound.owes_word(), "0 may still arrive, and a word would not name 1");
        outbound.settle(0);
        assert!(outbound.owes_word());
        outbound.told();
        assert!(!outbound.owes_word());
    }

    #[test]
    fn a_message_sealed_after_a_failure_tells_of_it_only_if_nothing_older_is_under_way() {
        let mut outbound = Outbound::default();
        for _ in 0..2 {
            outbound.take();
        }
        outbound.fail(1);
        assert_eq!(outbound.take(), (2, 0));
        outbound.settle(0);
        assert!(outbound.owes_word(), "the message named 0, and 1 is missing");

        let mut outbound = Outbound::default();
        outbound.take();
        outbound.fail(0);
        assert_eq!(outbound.take(), (1, 1));
        assert!(!outbound.owes_word());
        outbound.fail(1);
        assert!(outbound.owes_word(), "the message that would have told of 0 failed itself");
    }

    #[test]
    fn what_a_restart_forgot_is_told_once_all_it_remembers_has_settled() {
        let mut outbound = Outbound::default();
        outbound.resume_untold(5);
        outbound.restore(3);
        assert!(!outbound.owes_word());
        outbound.settle(3);
        assert!(outbound.owes_word());
        assert_eq!(outbound.lowest(), 5);
        outbound.told();
        assert!(!outbound.owes_word());
    }
}
