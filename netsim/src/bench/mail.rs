//! Mail that is sealed before the clock runs, and a sender that writes it as fast as it is taken.

use std::io::Write;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{bail, ensure};
use bytes::Bytes;
use peerloom_proto::limits::MESSAGE_LIFE_MAX;
use peerloom_proto::wire::{ToCoordinator, ToNode};
use peerloom_proto::{
    Body, BoxSecretKey, Channel, EnvHash, Fingerprint, Generation, Header, Kid, Message, MessageId, Place,
    Priority, Recipient, SenderBox, Suite, seal,
};

use super::link::{Link, write_frame};
use super::mesh::LoadMesh;
use crate::progress::Progress;

/// Bytes given to the socket at once.
const WRITE_BYTES: usize = 128 << 10;

/// Envelopes of one sender, each as the WebSocket frame that puts it.
#[derive(Default)]
pub(crate) struct Mail {
    /// The sender, among the mesh's members.
    pub(crate) from: usize,
    frames: Vec<u8>,
    /// Where each frame ends.
    ends: Vec<usize>,
    /// What names each.
    pub(crate) names: Vec<(EnvHash, MessageId)>,
    /// The last bytes of each signature: enough to know an envelope again.
    pub(crate) tails: Vec<Tail>,
}

/// The last bytes of an envelope, which are random.
pub(crate) type Tail = [u8; 8];

/// What is sealed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan<'a> {
    /// Senders, among the mesh's members.
    pub(crate) from: &'a [usize],
    /// Recipients, among the mesh's members, in turn.
    pub(crate) to: &'a [usize],
    /// Messages of each sender.
    pub(crate) each: usize,
    /// Bytes of content.
    pub(crate) content_bytes: usize,
}

impl Mail {
    pub(crate) fn len(&self) -> usize {
        self.ends.len()
    }

    /// One frame.
    pub(crate) fn frame(&self, index: usize) -> &[u8] {
        let begin = index.checked_sub(1).map_or(0, |before| self.ends[before]);
        &self.frames[begin..self.ends[index]]
    }

    /// Bytes of one message on the wire, about.
    pub(crate) fn frame_bytes(&self) -> usize {
        self.frames.len() / self.ends.len().max(1)
    }
}

/// Seals all of a plan's mail, one thread a sender.
pub(crate) fn seal_all(mesh: &LoadMesh, plan: Plan<'_>, progress: &Progress) -> anyhow::Result<Vec<Mail>> {
    let (done, of) = (AtomicUsize::new(0), plan.each * plan.from.len());
    std::thread::scope(|scope| {
        let sealing: Vec<_> =
            plan.from.iter().map(|from| scope.spawn(|| seal_from(mesh, *from, plan, &done))).collect();
        while sealing.iter().any(|thread| !thread.is_finished()) {
            progress.at("sealing", done.load(Ordering::Relaxed), of);
            std::thread::sleep(Duration::from_millis(50));
        }
        sealing.into_iter().map(|thread| thread.join().expect("sealing does not panic")).collect()
    })
}

fn seal_from(mesh: &LoadMesh, from: usize, plan: Plan<'_>, done: &AtomicUsize) -> anyhow::Result<Mail> {
    let mut entropy = super::entropy(&format!("mail of {from}"));
    let secret = BoxSecretKey::from_bytes(entropy.bytes());
    let generation = Generation(entropy.bytes());
    let boxes: Vec<SenderBox> =
        plan.to.iter().map(|to| SenderBox::new(&secret, &mesh.members[*to].prekey)).collect();
    let signer = &mesh.members[from].identity;
    let (sender, head) = (signer.id(), mesh.roster.head());
    let content = Bytes::from(vec![b'x'; plan.content_bytes]);
    let mut mail = Mail { from, ..Mail::default() };
    for index in 0..plan.each {
        let turn = index % plan.to.len();
        let ts = super::now();
        let id = MessageId(entropy.bytes());
        let header = Header {
            suite: Suite::Box,
            mesh: mesh.roster.mesh_id(),
            channel: Channel::Dm,
            from: sender,
            auth: None,
            to: Recipient::Peer(mesh.members[plan.to[turn]].identity.id()),
            id,
            ts,
            exp: ts.plus(MESSAGE_LIFE_MAX),
            fp: Fingerprint(entropy.bytes()),
            head,
            spk: None,
            kid: Kid([0; 16]),
            nonce: [0; 24],
            priority: Priority::Next,
            stream: None,
            rpc: None,
            group: None,
        };
        let message =
            Message { content_type: "text/plain".to_owned(), content: content.clone(), reply_to: None };
        let seq = (index / plan.to.len()) as u64;
        let body = Body { message, place: Some(Place { generation, seq, lowest: 0 }), prekey: None };
        let sealed = seal(header, &body.encode(), &boxes[turn], &entropy.bytes(), signer)?;
        mail.names.push((sealed.env_hash, id));
        mail.tails.push(tail(&sealed.wire));
        write_frame(&mut mail.frames, &ToCoordinator::Put { envelope: sealed.wire }.encode());
        mail.ends.push(mail.frames.len());
        done.fetch_add(1, Ordering::Relaxed);
    }
    Ok(mail)
}

