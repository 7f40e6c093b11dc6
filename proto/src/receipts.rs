//! Receipts (protocol.md §14), both ways: what this node owes senders, signed once a batch, and what
//! recipients say of this node's messages.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::delivery::{Stored, Via};
use crate::endpoint::{
    Endpoint, Event, LinkId, OutboxRow, OutboxState, Output, PathKind, Reply, SurfacedRow, Token, Write,
};
use crate::id::{EnvHash, MessageId, PeerId};
use crate::limits::RECEIPT_ROWS_MAX;
use crate::receipt::{Receipt, ReceiptCode, ReceiptRow, ReceiptStatus, SignedReceipt, UnverifiedReceipt};
use crate::time::Now;
use crate::wire::{Claim, OnLink, SignedBytes, ToCoordinator};

/// How an envelope came, which is how its receipt goes back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    Uplink { claim: Claim, path: PathKind },
    Link { link: LinkId, bound: PeerId },
}

impl Source {
    pub(crate) fn path(self) -> PathKind {
        match self {
            Self::Uplink { path, .. } => path,
            Self::Link { .. } => PathKind::Direct,
        }
    }
}

/// One row of a receipt to come.
#[derive(Clone, Debug)]
pub(crate) struct Owed {
    pub(crate) env_hash: EnvHash,
    pub(crate) id: MessageId,
    pub(crate) status: ReceiptStatus,
    pub(crate) code: Option<ReceiptCode>,
}

/// What this node owes, until the end of the batch.
#[derive(Debug, Default)]
pub(crate) struct Receipts {
    rows: BTreeMap<(PeerId, Via), Vec<(Owed, Claim)>>,
    /// Claims that end without a receipt: unreadable, from strangers, signals, notices.
    settled: Vec<Claim>,
    /// Words of reading for senders that cannot be reached now.
    unsent: Vec<(PeerId, Owed)>,
}

impl Receipts {
    pub(crate) fn owe(&mut self, to: PeerId, source: Source, owed: Owed) {
        let (via, claim) = match source {
            Source::Uplink { claim, .. } => (Via::Uplink, claim),
            Source::Link { link, .. } => (Via::Link(link), 0),
        };
        self.rows.entry((to, via)).or_default().push((owed, claim));
    }

    pub(crate) fn drop_claim(&mut self, claim: Claim) {
        self.settled.push(claim);
    }

    pub(crate) fn drop_source(&mut self, source: Source) {
        if let Source::Uplink { claim, .. } = source {
            self.drop_claim(claim);
        }
    }

    /// Rows and claims that the end of this batch is to send.
    pub(crate) fn owed(&self) -> usize {
        self.rows.values().map(Vec::len).sum::<usize>() + self.settled.len()
    }

    /// Words of reading whose senders cannot be reached.
    pub(crate) fn unsaid(&self) -> usize {
        self.unsent.len()
    }

    fn later(&mut self, to: PeerId, owed: Owed) {
        if self.unsent.len() < UNSENT_MAX {
            self.unsent.push((to, owed));
        }
    }
}

impl Endpoint {
    /// Signs and sends what is owed. The batch's writes commit before any of it leaves.
    pub(crate) fn acknowledge(&mut self, now: Now) {
        self.owe_unsent();
        // What came before the uplink broke is offered again after the next welcome; until that, the
        // first word on a socket is hello.
        if !self.uplink.is_welcomed() {
            self.inbox.receipts.rows.retain(|(_, via), _| *via != Via::Uplink);
            self.inbox.receipts.settled.clear();
        }
        for ((to, via), rows) in std::mem::take(&mut self.inbox.receipts.rows) {
            for chunk in rows.chunks(RECEIPT_ROWS_MAX) {
                let claims = chunk.iter().map(|(_, claim)| *claim).collect();
                let receipt = self.sign_receipt(now, to, chunk);
                match via {
                    Via::Uplink => {
                        let frame = ToCoordinator::Receipt { receipt, claims };
                        self.out(Output::SendUplink(frame.encode()));
                    }
                    Via::Link(link) => {
                        let frame = OnLink::Receipt { receipt };
                        self.out(Output::SendLink(link, frame.encode()));
                    }
                }
            }
        }
        let claims = std::mem::take(&mut self.inbox.receipts.settled);
        if !claims.is_empty() {
            self.out(Output::SendUplink(ToCoordinator::Settle { claims }.encode()));
        }
    }

    fn sign_receipt(&self, now: Now, to: PeerId, rows: &[(Owed, Claim)]) -> SignedBytes {
        let rows = rows.iter().map(|(owed, _)| ReceiptRow {
            env_hash: owed.env_hash,
            id: owed.id,
            status: owed.status,
            code: owed.code,
        });
        let receipt = Receipt {
            mesh: self.me.mesh,
            by: self.me.id,
            to,
            rows: rows.collect(),
            ts: now.wall,
            head: self.roster.head(),
        };
        let signed = SignedReceipt::sign(&self.me.key, receipt);
        SignedBytes { stmt: signed.stmt().clone(), sig: signed.sig() }
    }

    /// Gives words of reading another chance.
    fn owe_unsent(&mut self) {
        for (to, owed) in std::mem::take(&mut self.inbox.receipts.unsent) {
            match self.way_to(&to) {
                Some(via) => self.inbox.receipts.rows.entry((to, via)).or_default().push((owed, 0)),
                None => self.inbox.receipts.later(to, owed),
            }
        }
    }

