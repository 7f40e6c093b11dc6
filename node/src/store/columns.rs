//! How values of the machine stand in columns, both ways.

use peerloom_proto::endpoint::{OutboxState, PathKind};
use peerloom_proto::{Generation, Priority, UnixMs};

use super::StoreError;

/// SQLite integers are signed. Every number here is a count, a time or a sequence below 2⁶³; what is
/// above means "never" and stays the largest.
pub(super) fn int(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// The reverse of [`int`]; a negative number was never written.
pub(super) fn uint(value: i64) -> u64 {
    u64::try_from(value).unwrap_or(0)
}

pub(super) fn time(value: i64) -> UnixMs {
    UnixMs(uint(value))
}

/// Eight random bytes as one integer, which is shorter in a row than a blob.
pub(super) fn generation(value: Generation) -> i64 {
    i64::from_be_bytes(value.0)
}

pub(super) fn to_generation(value: i64) -> Generation {
    Generation(value.to_be_bytes())
}

/// A fixed-length blob, or damage.
pub(super) fn array<const N: usize>(bytes: &[u8], column: &'static str) -> Result<[u8; N], StoreError> {
    bytes.try_into().map_err(|_| damaged(column))
}

pub(super) fn damaged(column: &'static str) -> StoreError {
    StoreError::Corrupt { what: format!("a value of {column} is impossible") }
}

pub(super) fn priority(value: Priority) -> i64 {
    match value {
        Priority::Low => 0,
        Priority::Next => 1,
        Priority::Now => 2,
    }
}

pub(super) fn to_priority(value: i64) -> Result<Priority, StoreError> {
    match value {
        0 => Ok(Priority::Low),
        1 => Ok(Priority::Next),
        2 => Ok(Priority::Now),
        _ => Err(damaged("priority")),
    }
}

pub(super) fn path(value: PathKind) -> i64 {
    match value {
        PathKind::Direct => 1,
        PathKind::Relay => 2,
        PathKind::Queue => 3,
    }
}

pub(super) fn to_path(value: i64) -> Result<PathKind, StoreError> {
    match value {
        1 => Ok(PathKind::Direct),
        2 => Ok(PathKind::Relay),
        3 => Ok(PathKind::Queue),
        _ => Err(damaged("path")),
    }
}

/// A state's number; its reason code stands in a column of its own. What is in flight is pending
/// after a restart, because nobody knows how far it got.
pub(super) fn state(value: &OutboxState) -> i64 {
    match value {
        OutboxState::Pending | OutboxState::InFlight => PENDING,
        OutboxState::Accepted => ACCEPTED,
        OutboxState::Stored => STORED,
        OutboxState::Surfaced => SURFACED,
        OutboxState::Rejected(_) => REJECTED,
        OutboxState::Expired(_) => EXPIRED,
        OutboxState::Dead(_) => DEAD,
        OutboxState::Aborted => ABORTED,
    }
}

pub(super) fn to_state(value: i64, code: Option<String>) -> Result<OutboxState, StoreError> {
    let code = code.unwrap_or_default();
    match value {
        PENDING => Ok(OutboxState::Pending),
        ACCEPTED => Ok(OutboxState::Accepted),
        STORED => Ok(OutboxState::Stored),
        SURFACED => Ok(OutboxState::Surfaced),
        REJECTED => Ok(OutboxState::Rejected(code)),
        EXPIRED => Ok(OutboxState::Expired(code)),
        DEAD => Ok(OutboxState::Dead(code)),
        ABORTED => Ok(OutboxState::Aborted),
        _ => Err(damaged("state")),
    }
}

// The numbers stand in SQL texts of `load` and `reader` too.
pub(super) const PENDING: i64 = 0;
pub(super) const ACCEPTED: i64 = 1;
pub(super) const STORED: i64 = 2;
pub(super) const SURFACED: i64 = 3;
pub(super) const REJECTED: i64 = 4;
pub(super) const EXPIRED: i64 = 5;
pub(super) const DEAD: i64 = 6;
pub(super) const ABORTED: i64 = 7;
