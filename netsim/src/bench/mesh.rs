//! Members without nodes: their keys are here, their places in the log are given by the real
//! coordinator, through its HTTP API and through a link.

use std::net::SocketAddr;
use std::path::Path;

use anyhow::{Context, bail, ensure};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use peerloom_proto::wire::{ToCoordinator, ToNode};
use peerloom_proto::{
    BoxPublicKey, BoxSecretKey, Entropy, EntryHash, GenesisParams, Handle, Head, IdentityKey, MeshId,
    NewMember, Origin, Policy, Role, Roster, WireEntry,
};
use serde_json::json;

use super::link::{Caller, Link};
use super::process::{Coordinator, Node};
use crate::progress::Progress;

/// Entries that a mesh may begin with, at the coordinator's HTTP API: its genesis and these.
const FIRST_MEMBERS: usize = 15;

/// Entries on their way at once. The coordinator parks 64.
const APPENDS_IN_FLIGHT: usize = 48;

/// A member that only sends and receives.
pub(crate) struct LoadMember {
    pub(crate) identity: IdentityKey,
    /// What others seal to.
    pub(crate) prekey: BoxPublicKey,
}

/// A mesh whose keys are all here.
pub(crate) struct LoadMesh {
    pub(crate) addr: SocketAddr,
    pub(crate) origin: Origin,
    pub(crate) roster: Roster,
    pub(crate) members: Vec<LoadMember>,
    owner: IdentityKey,
    entropy: Entropy,
}

impl LoadMesh {
    /// Makes a mesh of so many members.
    pub(crate) fn create(
        coordinator: &Coordinator,
        members: usize,
        progress: &Progress,
    ) -> anyhow::Result<Self> {
        let mut entropy = super::entropy("mesh");
        let owner = IdentityKey::from_seed(&entropy.bytes());
        let genesis = GenesisParams {
            coordinators: vec![(coordinator.key, coordinator.origin.clone())],
            policy: Policy::default(),
            nonce: entropy.bytes(),
            recovery: None,
            name: Some("bench".to_owned()),
            ts: super::now(),
        };
        let genesis = WireEntry::genesis(&owner, genesis);
        let roster = Roster::begin(&genesis)?;
        let (addr, origin) = (coordinator.addr, coordinator.origin.clone());
        let mut mesh = Self { addr, origin, roster, members: Vec::new(), owner, entropy };
        let mut entries = vec![genesis];
        for _ in 0..members.min(FIRST_MEMBERS) {
            entries.push(mesh.admit()?);
        }
        let encoded: Vec<String> =
            entries.iter().map(|entry| URL_SAFE_NO_PAD.encode(entry.encode())).collect();
        let body = json!({ "entries": encoded }).to_string();
        let answer = coordinator.http()?.post("/v2/meshes", "application/json", body.as_bytes())?;
        ensure!(answer.status == 201, "the coordinator refuses the mesh: {}", answer.text()?);
        mesh.grow(members.saturating_sub(FIRST_MEMBERS), progress)?;
        Ok(mesh)
    }

    /// Takes over the mesh that a node began, while its daemon is down: the node becomes member 0.
    pub(crate) fn of_node(coordinator: &Coordinator, node: &Node) -> anyhow::Result<Self> {
        let dir = node.mesh_dir()?;
        let identity = read_key(&dir.join("member.key"))?;
        let owner = read_key(&dir.join("owner.key"))?;
        let name = dir.file_name().context("a mesh directory is named by its mesh")?;
        let mesh = name.to_string_lossy().parse()?;
        let roster = read_log(coordinator, mesh, &identity)?;
        let member = roster.member(&identity.id()).context("the node is no member")?;
        let prekey = member.prekey.context("the node has no prekey in the log")?;
        let (addr, origin) = (coordinator.addr, coordinator.origin.clone());
        let members = vec![LoadMember { identity, prekey }];
        Ok(Self { addr, origin, roster, members, owner, entropy: super::entropy("mesh") })
    }

    /// Connects as a member.
    pub(crate) fn hello(&self, member: usize) -> anyhow::Result<Link> {
        Link::hello(&Caller {
            addr: self.addr,
            origin: &self.origin,
            mesh: self.roster.mesh_id(),
            coordinators: self.roster.coordinators(),
            head: self.roster.head(),
            identity: &self.members[member].identity,
            number: u32::try_from(member)?,
        })
    }

    /// Admits more members through the first one's link.
    pub(crate) fn grow(&mut self, more: usize, progress: &Progress) -> anyhow::Result<()> {
        if more == 0 {
            return Ok(());
        }
        let mut link = self.hello(0)?;
        let (mut sent, mut placed) = (0, 0);
        while placed < more {
            while sent < more && sent - placed < APPENDS_IN_FLIGHT {
                let entry = Bytes::from(self.admit()?.encode());
                link.send(&ToCoordinator::LogAppend { request: sent as u64, entry })?;
                sent += 1;
            }
            let answer = link.receive()?;
            if matches!(answer, ToNode::Appended { .. }) {
                placed += 1;
            } else {
                // Every entry also comes as everybody gets it.
                ensure!(matches!(answer, ToNode::Entries { .. }), "an entry got no place: {answer:?}");
            }
            progress.at("members", placed, more);
        }
        link.close();
        Ok(())
    }

    /// Makes keys and the entry that admits them, on top of the log as it is here.
    fn admit(&mut self) -> anyhow::Result<WireEntry> {
        let identity = IdentityKey::from_seed(&self.entropy.bytes());
        let prekey = BoxSecretKey::from_bytes(self.entropy.bytes()).public();
        let handle = Handle::parse(&format!("load-{}", self.members.len()))?;
        let new = NewMember { id: identity.id(), role: Role::Member, handle, prekey: Some(prekey) };
        let entry = self.roster.member_add(&self.owner, new, super::now());
        self.roster.append(&entry)?;
        self.members.push(LoadMember { identity, prekey });
        Ok(entry)
    }
}

/// The whole log, as a member gets it.
fn read_log(coordinator: &Coordinator, mesh: MeshId, identity: &IdentityKey) -> anyhow::Result<Roster> {
    let mut link = Link::hello(&Caller {
        addr: coordinator.addr,
        origin: &coordinator.origin,
        mesh,
        coordinators: &[(coordinator.key, coordinator.origin.clone())],
        // Nothing is known yet, and this says so.
        head: Head { size: 0, hash: EntryHash([0; 32]) },
        identity,
        number: 0,
    })?;
    link.send(&ToCoordinator::LogGet { from: 0 })?;
    let ToNode::Entries { entries, size, .. } = link.receive()? else {
        bail!("the coordinator gives no log")
    };
    ensure!(entries.len() as u64 == size, "the log has more pages than a new mesh should");
    let (genesis, following) = entries.split_first().context("the log is empty")?;
    let mut roster = Roster::begin(&WireEntry::parse(genesis)?)?;
    for entry in following {
        roster.append(&WireEntry::parse(entry)?)?;
    }
    link.close();
    Ok(roster)
}

/// A seed as a node keeps it: 64 hexadecimal digits.
fn read_key(path: &Path) -> anyhow::Result<IdentityKey> {
    let text = std::fs::read_to_string(path).with_context(|| format!("failed to read {}", path.display()))?;
    // A key is 32 bytes of hexadecimal text, and so is an id.
    let seed: peerloom_proto::PeerId = text.trim().parse().context("a key file holds 64 digits")?;
    Ok(IdentityKey::from_seed(seed.as_bytes()))
}
