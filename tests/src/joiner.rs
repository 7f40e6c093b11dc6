//! Joining by the documented calls (protocol.md §8), with a key of the test's choosing: for what the
//! program would never do by itself.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use peerloom_node::clock::Clock;
use peerloom_proto::{
    BoxSecretKey, Handle, IdentityKey, InviteClaim, InviteCode, Roster, SignedClaim, WireEntry,
};
use serde_json::{Value, json};

use crate::{Coordinator, Invite, http};

/// Appends the admission of `key` by this invite, as `handle`; gives the coordinator's answer.
///
/// # Panics
/// When the invite does not open or the log does not replay.
pub fn join_with_key(
    coordinator: &Coordinator,
    invite: &Invite,
    key: &IdentityKey,
    handle: &str,
) -> http::Response {
    let code: InviteCode = invite.code.parse().expect("an invite's code parses");
    let lookup = json!({"lookup": hex::encode(code.lookup().0)});
    let blob = coordinator.ask("POST", "/v2/invites/lookup", Some(&lookup)).json()["blob"].clone();
    let cap = code.open_blob(&from_base64(&blob)).expect("the code opens its blob");

    let bearer = format!("Authorization: Bearer {}", hex::encode(code.lookup().0));
    let on_log = |method: &str, body: Option<&Value>| {
        http::on_port(coordinator.port(), method, "/v2/log", &[&bearer], body)
            .expect("the coordinator answers")
    };
    let log = on_log("GET", None).json();
    let mut entries = log["entries"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|entry| WireEntry::parse(&from_base64(entry)).expect("the log's entries parse"));
    let mut roster = Roster::begin(&entries.next().expect("a log has a genesis")).expect("the genesis holds");
    for entry in entries {
        roster.append(&entry).expect("the log replays");
    }

    let prekey = BoxSecretKey::from_bytes([7; 32]).public();
    let now = Clock::start().now().wall;
    let claim = InviteClaim {
        mesh: cap.mesh,
        invite: cap.id,
        joiner: key.id(),
        prekey,
        sealing: prekey,
        nonce: [9; 32],
        ts: now,
        handle: Handle::parse(handle).expect("a handle"),
    };
    let claim = SignedClaim::sign(key, &code, claim);
    let entry = roster.self_admission(key, &cap, &claim, now);
    on_log("POST", Some(&json!({"entry": URL_SAFE_NO_PAD.encode(entry.encode())})))
}

fn from_base64(text: &Value) -> Vec<u8> {
    URL_SAFE_NO_PAD.decode(text.as_str().expect("a text")).expect("base64url")
}
