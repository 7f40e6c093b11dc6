//! Log entries as bytes: the statement, its signatures, the coordinator's sequence signature.

use std::time::Duration;

use bytes::Bytes;

use crate::canonical::{DecodeError, Fields, Value, decode, encode, map};
use crate::id::{EntryHash, MeshId, PeerId};
use crate::identity::{Handle, Origin};
use crate::key::{BoxPublicKey, IdentityKey, Signature, VerifyKey};
use crate::limits::{LOG_ENTRY_BYTES_MAX, MESH_NAME_BYTES_MAX};
use crate::roster::{LogError, Policy, Role};
use crate::signed::{box_key, split_signed};
use crate::time::UnixMs;
use crate::transcript::hash;

/// An entry on the wire: `[stmt, [[key, signature]… ascending], seq?]`. Nothing of it is verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WireEntry {
    /// The statement, byte for byte as signed.
    pub stmt: Bytes,
    /// SIGN(key, "log", stmt), ascending by key.
    pub sigs: Vec<(PeerId, Signature)>,
    /// The coordinator's signature on its place in the log; none on genesis and on what is not yet
    /// sequenced.
    pub seq: Option<Signature>,
}

/// What an entry's statement says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The mesh; none exactly in the genesis, whose hash is the mesh.
    pub mesh: Option<MeshId>,
    /// Its place, genesis being 0.
    pub index: u64,
    /// Hash of the entry before; none exactly in the genesis.
    pub prev: Option<EntryHash>,
    /// The author's clock. Never makes an entry invalid.
    pub ts: UnixMs,
    /// Who acts.
    pub author: PeerId,
    /// What is done.
    pub kind: EntryKind,
}

/// What an entry does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EntryKind {
    /// Begins a mesh.
    Genesis(Genesis),
    /// An owner or admin admits a member.
    MemberAdd(MemberAdd),
    /// A joiner admits itself by an invite.
    SelfAdmission(Box<SelfAdmission>),
    /// Changes a member's role.
    Role {
        /// Whose.
        target: PeerId,
        /// To what.
        role: Role,
    },
    /// Revokes a member, session, service or prekey.
    Revoke {
        /// What.
        target: PeerId,
        /// The self-contained revocation.
        stmt: Bytes,
        /// Its signature.
        sig: Signature,
    },
    /// Commits to a topic key. Kept opaque: topics are no concern of membership.
    TopicEpoch,
}

/// Body of a genesis.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Genesis {
    /// Who ranks above all members. Unique; one signature suffices.
    pub owners: Vec<PeerId>,
    /// Who may sequence, and where.
    pub coordinators: Vec<(PeerId, Origin)>,
    /// How fresh a member's view must be.
    pub policy: Policy,
    /// Random: two meshes of one owner differ.
    pub nonce: [u8; 16],
    /// Break-glass key.
    pub recovery: Option<PeerId>,
    /// For people.
    pub name: Option<String>,
}

/// Body of an admission by an owner or admin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemberAdd {
    /// The new member's key.
    pub id: PeerId,
    /// Its role, below the author's.
    pub role: Role,
    /// Its handle.
    pub handle: Handle,
    /// Its first prekey.
    pub prekey: Option<BoxPublicKey>,
}

/// Body of an admission by the joiner itself: what it becomes, and the invite that allows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SelfAdmission {
    /// What it becomes; the prekey is always there.
    pub member: MemberAdd,
    /// The cap statement.
    pub cap: Bytes,
    /// The inviter's signature.
    pub cap_sig: Signature,
    /// The claim statement.
    pub claim: Bytes,
    /// The joiner's signature on it.
    pub claim_sig: Signature,
    /// The invite key's signature on it.
    pub proof: Signature,
}

