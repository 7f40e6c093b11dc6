//! Outbound flow. Functions stand in the order a message meets them.
//!
//! 1. [`Sends::queue`]     a program's request waits for the end of the batch
//! 2. [`Sends::lookups`]   an id chosen by the program is looked up: was it used before?
//! 3. `accept`             recipients, size and room are checked; a repeat is answered, not sent
//! 4. `enqueue`            a place in the conversation, the sealed bytes, one outbox row a recipient
//! 5. `route`              (route.rs) the best path there is carries those bytes
//! 6. `receipt`            (receipts.rs) a signed receipt from any path settles the row

mod ending;

use std::collections::{BTreeSet, VecDeque};

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use crate::body::{Body, CONTENT_TYPE_BYTES_MAX, Message, Place};
use crate::endpoint::{
    Endpoint, Event, Holding, OutboxRow, OutboxState, Refusal, Reply, RequeueRow, Row, Send, SentRow, Token,
    Write,
};
use crate::envelope::{Channel, Header, Priority, Recipient, SealedEnvelope, Suite};
use crate::id::{Fingerprint, Kid, MessageId, PeerId};
use crate::limits::{BODY_BYTES_MAX, MESSAGE_LIFE_MAX, OUTBOX_MESSAGES_MAX};
use crate::seal::seal;
use crate::time::{Now, UnixMs};
use crate::transcript::transcript;

/// Requests to send, in the order programs made them.
#[derive(Debug)]
pub(crate) struct Sends {
    waiting: VecDeque<Waiting>,
    next_row: Row,
    /// Rows requeued by this process: a second request, made before the first was on disk, would send
    /// the message twice.
    requeued: BTreeSet<Row>,
}

#[derive(Debug)]
struct Waiting {
    token: Token,
    what: What,
}

#[derive(Debug)]
enum What {
    Send { send: Send, found: Found },
    Again(Vec<RequeueRow>),
}

/// Whether the store was asked about a program's id.
#[derive(Debug)]
enum Found {
    NotAsked,
    Asked,
    Rows(Vec<SentRow>),
}

impl Sends {
    /// Rows are numbered from `next_row` on.
    pub(crate) fn new(next_row: Row) -> Self {
        Self { waiting: VecDeque::new(), next_row, requeued: BTreeSet::new() }
    }

    /// Remembers a row that was requeued. The store knows those that were requeued longest ago.
    fn requeue(&mut self, row: Row) {
        self.requeued.insert(row);
        if self.requeued.len() > REQUEUED_MAX {
            self.requeued.pop_first();
        }
    }

    pub(crate) fn holdings(&self) -> [Holding; 2] {
        [
            Holding::new("sends that wait for the store", self.waiting.len(), 0),
            Holding::new("requeued rows remembered", self.requeued.len(), REQUEUED_MAX),
        ]
    }

    /// A message, to be accepted at the end of the batch.
    pub(crate) fn queue(&mut self, token: Token, send: Send) {
        self.waiting.push_back(Waiting { token, what: What::Send { send, found: Found::NotAsked } });
    }

    /// Messages to be sent again under fresh ids.
    pub(crate) fn queue_again(&mut self, token: Token, rows: Vec<RequeueRow>) {
        self.waiting.push_back(Waiting { token, what: What::Again(rows) });
    }

    /// Ids that the store must be asked about, each once.
    pub(crate) fn lookups(&mut self) -> Vec<(Token, MessageId)> {
        let mut asked = Vec::new();
        for waiting in &mut self.waiting {
            if let What::Send { send: Send { id: Some(id), .. }, found } = &mut waiting.what
                && matches!(found, Found::NotAsked)
            {
                *found = Found::Asked;
                asked.push((waiting.token, *id));
            }
        }
        asked
    }

    /// The store's answer.
    pub(crate) fn found(&mut self, token: Token, rows: Vec<SentRow>) {
        for waiting in &mut self.waiting {
            if let What::Send { found, .. } = &mut waiting.what
                && waiting.token == token
            {
                *found = Found::Rows(rows);
                return;
            }
        }
    }

