//! A coordinator whose store was put back to an older copy: the log that it lost is given back, and mail
//! that it had accepted is sent again.

use bytes::Bytes;

use super::State;
use crate::chain::Cause;
use crate::endpoint::{Endpoint, Output, Write};
use crate::hello::{HelloError, StoreMark, StoreView, log_wanted_by};
use crate::key::Signature;
use crate::time::Now;
use crate::wire::ToCoordinator;

impl Endpoint {
    /// The coordinator's log ends before this node's. It is given back what it lost; each answer must get
    /// it further.
    pub(super) fn log_wanted(&mut self, now: Now, from: u64, sig: &Signature) {
        let size = self.roster.size();
        let State::AwaitWelcome { since, hello, asked } = &mut self.uplink.state else { return };
        if !log_wanted_by(hello, from, sig) {
            return self.hello_failed(now, &HelloError::Signature);
        }
        if from >= size || asked.is_some_and(|(_, last)| from <= last) {
            return self.drop_uplink(now, "the coordinator asked for log entries without getting on");
        }
        let first = asked.map_or(from, |(first, _)| first);
        (*since, *asked) = (now.monotonic, Some((first, from)));
        self.out(Output::LoadEntries(from));
    }

    /// Log entries that the coordinator asked for.
    pub(crate) fn return_entries(&mut self, from: u64, entries: Vec<Bytes>) {
        if matches!(self.uplink.state, State::AwaitWelcome { asked: Some((_, last)), .. } if last == from) {
            self.out(Output::SendUplink(ToCoordinator::LogReturn { from, entries }.encode()));
        }
    }

    /// It took them, and has more than it asked for.
    pub(super) fn log_returned(&mut self, first: u64) {
        let text = format!(
            "the coordinator's copy of the mesh log ended before entry {first}, as after an old backup was put \
             back: this node gave it the rest, and it is whole again"
        );
        self.alarm(Cause::LostLog, text);
    }

    /// What the coordinator says of its store. One that was put back to an older copy lost mail that it
    /// had accepted, and receipts for it: whatever is not known to have arrived is offered again, and
    /// ends at the recipient if it had.
    pub(super) fn coordinator_store(&mut self, now: Now, store: StoreView) {
        if !store.kept && self.uplink.mark.is_some() {
            let rows = self.delivery.accepted_rows();
            for row in &rows {
                self.no_longer_accepted(now, *row);
                self.delivery.give_back(*row);
            }
            let count = rows.len();
            let text = format!(
                "the coordinator was put back to an older state: the {count} messages it had accepted are sent again; \
                 an invite made since is gone, one cancelled since works again until it ends"
            );
            self.alarm(Cause::WentBack, text);
        }
        self.marked(store.mark);
    }

    /// The coordinator's store got this far, and what it said so far holds while it stays there.
    fn marked(&mut self, mark: StoreMark) {
        if self.uplink.mark != Some(mark) {
            self.uplink.mark = Some(mark);
            self.write(Write::CoordinatorMark(mark));
        }
    }

    /// The coordinator answered for something that is on its disk since this commit.
    pub(super) fn kept_by(&mut self, commit: u64) {
        if let Some(mark) = self.uplink.mark.filter(|mark| mark.commit < commit) {
            self.marked(StoreMark { commit, ..mark });
        }
    }
}
