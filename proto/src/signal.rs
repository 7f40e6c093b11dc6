//! Signalling statements (protocol.md §9): what two nodes say to each other, sealed like any dm, to
//! make a direct channel or to keep their conversations in step. Never kept, never shown.
//!
//! {0: kind, 1: nonce16, 2: the offer's nonce, 3: transport, 4: certificate hash, 5: addresses,
//!  6: generation, 7: lowest unsettled seq, 8: NAT, 9: consent, 10: WebRTC} with the fields each kind
//! needs.

use crate::canonical::{DecodeError, Fields, Value, decode, encode, map};
use crate::ice::IceCredentials;
use crate::id::{CertHash, ConnId, Generation};
use crate::limits::{CANDIDATES_MAX, STATEMENT_BYTES_MAX};
use crate::paths::{Candidate, CandidateKind, Nat, Reach};
use crate::transcript::hash16;

type Pair<'a> = (u64, Value<'a>);

/// What one side makes direct channels with; at least one of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Means {
    /// QUIC, under this certificate.
    pub quic: Option<CertHash>,
    /// WebRTC data channels.
    pub webrtc: Option<WebRtcMeans>,
}

/// One side of a WebRTC connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WebRtcMeans {
    /// Hash of the DTLS certificate: SDP's fingerprint.
    pub cert: CertHash,
    /// Its ICE credentials where it chose them; else they follow from the conn.
    pub ice: Option<IceCredentials>,
}

impl Means {
    /// QUIC and nothing else.
    pub const fn quic(cert: CertHash) -> Self {
        Self { quic: Some(cert), webrtc: None }
    }

    /// What both sides make: the other's half of it.
    pub(crate) fn shared_with(&self, theirs: &Self) -> Self {
        Self {
            quic: theirs.quic.filter(|_| self.quic.is_some()),
            webrtc: theirs.webrtc.clone().filter(|_| self.webrtc.is_some()),
        }
    }

    pub(crate) fn is_none(&self) -> bool {
        self.quic.is_none() && self.webrtc.is_none()
    }

    /// With the place that stands between its two halves.
    fn read(fields: &mut Fields<'_>) -> Result<(Self, Reach), DecodeError> {
        let quic = match fields.optional(3)? {
            Some(name) if name.text()? == "quic" => Some(CertHash(fields.take(4)?.array()?)),
            Some(_) => return Err(DecodeError::Type),
            None => None,
        };
        let reach = reach(fields.take(5)?, fields.take(8)?, &fields.take(9)?)?;
        let webrtc = fields.optional(10)?.map(WebRtcMeans::from_value).transpose()?;
        let means = Self { quic, webrtc };
        if means.is_none() { Err(DecodeError::MissingField) } else { Ok((means, reach)) }
    }

    /// In two places, between which other keys stand.
    fn pairs(&self) -> (Vec<Pair<'_>>, Option<Pair<'_>>) {
        let quic = self.quic.as_ref().map(|cert| vec![QUIC, (4, Value::Bytes(&cert.0))]);
        (quic.unwrap_or_default(), self.webrtc.as_ref().map(|webrtc| (10, webrtc.to_value())))
    }
}

impl WebRtcMeans {
    fn from_value(value: Value<'_>) -> Result<Self, DecodeError> {
        let mut items = value.items()?.into_iter();
        let cert = CertHash(items.next().ok_or(DecodeError::Length)?.array()?);
        let ice = match (items.next(), items.next(), items.next()) {
            (None, None, None) => None,
            (Some(ufrag), Some(pwd), None) => {
                Some(IceCredentials::chosen(ufrag.text()?, pwd.text()?).ok_or(DecodeError::Type)?)
            }
            _ => return Err(DecodeError::Length),
        };
        Ok(Self { cert, ice })
    }

    fn to_value(&self) -> Value<'_> {
        let cert = Value::Bytes(&self.cert.0);
        let chosen = self.ice.iter().flat_map(|ice| [ice.ufrag(), ice.pwd()]);
        Value::Array(std::iter::once(cert).chain(chosen.map(Value::Text)).collect())
    }
}

