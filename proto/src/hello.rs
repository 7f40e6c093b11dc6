//! Hello (protocol.md §6): how a node and its coordinator recognise each other on every connection.
//!
//! 1. The coordinator sends a [`Challenge`]: single-use, ten seconds old at most.
//! 2. The node checks whom it reached, and signs challenge, key and origin: [`SignedHello::answer`].
//! 3. The coordinator checks that all three are its own: [`verify_hello`].
//! 4. It signs a [`Welcome`] over the hello and its signature; the node checks it: [`verify_welcome`].
//!
//! A hello for one coordinator is worth nothing to another, and a recorded one to nobody. Whether
//! the identity is a current member is the coordinator's next question, of its roster.

mod mark;
mod welcome;

use std::time::Duration;

use bytes::Bytes;

pub use mark::{StoreMark, StoreView, log_wanted_by, want_log};
pub use welcome::{SignedWelcome, Welcome, verify_welcome};

use crate::canonical::{DecodeError, Value, decode, encode, map};
use crate::id::{AttestationHash, InstanceId, MeshId, PeerId};
use crate::identity::Origin;
use crate::key::{IdentityKey, Signature, signed_by};
use crate::limits::{CHALLENGE_LIFE, CLOCK_SKEW_MAX, STATEMENT_BYTES_MAX};
use crate::roster::Head;
use crate::signed::Signed;
use crate::time::UnixMs;
use crate::transcript::hash;

/// First word of a coordinator. Unsigned: the welcome vouches for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Challenge {
    /// The coordinator's key.
    pub coordinator: PeerId,
    /// Random, never used twice.
    pub nonce: [u8; 32],
    /// The coordinator's clock.
    pub ts: UnixMs,
    /// Wire versions it speaks.
    pub protocols: Vec<u64>,
    /// Names of optional features.
    pub features: Vec<String>,
    /// Where it says it is.
    pub origin: Origin,
}

/// As what an identity connects.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum HelloRole {
    /// A node, under its member key.
    ControlPlane = 0,
    /// A session, with its attestation.
    Session = 1,
    /// A service, with its attestation.
    Service = 2,
}

/// A node's answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hello {
    /// Which mesh.
    pub mesh: MeshId,
    /// As what.
    pub role: HelloRole,
    /// Who connects, and signs.
    pub id: PeerId,
    /// The attestation; none exactly for the control plane.
    pub auth: Option<AttestationHash>,
    /// Random.
    pub nonce: [u8; 32],
    /// HASH("challenge", challenge).
    pub challenge: [u8; 32],
    /// The coordinator it means to speak to.
    pub coordinator: PeerId,
    /// Where it means to have reached it.
    pub origin: Origin,
    /// The node's clock.
    pub ts: UnixMs,
    /// Names of optional features.
    pub features: Vec<String>,
    /// The node's log head.
    pub head: Head,
    /// The running process.
    pub instance: InstanceId,
    /// Grows with each connection of the instance: of two open sockets the older one is closed.
    pub counter: u64,
    /// Kind of channel binding; empty so far.
    pub binding_kind: String,
    /// Channel binding; empty so far.
    pub binding: Bytes,
    /// The furthest place of this coordinator's store that it was told of.
    pub mark: Option<StoreMark>,
}

/// A hello whose signature holds.
pub type SignedHello = Signed<Hello>;

/// Why two sides do not recognise each other.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HelloError {
    /// Not a well-formed statement.
    #[error("malformed {what}: {error}")]
    Decode {
        /// Which statement.
        what: &'static str,
        /// What is wrong with it.
        error: DecodeError,
    },
    /// The other side does not speak version 2.
    #[error("no common protocol version, the other side offers {0:?}")]
    Version(Vec<u64>),
    /// The coordinator, or the node, means another place.
    #[error("meant {expected}, the other side means {found}")]
    WrongOrigin {
        /// The place this side knows.
        expected: Origin,
        /// The place the other side named.
        found: Origin,
    },
    /// The key is not a coordinator of the mesh at that origin, or not this coordinator.
    #[error("{} is not the coordinator's key here", .0.short())]
    WrongCoordinator(PeerId),
    /// The answer is to another challenge.
    #[error("the hello answers another challenge")]
    WrongChallenge,
    /// The challenge is older than it may be.
    #[error("the challenge is {0:?} old")]
    StaleChallenge(Duration),
    /// The clocks differ by more than five minutes. Sending stops; the outbox stays.
    #[error("this clock says {} ms, the other side's {} ms", ours.0, theirs.0)]
    Skew {
        /// This side's clock.
        ours: UnixMs,
        /// The other side's.
        theirs: UnixMs,
    },
    /// The welcome is for another hello.
    #[error("the welcome answers another hello")]
    WrongHello,
    /// The signature does not hold.
    #[error("the signature does not hold")]
    Signature,
}

