//! What a welcomed coordinator says, and what a node asks of it.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;

use super::{Asked, PAUSE_MAX, SIGNAL_REST};
use crate::chain::Pending;
use crate::delivery::Via;
use crate::endpoint::{Endpoint, Event, OutboxState, Output, PathKind, Refusal, Reply, Token, Write};
use crate::id::{EnvHash, InviteLookup, PeerId};
use crate::time::{Now, UnixMs};
use crate::wire::{Claim, ToCoordinator, ToNode};

impl Endpoint {
    /// Frames of a welcomed coordinator.
    pub(super) fn served(&mut self, now: Now, frame: ToNode) {
        if is_answer(&frame) {
            self.uplink.answered_at = now.monotonic;
        }
        match frame {
            ToNode::Accepted { env_hashes, commit } => {
                self.kept_by(commit);
                self.accepted(now, &env_hashes);
            }
            ToNode::Refused { env_hash, code, retry_ms } => self.refused(now, &env_hash, code, retry_ms),
            ToNode::Deliver { claim, queued, envelope } => self.mail_from_uplink(claim, queued, envelope),
            ToNode::Receipt { claim, receipt } => {
                if !self.receipted(now, &receipt, Via::Uplink) {
                    self.rejected("signature", None);
                }
                self.inbox.receipts.drop_claim(claim);
            }
            ToNode::Expired { claim, env_hash } => self.queue_expired(now, claim, &env_hash),
            ToNode::Entries { from, entries, size } => {
                self.uplink.log_answered();
                self.entries(now, from, &entries, size);
            }
            ToNode::Appended { request, entry } => {
                if let Some(Asked::Append(pending)) = self.uplink.answered(request) {
                    self.appended(now, pending, &entry);
                }
            }
            ToNode::Conflict { request, size, .. } => {
                if let Some(Asked::Append(pending)) = self.uplink.answered(request) {
                    self.append_later(now, pending);
                    self.fetch_log(now, size);
                    // The entry that was in the way may have come before this word.
                    if size <= self.roster.size() {
                        self.appends_again(now);
                    }
                }
            }
            ToNode::Failed { request, code, text } => match self.uplink.answered(request) {
                Some(Asked::Append(pending)) => self.refuse(pending.token, Refusal::Denied { code, text }),
                Some(Asked::Plain { token }) => self.refuse(token, Refusal::Denied { code, text }),
                None => {}
            },
            ToNode::Done { request, commit } => {
                self.kept_by(commit);
                if let Some(Asked::Plain { token }) = self.uplink.answered(request) {
                    self.reply(token, Reply::Done);
                }
            }
            ToNode::Prekeys { prekeys } => {
                for prekey in prekeys {
                    self.hear_of_prekey(now, prekey);
                }
            }
            ToNode::Presence { complete, peers } => self.presence(now, complete, &peers),
            ToNode::Challenge { .. } | ToNode::Welcome { .. } | ToNode::LogWanted { .. } => {
                self.drop_uplink(now, "the coordinator greeted twice");
            }
            ToNode::GoingAway { .. } | ToNode::Error { .. } | ToNode::Ping { .. } | ToNode::Pong { .. } => {}
        }
    }

    fn accepted(&mut self, now: Now, env_hashes: &[EnvHash]) {
        for env_hash in env_hashes {
            let Some((row, item)) = self.delivery.find(env_hash) else { continue };
            let (id, to, path) = (item.id, item.to, item.path);
            let relay = if self.peers.is_online(&to) { PathKind::Relay } else { PathKind::Queue };
            let path = if path == Some(PathKind::Direct) { Some(relay) } else { path };
            if self.delivery.accepted(row, relay) {
                let (state, at) = (OutboxState::Accepted, now.wall);
                self.write(Write::OutboxState { row, state: state.clone(), path, at });
                self.event(Event::Outbox { id, to, state, path, at });
            }
        }
    }

