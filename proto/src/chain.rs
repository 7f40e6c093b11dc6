//! The mesh log as this node follows it: fetched from the coordinator, checked entry by entry,
//! appended to by compare-and-swap (protocol.md §10).

use std::collections::BTreeSet;
use std::time::Duration;

use bytes::Bytes;

use crate::endpoint::{Endpoint, Event, LogChange, OutboxState, Output, Refusal, Reply, Token, Write};
use crate::id::PeerId;
use crate::key::IdentityKey;
use crate::limits::CLOCK_SKEW_MAX;
use crate::revocation::{Revoke, RevokeKind, SignedRevoke};
use crate::roster::{Effect, ForkEvidence, Head, Role, WireEntry};
use crate::time::{Monotonic, Now, UnixMs};
use crate::wire::ToCoordinator;

/// Appends that wait for the head, and the last fetch.
#[derive(Debug, Default)]
pub(crate) struct Chain {
    waiting: Vec<Pending>,
    fetched_at: Option<Monotonic>,
    /// Alarms raised; each once a process is enough to make someone look.
    alarmed: BTreeSet<Cause>,
    /// Members admitted by an invite that had long ended when this node first saw it: a stolen or
    /// backdated one looks the same, so nothing goes to or comes from them until someone vouches.
    on_hold: BTreeSet<PeerId>,
}

/// What an alarm is about. However often and variously someone gives cause, each is raised once, and none
/// can use up the place of another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Cause {
    /// The coordinator's head is not in this log.
    OtherLog,
    /// A member signed a head that is not in this log.
    OtherHistory,
    /// A sequenced entry does not hold.
    BadEntry,
    /// The coordinator's store is older than it was.
    WentBack,
    /// The coordinator's log was shorter than this one.
    LostLog,
    /// This node was revoked.
    Removed,
    /// A member used one id twice.
    Conflict(PeerId),
}

/// An entry this node wants in the log.
#[derive(Debug)]
pub(crate) struct Pending {
    pub(crate) token: Token,
    change: LogChange,
    until: Monotonic,
}

impl Chain {
    /// From the store.
    pub(crate) fn new(on_hold: Vec<PeerId>) -> Self {
        Self { on_hold: on_hold.into_iter().collect(), ..Self::default() }
    }

    /// Whether a member's admission waits for confirmation.
    pub(crate) fn holds(&self, member: &PeerId) -> bool {
        self.on_hold.contains(member)
    }

    /// When an append that waits is given up.
    pub(crate) fn deadline(&self) -> Option<Monotonic> {
        self.waiting.iter().map(|pending| pending.until).min()
    }
}

impl Endpoint {
    /// The coordinator named its head. True if entries are on their way.
    pub(crate) fn coordinator_head(&mut self, now: Now, head: Head) -> bool {
        let mine = self.roster.head();
        if head.size > mine.size {
            self.fetch_log(now, head.size);
            self.chain.fetched_at = Some(now.monotonic);
            return true;
        }
        if !self.roster.contains_head(&head) {
            let text = "the coordinator's log is not the one this node has seen: it forked";
            self.alarm(Cause::OtherLog, text.to_owned());
        }
        false
    }

    /// A member named its head. A larger one is fetched; another one of the same size is evidence.
    ///
    /// `ts` is when it signed, if the statement says so.
    pub(crate) fn heard_head(&mut self, now: Now, signer: PeerId, head: Head, ts: Option<UnixMs>) {
        self.vouched_by_head(signer, head, ts);
        let mine = self.roster.head();
        if head.size > mine.size {
            let lately = self.chain.fetched_at.is_some_and(|at| now.monotonic.since(at) < FETCH_EVERY);
            if self.uplink.is_ready() && !lately {
                self.chain.fetched_at = Some(now.monotonic);
                self.fetch_log(now, head.size);
            }
        } else if ForkEvidence::in_head(&self.roster, &head, signer).is_some() {
            let text =
                "a member has seen another log of this mesh: the coordinator shows different histories";
            self.alarm(Cause::OtherHistory, text.to_owned());
        }
    }

    pub(crate) fn fetch_log(&mut self, now: Now, size: u64) {
        let from = self.roster.size();
        if size > from {
            self.uplink.asked_for_log(now.monotonic);
            self.out(Output::SendUplink(ToCoordinator::LogGet { from }.encode()));
        }
    }

