//! Lies: what the coordinator says that is not so.

use std::time::Duration;

use bytes::Bytes;
use peerloom_proto::wire::{SignedBytes, ToNode};
use peerloom_proto::{
    BoxSecretKey, EntryHash, Head, IdentityKey, Prekey, Role, SignedPrekey, SignedWelcome,
    UnverifiedEnvelope, Welcome,
};

use super::NO_CLAIM;
use crate::forge;
use crate::host::T0;
use crate::network::StreamId;
use crate::scenario::{Deed, Fault, Lie};
use crate::world::World;

impl World {
    /// Whether a lie of this kind is told to a node on this occasion.
    pub(super) fn lies(&mut self, node: usize, lie: Lie) -> bool {
        for number in &self.evil.active {
            let Some(Fault::Evil { deed: Deed::Lie, lies: Some(lies), towards, percent, .. }) =
                self.scenario.faults.get(*number)
            else {
                continue;
            };
            let concerned = lies.contains(&lie) && towards.as_ref().is_none_or(|nodes| nodes.contains(&node));
            if concerned && self.evil.chance.percent(*percent) {
                *self.tally.deeds.entry("lied").or_default() += 1;
                return true;
            }
        }
        false
    }

    /// What the hub said, with what is not so in it.
    pub(super) fn spoil(&mut self, node: usize, stream: StreamId, said: ToNode) -> ToNode {
        match said {
            ToNode::Deliver { claim, queued, envelope } => self.spoil_mail(node, claim, queued, envelope),
            ToNode::Receipt { mut claim, mut receipt } => {
                if self.lies(node, Lie::Receipts) {
                    receipt = forge::spoiled_receipt(receipt, &mut self.evil.chance);
                }
                if self.lies(node, Lie::Claims) {
                    claim = self.another_claim(node, claim);
                }
                ToNode::Receipt { claim, receipt }
            }
            ToNode::Entries { from, entries, size } if self.lies(node, Lie::Size) => {
                let size = size + 1 + self.evil.chance.below(1 << 40) as u64;
                ToNode::Entries { from, entries, size }
            }
            ToNode::Presence { complete, peers } if self.lies(node, Lie::Presence) => {
                let peers = peers.into_iter().map(|(peer, online)| (peer, !online)).collect();
                ToNode::Presence { complete, peers }
            }
            ToNode::Prekeys { prekeys } if self.lies(node, Lie::Prekeys) => {
                let forged = prekeys.iter().filter_map(|prekey| self.forged_prekey(prekey)).collect();
                ToNode::Prekeys { prekeys: forged }
            }
            ToNode::Welcome { welcome } if self.lies(node, Lie::Head) => {
                self.with_head(&welcome, |world, head| world.another_head(node, head))
            }
            ToNode::Accepted { env_hashes, commit } => {
                if self.lies(node, Lie::Entries)
                    && let Some(entries) = self.made_up_entry(node)
                {
                    self.evil_says(stream, entries.encode());
                }
                ToNode::Accepted { env_hashes, commit }
            }
            ToNode::Challenge { .. }
            | ToNode::Welcome { .. }
            | ToNode::LogWanted { .. }
            | ToNode::Refused { .. }
            | ToNode::Expired { .. }
            | ToNode::Entries { .. }
            | ToNode::Appended { .. }
            | ToNode::Conflict { .. }
            | ToNode::Failed { .. }
            | ToNode::Done { .. }
            | ToNode::Prekeys { .. }
            | ToNode::Presence { .. }
            | ToNode::GoingAway { .. }
            | ToNode::Error { .. }
            | ToNode::Ping { .. }
            | ToNode::Pong { .. } => said,
        }
    }

    /// An envelope that a node puts: true if it is thrown away and said to be kept.
    pub(super) fn pretends_to_keep(&mut self, node: usize, stream: StreamId, envelope: &Bytes) -> bool {
        let Ok(parsed) = UnverifiedEnvelope::parse(envelope.clone()) else { return false };
        let lies = self.lies(node, Lie::Accepted);
        if lies {
            let accepted = ToNode::Accepted { env_hashes: vec![parsed.env_hash()], commit: 0 };
            self.evil_says(stream, accepted.encode());
        }
        lies
    }

