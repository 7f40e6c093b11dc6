//! Where this node can be reached: told to the machine at once when an address is lost, shortly after
//! when one is gained.

use std::net::SocketAddr;
use std::time::Duration;

use peerloom_proto::endpoint::Input;
use peerloom_transports::{AddressWatch, PeerTransport};

use super::{Shared, report};
use crate::engine::Source;

/// How addresses differ from those that were announced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Difference {
    None,
    /// Some came, none went.
    Gained,
    /// Some went.
    Lost,
}

impl Difference {
    fn between(announced: Option<&[SocketAddr]>, found: &[SocketAddr]) -> Self {
        match announced {
            Some(announced) if announced == found => Self::None,
            Some(announced) if announced.iter().all(|addr| found.contains(addr)) => Self::Gained,
            Some(_) | None => Self::Lost,
        }
    }
}

impl Shared {
    /// Announces this node's addresses whenever they change.
    pub(super) async fn watch_addresses(self) {
        let watch = AddressWatch::new();
        let mut announced: Option<Vec<SocketAddr>> = None;
        loop {
            let mut found = self.transport.candidates(self.scope);
            // An interface that comes up gains its addresses one after the other.
            while Difference::between(announced.as_deref(), &found) == Difference::Gained {
                tokio::time::sleep(SETTLE).await;
                let settled = self.transport.candidates(self.scope);
                if settled == found {
                    break;
                }
                found = settled;
            }
            if Difference::between(announced.as_deref(), &found) != Difference::None {
                let cert = self.transport.local_cert();
                let ready = Input::DirectReady { cert, candidates: found.clone() };
                report(&self.inlet, Source::Transport, ready).await;
                announced = Some(found);
            }
            watch.changed().await;
        }
    }
}

/// How long gained addresses must hold still before they are announced.
const SETTLE: Duration = Duration::from_millis(250);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_lost_address_is_told_without_delay() {
        let addrs = |ports: &[u16]| -> Vec<SocketAddr> {
            ports.iter().map(|port| SocketAddr::from(([192, 0, 2, 1], *port))).collect()
        };
        let between =
            |announced: &[u16], found: &[u16]| Difference::between(Some(&addrs(announced)), &addrs(found));
        assert_eq!(between(&[1, 2], &[1, 2]), Difference::None);
        assert_eq!(between(&[1], &[2, 1]), Difference::Gained);
        assert_eq!(between(&[1, 2], &[2, 3]), Difference::Lost);
        assert_eq!(between(&[1], &[]), Difference::Lost);
        assert_eq!(
            Difference::between(None, &addrs(&[1])),
            Difference::Lost,
            "the first word is not delayed"
        );
    }
}
