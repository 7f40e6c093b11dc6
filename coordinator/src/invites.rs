//! Invite blobs: deposited by owners' and admins' nodes, looked up by joiners. The coordinator knows
//! a lookup and a blob, and can make neither of the other, nor the code of both.

use std::collections::BTreeMap;
use std::net::IpAddr;

use bytes::Bytes;
use peerloom_proto::limits::{CLOCK_SKEW_MAX, INVITE_USES_MAX, STATEMENT_BYTES_MAX};
use peerloom_proto::{InviteLookup, MeshId, Now, PeerId, Role, UnixMs};

use crate::batch::After;
use crate::hub::{Answer, HttpReply, HttpRequest, HttpToken, Hub, Query, ReadFor, SocketId};
use crate::mesh::{Mesh, Waiting};
use crate::store::{InviteRow, Write};

/// Live invites of one mesh; a further one is refused with `size`.
const INVITES_MAX: usize = 1_000;

/// A blob: nonce, box, and a cap with its signature.
const BLOB_BYTES_MAX: usize = STATEMENT_BYTES_MAX + 256;

/// What is known of an invite without opening it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Invite {
    mesh: MeshId,
    owner: PeerId,
    exp: UnixMs,
    /// At zero the blob is gone, and the lookup only still reads the log: a joiner whose admission
    /// was sequenced while its connection broke finds itself there.
    uses_left: u32,
}

#[derive(Debug, Default)]
pub(crate) struct Invites(BTreeMap<InviteLookup, Invite>);

impl Invites {
    pub(crate) fn stored(rows: Vec<InviteRow>) -> Self {
        let invite = |row: InviteRow| {
            (row.lookup, Invite { mesh: row.mesh, owner: row.owner, exp: row.exp, uses_left: row.uses_left })
        };
        Self(rows.into_iter().map(invite).collect())
    }

    fn live_of(&self, mesh: &MeshId) -> usize {
        self.0.values().filter(|invite| invite.mesh == *mesh && invite.uses_left > 0).count()
    }
}

impl Hub {
    /// Deposits a blob.
    pub(crate) fn invite_put(
        &mut self,
        now: Now,
        (socket, request): (SocketId, u64),
        (mesh, owner): (MeshId, PeerId),
        lookup: InviteLookup,
        blob: Bytes,
        (exp, uses): (UnixMs, u64),
    ) {
        let role = self.meshes.get(&mesh).and_then(Mesh::roster).and_then(|roster| roster.role_of(&owner));
        let uses_left =
            u32::try_from(uses).ok().filter(|uses| (1..=INVITE_USES_MAX).contains(&u64::from(*uses)));
        let refused = match (role, uses_left) {
            (None | Some(Role::Member), _) => Some(("log-authority", "only an owner or admin may invite")),
            (_, None) => Some(("size", "an invite serves 1 to 100 admissions")),
            _ if blob.len() > BLOB_BYTES_MAX => Some(("size", "the blob is too large for an invite")),
            _ if exp <= now.wall => Some(("expired", "the invite has ended already")),
            _ if self.invites.live_of(&mesh) >= INVITES_MAX => {
                Some(("size", "the mesh has 1,000 live invites"))
            }
            _ if self.invites.0.contains_key(&lookup) => {
                Some(("conflict", "there is an invite of that lookup"))
            }
            _ => None,
        };
        let (None, Some(uses_left)) = (refused, uses_left) else {
            let (code, text) = refused.unwrap_or(("size", "an invite serves 1 to 100 admissions"));
            return self.fail(socket, request, code, text);
        };
        self.invites.0.insert(lookup, Invite { mesh, owner, exp, uses_left });
        self.open.push(Write::PutInvite { mesh, lookup, owner, blob, exp, uses_left });
        self.open.after(After::Done { socket, request });
    }

    /// The blob could not be written.
    pub(crate) fn invite_not_written(&mut self, lookup: &InviteLookup) {
        self.invites.0.remove(lookup);
    }

