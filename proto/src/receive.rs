//! Inbound flow. Functions stand in the order an envelope meets them.
//!
//! 1. `take_envelope`      shape and signature; bytes become a `VerifiedEnvelope`
//! 2. [`Inbox::lookups`]   has this sender given us this id before?
//! 3. `read_mail`          what was seen is acknowledged again and dropped, the rest is opened
//! 4. `record`             inbox row, place in the conversation, all in this batch's transaction
//! 5. `acknowledge`        (receipts.rs) one signed receipt a sender and path, after the commit
//!
//! A step never calls an earlier one.

mod gaps;
mod reader;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::Bytes;

use reader::Reader;

use crate::body::{Body, SIGNAL_TYPE};
use crate::chain::Cause;
use crate::conversation::Inbound;
use crate::dedupe::Known;
use crate::endpoint::{Endpoint, Event, HeldRow, Holding, InboxRow, LinkId, PathKind, Row, SeenRow, Write};
use crate::envelope::{Channel, UnverifiedEnvelope};
use crate::id::{Generation, MessageId, PeerId};
use crate::limits::{CLOCK_SKEW_MAX, DEDUPE_GRACE, GENERATIONS_PER_SENDER_MAX, HELD_MESSAGES_MAX};
use crate::open::Opened;
use crate::receipt::{ReceiptCode, ReceiptStatus};
use crate::receipts::{Owed, Receipts, Source, UNSENT_MAX};
use crate::reject::Reject;
use crate::signal::Signal;
use crate::time::{Now, UnixMs};
use crate::verify::VerifiedEnvelope;
use crate::wire::Claim;

/// Mail on its way in, and the conversations it belongs to.
#[derive(Debug)]
pub(crate) struct Inbox {
    /// Verified, not yet looked up.
    waiting: Vec<Arrived>,
    asked: bool,
    /// Admitted lately: not on disk yet, or not worth a lookup.
    recent: BTreeMap<(PeerId, MessageId), SeenRow>,
    recent_order: VecDeque<(PeerId, MessageId)>,
    conversations: BTreeMap<(PeerId, Generation), Inbound>,
    /// Conversations whose place on disk is behind.
    moved: BTreeSet<(PeerId, Generation)>,
    pub(crate) receipts: Receipts,
    next_row: Row,
    next_position: u64,
    floor: UnixMs,
}

#[derive(Debug)]
struct Arrived {
    envelope: VerifiedEnvelope,
    source: Source,
    seen: Option<SeenRow>,
}

impl Inbox {
    /// From what the store holds.
    pub(crate) fn new(
        conversations: Vec<(PeerId, Generation, u64)>,
        held: Vec<HeldRow>,
        next_row: Row,
        next_position: u64,
        floor: UnixMs,
    ) -> Self {
        let mut conversations: BTreeMap<_, _> = conversations
            .into_iter()
            .map(|(from, generation, next)| ((from, generation), Inbound::resume(next)))
            .collect();
        for row in held {
            conversations.entry((row.from, row.generation)).or_default().hold(row.seq, row.row, row.exp);
        }
        forget_surplus(&mut conversations);
        Self {
            waiting: Vec::new(),
            asked: false,
            recent: BTreeMap::new(),
            recent_order: VecDeque::new(),
            conversations,
            moved: BTreeSet::new(),
            receipts: Receipts::default(),
            next_row,
            next_position,
            floor,
        }
    }

    /// Ids that the store must be asked about. What was admitted lately is known here.
    pub(crate) fn lookups(&mut self) -> Vec<(PeerId, MessageId)> {
        if self.asked || self.waiting.is_empty() {
            return Vec::new();
        }
        self.asked = true;
        self.waiting.iter().map(|arrived| arrived.key()).collect()
    }

    /// The store's answers, in the order asked.
    pub(crate) fn found(&mut self, rows: Vec<Option<SeenRow>>) {
        for (arrived, seen) in self.waiting.iter_mut().zip(rows) {
            arrived.seen = seen;
        }
    }

