//! A whole node at the mercy of its coordinator, its peers and its links: the bytes are a script of
//! what they say and when. Bob is the node; Alice is the peer whose keys are known.

use std::convert::Infallible;
use std::time::Duration;

use bytes::Bytes;
use peerloom_proto::endpoint::{
    Batch, Endpoint, HeldPrekey, Input, Lookups, OpenedLink, OutboxRow, Output, Request, Row, SeenRow, Send,
    SentRow, Settings,
};
use peerloom_proto::limits::FRAME_BYTES_MAX;
use peerloom_proto::paths::PathPolicies;
use peerloom_proto::stun::StunMessage;
use peerloom_proto::wire::{OnLink, SignedBytes, ToCoordinator, ToNode};
use peerloom_proto::{
    BindTransport, BoxSecretKey, CertHash, Channel, ConnId, Fingerprint, Generation, Header, Hello,
    InstanceId, Kid, Means, Message, MessageId, Monotonic, Now, PeerId, Priority, Recipient, SenderBox,
    Signature, SignedWelcome, Suite, UnixMs, WebRtcMeans, Welcome, hash, seal,
};

use super::VECTORS;

/// Script: one byte what, two bytes how long, then that many bytes (or what is left).
pub fn endpoint_uplink(data: &[u8]) {
    let mut bob = Bob::welcomed();
    let mut rest = data;
    let mut steps = 0;
    while let Some((&[what, high, low], more)) = rest.split_first_chunk::<3>() {
        let length = usize::from(u16::from_be_bytes([high, low])).min(more.len());
        let (chunk, after) = more.split_at(length);
        rest = after;
        bob.suffer(what, chunk);
        steps += 1;
        if steps == STEPS_MAX {
            return;
        }
    }
}

/// Longer scripts find nothing new, more slowly.
const STEPS_MAX: usize = 64;

struct Bob {
    endpoint: Endpoint,
    since: Duration,
    counter: u64,
    hello: Option<SignedBytes>,
}

impl Bob {
    fn welcomed() -> Self {
        let secret = VECTORS.secret();
        let settings = Settings {
            member: VECTORS.bob.clone(),
            owner: None,
            roster: VECTORS.roster().clone(),
            revocations: Vec::new(),
            on_hold: Vec::new(),
            prekeys: vec![HeldPrekey {
                kid: secret.public().kid(),
                secret,
                signed: None,
                exp: VECTORS.now.plus(Duration::from_secs(7 * 86_400)),
            }],
            peer_prekeys: Vec::new(),
            outbox: Vec::new(),
            held: Vec::new(),
            conversations: Vec::new(),
            next_seqs: Vec::new(),
            next_outbox_row: 1,
            next_inbox_row: 1,
            next_position: 1,
            generation: Generation([1; 8]),
            fp_secret: [2; 32],
            floor: UnixMs(0),
            coordinator_mark: None,
            policies: PathPolicies::default(),
            origin: VECTORS.origin(),
            instance: InstanceId([3; 16]),
            seed: [4; 32],
        };
        let now = Now { monotonic: Monotonic::from_origin(Duration::ZERO), wall: VECTORS.now };
        let mut bob =
            Self { endpoint: Endpoint::new(settings, now), since: Duration::ZERO, counter: 0, hello: None };
        let candidates = vec!["192.0.2.1:7".parse().expect("an address")];
        let stun = vec![STUN.parse().expect("an address")];
        let webrtc = Some(WebRtcMeans { cert: CertHash([10; 32]), ice: None });
        let means = Means { quic: Some(CertHash([9; 32])), webrtc };
        bob.batch([Input::DirectReady { means, candidates, stun }, Input::Timeout]);
        bob.welcome();
        bob.frame(&ToNode::Presence { complete: true, peers: vec![(VECTORS.alice.id(), true)] });
        bob
    }

    /// One thing that happens to a node.
    fn suffer(&mut self, what: u8, chunk: &[u8]) {
        match what % 13 {
            0 => self.batch([Input::UplinkFrame(Bytes::copy_from_slice(chunk))]),
            1 => self.deliver(chunk, Carrier::Uplink),
            2 => self.deliver(chunk, Carrier::Link),
            3 => self.signal(chunk),
            4 => self.pass(chunk),
            5 => self.send(chunk),
            6 => self.receipt(chunk),
            7 => self.batch([Input::LinkFrame(LINK, Bytes::copy_from_slice(chunk))]),
            8 => self.batch([Input::UplinkClosed(String::new())]),
            9 => self.welcome(),
            10 => self.open_link(chunk),
            11 => self.batch([Input::Datagram {
                socket: 0,
                from: STUN.parse().expect("an address"),
                datagram: Bytes::copy_from_slice(chunk),
            }]),
            _ => self.batch([
                Input::LinkClosed(LINK),
                Input::Request { token: 1, request: Request::Ping(VECTORS.alice.id()) },
            ]),
        }
    }

