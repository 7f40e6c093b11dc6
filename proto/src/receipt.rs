//! Receipts (protocol.md §14): one signature by which a recipient says what became of a batch of
//! envelopes. The coordinator deletes, and the sender settles, on nothing less.

use std::fmt;

use bytes::Bytes;

use crate::canonical::{DecodeError, Value, decode, encode, map};
use crate::id::{EnvHash, MeshId, MessageId, PeerId};
use crate::key::{IdentityKey, Signature, VerifyKey};
use crate::limits::{RECEIPT_BYTES_MAX, RECEIPT_ROWS_MAX};
use crate::roster::Head;
use crate::signed::Signed;
use crate::time::UnixMs;

/// What became of one envelope.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum ReceiptStatus {
    /// On the recipient's disk.
    Stored = 0,
    /// A reader, hook or agent confirmed it.
    Surfaced = 1,
    /// Refused for good; the code says why.
    Rejected = 2,
    /// Not taken this time: the sender seals again or waits. Not terminal.
    Retry = 3,
}

/// Why, as a number on the wire. Numbers of a later version are kept, and shown as `code-N`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ReceiptCode(pub u64);

/// One envelope of the batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReceiptRow {
    /// Which sealed envelope.
    pub env_hash: EnvHash,
    /// The sender's id of it.
    pub id: MessageId,
    /// What became of it.
    pub status: ReceiptStatus,
    /// Why, for `Rejected` and `Retry`.
    pub code: Option<ReceiptCode>,
}

/// What a receipt says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Receipt {
    /// The mesh.
    pub mesh: MeshId,
    /// The recipient of the envelopes, who signs.
    pub by: PeerId,
    /// Their sender.
    pub to: PeerId,
    /// 1 to [`RECEIPT_ROWS_MAX`] envelopes.
    pub rows: Vec<ReceiptRow>,
    /// The recipient's clock.
    pub ts: UnixMs,
    /// The recipient's log head.
    pub head: Head,
}

/// A receipt whose signature holds.
pub type SignedReceipt = Signed<Receipt>;

/// Why a receipt does not count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReceiptError {
    /// Not well-formed.
    #[error("malformed receipt: {0}")]
    Decode(#[from] DecodeError),
    /// For another mesh.
    #[error("the receipt is for another mesh")]
    Mesh,
    /// The key asked about is not the one the receipt names.
    #[error("the receipt is by another peer")]
    Signer,
    /// Not signed by the recipient it names.
    #[error("the receipt's signature does not hold")]
    Signature,
}

/// A well-formed receipt: it says whose key it wants to be verified with.
#[derive(Clone, Debug)]
pub struct UnverifiedReceipt {
    stmt: Bytes,
    sig: Signature,
    receipt: Receipt,
}

impl ReceiptCode {
    /// `retry:unknown-kid`: sealed to a key that the recipient does not hold.
    pub const UNKNOWN_KID: Self = Self(1);
    /// `retry:epoch-old`: sealed to a topic key that has a successor.
    pub const EPOCH_OLD: Self = Self(2);
    /// `retry:recipient-full`: no room; later.
    pub const RECIPIENT_FULL: Self = Self(3);
    /// The sender, or the member behind it, was revoked.
    pub const REVOKED: Self = Self(23);
    /// The session that was addressed has ended.
    pub const SESSION_ENDED: Self = Self(38);

    /// The number of a reason name.
    pub fn of(name: &str) -> Option<Self> {
        CODES.iter().find(|(_, known)| *known == name).map(|(number, _)| Self(*number))
    }

    /// The reason name of a number known here.
    pub fn name(self) -> Option<&'static str> {
        CODES.iter().find(|(number, _)| *number == self.0).map(|(_, name)| *name)
    }
}

impl fmt::Display for ReceiptCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.pad(name),
            None => write!(f, "code-{}", self.0),
        }
    }
}

impl fmt::Debug for ReceiptCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ReceiptCode({self})")
    }
}

impl ReceiptStatus {
    fn from_value(value: &Value<'_>) -> Result<Self, DecodeError> {
        match value.uint()? {
            0 => Ok(Self::Stored),
            1 => Ok(Self::Surfaced),
            2 => Ok(Self::Rejected),
            3 => Ok(Self::Retry),
            _ => Err(DecodeError::Type),
        }
    }
}

impl ReceiptRow {
    fn parse(value: Value<'_>) -> Result<Self, DecodeError> {
        let items = value.items()?;
        let ([env_hash, id, status] | [env_hash, id, status, _]) = items.as_slice() else {
            return Err(DecodeError::Length);
        };
        Ok(Self {
            env_hash: EnvHash(env_hash.array()?),
            id: MessageId(id.array()?),
            status: ReceiptStatus::from_value(status)?,
            code: items.get(3).map(|code| code.uint().map(ReceiptCode)).transpose()?,
        })
    }