    /// A reader moved past messages: record it, tell their senders.
    pub(crate) fn surface(&mut self, now: Now, token: Token, rows: Vec<SurfacedRow>) {
        for SurfacedRow { row, from, id, env_hash } in rows {
            self.write(Write::Surfaced { row, at: now.wall });
            self.inbox.surfaced(from, id);
            let owed = Owed { env_hash, id, status: ReceiptStatus::Surfaced, code: None };
            self.inbox.receipts.later(from, owed);
        }
        self.reply(token, Reply::Done);
    }

    /// A receipt for this node's messages came. False if it does not hold.
    pub(crate) fn receipted(&mut self, now: Now, signed: &SignedBytes, via: Via) -> bool {
        let Ok(receipt) = UnverifiedReceipt::parse(signed.stmt.clone(), signed.sig, &self.me.mesh) else {
            return false;
        };
        let Some(signer) = self.roster.member(receipt.by()) else { return false };
        let Ok(receipt) = receipt.verify(&signer.verify_key) else { return false };
        if receipt.to != self.me.id {
            return false;
        }
        self.heard_head(now, receipt.by, receipt.head, Some(receipt.ts));
        let mut again = Vec::new();
        for row in &receipt.rows {
            self.receipt_row(now, receipt.by, row, via, &mut again);
        }
        if !again.is_empty() {
            self.out(Output::Load(again.clone()));
            self.sealing_again(again);
        }
        true
    }

    fn receipt_row(
        &mut self,
        now: Now,
        by: PeerId,
        row: &ReceiptRow,
        via: Via,
        again: &mut Vec<crate::endpoint::Row>,
    ) {
        let code = || row.code.map_or_else(|| "unsaid".to_owned(), |code| code.to_string());
        let Some((found, item)) = self.delivery.find(&row.env_hash).filter(|(_, item)| item.to == by) else {
            return self.late_receipt(now, by, row);
        };
        let (id, path, kid) = (item.id, item.path, item.kid);
        if let Via::Link(link) = via
            && let Some(since) = self.delivery.in_flight_since(found, via)
        {
            self.links.answered(link, now.monotonic.since(since));
        }
        // The receipt's own path is evidence; the last transmission may have been a copy.
        let came = if let Via::Link(_) = via { Some(PathKind::Direct) } else { path };
        match row.status {
            ReceiptStatus::Stored => {
                self.settle(now, found, OutboxState::Stored, came);
                self.delivery.remember(row.env_hash, Stored { row: found, id, to: by, path: came });
            }
            ReceiptStatus::Surfaced => self.settle(now, found, OutboxState::Surfaced, came),
            ReceiptStatus::Rejected => self.fail(now, found, OutboxState::Rejected(code())),
            ReceiptStatus::Retry if row.code == Some(ReceiptCode::UNKNOWN_KID) => {
                self.peers.entry(by).lost(kid);
                again.push(found);
            }
            // It did not fit this time, by whatever path: not at once again.
            ReceiptStatus::Retry => {
                self.peers.pause(by, now.monotonic + RETRY_PAUSE);
                self.no_longer_accepted(now, found);
                self.delivery.give_back(found);
            }
        }
    }

    /// A word on a row that is settled here already.
    fn late_receipt(&mut self, now: Now, by: PeerId, row: &ReceiptRow) {
        let state = match row.status {
            ReceiptStatus::Stored => OutboxState::Stored,
            ReceiptStatus::Surfaced => OutboxState::Surfaced,
            ReceiptStatus::Retry if row.code == Some(ReceiptCode::UNKNOWN_KID) => {
                return self.signal_unread(now, by, &row.env_hash);
            }
            ReceiptStatus::Rejected | ReceiptStatus::Retry => return,
        };
        match (self.delivery.stored(&row.env_hash).filter(|stored| stored.to == by), &state) {
            (Some(_), OutboxState::Stored) => {}
            (Some(stored), _) => {
                let (path, at) = (stored.path, now.wall);
                self.write(Write::OutboxState { row: stored.row, state: state.clone(), path, at });
                self.event(Event::Outbox { id: stored.id, to: by, state, path, at });
            }
            (None, _) => {
                let (id, env_hash, at) = (row.id, row.env_hash, now.wall);
                self.write(Write::LateReceipt { id, to: by, env_hash, state, at });
            }
        }
    }

    /// A signal was sealed to a key that its recipient does not hold: the next one takes another, and
    /// what the recipient may wait for is said again.
    fn signal_unread(&mut self, now: Now, by: PeerId, env_hash: &EnvHash) {
        let Some((_, kid)) = self.links.signal(env_hash).filter(|(to, _)| *to == by) else { return };
        self.peers.entry(by).lost(kid);
        self.delivery.conversation(by).unheard();
        self.tell_settled(now, by);
    }

    /// Whole rows from the store: bytes to transmit, or content to seal again.
    pub(crate) fn loaded(&mut self, now: Now, rows: Vec<OutboxRow>) {
        self.delivery.loaded(!rows.is_empty());
        for row in rows {
            if self.is_sealing_again(row.row) {
                self.seal_again(now, row);
            } else {
                self.delivery.warm(row.row, row.wire);
            }
        }
    }
}

/// Pause before a recipient that could not take a message is tried again.
const RETRY_PAUSE: Duration = Duration::from_secs(5);

/// Words of reading kept while their senders cannot be reached, about 100 bytes each. More are
/// dropped: the sender goes on saying `stored`, which is true.
pub(crate) const UNSENT_MAX: usize = 10_000;
