//! Makes a mesh: keys here, the genesis and this node's own admission deposited at the coordinator.
//!
//! 1. [`CoordinatorHttp::info`]: who the coordinator is, whether its clock agrees
//! 2. owner key, recovery key and member key from this machine's entropy
//! 3. genesis by the owner, then entry 1: this member, as admin
//! 4. the coordinator sequences them; its signature is checked before anything is kept
//!
//! The caller writes the result into its home. Nothing of it is on disk before.

use std::path::Path;

use bytes::Bytes;
use peerloom_proto::limits::CLOCK_SKEW_MAX;
use peerloom_proto::{
    BoxSecretKey, GenesisParams, Handle, IdentityKey, LogError, NewMember, Origin, PeerId, Policy, Role,
    Roster, UnixMs, WireEntry, hex_of,
};
use zeroize::Zeroizing;

use crate::coordinator_http::{CoordinatorError, CoordinatorHttp, CoordinatorInfo};
use crate::failure::{Failure, Kind, chain};
use crate::home::NewMesh;
use crate::keystore::random;

/// What to make.
#[derive(Clone, Debug)]
pub(crate) struct InitPlan {
    /// Name of the mesh, for people.
    pub(crate) name: String,
    /// Its coordinator.
    pub(crate) origin: Origin,
    /// This node's handle.
    pub(crate) handle: Handle,
    /// The coordinator's token for new meshes.
    pub(crate) token: Option<String>,
}

/// A mesh that the coordinator has and this node must now keep.
#[derive(Debug)]
pub(crate) struct MadeMesh {
    /// For the home.
    pub(crate) mesh: NewMesh,
    /// This node.
    pub(crate) member: PeerId,
    /// The owner's public key.
    pub(crate) owner: PeerId,
    /// The recovery secret, to be shown once.
    pub(crate) recovery: Zeroizing<String>,
}

