//! The node's machine for one mesh: inputs, outputs, one deadline. Pure: the host brings bytes, both
//! clocks and a seed; it owns sockets and disk.
//!
//! A batch goes like this. The host begins a [`Batch`], calls [`Endpoint::handle`] for each input that
//! has arrived, and lets the batch drain the machine: lookups among the outputs are answered at once with
//! further inputs, until there are none. Then its writes are committed in one transaction, and only then
//! is the rest carried out.
//!
//! This file dispatches. [`send`](crate::send) and [`receive`](crate::receive) narrate the two
//! directions; `uplink`, `links`, `chain` are the sub-machines they rest on.

mod batch;
mod holdings;
mod input;
mod output;
mod peer_view;
mod rows;
mod settings;

use std::collections::{BTreeSet, VecDeque};

pub use batch::{Batch, Fill, Lookups};
pub use holdings::Holding;
pub use input::{Input, LinkId, LogChange, OpenedLink, Request, Send, Token};
pub use output::{Event, Output, PingSample, Refusal, Reply, UplinkStatus, WebRtcAct, WebRtcPeer};
pub use peer_view::PeerView;
pub use rows::{
    HeldPrekey, HeldRow, InboxRow, OutboxRow, OutboxState, PathKind, RequeueRow, Row, SeenRow, SentRow,
    SurfacedRow, Write,
};
pub use settings::Settings;

use crate::chain::Chain;
use crate::delivery::Delivery;
use crate::entropy::Entropy;
use crate::id::{Generation, InstanceId, MeshId, PeerId};
use crate::identity::Origin;
use crate::key::IdentityKey;
use crate::keyring::Keyring;
use crate::links::Links;
use crate::paths::PathPolicies;
use crate::peer::Peers;
use crate::ping::Pings;
use crate::receive::Inbox;
use crate::revocation::{RevocationSet, SignedRevoke};
use crate::roster::Roster;
use crate::send::Sends;
use crate::time::{Monotonic, Now};
use crate::uplink::Uplink;

/// The node's machine for one mesh.
#[derive(Debug)]
pub struct Endpoint {
    pub(crate) me: Me,
    pub(crate) entropy: Entropy,
    pub(crate) roster: Roster,
    pub(crate) revocations: RevocationSet,
    pub(crate) keyring: Keyring,
    pub(crate) peers: Peers,
    pub(crate) uplink: Uplink,
    pub(crate) links: Links,
    pub(crate) policies: PathPolicies,
    pub(crate) chain: Chain,
    pub(crate) delivery: Delivery,
    pub(crate) sends: Sends,
    pub(crate) inbox: Inbox,
    pub(crate) pings: Pings,
    /// Rows that wait for their content to be sealed again.
    pub(crate) reseals: BTreeSet<Row>,
    outputs: VecDeque<Output>,
}

/// Who this node is.
#[derive(Debug)]
pub(crate) struct Me {
    pub(crate) mesh: MeshId,
    pub(crate) id: PeerId,
    pub(crate) key: IdentityKey,
    pub(crate) owner: Option<IdentityKey>,
    pub(crate) origin: Origin,
    pub(crate) instance: InstanceId,
    pub(crate) generation: Generation,
    pub(crate) fp_secret: [u8; 32],
}

/// How full the outbox is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OutboxCounts {
    /// Neither at the coordinator nor at the recipient.
    pub pending: usize,
    /// At the coordinator, not yet at the recipient.
    pub accepted: usize,
}

