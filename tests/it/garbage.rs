//! Bytes that no honest program would say, on every socket there is. Afterwards everything goes on
//! as before.

use std::io::{Read, Write};
use std::net::{TcpStream, UdpSocket};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use peerloom_tests::{Chance, CoordinatorPlan, Mesh, Plan, Puppet, ports};

/// What is thrown at a stream socket: noise, half requests, endless lines, wrong promises.
fn rubbish(chance: &mut Chance) -> Vec<Vec<u8>> {
    let mut all: Vec<Vec<u8>> = vec![
        Vec::new(),
        b"\n".to_vec(),
        vec![0; 100_000],
        vec![0xff; 100_000],
        b"GET".to_vec(),
        b"GET / HTTP/1.1\r\n".to_vec(),
        b"GET / HTTP/9.9\r\n\r\n".to_vec(),
        [b"GET /".to_vec(), vec![b'a'; 200_000], b" HTTP/1.1\r\n\r\n".to_vec()].concat(),
        [b"GET / HTTP/1.1\r\nX: ".to_vec(), vec![b'a'; 200_000], b"\r\n\r\n".to_vec()].concat(),
        b"POST /v1/messages HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999999999999\r\n\r\n{".to_vec(),
        b"POST /v1/messages HTTP/1.1\r\nHost: x\r\nContent-Length: 50\r\n\r\n{\"to\":".to_vec(),
        b"POST /v1/messages HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\n"
            .to_vec(),
        b"POST /v2/meshes HTTP/1.1\r\nHost: x\r\nContent-Length: 15\r\n\r\n{\"entries\":[[[[".to_vec(),
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".to_vec(),
    ];
    all.extend((0..20).map(|_| {
        let size = chance.below(5_000);
        chance.bytes(usize::try_from(size).expect("small"))
    }));
    all
}

/// Says it, hears what comes back for a moment, and hangs up.
fn throw(mut stream: impl Read + Write, bytes: &[u8]) {
    // The other side may hang up at any byte: that is its good right.
    if stream.write_all(bytes).is_ok() {
        let mut answer = Vec::new();
        stream.take(4096).read_to_end(&mut answer).unwrap_or(0);
    }
}

const HEARD: Option<Duration> = Some(Duration::from_millis(20));

#[test]
fn the_local_api_survives_garbage() {
    let mut chance = Chance::new();
    let mut mesh = Mesh::start();
    let socket = mesh.node("laptop").socket();
    for bytes in rubbish(&mut chance) {
        let stream = UnixStream::connect(&socket).expect("the API goes on accepting");
        stream.set_read_timeout(HEARD).unwrap();
        throw(stream, &bytes);
    }
    // Callers that say nothing at all hold up nobody.
    let silent: Vec<UnixStream> = (0..50).map(|_| UnixStream::connect(&socket).unwrap()).collect();
    mesh.node("laptop").send("build", "after the garbage");
    drop(silent);
    mesh.node("build").await_texts(&["after the garbage"]);
    assert!(mesh.node_mut("laptop").running().ended().is_none());
}

#[test]
fn the_coordinators_port_survives_garbage() {
    let mut chance = Chance::new();
    let mut mesh = Mesh::start();
    let port = mesh.coordinator.port();
    let connect = || {
        let stream = TcpStream::connect(("127.0.0.1", port)).expect("the coordinator goes on accepting");
        stream.set_read_timeout(HEARD).unwrap();
        stream
    };
    for bytes in rubbish(&mut chance) {
        throw(connect(), &bytes);
    }
    // Before the hello, on an open WebSocket: text, noise, endless fragments, a frame far too long.
    let upgrade = b"GET /v2/link HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
        Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    let frames: Vec<Vec<u8>> = vec![
        frame(0x81, b"a text"),
        frame(0x82, b""),
        frame(0x82, &chance.bytes(64)),
        frame(0x82, &vec![0x9f; 60_000]),
        frame(0x82, &[0x84; 10_000]),
        frame(0x02, b"never finished"),
        frame(0x88, &[0x03, 0xe8]),
        vec![0x82, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
        vec![0x82, 0x05, b'p', b'l', b'a', b'i', b'n'],
        chance.bytes(1_000),
    ];
    for frame in frames {
        throw(connect(), &[&upgrade[..], &frame].concat());
    }
    mesh.node("laptop").send("build", "after the garbage");
    mesh.node("build").await_texts(&["after the garbage"]);
    assert!(mesh.coordinator.running().ended().is_none());
}

/// A masked WebSocket frame with a mask of zeros.
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(payload.len()).expect("a short frame");
    [&[first, 0x80 | 126], &length.to_be_bytes()[..], &[0; 4], payload].concat()
}

