//! Behind a proxy, the address that counts is the one the proxy saw. Only proxies named in the
//! configuration are believed.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

/// One address or a CIDR block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AddressBlock {
    address: IpAddr,
    prefix: u8,
}

/// Why a text is not an address block.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected an address or a block like 10.0.0.0/8")]
pub struct AddressBlockError;

impl AddressBlock {
    /// Whether the block holds this address. IPv4 in IPv6 form counts as IPv4.
    pub fn contains(&self, address: IpAddr) -> bool {
        match (self.address, address.to_canonical()) {
            (IpAddr::V4(block), IpAddr::V4(address)) => {
                let host_bits = u32::from(32 - self.prefix);
                (block.to_bits() ^ address.to_bits()).checked_shr(host_bits).unwrap_or(0) == 0
            }
            (IpAddr::V6(block), IpAddr::V6(address)) => {
                let host_bits = u32::from(128 - self.prefix);
                (block.to_bits() ^ address.to_bits()).checked_shr(host_bits).unwrap_or(0) == 0
            }
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => false,
        }
    }
}

impl FromStr for AddressBlock {
    type Err = AddressBlockError;
    fn from_str(text: &str) -> Result<Self, AddressBlockError> {
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| AddressBlockError)?;
        let bits = if address.is_ipv4() { 32 } else { 128 };
        let prefix = prefix.map_or(Ok(bits), |prefix| prefix.parse().map_err(|_| AddressBlockError))?;
        if prefix > bits { Err(AddressBlockError) } else { Ok(Self { address, prefix }) }
    }
}

impl fmt::Display for AddressBlock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

/// The address a client is throttled by: the peer's own, or, when the peer is a trusted proxy, the
/// right-most hop of `X-Forwarded-For` that is no trusted proxy itself.
///
/// Hops to the left of that one are whatever the client wrote. A header that cannot be read leaves
/// the peer's address: then the proxy as a whole is throttled, which is safe.
pub fn client_address<'a>(
    peer: IpAddr,
    forwarded_for: impl DoubleEndedIterator<Item = &'a str>,
    trusted: &[AddressBlock],
) -> IpAddr {
    let is_trusted = |address: IpAddr| trusted.iter().any(|block| block.contains(address));
    let mut client = peer.to_canonical();
    let hops = forwarded_for.flat_map(|line| line.split(',')).rev();
    for hop in hops {
        if !is_trusted(client) {
            break;
        }
        let Ok(address) = hop.trim().parse::<IpAddr>() else { break };
        client = address.to_canonical();
    }
    client
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(peer: &str, header: &[&str]) -> String {
        let trusted = ["10.0.0.0/8".parse().unwrap(), "2001:db8::1".parse().unwrap()];
        client_address(peer.parse().unwrap(), header.iter().copied(), &trusted).to_string()
    }

    #[test]
    fn a_peer_that_is_no_trusted_proxy_cannot_name_another_address() {
        assert_eq!(client("192.0.2.7", &["198.51.100.1"]), "192.0.2.7");
    }

    #[test]
    fn the_right_most_untrusted_hop_counts_whatever_the_client_wrote_before_it() {
        assert_eq!(client("10.1.1.1", &["203.0.113.9, 198.51.100.1, 10.2.2.2"]), "198.51.100.1");
        assert_eq!(client("2001:db8::1", &["203.0.113.9", "198.51.100.1"]), "198.51.100.1");
        assert_eq!(client("::ffff:10.1.1.1", &["198.51.100.1"]), "198.51.100.1");
    }

    #[test]
    fn a_proxy_that_forwards_nothing_readable_is_throttled_as_a_whole() {
        assert_eq!(client("10.1.1.1", &[]), "10.1.1.1");
        assert_eq!(client("10.1.1.1", &["198.51.100.1, unknown"]), "10.1.1.1");
    }

    #[test]
    fn blocks_hold_what_their_prefix_says() {
        let holds = |block: &str, address: &str| {
            block.parse::<AddressBlock>().unwrap().contains(address.parse().unwrap())
        };
        assert!(holds("10.0.0.0/8", "10.255.0.1") && !holds("10.0.0.0/8", "11.0.0.1"));
        assert!(holds("0.0.0.0/0", "198.51.100.1") && !holds("0.0.0.0/0", "::1"));
        assert!(holds("fd00::/8", "fd12::1") && !holds("fd00::/8", "fe80::1"));
        assert!(holds("192.0.2.1", "192.0.2.1") && !holds("192.0.2.1", "192.0.2.2"));
        for wrong in ["", "10.0.0.0/33", "::/129", "10.0.0/8", "localhost", "10.0.0.0/"] {
            assert_eq!(wrong.parse::<AddressBlock>(), Err(AddressBlockError), "{wrong}");
        }
    }
}
