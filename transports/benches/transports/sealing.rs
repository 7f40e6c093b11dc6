//! Sealing as a node does it, for one recipient whose key is known.

use bytes::Bytes;
use peerloom_proto::limits::MESSAGE_LIFE_MAX;
use peerloom_proto::{
    BoxSecretKey, Channel, EntryHash, Fingerprint, Head, Header, IdentityKey, Kid, MeshId, MessageId,
    Priority, Recipient, SenderBox, Suite, UnixMs, seal,
};

/// One sender, one recipient.
pub(crate) struct Sealing {
    blank: Header,
    sender: SenderBox,
    signer: IdentityKey,
}

impl Sealing {
    pub(crate) fn new() -> Self {
        let signer = IdentityKey::from_seed(&[1; 32]);
        let to = IdentityKey::from_seed(&[2; 32]).id();
        let recipient = BoxSecretKey::from_bytes([3; 32]).public();
        let sender = SenderBox::new(&BoxSecretKey::from_bytes([4; 32]), &recipient);
        let ts = UnixMs(1_800_000_000_000);
        let blank = Header {
            suite: Suite::Box,
            mesh: MeshId([5; 32]),
            channel: Channel::Dm,
            from: signer.id(),
            auth: None,
            to: Recipient::Peer(to),
            id: MessageId([3; 16]),
            ts,
            exp: ts.plus(MESSAGE_LIFE_MAX),
            fp: Fingerprint([4; 32]),
            head: Head { size: 3, hash: EntryHash([6; 32]) },
            spk: None,
            kid: Kid([0; 16]),
            nonce: [0; 24],
            priority: Priority::Next,
            stream: None,
            rpc: None,
            group: None,
        };
        Self { blank, sender, signer }
    }

    /// An envelope with this body.
    pub(crate) fn seal(&self, body: &[u8]) -> Bytes {
        seal(self.blank.clone(), body, &self.sender, &[6; 32], &self.signer).unwrap().wire
    }
}