    /// A span of entries came.
    pub(crate) fn entries(&mut self, now: Now, from: u64, entries: &[Bytes], size: u64) {
        let known = self.roster.size();
        if from > known {
            return self.fetch_log(now, size);
        }
        let fresh = usize::try_from(known - from).unwrap_or(usize::MAX);
        for entry in entries.iter().skip(fresh) {
            if !self.take_entry(now, entry) {
                return;
            }
        }
        if self.roster.size() < size && !entries.is_empty() {
            return self.fetch_log(now, size);
        }
        self.synced(now);
        self.appends_again(now);
    }

    /// One sequenced entry; false if it does not hold, which is the coordinator's fault.
    fn take_entry(&mut self, now: Now, bytes: &Bytes) -> bool {
        let index = self.roster.size();
        let applied = WireEntry::parse(bytes).and_then(|entry| {
            if !self.roster.verify_seq(&entry) {
                return Err(crate::roster::LogError::Signature);
            }
            self.roster.append(&entry)
        });
        match applied {
            Ok(applied) => {
                self.write(Write::Entry { index, entry: bytes.clone() });
                self.event(Event::Log { size: self.roster.size() });
                self.entry_applied(now, applied.effect);
                true
            }
            Err(error) => {
                let text = format!("the coordinator sequenced an entry that does not hold ({error})");
                self.alarm(Cause::BadEntry, text);
                false
            }
        }
    }

    fn entry_applied(&mut self, now: Now, effect: Effect) {
        self.vouched_by_log();
        match effect {
            Effect::Admitted { member, invite } => {
                self.hold_if_late(now, member);
                if invite.is_some_and(|invite| invite.inviter == self.me.id)
                    && let Some(admitted) = self.roster.member(&member)
                {
                    let handle = admitted.handle.to_string();
                    self.event(Event::Admitted { peer: member, handle });
                }
                if self.peers.take_stranger(&member) && member != self.me.id {
                    self.told_of(now, member, true);
                }
            }
            Effect::Revoked { members, .. } => {
                for member in members {
                    self.cut_off(now, member);
                }
            }
            Effect::RoleChanged { .. } | Effect::KeyRevoked { .. } | Effect::TopicEpoch => {}
        }
    }

    /// Holds a member that came by an invite which had long ended when its entry was first seen.
    fn hold_if_late(&mut self, now: Now, member: PeerId) {
        let Some(admitted) = self.roster.member(&member) else { return };
        let late = admitted.invite.is_some_and(|invite| now.wall > invite.exp.plus(CLOCK_SKEW_MAX));
        if late && member != self.me.id && !self.roster.vouched_by_senior(admitted) {
            self.chain.on_hold.insert(member);
            self.write(Write::Hold(member));
        }
    }

    /// An owner's or admin's later entry stands on the admission.
    fn vouched_by_log(&mut self) {
        let on_hold: Vec<PeerId> = self.chain.on_hold.iter().copied().collect();
        for member in on_hold {
            if self.roster.member(&member).is_some_and(|admitted| self.roster.vouched_by_senior(admitted)) {
                self.unhold(member);
            }
        }
    }

    /// Another member signed, in the invite's time, a head beyond the admission.
    fn vouched_by_head(&mut self, signer: PeerId, head: Head, ts: Option<UnixMs>) {
        let Some(ts) = ts else { return };
        if self.chain.on_hold.is_empty() || self.chain.holds(&signer) || !self.roster.contains_head(&head) {
            return;
        }
        let on_hold: Vec<PeerId> = self.chain.on_hold.iter().copied().collect();
        for member in on_hold {
            let Some(admitted) = self.roster.member(&member) else { continue };
            let in_time = admitted.invite.is_some_and(|invite| ts <= invite.exp.plus(CLOCK_SKEW_MAX));
            if signer != member && in_time && head.size > admitted.admitted_at {
                self.unhold(member);
            }
        }
    }

    fn unhold(&mut self, member: PeerId) {
        self.chain.on_hold.remove(&member);
        self.write(Write::Unhold(member));
    }

