//! Another member as people see it: whether it is there, by which way, and why by no better one.

use super::{Endpoint, PathKind};
use crate::bind::BindTransport;
use crate::id::PeerId;
use crate::paths::ChecksView;
use crate::time::UnixMs;

/// What people are told of another member.
#[derive(Clone, Debug)]
pub struct PeerView {
    /// Who.
    pub peer: PeerId,
    /// Whether it can be reached now.
    pub online: bool,
    /// The way a message would go now; none when it would wait here.
    pub path: Option<PathKind>,
    /// What carries the direct link.
    pub transport: Option<BindTransport>,
    /// Where the direct link leads.
    pub remote: Option<String>,
    /// Round trip on that way, microseconds, if it was measured.
    pub rtt_us: Option<u64>,
    /// When it was measured, by this machine's wall clock; none of a direct link, whose round trip is
    /// measured all the time.
    pub rtt_at: Option<UnixMs>,
    /// When the direct link was bound, by this machine's wall clock.
    pub since: Option<UnixMs>,
    /// Why it is not direct.
    pub why_not_direct: Option<String>,
    /// How far the last attempt at a direct link got.
    pub checks: Option<ChecksView>,
}

impl Endpoint {
    /// What people are told of each other member.
    pub fn peer_views(&self) -> Vec<PeerView> {
        let others =
            self.roster.members().filter(|member| member.id != self.me.id && !self.is_revoked(&member.id));
        others.map(|member| self.peer_view(member.id)).collect()
    }

    fn peer_view(&self, id: PeerId) -> PeerView {
        let peer = self.peers.get(&id);
        let bound = peer.and_then(|peer| peer.link).and_then(|link| self.links.bound(link));
        let online = self.peers.is_online(&id) || bound.is_some();
        let path = match (bound, self.uplink.is_ready()) {
            (Some(_), _) => Some(PathKind::Direct),
            (None, _) if !self.may_relay(&id) => None,
            (None, true) if online => Some(PathKind::Relay),
            (None, true) => Some(PathKind::Queue),
            (None, false) => None,
        };
        let relayed = self.pings.last_relay(&id).filter(|_| path == Some(PathKind::Relay));
        PeerView {
            peer: id,
            online,
            path,
            transport: bound.map(|bound| bound.transport),
            remote: bound.map(|bound| bound.remote.clone()),
            rtt_us: bound.map_or(relayed.map(|(rtt_us, _)| rtt_us), |bound| bound.rtt_us),
            rtt_at: relayed.map(|(_, at)| at),
            since: bound.map(|bound| bound.since),
            why_not_direct: match bound {
                Some(_) => None,
                None => peer.and_then(|peer| peer.why_not_direct.clone()),
            },
            checks: self.links.checks(&id),
        }
    }
}
