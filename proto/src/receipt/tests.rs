use proptest::prelude::*;

use super::*;
use crate::id::EntryHash;
use crate::strategies;

const MESH: MeshId = MeshId([1; 32]);

fn bob() -> IdentityKey {
    IdentityKey::from_seed(&[1; 32])
}

fn row() -> ReceiptRow {
    ReceiptRow {
        env_hash: EnvHash([1; 32]),
        id: MessageId([2; 16]),
        status: ReceiptStatus::Stored,
        code: None,
    }
}

fn receipt(rows: Vec<ReceiptRow>) -> Receipt {
    let head = Head { size: 1, hash: EntryHash([3; 32]) };
    Receipt { mesh: MESH, by: bob().id(), to: PeerId([9; 32]), rows, ts: UnixMs(5), head }
}

#[test]
fn a_receipt_holds_under_its_signers_key_only() {
    let signed = SignedReceipt::sign(&bob(), receipt(vec![row()]));
    let parse = |sig| UnverifiedReceipt::parse(signed.stmt().clone(), sig, &MESH).unwrap();
    let key = |seed: u8| VerifyKey::parse(&IdentityKey::from_seed(&[seed; 32]).id()).unwrap();
    assert_eq!(*parse(signed.sig()).by(), bob().id());
    assert_eq!(parse(signed.sig()).verify(&key(1)).as_ref(), Ok(&signed));
    assert_eq!(parse(signed.sig()).verify(&key(2)), Err(ReceiptError::Signer));
    let other_label = bob().sign("envelope", &[signed.stmt()]);
    assert_eq!(parse(other_label).verify(&key(1)), Err(ReceiptError::Signature));
    let elsewhere = UnverifiedReceipt::parse(signed.stmt().clone(), signed.sig(), &MeshId([2; 32]));
    assert_eq!(elsewhere.unwrap_err(), ReceiptError::Mesh);
}

#[test]
fn a_receipt_names_between_one_and_256_envelopes() {
    for (count, sound) in [(0, false), (1, true), (RECEIPT_ROWS_MAX, true), (RECEIPT_ROWS_MAX + 1, false)] {
        let parsed = Receipt::parse(&receipt(vec![row(); count]).encode());
        assert_eq!(
            parsed.map(|receipt| receipt.rows.len()),
            if sound { Ok(count) } else { Err(DecodeError::Length) }
        );
    }
}

#[test]
fn the_largest_receipt_fits_its_cap() {
    let row = ReceiptRow { code: Some(ReceiptCode(u64::MAX >> 1)), status: ReceiptStatus::Retry, ..row() };
    let largest = Receipt { ts: UnixMs(u64::MAX >> 1), ..receipt(vec![row; RECEIPT_ROWS_MAX]) };
    assert!(largest.encode().len() <= RECEIPT_BYTES_MAX);
}

#[test]
fn every_code_has_one_number_and_one_name() {
    for (number, name) in CODES {
        assert_eq!(ReceiptCode::of(name), Some(ReceiptCode(*number)));
        assert_eq!(ReceiptCode(*number).name(), Some(*name));
    }
    assert_eq!(ReceiptCode::UNKNOWN_KID.name(), Some("unknown-kid"));
    assert_eq!(ReceiptCode::EPOCH_OLD.name(), Some("epoch-old"));
    assert_eq!(ReceiptCode::RECIPIENT_FULL.name(), Some("recipient-full"));
    assert_eq!(ReceiptCode::REVOKED.name(), Some("revoked"));
    assert_eq!(ReceiptCode::SESSION_ENDED.name(), Some("session-ended"));
    assert_eq!(ReceiptCode::of("nonsense"), None);
    assert_eq!(ReceiptCode(999).to_string(), "code-999");
}

fn any_row() -> impl Strategy<Value = ReceiptRow> {
    use ReceiptStatus::{Rejected, Retry, Stored, Surfaced};
    let status = proptest::sample::select(vec![Stored, Surfaced, Rejected, Retry]);
    let code = proptest::option::of(strategies::uint().prop_map(ReceiptCode));
    (any::<[u8; 32]>(), any::<[u8; 16]>(), status, code).prop_map(|(env_hash, id, status, code)| ReceiptRow {
        env_hash: EnvHash(env_hash),
        id: MessageId(id),
        status,
        code,
    })
}

proptest! {
    #[test]
    fn receipts_survive_the_wire(
        (mesh, by, to) in (strategies::mesh(), strategies::peer(), strategies::peer()),
        rows in proptest::collection::vec(any_row(), 1..9),
        (ts, head) in (strategies::time(), strategies::head()),
    ) {
        let receipt = Receipt { mesh, by, to, rows, ts, head };
        prop_assert_eq!(Receipt::parse(&receipt.encode()), Ok(receipt));
    }
}
