//! What is told from person to person: where to join, and the code.

use std::str::FromStr;

use peerloom_proto::{InviteCode, InviteCodeError, InviteId, Origin, crockford};

/// An invite's address: `origin/i/` and eight Crockford characters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct InviteLink {
    /// Where the coordinator is.
    pub(crate) origin: Origin,
    /// The beginning of the invite's id.
    pub(crate) id: String,
}

/// Why a text is not an invite's address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an invite's address looks like https://mesh.example/i/7Q2M9KXA")]
pub(crate) struct InviteLinkError;

impl InviteLink {
    /// Reads an address; a fragment is left to [`code_of`].
    pub(crate) fn parse(text: &str) -> Result<Self, InviteLinkError> {
        let address = text.trim().split('#').next().unwrap_or_default();
        let (origin, id) = address.rsplit_once("/i/").ok_or(InviteLinkError)?;
        let id = id.to_ascii_uppercase();
        let sound = id.len() == LINK_CHARACTERS && id.bytes().all(|byte| byte.is_ascii_alphanumeric());
        let origin = Origin::from_typed(origin).map_err(|_| InviteLinkError)?;
        if sound { Ok(Self { origin, id }) } else { Err(InviteLinkError) }
    }

    /// The address of an invite.
    pub(crate) fn of(origin: &Origin, invite: &InviteId) -> Self {
        Self { origin: origin.clone(), id: crockford(&invite.0, LINK_CHARACTERS) }
    }
}

impl std::fmt::Display for InviteLink {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/i/{}", self.origin, self.id)
    }
}

/// The code in what was typed: alone, or after the `#` of a whole address.
pub(crate) fn code_of(typed: &str) -> Result<InviteCode, InviteCodeError> {
    let typed = typed.trim();
    InviteCode::from_str(typed.rsplit_once('#').map_or(typed, |(_, code)| code))
}

/// Crockford characters of the invite's id in its address.
const LINK_CHARACTERS: usize = 8;
