//! How far a coordinator's store had got: how a node that comes back tells whether the store did. And the
//! coordinator's word that it wants back what it lost of the log.

use super::SignedHello;
use crate::canonical::{DecodeError, Value};
use crate::id::RunId;
use crate::key::{IdentityKey, Signature, signed_by};

/// A place in the life of a coordinator's store.
///
/// Every start of a coordinator is a run with an id of its own, and every transaction is counted over all
/// runs. A store that was put back to an older copy does not know the runs after it, nor did it get as
/// far in the run it was copied in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StoreMark {
    /// The run.
    pub run: RunId,
    /// Transactions so far, over all runs.
    pub commit: u64,
}

/// What a coordinator says of its store in a welcome.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StoreView {
    /// Where it is.
    pub mark: StoreMark,
    /// Whether everything up to the mark in the hello is still in it; true when the hello had none.
    pub kept: bool,
}

impl StoreMark {
    pub(super) fn from_value(value: Value<'_>) -> Result<Self, DecodeError> {
        let [run, commit] = value.tuple()?;
        Ok(Self { run: RunId(run.array()?), commit: commit.uint()? })
    }

    pub(super) fn as_value(&self) -> Value<'_> {
        Value::Array(vec![Value::Bytes(&self.run.0), Value::Uint(self.commit)])
    }
}

/// The coordinator asks whoever said this hello for log entries from an index on. Signed, because the
/// welcome is still to come: nobody else on the way gets a mesh's log by asking.
pub fn want_log(coordinator: &IdentityKey, hello: &SignedHello, from: u64) -> Signature {
    coordinator.sign(LABEL, &[&hello.transcript(), &from.to_be_bytes()])
}

/// Whether the coordinator that the hello names asks so.
pub fn log_wanted_by(hello: &SignedHello, from: u64, sig: &Signature) -> bool {
    signed_by(&hello.coordinator, sig, LABEL, &[&hello.transcript(), &from.to_be_bytes()])
}

const LABEL: &str = "log-wanted";
