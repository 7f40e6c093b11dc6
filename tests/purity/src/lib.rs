//! The whole machine behind one exported function, so that a wasm32 build links all of it and shows
//! what it would need from its host: nothing (`./check`).
#![expect(unsafe_code, reason = "an export is what keeps a linker from dropping the machine")]

use bytes::Bytes;
use peerloom_proto::endpoint::{Endpoint, Input, Request, Send, Settings};
use peerloom_proto::paths::PathPolicies;
use peerloom_proto::{
    BoxSecretKey, Generation, GenesisParams, Handle, IdentityKey, InstanceId, Message, NewMember, Now, Origin,
    Policy, Priority, Role, Roster, UnixMs, WireEntry,
};

/// Builds an endpoint from `seed`, feeds it `seed` as frames, sends a message; gives the outputs.
#[unsafe(no_mangle)]
pub extern "C" fn drive(seed: u8) -> u32 {
    let key = |tag: u8| IdentityKey::from_seed(&[seed ^ tag; 32]);
    let now = Now { wall: UnixMs(1_800_000_000_000), ..Now::default() };
    let Ok(origin) = "http://127.0.0.1:7700".parse::<Origin>() else { return 0 };
    let params = GenesisParams {
        coordinators: vec![(key(1).id(), origin.clone())],
        policy: Policy::default(),
        nonce: [seed; 16],
        recovery: None,
        name: None,
        ts: now.wall,
    };
    let Ok(mut roster) = Roster::begin(&WireEntry::genesis(&key(2), params)) else { return 0 };
    for (tag, handle) in [(3, "laptop"), (4, "build")] {
        let Ok(handle) = handle.parse::<Handle>() else { return 0 };
        let prekey = Some(BoxSecretKey::from_bytes([seed ^ tag; 32]).public());
        let new = NewMember { id: key(tag).id(), role: Role::Member, handle, prekey };
        let entry = roster.member_add(&key(2), new, now.wall);
        if roster.append(&entry).is_err() {
            return 0;
        }
    }
    let settings = Settings {
        member: key(3),
        owner: None,
        roster,
        revocations: Vec::new(),
        on_hold: Vec::new(),
        prekeys: Vec::new(),
        peer_prekeys: Vec::new(),
        outbox: Vec::new(),
        held: Vec::new(),
        conversations: Vec::new(),
        next_seqs: Vec::new(),
        next_outbox_row: 1,
        next_inbox_row: 1,
        next_position: 1,
        generation: Generation([seed; 8]),
        fp_secret: [seed; 32],
        floor: UnixMs(0),
        coordinator_mark: None,
        policies: PathPolicies::default(),
        origin,
        instance: InstanceId([seed; 16]),
        seed: [seed; 32],
    };
    let mut endpoint = Endpoint::new(settings, now);
    let message = Message { content_type: "text/plain".into(), content: Bytes::from(vec![seed]), reply_to: None };
    let life = std::time::Duration::from_secs(60);
    let send = Send { id: None, to: vec![key(4).id()], message, priority: Priority::Next, life };
    let frame = || Bytes::from(vec![seed; 8]);
    for input in [
        Input::Timeout,
        Input::UplinkOpened,
        Input::UplinkFrame(frame()),
        Input::LinkFrame(1, frame()),
        Input::Request { token: 1, request: Request::Send(send) },
    ] {
        endpoint.handle(now, input);
    }
    endpoint.finish_batch(now);
    std::iter::from_fn(|| endpoint.poll_output()).fold(0, |count, _| count + 1)
}
