//! Origins: where a coordinator is, written in exactly one way, because it is signed and compared.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

/// `http[s]://host[:port]` in lower case, no default port, no slash.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Origin(String);

/// Why a text is not an origin.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OriginError {
    /// Neither `https://` nor `http://`.
    #[error("an origin begins with https:// or http://")]
    Scheme,
    /// No host, or one that has another spelling.
    #[error("an origin names a host in lower case, or an address in its shortest form")]
    Host,
    /// Not a port, or the scheme's default, which is left out.
    #[error("an origin's port is 1 to 65535 without leading zeros, and the default one is left out")]
    Port,
    /// Something after the host and port.
    #[error("an origin ends after host and port: no path, query or user")]
    Trailing,
}

impl Origin {
    /// Checks that the text is the one spelling of an origin.
    pub fn parse(text: &str) -> Result<Self, OriginError> {
        let (scheme, rest) = split_scheme(text)?;
        if rest.contains(['/', '?', '#', '@']) {
            return Err(OriginError::Trailing);
        }
        let (host, port) = split_port(rest);
        check_host(host)?;
        if let Some(port) = port {
            let number: u16 = port.parse().map_err(|_| OriginError::Port)?;
            let shortest = number.to_string() == port;
            if !shortest || number == 0 || number == default_port(scheme) {
                return Err(OriginError::Port);
            }
        }
        Ok(Self(text.to_owned()))
    }

    /// Reads what a person typed: case, a final slash and a default port are forgiven.
    pub fn from_typed(text: &str) -> Result<Self, OriginError> {
        let lower = text.trim().to_ascii_lowercase();
        let plain = lower.strip_suffix('/').unwrap_or(&lower);
        let (scheme, _) = split_scheme(plain)?;
        let default = format!(":{}", default_port(scheme));
        Self::parse(plain.strip_suffix(default.as_str()).unwrap_or(plain))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether the scheme is https.
    pub fn is_secure(&self) -> bool {
        self.0.starts_with("https://")
    }

    /// Host without port; an IPv6 address without its brackets.
    pub fn host(&self) -> &str {
        let host = split_port(self.rest()).0;
        host.strip_prefix('[').and_then(|inner| inner.strip_suffix(']')).unwrap_or(host)
    }

    /// The port, the scheme's default if none is written.
    pub fn port(&self) -> u16 {
        let default = if self.is_secure() { 443 } else { 80 };
        split_port(self.rest()).1.and_then(|port| port.parse().ok()).unwrap_or(default)
    }

    /// Whether the host is this machine: 127.0.0.0/8, ::1 or `localhost`.
    pub fn is_loopback(&self) -> bool {
        let host = self.host();
        host == "localhost"
            || host.parse::<Ipv4Addr>().is_ok_and(|address| address.is_loopback())
            || host.parse::<Ipv6Addr>().is_ok_and(|address| address.is_loopback())
    }

    fn rest(&self) -> &str {
        self.0.split_once("://").map_or("", |(_, rest)| rest)
    }
}

fn split_scheme(text: &str) -> Result<(&str, &str), OriginError> {
    match text.split_once("://") {
        Some((scheme @ ("http" | "https"), rest)) => Ok((scheme, rest)),
        Some(_) | None => Err(OriginError::Scheme),
    }
}

/// Host and port text. The colons of a bracketed address are not a port's.
fn split_port(rest: &str) -> (&str, Option<&str>) {
    let host_end = rest.rfind(']').map_or(0, |bracket| bracket + 1);
    match rest[host_end..].find(':') {
        Some(colon) => (&rest[..host_end + colon], Some(&rest[host_end + colon + 1..])),
        None => (rest, None),
    }
}

fn default_port(scheme: &str) -> u16 {
    if scheme == "https" { 443 } else { 80 }
}

fn check_host(host: &str) -> Result<(), OriginError> {
    let sound = if let Some(inner) = host.strip_prefix('[') {
        let address = inner.strip_suffix(']').and_then(|inner| inner.parse::<Ipv6Addr>().ok());
        address.is_some_and(|address| format!("[{address}]") == host)
    } else if host.split('.').next_back().is_some_and(all_digits) {
        host.parse::<Ipv4Addr>().is_ok_and(|address| address.to_string() == host)
    } else {
        host.len() <= HOST_BYTES_MAX && host.split('.').all(is_label)
    };
    if sound { Ok(()) } else { Err(OriginError::Host) }
}

fn all_digits(label: &str) -> bool {
    !label.is_empty() && label.bytes().all(|b| b.is_ascii_digit())
}

/// RFC 1123 in lower case, and `_`, which container hosts use.
fn is_label(label: &str) -> bool {
    let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'_';
    (1..=LABEL_BYTES_MAX).contains(&label.len())
        && label.bytes().all(allowed)
        && !label.starts_with('-')
        && !label.ends_with('-')
}

/// RFC 1035 §2.3.4.
const HOST_BYTES_MAX: usize = 253;
/// RFC 1035 §2.3.4.
const LABEL_BYTES_MAX: usize = 63;

impl FromStr for Origin {
    type Err = OriginError;
    fn from_str(text: &str) -> Result<Self, OriginError> {
        Self::parse(text)
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl fmt::Debug for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Origin({})", self.0)
    }
}

impl serde::Serialize for Origin {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> serde::Deserialize<'de> for Origin {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <String as serde::Deserialize>::deserialize(deserializer)?;
        Self::parse(&text).map_err(serde::de::Error::custom)
    }
}
