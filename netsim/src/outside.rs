//! What an outsider sees of a run: who holds the coordinator, its disk, and every wire. Of each frame
//! the instant, the stream, the direction, the size, the sort and every field in the clear; of what
//! follows from a message's content by a key or a hash (ciphertext, nonce, fingerprint, envelope hash,
//! and signatures over these) only that it is there.
//!
//! `check/no_plaintext_outside` compares two runs that differ in nothing but what the messages say.

use std::fmt::Debug;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use bytes::Bytes;
use peerloom_coordinator::store::Write as HubWrite;
use peerloom_proto::wire::{OnLink, ToCoordinator, ToNode};
use peerloom_proto::{EnvHash, Fingerprint, hex_of};

use crate::chance::Chance;
use crate::frame::Frame;
use crate::network::{Purpose, StreamId};
use crate::queue::Carried;
use crate::trace::name_of;

/// One observer, of one of the two runs.
#[derive(Debug)]
pub(crate) struct Outside {
    contents: Contents,
    seed: u64,
    /// What must not be found, in every spelling that is looked for.
    canaries: Vec<(&'static str, Vec<u8>)>,
    seen: Vec<Sighting>,
    /// Everything beyond [`SIGHTINGS_MAX`], as one number.
    rest: u64,
    /// Places where a canary was found.
    leaks: Vec<Sighting>,
}

/// One thing that can be seen from outside, and when.
pub(crate) type Sighting = (Duration, String);

/// What the messages of a run say. Both say as much.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Contents {
    Ones,
    Others,
}

/// Sightings that are kept to show where two runs part; of later ones only that they do.
const SIGHTINGS_MAX: usize = 200_000;

/// Long enough that chance does not write it: 20 of 62 letters.
const CANARY_BYTES: usize = 20;

/// Content before the canary, so that its first byte differs from message to message.
const HEAD_BYTES: usize = 6;

impl Outside {
    pub(crate) fn new(seed: u64, contents: Contents) -> Self {
        let canary = letters(seed, "canary", contents, CANARY_BYTES);
        let canaries = spellings(canary.as_bytes());
        Self { contents, seed, canaries, seen: Vec::new(), rest: 0, leaks: Vec::new() }
    }

    /// What a message says: letters, among them the run's canary where there is room.
    pub(crate) fn text(&self, number: usize, bytes: usize) -> String {
        let mut text = letters(self.seed, &format!("message {number}"), self.contents, bytes);
        if let Some(place) = text.get(HEAD_BYTES..HEAD_BYTES + CANARY_BYTES).map(str::len) {
            let canary = letters(self.seed, "canary", self.contents, place);
            text.replace_range(HEAD_BYTES..HEAD_BYTES + place, &canary);
        }
        text
    }

    pub(crate) fn seen(&self) -> &[Sighting] {
        &self.seen
    }

    pub(crate) fn leaks(&self) -> &[Sighting] {
        &self.leaks
    }

    pub(crate) fn rest(&self) -> u64 {
        self.rest
    }

    /// Somebody begins to connect.
    pub(crate) fn dials(&mut self, at: Duration, stream: StreamId) {
        self.see(at, format!("stream {} is dialled", stream.0));
    }

    /// Something leaves towards this end of a stream.
    pub(crate) fn passes(
        &mut self,
        at: Duration,
        stream: StreamId,
        end: usize,
        purpose: &Purpose,
        carried: &Carried,
    ) {
        let what = match carried {
            Carried::Accepted => "is accepted".to_owned(),
            Carried::End => "is closed".to_owned(),
            Carried::Frame(bytes) => {
                let frame = Frame::read(purpose, end, bytes);
                let (word, clear) = (frame.word(), clear_of(&frame, bytes));
                self.look_for_canaries(at, bytes, &format!("a frame, {word}"));
                format!("frame of {} bytes, {word}: {clear}", bytes.len())
            }
        };
        self.see(at, format!("stream {} towards end {end}: {what}", stream.0));
    }

    /// The coordinator's disk takes writes.
    pub(crate) fn stores(&mut self, at: Duration, writes: &[HubWrite]) {
        for write in writes {
            let (mut write, mut bytes) = (write.clone(), Bytes::new());
            if let HubWrite::PutMail(row) = &mut write {
                bytes = std::mem::take(&mut row.bytes);
                row.env_hash = HIDDEN_HASH;
            } else if let HubWrite::DeleteMail { env_hash, .. } = &mut write {
                *env_hash = env_hash.map(|_| HIDDEN_HASH);
            }
            let told = format!("{write:?}");
            self.look_for_canaries(at, &bytes, "a row of the coordinator");
            self.look_for_canaries(at, told.as_bytes(), "a row of the coordinator");
            self.see(at, format!("the coordinator stores {} bytes, {told}", bytes.len()));
        }
    }