    fn now(&self) -> Now {
        Now { monotonic: Monotonic::from_origin(self.since), wall: VECTORS.now.plus(self.since) }
    }

    fn frame(&mut self, frame: &ToNode) {
        self.batch([Input::UplinkFrame(frame.encode())]);
    }

    /// Runs a batch as a host does, with an empty store; what leaves must be well-formed.
    fn batch(&mut self, inputs: impl IntoIterator<Item = Input>) {
        let now = self.now();
        let mut batch = Batch::begin(&mut self.endpoint, now);
        inputs.into_iter().for_each(|input| self.endpoint.handle(now, input));
        let Ok(()) = batch.drain(&mut self.endpoint, now, &mut EmptyStore::default());
        for act in batch.acts {
            match act {
                Output::SendUplink(frame) => {
                    let frame = ToCoordinator::decode(&frame, FRAME_BYTES_MAX).expect("a well-formed frame");
                    if let ToCoordinator::Hello { hello, .. } = frame {
                        self.hello = Some(hello);
                    }
                }
                Output::SendLink(_, frame) => drop(OnLink::decode(&frame).expect("a well-formed frame")),
                Output::Write(_)
                | Output::LookupSent { .. }
                | Output::LookupSeen(_)
                | Output::Load(_)
                | Output::LoadEntries(_) => {
                    unreachable!("no act of a batch")
                }
                Output::SendDatagram { datagram, .. } => {
                    assert!(StunMessage::parse(&datagram).is_some(), "a well-formed datagram");
                }
                Output::ConnectUplink
                | Output::CloseUplink(_)
                | Output::CloseLink(_)
                | Output::Expect { .. }
                | Output::Dial { .. }
                | Output::WebRtc(_)
                | Output::OpenSockets { .. }
                | Output::CloseSockets(_)
                | Output::Forget(_)
                | Output::Reply(..)
                | Output::Event(_) => {}
            }
        }
    }

    /// Plays the coordinator's part of a hello.
    fn welcome(&mut self) {
        self.batch([Input::Timeout, Input::UplinkOpened]);
        let mut challenge = peerloom_proto::Challenge::parse(&VECTORS.challenge).expect("a challenge");
        challenge.ts = self.now().wall;
        self.hello = None;
        self.frame(&ToNode::Challenge { challenge: challenge.encode().into() });
        let Some(hello) = self.hello.take() else { return };
        assert!(Hello::parse(&hello.stmt).is_ok());
        let welcome = Welcome {
            hello: hash("hello", &[&hello.stmt, &hello.sig.0]),
            ts: self.now().wall,
            head: VECTORS.roster().head(),
            lease: Duration::from_secs(90),
            frame_bytes_max: FRAME_BYTES_MAX as u64,
            store: None,
        };
        let signed = SignedWelcome::sign(&VECTORS.coordinator, welcome);
        let welcome = SignedBytes { stmt: signed.stmt().clone(), sig: signed.sig() };
        self.frame(&ToNode::Welcome { welcome });
    }

    /// Alice says these bytes, sealed as they should be.
    fn deliver(&mut self, body: &[u8], carrier: Carrier) {
        self.counter += 1;
        let mut id = [0; 16];
        // Some ids come again.
        id[0] = u8::try_from(self.counter % 8).expect("below eight");
        let now = self.now().wall;
        let header = Header {
            suite: Suite::Box,
            mesh: VECTORS.mesh,
            channel: Channel::Dm,
            from: VECTORS.alice.id(),
            auth: None,
            to: Recipient::Peer(VECTORS.bob.id()),
            id: MessageId(id),
            ts: now,
            exp: now.plus(Duration::from_secs(3_600)),
            fp: Fingerprint(peerloom_proto::sha256(body)),
            head: VECTORS.roster().head(),
            spk: None,
            kid: Kid([0; 16]),
            nonce: [0; 24],
            priority: Priority::Next,
            stream: None,
            rpc: None,
            group: None,
        };
        let sender = SenderBox::new(&BoxSecretKey::from_bytes([8; 32]), &VECTORS.secret().public());
        let sealed = seal(header, body, &sender, &[6; 32], &VECTORS.alice).expect("it fits");
        match carrier {
            Carrier::Uplink => {
                self.frame(&ToNode::Deliver { claim: self.counter, queued: false, envelope: sealed.wire });
            }
            Carrier::Link => {
                let frame = OnLink::Envelope { envelope: sealed.wire };
                self.batch([Input::LinkFrame(LINK, frame.encode())]);
            }
        }
    }

