//! The welcome: a coordinator's signature over the whole exchange so far.

use std::time::Duration;

use bytes::Bytes;

use super::{HelloError, SignedHello, StoreMark, StoreView, VERSION, check_skew, malformed, version};
use crate::canonical::{DecodeError, Value, decode, encode, map};
use crate::key::{IdentityKey, Signature, signed_by};
use crate::limits::STATEMENT_BYTES_MAX;
use crate::roster::Head;
use crate::signed::Signed;
use crate::time::UnixMs;

/// The coordinator's acceptance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Welcome {
    /// HASH("hello", hello, signature).
    pub hello: [u8; 32],
    /// The coordinator's clock.
    pub ts: UnixMs,
    /// The coordinator's log head.
    pub head: Head,
    /// How long presence outlives a socket, in whole seconds.
    pub lease: Duration,
    /// Longest frame it takes, in bytes.
    pub frame_bytes_max: u64,
    /// What its store still holds.
    pub store: Option<StoreView>,
}

/// A welcome whose signature holds.
pub type SignedWelcome = Signed<Welcome>;

impl Welcome {
    /// Strict decode; nothing is verified.
    pub fn parse(stmt: &[u8]) -> Result<Self, DecodeError> {
        let mut fields = decode(stmt, STATEMENT_BYTES_MAX)?.fields()?;
        version(&fields.take(0)?)?;
        let mut parsed = Self {
            hello: fields.take(1)?.array()?,
            ts: UnixMs(fields.take(2)?.uint()?),
            head: Head::from_value(fields.take(3)?)?,
            lease: Duration::from_secs(fields.take(4)?.uint()?),
            frame_bytes_max: fields.take(5)?.uint()?,
            store: None,
        };
        if let Some(mark) = fields.optional(6)? {
            let Value::Bool(kept) = fields.take(7)? else { return Err(DecodeError::Type) };
            parsed.store = Some(StoreView { mark: StoreMark::from_value(mark)?, kept });
        }
        fields.finish()?;
        Ok(parsed)
    }

    /// The statement's canonical bytes.
    pub fn encode(&self) -> Vec<u8> {
        let store =
            self.store.iter().flat_map(|store| [(6, store.mark.as_value()), (7, Value::Bool(store.kept))]);
        let fields = [
            (0, Value::Uint(VERSION)),
            (1, Value::Bytes(&self.hello)),
            (2, Value::Uint(self.ts.0)),
            (3, self.head.to_value()),
            (4, Value::Uint(self.lease.as_secs())),
            (5, Value::Uint(self.frame_bytes_max)),
        ];
        encode(&map(fields.into_iter().chain(store)))
    }
}

impl Signed<Welcome> {
    /// Signs a welcome with the coordinator's key; `welcome.hello` is [`SignedHello::transcript`].
    pub fn sign(coordinator: &IdentityKey, welcome: Welcome) -> Self {
        Self::by(coordinator, LABEL, welcome.encode(), welcome)
    }
}

/// Checks that a welcome answers `hello`, signed by the coordinator that the hello names.
pub fn verify_welcome(
    stmt: &[u8],
    sig: &Signature,
    hello: &SignedHello,
    now: UnixMs,
) -> Result<SignedWelcome, HelloError> {
    let welcome = Welcome::parse(stmt).map_err(|error| malformed("welcome", error))?;
    if welcome.hello != hello.transcript() {
        return Err(HelloError::WrongHello);
    }
    if !signed_by(&hello.coordinator, sig, LABEL, &[stmt]) {
        return Err(HelloError::Signature);
    }
    check_skew(now, welcome.ts)?;
    Ok(Signed::verified(Bytes::copy_from_slice(stmt), *sig, welcome))
}

const LABEL: &str = "welcome";
