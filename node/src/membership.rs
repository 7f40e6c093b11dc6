//! Between the membership library and its two doors, the daemon's API and the CLI in process: what
//! was asked becomes a plan, what was done becomes a shape.

use peerloom_proto::limits::MESH_NAME_BYTES_MAX;
use peerloom_proto::{Handle, Head, MeshId, Origin, PeerId};

use crate::api::shapes::{
    HeadShape, InitRequest, InitShape, JoinRequest, JoinShape, MeShape, MeshShape, Name,
};
use crate::failure::{Failure, Kind, SCHEMA_VERSION};
use crate::home::MeshInfo;
use crate::init::InitPlan;
use crate::join::{InviteLink, JoinPlan, code_of};

/// Checks what `init` was asked for.
pub(crate) fn init_plan(request: &InitRequest) -> Result<InitPlan, Failure> {
    let InitRequest { name, coordinator, handle, token } = request;
    let sound = (1..=MESH_NAME_BYTES_MAX).contains(&name.len()) && !name.chars().any(char::is_control);
    if !sound {
        return Err(Failure::usage(format!(
            "a mesh's name has 1 to {MESH_NAME_BYTES_MAX} bytes and no control characters"
        )));
    }
    let origin = parse_origin(coordinator)?;
    let token = token.as_deref().map(str::trim).filter(|token| !token.is_empty()).map(str::to_owned);
    Ok(InitPlan { name: name.clone(), origin, handle: parse_handle(handle)?, token })
}

/// Two meshes of one name at one coordinator would only be a mistake.
pub(crate) fn refuse_same_name(plan: &InitPlan, present: &[MeshInfo]) -> Result<(), Failure> {
    let InitPlan { name, origin, .. } = plan;
    if present.iter().any(|mesh| mesh.name == *name && mesh.origin == *origin) {
        let text = format!("this home has a mesh {name} at {origin} already");
        return Err(Failure::new(Kind::Conflict, "mesh-exists", text)
            .next("peerloom up --detach, or choose another name"));
    }
    Ok(())
}

/// Checks what `join` was asked for.
pub(crate) fn join_plan(request: &JoinRequest, present: Vec<MeshId>) -> Result<JoinPlan, Failure> {
    let JoinRequest { url, code, handle } = request;
    let link = InviteLink::parse(url).map_err(|error| {
        Failure::new(Kind::Usage, "invite-url", error.to_string())
            .next("copy the whole first line of the invite")
    })?;
    let code = code_of(code).map_err(|error| {
        Failure::new(Kind::Usage, "invite-code", error.to_string())
            .next("copy the whole second line of the invite")
    })?;
    let handle = handle.as_deref().map(parse_handle).transpose()?;
    Ok(JoinPlan { link, code, handle, present })
}

/// Reads an origin as people type it.
pub(crate) fn parse_origin(text: &str) -> Result<Origin, Failure> {
    Origin::from_typed(text).map_err(|error| {
        Failure::new(Kind::Usage, "origin", format!("{text:?} is no origin: {error}"))
            .next("for example https://mesh.example, or http://127.0.0.1:7700")
    })
}

/// Reads a handle.
pub(crate) fn parse_handle(text: &str) -> Result<Handle, Failure> {
    Handle::parse(text).map_err(|error| {
        Failure::new(Kind::Usage, "handle", format!("{text:?} is no handle: {error}"))
            .next("choose one of a-z, 0-9 and '-', for example laptop")
    })
}

/// What was made.
pub(crate) fn present_init(info: &MeshInfo, member: PeerId, owner: PeerId, recovery: &str) -> InitShape {
    InitShape {
        schema_version: SCHEMA_VERSION,
        mesh: MeshShape { id: info.id.to_string(), name: info.name.clone(), head: None },
        me: MeShape {
            handle: info.handle.to_string(),
            member: member.to_string(),
            role: Some("admin".to_owned()),
        },
        origin: info.origin.to_string(),
        owner: owner.to_string(),
        owner_key_file: info.owner_key_file().display().to_string(),
        recovery_key: recovery.to_owned(),
    }
}

/// What was joined. That another member's signed head covers the entry shows only later.
pub(crate) fn present_join(
    info: &MeshInfo,
    member: PeerId,
    inviter: (String, PeerId),
    head: Head,
) -> JoinShape {
    let head = HeadShape { size: head.size, hash: head.hash.to_string() };
    JoinShape {
        schema_version: SCHEMA_VERSION,
        mesh: MeshShape { id: info.id.to_string(), name: info.name.clone(), head: Some(head) },
        me: MeShape {
            handle: info.handle.to_string(),
            member: member.to_string(),
            role: Some("member".to_owned()),
        },
        origin: info.origin.to_string(),
        state: "admitted".to_owned(),
        inviter: Name { handle: inviter.0, key: inviter.1.to_string() },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn init(name: &str, coordinator: &str, handle: &str) -> Result<InitPlan, Failure> {
        init_plan(&InitRequest {
            name: name.to_owned(),
            coordinator: coordinator.to_owned(),
            handle: handle.to_owned(),
            token: Some(" secret\n".to_owned()),
        })
    }

    #[test]
    fn a_token_read_from_a_file_loses_its_line_end() {
        let plan = init("acme", "https://Mesh.example/", "laptop").unwrap();
        assert_eq!(plan.token.as_deref(), Some("secret"));
        assert_eq!(plan.origin.as_str(), "https://mesh.example");
    }

    #[test]
    fn each_wrong_input_has_its_own_code() {
        let code = |result: Result<InitPlan, Failure>| result.unwrap_err().code;
        assert_eq!(code(init("", "https://mesh.example", "laptop")), "usage");
        assert_eq!(code(init("acme", "mesh.example", "laptop")), "origin");
        assert_eq!(code(init("acme", "https://mesh.example", "Laptop")), "handle");
        assert_eq!(code(init("acme", "https://mesh.example", "deadbeef")), "handle");
    }

    #[test]
    fn a_mistyped_invite_never_shows_up_in_the_error() {
        let request = JoinRequest {
            url: "https://mesh.example/i/7Q2M9KXA".to_owned(),
            code: "4Z7P-1QXK-88TN".to_owned(),
            handle: None,
        };
        let failure = join_plan(&request, Vec::new()).unwrap_err();
        assert_eq!(failure.code, "invite-code");
        assert!(!format!("{} {}", failure.text, failure.next).contains("4Z7P"), "{failure:?}");
    }
}
