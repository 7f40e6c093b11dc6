//! What a socket's bytes are read as. Pure, and done by the socket's own task: decoding, hashing and
//! the check of a receipt's signature cost the hub nothing.

use bytes::Bytes;
use peerloom_proto::limits::FRAME_BYTES_MAX;
use peerloom_proto::wire::{Claim, SignedBytes, ToCoordinator};
use peerloom_proto::{
    EnvHash, MeshId, PeerId, Priority, Receipt, ReceiptError, Recipient, SignedReceipt, UnixMs,
    UnverifiedEnvelope, UnverifiedReceipt, VerifyKey,
};

/// One frame of a node.
#[derive(Debug)]
pub enum Arrived {
    /// An envelope of the right shape.
    Put(Put),
    /// A receipt whose signature holds, and one claim a row (0 for mail that came directly).
    Receipt {
        /// What it says, as signed.
        receipt: SignedReceipt,
        /// The claims.
        claims: Vec<Claim>,
    },
    /// Any other frame, decoded and not looked at.
    Frame(ToCoordinator),
    /// Not a frame of this protocol. The connection it came on is closed.
    Garbage {
        /// What is wrong with it.
        text: String,
    },
}

/// What the coordinator reads of an envelope: its header. The signature is the recipient's to check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Put {
    /// Names the envelope.
    pub env_hash: EnvHash,
    /// Which mesh.
    pub mesh: MeshId,
    /// Who signed it, it says.
    pub from: PeerId,
    /// Whom it is for.
    pub to: Recipient,
    /// When it was sealed, it says.
    pub ts: UnixMs,
    /// When it is worthless.
    pub exp: UnixMs,
    /// How soon it wants to be read.
    pub priority: Priority,
    /// The envelope, byte for byte.
    pub envelope: Bytes,
}

impl Arrived {
    /// Reads one frame. Only receipts and statements share its memory.
    pub fn read(frame: &Bytes) -> Self {
        match ToCoordinator::decode(frame, FRAME_BYTES_MAX) {
            Ok(ToCoordinator::Put { envelope }) => Put::read(envelope),
            Ok(ToCoordinator::Receipt { receipt, claims }) => match verify(receipt) {
                Ok(receipt) => Self::Receipt { receipt, claims },
                Err(error) => Self::Garbage { text: error.to_string() },
            },
            Ok(other) => Self::Frame(other),
            Err(error) => Self::Garbage { text: format!("frame refused: {error}") },
        }
    }
}

impl Put {
    fn read(envelope: Bytes) -> Arrived {
        match UnverifiedEnvelope::parse(envelope) {
            Ok(parsed) => {
                let header = parsed.header();
                Arrived::Put(Self {
                    env_hash: parsed.env_hash(),
                    mesh: header.mesh,
                    from: header.from,
                    to: header.to,
                    ts: header.ts,
                    exp: header.exp,
                    priority: header.priority,
                    // Its own memory: a slice would keep the socket's whole read buffer for as long
                    // as the row waits for the disk, twice and more of what the backlog counts.
                    envelope: Bytes::copy_from_slice(parsed.wire()),
                })
            }
            Err(reject) => Arrived::Garbage { text: format!("envelope refused: {reject}") },
        }
    }
}

/// The signature is checked with the key that the receipt names; whether that is the socket's own is
/// the hub's question.
fn verify(receipt: SignedBytes) -> Result<SignedReceipt, ReceiptError> {
    let said = Receipt::parse(&receipt.stmt)?;
    let key = VerifyKey::parse(&said.by).map_err(|_| ReceiptError::Signature)?;
    UnverifiedReceipt::parse(receipt.stmt, receipt.sig, &said.mesh)?.verify(&key)
}
