//! What happened to the way to each peer, for people who ask why it is as it is.

use std::collections::{BTreeMap, VecDeque};

use peerloom_proto::endpoint::PathKind;
use peerloom_proto::{PeerId, UnixMs};

use crate::views::{Change, Moment, PeerStatus};

/// The last moments of every peer.
#[derive(Debug, Default)]
pub(super) struct Timelines(BTreeMap<PeerId, VecDeque<Moment>>);

impl Timelines {
    /// Notes how the peers differ from what they were; both lists are in the same order, but for those
    /// that came and went.
    pub(super) fn note(&mut self, at: UnixMs, before: &[PeerStatus], now: &[PeerStatus]) {
        let before: BTreeMap<PeerId, &PeerStatus> = before.iter().map(|peer| (peer.peer, peer)).collect();
        self.0.retain(|peer, _| now.iter().any(|status| status.peer == *peer));
        for status in now {
            for change in changes(before.get(&status.peer).copied(), status) {
                let moments = self.0.entry(status.peer).or_default();
                if moments.len() == MOMENTS_MAX {
                    moments.pop_front();
                }
                moments.push_back(Moment { at, change });
            }
        }
    }

    pub(super) fn of(&self, peer: &PeerId) -> Vec<Moment> {
        self.0.get(peer).map(|moments| moments.iter().cloned().collect()).unwrap_or_default()
    }
}

fn changes(before: Option<&PeerStatus>, now: &PeerStatus) -> Vec<Change> {
    let mut changes = Vec::new();
    if before.is_some_and(|before| before.online) != now.online {
        changes.push(if now.online { Change::Online } else { Change::Away });
    }
    let path = |status: &PeerStatus| (status.path, status.remote.clone());
    if before.is_none_or(|before| path(before) != path(now)) {
        match now.path {
            Some(PathKind::Direct) => changes.push(Change::Direct(now.remote.clone())),
            Some(PathKind::Relay) => changes.push(Change::Relay),
            Some(PathKind::Queue) | None => {}
        }
    }
    let reason = before.and_then(|before| before.why_not_direct.as_ref());
    if let Some(why) = now.why_not_direct.as_ref().filter(|why| reason != Some(why)) {
        changes.push(Change::NotDirect(why.clone()));
    }
    changes
}

/// Moments kept of each peer, about 100 bytes each: a bad afternoon. The oldest are forgotten first.
const MOMENTS_MAX: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(path: Option<PathKind>, why: Option<&str>) -> PeerStatus {
        PeerStatus {
            peer: PeerId([7; 32]),
            handle: "build".parse().unwrap(),
            online: path.is_some(),
            path,
            transport: None,
            remote: (path == Some(PathKind::Direct)).then(|| "192.0.2.1:9".to_owned()),
            rtt_us: None,
            rtt_at: None,
            since: None,
            why_not_direct: why.map(str::to_owned),
        }
    }

    #[test]
    fn every_change_of_path_and_reason_is_kept_once_and_the_oldest_go_first() {
        let steps = [
            peer(None, None),
            peer(Some(PathKind::Relay), Some("no answer")),
            peer(Some(PathKind::Relay), Some("no answer")),
            peer(Some(PathKind::Direct), None),
            peer(None, None),
        ];
        let mut timelines = Timelines::default();
        for (at, pair) in (1..).zip(steps.windows(2)) {
            timelines.note(UnixMs(at), &pair[..1], &pair[1..]);
        }
        let moments = timelines.of(&PeerId([7; 32]));
        let expected = [
            (1, Change::Online),
            (1, Change::Relay),
            (1, Change::NotDirect("no answer".to_owned())),
            (3, Change::Direct(Some("192.0.2.1:9".to_owned()))),
            (4, Change::Away),
        ];
        assert_eq!(moments, expected.map(|(at, change)| Moment { at: UnixMs(at), change }));

        for at in 5..50 {
            timelines.note(UnixMs(at), &steps[2..3], &steps[3..4]);
        }
        assert_eq!(timelines.of(&PeerId([7; 32])).len(), MOMENTS_MAX);
        timelines.note(UnixMs(60), &steps[3..4], &[]);
        assert_eq!(timelines.of(&PeerId([7; 32])), [], "a peer that is no member any more");
    }
}