    /// Everything to and from a revoked member ends here and now.
    fn cut_off(&mut self, now: Now, member: PeerId) {
        if member == self.me.id {
            self.alarm(Cause::Removed, "this node was removed from the mesh".to_owned());
            for row in self.delivery.all() {
                self.fail(now, row, OutboxState::Rejected("revoked".to_owned()));
            }
            return;
        }
        self.close_links_of(now, member);
        self.release_all_of(member);
        if self.peers.tell_online(member, false) {
            self.event(Event::Presence { peer: member, online: false });
        }
        for row in self.delivery.towards(&member) {
            self.fail(now, row, OutboxState::Rejected("revoked".to_owned()));
        }
    }

    /// A program wants an entry in the log.
    pub(crate) fn append(&mut self, now: Now, token: Token, change: LogChange) {
        let pending = Pending { token, change, until: now.monotonic + APPEND_TIMEOUT };
        if !self.uplink.is_ready() {
            return self.refuse(token, Refusal::CoordinatorAway);
        }
        self.sign_append(now, pending);
    }

    fn sign_append(&mut self, now: Now, pending: Pending) {
        let LogChange::Revoke { target, reason } = pending.change;
        let Some(author) = self.author_for(&target) else {
            let text = "revoking needs a role above the member's: ask an admin, or the owner".to_owned();
            return self.refuse(pending.token, Refusal::Denied { code: "log-authority".to_owned(), text });
        };
        let revoke = Revoke {
            mesh: self.me.mesh,
            kind: RevokeKind::Member,
            target,
            reason,
            ts: now.wall,
            author: author.id(),
            head: self.roster.head(),
        };
        let revoke = SignedRevoke::sign(author, revoke);
        let entry = self.roster.revoke_entry(author, &revoke, now.wall);
        if let Err(error) = self.roster.check(&entry) {
            let denied = Refusal::Denied { code: error.reason(), text: error.to_string() };
            return self.refuse(pending.token, denied);
        }
        self.ask_append(now, pending, entry.encode().into());
    }

    /// The key of this node that may revoke `target`: its own for itself and those below, else the
    /// owner key if it is here.
    fn author_for(&self, target: &PeerId) -> Option<&IdentityKey> {
        let mine = self.roster.member(&self.me.id).map(|member| member.role);
        let theirs = self.roster.member(target).map(|member| member.role);
        match (mine, theirs) {
            (Some(_), Some(_)) if *target == self.me.id => Some(&self.me.key),
            (Some(mine), Some(theirs)) if mine > theirs => Some(&self.me.key),
            (_, Some(Role::Member | Role::Admin)) => self.me.owner.as_ref(),
            (_, Some(Role::Owner) | None) => None,
        }
    }

    /// The head moved under an append: it waits for the new entries.
    pub(crate) fn append_later(&mut self, now: Now, pending: Pending) {
        if pending.until <= now.monotonic {
            return self.refuse(pending.token, Refusal::TimedOut);
        }
        self.chain.waiting.push(pending);
    }

    /// The log is up to date: sign again what waits.
    pub(crate) fn appends_again(&mut self, now: Now) {
        if !self.uplink.is_ready() {
            return;
        }
        for pending in std::mem::take(&mut self.chain.waiting) {
            self.sign_append(now, pending);
        }
    }

    /// The coordinator took the entry.
    pub(crate) fn appended(&mut self, now: Now, pending: Pending, entry: &Bytes) {
        let index = WireEntry::parse(entry).and_then(|entry| entry.entry()).map(|entry| entry.index);
        let Ok(index) = index else { return self.refuse(pending.token, Refusal::TimedOut) };
        if index == self.roster.size() {
            self.take_entry(now, entry);
        }
        self.reply(pending.token, Reply::Appended(index));
    }

    pub(crate) fn chain_timeout(&mut self, now: Now) {
        let (over, waiting) = std::mem::take(&mut self.chain.waiting)
            .into_iter()
            .partition(|pending| pending.until <= now.monotonic);
        self.chain.waiting = waiting;
        let over: Vec<Pending> = over;
        for pending in over {
            self.refuse(pending.token, Refusal::TimedOut);
        }
    }

    pub(crate) fn alarm(&mut self, cause: Cause, text: String) {
        if self.chain.alarmed.insert(cause) {
            self.event(Event::Alarm(text));
        }
    }
}

/// An append that found no place for this long is refused.
const APPEND_TIMEOUT: Duration = Duration::from_secs(10);

/// A head heard from a member leads to at most one fetch in this time: it is only a hint.
const FETCH_EVERY: Duration = Duration::from_secs(5);
