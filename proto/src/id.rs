//! Newtypes for everything that names something. All are public values: none is secret.

use std::fmt;
use std::str::FromStr;

/// A text that is not the hexadecimal form of an id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected {expected} hexadecimal digits, found {found} characters")]
pub struct IdParseError {
    /// Digits a well-formed id has.
    pub expected: usize,
    /// Characters the text had.
    pub found: usize,
}

macro_rules! id {
    ($(#[$doc:meta])* $name:ident, $len:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub [u8; $len]);

        impl $name {
            /// Length in bytes.
            pub const LEN: usize = $len;

            /// The raw bytes.
            pub const fn as_bytes(&self) -> &[u8; $len] {
                &self.0
            }

            /// The first four bytes as hex: enough to follow one through a log.
            pub fn short(&self) -> String {
                hex_of(&self.0[..4])
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&hex_of(&self.0))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self.short())
            }
        }

        impl AsRef<[u8]> for $name {
            fn as_ref(&self) -> &[u8] {
                &self.0
            }
        }

        impl TryFrom<&[u8]> for $name {
            type Error = IdParseError;
            fn try_from(bytes: &[u8]) -> Result<Self, IdParseError> {
                bytes
                    .try_into()
                    .map(Self)
                    .map_err(|_| IdParseError { expected: 2 * $len, found: 2 * bytes.len() })
            }
        }

        impl FromStr for $name {
            type Err = IdParseError;
            fn from_str(text: &str) -> Result<Self, IdParseError> {
                let mut bytes = [0; $len];
                read_hex(text, &mut bytes)?;
                Ok(Self(bytes))
            }
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = <String as serde::Deserialize>::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

id!(
    /// A mesh's real name everywhere: HASH("mesh", genesis statement).
    MeshId, 32
);
id!(
    /// The ed25519 public key of a member, session or service; also of an owner or a coordinator.
    ///
    /// Only a name: the bytes may not be a valid key. [`VerifyKey`](crate::VerifyKey) is the checked form.
    PeerId, 32
);
id!(
    /// Random id of one send. Unique per sender; the outbox key is (id, recipient).
    MessageId, 16
);
id!(
    /// HASH("envelope", hdr, SHA-256(ct)): names one sealed envelope, bytes and all.
    EnvHash, 32
);
id!(
    /// HASH("entry", statement) of a mesh log entry.
    EntryHash, 32
);
id!(
    /// HASH("attest", statement) of a session or service attestation.
    AttestationHash, 32
);
id!(
    /// Key id of an x25519 public key: HASH("kid", key)[0..16].
    Kid, 16
);
id!(
    /// Keyed fingerprint of a request (protocol.md §12): equal across re-seals, opaque to others.
    Fingerprint, 32
);
id!(
    /// One life of a sender's conversation counters.
    Generation, 8
);
id!(
    /// One attempt at a direct channel: HASH("conn", nonce_i, nonce_r)[0..16].
    ConnId, 16
);
id!(
    /// SHA-256 of a certificate's DER.
    CertHash, 32
);
id!(
    /// Random id inside an invite capability.
    InviteId, 16
);
id!(
    /// HASH("invite-lookup", code)[0..16]: what the coordinator finds a blob by.
    InviteLookup, 16
);
id!(
    /// A group or topic.
    GroupId, 16
);
id!(
    /// One running process of a node: random at start.
    InstanceId, 16
);
id!(
    /// Random at every start of a coordinator: names that run of its store.
    RunId, 16
);

/// Lower-case hexadecimal text of `bytes`.
pub fn hex_of(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    bytes
        .iter()
        .flat_map(|byte| [DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]])
        .map(char::from)
        .collect()
}

fn read_hex(text: &str, into: &mut [u8]) -> Result<(), IdParseError> {
    let refused = IdParseError { expected: 2 * into.len(), found: text.chars().count() };
    let digits = text.as_bytes();
    if digits.len() != 2 * into.len() {
        return Err(refused);
    }
    for (byte, pair) in into.iter_mut().zip(digits.chunks_exact(2)) {
        let high = char::from(pair[0]).to_digit(16).ok_or(refused)?;
        let low = char::from(pair[1]).to_digit(16).ok_or(refused)?;
        *byte = u8::try_from(high * 16 + low).map_err(|_| refused)?;
    }
    Ok(())
}
