//! One peer connection of the `rtc` crate, set up for one data channel and nothing else. What other stacks
//! exchange as SDP is composed here from what sealed signalling names.

use std::fmt::Write as _;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::{Duration, Instant, SystemTime};

use peerloom_proto::ice::IceCredentials;
use peerloom_proto::{BindRole, CertHash};
use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P256_SHA256};
use rtc::data_channel::{RTCDataChannelId, RTCDataChannelInit};
use rtc::ice::mdns::MulticastDnsMode;
use rtc::peer_connection::certificate::RTCCertificate;
use rtc::peer_connection::configuration::RTCConfigurationBuilder;
use rtc::peer_connection::configuration::setting_engine::{
    SctpMaxMessageSize, SettingEngine, SettingEngineBuilder,
};
use rtc::peer_connection::sdp::RTCSessionDescription;
use rtc::peer_connection::transport::{RTCDtlsRole, RTCIceCandidateInit};
use rtc::peer_connection::{RTCPeerConnection, RTCPeerConnectionBuilder};

use crate::identity::cert_hash;
use crate::quic::BindError;
use crate::transport::PeerAddr;

/// Longest message on the channel, in bytes: what every stack takes (RFC 8831 §6.6).
pub(super) const MESSAGE_BYTES_MAX: usize = 16 << 10;

/// A self-signed P-256 certificate, in memory only: the one kind that every stack accepts.
#[derive(Clone, Debug)]
pub(super) struct Certificate {
    own: RTCCertificate,
    hash: CertHash,
}

impl Certificate {
    pub(super) fn generate() -> Result<Self, BindError> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let params = CertificateParams::new(vec!["peerloom".to_owned()])?;
        let expires = SystemTime::from(params.not_after);
        let der = params.self_signed(&key)?.der().clone();
        let hash = cert_hash(&der);
        let unusable = |error: rtc::shared::error::Error| BindError::DtlsKey(io::Error::other(error));
        let provider = rtc::crypto::default_provider()
            .map_err(|error| BindError::DtlsKey(io::Error::other(error.to_string())))?;
        let scheme = rtc::crypto::SignatureScheme::EcdsaP256Sha256;
        let own =
            RTCCertificate::from_pkcs8(provider.crypto(), scheme, vec![der], &key.serialize_der(), expires)
                .map_err(unusable)?;
        Ok(Self { own, hash })
    }

    pub(super) fn hash(&self) -> CertHash {
        self.hash
    }
}

/// The connection and its channel, ready for the other end's first datagram.
pub(super) fn connection(
    certificate: &Certificate,
    role: BindRole,
    far: &PeerAddr,
) -> rtc::shared::error::Result<(RTCPeerConnection, RTCDataChannelId)> {
    let now = Instant::now();
    let configuration =
        RTCConfigurationBuilder::new().with_certificates(vec![certificate.own.clone()]).build();
    let own = IceCredentials::of(&far.conn, role);
    let mut peer = RTCPeerConnectionBuilder::new()
        .with_configuration(configuration)
        .with_setting_engine(settings(&own))
        .build(now)?;
    let init = RTCDataChannelInit { negotiated: Some(CHANNEL), ..RTCDataChannelInit::default() };
    let channel = peer.create_data_channel(CHANNEL_LABEL, Some(init))?.id();
    let derived = IceCredentials::of(&far.conn, role.mirrored());
    let theirs = far.ice().unwrap_or(&derived);
    let peer_cert = &far.peer_cert;
    match role {
        BindRole::Dialler => {
            let offer = peer.create_offer(None)?;
            peer.set_local_description(now, offer)?;
            let answer = RTCSessionDescription::answer(description(theirs, peer_cert, "passive"))?;
            peer.set_remote_description(now, answer)?;
        }
        BindRole::Acceptor => {
            let offer = RTCSessionDescription::offer(description(theirs, peer_cert, "active"))?;
            peer.set_remote_description(now, offer)?;
            let answer = peer.create_answer(None)?;
            peer.set_local_description(now, answer)?;
        }
    }
    for local in [local_v4(), local_v6()] {
        peer.add_local_candidate(host(local))?;
    }
    for candidate in far.candidates() {
        peer.add_remote_candidate(host(*candidate))?;
    }
    Ok((peer, channel))
}

