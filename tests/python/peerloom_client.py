"""A Peerloom client written from PROTOCOL.md alone. Relay only: it declines offers of direct links.

Read in this order: peerloom_bytes.py (statements, transcripts, keys), peerloom_log.py (who belongs),
then here envelopes, HTTP and the coordinator link. Section numbers are those of PROTOCOL.md."""

import hashlib
import hmac
import json
import os
import secrets
import time
import urllib.error
import urllib.request

from nacl import bindings, exceptions
from nacl.secret import SecretBox
from websockets.sync.client import connect as connect_websocket

from peerloom_bytes import (DAY_MS, SKEW_MS, BoxKey, Refused, SigningKey, b64, check_head, check_x25519, decode, digest,
                            encode, fields, kid_of, lp, now_ms, read_prekey, require, signed, transcript, unb64, verify)
from peerloom_log import MeshLog, check_cap, make_claim

FRAME_BYTES_MAX = (1 << 20) + (8 << 10)
INNER_BYTES_MAX = 1 << 20
HEADER_BYTES_MAX = 4096
SIGNAL = "application/vnd.peerloom.signal"


class Member:
    """What one member holds: its signing key, its x25519 secrets by key id, and its counters."""

    def __init__(self, handle, seed=None):
        self.handle, self.key = handle, SigningKey(seed)
        self.long_term, self.prekey = BoxKey(), BoxKey()
        self.boxes = {key.kid: key for key in (self.long_term, self.prekey)}
        self.fp_secret, self.generation, self.places = os.urandom(32), os.urandom(8), {}
        self.recorded = {}  # (from, id) -> (fp, env_hash), kept until exp + 24 h by a client that stays
        self.signed_prekey = None

    @property
    def public(self):
        return self.key.public

    def place(self, to):
        """The next place in the conversation with `to`: (generation, seq, lowest)."""
        open_seqs = self.places.setdefault(to, {"next": 0, "open": set()})
        seq = open_seqs["next"]
        open_seqs["next"] += 1
        open_seqs["open"].add(seq)
        return self.generation, seq, min(open_seqs["open"])

    def delivered(self, to, seq):
        self.places[to]["open"].discard(seq)

    def sign_prekey(self, mesh):
        now = now_ms()
        self.signed_prekey = [*signed(self.key, "prekey", {
            0: mesh, 1: self.public, 2: self.prekey.public, 3: 1, 4: now - 60_000, 5: now + 6 * DAY_MS})]
        return self.signed_prekey


# The envelope, §3 to §5 -----------------------------------------------------------------------------


def padme(length):
    if length < 64:
        return 64
    e = length.bit_length() - 1
    s = e.bit_length()
    unit = 1 << (e - s)
    return (length + unit - 1) // unit * unit


def inner_of(hdr, body):
    inner = digest("hdr", hdr) + lp(body)
    return inner + bytes(padme(36 + len(body)) - len(inner))


def body_of_inner(hdr, inner):
    require(inner[:32] == digest("hdr", hdr), "header-binding")
    length = int.from_bytes(inner[32:36], "big")
    require(36 + length <= len(inner) and len(inner) == padme(36 + length), "padding")
    require(not any(inner[36 + length :]), "padding")
    return inner[36 : 36 + length]


def nonce_of(header, body, rng32):
    keyless = {k: v for k, v in header.items() if k != 14}
    made = transcript("nonce", encode(keyless), hashlib.sha256(body).digest())
    return hmac.new(rng32, made, hashlib.sha256).digest()[:24]


def env_hash_of(hdr, ct):
    return digest("envelope", hdr, hashlib.sha256(ct).digest())


def seal_box(header, body, sender, recipient_x25519, key, rng32=None):
    """`header` without its nonce, suite 1: the wire bytes and env_hash. `sender` is the BoxKey of spk."""
    header = {**header, 14: nonce_of(header, body, rng32 or os.urandom(32))}
    hdr = encode(header)
    ct = bindings.crypto_box(inner_of(hdr, body), header[14], recipient_x25519, sender.secret)
    sig = key.sign("envelope", hdr, hashlib.sha256(ct).digest())
    return encode([2, hdr, ct, sig]), env_hash_of(hdr, ct)


