use proptest::prelude::*;

use super::*;
use crate::key::{BoxSecretKey, IdentityKey};
use crate::seal::{SenderBox, padme, seal};
use crate::strategies::{head, mesh, peer, time, uint};

fn header() -> impl Strategy<Value = Header> {
    let channel = prop_oneof![
        Just(Channel::Dm),
        Just(Channel::Group),
        Just(Channel::Topic),
        Just(Channel::Rpc),
        Just(Channel::System),
        Just(Channel::Stream),
    ];
    let priority = prop_oneof![Just(Priority::Low), Just(Priority::Next), Just(Priority::Now)];
    let names = (mesh(), peer(), any::<Option<[u8; 32]>>(), any::<[u8; 32]>(), any::<[u8; 16]>());
    let times = (time(), time(), any::<[u8; 32]>(), head());
    let keys = (any::<[u8; 32]>(), any::<[u8; 16]>(), any::<[u8; 24]>());
    let special = (any::<[u8; 16]>(), uint(), uint(), any::<[u8; 32]>(), any::<[u8; 32]>());
    (channel, priority, names, times, keys, special).prop_map(
        |(channel, priority, names, times, keys, special)| {
            let shared = matches!(channel, Channel::Group | Channel::Topic);
            let (short, number, flags, kc, rset) = special;
            Header {
                suite: if shared { Suite::SecretBox } else { Suite::Box },
                mesh: names.0,
                channel,
                from: names.1,
                auth: names.2.map(AttestationHash),
                to: if shared {
                    Recipient::Group(GroupId(names.4))
                } else {
                    Recipient::Peer(PeerId(names.3))
                },
                id: MessageId(names.4),
                ts: times.0,
                exp: times.1,
                fp: Fingerprint(times.2),
                head: times.3,
                spk: (channel != Channel::Topic).then_some(keys.0),
                kid: Kid(keys.1),
                nonce: keys.2,
                priority,
                stream: (channel == Channel::Stream).then_some((short, number, flags)),
                rpc: (channel == Channel::Rpc).then_some((short, number)),
                group: (channel == Channel::Group).then_some((kc, rset)),
            }
        },
    )
}

proptest! {
    #[test]
    fn a_header_reads_back_as_written(header in header()) {
        prop_assert_eq!(Header::decode(&header.encode()), Ok(header));
    }

    #[test]
    fn a_damaged_header_is_refused_or_is_another_header(header in header(), place: usize, bit in 0..8_u8) {
        let mut bytes = header.encode();
        let place = place % bytes.len();
        bytes[place] ^= 1 << bit;
        if let Ok(other) = Header::decode(&bytes) {
            prop_assert_ne!(&other, &header);
            prop_assert_eq!(other.encode(), bytes.clone());
        }
        bytes.truncate(place);
        prop_assert!(Header::decode(&bytes).is_err());
    }

    #[test]
    fn a_field_that_a_channel_does_not_call_for_is_refused(header in header()) {
        let mut odd = header.clone();
        match header.channel {
            Channel::Dm | Channel::System | Channel::Rpc => odd.stream = Some(([1; 16], 1, 0)),
            Channel::Stream => odd.rpc = Some(([1; 16], 1)),
            Channel::Group => odd.spk = None,
            Channel::Topic => odd.spk = Some([1; 32]),
        }
        let refused = Header::decode(&odd.encode()).expect_err("the header says too much or too little");
        let expected = if header.channel == Channel::Group { DecodeError::MissingField } else { DecodeError::UnknownField };
        prop_assert_eq!(refused, Reject::Decode(expected));
    }

    #[test]
    fn one_changed_bit_anywhere_breaks_an_envelope(body in prop::collection::vec(any::<u8>(), 0..200), place: usize, bit in 0..8_u8) {
        let wire = sealed(&body);
        let mut bytes = wire.to_vec();
        let place = place % bytes.len();
        bytes[place] ^= 1 << bit;
        let mesh = MeshId([1; 32]);
        let believed = UnverifiedEnvelope::parse(bytes.into()).and_then(|envelope| envelope.verify(&mesh, |_| None));
        prop_assert!(believed.is_err());
    }

    #[test]
    fn padding_grows_by_an_eighth_at_most_and_never_shrinks(length in 0_usize..2_000_000) {
        let padded = padme(length);
        prop_assert!(padded >= length.max(64));
        prop_assert!(padded <= (length + length / 8).max(64));
        prop_assert_eq!(padme(padded), padded);
    }

    #[test]
    fn noise_is_refused_and_never_a_panic(noise in prop::collection::vec(any::<u8>(), 0..400)) {
        prop_assert!(UnverifiedEnvelope::parse(noise.into()).is_err());
    }
}

fn sealed(body: &[u8]) -> Bytes {
    let signer = IdentityKey::from_seed(&[3; 32]);
    let recipient = BoxSecretKey::from_bytes([4; 32]).public();
    let sender = SenderBox::new(&BoxSecretKey::from_bytes([5; 32]), &recipient);
    let header = Header {
        suite: Suite::Box,
        mesh: MeshId([1; 32]),
        channel: Channel::Dm,
        from: signer.id(),
        auth: None,
        to: Recipient::Peer(PeerId([2; 32])),
        id: MessageId([6; 16]),
        ts: UnixMs(1_000),
        exp: UnixMs(2_000),
        fp: Fingerprint([7; 32]),
        head: Head { size: 1, hash: crate::id::EntryHash([8; 32]) },
        spk: None,
        kid: Kid([0; 16]),
        nonce: [0; 24],
        priority: Priority::Next,
        stream: None,
        rpc: None,
        group: None,
    };
    seal(header, body, &sender, &[9; 32], &signer).unwrap().wire
}

#[test]
fn an_envelope_keeps_the_bytes_it_came_in() {
    let wire = sealed(b"hi");
    let envelope = UnverifiedEnvelope::parse(wire.clone()).unwrap();
    assert_eq!(envelope.wire(), &wire);
    assert!(wire.as_ptr_range().contains(&envelope.ct.as_ptr()), "shared, not copied");
}

#[test]
fn the_same_entropy_seals_the_same_bytes_and_never_another_body_under_the_same_nonce() {
    let nonce = |body: &[u8]| UnverifiedEnvelope::parse(sealed(body)).unwrap().header().nonce;
    assert_eq!(sealed(b"hi"), sealed(b"hi"));
    assert_ne!(nonce(b"hi"), nonce(b"ho"));
}
