//! STUN binding messages (RFC 8489): how a socket learns the address it is seen from, and how two nodes
//! find a path between them. Strict, bounded and without state; whose key and whose transaction it is,
//! callers know.
//!
//! No other method, no indications. MESSAGE-INTEGRITY-SHA256 is the one integrity; what follows it
//! in a message is not read.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use bytes::Bytes;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use crate::limits::DATAGRAM_BYTES_MAX;

/// Names a request and its answer; 96 random bits.
pub type TransactionId = [u8; 12];

/// What a message is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StunKind {
    /// From where do you see me?
    Request,
    /// From there.
    Success,
    /// Not like this.
    Error,
}

/// A well-formed binding message, read where it lies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StunMessage<'a> {
    /// Request or answer.
    pub kind: StunKind,
    /// Which exchange it belongs to.
    pub transaction: TransactionId,
    /// USERNAME, if there is one.
    pub username: Option<&'a [u8]>,
    /// XOR-MAPPED-ADDRESS, if there is one.
    pub mapped: Option<SocketAddr>,
    /// ERROR-CODE, if there is one: 300 to 699.
    pub error: Option<u16>,
    /// The first comprehension-required attributes that this reader does not know, at most four.
    pub unknown: Vec<u16>,
    /// What the integrity covers, and the integrity.
    integrity: Option<(&'a [u8], [u8; INTEGRITY_BYTES])>,
}

/// Whether a datagram on a shared port is STUN's (RFC 9443): first two bits zero, the magic cookie.
pub fn is_stun(datagram: &[u8]) -> bool {
    datagram.len() >= HEADER_BYTES && datagram[0] & 0xc0 == 0 && datagram[4..8] == MAGIC_COOKIE
}

impl<'a> StunMessage<'a> {
    /// Reads a datagram; none if it is no well-formed binding message of at most
    /// [`DATAGRAM_BYTES_MAX`] bytes.
    pub fn parse(datagram: &'a [u8]) -> Option<Self> {
        let header: &[u8; HEADER_BYTES] = datagram.first_chunk()?;
        let body = &datagram[HEADER_BYTES..];
        let length = usize::from(u16::from_be_bytes([header[2], header[3]]));
        let whole = length == body.len() && length % 4 == 0 && datagram.len() <= DATAGRAM_BYTES_MAX;
        if !whole || header[4..8] != MAGIC_COOKIE {
            return None;
        }
        let kind = match u16::from_be_bytes([header[0], header[1]]) {
            BINDING_REQUEST => StunKind::Request,
            BINDING_SUCCESS => StunKind::Success,
            BINDING_ERROR => StunKind::Error,
            _ => return None,
        };
        let mut transaction = [0; 12];
        transaction.copy_from_slice(&header[8..]);
        let mut message = Self {
            kind,
            transaction,
            username: None,
            mapped: None,
            error: None,
            unknown: vec![],
            integrity: None,
        };
        let mut rest = body;
        while !rest.is_empty() {
            let (&[kind_high, kind_low, length_high, length_low], after) = rest.split_first_chunk()?;
            let length = usize::from(u16::from_be_bytes([length_high, length_low]));
            let value = after.get(..length)?;
            let covered = &datagram[..datagram.len() - rest.len()];
            rest = after.get(length.next_multiple_of(4)..)?;
            message.attribute(u16::from_be_bytes([kind_high, kind_low]), value, header, covered)?;
        }
        Some(message)
    }

    /// Takes in one attribute; none if it is broken.
    fn attribute(
        &mut self,
        kind: u16,
        value: &'a [u8],
        header: &[u8; HEADER_BYTES],
        covered: &'a [u8],
    ) -> Option<()> {
        if self.integrity.is_some() {
            return Some(());
        }
        match kind {
            USERNAME if value.len() > USERNAME_BYTES_MAX => return None,
            // The first of its kind counts (RFC 8489 §14).
            USERNAME => self.username = self.username.or(Some(value)),
            XOR_MAPPED_ADDRESS if self.mapped.is_none() => self.mapped = Some(unmask(value, header)?),
            ERROR_CODE if self.error.is_none() => self.error = Some(error_code(value)?),
            MESSAGE_INTEGRITY_SHA256 => self.integrity = Some((covered, value.try_into().ok()?)),
            kind if kind < COMPREHENSION_OPTIONAL
                && !UNDERSTOOD.contains(&kind)
                && self.unknown.len() < UNKNOWN_MAX =>
            {
                self.unknown.push(kind);
            }
            _ => {}
        }
        Some(())
    }

