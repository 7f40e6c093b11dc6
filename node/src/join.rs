//! Joins a mesh by an invite (protocol.md §8). Everything the coordinator serves is checked against
//! what the inviter signed.
//!
//! 1. [`InviteLink::parse`]   where the coordinator is, and the id of the invite
//! 2. the coordinator gives the blob under the code's lookup; the code opens it: the cap
//! 3. the log is fetched and replayed; it must begin with the cap's mesh, contain the cap's head,
//!    and name this coordinator
//! 4. claim and proof are signed once; the entry is signed anew after every lost race
//! 5. the coordinator's sequence signature is checked before anything is kept

mod link;

use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use peerloom_proto::{
    BoxSecretKey, Handle, IdentityKey, InviteClaim, InviteCode, InviteError, LogError, MeshId, Origin,
    PeerId, Roster, SignedCap, SignedClaim, WireEntry,
};

pub(crate) use self::link::{InviteLink, code_of};
use crate::clock::Clock;
use crate::coordinator_http::{AppendOutcome, CoordinatorError, CoordinatorHttp};
use crate::failure::{Failure, Kind, chain};
use crate::home::NewMesh;
use crate::init::{InitError, check_coordinator};
use crate::keystore::random;

/// What to join.
#[derive(Debug)]
pub(crate) struct JoinPlan {
    /// The invite's address.
    pub(crate) link: InviteLink,
    /// The secret.
    pub(crate) code: InviteCode,
    /// This node's handle; none takes the invite's.
    pub(crate) handle: Option<Handle>,
    /// Meshes that this home has already.
    pub(crate) present: Vec<MeshId>,
}

/// A mesh that has this node as a member, to be kept now.
#[derive(Debug)]
pub(crate) struct JoinedMesh {
    /// For the home.
    pub(crate) mesh: NewMesh,
    /// This node.
    pub(crate) member: PeerId,
    /// Who invited: handle, or `owner`, and key.
    pub(crate) inviter: (String, PeerId),
    /// The log's size with this node's entry.
    pub(crate) head: peerloom_proto::Head,
}

