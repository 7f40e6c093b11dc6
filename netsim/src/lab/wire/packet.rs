//! Ethernet frames with IPv4 or IPv6 in them: where one goes, and how far it may still go.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

const ETHERNET: usize = 14;
const ETHERTYPE_V4: [u8; 2] = [0x08, 0x00];
const ETHERTYPE_V6: [u8; 2] = [0x86, 0xdd];

/// The destination, if it is a unicast IP packet.
pub(super) fn destination(frame: &[u8]) -> Option<IpAddr> {
    let address = address(frame, 16, 24)?;
    (!address.is_multicast()).then_some(address)
}

/// The address at this offset of an IPv4 header, or at that one of an IPv6 header.
fn address(frame: &[u8], v4: usize, v6: usize) -> Option<IpAddr> {
    let ip = frame.get(ETHERNET..)?;
    match frame.get(12..ETHERNET)?.try_into().ok()? {
        ETHERTYPE_V4 => {
            let octets: [u8; 4] = ip.get(v4..v4 + 4)?.try_into().ok()?;
            Some(Ipv4Addr::from(octets).into())
        }
        ETHERTYPE_V6 => {
            let octets: [u8; 16] = ip.get(v6..v6 + 16)?.try_into().ok()?;
            Some(Ipv6Addr::from(octets).into())
        }
        [_, _] => None,
    }
}

/// What a route is looked up by: an IPv4 address itself, the /48 of an IPv6 address.
pub(super) fn site_of(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(v6) => {
            let [a, b, c, ..] = v6.segments();
            Ipv6Addr::new(a, b, c, 0, 0, 0, 0, 0).into()
        }
    }
}

/// Takes it over so many routers. False when it died at one of them.
pub(super) fn travel(frame: &mut [u8], hops: u8) -> bool {
    let Some(ip) = frame.get_mut(ETHERNET..) else { return false };
    let Some(version) = ip.first().map(|byte| byte >> 4) else { return false };
    let place = if version == 4 { 8 } else { 7 };
    let Some(ttl) = ip.get_mut(place) else { return false };
    if *ttl <= hops {
        return false;
    }
    *ttl -= hops;
    if let (4, Some(sum)) = (version, ip.get_mut(10..12)) {
        // RFC 1624: the TTL is the high byte of its word, so the sum grows by what that lost.
        let old = u16::from_be_bytes([sum[0], sum[1]]);
        let (grown, carried) = old.overflowing_add(u16::from(hops) << 8);
        sum.copy_from_slice(&(grown + u16::from(carried)).to_be_bytes());
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A frame with an IPv4 header of this TTL and a correct checksum.
    fn v4(ttl: u8) -> Vec<u8> {
        let mut frame = vec![0; 34];
        frame[12..14].copy_from_slice(&ETHERTYPE_V4);
        frame[14..34]
            .copy_from_slice(&[0x45, 0, 0, 20, 1, 2, 0, 0, ttl, 17, 0, 0, 203, 0, 113, 1, 192, 0, 2, 10]);
        let sum = !folded(&frame[14..]);
        frame[24..26].copy_from_slice(&sum.to_be_bytes());
        frame
    }

    fn folded(header: &[u8]) -> u16 {
        let words = header.chunks(2).map(|word| u32::from(word[0]) << 8 | u32::from(word[1]));
        let mut sum: u32 = words.sum();
        while sum > 0xffff {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        u16::try_from(sum).unwrap()
    }

    #[test]
    fn a_packet_keeps_a_correct_checksum_over_its_hops() {
        for ttl in 6..=255 {
            let mut frame = v4(ttl);
            assert!(travel(&mut frame, 5));
            assert_eq!((frame[22], folded(&frame[14..])), (ttl - 5, 0xffff));
        }
    }

    #[test]
    fn a_packet_of_five_hops_dies_at_the_fifth_router() {
        assert!(!travel(&mut v4(5), 5));
    }

    #[test]
    fn an_ipv6_site_is_its_forty_eight_bits() {
        let mut frame = vec![0; 54];
        frame[12..14].copy_from_slice(&ETHERTYPE_V6);
        let to: Ipv6Addr = "2001:db8:7:1::2".parse().unwrap();
        frame[38..54].copy_from_slice(&to.octets());
        let found = destination(&frame).unwrap();
        assert_eq!(found, IpAddr::from(to));
        assert_eq!(site_of(found), "2001:db8:7::".parse::<IpAddr>().unwrap());
    }

    #[test]
    fn what_is_no_unicast_ip_goes_nowhere() {
        assert_eq!(destination(&[0; 60]), None);
        let mut multicast = v4(64);
        multicast[30..34].copy_from_slice(&[224, 0, 0, 251]);
        assert_eq!(destination(&multicast), None);
        assert_eq!(destination(&[0; 3]), None);
    }
}