    /// Whether the message carries an integrity, and it is by this key.
    pub fn is_by(&self, key: &[u8]) -> bool {
        let Some((covered, integrity)) = &self.integrity else { return false };
        mac(key, covered).verify_slice(integrity).is_ok()
    }
}

/// A request without credentials.
pub fn binding_request(transaction: &TransactionId) -> Bytes {
    Message::begin(BINDING_REQUEST, transaction).end()
}

/// A request that names itself and proves it.
pub fn signed_request(transaction: &TransactionId, username: &str, key: &[u8]) -> Bytes {
    debug_assert!(username.len() <= USERNAME_BYTES_MAX, "usernames are names of attempts");
    Message::begin(BINDING_REQUEST, transaction).with(USERNAME, username.as_bytes()).sign(key)
}

/// "You are seen from `mapped`."
pub fn binding_success(transaction: &TransactionId, mapped: SocketAddr) -> Bytes {
    Message::begin(BINDING_SUCCESS, transaction).with(XOR_MAPPED_ADDRESS, &masked(mapped, transaction)).end()
}

/// The same, proven.
pub fn signed_success(transaction: &TransactionId, mapped: SocketAddr, key: &[u8]) -> Bytes {
    Message::begin(BINDING_SUCCESS, transaction)
        .with(XOR_MAPPED_ADDRESS, &masked(mapped, transaction))
        .sign(key)
}

/// 420 with the attributes that were not understood (RFC 8489 §6.3.1).
pub fn unknown_attributes(transaction: &TransactionId, unknown: &[u16]) -> Bytes {
    let list: Vec<u8> = unknown.iter().take(UNKNOWN_MAX).flat_map(|kind| kind.to_be_bytes()).collect();
    Message::begin(BINDING_ERROR, transaction)
        .with(ERROR_CODE, &[0, 0, 4, 20])
        .with(UNKNOWN_ATTRIBUTES, &list)
        .end()
}

/// 401: nobody here is asked for by that USERNAME (RFC 8489 §9.1.3).
pub fn unauthenticated(transaction: &TransactionId) -> Bytes {
    Message::begin(BINDING_ERROR, transaction).with(ERROR_CODE, &[0, 0, 4, 1]).end()
}

/// The public responder's answer to a datagram from `peer`: its own address, whoever asks; none to
/// anything but a request. At most 44 bytes to a request of at least 20: nothing to amplify.
pub fn public_answer(datagram: &[u8], peer: SocketAddr) -> Option<Bytes> {
    let request = StunMessage::parse(datagram).filter(|message| message.kind == StunKind::Request)?;
    Some(if request.unknown.is_empty() {
        binding_success(&request.transaction, peer)
    } else {
        unknown_attributes(&request.transaction, &request.unknown)
    })
}

/// A message in the making.
struct Message(Vec<u8>);

impl Message {
    fn begin(kind: u16, transaction: &TransactionId) -> Self {
        let mut bytes = Vec::with_capacity(128);
        bytes.extend(kind.to_be_bytes());
        bytes.extend([0, 0]);
        bytes.extend(MAGIC_COOKIE);
        bytes.extend(transaction);
        Self(bytes)
    }

    fn with(mut self, kind: u16, value: &[u8]) -> Self {
        let length = u16::try_from(value.len()).expect("attributes here have at most 64 bytes");
        self.0.extend(kind.to_be_bytes());
        self.0.extend(length.to_be_bytes());
        self.0.extend(value);
        self.0.resize(self.0.len().next_multiple_of(4), 0);
        self
    }

    fn sign(self, key: &[u8]) -> Bytes {
        let integrity = mac(key, &self.0).finalize().into_bytes();
        self.with(MESSAGE_INTEGRITY_SHA256, &integrity).end()
    }

    fn end(mut self) -> Bytes {
        let length = u16::try_from(self.0.len() - HEADER_BYTES).expect("messages here are short");
        self.0[2..4].copy_from_slice(&length.to_be_bytes());
        self.0.into()
    }
}