    fn spoil_mail(&mut self, node: usize, mut claim: u64, queued: bool, mut envelope: Bytes) -> ToNode {
        if self.lies(node, Lie::Recipients) {
            let other = self.evil.chance.below(self.nodes.len());
            if let Some(stream) = self.uplink_of(other) {
                let stray = ToNode::Deliver { claim: NO_CLAIM, queued, envelope: envelope.clone() };
                self.evil_says(stream, stray.encode());
            }
        }
        if self.lies(node, Lie::Envelopes) {
            envelope = forge::flip(&envelope, &mut self.evil.chance);
        }
        if self.lies(node, Lie::Senders) {
            let other = self.evil.chance.below(self.nodes.len());
            envelope = forge::as_if_from(&envelope, self.nodes[other].id).unwrap_or(envelope);
        }
        if self.lies(node, Lie::Claims) {
            claim = self.another_claim(node, claim);
        }
        ToNode::Deliver { claim, queued, envelope }
    }

    /// A claim of this node's that was given for something else, and this one for another time.
    fn another_claim(&mut self, node: usize, claim: u64) -> u64 {
        self.evil.claims.insert(node, claim).unwrap_or(NO_CLAIM)
    }

    /// A prekey whose member did not sign it, or which is nobody's.
    fn forged_prekey(&mut self, prekey: &SignedBytes) -> Option<SignedBytes> {
        let nobody = IdentityKey::from_seed(&self.evil.chance.bytes());
        let key = BoxSecretKey::from_bytes(self.evil.chance.bytes()).public();
        let said = Prekey::parse(&prekey.stmt).ok()?;
        if self.evil.chance.percent(50) {
            let own = SignedPrekey::sign(&nobody, said.mesh, key, said.nbf);
            return Some(SignedBytes { stmt: own.stmt().clone(), sig: own.sig() });
        }
        let stmt = Bytes::from(Prekey { key, ..said }.encode());
        let sig = nobody.sign("prekey", &[&stmt]);
        Some(SignedBytes { stmt, sig })
    }

    /// The same welcome for another head, under the coordinator's own signature.
    pub(super) fn with_head(
        &mut self,
        welcome: &SignedBytes,
        head: impl FnOnce(&mut Self, Head) -> Head,
    ) -> ToNode {
        let Ok(said) = Welcome::parse(&welcome.stmt) else {
            return ToNode::Welcome { welcome: welcome.clone() };
        };
        let head = head(self, said.head);
        let signed = SignedWelcome::sign(&self.mesh.coordinator, Welcome { head, ..said });
        ToNode::Welcome { welcome: SignedBytes { stmt: signed.stmt().clone(), sig: signed.sig() } }
    }

    /// A head of an earlier time, or of no log.
    fn another_head(&mut self, node: usize, head: Head) -> Head {
        let earlier = self.evil.chance.below(usize::try_from(head.size).unwrap_or(1)) as u64;
        let roster = self.nodes[node].process.as_ref().map(|process| process.endpoint.roster());
        match roster.and_then(|roster| roster.entry_hash(earlier)) {
            Some(hash) if self.evil.chance.percent(70) => Head { size: earlier + 1, hash },
            Some(_) | None => Head { size: head.size, hash: EntryHash(self.evil.chance.bytes()) },
        }
    }

    /// The next entry of the log, as nobody who may write it did: sequenced all the same.
    fn made_up_entry(&mut self, node: usize) -> Option<ToNode> {
        let nobody = IdentityKey::from_seed(&self.evil.chance.bytes());
        let author = if self.evil.chance.percent(50) { &self.mesh.coordinator } else { &nobody };
        let target = self.nodes[self.evil.chance.below(self.nodes.len())].id;
        let roster = self.nodes[node].process.as_ref()?.endpoint.roster();
        let entry = roster.role_change(author, target, Role::Admin, T0.plus(Duration::from_secs(1)));
        let entry = entry.sequence(&self.mesh.coordinator, &roster.mesh_id()).ok()?;
        let (from, size) = (roster.size(), roster.size() + 1);
        Some(ToNode::Entries { from, entries: vec![entry.encode().into()], size })
    }
}
