//! Signalling statements (protocol.md §9): what two nodes say to each other, sealed like any dm, to
//! make a direct channel or to keep their conversations in step. Never kept, never shown.
//!
//! {0: kind, 1: nonce16, 2: the offer's nonce, 3: transport, 4: certificate hash, 5: addresses,
//!  6: generation, 7: lowest unsettled seq} with the fields each kind needs.

use std::net::SocketAddr;

use crate::canonical::{DecodeError, Value, decode, encode, map};
use crate::id::{CertHash, ConnId, Generation};
use crate::limits::{CANDIDATES_MAX, STATEMENT_BYTES_MAX};
use crate::transcript::hash16;

/// One signalling statement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Signal {
    /// Let us make a direct channel.
    Offer {
        /// Random, names the attempt on the offerer's side.
        nonce: [u8; 16],
        /// The offerer's certificate.
        cert: CertHash,
        /// Where the offerer is.
        candidates: Vec<SocketAddr>,
    },
    /// Here I am; dial me.
    Answer {
        /// Random, names the attempt on the answerer's side.
        nonce: [u8; 16],
        /// The offer's nonce.
        offer: [u8; 16],
        /// The answerer's certificate.
        cert: CertHash,
        /// Where the answerer is.
        candidates: Vec<SocketAddr>,
    },
    /// Not now: no direct transport here.
    Decline {
        /// The offer's nonce.
        offer: [u8; 16],
    },
    /// Say this back.
    Echo {
        /// Returned unchanged.
        nonce: [u8; 16],
    },
    /// Said back.
    EchoReply {
        /// The echo's nonce.
        nonce: [u8; 16],
    },
    /// Nobody need wait for what is below `lowest`.
    Settled {
        /// One life of the sender's counters.
        generation: Generation,
        /// The lowest seq that may still arrive.
        lowest: u64,
    },
}

/// HASH("conn", nonce_i, nonce_r)[0..16]: one attempt, named by both.
pub fn conn_id(offer: &[u8; 16], answer: &[u8; 16]) -> ConnId {
    ConnId(hash16("conn", &[offer, answer]))
}

impl Signal {
    /// The canonical bytes.
    pub fn encode(&self) -> Vec<u8> {
        let texts;
        let pairs = match self {
            Self::Offer { nonce, cert, candidates } => {
                texts = texts_of(candidates);
                vec![kind(0), (1, Value::Bytes(nonce)), QUIC, (4, Value::Bytes(&cert.0)), (5, list(&texts))]
            }
            Self::Answer { nonce, offer, cert, candidates } => {
                texts = texts_of(candidates);
                vec![
                    kind(1),
                    (1, Value::Bytes(nonce)),
                    (2, Value::Bytes(offer)),
                    QUIC,
                    (4, Value::Bytes(&cert.0)),
                    (5, list(&texts)),
                ]
            }
            Self::Decline { offer } => vec![kind(2), (2, Value::Bytes(offer))],
            Self::Echo { nonce } => vec![kind(3), (1, Value::Bytes(nonce))],
            Self::EchoReply { nonce } => vec![kind(4), (1, Value::Bytes(nonce))],
            Self::Settled { generation, lowest } => {
                vec![kind(5), (6, Value::Bytes(&generation.0)), (7, Value::Uint(*lowest))]
            }
        };
        encode(&map(pairs))
    }

    /// Reads a statement, strictly. More than [`CANDIDATES_MAX`] addresses are refused.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut fields = decode(bytes, STATEMENT_BYTES_MAX)?.fields()?;
        let signal = match fields.take(0)?.uint()? {
            0 => {
                let nonce = fields.take(1)?.array()?;
                quic(&fields.take(3)?)?;
                let cert = CertHash(fields.take(4)?.array()?);
                Self::Offer { nonce, cert, candidates: candidates(fields.take(5)?)? }
            }
            1 => {
                let nonce = fields.take(1)?.array()?;
                let offer = fields.take(2)?.array()?;
                quic(&fields.take(3)?)?;
                let cert = CertHash(fields.take(4)?.array()?);
                Self::Answer { nonce, offer, cert, candidates: candidates(fields.take(5)?)? }
            }
            2 => Self::Decline { offer: fields.take(2)?.array()? },
            3 => Self::Echo { nonce: fields.take(1)?.array()? },
            4 => Self::EchoReply { nonce: fields.take(1)?.array()? },
            5 => Self::Settled {
                generation: Generation(fields.take(6)?.array()?),
                lowest: fields.take(7)?.uint()?,
            },
            _ => return Err(DecodeError::Type),
        };
        fields.finish()?;
        Ok(signal)
    }
}

const QUIC: (u64, Value<'static>) = (3, Value::Text("quic"));

fn kind<'a>(number: u64) -> (u64, Value<'a>) {
    (0, Value::Uint(number))
}

fn quic(transport: &Value<'_>) -> Result<(), DecodeError> {
    if transport.text()? == "quic" { Ok(()) } else { Err(DecodeError::Type) }
}

fn texts_of(candidates: &[SocketAddr]) -> Vec<String> {
    candidates.iter().take(CANDIDATES_MAX).map(ToString::to_string).collect()
}

fn list(texts: &[String]) -> Value<'_> {
    Value::Array(texts.iter().map(|text| Value::Text(text)).collect())
}

fn candidates(value: Value<'_>) -> Result<Vec<SocketAddr>, DecodeError> {
    let items = value.items()?;
    if items.len() > CANDIDATES_MAX {
        return Err(DecodeError::Size);
    }
    items.iter().map(|item| item.text()?.parse().map_err(|_| DecodeError::Type)).collect()
}

#[cfg(test)]
mod tests {
    use super::Signal;
    use crate::canonical::DecodeError;
    use crate::id::{CertHash, Generation};

    #[test]
    fn every_signal_reads_back_as_written() {
        let candidates = vec!["127.0.0.1:7".parse().unwrap(), "[2001:db8::1]:9".parse().unwrap()];
        for signal in [
            Signal::Offer { nonce: [1; 16], cert: CertHash([2; 32]), candidates: candidates.clone() },
            Signal::Answer { nonce: [1; 16], offer: [3; 16], cert: CertHash([2; 32]), candidates },
            Signal::Decline { offer: [3; 16] },
            Signal::Echo { nonce: [1; 16] },
            Signal::EchoReply { nonce: [1; 16] },
            Signal::Settled { generation: Generation([4; 8]), lowest: 5 },
        ] {
            assert_eq!(Signal::decode(&signal.encode()), Ok(signal));
        }
    }

    #[test]
    fn a_flood_of_addresses_is_refused() {
        let many = vec!["192.0.2.1:7".parse().unwrap(); 40];
        let sent = Signal::Offer { nonce: [1; 16], cert: CertHash([2; 32]), candidates: many };
        let Ok(Signal::Offer { candidates, .. }) = Signal::decode(&sent.encode()) else { panic!("an offer") };
        assert_eq!(candidates.len(), 16);
        let item = |text| super::Value::Text(text);
        let flood = super::Value::Array(vec![item("192.0.2.1:7"); 17]);
        assert_eq!(super::candidates(flood), Err(DecodeError::Size));
    }
}
