//! Who is online, and telling it: presence is a lease on an identity that outlives its socket, so
//! that a reconnect flaps nobody's list.

use std::time::Duration;

use bytes::Bytes;
use peerloom_proto::limits::PRESENCE_LEASE;
use peerloom_proto::wire::ToNode;
use peerloom_proto::{Hello, MeshId, Monotonic, Now, PeerId};

use crate::hub::{Hub, SocketId};
use crate::mesh::{Presence, Reach};
use crate::rate::Bucket;

/// Changes of one mesh are told at most this often: a thousand members that come back at once
/// make a few frames for each, not a thousand.
const CHANGES_EVERY: Duration = Duration::from_millis(250);

/// Peers one presence frame lists.
const PEERS_PER_FRAME: usize = 4_096;

impl Hub {
    /// Gives `hello`'s identity the socket, and says which socket lost it.
    ///
    /// # Errors
    /// An open socket of the same instance that was opened later keeps its place.
    pub(crate) fn attach(
        &mut self,
        now: Now,
        socket: SocketId,
        hello: &Hello,
    ) -> Result<Option<SocketId>, SocketId> {
        let Some(mesh) = self.meshes.get_mut(&hello.mesh) else { return Ok(None) };
        let Some(presence) = mesh.online.get_mut(&hello.id) else {
            let presence = Presence {
                socket: Reach::Socket(socket),
                instance: hello.instance,
                counter: hello.counter,
                messages: Bucket::full(&self.config.member_messages, now.monotonic),
                bytes: Bucket::full(&self.config.member_bytes, now.monotonic),
            };
            mesh.online.insert(hello.id, presence);
            self.changed(hello.mesh, hello.id, Change::Online);
            return Ok(None);
        };
        let older = match presence.socket {
            Reach::Socket(newer)
                if presence.instance == hello.instance && presence.counter > hello.counter =>
            {
                return Err(newer);
            }
            Reach::Socket(older) => Some(older),
            Reach::LostUntil(_) => None,
        };
        presence.socket = Reach::Socket(socket);
        presence.instance = hello.instance;
        presence.counter = hello.counter;
        if let Some(queue) = mesh.queues.get_mut(&hello.id) {
            queue.detach();
        }
        Ok(older)
    }

    /// The socket is gone: its identity stays present for the lease.
    pub(crate) fn detach(&mut self, now: Now, socket: SocketId, mesh: &MeshId, id: &PeerId) {
        let Some(mesh) = self.meshes.get_mut(mesh) else { return };
        let Some(presence) = mesh.online.get_mut(id) else { return };
        if presence.socket != Reach::Socket(socket) {
            return;
        }
        presence.socket = Reach::LostUntil(now.monotonic + PRESENCE_LEASE);
        if let Some(queue) = mesh.queues.get_mut(id) {
            queue.detach();
        }
    }

    /// A node is being switched off: nobody should wait for its lease.
    pub(crate) fn leave(&mut self, socket: SocketId, mesh_id: &MeshId, id: &PeerId) {
        let Some(mesh) = self.meshes.get_mut(mesh_id) else { return };
        if mesh.online.get(id).is_none_or(|presence| presence.socket != Reach::Socket(socket)) {
            return;
        }
        mesh.online.remove(id);
        if let Some(queue) = mesh.queues.get_mut(id) {
            queue.detach();
        }
        self.changed(*mesh_id, *id, Change::Offline);
    }

    /// Ends the leases that ran out.
    pub(crate) fn end_leases(&mut self, now: Now) {
        let mut ended = Vec::new();
        for (mesh_id, mesh) in &mut self.meshes {
            mesh.online.retain(|id, presence| match presence.socket {
                Reach::LostUntil(until) if until <= now.monotonic => {
                    ended.push((*mesh_id, *id));
                    false
                }
                Reach::LostUntil(_) | Reach::Socket(_) => true,
            });
        }
        for (mesh, id) in ended {
            self.changed(mesh, id, Change::Offline);
        }
    }

    /// Notes a change of presence, to be told with others.
    pub(crate) fn changed(&mut self, mesh_id: MeshId, id: PeerId, change: Change) {
        let Some(mesh) = self.meshes.get_mut(&mesh_id) else { return };
        mesh.changes.insert(id, change == Change::Online);
        self.presence_untold.insert(mesh_id);
    }

    /// Tells the changes that are due.
    pub(crate) fn tell_changes(&mut self, now: Now) {
        let due: Vec<MeshId> = self
            .presence_untold
            .iter()
            .filter(|mesh| self.meshes.get(mesh).is_none_or(|mesh| due(mesh.told) <= now.monotonic))
            .copied()
            .collect();
        for mesh_id in due {
            self.presence_untold.remove(&mesh_id);
            let Some(mesh) = self.meshes.get_mut(&mesh_id) else { continue };
            mesh.told = Some(now.monotonic);
            let peers: Vec<_> = std::mem::take(&mut mesh.changes).into_iter().collect();
            for part in peers.chunks(PEERS_PER_FRAME) {
                let frame = ToNode::Presence { complete: false, peers: part.to_vec() }.encode();
                self.broadcast(mesh_id, &frame);
            }
        }
    }

    /// When changes are to be told next.
    pub(crate) fn changes_due(&self) -> Option<Monotonic> {
        self.presence_untold.iter().filter_map(|mesh| self.meshes.get(mesh)).map(|mesh| due(mesh.told)).min()
    }

    /// Tells one socket everybody who is online.
    pub(crate) fn tell_all(&mut self, socket: SocketId, mesh: &MeshId, except: &PeerId) {
        let Some(mesh) = self.meshes.get(mesh) else { return };
        let peers: Vec<_> = mesh.online.keys().filter(|id| *id != except).map(|id| (*id, true)).collect();
        let (first, rest) = peers.split_at(peers.len().min(PEERS_PER_FRAME));
        self.send(socket, &ToNode::Presence { complete: true, peers: first.to_vec() });
        for part in rest.chunks(PEERS_PER_FRAME) {
            self.send(socket, &ToNode::Presence { complete: false, peers: part.to_vec() });
        }
    }

    /// Sends one frame to everybody online in a mesh.
    pub(crate) fn broadcast(&mut self, mesh: MeshId, frame: &Bytes) {
        let Some(mesh) = self.meshes.get(&mesh) else { return };
        let sockets: Vec<SocketId> = mesh.open_sockets().map(|(_, socket)| socket).collect();
        for socket in sockets {
            self.send_encoded(socket, frame.clone());
        }
    }
}

/// How a member's presence changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    Online,
    Offline,
}

fn due(told: Option<Monotonic>) -> Monotonic {
    told.map_or_else(Monotonic::default, |told| told + CHANGES_EVERY)
}
