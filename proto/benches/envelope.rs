//! What a message costs on one core: seal, parse, verify, open, by size; a receipt for 256; an entry
//! of the mesh log. Repeat with `cargo bench -p peerloom-proto`.

use std::hint::black_box;
use std::time::Duration;

use bytes::Bytes;
use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use crypto_box::SalsaBox;
use peerloom_proto::limits::{MESSAGE_LIFE_MAX, RECEIPT_ROWS_MAX};
use peerloom_proto::{
    AttestationHash, BoxPublicKey, BoxSecretKey, Channel, EnvHash, Fingerprint, GenesisParams, GroupId,
    Header, IdentityKey, Kid, MessageId, NewMember, PeerId, Policy, Priority, Receipt, ReceiptRow,
    ReceiptStatus, Receiver, Recipient, Role, Roster, SenderBox, SessionAttestation, SignedReceipt, Suite,
    UnixMs, UnverifiedEnvelope, UnverifiedReceipt, VerifiedEnvelope, WireEntry, receiver_box, seal,
};

const NOW: UnixMs = UnixMs(1_800_000_000_000);

fn key(name: u8) -> IdentityKey {
    IdentityKey::from_seed(&[name; 32])
}

fn new_member(name: u8, role: Role, handle: &str) -> NewMember {
    let prekey = Some(BoxSecretKey::from_bytes([name; 32]).public());
    NewMember { id: key(name).id(), role, handle: handle.parse().expect("a handle"), prekey }
}

/// Alice, an admin, and Bob.
fn mesh() -> Roster {
    let params = GenesisParams {
        coordinators: vec![(key(9).id(), "https://mesh.example".parse().expect("an origin"))],
        policy: Policy::default(),
        nonce: [7; 16],
        recovery: None,
        name: None,
        ts: NOW,
    };
    let mut roster = Roster::begin(&WireEntry::genesis(&key(8), params)).expect("a genesis");
    let alice = roster.member_add(&key(8), new_member(1, Role::Admin, "alice"), NOW);
    roster.append(&alice).expect("alice");
    let bob = roster.member_add(&key(1), new_member(2, Role::Member, "bob"), NOW);
    roster.append(&bob).expect("bob");
    roster
}

/// Bob, with the box of his key and Alice's kept, as a node keeps it.
struct Bob {
    me: PeerId,
    roster: Roster,
    kid: Kid,
    shared: SalsaBox,
}

impl Receiver for Bob {
    fn roster(&self) -> &Roster {
        &self.roster
    }
    fn is_revoked(&self, _key: &PeerId, _holder: &PeerId) -> bool {
        false
    }
    fn is_me(&self, peer: &PeerId) -> bool {
        *peer == self.me
    }
    fn reads(&self, _group: &GroupId) -> bool {
        false
    }
    fn attestation(&self, _hash: &AttestationHash) -> Option<&SessionAttestation> {
        None
    }
    fn holds(&self, kid: &Kid) -> bool {
        *kid == self.kid
    }
    fn shared_box(&mut self, _kid: &Kid, _sender: &BoxPublicKey) -> Option<&SalsaBox> {
        Some(&self.shared)
    }
    fn secret_key(&self, _kid: &Kid) -> Option<&[u8; 32]> {
        None
    }
    fn now(&self) -> UnixMs {
        NOW
    }
    fn floor(&self) -> UnixMs {
        UnixMs(0)
    }
}

fn header(roster: &Roster) -> Header {
    Header {
        suite: Suite::Box,
        mesh: roster.mesh_id(),
        channel: Channel::Dm,
        from: key(1).id(),
        auth: None,
        to: Recipient::Peer(key(2).id()),
        id: MessageId([3; 16]),
        ts: NOW,
        exp: NOW.plus(MESSAGE_LIFE_MAX),
        fp: Fingerprint([4; 32]),
        head: roster.head(),
        spk: None,
        kid: Kid([0; 16]),
        nonce: [0; 24],
        priority: Priority::Next,
        stream: None,
        rpc: None,
        group: None,
    }
}

