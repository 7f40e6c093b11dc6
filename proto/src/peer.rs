//! What this node knows of another member right now: presence, keys to seal to, the direct link.

mod prekeys;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::endpoint::LinkId;
use crate::entropy::Entropy;
use crate::id::{Kid, MeshId, PeerId};
use crate::key::{BoxPublicKey, BoxSecretKey};
use crate::limits::{SENDER_KEY_LIFE, SENDER_KEY_MESSAGES_MAX};
use crate::prekey::SignedPrekey;
use crate::roster::Roster;
use crate::seal::SenderBox;
use crate::time::{Monotonic, Now};
use crate::wire::SignedBytes;

/// One other member that this node has more to do with than to know that it is there.
#[derive(Debug, Default)]
pub(crate) struct Peer {
    /// The bound direct link.
    pub(crate) link: Option<LinkId>,
    /// The newest prekey it signed.
    pub(crate) prekey: Option<SignedPrekey>,
    /// Until then the relay is not tried: the coordinator asked for it.
    pub(crate) relay_paused_until: Option<Monotonic>,
    /// Until then no path is tried: the peer asked for it.
    pub(crate) paused_until: Option<Monotonic>,
    /// Why there is no direct link, for people.
    pub(crate) why_not_direct: Option<String>,
    /// Keys it said it does not hold.
    unknown_kids: BTreeSet<Kid>,
    sender: Option<Sender>,
}

/// A prekey that the store or the coordinator's directory gave.
#[derive(Debug)]
struct Unchecked {
    prekey: SignedBytes,
    /// Whether the store has it.
    is_stored: bool,
}

#[derive(Debug)]
struct Sender {
    shared: Arc<SenderBox>,
    made: Monotonic,
    uses: u32,
}

impl Peer {
    /// It has no secret for this key: seal to another one.
    pub(crate) fn lost(&mut self, kid: Kid) {
        if self.unknown_kids.len() >= UNKNOWN_KIDS_MAX {
            self.unknown_kids.clear();
        }
        self.unknown_kids.insert(kid);
        self.sender = None;
    }

    /// Keeps `prekey` if it lives longer than the one known. True if it was kept.
    pub(crate) fn learn(&mut self, prekey: SignedPrekey) -> bool {
        let newer = self.prekey.as_ref().is_none_or(|known| known.exp < prekey.exp);
        if newer {
            self.prekey = Some(prekey);
        }
        newer
    }

    /// The key to seal to: its prekey while that is valid, else the one in the log.
    fn best_key(&self, id: &PeerId, roster: &Roster, now: Now) -> Option<BoxPublicKey> {
        let weekly = self.prekey.as_ref().filter(|prekey| prekey.exp > now.wall).map(|prekey| prekey.key);
        let first = roster.member(id).and_then(|member| member.prekey);
        let expired = self.prekey.as_ref().map(|prekey| prekey.key);
        [weekly, first, expired].into_iter().flatten().find(|key| !self.unknown_kids.contains(&key.kid()))
    }

    /// The box to seal with; none if no key of this peer is known that it holds.
    pub(crate) fn sender(
        &mut self,
        id: &PeerId,
        roster: &Roster,
        now: Now,
        entropy: &mut Entropy,
    ) -> Option<Arc<SenderBox>> {
        let key = self.best_key(id, roster, now)?;
        let kid = key.kid();
        let usable = self.sender.as_ref().is_some_and(|sender| {
            sender.shared.kid() == kid
                && sender.uses < SENDER_KEY_MESSAGES_MAX
                && now.monotonic.since(sender.made) < SENDER_KEY_LIFE
        });
        if !usable {
            let secret = BoxSecretKey::from_bytes(entropy.bytes());
            let shared = Arc::new(SenderBox::new(&secret, &key));
            self.sender = Some(Sender { shared, made: now.monotonic, uses: 0 });
        }
        let sender = self.sender.as_mut()?;
        sender.uses += 1;
        Some(Arc::clone(&sender.shared))
    }
}

/// Everyone this node has to do with. Bounded by the roster. In a large mesh that is few of those who
/// are there, so presence and the directory's prekeys cost a record of their own only.
#[derive(Debug, Default)]
pub(crate) struct Peers {
    all: BTreeMap<PeerId, Peer>,
    /// Whose lease at the coordinator lives, as last told.
    online: BTreeSet<PeerId>,
    /// Whose leases live and whom the log, as far as it is known here, does not admit. A node that
    /// connects is told who is there before it has what was sequenced while it was away.
    strangers: BTreeSet<PeerId>,
    /// Prekeys that nobody checked yet. One is checked when something is to be sealed to its member,
    /// which to most members of a large mesh nothing ever is.
    unchecked: BTreeMap<PeerId, Unchecked>,
    /// Those that wait out a pause.
    paused: BTreeSet<PeerId>,
}

impl Peers {
    /// The peer's record, made on first use.
    pub(crate) fn entry(&mut self, id: PeerId) -> &mut Peer {
        self.all.entry(id).or_default()
    }

    /// The peer's record, if there is one.
    pub(crate) fn get(&self, id: &PeerId) -> Option<&Peer> {
        self.all.get(id)
    }

