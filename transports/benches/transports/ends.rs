//! One end of each way to carry bytes: our links, bare quinn, bare webrtc.

use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use peerloom_proto::ConnId;
use peerloom_transports::{
    BoxFuture, CandidateScope, PeerAddr, PeerLink, PeerTransport, QuicTransport, WebRtcTransport, provider,
};
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use quinn::{ClientConfig, Connection, Endpoint, RecvStream, SendStream, ServerConfig};
use tokio::sync::Mutex;
use webrtc::data_channel::{DataChannel, DataChannelEvent, RTCDataChannelInit};
use webrtc::peer_connection::{
    PeerConnection, PeerConnectionBuilder, PeerConnectionEventHandler, RTCIceCandidateInit,
    RTCPeerConnectionIceEvent, SettingEngineBuilder,
};

/// Says pieces to the other end, and takes bytes from it.
pub(crate) trait End: Send + Sync {
    fn say(&self, pieces: Vec<Bytes>) -> BoxFuture<'_, ()>;
    fn take(&self, bytes: usize) -> BoxFuture<'_, ()>;
}

/// Two ends, and whatever must live as long as they do.
pub(crate) struct Pair {
    pub(crate) near: Box<dyn End>,
    pub(crate) far: Box<dyn End>,
    _alive: Box<dyn std::any::Any>,
}

struct Ours(Box<dyn PeerLink>);

impl End for Ours {
    fn say(&self, pieces: Vec<Bytes>) -> BoxFuture<'_, ()> {
        Box::pin(async move { self.0.send_many(pieces).await.unwrap() })
    }

    fn take(&self, bytes: usize) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            let mut missing = bytes;
            while missing > 0 {
                let frames = self.0.recv_many(256, 1 << 20).await.unwrap();
                missing -= frames.iter().map(Bytes::len).sum::<usize>();
            }
        })
    }
}

async fn linked<T: PeerTransport>(dialler: &T, acceptor: &T) -> (Box<dyn PeerLink>, Box<dyn PeerLink>) {
    let deadline = Instant::now() + Duration::from_secs(10);
    let (scope, conn) = (CandidateScope::WithLoopback, ConnId([1; 16]));
    acceptor.expect(conn, dialler.local_cert(), deadline).unwrap();
    let peer = PeerAddr::new(conn, acceptor.local_cert(), &acceptor.candidates(scope), scope);
    let near = dialler.dial(&peer, deadline).await.unwrap();
    (near, acceptor.accept().await.unwrap())
}

fn quic() -> QuicTransport {
    QuicTransport::new(UdpSocket::bind("127.0.0.1:0").unwrap()).unwrap()
}

/// A QUIC link.
pub(crate) async fn quic_link() -> Pair {
    let (dialler, acceptor) = (quic(), quic());
    let (near, far) = linked(&dialler, &acceptor).await;
    Pair { near: Box::new(Ours(near)), far: Box::new(Ours(far)), _alive: Box::new((dialler, acceptor)) }
}

/// A WebRTC link; also how long it took to open.
pub(crate) async fn webrtc_link() -> (Pair, Duration) {
    let sockets = (quic(), quic());
    let dialler = WebRtcTransport::new(&sockets.0).unwrap();
    let acceptor = WebRtcTransport::new(&sockets.1).unwrap();
    let began = Instant::now();
    let (near, far) = linked(&dialler, &acceptor).await;
    let took = began.elapsed();
    let alive = Box::new((dialler, acceptor, sockets));
    (Pair { near: Box::new(Ours(near)), far: Box::new(Ours(far)), _alive: alive }, took)
}

struct Streams {
    send: Mutex<SendStream>,
    recv: Mutex<RecvStream>,
}

impl End for Streams {
    fn say(&self, mut pieces: Vec<Bytes>) -> BoxFuture<'_, ()> {
        Box::pin(async move { self.send.lock().await.write_all_chunks(&mut pieces).await.unwrap() })
    }

    fn take(&self, bytes: usize) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            let mut missing = bytes;
            let mut recv = self.recv.lock().await;
            while missing > 0 {
                missing -= recv.read_chunk(missing, true).await.unwrap().unwrap().bytes.len();
            }
        })
    }
}

fn streams(send: SendStream, recv: RecvStream) -> Box<dyn End> {
    Box::new(Streams { send: Mutex::new(send), recv: Mutex::new(recv) })
}