impl WireEntry {
    /// Strict decode. Refuses signatures that do not ascend.
    pub fn parse(bytes: &[u8]) -> Result<Self, LogError> {
        let mut items = decode(bytes, LOG_ENTRY_BYTES_MAX)?.items()?.into_iter();
        let (Some(stmt), Some(sigs), seq, None) = (items.next(), items.next(), items.next(), items.next())
        else {
            return Err(DecodeError::Length.into());
        };
        let seq = seq.map(|seq| seq.array().map(Signature)).transpose()?;
        let mut pairs = Vec::new();
        for pair in sigs.items()? {
            let [key, sig] = pair.tuple()?;
            pairs.push((PeerId(key.array()?), Signature(sig.array()?)));
        }
        if pairs.windows(2).any(|pair| pair[0].0 >= pair[1].0) {
            return Err(LogError::Signature);
        }
        Ok(Self { stmt: Bytes::copy_from_slice(stmt.bytes()?), sigs: pairs, seq })
    }

    /// The wire form.
    pub fn encode(&self) -> Vec<u8> {
        let pairs =
            self.sigs.iter().map(|(key, sig)| Value::Array(vec![Value::Bytes(&key.0), Value::Bytes(&sig.0)]));
        let seq = self.seq.as_ref().map(|seq| Value::Bytes(&seq.0));
        let items = [Value::Bytes(&self.stmt), Value::Array(pairs.collect())];
        encode(&Value::Array(items.into_iter().chain(seq).collect()))
    }

    /// HASH("entry", statement).
    pub fn entry_hash(&self) -> EntryHash {
        EntryHash(hash("entry", &[&self.stmt]))
    }

    /// The mesh that begins with this entry, should it be a genesis: HASH("mesh", statement).
    pub fn mesh_hash(&self) -> MeshId {
        MeshId(hash("mesh", &[&self.stmt]))
    }

    /// What the statement says.
    pub fn entry(&self) -> Result<Entry, LogError> {
        Entry::parse(&self.stmt)
    }

    /// The same entry with the coordinator's signature on its place.
    pub fn sequence(mut self, coordinator: &IdentityKey, mesh: &MeshId) -> Result<Self, LogError> {
        let index = self.entry()?.index.to_be_bytes();
        self.seq = Some(coordinator.sign(LABEL_SEQ, &[&mesh.0, &index, &self.entry_hash().0]));
        Ok(self)
    }

    /// Whether `coordinator` gave this entry its place in `mesh`.
    pub fn sequenced_by(&self, coordinator: &VerifyKey, mesh: &MeshId) -> bool {
        let (Some(seq), Ok(entry)) = (&self.seq, self.entry()) else { return false };
        coordinator.accepts(seq, LABEL_SEQ, &[&mesh.0, &entry.index.to_be_bytes(), &self.entry_hash().0])
    }
}

impl Entry {
    /// Strict decode of a statement; authority is [`Roster`](crate::Roster)'s.
    pub fn parse(stmt: &[u8]) -> Result<Self, LogError> {
        let mut fields = decode(stmt, LOG_ENTRY_BYTES_MAX)?.fields()?;
        let mesh = fields.optional(0)?.map(|mesh| mesh.array().map(MeshId)).transpose()?;
        let index = fields.take(1)?.uint()?;
        let prev = fields.optional(2)?.map(|prev| prev.array().map(EntryHash)).transpose()?;
        let ts = UnixMs(fields.take(3)?.uint()?);
        let author = PeerId(fields.take(4)?.array()?);
        let kind = fields.take(5)?.uint()?;
        let body = fields.take(6)?.fields()?;
        fields.finish()?;
        let first = kind == GENESIS;
        if first != mesh.is_none() || first != prev.is_none() {
            return Err(if first { DecodeError::UnknownField } else { DecodeError::MissingField }.into());
        }
        Ok(Self { mesh, index, prev, ts, author, kind: EntryKind::parse(kind, body)? })
    }

    /// The statement's canonical bytes. `TopicEpoch` keeps no body and encodes an empty one.
    pub(super) fn encode(&self) -> Vec<u8> {
        let mesh = self.mesh.as_ref().map(|mesh| (0, Value::Bytes(&mesh.0)));
        let prev = self.prev.as_ref().map(|prev| (2, Value::Bytes(&prev.0)));
        let (kind, body) = self.kind.to_value();
        let fields = [
            mesh,
            Some((1, Value::Uint(self.index))),
            prev,
            Some((3, Value::Uint(self.ts.0))),
            Some((4, Value::Bytes(&self.author.0))),
            Some((5, Value::Uint(kind))),
            Some((6, body)),
        ];
        encode(&map(fields.into_iter().flatten()))
    }