    /// Whether there is a key of `id` to seal to.
    pub(crate) fn has_key(&self, id: &PeerId, roster: &Roster, now: Now) -> bool {
        match self.get(id) {
            Some(peer) => peer.best_key(id, roster, now).is_some(),
            None => roster.member(id).is_some_and(|member| member.prekey.is_some()),
        }
    }

    /// Whether the peer's lease at the coordinator lives, as last told.
    pub(crate) fn is_online(&self, id: &PeerId) -> bool {
        self.online.contains(id)
    }

    /// The coordinator says whether a peer is there. True if that was not known.
    pub(crate) fn tell_online(&mut self, id: PeerId, online: bool) -> bool {
        if online { self.online.insert(id) } else { self.online.remove(&id) }
    }

    /// Whose leases live.
    pub(crate) fn all_online(&self) -> impl Iterator<Item = PeerId> {
        self.online.iter().copied()
    }

    /// The same of somebody who is no member yet.
    pub(crate) fn tell_stranger(&mut self, id: PeerId, online: bool) {
        if !online {
            self.strangers.remove(&id);
        } else if self.strangers.len() < STRANGERS_MAX {
            self.strangers.insert(id);
        }
    }

    /// Whether somebody who was admitted is there; asked once.
    pub(crate) fn take_stranger(&mut self, id: &PeerId) -> bool {
        self.strangers.remove(id)
    }

    /// All who are there are about to be named.
    pub(crate) fn forget_strangers(&mut self) {
        self.strangers.clear();
    }

    /// Without the coordinator nobody says who is there, and no relay has to rest.
    pub(crate) fn lose_coordinator(&mut self) {
        self.online.clear();
        self.strangers.clear();
        self.all.values_mut().for_each(|peer| peer.relay_paused_until = None);
    }

    /// Whether these very bytes were heard before.
    fn knows_prekey(&self, id: &PeerId, prekey: &SignedBytes) -> bool {
        let checked = self.get(id).and_then(|peer| peer.prekey.as_ref());
        checked.is_some_and(|known| *known.stmt() == prekey.stmt)
            || self.unchecked.get(id).is_some_and(|known| known.prekey == *prekey)
    }

    /// Takes a prekey of this peer that nobody checked yet.
    pub(crate) fn hear_of_prekey(&mut self, id: PeerId, prekey: SignedBytes, is_stored: bool) {
        self.unchecked.insert(id, Unchecked { prekey, is_stored });
    }

    /// Checks what nobody checked yet. Gives what the store should have.
    fn check_prekey(&mut self, id: PeerId, mesh: &MeshId, now: Now) -> Option<SignedBytes> {
        let Unchecked { prekey, is_stored } = self.unchecked.remove(&id)?;
        // An expired one is of no use: the coordinator's directory has the next.
        let checked = SignedPrekey::parse_verified(&prekey.stmt, &prekey.sig, mesh, now.wall).ok()?;
        let is_new = checked.member == id && self.entry(id).learn(checked);
        (is_new && !is_stored).then_some(prekey)
    }

    /// The relay is not tried for this peer until then.
    pub(crate) fn pause_relay(&mut self, id: PeerId, until: Monotonic) {
        self.paused.insert(id);
        self.entry(id).relay_paused_until = Some(until);
    }

    /// No path is tried for this peer until then.
    pub(crate) fn pause(&mut self, id: PeerId, until: Monotonic) {
        self.paused.insert(id);
        self.entry(id).paused_until = Some(until);
    }

    /// When the first pause ends.
    pub(crate) fn pauses_end(&self) -> Option<Monotonic> {
        let paused = self.paused.iter().filter_map(|id| self.all.get(id));
        paused.filter_map(|peer| peer.paused_until.max(peer.relay_paused_until)).min()
    }

    /// Ends pauses that are over; gives the peers that may be sent to again.
    pub(crate) fn end_pauses(&mut self, now: Monotonic) -> Vec<PeerId> {
        let mut over = Vec::new();
        for id in &self.paused {
            let Some(peer) = self.all.get_mut(id) else { continue };
            peer.relay_paused_until = peer.relay_paused_until.filter(|until| *until > now);
            peer.paused_until = peer.paused_until.filter(|until| *until > now);
            if peer.relay_paused_until.max(peer.paused_until).is_none() {
                over.push(*id);
            }
        }
        self.paused.retain(|id| !over.contains(id));
        over
    }

    /// Counts records.
    pub(crate) fn len(&self) -> usize {
        self.all.len()
    }

    /// Who is online.
    pub(crate) fn online(&self) -> usize {
        let linked = self.all.iter().filter(|(id, peer)| peer.link.is_some() && !self.online.contains(id));
        self.online.len() + linked.count()
    }
}

/// Strangers remembered, 32 bytes each: members admitted while this node was away, in a mesh that grows
/// fast. Further ones count as away until they come again.
const STRANGERS_MAX: usize = 4_096;

/// Keys a peer can disown before all get another chance: three weeks of prekeys and the first.
const UNKNOWN_KIDS_MAX: usize = 8;