    fn refused(&mut self, now: Now, env_hash: &EnvHash, code: String, retry_ms: u64) {
        let until = now.monotonic + Duration::from_millis(retry_ms).min(PAUSE_MAX);
        let Some((row, item)) = self.delivery.find(env_hash) else {
            // A signal is not kept; what the recipient may wait for is said again after the pause. One
            // that is refused for good would be refused again at once.
            if let Some((to, _)) = self.links.signal(env_hash) {
                self.delivery.conversation(to).unheard();
                self.peers.pause_relay(to, until.max(now.monotonic + SIGNAL_REST));
            }
            return;
        };
        let to = item.to;
        if retry_ms == 0 {
            return self.fail(now, row, OutboxState::Rejected(code));
        }
        // Another copy of it is there already.
        if self.delivery.is_accepted(row) {
            return;
        }
        if code == "recipient-full" {
            self.peers.pause_relay(to, until);
        } else {
            self.uplink.paused_until = Some(until);
        }
        self.delivery.give_back(row);
    }

    fn queue_expired(&mut self, now: Now, claim: Claim, env_hash: &EnvHash) {
        self.inbox.receipts.drop_claim(claim);
        if let Some((row, _)) = self.delivery.find(env_hash) {
            self.fail(now, row, OutboxState::Expired("expired-in-queue".to_owned()));
        }
    }

    fn presence(&mut self, now: Now, complete: bool, peers: &[(PeerId, bool)]) {
        let mut changes: BTreeMap<PeerId, bool> = BTreeMap::new();
        if complete {
            self.peers.forget_strangers();
            changes.extend(self.peers.all_online().map(|id| (id, false)));
        }
        changes.extend(peers.iter().copied());
        for (peer, online) in changes {
            if self.roster.member(&peer).is_none() {
                self.peers.tell_stranger(peer, online);
            } else if peer != self.me.id {
                self.told_of(now, peer, online);
            }
        }
    }

    /// A member is there, or went.
    pub(crate) fn told_of(&mut self, now: Now, peer: PeerId, online: bool) {
        if self.peers.tell_online(peer, online) {
            self.event(Event::Presence { peer, online });
        }
        if online {
            self.links.revive(&peer);
            self.tell_settled(now, peer);
        }
        if online && self.delivery.is_open(&peer) {
            self.connect_soon(now, peer);
        }
    }

    /// Sends an append on its way.
    pub(crate) fn ask_append(&mut self, now: Now, pending: Pending, entry: Bytes) {
        let request = self.uplink.ask(now.monotonic, Asked::Append(pending));
        self.out(Output::SendUplink(ToCoordinator::LogAppend { request, entry }.encode()));
    }

    pub(crate) fn put_invite(
        &mut self,
        now: Now,
        token: Token,
        lookup: InviteLookup,
        blob: Bytes,
        (exp, uses): (UnixMs, u64),
    ) {
        if !self.uplink.is_ready() {
            return self.refuse(token, Refusal::CoordinatorAway);
        }
        let request = self.uplink.ask(now.monotonic, Asked::Plain { token });
        let frame = ToCoordinator::InvitePut { request, lookup, blob, exp, uses };
        self.out(Output::SendUplink(frame.encode()));
    }

    pub(crate) fn delete_invite(&mut self, now: Now, token: Token, lookup: InviteLookup) {
        if !self.uplink.is_ready() {
            return self.refuse(token, Refusal::CoordinatorAway);
        }
        let request = self.uplink.ask(now.monotonic, Asked::Plain { token });
        self.out(Output::SendUplink(ToCoordinator::InviteDelete { request, lookup }.encode()));
    }
}

/// Whether the frame is said only to who asked. News come unasked, entries either way: they bring the log on.
fn is_answer(frame: &ToNode) -> bool {
    matches!(
        frame,
        ToNode::Accepted { .. }
            | ToNode::Refused { .. }
            | ToNode::Entries { .. }
            | ToNode::Appended { .. }
            | ToNode::Conflict { .. }
            | ToNode::Failed { .. }
            | ToNode::Done { .. }
    )
}