class Sealed:
    """A dm this client sealed: its bytes, what they are called, and what a further sealing needs."""

    def __init__(self, wire, env_hash, message_id, place, to):
        self.wire, self.env_hash, self.id, self.place, self.to = wire, env_hash, message_id, place, to


def seal_dm(member, log, to, to_x25519, content_type, content, *, again=None, placed=True, life_ms=DAY_MS):
    """A dm of `member` to `to`. `again` is an earlier sealing of the same message, to another key."""
    message_id, now = again.id if again else os.urandom(16), now_ms()
    core = {0: content_type, 1: content, 2: {}}
    request = transcript("req", log.mesh, member.public, b"\x00", to, message_id, encode(core))
    place = again.place if again else member.place(to) if placed else ()
    body = encode({**core, 2: dict(enumerate(place, 1)), 3: member.signed_prekey})
    once = BoxKey()
    header = {0: 2, 1: 1, 2: log.mesh, 3: 0, 4: member.public, 6: to, 7: message_id, 8: now, 9: now + life_ms,
              10: hmac.new(member.fp_secret, request, hashlib.sha256).digest(), 11: log.head,
              12: once.public, 13: kid_of(to_x25519), 15: 1}
    wire, env_hash = seal_box(header, body, once, to_x25519, member.key)
    return Sealed(wire, env_hash, message_id, place, to)


class Opened:
    """A verified and opened envelope."""

    def __init__(self, header, hdr, ct, body):
        self.header, self.body, self.env_hash = header, body, env_hash_of(hdr, ct)
        self.sender, self.id, self.fp = header[4], header[7], header[10]


_HEADER_MUST = {0: int, 1: int, 2: 32, 3: int, 4: 32, 7: 16, 8: int, 9: int, 10: 32, 11: list, 13: 16, 14: 24, 15: int}


def read_envelope(wire, mesh):
    """Steps 1 and 2 of §4: (header, hdr, ct, sig)."""
    require(len(wire) <= FRAME_BYTES_MAX, "size")
    frame = decode(wire)
    require(isinstance(frame, list) and len(frame) == 4, "type")
    version, hdr, ct, sig = frame
    require(version == 2, "version")
    require(all(isinstance(part, bytes) for part in (hdr, ct, sig)), "type")
    require(len(hdr) <= HEADER_BYTES_MAX and len(ct) <= INNER_BYTES_MAX + 16, "size")
    require(len(sig) == 64, "length")
    header = decode(hdr)
    require(isinstance(header, dict), "type")
    require(header.get(0) == 2, "version")
    require(header.get(1) in (1, 2), "suite")
    require(header.get(3) in range(6), "channel")
    suite, channel = header[1], header[3]
    must = {**_HEADER_MUST, 6: 16 if channel in (1, 2) else 32}
    if suite == 1 or channel == 1:
        must[12] = 32
    if channel == 1:
        must.update({18: 32, 19: 32})
    must.update({16: list} if channel == 5 else {17: list} if channel == 3 else {})
    fields(header, must, {5: 32})
    require((suite == 2) == (channel in (1, 2)), "suite")
    require(header[15] <= 2, "type", "priority")
    check_head(header[11])
    require(header[2] == mesh, "mesh")
    return header, hdr, ct, sig


def receive(wire, log, me, boxes, now, recorded=None):
    """§4 from step 1 to 9: an Opened, or None when (from, id) was recorded already with this fp.

    `log` judges the sender (`judge(header, now)`), `boxes` maps key ids to x25519 secrets."""
    header, hdr, ct, sig = read_envelope(wire, log.mesh)
    verify(header[4], sig, "envelope", hdr, hashlib.sha256(ct).digest())
    known = (recorded or {}).get((header[4], header[7]))
    if known:
        require(known == header[10], "conflict")
        return None
    log.judge(header, now)
    require(header[3] in (1, 2) or header[6] == me, "not-for-me")
    require(0 <= header[9] - header[8] <= 7 * DAY_MS, "expiry")
    require(header[8] <= now + SKEW_MS and now <= header[9] + SKEW_MS, "stale")
    secret = boxes.get(header[13])
    require(secret, "unknown-kid")
    if header[1] == 1:
        check_x25519(header[12], "decrypt")
    try:
        if header[1] == 1:
            inner = bindings.crypto_box_open(ct, header[14], header[12], secret)
        else:
            inner = SecretBox(secret).decrypt(ct, header[14])
    except (exceptions.CryptoError, exceptions.ValueError):
        raise Refused("decrypt") from None
    return Opened(header, hdr, ct, read_body(body_of_inner(hdr, inner)))