/// Why the mesh was not joined.
#[derive(Debug, thiserror::Error)]
pub(crate) enum JoinError {
    /// The coordinator did not answer or said no.
    #[error(transparent)]
    Coordinator(#[from] CoordinatorError),
    /// The coordinator is not the one that was meant, or the clocks differ.
    #[error(transparent)]
    Peer(#[from] InitError),
    /// The coordinator has nothing under this code: mistyped, used up, withdrawn or expired.
    #[error("{origin} has no invite under this code: it is mistyped, used up, withdrawn or expired")]
    NoInvite {
        /// The coordinator.
        origin: Origin,
    },
    /// The code opens another invite than the address names.
    #[error("the code belongs to invite {actual}, the address names {asked}")]
    OtherInvite {
        /// What the address says.
        asked: String,
        /// What the code opened.
        actual: String,
    },
    /// The invite does not open or does not admit.
    #[error("the invite does not admit this node")]
    Invite(#[from] InviteError),
    /// The served log is not this mesh's, or is broken.
    #[error("{origin} served a log that does not hold: {what}")]
    BadLog {
        /// The coordinator.
        origin: Origin,
        /// What is wrong.
        what: String,
    },
    /// No handle was given, and the invite names none.
    #[error("this node needs a handle")]
    HandleMissing,
    /// The invite is for one handle only.
    #[error("the invite is for the handle {granted}, not {asked}")]
    HandleOther {
        /// The invite's.
        granted: Handle,
        /// What was asked for.
        asked: Handle,
    },
    /// The handle belongs, or belonged, to another member.
    #[error("the handle {0} is taken in this mesh, and handles are never used again")]
    HandleTaken(Handle),
    /// This home is in the mesh already.
    #[error("this node is in that mesh already")]
    AlreadyIn(MeshId),
    /// Others appended all the time.
    #[error("{tries} attempts to append lost the race to other members")]
    Busy {
        /// How many were made.
        tries: u32,
    },
}

/// Joins. `clock` is read again for every attempt to append.
pub(crate) async fn join_mesh(
    plan: JoinPlan,
    ca_file: Option<&Path>,
    clock: Clock,
) -> Result<JoinedMesh, JoinError> {
    let JoinPlan { link, code, handle, present } = plan;
    let lookup = code.lookup();
    let coordinator = CoordinatorHttp::new(&link.origin, ca_file)?;
    let info = coordinator.info().await?;
    check_coordinator(&info, &link.origin, clock.now().wall)?;
    let blob = coordinator.invite_blob(&lookup).await.map_err(|error| no_invite(error, &link.origin))?;
    let cap = code.open_blob(&blob)?;
    check_link(&cap, &link)?;
    if present.contains(&cap.mesh) {
        return Err(JoinError::AlreadyIn(cap.mesh));
    }
    let handle = choose_handle(handle, &cap)?;

    let bad_log = |what: String| JoinError::BadLog { origin: link.origin.clone(), what };
    let mut log = Log::fetch(&coordinator, &lookup, &link.origin).await?;
    cap.check_for_joiner(&log.roster, clock.now().wall)?;
    if !log.roster.coordinators().contains(&(info.coordinator, link.origin.clone())) {
        return Err(bad_log("it does not name this coordinator under this origin".to_owned()));
    }
    if log.roster.by_handle(handle.as_str()).is_some() {
        return Err(JoinError::HandleTaken(handle));
    }

    let member_seed = random::<32>();
    let member = IdentityKey::from_seed(&member_seed);
    let prekey = BoxSecretKey::from_bytes(*random::<32>());
    let sealing = BoxSecretKey::from_bytes(*random::<32>());
    let claim = InviteClaim {
        mesh: cap.mesh,
        invite: cap.id,
        joiner: member.id(),
        prekey: prekey.public(),
        sealing: sealing.public(),
        nonce: *random::<32>(),
        ts: clock.now().wall,
        handle: handle.clone(),
    };
    let claim = SignedClaim::sign(&member, &code, claim);
    let admission = Admission { member: &member, cap: &cap, claim: &claim, handle: &handle };
    log.admit(&coordinator, &admission, clock).await?;

    let inviter = log.roster.member(&cap.inviter).map_or("owner", |member| member.handle.as_str()).to_owned();
    let id = log.roster.mesh_id();
    Ok(JoinedMesh {
        mesh: NewMesh {
            id,
            name: log.roster.name().map_or_else(|| id.short(), str::to_owned),
            handle,
            origin: link.origin.clone(),
            member_seed,
            owner_seed: None,
            entries: log.entries,
            prekey,
        },
        member: member.id(),
        inviter: (inviter, cap.inviter),
        head: log.roster.head(),
    })
}

/// What is appended, however often its entry is signed anew.
struct Admission<'a> {
    member: &'a IdentityKey,
    cap: &'a SignedCap,
    claim: &'a SignedClaim,
    handle: &'a Handle,
}

/// The log as far as it was fetched and replayed.
struct Log<'a> {
    roster: Roster,
    entries: Vec<Bytes>,
    lookup: &'a peerloom_proto::InviteLookup,
    origin: &'a Origin,
}

impl<'a> Log<'a> {
    async fn fetch(
        coordinator: &CoordinatorHttp,
        lookup: &'a peerloom_proto::InviteLookup,
        origin: &'a Origin,
    ) -> Result<Self, JoinError> {
        let page = coordinator.log(lookup, 0).await.map_err(|error| no_invite(error, origin))?;
        let bad = |what: &str| JoinError::BadLog { origin: origin.clone(), what: what.to_owned() };
        let (genesis, rest) = page.entries.split_first().ok_or_else(|| bad("it is empty"))?;
        let roster = Roster::begin(genesis).map_err(|error| bad(&error.to_string()))?;
        let mut log = Self { roster, entries: vec![genesis.encode().into()], lookup, origin };
        log.extend(rest)?;
        if log.roster.size() < page.size {
            log.catch_up(coordinator).await?;
        }
        Ok(log)
    }

    /// Fetches what is missing, page by page.
    async fn catch_up(&mut self, coordinator: &CoordinatorHttp) -> Result<(), JoinError> {
        loop {
            let page = coordinator.log(self.lookup, self.roster.size()).await?;
            if page.entries.is_empty() && self.roster.size() < page.size {
                return Err(self.bad("it ends before its size"));
            }
            self.extend(&page.entries)?;
            if self.roster.size() >= page.size {
                return Ok(());
            }
        }
    }

    fn extend(&mut self, entries: &[WireEntry]) -> Result<(), JoinError> {
        for entry in entries {
            if !self.roster.verify_seq(entry) {
                return Err(self.bad("an entry lacks its coordinator's signature"));
            }
            self.roster.append(entry).map_err(|error| self.bad(&error.to_string()))?;
            self.entries.push(entry.encode().into());
        }
        Ok(())
    }

    /// Appends the joiner's own entry, signing it anew at every new head.
    async fn admit(
        &mut self,
        coordinator: &CoordinatorHttp,
        admission: &Admission<'_>,
        clock: Clock,
    ) -> Result<(), JoinError> {
        for _ in 0..APPEND_TRIES {
            let Admission { member, cap, claim, handle } = admission;
            let entry = self.roster.self_admission(member, cap, claim, clock.now().wall);
            self.roster.check(&entry).map_err(|error| self.refused(error, handle))?;
            let outcome = coordinator.append(self.lookup, &entry).await;
            match outcome.map_err(|error| refused_by_coordinator(error, handle))? {
                AppendOutcome::Sequenced(sequenced) => {
                    if sequenced.stmt != entry.stmt {
                        return Err(self.bad("it sequenced another entry"));
                    }
                    return self.extend(&[*sequenced]);
                }
                AppendOutcome::Conflict => {
                    tokio::time::sleep(APPEND_PAUSE).await;
                    self.catch_up(coordinator).await?;
                }
            }
        }
        Err(JoinError::Busy { tries: APPEND_TRIES })
    }

