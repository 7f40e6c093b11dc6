use super::*;
use crate::failure::SCHEMA_VERSION;

fn json(value: &impl serde::Serialize) -> String {
    serde_json::to_string(value).unwrap()
}

/// Whether every documented field stands in the JSON, in any order and among others.
fn has_fields(value: &impl serde::Serialize, fields: &[&str]) {
    let value = serde_json::to_value(value).unwrap();
    for field in fields {
        let pointer = format!("/{}", field.replace('.', "/"));
        assert!(value.pointer(&pointer).is_some(), "{field} is missing in {value}");
    }
}

fn name() -> Name {
    Name { handle: "build".to_owned(), key: "ab".repeat(32) }
}

#[test]
fn a_stopped_node_has_the_documented_status() {
    let status = StatusShape {
        schema_version: SCHEMA_VERSION,
        running: false,
        pid: None,
        version: None,
        uptime_ms: None,
        mesh: None,
        me: None,
        coordinator: None,
        peers_online: 0,
        outbox: OutboxCountsShape::default(),
        alarms: Vec::new(),
        meshes: Vec::new(),
    };
    assert_eq!(
        json(&status),
        r#"{"schema_version":1,"running":false,"pid":null,"version":null,"uptime_ms":null,"mesh":null,"me":null,"coordinator":null,"peers_online":0,"outbox":{"pending":0,"dead":0},"alarms":[],"meshes":[]}"#
    );
}

#[test]
fn a_running_node_has_every_documented_field() {
    let mesh = MeshShape {
        id: "00".repeat(32),
        name: "acme".to_owned(),
        head: Some(HeadShape { size: 3, hash: "11".repeat(32) }),
    };
    let status = StatusShape {
        schema_version: SCHEMA_VERSION,
        running: true,
        pid: Some(7),
        version: Some("0.1.0".to_owned()),
        uptime_ms: Some(5),
        mesh: Some(mesh),
        me: Some(MeShape {
            handle: "laptop".to_owned(),
            member: "22".repeat(32),
            role: Some("admin".to_owned()),
        }),
        coordinator: Some(CoordinatorShape {
            since_ms: None,
            origin: "https://mesh.example".to_owned(),
            state: "connected".to_owned(),
            why: None,
            skew_ms: Some(4),
        }),
        peers_online: 1,
        outbox: OutboxCountsShape { pending: 2, dead: 1 },
        alarms: Vec::new(),
        meshes: Vec::new(),
    };
    has_fields(
        &status,
        &[
            "schema_version",
            "running",
            "pid",
            "mesh.id",
            "mesh.name",
            "mesh.head.size",
            "mesh.head.hash",
            "me.handle",
            "me.member",
            "coordinator.origin",
            "coordinator.state",
            "peers_online",
            "outbox.pending",
            "outbox.dead",
        ],
    );
}

#[test]
fn a_peer_has_every_documented_field_even_when_away() {
    let peer = PeerShape {
        presence: "away".to_owned(),
        rtt_at_ms: None,
        handle: "build".to_owned(),
        key: "ab".repeat(32),
        kind: "member".to_owned(),
        online: false,
        status: "idle".to_owned(),
        path: "none".to_owned(),
        transport: None,
        rtt_ms: None,
        groups: Vec::new(),
        summary: String::new(),
        remote: None,
        since_ms: None,
        why_not_direct: Some("away".to_owned()),
    };
    let list = PeerListShape { schema_version: SCHEMA_VERSION, peers: vec![peer] };
    has_fields(
        &list,
        &[
            "schema_version",
            "peers.0.handle",
            "peers.0.key",
            "peers.0.kind",
            "peers.0.online",
            "peers.0.presence",
            "peers.0.since_ms",
            "peers.0.why_not_direct",
            "peers.0.status",
            "peers.0.path",
            "peers.0.transport",
            "peers.0.rtt_ms",
            "peers.0.groups",
            "peers.0.summary",
        ],
    );
    assert_eq!(
        json(&PeerListShape { schema_version: 1, peers: Vec::new() }),
        r#"{"schema_version":1,"peers":[]}"#
    );
}

