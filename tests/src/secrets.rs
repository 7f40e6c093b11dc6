//! Looking for a secret in what should not hold it, in every spelling it could have.

use base64::Engine;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};

/// A secret and its spellings.
#[derive(Debug)]
pub struct Secret {
    name: String,
    spellings: Vec<(&'static str, Vec<u8>)>,
}

impl Secret {
    /// A secret of at least eight bytes: fewer would be met by chance.
    ///
    /// # Panics
    /// When it is shorter.
    pub fn new(name: impl Into<String>, bytes: &[u8]) -> Self {
        assert!(bytes.len() >= 8, "a secret of {} bytes would be met by chance", bytes.len());
        let mut spellings = vec![
            ("raw", bytes.to_vec()),
            ("hex", hex::encode(bytes).into_bytes()),
            ("HEX", hex::encode_upper(bytes).into_bytes()),
        ];
        // Base64 of something that holds the secret depends on where it begins, modulo three. What
        // is the same for every neighbour lies between the characters that the neighbours touch.
        for shift in 0..3 {
            let shifted = [&vec![0; shift][..], bytes].concat();
            let whole = shifted.len() / 3 * 4;
            let inner = |text: String| text.as_bytes()[[0, 2, 3][shift]..whole].to_vec();
            spellings.push(("base64", inner(STANDARD_NO_PAD.encode(&shifted))));
            spellings.push(("base64url", inner(URL_SAFE_NO_PAD.encode(&shifted))));
        }
        Self { name: name.into(), spellings }
    }

    /// Which of its spellings stands in there.
    pub fn found_in(&self, place: &[u8]) -> Option<String> {
        let found = self.spellings.iter().find(|(_, spelling)| contains(place, spelling))?;
        Some(format!("{} as {}", self.name, found.0))
    }
}

/// Whether `place` holds `what`.
pub fn contains(place: &[u8], what: &[u8]) -> bool {
    let Some((&first, _)) = what.split_first() else { return true };
    let mut rest = place;
    while let Some(at) = rest.iter().position(|&byte| byte == first) {
        if rest[at..].starts_with(what) {
            return true;
        }
        rest = &rest[at + 1..];
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_planted_secret_is_found_in_every_spelling_and_at_every_offset() {
        let bytes: Vec<u8> = (0..32).map(|i| i * 7 + 3).collect();
        let secret = Secret::new("planted", &bytes);
        for before in 0..7 {
            let plain = [&vec![0xaa; before][..], &bytes, b"tail"].concat();
            let spelt = [
                plain.clone(),
                hex::encode(&plain).into_bytes(),
                hex::encode_upper(&plain).into_bytes(),
                STANDARD_NO_PAD.encode(&plain).into_bytes(),
                URL_SAFE_NO_PAD.encode(&plain).into_bytes(),
            ];
            for place in spelt {
                assert!(secret.found_in(&place).is_some(), "after {before} bytes in {place:?}");
            }
        }
    }

    #[test]
    fn another_secret_is_not_found() {
        let secret = Secret::new("planted", &[7; 32]);
        let place =
            [vec![6; 64], hex::encode([8; 32]).into_bytes(), STANDARD_NO_PAD.encode([9; 32]).into_bytes()];
        assert_eq!(secret.found_in(&place.concat()), None);
    }
}