    /// Why our own entry has no place in the log, by its own rules.
    fn refused(&self, error: LogError, handle: &Handle) -> JoinError {
        if let LogError::Invite(error) = error {
            return error.into();
        }
        if let LogError::HandleTaken(_) = error {
            return JoinError::HandleTaken(handle.clone());
        }
        self.bad(&error.to_string())
    }

    fn bad(&self, what: &str) -> JoinError {
        JoinError::BadLog { origin: self.origin.clone(), what: what.to_owned() }
    }
}

fn check_link(cap: &SignedCap, link: &InviteLink) -> Result<(), JoinError> {
    let actual = InviteLink::of(&cap.origin, &cap.id);
    if actual.id != link.id {
        return Err(JoinError::OtherInvite { asked: link.id.clone(), actual: actual.id });
    }
    if actual.origin != link.origin {
        return Err(InitError::OtherOrigin { asked: link.origin.clone(), own: actual.origin }.into());
    }
    Ok(())
}

fn choose_handle(asked: Option<Handle>, cap: &SignedCap) -> Result<Handle, JoinError> {
    match (asked, &cap.handle) {
        (Some(asked), Some(granted)) if asked != *granted => {
            Err(JoinError::HandleOther { granted: granted.clone(), asked })
        }
        (Some(asked), _) => Ok(asked),
        (None, Some(granted)) => Ok(granted.clone()),
        (None, None) => Err(JoinError::HandleMissing),
    }
}

/// The coordinator answers alike for a code it never saw and one whose invite is over.
fn no_invite(error: CoordinatorError, origin: &Origin) -> JoinError {
    if let CoordinatorError::Refused { status: 401 | 404, .. } = error {
        return JoinError::NoInvite { origin: origin.clone() };
    }
    error.into()
}

fn refused_by_coordinator(error: CoordinatorError, handle: &Handle) -> JoinError {
    if let CoordinatorError::Refused { code, .. } = &error
        && code == "handle-taken"
    {
        return JoinError::HandleTaken(handle.clone());
    }
    error.into()
}

impl From<JoinError> for Failure {
    fn from(error: JoinError) -> Self {
        let text = chain(&error);
        let another = "ask the inviter for another: peerloom invite";
        match error {
            JoinError::Coordinator(error) => refused_invite(error.into(), another),
            JoinError::Peer(error) => error.into(),
            JoinError::NoInvite { .. } => {
                Self::new(Kind::NotFound, "invite", text).next(format!("check the code, or {another}"))
            }
            JoinError::OtherInvite { .. } => Self::new(Kind::NotFound, "invite-mismatch", text)
                .next("use the address and the code of one invite"),
            JoinError::Invite(error) => Self::new(Kind::Denied, error.reason(), text).next(another),
            JoinError::BadLog { .. } => Self::new(Kind::Denied, "log", text)
                .next("do not join; tell the inviter that the coordinator's log does not hold"),
            JoinError::HandleMissing => {
                Self::new(Kind::Usage, "name-missing", text).next("pass --name HANDLE")
            }
            JoinError::HandleOther { granted, .. } => {
                Self::new(Kind::Denied, "handle", text).next(format!("pass --name {granted}"))
            }
            JoinError::HandleTaken(_) => {
                Self::new(Kind::Conflict, "handle-taken", text).next("choose another with --name HANDLE")
            }
            JoinError::AlreadyIn(_) => {
                Self::new(Kind::Conflict, "already-joined", text).next("peerloom status")
            }
            JoinError::Busy { .. } => Self::new(Kind::Busy, "log-busy", text).next("try again"),
        }
    }
}

/// What the coordinator says of the invite is the invite's fault, not the coordinator's.
fn refused_invite(failure: Failure, next: &str) -> Failure {
    let of_invite =
        ["invite-used", "expired", "inviter-authority", "invite-mode", "code-proof", "claim-mismatch"];
    if of_invite.contains(&failure.code.as_str()) {
        return Failure { kind: Kind::Denied, ..failure }.next(next);
    }
    failure
}

/// Attempts to append before giving up: a mesh in which so many others append at once is rare.
const APPEND_TRIES: u32 = 20;
/// Between two attempts: the winner's reservation of the next place is short.
const APPEND_PAUSE: Duration = Duration::from_millis(150);

#[cfg(test)]
mod tests;
