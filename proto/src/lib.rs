//! The Peerloom protocol, version 2: pure machines over bytes, time and randomness that the host
//! passes in. Read the modules in this order.

// Bytes, names, keys.
mod canonical;
mod id;
mod key;
pub mod limits;
#[cfg(feature = "memo")]
mod memo;
mod time;
mod transcript;

pub use canonical::{DecodeError, Fields, Value, decode, encode, map};
pub use id::{
    AttestationHash, CertHash, ConnId, EntryHash, EnvHash, Fingerprint, Generation, GroupId, IdParseError,
    InstanceId, InviteId, InviteLookup, Kid, MeshId, MessageId, PeerId, RunId, hex_of,
};
pub use key::{BoxPublicKey, BoxSecretKey, IdentityKey, KeyError, Signature, VerifyKey, signed_by};
pub use time::{Monotonic, Now, UnixMs};
pub use transcript::{hash, hash16, sha256};

// Signed statements: who someone is, who belongs, what was received, who is at the other end.
mod bind;
mod hello;
mod identity;
mod invite;
mod prekey;
mod receipt;
mod revocation;
mod roster;
mod signed;

pub use bind::{Bind, BindCheck, BindError, BindRole, BindTransport, SignedBind, verify_bind};
pub use hello::{
    Answer, Challenge, Hello, HelloCheck, HelloError, HelloRole, SignedHello, SignedWelcome, StoreMark,
    StoreView, Welcome, challenge_hash, log_wanted_by, verify_hello, verify_welcome, want_log,
};
pub use identity::{
    AttestationError, Capabilities, Capability, Handle, HandleError, Origin, OriginError, SessionAttestation,
    VerifiedAttestation,
};
pub use invite::{
    CapHash, InviteCap, InviteClaim, InviteCode, InviteCodeError, InviteError, InviteMode, SignedCap,
    SignedClaim, crockford,
};
pub use prekey::{Prekey, PrekeyError, SignedPrekey};
pub use receipt::{
    Receipt, ReceiptCode, ReceiptError, ReceiptRow, ReceiptStatus, SignedReceipt, UnverifiedReceipt,
};
pub use revocation::{RevocationSet, Revoke, RevokeError, RevokeKind, RevokeRefusal, SignedRevoke};
pub use roster::{
    Applied, Candidate, Effect, Entry, EntryKind, ForkEvidence, Genesis, GenesisParams, Head, InviteUse,
    LogError, Member, MemberAdd, NewMember, Policy, ResolveError, Revocation, Role, Roster, SelfAdmission,
    WireEntry, verify_invite,
};
pub use signed::{Signed, split_signed};

// What finds a path: binding requests and their answers, and the names that attempts ask by.
pub mod ice;
pub mod stun;

// What an envelope is, and what happens to one: outbound, then inbound.
mod body;
mod dedupe;
mod envelope;
mod open;
mod reject;
mod seal;
mod verify;
pub mod wire;

pub use body::{Body, CONTENT_TYPE_BYTES_MAX, Message, Place, SIGNAL_TYPE};
pub use dedupe::{Fresh, Known};
pub use envelope::{
    Channel, Header, Priority, Recipient, SealedEnvelope, Suite, UnverifiedEnvelope, VERSION,
};
pub use open::{Opened, Receiver, receiver_box};
pub use reject::Reject;
pub use seal::{BodyTooLarge, SenderBox, seal};
pub use verify::VerifiedEnvelope;

// The node's machine, and the sub-machines it rests on.
mod chain;
mod conversation;
mod delivery;
pub mod endpoint;
mod entropy;
mod keyring;
mod links;
pub mod paths;
mod peer;
mod ping;
mod receipts;
mod receive;
mod route;
mod send;
mod signal;
mod uplink;

pub use entropy::Entropy;
pub use signal::{Means, Signal, WebRtcMeans, conn_id, webrtc_conn_id};

#[cfg(test)]
mod strategies;
