//! Signalling statements (protocol.md §9): what two nodes say to each other, sealed like any dm, to
//! make a direct channel or to keep their conversations in step. Never kept, never shown.
//!
//! {0: kind, 1: nonce16, 2: the offer's nonce, 3: transport, 4: certificate hash, 5: addresses,
//!  6: generation, 7: lowest unsettled seq, 8: NAT, 9: consent} with the fields each kind needs.

use crate::canonical::{DecodeError, Value, decode, encode, map};
use crate::id::{CertHash, ConnId, Generation};
use crate::limits::{CANDIDATES_MAX, STATEMENT_BYTES_MAX};
use crate::paths::{Candidate, CandidateKind, Nat, Reach};
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
        reach: Reach,
    },
    /// Here I am; let us find each other.
    Answer {
        /// Random, names the attempt on the answerer's side.
        nonce: [u8; 16],
        /// The offer's nonce.
        offer: [u8; 16],
        /// The answerer's certificate.
        cert: CertHash,
        /// Where the answerer is.
        reach: Reach,
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
    /// I learned more of where I am; all of it again.
    Candidates {
        /// The sender's nonce of the attempt.
        nonce: [u8; 16],
        /// Where the sender is.
        reach: Reach,
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
            Self::Offer { nonce, cert, reach } => {
                texts = texts_of(&reach.candidates);
                let cert = (4, Value::Bytes(&cert.0));
                vec![
                    kind(0),
                    (1, Value::Bytes(nonce)),
                    QUIC,
                    cert,
                    list(reach, &texts),
                    nat(reach),
                    consent(reach),
                ]
            }
            Self::Answer { nonce, offer, cert, reach } => {
                texts = texts_of(&reach.candidates);
                vec![
                    kind(1),
                    (1, Value::Bytes(nonce)),
                    (2, Value::Bytes(offer)),
                    QUIC,
                    (4, Value::Bytes(&cert.0)),
                    list(reach, &texts),
                    nat(reach),
                    consent(reach),
                ]
            }
            Self::Candidates { nonce, reach } => {
                texts = texts_of(&reach.candidates);
                vec![kind(6), (1, Value::Bytes(nonce)), list(reach, &texts), nat(reach), consent(reach)]
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
                Self::Offer { nonce, cert, reach: reach(fields.take(5)?, fields.take(8)?, &fields.take(9)?)? }
            }
            1 => {
                let nonce = fields.take(1)?.array()?;
                let offer = fields.take(2)?.array()?;
                quic(&fields.take(3)?)?;
                let cert = CertHash(fields.take(4)?.array()?);
                Self::Answer {
                    nonce,
                    offer,
                    cert,
                    reach: reach(fields.take(5)?, fields.take(8)?, &fields.take(9)?)?,
                }
            }
            2 => Self::Decline { offer: fields.take(2)?.array()? },
            3 => Self::Echo { nonce: fields.take(1)?.array()? },
            4 => Self::EchoReply { nonce: fields.take(1)?.array()? },
            5 => Self::Settled {
                generation: Generation(fields.take(6)?.array()?),
                lowest: fields.take(7)?.uint()?,
            },
            6 => Self::Candidates {
                nonce: fields.take(1)?.array()?,
                reach: reach(fields.take(5)?, fields.take(8)?, &fields.take(9)?)?,
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

fn texts_of(candidates: &[Candidate]) -> Vec<String> {
    candidates.iter().take(CANDIDATES_MAX).map(|candidate| candidate.addr.to_string()).collect()
}

/// [[kind, address]…].
fn list<'a>(reach: &Reach, texts: &'a [String]) -> (u64, Value<'a>) {
    let pairs =
        reach.candidates.iter().zip(texts).map(|(candidate, text)| {
            Value::Array(vec![Value::Uint(candidate.kind as u64), Value::Text(text)])
        });
    (5, Value::Array(pairs.collect()))
}

fn nat<'a>(reach: &Reach) -> (u64, Value<'a>) {
    (8, reach.nat.to_value())
}

fn consent<'a>(reach: &Reach) -> (u64, Value<'a>) {
    (9, Value::Bool(reach.birthday))
}