    fn row(&mut self) -> Row {
        let row = self.next_row;
        self.next_row += 1;
        row
    }
}

impl Endpoint {
    /// Accepts or refuses what programs asked for in this batch, in their order.
    pub(crate) fn accept_sends(&mut self, now: Now) {
        // Ids of this batch are not in the store yet, so a second use is found here.
        let mut batch: Vec<(MessageId, Vec<SentRow>)> = Vec::new();
        while let Some(Waiting { token, what }) = self.sends.waiting.pop_front() {
            match what {
                What::Again(rows) => self.send_again(now, token, rows),
                What::Send { mut send, found } => {
                    let mut known = if let Found::Rows(rows) = found { rows } else { Vec::new() };
                    if let Some(id) = send.id {
                        known.extend(
                            batch.iter().filter(|(used, _)| *used == id).flat_map(|(_, rows)| rows.clone()),
                        );
                    }
                    send.to.sort_unstable();
                    send.to.dedup();
                    match self.accept(now, send, &known) {
                        Ok((id, rows, repeated)) => {
                            let recipients = rows.iter().map(|row| (row.to, row.state.clone())).collect();
                            batch.push((id, rows));
                            self.reply(token, Reply::Sent { id, recipients, repeated });
                        }
                        Err(refusal) => self.refuse(token, refusal),
                    }
                }
            }
        }
    }

    fn accept(
        &mut self,
        now: Now,
        send: Send,
        known: &[SentRow],
    ) -> Result<(MessageId, Vec<SentRow>, bool), Refusal> {
        let id = send.id.unwrap_or_else(|| self.mint_id(now));
        if !known.is_empty() {
            let same = known.len() == send.to.len()
                && known.iter().all(|row| {
                    !row.retired
                        && send.to.contains(&row.to)
                        && row.fp == self.fingerprint(&row.to, &id, &send.message)
                });
            return if same { Ok((id, known.to_vec(), true)) } else { Err(Refusal::Conflict(id)) };
        }
        self.check(now, &send)?;
        let exp = now.wall.plus(send.life.min(MESSAGE_LIFE_MAX));
        let mut rows = Vec::with_capacity(send.to.len());
        for to in send.to {
            rows.push(self.enqueue(now, id, to, send.message.clone(), send.priority, exp)?);
        }
        Ok((id, rows, false))
    }

    /// What can be refused before anything is written.
    fn check(&mut self, now: Now, send: &Send) -> Result<(), Refusal> {
        if self.is_revoked(&self.me.id) || self.roster.member(&self.me.id).is_none() {
            return Err(Refusal::NotAMember);
        }
        if send.to.is_empty() {
            return Err(Refusal::NotFound("no recipient was named".to_owned()));
        }
        for to in &send.to {
            if *to == self.me.id {
                return Err(Refusal::ToSelf);
            }
            if self.roster.member(to).is_none() {
                return Err(Refusal::UnknownPeer(*to));
            }
            if self.is_revoked(to) {
                return Err(Refusal::Revoked(*to));
            }
            self.check_prekey(now, *to);
            if !self.peers.has_key(to, &self.roster, now) {
                return Err(no_key(to));
            }
            if self.chain.holds(to) {
                let text = format!(
                    "{to} joined by an invite that had ended, and no other member has confirmed it yet"
                );
                return Err(Refusal::Denied { code: "held".to_owned(), text });
            }
        }
        let size = send.message.content.len();
        if size > BODY_BYTES_MAX {
            return Err(Refusal::TooLarge { size, limit: BODY_BYTES_MAX });
        }
        if send.message.content_type.is_empty() || send.message.content_type.len() > CONTENT_TYPE_BYTES_MAX {
            let size = send.message.content_type.len();
            return Err(Refusal::TooLarge { size, limit: CONTENT_TYPE_BYTES_MAX });
        }
        if self.delivery.len() + send.to.len() > OUTBOX_MESSAGES_MAX {
            return Err(Refusal::OutboxFull { limit: "100,000 undelivered messages" });
        }
        if self.delivery.is_full(size.saturating_mul(send.to.len())) {
            return Err(Refusal::OutboxFull { limit: "256 MiB of undelivered messages" });
        }
        Ok(())
    }