impl Challenge {
    /// Strict decode.
    pub fn parse(stmt: &[u8]) -> Result<Self, DecodeError> {
        let mut fields = decode(stmt, STATEMENT_BYTES_MAX)?.fields()?;
        version(&fields.take(0)?)?;
        let coordinator = PeerId(fields.take(1)?.array()?);
        let nonce = fields.take(2)?.array()?;
        let ts = UnixMs(fields.take(3)?.uint()?);
        let protocols = fields.take(4)?.items()?.iter().map(Value::uint).collect::<Result<_, _>>()?;
        let features = texts(fields.take(5)?)?;
        let origin = origin(&fields.take(6)?)?;
        fields.finish()?;
        Ok(Self { coordinator, nonce, ts, protocols, features, origin })
    }

    /// The statement's canonical bytes.
    pub fn encode(&self) -> Vec<u8> {
        encode(&map([
            (0, Value::Uint(VERSION)),
            (1, Value::Bytes(&self.coordinator.0)),
            (2, Value::Bytes(&self.nonce)),
            (3, Value::Uint(self.ts.0)),
            (4, Value::Array(self.protocols.iter().map(|version| Value::Uint(*version)).collect())),
            (5, text_values(&self.features)),
            (6, Value::Text(self.origin.as_str())),
        ]))
    }
}

impl Hello {
    /// Strict decode; nothing is verified.
    pub fn parse(stmt: &[u8]) -> Result<Self, DecodeError> {
        let mut fields = decode(stmt, STATEMENT_BYTES_MAX)?.fields()?;
        version(&fields.take(0)?)?;
        let mesh = MeshId(fields.take(1)?.array()?);
        let role = match fields.take(2)?.uint()? {
            0 => HelloRole::ControlPlane,
            1 => HelloRole::Session,
            2 => HelloRole::Service,
            _ => return Err(DecodeError::Type),
        };
        let id = PeerId(fields.take(3)?.array()?);
        let auth = fields.optional(4)?.map(|auth| auth.array().map(AttestationHash)).transpose()?;
        match (role, auth) {
            (HelloRole::ControlPlane, Some(_)) => return Err(DecodeError::UnknownField),
            (HelloRole::Session | HelloRole::Service, None) => return Err(DecodeError::MissingField),
            (HelloRole::ControlPlane, None) | (HelloRole::Session | HelloRole::Service, Some(_)) => {}
        }
        let nonce = fields.take(5)?.array()?;
        let challenge = fields.take(6)?.array()?;
        let coordinator = PeerId(fields.take(7)?.array()?);
        let origin = origin(&fields.take(8)?)?;
        let ts = UnixMs(fields.take(9)?.uint()?);
        let features = texts(fields.take(10)?)?;
        let head = Head::from_value(fields.take(11)?)?;
        let [instance, counter] = fields.take(12)?.tuple()?;
        let (instance, counter) = (InstanceId(instance.array()?), counter.uint()?);
        let binding_kind = fields.take(13)?.text()?.to_owned();
        let binding = Bytes::copy_from_slice(fields.take(14)?.bytes()?);
        let mark = fields.optional(15)?.map(StoreMark::from_value).transpose()?;
        fields.finish()?;
        Ok(Self {
            mesh,
            role,
            id,
            auth,
            nonce,
            challenge,
            coordinator,
            origin,
            ts,
            features,
            head,
            instance,
            counter,
            binding_kind,
            binding,
            mark,
        })
    }

    /// The statement's canonical bytes.
    pub fn encode(&self) -> Vec<u8> {
        let instance = vec![Value::Bytes(&self.instance.0), Value::Uint(self.counter)];
        let auth = self.auth.as_ref().map(|auth| (4, Value::Bytes(&auth.0)));
        let before = [
            (0, Value::Uint(VERSION)),
            (1, Value::Bytes(&self.mesh.0)),
            (2, Value::Uint(self.role as u64)),
            (3, Value::Bytes(&self.id.0)),
        ];
        let after = [
            (5, Value::Bytes(&self.nonce)),
            (6, Value::Bytes(&self.challenge)),
            (7, Value::Bytes(&self.coordinator.0)),
            (8, Value::Text(self.origin.as_str())),
            (9, Value::Uint(self.ts.0)),
            (10, text_values(&self.features)),
            (11, self.head.to_value()),
            (12, Value::Array(instance)),
            (13, Value::Text(&self.binding_kind)),
            (14, Value::Bytes(&self.binding)),
        ];
        let mark = self.mark.as_ref().map(|mark| (15, mark.as_value()));
        encode(&map(before.into_iter().chain(auth).chain(after).chain(mark)))
    }
}

/// What a node brings to the answer of a challenge.
#[derive(Clone, Debug)]
pub struct Answer<'a> {
    /// The key it connects under.
    pub identity: &'a IdentityKey,
    /// As what.
    pub role: HelloRole,
    /// The attestation; none exactly for the control plane.
    pub auth: Option<AttestationHash>,
    /// Which mesh.
    pub mesh: MeshId,
    /// The coordinators its log names.
    pub coordinators: &'a [(PeerId, Origin)],
    /// The origin it dialled.
    pub origin: &'a Origin,
    /// Random.
    pub nonce: [u8; 32],
    /// Names of optional features.
    pub features: &'a [&'a str],
    /// Its log head.
    pub head: Head,
    /// The running process.
    pub instance: InstanceId,
    /// One more than at the connection before.
    pub counter: u64,
    /// The furthest place of this coordinator's store that it was told of.
    pub mark: Option<StoreMark>,
    /// Its clock.
    pub now: UnixMs,
}

