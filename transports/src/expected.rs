//! Whom an acceptor lets in: certificate, conn and time, each entry for one link.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard};
use std::time::Instant;

use peerloom_proto::limits::LINKS_MAX;
use peerloom_proto::{CertHash, ConnId};

use crate::transport::ExpectError;

/// At most [`LINKS_MAX`] entries: more links than that would not be kept anyway.
#[derive(Debug, Default)]
pub(crate) struct Expectations(Mutex<BTreeMap<ConnId, Expected>>);

#[derive(Debug)]
struct Expected {
    peer_cert: CertHash,
    until: Instant,
}

impl Expectations {
    pub(crate) fn add(&self, conn: ConnId, peer_cert: CertHash, until: Instant) -> Result<(), ExpectError> {
        let mut live = self.live();
        if live.len() >= LINKS_MAX && !live.contains_key(&conn) {
            return Err(ExpectError::Full { max: LINKS_MAX });
        }
        live.insert(conn, Expected { peer_cert, until });
        Ok(())
    }

    pub(crate) fn forget(&self, conn: &ConnId) {
        self.live().remove(conn);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.live().is_empty()
    }

    /// Whether any live entry names this certificate: asked inside the TLS handshake, where the conn
    /// is not known yet.
    pub(crate) fn names(&self, peer_cert: &CertHash) -> bool {
        self.live().values().any(|expected| expected.peer_cert == *peer_cert)
    }

    /// Uses up the entry for `conn` if it names this certificate.
    #[must_use]
    pub(crate) fn take(&self, conn: &ConnId, peer_cert: &CertHash) -> bool {
        let mut live = self.live();
        let found = live.get(conn).is_some_and(|expected| expected.peer_cert == *peer_cert);
        if found {
            live.remove(conn);
        }
        found
    }

    fn live(&self) -> MutexGuard<'_, BTreeMap<ConnId, Expected>> {
        let now = Instant::now();
        let mut entries = self.0.lock().expect("no code panics while it holds this lock");
        entries.retain(|_, expected| expected.until > now);
        entries
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn conn(n: u8) -> ConnId {
        ConnId([n; 16])
    }

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(60)
    }

    #[test]
    fn an_expectation_lets_one_link_in_and_only_with_its_certificate() {
        let table = Expectations::default();
        table.add(conn(1), CertHash([7; 32]), soon()).unwrap();
        assert!(!table.take(&conn(1), &CertHash([8; 32])));
        assert!(!table.take(&conn(2), &CertHash([7; 32])));
        assert!(table.take(&conn(1), &CertHash([7; 32])));
        assert!(!table.take(&conn(1), &CertHash([7; 32])));
    }

    #[test]
    fn a_lapsed_expectation_admits_nobody_and_takes_no_room() {
        let table = Expectations::default();
        table.add(conn(1), CertHash([7; 32]), Instant::now()).unwrap();
        assert!(!table.names(&CertHash([7; 32])));
        assert!(table.is_empty());
    }

    #[test]
    fn the_table_is_bounded_and_says_so() {
        let table = Expectations::default();
        for n in 0..LINKS_MAX {
            let mut id = [0; 16];
            id[..8].copy_from_slice(&(n as u64).to_be_bytes());
            table.add(ConnId(id), CertHash([1; 32]), soon()).unwrap();
        }
        let refused = table.add(ConnId([0xff; 16]), CertHash([1; 32]), soon());
        assert_eq!(refused, Err(ExpectError::Full { max: LINKS_MAX }));
        table.add(ConnId([0; 16]), CertHash([2; 32]), soon()).unwrap();
        assert!(table.names(&CertHash([2; 32])));
    }
}
