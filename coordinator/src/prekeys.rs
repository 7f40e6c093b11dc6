//! The prekey directory: current prekeys of members, each signed by its member, so that the
//! coordinator can withhold one but never substitute it.

use peerloom_proto::wire::{SignedBytes, ToNode};
use peerloom_proto::{MeshId, Now, PeerId, SignedPrekey};

use crate::hub::{Hub, Query, ReadFor, SocketId};
use crate::store::Write;

/// Members one request may ask for; the rest of a longer list is not answered.
const ASKED_MAX: usize = 256;

impl Hub {
    /// A member's current prekey.
    pub(crate) fn prekey_put(
        &mut self,
        now: Now,
        socket: SocketId,
        (mesh, member): (MeshId, PeerId),
        prekey: &SignedBytes,
    ) {
        match SignedPrekey::parse_verified(&prekey.stmt, &prekey.sig, &mesh, now.wall) {
            Ok(verified) if verified.member == member => {
                self.open.push(Write::PutPrekey {
                    mesh,
                    member,
                    exp: verified.exp,
                    stmt: prekey.stmt.clone(),
                    sig: prekey.sig,
                });
            }
            Ok(_) => self.expel(socket, "signature", "the prekey is another member's"),
            Err(error) => self.expel(socket, "prekey", &error.to_string()),
        }
    }

    /// Asks for prekeys of members.
    pub(crate) fn prekey_get(&mut self, socket: SocketId, mesh: MeshId, mut members: Vec<PeerId>) {
        members.truncate(ASKED_MAX);
        if members.is_empty() {
            return self.send(socket, &ToNode::Prekeys { prekeys: Vec::new() });
        }
        self.read_for(socket, ReadFor::Prekeys { socket }, Query::Prekeys { mesh, members });
    }
}
