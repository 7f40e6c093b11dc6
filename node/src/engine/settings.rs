//! From keys and rows to the machine's settings.

use peerloom_proto::endpoint::Settings;
use peerloom_proto::paths::PathPolicies;
use peerloom_proto::{IdentityKey, InstanceId, MeshId, Origin, PeerId, Roster, UnixMs, WireEntry};

use crate::daemon::StartError;
use crate::home::MeshInfo;
use crate::keystore::{self, random};
use crate::store::{Loaded, StoreError};

/// Who this node is in one mesh, for as long as the process lives.
#[derive(Debug)]
pub(super) struct Identity {
    mesh: MeshId,
    member: IdentityKey,
    owner: Option<IdentityKey>,
    policies: PathPolicies,
    origin: Origin,
    instance: InstanceId,
}

/// What a rebuilt machine begins with.
pub(super) struct Rebuilt {
    pub(super) settings: Settings,
    /// When each log entry says it was written.
    pub(super) times: Vec<UnixMs>,
}

impl Identity {
    pub(super) fn read(info: &MeshInfo, policies: PathPolicies) -> Result<Self, StartError> {
        let owner = info.owner_key_file();
        Ok(Self {
            mesh: info.id,
            member: keystore::read_key(&info.member_key_file())?,
            owner: if owner.exists() { Some(keystore::read_key(&owner)?) } else { None },
            policies,
            origin: info.origin.clone(),
            instance: InstanceId(*random()),
        })
    }

    pub(super) fn member(&self) -> PeerId {
        self.member.id()
    }

    /// Replays the log and puts everything in its place.
    pub(super) fn rebuild(&self, loaded: Loaded) -> Result<Rebuilt, StoreError> {
        let (roster, times) = self.replay(&loaded)?;
        let settings = Settings {
            member: self.member.clone(),
            owner: self.owner.clone(),
            roster,
            revocations: loaded.revocations,
            on_hold: loaded.on_hold,
            prekeys: loaded.prekeys,
            peer_prekeys: loaded.peer_prekeys,
            outbox: loaded.outbox,
            held: loaded.held,
            conversations: loaded.conversations,
            next_seqs: loaded.next_seqs,
            next_outbox_row: loaded.next_outbox_row,
            next_inbox_row: loaded.next_inbox_row,
            next_position: loaded.next_position,
            generation: loaded.generation,
            fp_secret: loaded.fp_secret,
            floor: loaded.floor,
            coordinator_mark: loaded.coordinator_mark,
            policies: self.policies.clone(),
            origin: self.origin.clone(),
            instance: self.instance,
            seed: *random(),
        };
        Ok(Rebuilt { settings, times })
    }

    fn replay(&self, loaded: &Loaded) -> Result<(Roster, Vec<UnixMs>), StoreError> {
        let damaged = |index: usize, why: &dyn std::fmt::Display| StoreError::Corrupt {
            what: format!("log entry {index} does not replay: {why}"),
        };
        let mut times = Vec::new();
        let mut roster: Option<Roster> = None;
        for (index, bytes) in loaded.entries.iter().enumerate() {
            let wire = WireEntry::parse(bytes).map_err(|error| damaged(index, &error))?;
            times.push(wire.entry().map_err(|error| damaged(index, &error))?.ts);
            match &mut roster {
                None => roster = Some(Roster::begin(&wire).map_err(|error| damaged(index, &error))?),
                Some(roster) => {
                    roster.append(&wire).map_err(|error| damaged(index, &error))?;
                }
            }
        }
        let roster = roster.ok_or_else(|| damaged(0, &"it is missing"))?;
        if roster.mesh_id() != self.mesh {
            return Err(damaged(0, &"it begins another mesh"));
        }
        Ok((roster, times))
    }
}