fn envelopes(c: &mut Criterion) {
    let roster = mesh();
    let (alice, bob_secret, spk) =
        (key(1), BoxSecretKey::from_bytes([2; 32]), BoxSecretKey::from_bytes([5; 32]));
    let sender = SenderBox::new(&spk, &bob_secret.public());
    let shared = receiver_box(&bob_secret, &spk.public());
    let mut bob = Bob { me: key(2).id(), roster: roster.clone(), kid: bob_secret.public().kid(), shared };
    let mesh = roster.mesh_id();
    let blank = header(&roster);
    let mut group = c.benchmark_group("envelope");
    for size in [64, 1 << 10, 16 << 10] {
        let body = vec![7; size];
        let wire = seal(blank.clone(), &body, &sender, &[6; 32], &alice).expect("it fits").wire;
        let verify = |wire: &Bytes| -> VerifiedEnvelope {
            let envelope = UnverifiedEnvelope::parse(wire.clone()).expect("well-formed");
            envelope
                .verify(&mesh, |from| roster.member(from).map(|member| &member.verify_key))
                .expect("signed")
        };
        let verified = verify(&wire);
        group.throughput(Throughput::Bytes(size as u64));
        group.bench_with_input(BenchmarkId::new("seal", size), &body, |b, body| {
            b.iter(|| seal(blank.clone(), black_box(body), &sender, &[6; 32], &alice).expect("it fits"));
        });
        group.bench_with_input(BenchmarkId::new("parse", size), &wire, |b, wire| {
            b.iter(|| UnverifiedEnvelope::parse(black_box(wire).clone()).expect("well-formed"));
        });
        group.bench_with_input(BenchmarkId::new("parse_and_verify", size), &wire, |b, wire| {
            b.iter(|| verify(black_box(wire)));
        });
        group.bench_function(BenchmarkId::new("open", size), |b| {
            b.iter_batched(
                || verified.clone().admit(None).expect("not seen"),
                |fresh| fresh.open(&mut bob).expect("for Bob"),
                BatchSize::SmallInput,
            );
        });
    }
    group.finish();
    c.bench_function("sender_box", |b| b.iter(|| SenderBox::new(black_box(&spk), &bob_secret.public())));
}

fn receipts(c: &mut Criterion) {
    let roster = mesh();
    let bob = key(2);
    let rows = (0..RECEIPT_ROWS_MAX).map(|number| {
        let mut hash = [0; 32];
        hash[..8].copy_from_slice(&(number as u64).to_be_bytes());
        ReceiptRow {
            env_hash: EnvHash(hash),
            id: MessageId([1; 16]),
            status: ReceiptStatus::Stored,
            code: None,
        }
    });
    let receipt = Receipt {
        mesh: roster.mesh_id(),
        by: bob.id(),
        to: key(1).id(),
        rows: rows.collect(),
        ts: NOW,
        head: roster.head(),
    };
    let signed = SignedReceipt::sign(&bob, receipt.clone());
    let verify_key = &roster.member(&bob.id()).expect("a member").verify_key;
    let mut group = c.benchmark_group("receipt_of_256");
    group.throughput(Throughput::Elements(RECEIPT_ROWS_MAX as u64));
    group.bench_function("sign", |b| b.iter(|| SignedReceipt::sign(&bob, black_box(receipt.clone()))));
    group.bench_function("parse_and_verify", |b| {
        b.iter(|| {
            let parsed = UnverifiedReceipt::parse(signed.stmt().clone(), signed.sig(), &roster.mesh_id());
            parsed.expect("well-formed").verify(verify_key).expect("signed")
        });
    });
    group.finish();
}

fn log(c: &mut Criterion) {
    let roster = mesh();
    let entry = roster.member_add(&key(1), new_member(3, Role::Member, "carol"), NOW);
    c.bench_function("roster_append", |b| {
        b.iter_batched(
            || {
                // A copy that shares nothing: the first append of a shared one pays for the copy.
                let mut own = roster.clone();
                let dave = own.member_add(&key(1), new_member(4, Role::Member, "dave"), NOW);
                own.append(&dave).expect("dave");
                let next = own.member_add(&key(1), new_member(3, Role::Member, "carol"), NOW);
                (own, next)
            },
            |(mut own, next)| own.append(black_box(&next)).expect("carol"),
            BatchSize::SmallInput,
        );
    });
    c.bench_function("roster_check", |b| b.iter(|| roster.check(black_box(&entry)).expect("carol")));
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(50).measurement_time(Duration::from_secs(3));
    targets = envelopes, receipts, log
}
criterion_main!(benches);