    /// Withdraws a blob. Whoever deposited it may, and an admin.
    pub(crate) fn invite_delete(
        &mut self,
        (socket, request): (SocketId, u64),
        (mesh, id): (MeshId, PeerId),
        lookup: InviteLookup,
    ) {
        let role = self.meshes.get(&mesh).and_then(Mesh::roster).and_then(|roster| roster.role_of(&id));
        match self.invites.0.get(&lookup) {
            Some(invite) if invite.mesh == mesh && (invite.owner == id || role > Some(Role::Member)) => {
                self.invites.0.remove(&lookup);
                self.open.push(Write::DeleteInvite { lookup });
                self.open.after(After::Done { socket, request });
            }
            Some(_) => self.fail(socket, request, "log-authority", "the invite is another member's"),
            None => self.fail(socket, request, "invite", "there is no such invite"),
        }
    }

    /// A request of somebody who is no member yet.
    pub(crate) fn http(&mut self, now: Now, token: HttpToken, addr: IpAddr, request: HttpRequest) {
        match request {
            HttpRequest::MeshCreate { entries } => self.create_mesh(token, &entries),
            HttpRequest::InviteLookup { lookup } => {
                if self.throttle(now, token, addr) {
                    return;
                }
                // Asked of the store in any case: unknown, expired and used take the same time.
                self.read(ReadFor::Invite { token, lookup }, Query::Invite { lookup });
            }
            HttpRequest::LogRead { bearer, .. } | HttpRequest::LogAppend { bearer, .. } => {
                match self.invites.0.get(&bearer).copied() {
                    Some(invite) if invite.exp.plus(CLOCK_SKEW_MAX) >= now.wall => {
                        let used = invite.uses_left == 0;
                        if used && matches!(request, HttpRequest::LogAppend { .. }) {
                            return self.refuse_http(token, "invite-used", "the invite was used up");
                        }
                        self.with_roster(now, invite.mesh, Waiting::Http { token, request });
                    }
                    Some(_) | None => {
                        // Only failures count here: a joiner needs several requests, a guesser too.
                        if !self.throttle(now, token, addr) {
                            self.reply(token, HttpReply::NoInvite);
                        }
                    }
                }
            }
        }
    }

    fn throttle(&mut self, now: Now, token: HttpToken, addr: IpAddr) -> bool {
        match self.lookups.admit(addr, now.monotonic) {
            Ok(()) => false,
            Err(wait) => {
                self.counters.throttled += 1;
                self.reply(token, HttpReply::Throttled { retry_after_s: wait.as_secs() + 1 });
                true
            }
        }
    }

    /// The store's word on a lookup.
    pub(crate) fn invite_read(&mut self, now: Now, token: HttpToken, lookup: &InviteLookup, answer: Answer) {
        let live =
            self.invites.0.get(lookup).is_some_and(|invite| invite.exp > now.wall && invite.uses_left > 0);
        match answer {
            Answer::Invite(Some(blob)) if live => {
                self.counters.invites_found += 1;
                self.reply(token, HttpReply::Blob(blob));
            }
            Answer::Invite(_) => {
                self.counters.invites_missed += 1;
                self.reply(token, HttpReply::NoInvite);
            }
            Answer::Mail(_) | Answer::Log(_) | Answer::Prekeys(_) | Answer::Failed => {
                self.refuse_http(token, "store", "the invite cannot be read");
            }
        }
    }

    /// An admission by this invite was sequenced.
    pub(crate) fn use_invite(&mut self, lookup: InviteLookup) {
        if let Some(invite) = self.invites.0.get_mut(&lookup) {
            invite.uses_left = invite.uses_left.saturating_sub(1);
            self.open.push(Write::UseInvite { lookup });
        }
    }

    /// Forgets invites that ended.
    pub(crate) fn expire_invites(&mut self, now: Now) {
        let ended = |invite: &Invite| invite.exp.plus(CLOCK_SKEW_MAX) < now.wall;
        self.drop_invites(ended);
    }

    /// The invites of a revoked member die with it.
    pub(crate) fn drop_invites_of(&mut self, mesh: &MeshId, owner: &PeerId) {
        self.drop_invites(|invite| invite.mesh == *mesh && invite.owner == *owner);
    }

    fn drop_invites(&mut self, which: impl Fn(&Invite) -> bool) {
        let dropped: Vec<InviteLookup> =
            self.invites.0.iter().filter(|(_, invite)| which(invite)).map(|(lookup, _)| *lookup).collect();
        for lookup in dropped {
            self.invites.0.remove(&lookup);
            self.open.push(Write::DeleteInvite { lookup });
        }
    }
}