#[test]
fn a_member_that_says_garbage_on_its_link_or_to_the_coordinator_harms_only_itself() {
    let mut chance = Chance::new();
    let mut mesh = Plan::of(&["laptop", "build"]).start();
    let rogue_home = mesh.stranger("rogue");
    rogue_home.join(&mesh.node("laptop").invite(&[])).ok();
    let mut rogue = Puppet::play(&rogue_home);
    rogue.until("a welcome", |rogue| rogue.is_connected().then_some(()));

    for round in 0..12 {
        let size = usize::try_from(1 + chance.below(3_000)).expect("small");
        let mut noise = chance.bytes(size);
        if round % 2 == 1 {
            // An array of a known kind, and then nonsense.
            noise[0] = 0x82;
            noise.insert(1, u8::try_from(round).expect("small"));
        }
        let endings = rogue.endings();
        rogue.say_to_coordinator(noise.into());
        rogue.until("the coordinator to hang up", |rogue| (rogue.endings() > endings).then_some(()));
        rogue.until("a welcome again", |rogue| rogue.is_connected().then_some(()));
    }

    let laptop = rogue.peer("laptop");
    rogue.until("the sender to see it", |_| {
        mesh.node("laptop").peer("rogue").is_some_and(|peer| peer["online"] == true).then_some(())
    });
    mesh.node("laptop").hand_over("rogue", "over the relay");
    rogue.until("the message", |rogue| (rogue.inbox() == ["over the relay"]).then_some(()));
    rogue.until("a direct path", |rogue| rogue.is_direct(&laptop).then_some(()));
    rogue.say_on_links(&chance.bytes(500).into());
    rogue.until("the direct path to be closed", |rogue| (!rogue.is_direct(&laptop)).then_some(()));
    mesh.node("laptop").hand_over("rogue", "over the relay again");
    rogue.until("the message", |rogue| (rogue.inbox().len() == 2).then_some(()));

    mesh.node("laptop").send("build", "unharmed");
    mesh.node("build").await_texts(&["unharmed"]);
    assert!(mesh.coordinator.running().ended().is_none());
    assert!(mesh.node_mut("laptop").running().ended().is_none());
}

#[test]
fn datagrams_of_garbage_disturb_neither_stun_nor_direct_links() {
    let mut chance = Chance::new();
    let port = ports::free();
    let mut mesh = Plan::of(&["laptop", "build"])
        .coordinator(CoordinatorPlan::plain())
        .setting("build", "PEERLOOM_UDP_PORT", &port.to_string())
        .start();
    let stun = mesh.coordinator.port();
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    for to in [port, stun] {
        for round in 0..200 {
            let size = usize::try_from(chance.below(1_400)).expect("small");
            let mut noise = chance.bytes(size);
            if let [first, .., _] = &mut noise[..] {
                // Every kind of first byte: STUN, QUIC long and short headers.
                *first = u8::try_from(round).expect("small");
            }
            socket.send_to(&noise, ("127.0.0.1", to)).unwrap();
        }
    }
    assert_eq!(mapped_address(&socket, stun), socket.local_addr().unwrap());

    mesh.node("laptop").send("build", "0");
    let direct = mesh.node("laptop").await_direct("build");
    assert!(
        direct.to_string().contains(&port.to_string()),
        "the link leads to the port we threw at: {direct}"
    );
    mesh.node("laptop").send("build", "1");
    mesh.node("build").await_texts(&["0", "1"]);
    assert!(mesh.coordinator.running().ended().is_none());
    assert!(mesh.node_mut("build").running().ended().is_none());
}

/// What the coordinator's STUN responder sees us as (RFC 8489 §14.2).
fn mapped_address(socket: &UdpSocket, port: u16) -> std::net::SocketAddr {
    const COOKIE: [u8; 4] = [0x21, 0x12, 0xa4, 0x42];
    let request = [&[0x00, 0x01, 0x00, 0x00], &COOKIE[..], b"transaction!"].concat();
    socket.send_to(&request, ("127.0.0.1", port)).expect("loopback takes datagrams");
    let mut answer = [0; 1500];
    loop {
        let (size, from) = socket.recv_from(&mut answer).expect("STUN answers");
        let answer = &answer[..size];
        if from.port() != port || answer.get(8..20) != Some(b"transaction!") {
            continue;
        }
        let at = answer
            .windows(4)
            .position(|four| four == [0x00, 0x20, 0x00, 0x08])
            .expect("an IPv4 XOR-MAPPED-ADDRESS");
        let value = &answer[at + 4..at + 12];
        let port = u16::from_be_bytes([value[2] ^ COOKIE[0], value[3] ^ COOKIE[1]]);
        let ip = [4, 5, 6, 7].map(|i| value[i] ^ COOKIE[i - 4]);
        return (ip, port).into();
    }
}