    /// The floor that may be written now, at most once an hour: ids that ended before it are
    /// forgotten, and mail that old is refused.
    pub(crate) fn raise_floor(&mut self, now: UnixMs) -> Option<UnixMs> {
        let floor = now.minus(DEDUPE_GRACE);
        if floor < self.floor.plus(FLOOR_EVERY) {
            return None;
        }
        self.floor = floor;
        Some(floor)
    }

    /// When the next gap is given up: as long as mail of that age is still taken in, what is missing
    /// may come.
    pub(crate) fn gap_ends(&self) -> Option<UnixMs> {
        let ends = self.conversations.values().filter_map(Inbound::gap_ends).min();
        ends.map(|ends| ends.plus(CLOCK_SKEW_MAX))
    }

    /// A reader moved past a message: repeats of it are answered as surfaced.
    pub(crate) fn surfaced(&mut self, from: PeerId, id: MessageId) {
        if let Some(seen) = self.recent.get_mut(&(from, id)) {
            seen.surfaced = true;
        }
    }

    fn admit(&mut self, key: (PeerId, MessageId), seen: SeenRow) {
        if self.recent_order.len() == RECENT_MAX
            && let Some(oldest) = self.recent_order.pop_front()
        {
            self.recent.remove(&oldest);
        }
        self.recent.insert(key, seen);
        self.recent_order.push_back(key);
    }

    pub(crate) fn holdings(&self, members: usize) -> [Holding; 6] {
        let lives = members * GENERATIONS_PER_SENDER_MAX;
        let held = self.conversations.values().map(Inbound::held).sum();
        [
            Holding::new("inbound conversations", self.conversations.len(), lives),
            Holding::new("messages held behind gaps", held, members * HELD_MESSAGES_MAX),
            Holding::new("ids admitted lately", self.recent.len(), RECENT_MAX),
            Holding::new("envelopes that wait for the store", self.waiting.len(), 0),
            Holding::new("receipts owed", self.receipts.owed(), 0),
            Holding::new("words of reading unsaid", self.receipts.unsaid(), UNSENT_MAX),
        ]
    }

    /// Whether a message would have to wait where too many of its sender wait.
    fn is_full(&self, (from, generation): (PeerId, Generation), seq: u64, lowest: u64) -> bool {
        let would_hold = match self.conversations.get(&(from, generation)) {
            Some(held) => held.would_hold(seq, lowest),
            None => Inbound::resume(lowest).would_hold(seq, lowest),
        };
        let held = || self.of_sender(from).map(|(_, held)| held.held()).sum::<usize>();
        would_hold && held() >= HELD_MESSAGES_MAX
    }

    /// Every life of one sender's counters.
    fn of_sender(&self, from: PeerId) -> impl Iterator<Item = (&(PeerId, Generation), &Inbound)> {
        let (first, last) = (Generation([0; Generation::LEN]), Generation([u8::MAX; Generation::LEN]));
        self.conversations.range((from, first)..=(from, last))
    }
}

/// Of a sender with too many lives of its counters those go in which nothing waits. The store remembers
/// more of them than memory needs to.
fn forget_surplus(conversations: &mut BTreeMap<(PeerId, Generation), Inbound>) {
    let mut lives: BTreeMap<PeerId, usize> = BTreeMap::new();
    for (from, _) in conversations.keys() {
        *lives.entry(*from).or_default() += 1;
    }
    conversations.retain(|(from, _), held| {
        let count = lives.entry(*from).or_default();
        let goes = *count > GENERATIONS_PER_SENDER_MAX && held.held() == 0;
        *count -= usize::from(goes);
        !goes
    });
}

impl Arrived {
    fn key(&self) -> (PeerId, MessageId) {
        (self.envelope.header().from, self.envelope.header().id)
    }
}

impl Endpoint {
    /// An envelope came through the coordinator.
    pub(crate) fn mail_from_uplink(&mut self, claim: Claim, queued: bool, wire: Bytes) {
        let path = if queued { PathKind::Queue } else { PathKind::Relay };
        if let Err((reject, from)) = self.take_envelope(wire, Source::Uplink { claim, path }) {
            // Unreadable mail would be offered again for ever; the coordinator alone is told.
            self.inbox.receipts.drop_claim(claim);
            self.rejected(&reject.reason(), from);
        }
    }