/// Where this end is, towards the library: it pairs addresses of one family and sends from none of them.
pub(super) fn local(of: IpAddr) -> SocketAddr {
    if of.is_ipv4() { local_v4() } else { local_v6() }
}

/// RFC 7600 §4.8: the dummy address.
fn local_v4() -> SocketAddr {
    SocketAddr::from((Ipv4Addr::new(192, 0, 0, 8), 9))
}

/// RFC 6666: discard-only.
fn local_v6() -> SocketAddr {
    SocketAddr::from((Ipv6Addr::new(0x100, 0, 0, 0, 0, 0, 0, 1), 9))
}

fn settings(own: &IceCredentials) -> SettingEngine {
    SettingEngineBuilder::new()
        .with_ice_credentials(own.ufrag().to_owned(), own.pwd().to_owned())
        .with_ice_connection_attempts(Some(CHECK_EVERY), Some(CHECKS_MAX))
        .with_ice_timeouts(Some(DISCONNECTED_AFTER), Some(FAILED_AFTER), Some(CONSENT_EVERY))
        // The first pair that works will do: nobody here prefers one kind of address over another.
        .with_host_acceptance_min_wait(Some(Duration::ZERO))
        .with_srflx_acceptance_min_wait(Some(Duration::ZERO))
        .with_prflx_acceptance_min_wait(Some(Duration::ZERO))
        .with_multicast_dns_mode(MulticastDnsMode::Disabled)
        .with_answering_dtls_role(RTCDtlsRole::Server)
        // The session compares certificates itself, before it reads or says anything: only then can it
        // name the one that was shown.
        .with_disable_certificate_fingerprint_verification(true)
        .with_sctp_max_message_size(SctpMaxMessageSize::Bounded(
            u32::try_from(MESSAGE_BYTES_MAX).expect("16 KiB fit"),
        ))
        .build()
}

/// The other end's half of the negotiation, as it would say it in SDP.
fn description(ice: &IceCredentials, cert: &CertHash, setup: &str) -> String {
    let mut fingerprint = String::new();
    for (index, byte) in cert.0.iter().enumerate() {
        let colon = if index == 0 { "" } else { ":" };
        write!(fingerprint, "{colon}{byte:02X}").expect("a string takes every text");
    }
    let (ufrag, pwd) = (ice.ufrag(), ice.pwd());
    format!(
        "v=0\r\no=- 1 1 IN IP4 0.0.0.0\r\ns=-\r\nt=0 0\r\na=group:BUNDLE 0\r\n\
         m=application 9 UDP/DTLS/SCTP webrtc-datachannel\r\nc=IN IP4 0.0.0.0\r\na=mid:0\r\n\
         a=ice-ufrag:{ufrag}\r\na=ice-pwd:{pwd}\r\na=ice-options:trickle\r\n\
         a=fingerprint:sha-256 {fingerprint}\r\na=setup:{setup}\r\na=sctp-port:5000\r\n\
         a=max-message-size:{MESSAGE_BYTES_MAX}\r\n"
    )
}

pub(super) fn host(addr: SocketAddr) -> RTCIceCandidateInit {
    let (ip, port) = (addr.ip(), addr.port());
    RTCIceCandidateInit {
        candidate: format!("candidate:1 1 udp {HOST_PRIORITY} {ip} {port} typ host"),
        ..RTCIceCandidateInit::default()
    }
}

/// The one channel's stream; agreed on, so that nothing need be said to open it.
const CHANNEL: u16 = 0;

/// Shown by browsers, sent by nobody.
const CHANNEL_LABEL: &str = "peerloom/2";

/// RFC 8445 §5.1.2.1: a host candidate of component 1.
const HOST_PRIORITY: u32 = (126 << 24) | (65_535 << 8) | 255;

/// Every candidate is asked this often until one is chosen; the library's own 200 ms are felt.
const CHECK_EVERY: Duration = Duration::from_millis(20);

/// Checks of one candidate: as many as fit into an attempt. The library's own seven would give up a
/// candidate after 140 ms.
const CHECKS_MAX: u16 = 500;

/// A living link asks this often whether the peer still wants it (RFC 7675); keeps NAT bindings too.
const CONSENT_EVERY: Duration = Duration::from_secs(2);

/// Without an answer for this long the path is in doubt …
const DISCONNECTED_AFTER: Duration = Duration::from_secs(5);

/// … and after this on top it is dead.
const FAILED_AFTER: Duration = Duration::from_secs(3);