    /// Gives a message its place, seals it once, and writes its row.
    fn enqueue(
        &mut self,
        now: Now,
        id: MessageId,
        to: PeerId,
        message: Message,
        priority: Priority,
        exp: UnixMs,
    ) -> Result<SentRow, Refusal> {
        let fp = self.fingerprint(&to, &id, &message);
        let (seq, lowest) = self.delivery.conversation(to).take();
        let place = Place { generation: self.me.generation, seq, lowest };
        let body = Body { message, place: Some(place), prekey: self.keyring.current(now.wall).cloned() };
        let sealed = match self.seal_dm(now, id, to, &body, fp, priority, exp) {
            Ok(sealed) => sealed,
            Err(refusal) => {
                self.delivery.conversation(to).give_back(seq);
                return Err(refusal);
            }
        };
        let row = OutboxRow {
            row: self.sends.row(),
            id,
            to,
            fp,
            generation: self.me.generation,
            seq,
            message: body.message,
            priority,
            ts: now.wall,
            exp,
            wire: sealed.wire,
            env_hash: sealed.env_hash,
            kid: sealed.kid,
            seals: 1,
            state: OutboxState::Pending,
            path: None,
        };
        self.delivery.add(&row);
        self.write(Write::Outbox(row));
        self.connect_soon(now, to);
        Ok(SentRow { to, fp, state: OutboxState::Pending, retired: false })
    }

    /// Seals a body to a member under its best known key.
    #[expect(clippy::too_many_arguments, reason = "each is one field of the header")]
    pub(crate) fn seal_dm(
        &mut self,
        now: Now,
        id: MessageId,
        to: PeerId,
        body: &Body,
        fp: Fingerprint,
        priority: Priority,
        exp: UnixMs,
    ) -> Result<SealedEnvelope, Refusal> {
        self.check_prekey(now, to);
        let sender = self
            .peers
            .entry(to)
            .sender(&to, &self.roster, now, &mut self.entropy)
            .ok_or_else(|| no_key(&to))?;
        let header = Header {
            suite: Suite::Box,
            mesh: self.me.mesh,
            channel: Channel::Dm,
            from: self.me.id,
            auth: None,
            to: Recipient::Peer(to),
            id,
            ts: now.wall,
            exp,
            fp,
            head: self.roster.head(),
            spk: None,
            kid: Kid([0; 16]),
            nonce: [0; 24],
            priority,
            stream: None,
            rpc: None,
            group: None,
        };
        let entropy = self.entropy.bytes();
        seal(header, &body.encode(), &sender, &entropy, &self.me.key)
            .map_err(|large| Refusal::TooLarge { size: large.size, limit: large.limit })
    }

    /// The recipient does not hold the key, or the clock that sealed it was wrong: seal the same
    /// message once more, same id and fp.
    pub(crate) fn seal_again(&mut self, now: Now, row: OutboxRow) {
        let Some(item) = self.delivery.item(row.row) else { return };
        if item.seals >= SEALS_MAX {
            self.fail(now, row.row, OutboxState::Dead("unknown-kid".to_owned()));
            return;
        }
        let seals = item.seals + 1;
        let lowest = self.delivery.conversation(row.to).lowest();
        let place = Place { generation: row.generation, seq: row.seq, lowest };
        let prekey = self.keyring.current(now.wall).cloned();
        let body = Body { message: row.message, place: Some(place), prekey };
        // No message outlives its longest life, whatever the clock said when it was written.
        let exp = row.exp.min(now.wall.plus(MESSAGE_LIFE_MAX));
        match self.seal_dm(now, row.id, row.to, &body, row.fp, row.priority, exp) {
            Ok(SealedEnvelope { wire, env_hash, kid }) => {
                self.write(Write::Reseal { row: row.row, wire: wire.clone(), env_hash, kid, seals });
                self.no_longer_accepted(now, row.row);
                self.delivery.resealed(row.row, wire, env_hash, kid, now.wall);
            }
            Err(_) => self.fail(now, row.row, OutboxState::Dead("unknown-kid".to_owned())),
        }
    }