    fn signal(&mut self, content: &[u8]) {
        let content_type = peerloom_proto::SIGNAL_TYPE.to_owned();
        let message = Message { content_type, content: Bytes::copy_from_slice(content), reply_to: None };
        let body = peerloom_proto::Body { message, place: None, prekey: None };
        self.deliver(&body.encode(), Carrier::Uplink);
    }

    fn pass(&mut self, chunk: &[u8]) {
        let seconds = chunk.iter().fold(0_u64, |sum, byte| (sum * 7 + u64::from(*byte)) % 100_000);
        self.since += Duration::from_secs(seconds);
        for _ in 0..8 {
            let now = self.now();
            match self.endpoint.poll_timeout(now) {
                Some(at) if at <= now.monotonic => self.batch([]),
                Some(_) | None => return,
            }
        }
    }

    fn send(&mut self, chunk: &[u8]) {
        let id = chunk.first().filter(|byte| **byte < 4).map(|byte| MessageId([*byte; 16]));
        let message = Message {
            content_type: "text/plain".to_owned(),
            content: Bytes::copy_from_slice(chunk),
            reply_to: None,
        };
        let to = vec![VECTORS.alice.id()];
        let life = Duration::from_secs(60);
        let send = Send { id, to, message, priority: Priority::Next, life };
        self.batch([Input::Request { token: self.counter, request: Request::Send(send) }]);
    }

    /// These bytes as a receipt, signed by Alice.
    fn receipt(&mut self, stmt: &[u8]) {
        let sig = VECTORS.alice.sign("receipt", &[stmt]);
        let receipt = SignedBytes { stmt: Bytes::copy_from_slice(stmt), sig };
        self.frame(&ToNode::Receipt { claim: 1, receipt });
    }

    fn open_link(&mut self, chunk: &[u8]) {
        let mut conn = [0; 16];
        conn.iter_mut().zip(chunk).for_each(|(to, from)| *to = *from);
        self.batch([Input::LinkOpened(OpenedLink {
            link: LINK,
            conn: ConnId(conn),
            dialled: chunk.len().is_multiple_of(2),
            transport: BindTransport::Quic,
            local_cert: CertHash([9; 32]),
            peer_cert: CertHash([8; 32]),
            exporter: Some([7; 32]),
            remote: String::new(),
        })]);
    }
}

/// Knows nothing, and sees to it that a batch ends.
#[derive(Default)]
struct EmptyStore {
    asked: usize,
}

impl EmptyStore {
    fn count(&mut self) {
        self.asked += 1;
        assert!(self.asked < LOOKUPS_MAX, "a batch ends");
    }
}

/// A batch of one input asks each kind of question a few times.
const LOOKUPS_MAX: usize = 48;

impl Lookups for EmptyStore {
    type Error = Infallible;

    fn sent(&mut self, ids: &[MessageId]) -> Result<Vec<Vec<SentRow>>, Infallible> {
        self.count();
        Ok(vec![Vec::new(); ids.len()])
    }

    fn seen(&mut self, keys: &[(PeerId, MessageId)]) -> Result<Vec<Option<SeenRow>>, Infallible> {
        self.count();
        Ok(vec![None; keys.len()])
    }

    fn load(&mut self, _: &[Row]) -> Result<Vec<OutboxRow>, Infallible> {
        self.count();
        Ok(Vec::new())
    }

    fn entries(&mut self, _: u64) -> Result<Vec<Bytes>, Infallible> {
        self.count();
        Ok(Vec::new())
    }
}

enum Carrier {
    Uplink,
    Link,
}

const LINK: u64 = 1;

/// A script step.
pub(crate) fn step(what: u8, chunk: &[u8]) -> Vec<u8> {
    let length = u16::try_from(chunk.len()).expect("a short chunk").to_be_bytes();
    [&[what], &length[..], chunk].concat()
}

/// A receipt that names nothing Bob sent.
pub(crate) fn empty_receipt() -> Vec<u8> {
    let row = peerloom_proto::ReceiptRow {
        env_hash: peerloom_proto::EnvHash([1; 32]),
        id: MessageId([1; 16]),
        status: peerloom_proto::ReceiptStatus::Stored,
        code: None,
    };
    let (mesh, head) = (VECTORS.mesh, VECTORS.roster().head());
    let (by, to): (PeerId, PeerId) = (VECTORS.alice.id(), VECTORS.bob.id());
    peerloom_proto::Receipt { mesh, by, to, rows: vec![row], ts: VECTORS.now, head }.encode()
}

/// A signature for frames in which nobody checks one.
pub(crate) fn no_signature(stmt: Vec<u8>) -> SignedBytes {
    SignedBytes { stmt: stmt.into(), sig: Signature([1; 64]) }
}

/// The server Bob asks where he is.
const STUN: &str = "198.51.100.1:3478";
