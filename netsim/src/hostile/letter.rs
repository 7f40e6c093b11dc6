//! What a hostile member seals: good envelopes of its own, and some that are wrong in one way.

use std::time::Duration;

use bytes::Bytes;
use peerloom_proto::{
    Body, BoxSecretKey, Channel, EntryHash, EnvHash, Fingerprint, Generation, Head, Header, Kid, Message,
    MessageId, PeerId, Place, Priority, Recipient, SIGNAL_TYPE, SealedEnvelope, SenderBox, Signal, Suite,
    UnixMs, UnverifiedEnvelope, Value, decode, encode, seal, sha256,
};

use super::REMEMBERED;
use crate::mesh::first_prekey;
use crate::model::Planned;
use crate::world::World;

/// A message of a hostile member.
pub(super) struct Letter {
    pub(super) to: usize,
    pub(super) id: MessageId,
    pub(super) fp: Fingerprint,
    pub(super) ts: UnixMs,
    pub(super) exp: UnixMs,
    pub(super) head: Head,
    /// Where it stands in a conversation; none for mail that may be shown at once.
    pub(super) place: Option<Place>,
    text: String,
    /// What it says instead of its text.
    pub(super) signal: Option<Signal>,
}

/// Somebody else's message under way, as far as its header shows.
pub(super) struct Row {
    pub(super) from: usize,
    pub(super) to: PeerId,
    pub(super) id: MessageId,
    pub(super) fp: Fingerprint,
    pub(super) env_hash: EnvHash,
    pub(super) wire: Bytes,
}

/// How long a letter is worth delivering.
const LETTER_LIFE: Duration = Duration::from_secs(60);

impl World {
    /// A letter with nothing wrong in it.
    pub(super) fn letter(&mut self, hostile: usize, to: usize) -> Letter {
        let ts = self.node_now(self.hostiles[hostile].node).wall;
        let it = &mut self.hostiles[hostile];
        let number = self.history.messages.len();
        let process = self.nodes[it.node].process.as_ref();
        let head = process.map_or(self.mesh.roster.head(), |process| process.endpoint.roster().head());
        Letter {
            to,
            id: MessageId(it.chance.bytes()),
            fp: Fingerprint(it.chance.bytes()),
            ts,
            exp: ts.plus(LETTER_LIFE),
            head,
            place: None,
            text: format!("hostile {number}"),
            signal: None,
        }
    }

    /// Seals a letter to the key that stands in the log.
    pub(super) fn seal(&mut self, hostile: usize, letter: &Letter) -> SealedEnvelope {
        let seed = self.seed;
        let it = &mut self.hostiles[hostile];
        let chance = &mut it.chance;
        let sender = it.boxes.entry(letter.to).or_insert_with(|| {
            let secret = BoxSecretKey::from_bytes(chance.bytes());
            SenderBox::new(&secret, &first_prekey(seed, letter.to).secret.public())
        });
        let (content_type, content) = match &letter.signal {
            Some(signal) => (SIGNAL_TYPE, Bytes::from(signal.encode())),
            None => ("text/plain", Bytes::copy_from_slice(letter.text.as_bytes())),
        };
        let message = Message { content_type: content_type.to_owned(), content, reply_to: None };
        let body = Body { message, place: letter.place, prekey: None };
        let header = Header {
            suite: Suite::Box,
            mesh: self.mesh.roster.mesh_id(),
            channel: Channel::Dm,
            from: self.nodes[it.node].id,
            auth: None,
            to: Recipient::Peer(self.nodes[letter.to].id),
            id: letter.id,
            ts: letter.ts,
            exp: letter.exp,
            fp: letter.fp,
            head: letter.head,
            spk: None,
            kid: Kid([0; 16]),
            nonce: [0; 24],
            priority: Priority::Now,
            stream: None,
            rpc: None,
            group: None,
        };
        let key = &self.nodes[it.node].key;
        let sealed =
            seal(header, &body.encode(), sender, &it.chance.bytes(), key).expect("a letter is short");
        self.evidence.sealed.insert(sealed.env_hash, sealed.wire.clone());
        sealed
    }