impl Endpoint {
    /// Rebuilds the machine. Nothing is transmitted before the first `handle`.
    pub fn new(settings: Settings, now: Now) -> Self {
        let mesh = settings.roster.mesh_id();
        let me = Me {
            mesh,
            id: settings.member.id(),
            key: settings.member,
            owner: settings.owner,
            origin: settings.origin,
            instance: settings.instance,
            generation: settings.generation,
            fp_secret: settings.fp_secret,
        };
        let mut revocations = RevocationSet::default();
        for revoke in &settings.revocations {
            // What was admitted to the store once may have lapsed since: then it stays out.
            if let Ok(revoke) = SignedRevoke::parse_verified(&revoke.stmt, &revoke.sig, &mesh) {
                revocations.insert(revoke, &settings.roster).unwrap_or(false);
            }
        }
        let mut peers = Peers::default();
        for (peer, prekey) in settings.peer_prekeys {
            peers.hear_of_prekey(peer, prekey, true);
        }
        let mut delivery = Delivery::default();
        for (peer, next) in settings.next_seqs {
            delivery.conversation(peer).resume_untold(next);
        }
        settings.outbox.iter().for_each(|row| delivery.restore(row));
        let inbox = Inbox::new(
            settings.conversations,
            settings.held,
            settings.next_inbox_row,
            settings.next_position,
            settings.floor,
        );
        Self {
            me,
            entropy: Entropy::from_seed(settings.seed),
            roster: settings.roster,
            revocations,
            keyring: Keyring::new(settings.prekeys),
            peers,
            uplink: Uplink::new(now.monotonic, settings.coordinator_mark),
            links: Links::default(),
            policies: settings.policies,
            chain: Chain::new(settings.on_hold),
            delivery,
            sends: Sends::new(settings.next_outbox_row),
            inbox,
            pings: Pings::default(),
            reseals: BTreeSet::new(),
            outputs: VecDeque::new(),
        }
    }

    /// Takes one input. Follow a batch of calls by [`finish_batch`](Self::finish_batch).
    pub fn handle(&mut self, now: Now, input: Input) {
        match input {
            Input::Timeout => self.pass_time(now),
            Input::Stop => self.say_goodbye(),
            Input::Request { token, request } => self.request(now, token, request),
            Input::Sent { token, rows } => self.sends.found(token, rows),
            Input::Seen { rows } => self.inbox.found(rows),
            Input::Loaded(rows) => self.loaded(now, rows),
            Input::Entries { from, entries } => self.return_entries(from, entries),
            Input::UplinkOpened => self.uplink_opened(now),
            Input::UplinkFrame(frame) => self.uplink_frame(now, &frame),
            Input::UplinkClosed(why) => self.uplink_closed(now, why),
            Input::LinkOpened(opened) => self.link_opened(now, opened),
            Input::LinkFrame(link, frame) => self.link_frame(now, link, &frame),
            Input::LinkRtt(link, rtt_us) => self.links.measured(link, rtt_us),
            Input::LinkClosed(link) => self.link_closed(now, link),
            Input::DialFailed(conn, why) => self.dial_failed(now, conn, &why),
            Input::DirectReady { means, candidates, stun } => {
                self.direct_ready(now, means, candidates, &stun)
            }
            Input::Datagram { socket, from, datagram } => self.datagram(now, socket, from, &datagram),
            Input::Woke => self.woke(now),
            Input::SocketsOpened { conn, sockets } => self.sockets_opened(now, conn, sockets),
        }
    }

    /// Ends a batch: asks for lookups, or, when none are open, seals, opens, acknowledges and
    /// transmits.
    pub fn finish_batch(&mut self, now: Now) {
        let asked = self.ask();
        if asked {
            return;
        }
        self.accept_sends(now);
        self.read_mail(now);
        self.route(now);
        self.acknowledge(now);
        self.keep_prekeys(now);
    }

    /// The next thing to do.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// When to call `handle(now, Input::Timeout)` at the latest.
    pub fn poll_timeout(&self, now: Now) -> Option<Monotonic> {
        let walls = [self.delivery.next_expiry(), self.inbox.gap_ends()];
        let walls = walls.into_iter().flatten().map(|at| now.monotonic + at.since(now.wall));
        let monotonic = [
            self.uplink.deadline(),
            self.answer_due(),
            self.links.deadline(),
            self.pings.deadline(),
            self.chain.deadline(),
            // Without a relay there is nowhere to copy to; its return is an input.
            self.uplink.is_ready().then(|| self.delivery.late_at()).flatten(),
            self.uplink.is_ready().then(|| self.links.suspicion_at(&self.delivery)).flatten(),
            self.lost_deadline(),
            self.peers.pauses_end(),
            self.delivery.waits_for_store().then(|| now.monotonic + STORE_RETRY),
        ];
        walls.chain(monotonic.into_iter().flatten()).min()
    }

    /// The roster as replayed so far.
    pub fn roster(&self) -> &Roster {
        &self.roster
    }

    /// Whether this identity was removed, by the log or by a revocation met off it.
    pub fn is_revoked(&self, peer: &PeerId) -> bool {
        self.revocations.is_revoked(peer, &self.roster)
    }

    /// The uplink as people see it.
    pub fn uplink_status(&self) -> &UplinkStatus {
        self.uplink.status()
    }