/// One bidirectional stream of bare quinn.
pub(crate) async fn bare_quinn() -> Pair {
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let key = rustls::pki_types::PrivatePkcs8KeyDer::from(made.signing_key.serialize_der()).into();
    let der = made.cert.der().clone();
    let mut roots = rustls::RootCertStore::empty();
    roots.add(der.clone()).unwrap();
    let server = rustls::ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![der], key)
        .unwrap();
    let client = rustls::ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let server = ServerConfig::with_crypto(Arc::new(QuicServerConfig::try_from(server).unwrap()));
    let client = ClientConfig::new(Arc::new(QuicClientConfig::try_from(client).unwrap()));
    let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
    let far_end = Endpoint::server(server, any).unwrap();
    let near_end = Endpoint::client(any).unwrap();
    let connecting = near_end.connect_with(client, far_end.local_addr().unwrap(), "localhost").unwrap();
    let (near, far) = tokio::join!(connecting, async { far_end.accept().await.unwrap().await });
    let (near, far): (Connection, Connection) = (near.unwrap(), far.unwrap());
    let (mut send, recv) = near.open_bi().await.unwrap();
    send.write_all(b"!").await.unwrap();
    let (far_send, mut far_recv) = far.accept_bi().await.unwrap();
    far_recv.read_exact(&mut [0]).await.unwrap();
    let (near_stream, far_stream) = (streams(send, recv), streams(far_send, far_recv));
    Pair { near: near_stream, far: far_stream, _alive: Box::new((near_end, far_end, near, far)) }
}

struct Channel(Arc<dyn DataChannel>);

impl End for Channel {
    fn say(&self, pieces: Vec<Bytes>) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            for piece in pieces {
                for message in piece.chunks(16 << 10) {
                    self.0.send(BytesMut::from(message)).await.unwrap();
                }
            }
        })
    }

    fn take(&self, bytes: usize) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            let mut missing = bytes;
            while missing > 0 {
                if let Some(DataChannelEvent::OnMessage(message)) = self.0.poll().await {
                    missing -= message.data.len();
                }
            }
        })
    }
}

/// Hands its candidates over as they come.
struct Candidates(tokio::sync::mpsc::UnboundedSender<RTCIceCandidateInit>);

#[async_trait::async_trait]
impl PeerConnectionEventHandler for Candidates {
    async fn on_ice_candidate(&self, event: RTCPeerConnectionIceEvent) {
        let Ok(candidate) = event.candidate.to_json() else { return };
        self.0.send(candidate).unwrap_or(());
    }
}

/// One negotiated data channel of the `webrtc` crate, its timers and its send buffer as ours are.
pub(crate) async fn bare_webrtc() -> Pair {
    let (near_out, mut near_candidates) = tokio::sync::mpsc::unbounded_channel();
    let (far_out, mut far_candidates) = tokio::sync::mpsc::unbounded_channel();
    let (near, far) = (connection(near_out).await, connection(far_out).await);
    let init = || Some(RTCDataChannelInit { negotiated: Some(0), ..RTCDataChannelInit::default() });
    let near_channel = near.create_data_channel("bench", init()).await.unwrap();
    let far_channel = far.create_data_channel("bench", init()).await.unwrap();
    let offer = near.create_offer(None).await.unwrap();
    near.set_local_description(offer.clone()).await.unwrap();
    far.set_remote_description(offer).await.unwrap();
    let answer = far.create_answer(None).await.unwrap();
    far.set_local_description(answer.clone()).await.unwrap();
    near.set_remote_description(answer).await.unwrap();
    far.add_ice_candidate(near_candidates.recv().await.unwrap()).await.unwrap();
    near.add_ice_candidate(far_candidates.recv().await.unwrap()).await.unwrap();
    for channel in [&near_channel, &far_channel] {
        while !matches!(channel.poll().await, Some(DataChannelEvent::OnOpen)) {}
    }
    let ends = (Box::new(Channel(near_channel)), Box::new(Channel(far_channel)));
    Pair { near: ends.0, far: ends.1, _alive: Box::new((near, far)) }
}

async fn connection(
    candidates: tokio::sync::mpsc::UnboundedSender<RTCIceCandidateInit>,
) -> Arc<dyn PeerConnection> {
    let settings = SettingEngineBuilder::new()
        .with_ice_connection_attempts(Some(Duration::from_millis(20)), Some(500))
        .with_include_loopback_candidate(true)
        .build();
    let built = PeerConnectionBuilder::new()
        .with_setting_engine(settings)
        .with_handler(Arc::new(Candidates(candidates)))
        .with_udp_addrs(vec!["127.0.0.1:0"])
        .with_data_channel_send_buffer_limit(128 << 10)
        .build();
    Arc::new(built.await.unwrap())
}