    /// A fresh id: 48 bits of Unix milliseconds, then 80 random ones. Ids that ascend let a store append to
    /// its index where random ones would scatter over it, which halves the cost of a row at both ends; `ts`
    /// says the time anyway.
    pub(crate) fn mint_id(&mut self, now: Now) -> MessageId {
        let mut id = [0; 16];
        id[..6].copy_from_slice(&now.wall.0.to_be_bytes()[2..]);
        id[6..].copy_from_slice(&self.entropy.bytes::<10>());
        MessageId(id)
    }

    /// What the coordinator had of a row is gone from there, or opens for nobody: after a restart it must
    /// be found waiting.
    pub(crate) fn no_longer_accepted(&mut self, now: Now, row: Row) {
        let Some(item) = self.delivery.item(row).filter(|_| self.delivery.is_accepted(row)) else { return };
        let (id, to, path) = (item.id, item.to, item.path);
        let (state, at) = (OutboxState::Pending, now.wall);
        self.write(Write::OutboxState { row, state: state.clone(), path, at });
        self.event(Event::Outbox { id, to, state, path, at });
    }

    /// Mints fresh ids for rows that ended undelivered, and retires theirs.
    fn send_again(&mut self, now: Now, token: Token, rows: Vec<RequeueRow>) {
        let mut fresh = Vec::with_capacity(rows.len());
        for RequeueRow { row, id: _, to, message, priority, life } in rows {
            if self.sends.requeued.contains(&row) {
                let refusal = Refusal::NotFound("the message was requeued already".to_owned());
                return self.refuse(token, refusal);
            }
            let id = self.mint_id(now);
            let send = Send { id: None, to: vec![to], message, priority, life };
            let exp = now.wall.plus(life.min(MESSAGE_LIFE_MAX));
            let recorded = self
                .check(now, &send)
                .and_then(|()| self.enqueue(now, id, to, send.message, priority, exp).map(drop));
            match recorded {
                Ok(()) => {
                    self.write(Write::Retire { row, replaced_by: id });
                    self.sends.requeue(row);
                    fresh.push(id);
                }
                Err(refusal) if fresh.is_empty() => return self.refuse(token, refusal),
                Err(_) => break,
            }
        }
        self.reply(token, Reply::Requeued(fresh));
    }

    /// fp = HMAC(local secret, T("req", mesh, from, channel, to, id, body)): equal across re-seals.
    fn fingerprint(&self, to: &PeerId, id: &MessageId, message: &Message) -> Fingerprint {
        let content = Body { message: message.clone(), place: None, prekey: None }.encode();
        let channel = [Channel::Dm as u8];
        let request = transcript("req", &[&self.me.mesh.0, &self.me.id.0, &channel, &to.0, &id.0, &content]);
        let mut mac =
            Hmac::<Sha256>::new_from_slice(&self.me.fp_secret).expect("HMAC takes keys of any length");
        mac.update(&request);
        Fingerprint(mac.finalize().into_bytes().into())
    }
}

fn no_key(to: &PeerId) -> Refusal {
    Refusal::NotFound(format!("no key of {to} is known to seal to; it must come online once"))
}

/// Rows remembered as requeued: far more than one answer of the store lists, which is as stale as a second
/// request can be.
const REQUEUED_MAX: usize = 4_096;

/// Sealings of one message before it is dead: the weekly key, the first key, and three weeks' worth.
const SEALS_MAX: u32 = 5;