    /// Signs the statement with the author's key alone.
    pub(super) fn sign(&self, author: &IdentityKey) -> WireEntry {
        debug_assert_eq!(author.id(), self.author, "the author signs its own entries");
        let stmt = self.encode();
        let sig = author.sign(LABEL_ENTRY, &[&stmt]);
        WireEntry { stmt: stmt.into(), sigs: vec![(self.author, sig)], seq: None }
    }
}

impl EntryKind {
    fn parse(kind: u64, body: Fields<'_>) -> Result<Self, LogError> {
        match kind {
            GENESIS => Genesis::parse(body).map(Self::Genesis),
            MEMBER_ADD => parse_admission(body),
            ROLE => Ok(parse_role(body)?),
            REVOKE => Ok(parse_revoke(body)?),
            TOPIC_EPOCH => Ok(Self::TopicEpoch),
            _ => Err(LogError::Kind(kind)),
        }
    }

    /// The number on the wire.
    pub const fn number(&self) -> u64 {
        match self {
            Self::Genesis(_) => GENESIS,
            Self::MemberAdd(_) | Self::SelfAdmission(_) => MEMBER_ADD,
            Self::Role { .. } => ROLE,
            Self::Revoke { .. } => REVOKE,
            Self::TopicEpoch => TOPIC_EPOCH,
        }
    }

    fn to_value(&self) -> (u64, Value<'_>) {
        let body = match self {
            Self::Genesis(genesis) => genesis.to_value(),
            Self::MemberAdd(member) => map(member.fields()),
            Self::SelfAdmission(own) => map(own.member.fields().chain([
                (4, Value::Bytes(&own.cap)),
                (5, Value::Bytes(&own.cap_sig.0)),
                (6, Value::Bytes(&own.claim)),
                (7, Value::Bytes(&own.claim_sig.0)),
                (8, Value::Bytes(&own.proof.0)),
            ])),
            Self::Role { target, role } => map([(0, Value::Bytes(&target.0)), (1, role.to_value())]),
            Self::Revoke { target, stmt, sig } => {
                let signed = Value::Array(vec![Value::Bytes(stmt), Value::Bytes(&sig.0)]);
                map([(0, Value::Bytes(&target.0)), (1, signed)])
            }
            Self::TopicEpoch => map([]),
        };
        (self.number(), body)
    }
}

impl Genesis {
    fn parse(mut body: Fields<'_>) -> Result<Self, LogError> {
        let owners = body.take(0)?.items()?;
        let owners = owners.iter().map(|owner| owner.array().map(PeerId)).collect::<Result<Vec<_>, _>>()?;
        // Lists and a threshold are in the format; a higher threshold needs rules that do not exist.
        if body.take(1)?.uint()? != THRESHOLD {
            return Err(DecodeError::Type.into());
        }
        let mut coordinators = Vec::new();
        for pair in body.take(2)?.items()? {
            let [key, origin] = pair.tuple()?;
            let origin = Origin::parse(origin.text()?).map_err(|_| DecodeError::Type)?;
            coordinators.push((PeerId(key.array()?), origin));
        }
        let policy = Policy::parse(body.take(3)?.fields()?)?;
        let nonce = body.take(4)?.array()?;
        let recovery = body.optional(5)?.map(|key| key.array().map(PeerId)).transpose()?;
        let name = body.optional(7)?.map(|name| name.text().map(str::to_owned)).transpose()?;
        body.finish()?;
        if name.as_ref().is_some_and(|name| name.is_empty() || name.len() > MESH_NAME_BYTES_MAX) {
            return Err(DecodeError::Size.into());
        }
        Ok(Self { owners, coordinators, policy, nonce, recovery, name })
    }