    /// An envelope came on a bound link: it must be from the identity the link is bound to.
    pub(crate) fn mail_from_link(&mut self, link: LinkId, bound: PeerId, wire: Bytes) -> Result<(), Reject> {
        let taken = self.take_envelope(wire, Source::Link { link, bound });
        taken.map_err(|(reject, from)| {
            self.rejected(&reject.reason(), from);
            reject
        })
    }

    fn take_envelope(&mut self, wire: Bytes, source: Source) -> Result<(), (Reject, Option<PeerId>)> {
        let envelope = UnverifiedEnvelope::parse(wire).map_err(|reject| (reject, None))?;
        if let Source::Link { bound, .. } = source
            && envelope.header().from != bound
        {
            return Err((Reject::AttestationMismatch, None));
        }
        let roster = &self.roster;
        let envelope = envelope
            .verify(&self.me.mesh, |from| roster.member(from).map(|member| &member.verify_key))
            .map_err(|reject| (reject, None))?;
        self.inbox.waiting.push(Arrived { envelope, source, seen: None });
        Ok(())
    }

    /// Judges and opens everything that was looked up.
    pub(crate) fn read_mail(&mut self, now: Now) {
        self.inbox.asked = false;
        for arrived in std::mem::take(&mut self.inbox.waiting) {
            let (from, id) = arrived.key();
            let env_hash = arrived.envelope.env_hash();
            let owed = |status, code| Owed { env_hash, id, status, code };
            let seen = self.inbox.recent.get(&(from, id)).cloned().or(arrived.seen);
            // A stranger's head proves nothing.
            if self.roster.member(&from).is_some() && !self.is_revoked(&from) {
                let header = arrived.envelope.header();
                self.heard_head(now, from, header.head, Some(header.ts));
            }
            if self.chain.holds(&from) {
                // No receipt: it stays where it is until someone vouches for its sender.
                self.rejected("held", Some(from));
                continue;
            }
            match arrived.envelope.admit(seen.as_ref()) {
                Err(Known::Repeated { surfaced, .. }) => {
                    let status = if surfaced { ReceiptStatus::Surfaced } else { ReceiptStatus::Stored };
                    self.inbox.receipts.owe(from, arrived.source, owed(status, None));
                }
                Err(Known::Conflict) => {
                    self.inbox.receipts.owe(
                        from,
                        arrived.source,
                        owed(ReceiptStatus::Rejected, ReceiptCode::of(&Reject::Conflict.reason())),
                    );
                    self.rejected("conflict", Some(from));
                    let text = format!("{from} used message id {id} for two different messages");
                    self.alarm(Cause::Conflict(from), text);
                }
                Ok(fresh) => {
                    let mut reader = Reader {
                        me: self.me.id,
                        roster: &self.roster,
                        revocations: &self.revocations,
                        keyring: &mut self.keyring,
                        now: now.wall,
                        floor: self.inbox.floor,
                    };
                    let read = fresh.open(&mut reader).and_then(|opened| {
                        let body = Body::decode(&opened.body)?;
                        if opened.header.channel == Channel::Dm {
                            Ok((opened, body))
                        } else {
                            Err(Reject::Channel)
                        }
                    });
                    match read {
                        Ok((opened, body)) => self.deliver(now, arrived.source, opened, body),
                        // By a clock that nobody vouches for nothing is too old: it stays where it is.
                        Err(Reject::Stale) if !self.uplink.vouches_for(now) => {
                            self.rejected(&Reject::Stale.reason(), Some(from));
                        }
                        Err(reject) => self.turn_away(from, arrived.source, owed, reject),
                    }
                }
            }
        }
        self.save_conversations();
    }

