"""Direct links from PROTOCOL.md §9: signals, the bind, frames on a byte stream; over WebRTC by aiortc, over QUIC
by aioquic. Everything stays on loopback."""

import asyncio
import hashlib
import os
import ssl

import aioice.ice
from aioquic.asyncio import QuicConnectionProtocol, connect as connect_quic
from aioquic.quic.configuration import QuicConfiguration
from aiortc import RTCConfiguration, RTCPeerConnection, RTCSessionDescription
from cryptography.hazmat.primitives.serialization import Encoding

from peerloom_bytes import BoxKey, Refused, check_head, decode, digest, encode, fields, now_ms, require, signed, verify
from peerloom_client import PING, PONG, PUT, SETTLE, SIGNAL, STORED, Link, make_receipt, read_receipt, receive, seal_dm

# aioice leaves loopback out by itself.
aioice.ice.get_host_addresses = lambda use_ipv4, use_ipv6: ["127.0.0.1"]

OFFER, ANSWER, DECLINE = 0, 1, 2
DIALLER, ACCEPTOR = 0, 1
BIND, ENVELOPE, RECEIPT = 32, 33, 34
NO_NAT = [0, 0, 0, 0]
MESSAGE_BYTES_MAX = 16384


class DirectLink(Link):
    """A coordinator link whose member makes direct links: signals are kept, and offers not declined."""

    def __init__(self, *arguments):
        self.signals, self.letters = [], []
        super().__init__(*arguments)

    def _signal(self, opened, claim):
        self.send(SETTLE, [claim])
        self.signals.append((opened.sender, decode(opened.body[1])))

    def signal(self, to, content):
        sealed = seal_dm(self.member, self.log, to, self.key_of(to), SIGNAL, encode(content), placed=False,
                         life_ms=60_000)
        self.send(PUT, sealed.wire)

    def answer_to(self, to, offer):
        """Offers until it is answered. An offer of the other side's at the same time is declined: of two the one of
        the lower key would stand."""
        for _ in range(5):
            self.signal(to, offer)
            try:
                while True:
                    answer = self.signalled(ANSWER, timeout=3)[1]
                    if answer[2] == offer[1]:
                        return answer
            except Refused:
                for sender, theirs in [one for one in self.signals if one[1][0] == OFFER]:
                    self.signal(sender, {0: DECLINE, 2: theirs[1]})
                self.signals.clear()
        raise Refused("stale", "no answer to the offer")

    def signalled(self, kind, timeout=10):
        """The next signal of this kind: (sender, content). Mail for a person meanwhile is kept."""
        while True:
            for at, (sender, content) in enumerate(self.signals):
                if content[0] == kind:
                    del self.signals[at]
                    return sender, content
            try:
                self.letters.append(self.mail(timeout=0.2))
            except TimeoutError:
                timeout -= 0.2
            require(timeout > 0, "stale", f"no signal of kind {kind}")


# What stands in SDP, §9 ------------------------------------------------------------------------------


def credentials(conn, role):
    """What a side that named none has."""
    return (digest("ice-ufrag", conn, bytes([role]))[:8].hex(), digest("ice-pwd", conn, bytes([role]))[:16].hex())


def remote_description(kind, setup, webrtc, candidates, conn, role):
    """The other side's half, composed from what its signal named."""
    fingerprint, *chosen = webrtc
    ufrag, pwd = chosen or credentials(conn, role)
    lines = ["v=0", "o=- 1 1 IN IP4 0.0.0.0", "s=-", "t=0 0", "a=group:BUNDLE 0",
             "m=application 9 UDP/DTLS/SCTP webrtc-datachannel", "c=IN IP4 0.0.0.0", "a=mid:0",
             f"a=ice-ufrag:{ufrag}", f"a=ice-pwd:{pwd}",
             "a=fingerprint:sha-256 " + ":".join(f"{byte:02X}" for byte in fingerprint),
             f"a=setup:{setup}", "a=sctp-port:5000", f"a=max-message-size:{MESSAGE_BYTES_MAX}"]
    for _, address in candidates:
        host, port = address.rsplit(":", 1)
        lines.append(f"a=candidate:1 1 udp 2130706431 {host.strip('[]')} {port} typ host")
    return RTCSessionDescription("\r\n".join([*lines, "a=end-of-candidates", ""]), kind)