    /// How far this machine's wall clock is from the coordinator's, milliseconds, at the last hello.
    pub fn clock_skew_ms(&self) -> Option<i64> {
        self.uplink.skew_ms()
    }

    /// How full the outbox is.
    pub fn outbox_counts(&self) -> OutboxCounts {
        let pending = self.delivery.unaccepted();
        OutboxCounts { pending, accepted: self.delivery.len() - pending }
    }

    /// Members and sessions that can be reached now, this node not counted.
    pub fn peers_online(&self) -> usize {
        self.peers.online()
    }

    /// Grows whenever a reason for not being direct changed: no event tells of that.
    pub fn reasons_changed(&self) -> u64 {
        self.links.reasons
    }

    /// Who this node is.
    pub fn member(&self) -> PeerId {
        self.me.id
    }

    fn request(&mut self, now: Now, token: Token, request: Request) {
        match request {
            Request::Send(send) => self.sends.queue(token, send),
            Request::Surface(rows) => self.surface(now, token, rows),
            Request::Abort(id) => self.abort(now, token, id),
            Request::Requeue(rows) => self.sends.queue_again(token, rows),
            Request::Ping(peer) => self.ping(now, token, peer),
            Request::Connect(peer) if self.roster.active(&peer).is_none() => {
                self.refuse(token, Refusal::UnknownPeer(peer));
            }
            Request::Connect(peer) => {
                if self.peers.get(&peer).is_none_or(|peer| peer.link.is_none()) {
                    self.connect(now, peer);
                }
                self.reply(token, Reply::Done);
            }
            Request::Append(change) => self.append(now, token, change),
            Request::PutInvite { lookup, blob, exp, uses } => {
                self.put_invite(now, token, lookup, blob, (exp, uses))
            }
            Request::DeleteInvite(lookup) => self.delete_invite(now, token, lookup),
        }
    }

    /// Asks the store for what the batch needs. True if anything was asked.
    fn ask(&mut self) -> bool {
        let mut asked = false;
        for (token, id) in self.sends.lookups() {
            self.out(Output::LookupSent { token, id });
            asked = true;
        }
        let keys = self.inbox.lookups();
        if !keys.is_empty() {
            self.out(Output::LookupSeen(keys));
            asked = true;
        }
        asked
    }

    fn pass_time(&mut self, now: Now) {
        self.delivery.loaded(true);
        for peer in self.peers.end_pauses(now.monotonic) {
            self.tell_settled(now, peer);
        }
        self.uplink_timeout(now);
        self.links_timeout(now);
        self.pings_timeout(now);
        self.chain_timeout(now);
        self.expire(now);
        self.release_gaps(now);
    }

    /// Mints the next prekey in time; forgets secrets and ids whose time is over.
    fn keep_prekeys(&mut self, now: Now) {
        if let Some(minted) = self.keyring.rotate(now.wall, self.me.mesh, &self.me.key, &mut self.entropy) {
            self.write(Write::Prekey(minted));
            self.publish_prekey(now);
        }
        // Only while the coordinator vouches for this clock: one that jumped ahead would throw away
        // secrets that mail is sealed to, and a floor from the future would refuse honest mail for ever.
        if !self.uplink.vouches_for(now) {
            return;
        }
        for kid in self.keyring.retire(now.wall) {
            self.write(Write::PrekeyGone(kid));
        }
        if let Some(floor) = self.inbox.raise_floor(now.wall) {
            self.write(Write::Floor(floor));
        }
    }

    pub(crate) fn out(&mut self, output: Output) {
        self.outputs.push_back(output);
    }

    pub(crate) fn write(&mut self, write: Write) {
        self.out(Output::Write(write));
    }

    pub(crate) fn reply(&mut self, token: Token, reply: Reply) {
        self.out(Output::Reply(token, reply));
    }

    pub(crate) fn refuse(&mut self, token: Token, refusal: Refusal) {
        self.reply(token, Reply::Refused(refusal));
    }

    pub(crate) fn event(&mut self, event: Event) {
        self.out(Output::Event(event));
    }
}

/// When rows that were too many to keep in memory are looked for in the store again.
const STORE_RETRY: std::time::Duration = std::time::Duration::from_millis(5);

/// The next of many deadlines.
pub(crate) fn earliest(deadlines: impl IntoIterator<Item = Option<Monotonic>>) -> Option<Monotonic> {
    deadlines.into_iter().flatten().min()
}

#[cfg(test)]
mod tests;