    fn see(&mut self, at: Duration, what: String) {
        if self.seen.len() < SIGHTINGS_MAX {
            self.seen.push((at, what));
        } else {
            self.rest = name_of(format!("{} {at:?} {what}", self.rest).as_bytes());
        }
    }

    fn look_for_canaries(&mut self, at: Duration, bytes: &[u8], place: &str) {
        for (spelling, canary) in &self.canaries {
            if bytes.windows(canary.len()).any(|window| window == canary) {
                self.leaks.push((at, format!("{place} holds content in {spelling}")));
            }
        }
    }
}

const HIDDEN_HASH: EnvHash = EnvHash([0; EnvHash::LEN]);

/// A frame's fields in the clear. What follows from the content is left out; of a frame in which nothing
/// can, every byte counts.
fn clear_of(frame: &Frame, bytes: &Bytes) -> String {
    if let Some(envelope) = frame.envelope() {
        let mut header = envelope.header().clone();
        // Keyed hashes of the content, the second through the first.
        header.fp = Fingerprint([0; Fingerprint::LEN]);
        header.nonce = [0; 24];
        return match frame {
            Frame::ToNode(ToNode::Deliver { claim, queued, envelope: _ }) => {
                format!("claim {claim}, queued {queued}, {header:?}")
            }
            Frame::ToCoordinator(_) | Frame::ToNode(_) | Frame::OnLink(_) | Frame::Unreadable => {
                format!("{header:?}")
            }
        };
    }
    if let Some(mut receipt) = frame.receipt() {
        receipt.rows.iter_mut().for_each(|row| row.env_hash = HIDDEN_HASH);
        let claims = match frame {
            Frame::ToCoordinator(ToCoordinator::Receipt { claims, .. }) => claims.clone(),
            Frame::ToNode(ToNode::Receipt { claim, .. }) => vec![*claim],
            Frame::ToCoordinator(_) | Frame::ToNode(_) | Frame::OnLink(_) | Frame::Unreadable => Vec::new(),
        };
        return format!("claims {claims:?}, {receipt:?}");
    }
    match frame {
        Frame::ToNode(ToNode::Accepted { env_hashes, commit }) => {
            format!("{} envelopes, commit {commit}", env_hashes.len())
        }
        Frame::ToNode(ToNode::Refused { env_hash: _, code, retry_ms }) => format!("{code}, {retry_ms} ms"),
        Frame::ToNode(ToNode::Expired { claim, env_hash: _ }) => format!("claim {claim}"),
        // Spoilt by who says it, and who sees it anyway.
        Frame::ToNode(ToNode::Deliver { claim, .. } | ToNode::Receipt { claim, .. }) => {
            format!("claim {claim}, spoilt")
        }
        Frame::OnLink(OnLink::Ping { nonce } | OnLink::Pong { nonce }) => format!("nonce {nonce}"),
        Frame::ToCoordinator(_) | Frame::ToNode(_) | Frame::OnLink(_) | Frame::Unreadable => {
            format!("{:016x}", name_of(bytes))
        }
    }
}

/// So many letters and digits, drawn for one purpose of one of the two runs.
fn letters(seed: u64, purpose: &str, contents: Contents, count: usize) -> String {
    const LETTERS: &[u8; 62] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";
    let mut chance = Chance::new(seed, purpose, &format!("contents {contents:?}"));
    (0..count).map(|_| char::from(LETTERS[chance.below(LETTERS.len())])).collect()
}

/// A secret as it may stand in bytes: as it is, backwards, in hexadecimal, and in base64 at each of the
/// three places it may have in a group.
fn spellings(secret: &[u8]) -> Vec<(&'static str, Vec<u8>)> {
    let hex = hex_of(secret);
    let backwards: Vec<u8> = secret.iter().rev().copied().collect();
    let mut all = vec![
        ("plain text", secret.to_vec()),
        ("reverse", backwards),
        ("upper-case hexadecimal", hex.to_uppercase().into_bytes()),
        ("hexadecimal", hex.into_bytes()),
    ];
    for before in 0..3 {
        // The first and the last group mix the secret with its neighbours.
        let padded = [&[0; 2][..before], secret].concat();
        for engine in [STANDARD_NO_PAD, URL_SAFE_NO_PAD] {
            let text = engine.encode(&padded).into_bytes();
            all.push(("base64", text[4..text.len() - 4].to_vec()));
        }
    }
    all
}

#[cfg(test)]
mod tests;