fn reach(candidates: Value<'_>, nat: Value<'_>, consent: &Value<'_>) -> Result<Reach, DecodeError> {
    let items = candidates.items()?;
    if items.len() > CANDIDATES_MAX {
        return Err(DecodeError::Size);
    }
    let candidates = items.into_iter().map(candidate).collect::<Result<_, _>>()?;
    let Value::Bool(birthday) = *consent else { return Err(DecodeError::Type) };
    Ok(Reach { candidates, nat: Nat::from_value(nat)?, birthday })
}

fn candidate(value: Value<'_>) -> Result<Candidate, DecodeError> {
    let [kind, addr] = value.tuple()?;
    let kind = match kind.uint()? {
        0 => CandidateKind::Host,
        1 => CandidateKind::Reflexive,
        2 => CandidateKind::Mapped,
        _ => return Err(DecodeError::Type),
    };
    Ok(Candidate { kind, addr: addr.text()?.parse().map_err(|_| DecodeError::Type)? })
}

#[cfg(test)]
mod tests {
    use super::Signal;
    use crate::canonical::DecodeError;
    use crate::id::{CertHash, Generation};
    use crate::paths::{Candidate, CandidateKind, Mapping, Nat, Ports, Reach};

    fn reach(addrs: &[&str]) -> Reach {
        let kinds = [CandidateKind::Reflexive, CandidateKind::Host, CandidateKind::Mapped];
        let candidates = addrs
            .iter()
            .zip(kinds.into_iter().cycle())
            .map(|(addr, kind)| Candidate { kind, addr: addr.parse().unwrap() });
        let nat = Nat { mapping: Mapping::AddressDependent, ports: Ports::Sequential { step: 2 } };
        Reach { candidates: candidates.collect(), nat, birthday: true }
    }

    #[test]
    fn every_signal_reads_back_as_written() {
        let reach = reach(&["127.0.0.1:7", "[2001:db8::1]:9", "192.0.2.1:8"]);
        for signal in [
            Signal::Offer { nonce: [1; 16], cert: CertHash([2; 32]), reach: reach.clone() },
            Signal::Answer { nonce: [1; 16], offer: [3; 16], cert: CertHash([2; 32]), reach: reach.clone() },
            Signal::Decline { offer: [3; 16] },
            Signal::Echo { nonce: [1; 16] },
            Signal::EchoReply { nonce: [1; 16] },
            Signal::Settled { generation: Generation([4; 8]), lowest: 5 },
            Signal::Candidates { nonce: [1; 16], reach },
        ] {
            assert_eq!(Signal::decode(&signal.encode()), Ok(signal));
        }
    }

    #[test]
    fn a_flood_of_addresses_is_refused() {
        let sent = Signal::Candidates { nonce: [1; 16], reach: reach(&["192.0.2.1:7"; 40]) };
        let Ok(Signal::Candidates { reach, .. }) = Signal::decode(&sent.encode()) else { panic!("its own") };
        assert_eq!(reach.candidates.len(), 16);
        let item = super::Value::Array(vec![super::Value::Uint(0), super::Value::Text("192.0.2.1:7")]);
        let flood = super::Value::Array(vec![item; 17]);
        assert_eq!(
            super::reach(flood, Nat::default().to_value(), &super::Value::Bool(true)),
            Err(DecodeError::Size)
        );
    }

    #[test]
    fn nobody_announces_what_only_a_check_can_learn() {
        let learned = super::Value::Array(vec![super::Value::Uint(3), super::Value::Text("192.0.2.1:7")]);
        assert_eq!(super::candidate(learned), Err(DecodeError::Type));
    }
}