def read_body(raw):
    body = fields(decode(raw), {0: str, 1: bytes, 2: dict}, {3: list})
    require(1 <= len(body[0].encode()) <= 127, "size")
    annex = fields(body[2], {}, {0: 16, 1: 8, 2: int, 3: int})
    require(len({1, 2, 3} & set(annex)) in (0, 3), "missing-field")
    return body


STORED, SURFACED, REJECTED, RETRY = range(4)
CODES = dict(enumerate(
    "size non-canonical type depth length missing-field unknown-field revoked version suite channel mesh signature "
    "not-a-member possession ttl attestation-window attestation-mismatch capability not-for-me expiry stale "
    "session-ended decrypt header-binding padding conflict".split(), 16)) | dict(enumerate(
        "unknown-kid epoch-old recipient-full unknown-attestation held".split(), 1))
CODE_OF = {name: number for number, name in CODES.items()}


def make_receipt(member, log, to, rows):
    """`rows`: [[env_hash, id, status, code?], …]."""
    return signed(member.key, "receipt", {
        0: log.mesh, 1: member.public, 2: to, 3: rows, 4: now_ms(), 5: log.head})


def row_of(refused):
    """The end of a receipt row for what could not be taken: [status, code]."""
    return [RETRY if refused.reason == "unknown-kid" else REJECTED, CODE_OF[refused.reason]]


def read_receipt(mesh, me, stmt, sig):
    """(by, rows) of a receipt that verifies and is for `me`."""
    r = fields(decode(stmt), {0: 32, 1: 32, 2: 32, 3: list, 4: int, 5: list})
    require(r[0] == mesh, "mesh")
    verify(r[1], sig, "receipt", stmt)
    require(r[2] == me, "not-for-me")
    require(1 <= len(r[3]) <= 256, "length")
    check_head(r[5])
    return r[1], r[3]


# HTTP, §6 --------------------------------------------------------------------------------------------


class HttpError(Exception):
    def __init__(self, status, answer):
        super().__init__(f"{status} {answer}")
        self.status, self.answer = status, answer


def http(origin, method, path, body=None, bearer=None):
    request = urllib.request.Request(origin + path, method=method)
    if body is not None:
        request.data = json.dumps(body).encode()
        request.add_header("Content-Type", "application/json")
    if bearer:
        request.add_header("Authorization", "Bearer " + bearer)
    try:
        with urllib.request.urlopen(request, timeout=10) as response:
            return response.status, json.load(response)
    except urllib.error.HTTPError as error:
        raise HttpError(error.code, json.loads(error.read() or b"{}")) from None


def fetch_log(origin, bearer, log):
    size = len(log.hashes) + 1
    while len(log.hashes) < size:
        page = http(origin, "GET", f"/v2/log?from={len(log.hashes)}", bearer=bearer)[1]
        log.take(page["from"], [unb64(entry) for entry in page["entries"]])
        size = page["size"]


def join(origin, code, handle):
    """§8, the joiner's side: the new member and its log."""
    bearer, log = code.lookup.hex(), MeshLog()
    blob = unb64(http(origin, "POST", "/v2/invites/lookup", {"lookup": bearer})[1]["blob"])
    cap, cap_sig = code.open(blob)
    fetch_log(origin, bearer, log)
    granted = decode(cap)
    require(granted[0] == log.mesh and granted[9] == origin, "mesh")
    check_cap(log, granted, now_ms())
    member = Member(handle)
    claim, claim_sig, proof = make_claim(member, code, cap)
    body = {0: member.public, 1: 1, 2: handle, 3: member.long_term.public, 4: cap, 5: cap_sig, 6: claim,
            7: claim_sig, 8: proof}
    while member.public not in log.members:
        entry = log.entry(member.key, 1, body)
        try:
            log.append(unb64(http(origin, "POST", "/v2/log", {"entry": b64(entry)}, bearer=bearer)[1]["entry"]))
        except HttpError as error:
            if error.status != 409:
                raise
            fetch_log(origin, bearer, log)
    return member, log


# The coordinator link, §6 ---------------------------------------------------------------------------