    fn to_value(&self) -> Value<'_> {
        let owners = self.owners.iter().map(|owner| Value::Bytes(&owner.0));
        let coordinators = self
            .coordinators
            .iter()
            .map(|(key, origin)| Value::Array(vec![Value::Bytes(&key.0), Value::Text(origin.as_str())]));
        let recovery = self.recovery.as_ref().map(|key| (5, Value::Bytes(&key.0)));
        let name = self.name.as_ref().map(|name| (7, Value::Text(name)));
        let fields = [
            (0, Value::Array(owners.collect())),
            (1, Value::Uint(THRESHOLD)),
            (2, Value::Array(coordinators.collect())),
            (3, self.policy.to_value()),
            (4, Value::Bytes(&self.nonce)),
        ];
        map(fields.into_iter().chain(recovery).chain(name))
    }
}

impl Policy {
    fn parse(mut fields: Fields<'_>) -> Result<Self, LogError> {
        let version = fields.take(0)?.uint()?;
        if version != POLICY_VERSION {
            return Err(LogError::Version(version));
        }
        let policy = Self {
            fresh_soft: Duration::from_secs(fields.take(1)?.uint()?),
            fresh_hard: Duration::from_secs(fields.take(2)?.uint()?),
            fresh_max: Duration::from_secs(fields.take(3)?.uint()?),
        };
        fields.finish()?;
        Ok(policy)
    }

    fn to_value(self) -> Value<'static> {
        map([
            (0, Value::Uint(POLICY_VERSION)),
            (1, Value::Uint(self.fresh_soft.as_secs())),
            (2, Value::Uint(self.fresh_hard.as_secs())),
            (3, Value::Uint(self.fresh_max.as_secs())),
        ])
    }
}

impl MemberAdd {
    fn fields(&self) -> impl Iterator<Item = (u64, Value<'_>)> {
        let prekey = self.prekey.as_ref().map(|key| (3, Value::Bytes(key.as_bytes())));
        let fields = [
            (0, Value::Bytes(&self.id.0)),
            (1, self.role.to_value()),
            (2, Value::Text(self.handle.as_str())),
        ];
        fields.into_iter().chain(prekey)
    }
}

fn parse_admission(mut body: Fields<'_>) -> Result<EntryKind, LogError> {
    let id = PeerId(body.take(0)?.array()?);
    let role = Role::from_value(&body.take(1)?)?;
    let handle = Handle::parse(body.take(2)?.text()?)?;
    let prekey = body.optional(3)?.map(|key| box_key(&key)).transpose()?;
    let member = MemberAdd { id, role, handle, prekey };
    let Some(cap) = body.optional(4)? else {
        body.finish()?;
        return Ok(EntryKind::MemberAdd(member));
    };
    if member.prekey.is_none() {
        return Err(DecodeError::MissingField.into());
    }
    let own = SelfAdmission {
        member,
        cap: Bytes::copy_from_slice(cap.bytes()?),
        cap_sig: Signature(body.take(5)?.array()?),
        claim: Bytes::copy_from_slice(body.take(6)?.bytes()?),
        claim_sig: Signature(body.take(7)?.array()?),
        proof: Signature(body.take(8)?.array()?),
    };
    body.finish()?;
    Ok(EntryKind::SelfAdmission(Box::new(own)))
}

fn parse_role(mut body: Fields<'_>) -> Result<EntryKind, DecodeError> {
    let target = PeerId(body.take(0)?.array()?);
    let role = Role::from_value(&body.take(1)?)?;
    body.finish()?;
    Ok(EntryKind::Role { target, role })
}

fn parse_revoke(mut body: Fields<'_>) -> Result<EntryKind, DecodeError> {
    let target = PeerId(body.take(0)?.array()?);
    let (stmt, sig) = split_signed(body.take(1)?)?;
    let stmt = Bytes::copy_from_slice(stmt);
    body.finish()?;
    Ok(EntryKind::Revoke { target, stmt, sig })
}

const GENESIS: u64 = 0;
const MEMBER_ADD: u64 = 1;
const ROLE: u64 = 2;
const REVOKE: u64 = 3;
const TOPIC_EPOCH: u64 = 4;

/// Owner signatures an owner-level entry needs.
const THRESHOLD: u64 = 1;
const POLICY_VERSION: u64 = 2;

pub(super) const LABEL_ENTRY: &str = "log";
const LABEL_SEQ: &str = "sequenced";
