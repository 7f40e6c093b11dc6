//! Generators for property tests: values that a statement may hold.

use proptest::prelude::*;

use crate::id::{EntryHash, MeshId, PeerId};
use crate::identity::{Handle, Origin};
use crate::key::{BoxPublicKey, BoxSecretKey};
use crate::roster::Head;
use crate::time::UnixMs;

pub(crate) fn uint() -> impl Strategy<Value = u64> {
    prop_oneof![0..300_u64, 0..=i64::MAX.cast_unsigned()]
}

pub(crate) fn time() -> impl Strategy<Value = UnixMs> {
    uint().prop_map(UnixMs)
}

pub(crate) fn peer() -> impl Strategy<Value = PeerId> {
    any::<[u8; 32]>().prop_map(PeerId)
}

pub(crate) fn mesh() -> impl Strategy<Value = MeshId> {
    any::<[u8; 32]>().prop_map(MeshId)
}

pub(crate) fn head() -> impl Strategy<Value = Head> {
    (uint(), any::<[u8; 32]>()).prop_map(|(size, hash)| Head { size, hash: EntryHash(hash) })
}

pub(crate) fn box_key() -> impl Strategy<Value = BoxPublicKey> {
    any::<[u8; 32]>().prop_map(|secret| BoxSecretKey::from_bytes(secret).public())
}

pub(crate) fn handle() -> impl Strategy<Value = Handle> {
    "[a-z0-9][a-z0-9-]{0,31}".prop_filter_map("looks like a key", |text| Handle::parse(&text).ok())
}

pub(crate) fn origin() -> impl Strategy<Value = Origin> {
    "https?://[a-z][a-z0-9]{0,9}(\\.[a-z]{2,5})?(:[1-9][0-9]{3})?"
        .prop_map(|text| Origin::parse(&text).expect(&text))
}

/// Text without control characters.
pub(crate) fn text() -> impl Strategy<Value = String> {
    "[^\\p{Cc}]{0,12}"
}