def own_half(description):
    """(WebRTC of a signal, candidates) from what aiortc describes itself as."""
    found, candidates = {}, []
    for line in description.sdp.splitlines():
        name, _, value = line.partition(":")
        if name == "a=candidate":
            words = value.split()
            candidates.append([0, f"{words[4]}:{words[5]}"])
        elif name == "a=fingerprint" and value.startswith("sha-256 "):
            found["fingerprint"] = bytes.fromhex(value.split()[1].replace(":", ""))
        elif name in ("a=ice-ufrag", "a=ice-pwd"):
            found[name] = value
    return [found["fingerprint"], found["a=ice-ufrag"], found["a=ice-pwd"]], candidates


# The link --------------------------------------------------------------------------------------------


class Channel:
    """The data channel of one attempt as a stream of frames."""

    def __init__(self):
        self.peer = RTCPeerConnection(RTCConfiguration(iceServers=[]))
        self.channel = self.peer.createDataChannel("peerloom/2", negotiated=True, id=0)
        self.opened, self.came, self.rest, self.last = asyncio.Event(), asyncio.Queue(), b"", None
        self.channel.on("open", self.opened.set)
        self.channel.on("message", self._message)

    def _message(self, message):
        if isinstance(message, str):
            self.last = int(message)
            return self.came.put_nowait(None)
        self.rest += message
        while len(self.rest) >= 4 and len(self.rest) - 4 >= int.from_bytes(self.rest[:4], "big"):
            length = int.from_bytes(self.rest[:4], "big")
            self.came.put_nowait(self.rest[4 : 4 + length])
            self.rest = self.rest[4 + length :]

    def send(self, kind, *items):
        frame = encode([kind, *items])
        stream = len(frame).to_bytes(4, "big") + frame
        for at in range(0, len(stream), MESSAGE_BYTES_MAX):
            self.channel.send(stream[at : at + MESSAGE_BYTES_MAX])

    async def frame(self, kind, timeout=10):
        """The next frame, which is of this kind; its items. Pings are answered."""
        while True:
            frame = await asyncio.wait_for(self.came.get(), timeout)
            require(frame is not None, "stale", f"closed with {self.last}")
            found, *items = decode(frame)
            if found != PING:
                require(found == kind, "type", f"a frame of kind {found}")
                return items
            self.send(PONG, *items)

    async def idle(self, seconds):
        """Answers pings for a while, and expects nothing else."""
        try:
            raise AssertionError(f"said unasked: {await self.frame(PONG, seconds)}")
        except asyncio.TimeoutError:
            return

    async def closed(self, timeout=10):
        while await asyncio.wait_for(self.came.get(), timeout) is not None:
            continue
        return self.last

    async def dial(self, link, to):
        """An offer of WebRTC alone, with credentials of this stack's own choice."""
        await self.peer.setLocalDescription(await self.peer.createOffer())
        (webrtc, candidates), nonce = own_half(self.peer.localDescription), os.urandom(16)
        offer = {0: OFFER, 1: nonce, 5: candidates, 8: NO_NAT, 9: False, 10: webrtc}
        answer = await asyncio.to_thread(link.answer_to, to, offer)
        conn = digest("conn-webrtc", nonce, answer[1])[:16]
        described = remote_description("answer", "passive", answer[10], answer[5], conn, ACCEPTOR)
        await self.peer.setRemoteDescription(described)
        await asyncio.wait_for(self.opened.wait(), 10)
        return await self.bind(link, to, conn, DIALLER, webrtc[0], answer[10][0])

    async def accept(self, link):
        """Answers the next offer that names WebRTC."""
        sender, offer = await asyncio.to_thread(link.signalled, OFFER)
        nonce = os.urandom(16)
        conn = digest("conn-webrtc", offer[1], nonce)[:16]
        described = remote_description("offer", "active", offer[10], offer[5], conn, DIALLER)
        await self.peer.setRemoteDescription(described)
        await self.peer.setLocalDescription(await self.peer.createAnswer())
        webrtc, candidates = own_half(self.peer.localDescription)
        answer = {0: ANSWER, 1: nonce, 2: offer[1], 5: candidates, 8: NO_NAT, 9: False, 10: webrtc}
        await asyncio.to_thread(link.signal, sender, answer)
        await asyncio.wait_for(self.opened.wait(), 10)
        return await self.bind(link, sender, conn, ACCEPTOR, webrtc[0], offer[10][0])

    async def bind(self, link, to, conn, role, own_cert, signalled):
        """Both binds; nothing else is said before."""
        remote = self.peer.sctp.transport._ssl.get_peer_certificate(as_cryptography=True)
        observed = hashlib.sha256(remote.public_bytes(Encoding.DER)).digest()
        member, log = link.member, link.log
        stmt, sig = signed(member.key, "bind", {
            0: log.mesh, 1: conn, 2: member.public, 3: to, 4: role, 5: "dtls", 6: own_cert, 7: observed, 8: b"",
            9: BoxKey().public, 10: now_ms() + 3_600_000, 11: log.head})
        self.send(BIND, stmt, sig, b"")
        stmt, sig, attestation = await self.frame(BIND)
        b = fields(decode(stmt), {0: 32, 1: 16, 2: 32, 3: 32, 4: int, 5: str, 6: 32, 7: 32, 8: bytes, 9: 32, 10: int,
                                  11: list})
        require((b[0], b[1], b[2], b[3], b[4]) == (log.mesh, conn, to, member.public, 1 - role), "mesh")
        require((b[5], b[6], b[7], b[8]) == ("dtls", observed, own_cert, b""), "signature", "another channel")
        require(observed == signalled and attestation == b"", "signature", "another certificate than signalled")
        verify(to, sig, "bind", stmt)
        check_head(b[11])
        log.judge({4: to, 3: 0}, now_ms())
        self.link, self.to = link, to
        return self

    async def put(self, text):
        """A sealed message, until its receipt has come on this link."""
        link = self.link
        key = await asyncio.to_thread(link.key_of, self.to)
        sealed = seal_dm(link.member, link.log, self.to, key, "text/plain", text)
        self.send(ENVELOPE, sealed.wire)
        by, rows = read_receipt(link.log.mesh, link.member.public, *await self.frame(RECEIPT))
        require(by == self.to and [sealed.env_hash, sealed.id, STORED] in rows, "signature", "a receipt for another")
        link.member.delivered(self.to, sealed.place[1])

    async def mail(self):
        """The next message on this link that is no signal, opened and receipted."""
        while True:
            (wire,) = await self.frame(ENVELOPE)
            link = self.link
            boxes = {kid: box.secret for kid, box in link.member.boxes.items()}
            opened = receive(wire, link.log, link.member.public, boxes, now_ms())
            require(opened.sender == self.to, "not-for-me", "mail of somebody else")
            if opened.body[0] == SIGNAL:
                continue
            self.send(RECEIPT, *make_receipt(link.member, link.log, self.to, [[opened.env_hash, opened.id, STORED]]))
            return opened

    async def close(self, code=0):
        self.channel.send(str(code))
        await asyncio.sleep(0.2)  # aiortc drops what is not yet sent when it closes
        await self.peer.close()