#[test]
fn a_send_has_every_documented_field() {
    let send = SendShape {
        schema_version: SCHEMA_VERSION,
        id: "07".repeat(16),
        state: "stored".to_owned(),
        path: Some("direct".to_owned()),
        transport: Some("quic".to_owned()),
        elapsed_ms: 41,
        repeated: false,
        recipients: Vec::new(),
        done: true,
        code: None,
        why: None,
    };
    assert_eq!(
        json(&send),
        r#"{"schema_version":1,"id":"07070707070707070707070707070707","state":"stored","path":"direct","transport":"quic","elapsed_ms":41,"repeated":false,"recipients":[],"done":true}"#
    );
}

#[test]
fn an_inbox_line_has_every_documented_field() {
    let message = InboxShape {
        schema_version: SCHEMA_VERSION,
        id: "07".repeat(16),
        from: name(),
        channel: "dm".to_owned(),
        text: Some("hello".to_owned()),
        sent_at_ms: 1,
        received_at_ms: 2,
        path: "queue".to_owned(),
        transport: Some("websocket".to_owned()),
        priority: "next".to_owned(),
        reply_to: None,
        position: 9,
        content_type: "text/plain".to_owned(),
        content_b64: None,
        surfaced_at_ms: None,
    };
    has_fields(
        &message,
        &[
            "schema_version",
            "id",
            "from.handle",
            "from.key",
            "channel",
            "text",
            "sent_at_ms",
            "received_at_ms",
            "path",
            "transport",
            "priority",
            "reply_to",
        ],
    );
}

#[test]
fn invite_message_and_ping_have_their_documented_fields() {
    let invite = InviteShape {
        schema_version: SCHEMA_VERSION,
        url: "https://mesh.example/i/7Q2M9KXA".to_owned(),
        code: "4Z7P-1QXK-88TN-RW3D".to_owned(),
        expires_at_ms: 5,
        uses: 1,
        id: "7Q2M9KXA".to_owned(),
    };
    has_fields(&invite, &["schema_version", "url", "code", "expires_at_ms", "uses"]);
    let recipient = RecipientShape {
        handle: "build".to_owned(),
        key: "ab".repeat(32),
        state: "stored".to_owned(),
        code: None,
        path: Some("relay".to_owned()),
        transport: Some("websocket".to_owned()),
        remote: None,
        at_ms: 3,
        replaced_by: None,
    };
    let message =
        MessageShape { schema_version: SCHEMA_VERSION, id: "07".repeat(16), recipients: vec![recipient] };
    has_fields(
        &message,
        &[
            "schema_version",
            "id",
            "recipients.0.handle",
            "recipients.0.state",
            "recipients.0.path",
            "recipients.0.at_ms",
        ],
    );
    let sample =
        SampleShape { path: "relay".to_owned(), transport: Some("websocket".to_owned()), rtt_ms: Some(48.2) };
    let ping = PingShape {
        schema_version: SCHEMA_VERSION,
        peer: "build".to_owned(),
        samples: vec![sample],
        direct: false,
        why_not_direct: None,
        upgraded_after_ms: None,
        remote: None,
    };
    has_fields(
        &ping,
        &[
            "schema_version",
            "peer",
            "samples.0.path",
            "samples.0.transport",
            "samples.0.rtt_ms",
            "direct",
            "why_not_direct",
        ],
    );
}

#[test]
fn one_recipient_may_stand_without_brackets() {
    let request: SendRequest = serde_json::from_str(r#"{"to":"build","text":"hello"}"#).unwrap();
    assert_eq!(request.to, ["build"]);
    let request: SendRequest = serde_json::from_str(r#"{"to":["a","b"],"text":"hello"}"#).unwrap();
    assert_eq!(request.to, ["a", "b"]);
}

#[test]
fn a_misspelt_field_of_a_request_is_refused_and_named() {
    let error = serde_json::from_str::<SendRequest>(r#"{"to":["a"],"txt":"hello"}"#).unwrap_err();
    assert!(error.to_string().contains("txt"), "{error}");
}

#[test]
fn an_answer_of_a_batch_is_told_apart_by_its_fields() {
    let failed = r#"{"schema_version":1,"error":{"code":"unknown-peer","text":"t","next":""},"exit_code":4}"#;
    assert!(matches!(serde_json::from_str(failed).unwrap(), BatchAnswer::Failed(_)));
    let sent =
        r#"{"schema_version":1,"id":"07","state":"queued","path":null,"transport":null,"elapsed_ms":1}"#;
    assert!(matches!(serde_json::from_str(sent).unwrap(), BatchAnswer::Sent(_)));
}