    fn to_value(&self) -> Value<'_> {
        let row = [Value::Bytes(&self.env_hash.0), Value::Bytes(&self.id.0), Value::Uint(self.status as u64)];
        Value::Array(row.into_iter().chain(self.code.map(|code| Value::Uint(code.0))).collect())
    }
}

impl Receipt {
    /// Strict decode; nothing is verified.
    pub fn parse(stmt: &[u8]) -> Result<Self, DecodeError> {
        let mut fields = decode(stmt, RECEIPT_BYTES_MAX)?.fields()?;
        let mesh = MeshId(fields.take(0)?.array()?);
        let by = PeerId(fields.take(1)?.array()?);
        let to = PeerId(fields.take(2)?.array()?);
        let rows = fields.take(3)?.items()?;
        if !(1..=RECEIPT_ROWS_MAX).contains(&rows.len()) {
            return Err(DecodeError::Length);
        }
        let rows = rows.into_iter().map(ReceiptRow::parse).collect::<Result<_, _>>()?;
        let ts = UnixMs(fields.take(4)?.uint()?);
        let head = Head::from_value(fields.take(5)?)?;
        fields.finish()?;
        Ok(Self { mesh, by, to, rows, ts, head })
    }

    /// The statement's canonical bytes.
    pub fn encode(&self) -> Vec<u8> {
        encode(&map([
            (0, Value::Bytes(&self.mesh.0)),
            (1, Value::Bytes(&self.by.0)),
            (2, Value::Bytes(&self.to.0)),
            (3, Value::Array(self.rows.iter().map(ReceiptRow::to_value).collect())),
            (4, Value::Uint(self.ts.0)),
            (5, self.head.to_value()),
        ]))
    }
}

impl Signed<Receipt> {
    /// Signs a receipt with the recipient's key, which it must name. At most
    /// [`RECEIPT_ROWS_MAX`] rows, else every reader refuses it.
    pub fn sign(by: &IdentityKey, receipt: Receipt) -> Self {
        debug_assert_eq!(by.id(), receipt.by, "a recipient signs its own receipts");
        debug_assert!((1..=RECEIPT_ROWS_MAX).contains(&receipt.rows.len()), "rows are batched by the caller");
        Self::by(by, LABEL, receipt.encode(), receipt)
    }
}

impl UnverifiedReceipt {
    /// Strict decode and mesh.
    pub fn parse(stmt: Bytes, sig: Signature, mesh: &MeshId) -> Result<Self, ReceiptError> {
        let receipt = Receipt::parse(&stmt)?;
        if receipt.mesh == *mesh { Ok(Self { stmt, sig, receipt }) } else { Err(ReceiptError::Mesh) }
    }

    /// Whose key to verify with.
    pub const fn by(&self) -> &PeerId {
        &self.receipt.by
    }

    /// Checks the signature, with the key of [`Self::by`] as the roster or an attestation has it.
    pub fn verify(self, key: &VerifyKey) -> Result<SignedReceipt, ReceiptError> {
        if key.id() != self.receipt.by {
            return Err(ReceiptError::Signer);
        }
        if !key.accepts(&self.sig, LABEL, &[&self.stmt]) {
            return Err(ReceiptError::Signature);
        }
        Ok(Signed::verified(self.stmt, self.sig, self.receipt))
    }
}

const LABEL: &str = "receipt";

/// 1 to 15 come with `Retry`; from 16 on the protocol's reason names in its own order.
const CODES: &[(u64, &str)] = &[
    (1, "unknown-kid"),
    (2, "epoch-old"),
    (3, "recipient-full"),
    (4, "unknown-attestation"),
    (5, "held"),
    (16, "size"),
    (17, "non-canonical"),
    (18, "type"),
    (19, "depth"),
    (20, "length"),
    (21, "missing-field"),
    (22, "unknown-field"),
    (23, "revoked"),
    (24, "version"),
    (25, "suite"),
    (26, "channel"),
    (27, "mesh"),
    (28, "signature"),
    (29, "not-a-member"),
    (30, "possession"),
    (31, "ttl"),
    (32, "attestation-window"),
    (33, "attestation-mismatch"),
    (34, "capability"),
    (35, "not-for-me"),
    (36, "expiry"),
    (37, "stale"),
    (38, "session-ended"),
    (39, "decrypt"),
    (40, "header-binding"),
    (41, "padding"),
    (42, "conflict"),
];

#[cfg(test)]
mod tests;