impl Signed<Hello> {
    /// Answers a challenge, if it comes from the coordinator that the log names for the dialled
    /// origin, and from about the same time.
    pub fn answer(challenge: &[u8], with: &Answer<'_>) -> Result<Self, HelloError> {
        let parsed = Challenge::parse(challenge).map_err(|error| malformed("challenge", error))?;
        if !parsed.protocols.contains(&VERSION) {
            return Err(HelloError::Version(parsed.protocols));
        }
        if parsed.origin != *with.origin {
            return Err(HelloError::WrongOrigin { expected: with.origin.clone(), found: parsed.origin });
        }
        let known = |(key, origin): &(PeerId, Origin)| *key == parsed.coordinator && origin == with.origin;
        if !with.coordinators.iter().any(known) {
            return Err(HelloError::WrongCoordinator(parsed.coordinator));
        }
        check_skew(with.now, parsed.ts)?;
        let hello = Hello {
            mesh: with.mesh,
            role: with.role,
            id: with.identity.id(),
            auth: with.auth,
            nonce: with.nonce,
            challenge: challenge_hash(challenge),
            coordinator: parsed.coordinator,
            origin: parsed.origin,
            ts: with.now,
            features: with.features.iter().map(|feature| (*feature).to_owned()).collect(),
            head: with.head,
            instance: with.instance,
            counter: with.counter,
            binding_kind: String::new(),
            binding: Bytes::new(),
            mark: with.mark,
        };
        Ok(Self::by(with.identity, LABEL_HELLO, hello.encode(), hello))
    }

    /// HASH("hello", hello, signature): what the welcome names.
    pub fn transcript(&self) -> [u8; 32] {
        hash("hello", &[self.stmt(), &self.sig().0])
    }
}

/// What a coordinator holds a hello against.
#[derive(Clone, Debug)]
pub struct HelloCheck<'a> {
    /// The challenge it sent on this socket, byte for byte.
    pub challenge: &'a [u8],
    /// When it sent it.
    pub challenged_at: UnixMs,
    /// Its own key.
    pub coordinator: &'a PeerId,
    /// Its own origin.
    pub origin: &'a Origin,
    /// Its clock.
    pub now: UnixMs,
}

/// Checks a hello: own key, own origin, own fresh challenge, about the same time, and the signature
/// of the identity it names.
pub fn verify_hello(stmt: &[u8], sig: &Signature, check: &HelloCheck<'_>) -> Result<SignedHello, HelloError> {
    let hello = Hello::parse(stmt).map_err(|error| malformed("hello", error))?;
    if hello.coordinator != *check.coordinator {
        return Err(HelloError::WrongCoordinator(hello.coordinator));
    }
    if hello.origin != *check.origin {
        return Err(HelloError::WrongOrigin { expected: check.origin.clone(), found: hello.origin });
    }
    if hello.challenge != challenge_hash(check.challenge) {
        return Err(HelloError::WrongChallenge);
    }
    let age = check.now.since(check.challenged_at);
    if age > CHALLENGE_LIFE {
        return Err(HelloError::StaleChallenge(age));
    }
    check_skew(check.now, hello.ts)?;
    if !signed_by(&hello.id, sig, LABEL_HELLO, &[stmt]) {
        return Err(HelloError::Signature);
    }
    Ok(Signed::verified(Bytes::copy_from_slice(stmt), *sig, hello))
}

/// HASH("challenge", challenge).
pub fn challenge_hash(challenge: &[u8]) -> [u8; 32] {
    hash("challenge", &[challenge])
}

fn check_skew(ours: UnixMs, theirs: UnixMs) -> Result<(), HelloError> {
    if ours.distance(theirs) > CLOCK_SKEW_MAX { Err(HelloError::Skew { ours, theirs }) } else { Ok(()) }
}

fn malformed(what: &'static str, error: DecodeError) -> HelloError {
    HelloError::Decode { what, error }
}

fn version(value: &Value<'_>) -> Result<(), DecodeError> {
    if value.uint()? == VERSION { Ok(()) } else { Err(DecodeError::Type) }
}

fn origin(value: &Value<'_>) -> Result<Origin, DecodeError> {
    Origin::parse(value.text()?).map_err(|_| DecodeError::Type)
}

fn texts(value: Value<'_>) -> Result<Vec<String>, DecodeError> {
    value.items()?.iter().map(|item| item.text().map(str::to_owned)).collect()
}

fn text_values(texts: &[String]) -> Value<'_> {
    Value::Array(texts.iter().map(|text| Value::Text(text)).collect())
}

const VERSION: u64 = 2;
const LABEL_HELLO: &str = "hello";

#[cfg(test)]
mod tests;
