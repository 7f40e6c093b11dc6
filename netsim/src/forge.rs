//! Bytes that no honest host makes: envelopes and receipts taken apart, spoiled and put together again.

use bytes::Bytes;
use peerloom_proto::limits::FRAME_BYTES_MAX;
use peerloom_proto::wire::SignedBytes;
use peerloom_proto::{PeerId, UnverifiedEnvelope, Value, decode, encode};

use crate::chance::Chance;

/// The same bytes but for one bit.
pub(crate) fn flip(bytes: &[u8], chance: &mut Chance) -> Bytes {
    let mut spoiled = bytes.to_vec();
    if !spoiled.is_empty() {
        let place = chance.below(spoiled.len());
        spoiled[place] ^= 1 << chance.below(8);
    }
    spoiled.into()
}

/// A receipt of which one bit is another, in the statement or in the signature.
pub(crate) fn spoiled_receipt(mut receipt: SignedBytes, chance: &mut Chance) -> SignedBytes {
    if chance.percent(50) {
        receipt.stmt = flip(&receipt.stmt, chance);
    } else {
        receipt.sig.0[chance.below(64)] ^= 1 << chance.below(8);
    }
    receipt
}

/// The same envelope under the name of somebody else, whose signature it does not bear.
pub(crate) fn as_if_from(envelope: &Bytes, from: PeerId) -> Option<Bytes> {
    let mut header = UnverifiedEnvelope::parse(envelope.clone()).ok()?.header().clone();
    header.from = from;
    let [version, _, ct, sig] = decode(envelope, FRAME_BYTES_MAX).ok()?.tuple().ok()?;
    let hdr = header.encode();
    Some(encode(&Value::Array(vec![version, Value::Bytes(&hdr), ct, sig])).into())
}