/// The end of an envelope, by which it is known again.
pub(crate) fn tail(envelope: &[u8]) -> Tail {
    envelope.last_chunk().copied().unwrap_or_default()
}

/// Puts all mail as fast as it is taken; how long it took until the coordinator had accepted the last.
pub(crate) fn put_all(mesh: &LoadMesh, mails: &[Mail], progress: &Progress) -> anyhow::Result<Duration> {
    let links: Vec<Link> = mails.iter().map(|mail| mesh.hello(mail.from)).collect::<anyhow::Result<_>>()?;
    let (accepted, of) = (AtomicUsize::new(0), mails.iter().map(Mail::len).sum());
    let began = Instant::now();
    std::thread::scope(|scope| {
        let mut running = Vec::new();
        for (mut link, mail) in links.into_iter().zip(mails) {
            let mut writer = link.writer()?;
            let accepted = &accepted;
            running.push(scope.spawn(move || {
                mail.frames.chunks(WRITE_BYTES).try_for_each(|part| writer.write_all(part))?;
                Ok(())
            }));
            running.push(scope.spawn(move || {
                let mut left = mail.len();
                while left > 0 {
                    let here = accept_some(&mut link, |_| {})?;
                    ensure!(here <= left, "more was accepted than sent");
                    left -= here;
                    accepted.fetch_add(here, Ordering::Relaxed);
                }
                link.close();
                Ok(())
            }));
        }
        while running.iter().any(|thread| !thread.is_finished()) {
            progress.at("accepted", accepted.load(Ordering::Relaxed), of);
            std::thread::sleep(Duration::from_millis(5));
        }
        let ended: Vec<anyhow::Result<()>> =
            running.into_iter().map(|thread| thread.join().expect("a sender does not panic")).collect();
        ended.into_iter().collect::<anyhow::Result<()>>()
    })?;
    Ok(began.elapsed())
}

/// Takes what has arrived, `accepted` above all; how many envelopes it named.
pub(crate) fn accept_some(link: &mut Link, mut each: impl FnMut(&EnvHash)) -> anyhow::Result<usize> {
    let mut count = 0;
    let mut pings = Vec::new();
    let frames = link.arrived()?;
    while let Some(frame) = frames.next()? {
        match ToNode::decode(&Bytes::copy_from_slice(frame))? {
            ToNode::Accepted { env_hashes, .. } => {
                count += env_hashes.len();
                env_hashes.iter().for_each(&mut each);
            }
            ToNode::Refused { code, retry_ms, .. } => {
                bail!("an envelope is refused: {code}, retry in {retry_ms} ms")
            }
            ToNode::Error { code, text } => bail!("the coordinator closes the link: {code}: {text}"),
            ToNode::Ping { nonce } => pings.push(nonce),
            // Who else is there, and receipts of earlier mail.
            ToNode::Presence { .. }
            | ToNode::Pong { .. }
            | ToNode::Entries { .. }
            | ToNode::Receipt { .. }
            | ToNode::Expired { .. } => {}
            other @ (ToNode::Challenge { .. }
            | ToNode::Welcome { .. }
            | ToNode::LogWanted { .. }
            | ToNode::Deliver { .. }
            | ToNode::Appended { .. }
            | ToNode::Conflict { .. }
            | ToNode::Failed { .. }
            | ToNode::Done { .. }
            | ToNode::Prekeys { .. }
            | ToNode::GoingAway { .. }) => bail!("the coordinator says {other:?} to a sender"),
        }
    }
    pings.into_iter().try_for_each(|nonce| link.send(&ToCoordinator::Pong { nonce }))?;
    Ok(count)
}
