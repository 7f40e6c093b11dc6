//! ICE credentials (RFC 8445) of a direct attempt over WebRTC. Both ends derive them from the conn, which
//! only sealed signalling named: a check that holds comes from the attempt's other end. A stack that
//! lets nobody choose its own names them in its signal.

use std::fmt;

use crate::bind::BindRole;
use crate::id::{ConnId, hex_of};
use crate::transcript::hash16;

/// What one end's checks are addressed by and proven with.
#[derive(Clone, PartialEq, Eq)]
pub struct IceCredentials {
    ufrag: String,
    pwd: String,
}

impl IceCredentials {
    /// Those of the end that plays `role`: ufrag = HASH("ice-ufrag", conn, role)[0..8] and
    /// pwd = HASH("ice-pwd", conn, role)[0..16], both in lower-case hexadecimal.
    pub fn of(conn: &ConnId, role: BindRole) -> Self {
        let part = |label| hash16(label, &[conn.as_bytes(), &[role as u8]]);
        Self { ufrag: hex_of(&part("ice-ufrag")[..UFRAG_BYTES]), pwd: hex_of(&part("ice-pwd")) }
    }

    /// Those a peer chose for itself, as its signal names them; none if they are outside RFC 8445 §5.3.
    pub fn chosen(ufrag: &str, pwd: &str) -> Option<Self> {
        let good = |text: &str, least: usize| {
            let of_ice = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'+' || byte == b'/';
            (least..=CREDENTIAL_BYTES_MAX).contains(&text.len()) && text.bytes().all(of_ice)
        };
        (good(ufrag, 4) && good(pwd, 22)).then(|| Self { ufrag: ufrag.to_owned(), pwd: pwd.to_owned() })
    }

    /// The name in a check's USERNAME.
    pub fn ufrag(&self) -> &str {
        &self.ufrag
    }

    /// The key of a check's integrity.
    pub fn pwd(&self) -> &str {
        &self.pwd
    }
}

/// Shows the name only.
impl fmt::Debug for IceCredentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "IceCredentials({})", self.ufrag)
    }
}

/// Whom a check with this USERNAME asks for: the name before the colon, if it has the form of ours.
pub fn addressee(username: &[u8]) -> Option<&str> {
    let colon = username.iter().position(|byte| *byte == b':')?;
    let name = str::from_utf8(&username[..colon]).ok()?;
    let ours =
        name.len() == 2 * UFRAG_BYTES && name.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    ours.then_some(name)
}

/// RFC 8445 §5.3 asks for 24 random bits; 64 keep the attempts of one socket apart as well.
const UFRAG_BYTES: usize = 8;

/// RFC 8445 §5.3.
const CREDENTIAL_BYTES_MAX: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_two_ends_of_an_attempt_and_two_attempts_have_different_credentials() {
        let conn = ConnId([7; 16]);
        let dialler = IceCredentials::of(&conn, BindRole::Dialler);
        let acceptor = IceCredentials::of(&conn, BindRole::Acceptor);
        let other = IceCredentials::of(&ConnId([8; 16]), BindRole::Dialler);
        for (a, b) in [(&dialler, &acceptor), (&dialler, &other), (&acceptor, &other)] {
            assert_ne!(a.ufrag(), b.ufrag());
            assert_ne!(a.pwd(), b.pwd());
        }
        assert!(!format!("{dialler:?}").contains(dialler.pwd()), "a password is never printed");
    }

    #[test]
    fn they_are_the_hashes_that_the_protocol_names() {
        let dialler = IceCredentials::of(&ConnId([7; 16]), BindRole::Dialler);
        let expected = crate::hash("ice-ufrag", &[&[7; 16], &[0]]);
        assert_eq!(dialler.ufrag(), hex_of(&expected[..8]));
        assert_eq!(dialler.pwd(), hex_of(&crate::hash("ice-pwd", &[&[7; 16], &[0]])[..16]));
    }

    #[test]
    fn chosen_credentials_keep_to_the_characters_and_lengths_of_ice() {
        let pwd = "a".repeat(22);
        assert!(IceCredentials::chosen("aB+/", &pwd).is_some());
        let long = "a".repeat(257);
        for (ufrag, pwd) in [
            ("abc", &*pwd),
            ("abcd", &pwd[1..]),
            ("ab:d", &*pwd),
            (&*long, &*pwd),
            ("abcd", &*long),
            ("ab\r\n", &*pwd),
        ] {
            assert_eq!(IceCredentials::chosen(ufrag, pwd), None, "{ufrag} {pwd}");
        }
    }

    #[test]
    fn only_a_name_of_our_form_is_asked_for() {
        assert_eq!(addressee(b"0123456789abcdef:aBc+"), Some("0123456789abcdef"));
        for other in [&b"0123456789abcdef"[..], b"0123456789abcdeF:x", b"0123:x", b":x", b"", b"\xff\xff:x"] {
            assert_eq!(addressee(other), None);
        }
    }
}