# QUIC, as far as the handshake ------------------------------------------------------------------------


def quic_certificate():
    """(certificate, key, hash) of an ed25519 key of one's own."""
    import datetime

    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    key, now = Ed25519PrivateKey.generate(), datetime.datetime.now(datetime.timezone.utc)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "python")])
    made = (x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
            .serial_number(1).not_valid_before(now - datetime.timedelta(days=1))
            .not_valid_after(now + datetime.timedelta(days=1)).sign(key, None))
    return made, key, hashlib.sha256(made.public_bytes(Encoding.DER)).digest()


async def quic_attempt(link, to, announced, shown):
    """Offers QUIC under the certificate `announced` and dials with `shown`: what became of the connection,
    None while it lives."""
    nonce = os.urandom(16)
    offer = {0: OFFER, 1: nonce, 3: "quic", 4: announced[2], 5: [[0, "127.0.0.1:9"]], 8: NO_NAT, 9: False}
    answer = await asyncio.to_thread(link.answer_to, to, offer)
    conn = digest("conn", nonce, answer[1])[:16]
    configuration = QuicConfiguration(alpn_protocols=["peerloom/2"], verify_mode=ssl.CERT_NONE)
    configuration.certificate, configuration.private_key = shown[0], shown[1]
    port = next(int(address.rsplit(":", 1)[1]) for _, address in answer[5] if address.startswith("127.0.0.1:"))
    try:
        async with connect_quic("127.0.0.1", port, configuration=configuration,
                                create_protocol=QuicConnectionProtocol) as connection:
            server = connection._quic.tls._peer_certificate
            require(hashlib.sha256(server.public_bytes(Encoding.DER)).digest() == answer[4], "signature",
                    "the node shows another certificate than it signalled")
            reader, writer = await connection.create_stream()
            writer.write(conn)
            try:
                # The node's bind comes first, if this is the peer it expects.
                length = int.from_bytes(await asyncio.wait_for(reader.readexactly(4), 5), "big")
                return decode(await asyncio.wait_for(reader.readexactly(length), 5))[0]
            except asyncio.IncompleteReadError:
                return connection._quic._close_event
    except ConnectionError as error:
        return error