    /// Seals a letter and hands it over. It counts as a message of this member's: a recipient may keep it.
    pub(super) fn posts(&mut self, hostile: usize, letter: &Letter) {
        let wire = self.seal(hostile, letter).wire;
        self.note_letter(hostile, letter);
        let it = &mut self.hostiles[hostile];
        if it.sealed.len() < REMEMBERED {
            it.sealed.push((letter.to, wire.clone()));
            it.used.push((letter.to, letter.id));
        }
        self.hands_over(hostile, letter.to, wire);
    }

    /// A letter that may be kept and shown, in this member's name and in no other.
    pub(super) fn note_letter(&mut self, hostile: usize, letter: &Letter) {
        let number = self.history.messages.len();
        let from = self.hostiles[hostile].node;
        self.by_id.entry(letter.id).or_default().push(number);
        let (at, text) = (self.queue.now(), letter.text.clone());
        self.history.messages.push(Planned { at, number, id: letter.id, from, to: letter.to, text });
    }

    /// A message of another member's that is not settled, for `to` or for anybody.
    pub(super) fn somebodys_row(&mut self, hostile: usize, to: Option<usize>) -> Option<Row> {
        let node = self.hostiles[hostile].node;
        let to = to.map(|to| self.nodes[to].id);
        let others = self.nodes.iter().enumerate().filter(|(from, _)| *from != node);
        let rows = others.flat_map(|(from, other)| other.disk.open_rows().map(move |row| (from, row)));
        let rows: Vec<_> = rows.filter(|(_, row)| to.is_none_or(|to| row.to == to)).collect();
        let (from, row) = rows.get(self.hostiles[hostile].chance.below(rows.len()))?;
        let (id, fp, env_hash, wire) = (row.id, row.fp, row.env_hash, row.wire.clone());
        Some(Row { from: *from, to: row.to, id, fp, env_hash, wire })
    }

    /// A message of a life of its counters that begins with it, after one that never comes.
    pub(super) fn makes_up_a_life(&mut self, hostile: usize, to: usize) {
        let mut letter = self.letter(hostile, to);
        let generation = Generation(self.hostiles[hostile].chance.bytes());
        letter.place = Some(Place { generation, seq: 1, lowest: 0 });
        self.posts(hostile, &letter);
        self.did("made up a life");
    }

    /// Heads of no log, of a longer one, and of the time before it was a member.
    pub(super) fn signs_another_head(&mut self, hostile: usize, to: usize) {
        let mut letter = self.letter(hostile, to);
        let it = &mut self.hostiles[hostile];
        let hash = EntryHash(it.chance.bytes());
        letter.head = match it.chance.below(3) {
            0 => Head { size: 1 << 50, hash },
            1 => Head { size: letter.head.size, hash },
            _ => Head { size: 0, hash },
        };
        self.posts(hostile, &letter);
        self.did("signed another head");
    }

    /// Boxes under a key that nobody holds, that do not open, and that were made for another header.
    pub(super) fn seals_wrongly(&mut self, hostile: usize, to: usize) {
        let letter = self.letter(hostile, to);
        let sealed = self.seal(hostile, &letter).wire;
        let wrong = self.hostiles[hostile].chance.below(3);
        let Some(spoiled) = self.sealed_again(hostile, &sealed, wrong) else { return };
        self.hands_over(hostile, to, spoiled);
        self.did("sealed wrongly");
    }

    fn sealed_again(&mut self, hostile: usize, wire: &Bytes, wrong: usize) -> Option<Bytes> {
        let it = &mut self.hostiles[hostile];
        let mut header = UnverifiedEnvelope::parse(wire.clone()).ok()?.header().clone();
        let [version, _, ct, _] = decode(wire, wire.len()).ok()?.tuple().ok()?;
        let mut ct = ct.bytes().ok()?.to_vec();
        match wrong {
            0 => header.kid = Kid(it.chance.bytes()),
            1 => ct[0] ^= 1,
            _ => header.exp = header.exp.plus(Duration::from_secs(1)),
        }
        let hdr = header.encode();
        let sig = self.nodes[it.node].key.sign("envelope", &[&hdr, &sha256(&ct)]);
        let items = vec![version, Value::Bytes(&hdr), Value::Bytes(&ct), Value::Bytes(&sig.0)];
        Some(encode(&Value::Array(items)).into())
    }
}
