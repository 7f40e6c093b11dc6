//! How a row ends that is not delivered, and what follows when any row ends.

use crate::endpoint::{Endpoint, Event, OutboxState, PathKind, Refusal, Reply, Row, Token, Write};
use crate::id::MessageId;
use crate::time::Now;

impl Endpoint {
    /// Cancels rows that no transport ever saw.
    pub(crate) fn abort(&mut self, now: Now, token: Token, id: MessageId) {
        let rows = self.delivery.under(&id);
        let untouched: Vec<Row> = rows
            .iter()
            .copied()
            .filter(|row| self.delivery.item(*row).is_some_and(|item| !item.transmitted))
            .collect();
        if untouched.is_empty() {
            let why = if rows.is_empty() { "is not under way" } else { "may have been transmitted already" };
            return self.refuse(token, Refusal::NotFound(format!("nothing to abort: {id} {why}")));
        }
        for row in untouched {
            self.fail(now, row, OutboxState::Aborted);
        }
        self.reply(token, Reply::Done);
    }

    /// Ends a row without delivery, and lets the recipient's conversation go on.
    pub(crate) fn fail(&mut self, now: Now, row: Row, state: OutboxState) {
        let Some(item) = self.delivery.settle(row) else { return };
        // Whoever refuses what came after its time says only that.
        let late = matches!(&state, OutboxState::Rejected(code) if code == "expiry" || code == "stale");
        let over = late && item.exp <= now.wall;
        let state = if over { OutboxState::Expired("expired".to_owned()) } else { state };
        self.write(Write::OutboxState { row, state: state.clone(), path: item.path, at: now.wall });
        self.event(Event::Outbox { id: item.id, to: item.to, state, path: item.path, at: now.wall });
        self.delivery.conversation(item.to).fail(item.seq);
        self.tell_settled(now, item.to);
    }

    /// A row reached a state; `path` overrides the way it is known to have gone.
    pub(crate) fn settle(&mut self, now: Now, row: Row, state: OutboxState, path: Option<PathKind>) {
        let Some(item) = self.delivery.settle(row) else { return };
        let path = path.or(item.path);
        self.write(Write::OutboxState { row, state: state.clone(), path, at: now.wall });
        self.event(Event::Outbox { id: item.id, to: item.to, state, path, at: now.wall });
        if self.tell_settled(now, item.to) {
            self.delivery.conversation(item.to).told();
        }
    }

    /// Ends rows whose time ran out here.
    pub(crate) fn expire(&mut self, now: Now) {
        for row in self.delivery.expired(now.wall) {
            self.fail(now, row, OutboxState::Expired("expired".to_owned()));
        }
    }
}