(PUT, CLAIM, RECEIPT, SETTLE, LOG_FROM, APPEND, PREKEY, PREKEYS_OF, INVITE, INVITE_END, PING, PONG,
 GOODBYE) = range(2, 15)
(CHALLENGE, WELCOME, ACCEPTED, REFUSED, MAIL, RECEIPT_IN, ENDED, ENTRIES, APPENDED, MOVED, FAILED, DONE, PREKEYS,
 PRESENCE, GOING, ERROR) = range(64, 80)


class Link:
    """One socket of one member. Single-threaded: what arrives while another frame is awaited waits its turn."""

    def __init__(self, origin, log, member, instance=None, counter=1):
        self.log, self.member, self.origin, self.waiting, self.receipts = log, member, origin, [], {}
        self.taken = 0  # mail that came on this socket, signals included
        self.instance = instance or os.urandom(16)
        url = origin.replace("http", "ws", 1) + "/v2/link"
        self.socket = connect_websocket(url, compression=None, max_size=FRAME_BYTES_MAX + 4096, ping_interval=None)
        challenge = self.expect(CHALLENGE)[0]
        stmt, sig, coordinator = self._hello(challenge, self.instance, counter)
        self.send(1, stmt, sig, b"")
        self._welcome(coordinator, stmt, sig, *self.expect(WELCOME))

    def _hello(self, challenge, instance, counter):
        c = fields(decode(challenge), {0: int, 1: 32, 2: 32, 3: int, 4: list, 5: list, 6: str})
        require(2 in c[4], "version")
        require([c[1], self.origin] in self.log.coordinators, "not-a-member", "not this mesh's coordinator")
        require(c[6] == self.origin, "mesh", "another origin")
        require(abs(c[3] - now_ms()) <= SKEW_MS, "stale", "clocks differ")
        stmt, sig = signed(self.member.key, "hello", {
            0: 2, 1: self.log.mesh, 2: 0, 3: self.member.public, 5: os.urandom(32), 6: digest("challenge", challenge),
            7: c[1], 8: self.origin, 9: now_ms(), 10: [], 11: self.log.head, 12: [instance, counter], 13: "", 14: b""})
        return stmt, sig, c[1]

    def _welcome(self, coordinator, hello, hello_sig, stmt, sig):
        w = fields(decode(stmt), {0: int, 1: 32, 2: int, 3: list, 4: int, 5: int}, {6: list, 7: bool})
        verify(coordinator, sig, "welcome", stmt)
        require(w[1] == digest("hello", hello, hello_sig), "signature", "a welcome for another hello")
        require(abs(w[2] - now_ms()) <= SKEW_MS, "stale", "clocks differ")
        check_head(w[3])
        self.head, self.lease_s, self.frame_bytes_max = w[3], w[4], w[5]

    def send(self, kind, *items):
        self.socket.send(encode([kind, *items]))

    def expect(self, *kinds, where=lambda *items: True, timeout=10):
        """The next frame of one of these kinds (its items; with several kinds, the kind first)."""
        deadline = time.monotonic() + timeout
        while True:
            for at, (kind, *items) in enumerate(self.waiting):
                if kind in kinds and where(*items):
                    del self.waiting[at]
                    return [kind, *items] if len(kinds) > 1 else items
            left = deadline - time.monotonic()
            if left <= 0:
                raise TimeoutError(f"no frame of kind {kinds}; waiting: {[f[0] for f in self.waiting]}")
            frame = decode(self.socket.recv(timeout=left))
            if frame[0] == PING:
                self.send(PONG, frame[1])
            elif frame[0] == ERROR:
                raise Refused(frame[1], frame[2])
            elif frame[0] == ENTRIES and self.log.take(*frame[1:3]) and ENTRIES not in kinds:
                continue
            else:
                self.waiting.append(frame)

    def waiting_of(self, kind):
        return [frame for frame in self.waiting if frame[0] == kind]

    def request(self, kind, *items, answer=DONE):
        """A request with a number of its own, until it is done, sequenced or failed."""
        number = secrets.randbelow(1 << 32)
        self.send(kind, number, *items)
        kind, *got = self.expect(answer, MOVED, FAILED, where=lambda n, *_: n == number)
        if kind != answer:
            raise Refused(got[1] if kind == FAILED else "conflict", str(got[2]))
        return got

    def start(self, messages=64, bytes_max=1 << 22):
        """After the welcome: the log, one's prekey, then mail."""
        self.fetch_log()
        self.send(PREKEY, *self.member.sign_prekey(self.log.mesh))
        self.send(CLAIM, messages, bytes_max)

    def fetch_log(self):
        start = self.log.head[0]
        self.send(LOG_FROM, start)
        while True:
            _, _, size = self.expect(ENTRIES)
            if self.log.head[0] >= size:
                return

    def key_of(self, public):
        """Where to seal to: the current prekey in the directory, else the key of the log entry."""
        self.send(PREKEYS_OF, [public])
        for stmt, sig in self.expect(PREKEYS)[0]:
            owner, x25519 = read_prekey(self.log.mesh, stmt, sig, now_ms())
            if owner == public:
                return x25519
        return self.log.members[public].x25519

    def put(self, sealed):
        """Until the coordinator has it on disk."""
        name = sealed.env_hash
        self.send(PUT, sealed.wire)
        got = self.expect(ACCEPTED, REFUSED, where=lambda first, *_: first == name or name in first)
        if got[0] == REFUSED:
            raise Refused(got[2])

    def mail(self, timeout=10):
        """The next message for a person: verified, opened, recorded and acknowledged. Signals are dealt with,
        and what must be refused is refused."""
        while True:
            claim, queued, wire = self.expect(MAIL, timeout=timeout)
            self.taken += 1
            opened = self._take(claim, wire)
            if opened:
                opened.queued = queued
                return opened

    def _take(self, claim, wire):
        try:
            header, hdr, ct, sig = read_envelope(wire, self.log.mesh)
            verify(header[4], sig, "envelope", hdr, hashlib.sha256(ct).digest())
        except Refused:
            return self.send(SETTLE, [claim])
        name = (env_hash_of(hdr, ct), header[7])
        recorded = {name: fp for name, (fp, _) in self.member.recorded.items()}
        boxes = {kid: box.secret for kid, box in self.member.boxes.items()}
        try:
            require(header[3] == 0, "channel")
            opened = receive(wire, self.log, self.member.public, boxes, now_ms(), recorded)
        except Refused as refused:
            if refused.reason == "not-a-member":
                return self.send(SETTLE, [claim])
            return self.acknowledge(header[4], [*name, *row_of(refused)], claim)
        if opened is not None and opened.body[0] == SIGNAL:
            return self._signal(opened, claim)
        if opened is not None:
            self.member.recorded[(opened.sender, opened.id)] = (opened.fp, opened.env_hash)
        self.acknowledge(header[4], [*name, STORED], claim)
        return opened

    def acknowledge(self, to, row, claim):
        self.send(RECEIPT, *make_receipt(self.member, self.log, to, [row]), [claim])

    def _signal(self, opened, claim):
        """§9: offers are declined and echoes replied to; the rest needs no answer from a relay-only client."""
        self.send(SETTLE, [claim])
        content = decode(opened.body[1])
        answer = {0: {0: 2, 2: content.get(1)}, 3: {0: 4, 1: content.get(1)}}.get(content[0])
        if answer:
            owner, x25519 = read_prekey(self.log.mesh, *opened.body[3], now_ms())
            require(owner == opened.sender, "signature", "prekey of another")
            self.send(PUT, seal_dm(self.member, self.log, owner, x25519, SIGNAL, encode(answer), placed=False,
                                   life_ms=60_000).wire)

    def receipt_for(self, sealed, timeout=10):
        """(status, reason name or None) of the next receipt for `sealed`; settled at the coordinator."""
        while (sealed.env_hash, sealed.to) not in self.receipts:
            claim, stmt, sig = self.expect(RECEIPT_IN, timeout=timeout)
            by, rows = read_receipt(self.log.mesh, self.member.public, stmt, sig)
            for env_hash, _, status, *code in rows:
                self.receipts[(env_hash, by)] = (status, CODES.get(code[0], f"code-{code[0]}") if code else None)
            self.send(SETTLE, [claim])
        status, code = self.receipts.pop((sealed.env_hash, sealed.to))
        if status in (STORED, SURFACED) and sealed.place:
            self.member.delivered(sealed.to, sealed.place[1])
        return status, code

    def goodbye(self):
        """Ends this member's presence at once, and the socket."""
        self.send(GOODBYE)
        self.close()

    def close(self):
        self.socket.close()