/// One signalling statement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Signal {
    /// Let us make a direct channel.
    Offer {
        /// Random, names the attempt on the offerer's side.
        nonce: [u8; 16],
        /// What the offerer makes channels with.
        means: Means,
        /// Where the offerer is.
        reach: Reach,
    },
    /// Here I am; let us find each other.
    Answer {
        /// Random, names the attempt on the answerer's side.
        nonce: [u8; 16],
        /// The offer's nonce.
        offer: [u8; 16],
        /// What the answerer makes channels with.
        means: Means,
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

/// HASH("conn-webrtc", nonce_i, nonce_r)[0..16]: the same attempt over WebRTC. A name of its own, because
/// that of the other stands in the clear in its checks, and ICE's passwords follow from this one.
pub fn webrtc_conn_id(offer: &[u8; 16], answer: &[u8; 16]) -> ConnId {
    ConnId(hash16("conn-webrtc", &[offer, answer]))
}

impl Signal {
    /// The canonical bytes.
    pub fn encode(&self) -> Vec<u8> {
        let texts;
        let pairs = match self {
            Self::Offer { nonce, means, reach } => {
                texts = texts_of(&reach.candidates);
                let (quic, webrtc) = means.pairs();
                let named = [kind(0), (1, Value::Bytes(nonce))];
                let place = [list(reach, &texts), nat(reach), consent(reach)];
                named.into_iter().chain(quic).chain(place).chain(webrtc).collect()
            }
            Self::Answer { nonce, offer, means, reach } => {
                texts = texts_of(&reach.candidates);
                let (quic, webrtc) = means.pairs();
                let named = [kind(1), (1, Value::Bytes(nonce)), (2, Value::Bytes(offer))];
                let place = [list(reach, &texts), nat(reach), consent(reach)];
                named.into_iter().chain(quic).chain(place).chain(webrtc).collect()
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
                let (means, reach) = Means::read(&mut fields)?;
                Self::Offer { nonce, means, reach }
            }
            1 => {
                let nonce = fields.take(1)?.array()?;
                let offer = fields.take(2)?.array()?;
                let (means, reach) = Means::read(&mut fields)?;
                Self::Answer { nonce, offer, means, reach }
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
    use super::{Means, Signal, WebRtcMeans};
    use crate::canonical::{DecodeError, encode, map};
    use crate::ice::IceCredentials;
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
        let webrtc = |ice| Some(WebRtcMeans { cert: CertHash([4; 32]), ice });
        let both = Means { quic: Some(CertHash([2; 32])), webrtc: webrtc(None) };
        let browser = Means { quic: None, webrtc: webrtc(IceCredentials::chosen("abcd", &"x".repeat(24))) };
        let reach = reach(&["127.0.0.1:7", "[2001:db8::1]:9", "192.0.2.1:8"]);
        for signal in [
            Signal::Offer { nonce: [1; 16], means: both.clone(), reach: reach.clone() },
            Signal::Offer { nonce: [1; 16], means: Means::quic(CertHash([2; 32])), reach: reach.clone() },
            Signal::Answer { nonce: [1; 16], offer: [3; 16], means: both, reach: reach.clone() },
            Signal::Answer { nonce: [1; 16], offer: [3; 16], means: browser, reach: reach.clone() },
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
    fn an_offer_of_nothing_or_with_half_the_credentials_is_refused() {
        let pairs = |webrtc: Option<Vec<super::Value<'static>>>| {
            let place = [(8, Nat::default().to_value()), (9, super::Value::Bool(false))];
            let named = [(0, super::Value::Uint(0)), (1, super::Value::Bytes(&[1; 16]))];
            let webrtc = webrtc.map(|items| (10, super::Value::Array(items)));
            let list = [(5, super::Value::Array(vec![]))];
            Signal::decode(&encode(&map(named.into_iter().chain(list).chain(place).chain(webrtc))))
        };
        let (cert, pwd) = (super::Value::Bytes(&[4; 32]), super::Value::Text("aaaaaaaaaaaaaaaaaaaaaa"));
        assert_eq!(pairs(None), Err(DecodeError::MissingField));
        assert!(pairs(Some(vec![cert.clone()])).is_ok());
        for wrong in [
            vec![],
            vec![cert.clone(), pwd.clone()],
            vec![cert.clone(), pwd.clone(), pwd.clone(), pwd.clone()],
        ] {
            assert_eq!(pairs(Some(wrong)), Err(DecodeError::Length));
        }
        let short = vec![cert, super::Value::Text("abc"), pwd];
        assert_eq!(pairs(Some(short)), Err(DecodeError::Type));
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
