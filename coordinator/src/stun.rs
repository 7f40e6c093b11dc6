//! STUN binding responder (RFC 8489): tells a socket the address it is seen from, and nothing else.
//!
//! Without authentication, state or any other method: the answer is no longer than 44 bytes to a
//! request of at least 20, so there is nothing to amplify.

use std::io;
use std::net::{IpAddr, SocketAddr};

use tokio::net::UdpSocket;
use tokio_util::sync::CancellationToken;

use crate::metrics::Metrics;

const HEADER_BYTES: usize = 20;
/// RFC 8489 §5: tells STUN apart from everything else on a port.
const MAGIC_COOKIE: [u8; 4] = [0x21, 0x12, 0xa4, 0x42];
const BINDING_REQUEST: u16 = 0x0001;
const BINDING_SUCCESS: u16 = 0x0101;
const BINDING_ERROR: u16 = 0x0111;
const ERROR_CODE: u16 = 0x0009;
const UNKNOWN_ATTRIBUTES: u16 = 0x000a;
const XOR_MAPPED_ADDRESS: u16 = 0x0020;
/// Attributes below this must be understood (RFC 8489 §14).
const COMPREHENSION_OPTIONAL: u16 = 0x8000;
/// USERNAME, MESSAGE-INTEGRITY, REALM, NONCE, MESSAGE-INTEGRITY-SHA256, PRIORITY, USE-CANDIDATE:
/// credentials and ICE hints, understood in that they change nothing here.
const UNDERSTOOD: [u16; 7] = [0x0006, 0x0008, 0x0014, 0x0015, 0x001c, 0x0024, 0x0025];
/// More than one would list makes no difference to the client; bounds the answer.
const UNKNOWN_MAX: usize = 4;

/// The answer to a binding request from `peer`; none for anything else.
pub fn answer(datagram: &[u8], peer: SocketAddr) -> Option<Vec<u8>> {
    let header: &[u8; HEADER_BYTES] = datagram.first_chunk()?;
    let attributes = &datagram[HEADER_BYTES..];
    let length = usize::from(u16::from_be_bytes([header[2], header[3]]));
    let is_request = header[..2] == BINDING_REQUEST.to_be_bytes() && header[4..8] == MAGIC_COOKIE;
    if !is_request || length != attributes.len() || length % 4 != 0 {
        return None;
    }
    let unknown = unknown_attributes(attributes)?;
    let (kind, body) = if unknown.is_empty() {
        (BINDING_SUCCESS, xor_mapped_address(peer, header))
    } else {
        (BINDING_ERROR, unknown_attribute_error(&unknown))
    };
    let mut message = Vec::with_capacity(HEADER_BYTES + body.len());
    message.extend(kind.to_be_bytes());
    message.extend(u16::try_from(body.len()).ok()?.to_be_bytes());
    message.extend(&header[4..]);
    message.extend(body);
    Some(message)
}

/// Comprehension-required attributes that are not [`UNDERSTOOD`]; none if the list is broken.
fn unknown_attributes(mut rest: &[u8]) -> Option<Vec<u16>> {
    let mut unknown = Vec::new();
    while !rest.is_empty() {
        let [kind_high, kind_low, length_high, length_low] = *rest.first_chunk()?;
        let kind = u16::from_be_bytes([kind_high, kind_low]);
        let length = usize::from(u16::from_be_bytes([length_high, length_low]));
        if kind < COMPREHENSION_OPTIONAL && !UNDERSTOOD.contains(&kind) && unknown.len() < UNKNOWN_MAX {
            unknown.push(kind);
        }
        rest = rest.get(4 + length.next_multiple_of(4)..)?;
    }
    Some(unknown)
}

/// RFC 8489 §14.2: the address XORed with cookie and transaction id, so that no middlebox rewrites it.
fn xor_mapped_address(peer: SocketAddr, header: &[u8; HEADER_BYTES]) -> Vec<u8> {
    let (family, address) = match peer.ip().to_canonical() {
        IpAddr::V4(address) => (1, address.octets().to_vec()),
        IpAddr::V6(address) => (2, address.octets().to_vec()),
    };
    let port = peer.port().to_be_bytes();
    let mut value = vec![0, family, port[0] ^ header[4], port[1] ^ header[5]];
    value.extend(address.iter().zip(&header[4..]).map(|(byte, mask)| byte ^ mask));
    attribute(XOR_MAPPED_ADDRESS, &value)
}

/// 420 with the list (RFC 8489 §6.3.1).
fn unknown_attribute_error(unknown: &[u16]) -> Vec<u8> {
    let mut body = attribute(ERROR_CODE, &[0, 0, 4, 20]);
    let list: Vec<u8> = unknown.iter().flat_map(|kind| kind.to_be_bytes()).collect();
    body.extend(attribute(UNKNOWN_ATTRIBUTES, &list));
    body
}

fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let length = u16::try_from(value.len()).expect("attributes here have at most twenty bytes");
    let mut out = Vec::with_capacity(4 + value.len().next_multiple_of(4));
    out.extend(kind.to_be_bytes());
    out.extend(length.to_be_bytes());
    out.extend(value);
    out.resize(out.len().next_multiple_of(4), 0);
    out
}

/// Answers until `stop`. A full send buffer drops the answer: the client asks again.
pub(crate) async fn serve(socket: UdpSocket, metrics: Metrics, stop: CancellationToken) {
    let mut datagram = [0; 1_500];
    loop {
        let received = tokio::select! {
            () = stop.cancelled() => return,
            received = socket.recv_from(&mut datagram) => received,
        };
        match received {
            Ok((length, peer)) => match answer(&datagram[..length], peer) {
                Some(message) => report(socket.try_send_to(&message, peer), &metrics),
                None => {
                    metrics.stun_ignored.inc();
                }
            },
            // On Linux an ICMP error of an earlier answer may surface here; the socket stays good.
            Err(error) => tracing::debug!(%error, "STUN receive failed."),
        }
    }
}

fn report(sent: io::Result<usize>, metrics: &Metrics) {
    match sent {
        Ok(_) => {
            metrics.stun_answered.inc();
        }
        Err(error) => tracing::debug!(%error, "STUN answer dropped."),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 5769 §2.1, sample request with long attributes: PRIORITY, ICE-CONTROLLED, USERNAME,
    /// MESSAGE-INTEGRITY, FINGERPRINT and SOFTWARE.
    const RFC5769_REQUEST: &str = "000100582112a442b7e7a701bc34d686fa87dfae\
        802200105354554e207465737420636c69656e74\
        002400046e0001ff\
        80290008932ff9b151263b36\
        000600096576746a3a68367659202020\
        000800149aeaa70cbfd8cb56781ef2b5b2d3f249c1b571a2\
        80280004e57a3bcf";

    fn answered(request: &str, peer: &str) -> Option<String> {
        let request = hex::decode(request).unwrap();
        answer(&request, peer.parse().unwrap()).map(hex::encode)
    }

    #[test]
    fn the_sample_request_gets_the_mapped_address_of_the_sample_ipv4_response() {
        // RFC 5769 §2.2: 192.0.2.1 port 32853.
        let expected = "0101000c2112a442b7e7a701bc34d686fa87dfae002000080001a147e112a643";
        assert_eq!(answered(RFC5769_REQUEST, "192.0.2.1:32853").as_deref(), Some(expected));
    }

    #[test]
    fn the_sample_request_gets_the_mapped_address_of_the_sample_ipv6_response() {
        // RFC 5769 §2.3: 2001:db8:1234:5678:11:2233:4455:6677 port 32853.
        let expected = "010100182112a442b7e7a701bc34d686fa87dfae\
            002000140002a1470113a9faa5d3f179bc25f4b5bed2b9d9";
        let peer = "[2001:db8:1234:5678:11:2233:4455:6677]:32853";
        assert_eq!(answered(RFC5769_REQUEST, peer).as_deref(), Some(expected));
    }

    #[test]
    fn an_ipv4_peer_of_a_dual_stack_socket_is_told_its_ipv4_address() {
        let plain = "000100002112a442b7e7a701bc34d686fa87dfae";
        assert_eq!(answered(plain, "[::ffff:192.0.2.1]:32853"), answered(plain, "192.0.2.1:32853"));
    }

    #[test]
    fn an_unknown_required_attribute_is_answered_with_420_and_its_name() {
        let request = "000100042112a442b7e7a701bc34d686fa87dfae7abc0000";
        let expected = "011100102112a442b7e7a701bc34d686fa87dfae000900040000041\
            4000a00027abc0000";
        assert_eq!(answered(request, "192.0.2.1:1"), Some(expected.to_owned()));
    }

    #[test]
    fn what_is_no_binding_request_gets_no_answer() {
        for garbage in [
            "",
            "00",
            "0001000021",
            // Another method, a response, an indication.
            "000300002112a442b7e7a701bc34d686fa87dfae",
            "010100002112a442b7e7a701bc34d686fa87dfae",
            "001100002112a442b7e7a701bc34d686fa87dfae",
            // No cookie, a length that lies, an attribute that overruns.
            "000100002112a443b7e7a701bc34d686fa87dfae",
            "000100042112a442b7e7a701bc34d686fa87dfae",
            "000100042112a442b7e7a701bc34d686fa87dfae80220008",
        ] {
            assert_eq!(answered(garbage, "192.0.2.1:1"), None, "{garbage}");
        }
    }
}
