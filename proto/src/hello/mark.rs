//! How far a coordinator's store had got: how a node that comes back tells whether the store did.

use crate::canonical::{DecodeError, Value};
use crate::id::RunId;

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
