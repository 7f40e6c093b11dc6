//! Where this node can be reached: told to the machine at once when an address is lost, shortly after
//! when one is gained.

use std::net::SocketAddr;
use std::time::Duration;

use peerloom_proto::endpoint::Input;
use peerloom_transports::{AddressWatch, PeerTransport};
use tokio::sync::{Notify, watch};
use tracing::debug;

use super::{Shared, report};
use crate::engine::Source;
use crate::failure::chain;

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
    /// Announces this node's addresses and its STUN servers whenever either changes.
    pub(super) async fn watch_place(self) {
        let (servers, moved) = (watch::Sender::new(Vec::new()), Notify::new());
        // Neither ends before its task does.
        tokio::join!(self.announce(servers.subscribe(), &moved), self.find_stun(&servers, &moved));
    }

    async fn announce(&self, mut servers: watch::Receiver<Vec<SocketAddr>>, moved: &Notify) {
        let watch = AddressWatch::new();
        let mut announced: Option<Vec<SocketAddr>> = None;
        loop {
            let candidates = self.settled(announced.as_deref()).await;
            if announced.as_ref().is_some_and(|announced| *announced != candidates) {
                moved.notify_one();
            }
            let stun = servers.borrow_and_update().clone();
            let ready = Input::DirectReady { means: self.means(), candidates: candidates.clone(), stun };
            report(&self.inlet, Source::Transport, ready).await;
            announced = Some(candidates);
            self.changed(&watch, announced.as_deref(), &mut servers).await;
        }
    }

    /// Waits until there is something else to announce.
    async fn changed(
        &self,
        watch: &AddressWatch,
        announced: Option<&[SocketAddr]>,
        servers: &mut watch::Receiver<Vec<SocketAddr>>,
    ) {
        loop {
            tokio::select! {
                () = watch.changed() => {
                    let found = self.transport.candidates(self.scope);
                    if Difference::between(announced, &found) != Difference::None {
                        return;
                    }
                }
                // The sender lives as long as this task.
                _ = servers.changed() => return,
            }
        }
    }

    /// The addresses of the moment. An interface that comes up gains its addresses one after the
    /// other: those are waited for.
    async fn settled(&self, announced: Option<&[SocketAddr]>) -> Vec<SocketAddr> {
        let mut found = self.transport.candidates(self.scope);
        while Difference::between(announced, &found) == Difference::Gained {
            tokio::time::sleep(SETTLE).await;
            let settled = self.transport.candidates(self.scope);
            if settled == found {
                break;
            }
            found = settled;
        }
        found
    }

    /// Looks for the STUN servers until they are found, then now and again, and whenever this node
    /// has moved: what a name leads to depends on who asks.
    async fn find_stun(&self, servers: &watch::Sender<Vec<SocketAddr>>, moved: &Notify) {
        let mut pause = FIND_AGAIN_MIN;
        loop {
            let wait = match self.stun.find().await {
                Ok(found) => {
                    servers.send_if_modified(|known| std::mem::replace(known, found.clone()) != found);
                    pause = FIND_AGAIN_MIN;
                    FIND_ANEW_EVERY
                }
                Err(error) => {
                    debug!(error = %chain(&error), "The STUN servers are not known yet.");
                    let longer = (pause * 2).min(FIND_AGAIN_MAX);
                    std::mem::replace(&mut pause, longer)
                }
            };
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = moved.notified() => {}
            }
        }
    }
}

/// How long gained addresses must hold still before they are announced.
const SETTLE: Duration = Duration::from_millis(250);

/// Between two attempts to find the STUN servers; doubles.
const FIND_AGAIN_MIN: Duration = Duration::from_millis(500);

/// The longest such pause: direct paths begin this late at most after a coordinator's return.
const FIND_AGAIN_MAX: Duration = Duration::from_secs(30);

/// How long the answer holds: a coordinator that moved or was given another port is found again.
const FIND_ANEW_EVERY: Duration = Duration::from_secs(10 * 60);

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