    fn turn_away(
        &mut self,
        from: PeerId,
        source: Source,
        owed: impl Fn(ReceiptStatus, Option<ReceiptCode>) -> Owed,
        reject: Reject,
    ) {
        let status =
            if reject == Reject::UnknownKid { ReceiptStatus::Retry } else { ReceiptStatus::Rejected };
        // A stranger learns nothing, not even that someone is here.
        if reject == Reject::NotAMember {
            self.inbox.receipts.drop_source(source);
        } else {
            self.inbox.receipts.owe(from, source, owed(status, ReceiptCode::of(&reject.reason())));
        }
        self.rejected(&reject.reason(), Some(from));
    }

    fn deliver(&mut self, now: Now, source: Source, opened: Opened, body: Body) {
        let from = opened.header.from;
        if let Some(prekey) = &body.prekey
            && self
                .peers
                .get(&from)
                .and_then(|peer| peer.prekey.as_ref())
                .is_none_or(|known| *known.stmt() != prekey.stmt)
        {
            self.learn_prekey(now, from, prekey);
        }
        if body.message.content_type == SIGNAL_TYPE {
            self.inbox.receipts.drop_source(source);
            match Signal::decode(&body.message.content) {
                Ok(signal) => self.signalled(now, from, source, signal),
                Err(error) => self.rejected(&error.to_string(), Some(from)),
            }
            return;
        }
        self.record(now, source, opened, body);
    }

    /// Step 10 of protocol.md §5: the row, and the rows that surface with it.
    fn record(&mut self, now: Now, source: Source, opened: Opened, body: Body) {
        let header = opened.header;
        let place = body.place;
        let (generation, seq, lowest) =
            place.map_or((Generation([0; 8]), 0, 0), |place| (place.generation, place.seq, place.lowest));
        if place.is_some() && self.inbox.is_full((header.from, generation), seq, lowest) {
            // No receipt: it stays with the coordinator, or with the sender, until there is room.
            return;
        }
        if place.is_some() {
            self.make_room((header.from, generation));
        }
        let row = self.inbox.next_row;
        self.inbox.next_row += 1;
        let released = match place {
            Some(_) => {
                let key = (header.from, generation);
                self.inbox.moved.insert(key);
                let conversation =
                    self.inbox.conversations.entry(key).or_insert_with(|| Inbound::resume(lowest));
                conversation.arrive(seq, lowest, row, header.exp)
            }
            None => vec![row],
        };
        // Rows released before this one take their positions first; this one is inserted with its own.
        let mut position = None;
        let mut later = Vec::new();
        for released_row in released {
            let at = self.inbox.next_position;
            self.inbox.next_position += 1;
            if released_row == row {
                position = Some(at);
            } else {
                later.push((released_row, at));
            }
        }
        self.write(Write::Inbox(InboxRow {
            row,
            position,
            from: header.from,
            id: header.id,
            fp: header.fp,
            env_hash: opened.env_hash,
            generation,
            seq,
            message: body.message,
            priority: header.priority,
            sent_at: header.ts,
            exp: header.exp,
            received_at: now.wall,
            path: source.path(),
        }));
        let mut events: Vec<(u64, Row)> = position.map(|at| (at, row)).into_iter().collect();
        for (released_row, at) in later {
            self.write(Write::Release { row: released_row, position: at });
            events.push((at, released_row));
        }
        events.sort_unstable();
        for (position, row) in events {
            self.event(Event::Inbox { position, row });
        }
        self.inbox.admit((header.from, header.id), SeenRow { fp: header.fp, surfaced: false });
        let owed =
            Owed { env_hash: opened.env_hash, id: header.id, status: ReceiptStatus::Stored, code: None };
        self.inbox.receipts.owe(header.from, source, owed);
    }

    pub(crate) fn rejected(&mut self, reason: &str, from: Option<PeerId>) {
        self.event(Event::Rejected { reason: reason.to_owned(), from });
    }
}

/// How often the floor moves: it costs a write.
const FLOOR_EVERY: std::time::Duration = std::time::Duration::from_secs(60 * 60);

/// Ids of admitted messages kept in memory. More than one batch and its retries; the store knows the
/// rest.
const RECENT_MAX: usize = 16_384;
