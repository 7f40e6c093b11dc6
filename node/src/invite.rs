//! Makes an invite: a code, a cap signed with this member's key, and the blob that only the code
//! opens, deposited at the coordinator. The code is returned once and written nowhere.

use std::time::Duration;

use peerloom_proto::limits::INVITE_USES_MAX;
use peerloom_proto::{Handle, Head, InviteCap, InviteCode, InviteId, InviteMode, Role, SignedCap, UnixMs};

use crate::failure::{Failure, Kind, chain};
use crate::join::InviteLink;
use crate::keystore::{self, KeystoreError, random};
use crate::mesh::{ChangeError, Mesh};
use crate::views::NewInvite;

/// What to grant.
#[derive(Clone, Debug)]
pub(crate) struct InvitePlan {
    /// How long it is valid.
    pub(crate) life: Duration,
    /// Admissions it serves.
    pub(crate) uses: u64,
    /// The only handle it may be used for.
    pub(crate) handle: Option<Handle>,
}

/// An invite that the coordinator has.
#[derive(Debug)]
pub(crate) struct MadeInvite {
    /// Where to join.
    pub(crate) link: InviteLink,
    /// The secret.
    pub(crate) code: InviteCode,
    /// When it ends.
    pub(crate) exp: UnixMs,
    /// Admissions it serves.
    pub(crate) uses: u64,
}

/// Why no invite was made.
#[derive(Debug, thiserror::Error)]
pub(crate) enum InviteMakeError {
    /// Only admins invite.
    #[error("{handle} may not invite: only admins of {mesh} can")]
    NotAdmin {
        /// This node's handle.
        handle: Handle,
        /// The mesh's name.
        mesh: String,
    },
    /// More admissions than an invite serves.
    #[error("an invite serves 1 to {INVITE_USES_MAX} admissions, not {0}")]
    Uses(u64),
    /// Shorter or longer than an invite lives.
    #[error("an invite lives from one minute to 30 days, not {} s", .0.as_secs())]
    Life(Duration),
    /// The member key cannot be read.
    #[error(transparent)]
    Key(#[from] KeystoreError),
    /// The engine, or the coordinator, did not take it.
    #[error(transparent)]
    Change(#[from] ChangeError),
}

/// Makes an invite for `mesh` and deposits it. `now` is this machine's wall clock.
pub(crate) async fn make_invite(
    mesh: &Mesh,
    plan: InvitePlan,
    now: UnixMs,
) -> Result<MadeInvite, InviteMakeError> {
    let InvitePlan { life, uses, handle } = plan;
    if !(1..=INVITE_USES_MAX).contains(&uses) {
        return Err(InviteMakeError::Uses(uses));
    }
    if !(LIFE_MIN..=LIFE_MAX).contains(&life) {
        return Err(InviteMakeError::Life(life));
    }
    let view = mesh.view();
    let may_invite =
        view.members.iter().any(|member| member.is_me && !member.revoked && member.role >= Role::Admin);
    if !may_invite {
        return Err(InviteMakeError::NotAdmin {
            handle: mesh.handle().clone(),
            mesh: mesh.name().to_owned(),
        });
    }
    let key = keystore::read_key(&mesh.info().member_key_file())?;
    let code = InviteCode::from_bytes(*random::<10>());
    let id = InviteId(*random::<16>());
    let exp = now.plus(life);
    let cap = SignedCap::sign(
        &key,
        InviteCap {
            mesh: mesh.id(),
            id,
            inviter: mesh.member(),
            role: Role::Member,
            max_uses: uses,
            nbf: now,
            exp,
            mode: InviteMode::Auto,
            head: Head { size: view.head.size, hash: view.head.hash },
            origin: mesh.origin().clone(),
            key: code.signing_key().id(),
            handle,
        },
    );
    let blob = code.seal_blob(&cap, *random::<24>());
    let link = InviteLink::of(mesh.origin(), &id);
    let invite = NewInvite { id, lookup: code.lookup(), url: link.to_string(), blob: blob.into(), exp, uses };
    mesh.invite_put(invite).await?;
    Ok(MadeInvite { link, code, exp, uses })
}

impl From<InviteMakeError> for Failure {
    fn from(error: InviteMakeError) -> Self {
        let text = chain(&error);
        match error {
            InviteMakeError::NotAdmin { .. } => {
                Self::new(Kind::Denied, "inviter-authority", text).next("ask an admin: peerloom member list")
            }
            InviteMakeError::Uses(_) => Self::new(Kind::Usage, "usage", text).next("pass --uses 1 to 100"),
            InviteMakeError::Life(_) => {
                Self::new(Kind::Usage, "usage", text).next("pass --expires 1m to 30d")
            }
            InviteMakeError::Key(_) => Self::new(Kind::Failed, "keystore", text).next("peerloom doctor"),
            InviteMakeError::Change(error) => error.into(),
        }
    }
}

/// Nobody types a code in less.
const LIFE_MIN: Duration = Duration::from_secs(60);
/// Whoever has an unused code can join: a month of that is enough.
const LIFE_MAX: Duration = Duration::from_secs(30 * 24 * 60 * 60);