/// RFC 8489 §14.6: over what stands before the attribute, with a length that counts it in.
fn mac(key: &[u8], covered: &[u8]) -> Hmac<Sha256> {
    let length = (covered.len() + 4 + INTEGRITY_BYTES).saturating_sub(HEADER_BYTES);
    let length = u16::try_from(length).expect("a datagram is at most 576 bytes");
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes keys of any length");
    mac.update(&covered[..2]);
    mac.update(&length.to_be_bytes());
    mac.update(&covered[4..]);
    mac
}

/// RFC 8489 §14.2: the address XORed with cookie and transaction, so that no middlebox rewrites it.
fn masked(address: SocketAddr, transaction: &TransactionId) -> Vec<u8> {
    let (family, octets) = match address.ip().to_canonical() {
        IpAddr::V4(ip) => (1, ip.octets().to_vec()),
        IpAddr::V6(ip) => (2, ip.octets().to_vec()),
    };
    let [high, low] = address.port().to_be_bytes();
    let mut value = vec![0, family, high ^ MAGIC_COOKIE[0], low ^ MAGIC_COOKIE[1]];
    let mask = MAGIC_COOKIE.iter().chain(transaction);
    value.extend(octets.iter().zip(mask).map(|(byte, mask)| byte ^ mask));
    value
}

/// RFC 8489 §14.8: 21 bits of zero, three of the hundreds, a byte of the rest, a phrase for people.
fn error_code(value: &[u8]) -> Option<u16> {
    let &[_, _, class, number] = value.first_chunk()?;
    let class = class & 7;
    ((3..=6).contains(&class) && number < 100).then_some(u16::from(class) * 100 + u16::from(number))
}

fn unmask(value: &[u8], header: &[u8; HEADER_BYTES]) -> Option<SocketAddr> {
    let (&[_, family, high, low], octets) = value.split_first_chunk()?;
    let port = u16::from_be_bytes([high ^ MAGIC_COOKIE[0], low ^ MAGIC_COOKIE[1]]);
    let octets: Vec<u8> = octets.iter().zip(&header[4..]).map(|(byte, mask)| byte ^ mask).collect();
    let ip = match (family, value.len()) {
        (1, 8) => IpAddr::V4(Ipv4Addr::from(<[u8; 4]>::try_from(octets).ok()?)),
        (2, 20) => IpAddr::V6(Ipv6Addr::from(<[u8; 16]>::try_from(octets).ok()?)),
        _ => return None,
    };
    Some(SocketAddr::new(ip.to_canonical(), port))
}

const HEADER_BYTES: usize = 20;

/// RFC 8489 §5: tells STUN apart from everything else on a port.
const MAGIC_COOKIE: [u8; 4] = [0x21, 0x12, 0xa4, 0x42];

const BINDING_REQUEST: u16 = 0x0001;
const BINDING_SUCCESS: u16 = 0x0101;
const BINDING_ERROR: u16 = 0x0111;
const USERNAME: u16 = 0x0006;
const ERROR_CODE: u16 = 0x0009;
const UNKNOWN_ATTRIBUTES: u16 = 0x000a;
const MESSAGE_INTEGRITY_SHA256: u16 = 0x001c;
const XOR_MAPPED_ADDRESS: u16 = 0x0020;

/// Attributes below this must be understood (RFC 8489 §14).
const COMPREHENSION_OPTIONAL: u16 = 0x8000;

/// ERROR-CODE, UNKNOWN-ATTRIBUTES, MESSAGE-INTEGRITY, REALM, NONCE, XOR-MAPPED-ADDRESS, PRIORITY,
/// USE-CANDIDATE: understood in that they change nothing here.
const UNDERSTOOD: [u16; 8] =
    [ERROR_CODE, UNKNOWN_ATTRIBUTES, 0x0008, 0x0014, 0x0015, XOR_MAPPED_ADDRESS, 0x0024, 0x0025];

/// More than one would list makes no difference to the client; bounds the answer.
const UNKNOWN_MAX: usize = 4;

/// RFC 8489 §14.3: shorter than 509 bytes.
const USERNAME_BYTES_MAX: usize = 508;

/// HMAC-SHA-256 in full; a truncated one is refused.
const INTEGRITY_BYTES: usize = 32;

#[cfg(test)]
mod tests;