/// Why no mesh was made.
#[derive(Debug, thiserror::Error)]
pub(crate) enum InitError {
    /// The coordinator did not answer or said no.
    #[error(transparent)]
    Coordinator(#[from] CoordinatorError),
    /// The two clocks differ by more than the protocol allows.
    #[error("this machine's clock and that of {origin} differ by {} s", skew_ms / 1_000)]
    ClockOff {
        /// The coordinator.
        origin: Origin,
        /// How far apart, milliseconds.
        skew_ms: u64,
    },
    /// The coordinator goes by another origin.
    #[error("the coordinator at {asked} calls itself {own}")]
    OtherOrigin {
        /// Where it was asked.
        asked: Origin,
        /// What it says.
        own: Origin,
    },
    /// The coordinator wants a token and none was given.
    #[error("{0} wants a token before it takes a mesh")]
    TokenMissing(Origin),
    /// What came back is not what was sent, sequenced by that coordinator.
    #[error("{origin} did not sequence what it was given: {what}")]
    BadSequence {
        /// The coordinator.
        origin: Origin,
        /// What is wrong.
        what: String,
    },
    /// The name or the coordinator's key cannot stand in a genesis.
    #[error("the mesh cannot be made")]
    Genesis(#[from] LogError),
}

/// Makes a mesh at the coordinator. `now` is this machine's wall clock.
pub(crate) async fn make_mesh(
    plan: InitPlan,
    ca_file: Option<&Path>,
    now: UnixMs,
) -> Result<MadeMesh, InitError> {
    let InitPlan { name, origin, handle, token } = plan;
    let coordinator = CoordinatorHttp::new(&origin, ca_file)?;
    let info = coordinator.info().await?;
    check_coordinator(&info, &origin, now)?;
    if info.token_required && token.is_none() {
        return Err(InitError::TokenMissing(origin));
    }

    let owner_seed = random::<32>();
    let member_seed = random::<32>();
    let recovery_seed = random::<32>();
    let owner = IdentityKey::from_seed(&owner_seed);
    let member = IdentityKey::from_seed(&member_seed);
    let prekey = BoxSecretKey::from_bytes(*random::<32>());
    let genesis = WireEntry::genesis(
        &owner,
        GenesisParams {
            coordinators: vec![(info.coordinator, info.origin.clone())],
            policy: Policy::default(),
            nonce: *random::<16>(),
            recovery: Some(IdentityKey::from_seed(&recovery_seed).id()),
            name: Some(name.clone()),
            ts: now,
        },
    );
    let mut roster = Roster::begin(&genesis)?;
    let new = NewMember {
        id: member.id(),
        role: Role::Admin,
        handle: handle.clone(),
        prekey: Some(prekey.public()),
    };
    let admission = roster.member_add(&owner, new, now);
    let sent = [genesis, admission];
    let sequenced = coordinator.create_mesh(&sent, token.as_deref()).await?;
    check_sequenced(&mut roster, &sent, &sequenced)
        .map_err(|what| InitError::BadSequence { origin, what })?;

    Ok(MadeMesh {
        mesh: NewMesh {
            id: roster.mesh_id(),
            name,
            handle,
            origin: info.origin,
            member_seed,
            owner_seed: Some(owner_seed),
            entries: sequenced.iter().map(|entry| Bytes::from(entry.encode())).collect(),
            prekey,
        },
        member: member.id(),
        owner: owner.id(),
        recovery: Zeroizing::new(hex_of(&*recovery_seed)),
    })
}

/// The first cause of an error.
fn root_of(error: &dyn std::error::Error) -> String {
    let mut root = error;
    while let Some(source) = root.source() {
        root = source;
    }
    root.to_string()
}

/// Whether the coordinator is the one that was meant, and its clock close enough.
pub(crate) fn check_coordinator(
    info: &CoordinatorInfo,
    asked: &Origin,
    now: UnixMs,
) -> Result<(), InitError> {
    let skew = now.distance(info.now_ms);
    if skew > CLOCK_SKEW_MAX {
        let skew_ms = u64::try_from(skew.as_millis()).unwrap_or(u64::MAX);
        return Err(InitError::ClockOff { origin: asked.clone(), skew_ms });
    }
    if info.origin != *asked {
        return Err(InitError::OtherOrigin { asked: asked.clone(), own: info.origin.clone() });
    }
    Ok(())
}

/// The same statements came back, and all but the genesis carry the coordinator's signature.
fn check_sequenced(roster: &mut Roster, sent: &[WireEntry], got: &[WireEntry]) -> Result<(), String> {
    if got.len() != sent.len() || sent.iter().zip(got).any(|(sent, got)| sent.stmt != got.stmt) {
        return Err("it returned other entries".to_owned());
    }
    for entry in &got[1..] {
        if !roster.verify_seq(entry) {
            return Err("its sequence signature does not hold".to_owned());
        }
        roster.append(entry).map_err(|error| error.to_string())?;
    }
    Ok(())
}

impl From<InitError> for Failure {
    fn from(error: InitError) -> Self {
        let text = chain(&error);
        match error {
            InitError::Coordinator(error) => error.into(),
            InitError::ClockOff { .. } => Self::new(Kind::Failed, "clock", text)
                .next("set this machine's clock (timedatectl set-ntp true), then try again"),
            InitError::OtherOrigin { own, .. } => {
                Self::new(Kind::Denied, "origin", text).next(format!("use that origin: {own}"))
            }
            InitError::TokenMissing(_) => Self::new(Kind::Denied, "token", text).next(
                "pass --token-file FILE or PEERLOOM_MESH_TOKEN; the coordinator's operator finds it in DATA/mesh-token",
            ),
            InitError::BadSequence { .. } => {
                Self::new(Kind::Denied, "sequence", text).next("do not use this coordinator; tell its operator")
            }
            InitError::Genesis(_) => Self::new(Kind::Usage, "genesis", text).next("use another name"),
        }
    }
}

impl From<CoordinatorError> for Failure {
    fn from(error: CoordinatorError) -> Self {
        let text = match &error {
            // The layers in between only say that a request failed.
            CoordinatorError::Unreachable { source, .. } => format!("{error}: {}", root_of(source)),
            CoordinatorError::Trust { .. }
            | CoordinatorError::Refused { .. }
            | CoordinatorError::Malformed { .. } => chain(&error),
        };
        match error {
            CoordinatorError::Trust { .. } => Self::new(Kind::Failed, "tls-trust", text)
                .next("install ca-certificates, or name the authority's file in PEERLOOM_CA_FILE"),
            CoordinatorError::Unreachable { .. } => {
                Self::new(Kind::Unreachable, "coordinator-unreachable", text)
                    .next("check the address and that peerloom-coordinator runs there")
            }
            CoordinatorError::Malformed { origin, .. } => {
                Self::new(Kind::Failed, "coordinator-malformed", text)
                    .next(format!("check what answers at {origin}"))
            }
            CoordinatorError::Refused { status, code, retry_after_s, .. } => {
                let kind = match status {
                    401 | 403 => Kind::Denied,
                    404 => Kind::NotFound,
                    409 => Kind::Conflict,
                    429 => Kind::Busy,
                    500..=599 => Kind::Unreachable,
                    _ => Kind::Failed,
                };
                let next = match (code.as_str(), retry_after_s) {
                    ("token", _) => {
                        "pass the coordinator's token with --token-file FILE or PEERLOOM_MESH_TOKEN"
                            .to_owned()
                    }
                    (_, Some(seconds)) => format!("try again in {seconds} s"),
                    ("skew", None) => "set this machine's clock, then try again".to_owned(),
                    (_, None) if kind == Kind::Busy => "try again in a minute".to_owned(),
                    (_, None) => String::new(),
                };
                Self::new(kind, code, text).next(next)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn info(origin: &str, now_ms: u64) -> CoordinatorInfo {
        CoordinatorInfo {
            coordinator: IdentityKey::from_seed(&[9; 32]).id(),
            origin: Origin::parse(origin).unwrap(),
            version: "0.1.0".to_owned(),
            now_ms: UnixMs(now_ms),
            token_required: false,
            stun_ports: Vec::new(),
            stun_addresses: Vec::new(),
        }
    }

    #[test]
    fn a_clock_off_by_an_hour_is_said_with_the_distance() {
        let asked = Origin::parse("https://mesh.example").unwrap();
        let error =
            check_coordinator(&info("https://mesh.example", 3_600_000), &asked, UnixMs(0)).unwrap_err();
        let failure = Failure::from(error);
        assert_eq!(failure.code, "clock");
        assert_eq!(failure.text, "this machine's clock and that of https://mesh.example differ by 3600 s");
    }

    #[test]
    fn a_coordinator_under_another_name_is_named() {
        let asked = Origin::parse("http://localhost:7700").unwrap();
        let error = check_coordinator(&info("http://127.0.0.1:7700", 0), &asked, UnixMs(0)).unwrap_err();
        let failure = Failure::from(error);
        assert_eq!(failure.kind, Kind::Denied);
        assert_eq!(failure.next, "use that origin: http://127.0.0.1:7700");
    }

    #[test]
    fn entries_with_a_foreign_sequence_signature_are_not_kept() {
        let (owner, member) = (IdentityKey::from_seed(&[1; 32]), IdentityKey::from_seed(&[2; 32]));
        let (coordinator, stranger) = (IdentityKey::from_seed(&[9; 32]), IdentityKey::from_seed(&[8; 32]));
        let genesis = WireEntry::genesis(
            &owner,
            GenesisParams {
                coordinators: vec![(coordinator.id(), Origin::parse("https://mesh.example").unwrap())],
                policy: Policy::default(),
                nonce: [0; 16],
                recovery: None,
                name: None,
                ts: UnixMs(1),
            },
        );
        let roster = Roster::begin(&genesis).unwrap();
        let handle = Handle::parse("laptop").unwrap();
        let new = NewMember { id: member.id(), role: Role::Admin, handle, prekey: None };
        let sent = [genesis.clone(), roster.member_add(&owner, new, UnixMs(1))];
        let sequenced = |key| [genesis.clone(), sent[1].clone().sequence(key, &roster.mesh_id()).unwrap()];

        assert!(check_sequenced(&mut roster.clone(), &sent, &sequenced(&stranger)).is_err());
        assert!(check_sequenced(&mut roster.clone(), &sent, &sent).is_err());
        assert!(check_sequenced(&mut roster.clone(), &sent, &sequenced(&coordinator)).is_ok());
    }
}
