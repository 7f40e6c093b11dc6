"""Statements, transcripts and keys: §1 and §2 of PROTOCOL.md. Reads and writes the one deterministic
spelling of CBOR; refuses every other."""

import base64
import hashlib
import os
import time

from nacl import bindings, exceptions

DAY_MS = 24 * 60 * 60 * 1000
SKEW_MS = 5 * 60 * 1000


class Refused(Exception):
    """Foreign bytes were refused; `reason` is a reason name of §1."""

    def __init__(self, reason, detail=""):
        super().__init__(f"{reason} {detail}".strip())
        self.reason = reason


def require(condition, reason, detail=""):
    if not condition:
        raise Refused(reason, detail)


def now_ms():
    return time.time_ns() // 1_000_000


# CBOR, §1 ---------------------------------------------------------------------------------------


def _head(major, n):
    require(0 <= n < 1 << 63, "type", "integer out of range")
    for limit, code, width in ((24, None, 0), (1 << 8, 24, 1), (1 << 16, 25, 2), (1 << 32, 26, 4), (1 << 63, 27, 8)):
        if n < limit:
            return bytes([major << 5 | (n if code is None else code)]) + (n.to_bytes(width, "big") if width else b"")
    raise AssertionError("n was checked above")


def encode(value):
    """The one deterministic encoding of `value`."""
    if value is True or value is False:
        return b"\xf5" if value else b"\xf4"
    if isinstance(value, int):
        return _head(0, value)
    if isinstance(value, (bytes, bytearray)):
        return _head(2, len(value)) + bytes(value)
    if isinstance(value, str):
        raw = value.encode()
        return _head(3, len(raw)) + raw
    if isinstance(value, (list, tuple)):
        return _head(4, len(value)) + b"".join(map(encode, value))
    if isinstance(value, dict):
        return _head(5, len(value)) + b"".join(encode(k) + encode(value[k]) for k in sorted(value))
    raise TypeError(f"{type(value)} has no place in a statement")


def decode(raw):
    """Reads one value and refuses every other spelling of it."""
    value, end = _read(raw, 0, 0)
    require(end == len(raw), "non-canonical", "trailing bytes")
    require(encode(value) == bytes(raw), "non-canonical")
    return value


def _read(raw, at, depth):
    require(depth <= 8, "depth")
    require(at < len(raw), "non-canonical", "cut short")
    major, info = raw[at] >> 5, raw[at] & 31
    at += 1
    if major == 7:
        require(info in (20, 21), "type", "float, null or undefined")
        return info == 21, at
    require(major not in (1, 6), "type", "negative number or tag")
    require(info < 28, "non-canonical", "indefinite length")
    width = 0 if info < 24 else 1 << (info - 24)
    require(at + width <= len(raw), "non-canonical", "cut short")
    n = int.from_bytes(raw[at : at + width], "big") if width else info
    at += width
    require(n < 1 << 63, "type", "integer out of range")
    if major == 0:
        return n, at
    require(n <= len(raw) - at, "non-canonical", "cut short")
    if major in (2, 3):
        part, at = bytes(raw[at : at + n]), at + n
        return (part if major == 2 else _text(part)), at
    if major == 4:
        items = []
        for _ in range(n):
            item, at = _read(raw, at, depth + 1)
            items.append(item)
        return items, at
    pairs = {}
    for _ in range(n):
        key, at = _read(raw, at, depth + 1)
        require(type(key) is int, "type", "map key")
        require(not pairs or key > max(pairs), "non-canonical", "keys out of order or twice")
        pairs[key], at = _read(raw, at, depth + 1)
    return pairs, at


def _text(part):
    try:
        text = part.decode()
    except UnicodeDecodeError:
        raise Refused("type", "not UTF-8") from None
    require(not any(ord(c) < 0x20 or 0x7F <= ord(c) <= 0x9F for c in text), "type", "control character")
    return text


def fields(statement, must, may=None):
    """Checks a map's fields: `must` and `may` give for each key a type, or a length of bytes."""
    require(isinstance(statement, dict), "type")
    may = may or {}
    for key, value in statement.items():
        require(key in must or key in may, "unknown-field", str(key))
        kind = must.get(key, may.get(key))
        if isinstance(kind, int):
            require(isinstance(value, bytes), "type", str(key))
            require(len(value) == kind, "length", str(key))
        else:
            require(type(value) is kind, "type", str(key))
    for key in must:
        require(key in statement, "missing-field", str(key))
    return statement


def b64(raw):
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def unb64(text):
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


# Transcripts and keys, §1 and §2 -------------------------------------------------------------------


def lp(x):
    return len(x).to_bytes(4, "big") + x


def transcript(label, *parts):
    parts = (p.to_bytes(4, "big") if isinstance(p, int) else p for p in parts)
    return lp(b"peerloom2/" + label.encode()) + b"".join(map(lp, parts))


def digest(label, *parts):
    return hashlib.sha256(transcript("hash/" + label, *parts)).digest()


def kid_of(x25519):
    return digest("kid", x25519)[:16]


class SigningKey:
    """An ed25519 key pair from its 32-byte seed."""

    def __init__(self, seed=None):
        self.public, self._secret = bindings.crypto_sign_seed_keypair(seed or os.urandom(32))

    def sign(self, label, *parts):
        return bindings.crypto_sign(transcript("sig/" + label, *parts), self._secret)[:64]


def verify(public, signature, label, *parts):
    """Raises `signature` unless `public` signed exactly this."""
    require(len(public) == 32 and len(signature) == 64, "length")
    try:
        bindings.crypto_sign_open(signature + transcript("sig/" + label, *parts), public)
    except (exceptions.BadSignatureError, exceptions.RuntimeError, exceptions.ValueError):
        raise Refused("signature", label) from None


_P = (1 << 255) - 19
_D = -121665 * pow(121666, -1, _P) % _P
_SMALL_ORDER_Y = {0, 1, _P - 1} | {
    int.from_bytes(bytes.fromhex(h), "little")
    for h in (
        "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
        "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
    )
}


def check_ed25519(public):
    """A key that a log entry names must be a point, and not of small order."""
    y = (int.from_bytes(public, "little") & ((1 << 255) - 1)) % _P
    square = (y * y - 1) * pow(_D * y * y + 1, -1, _P) % _P
    require(pow(square, (_P - 1) // 2, _P) in (0, 1), "type", "not an ed25519 point")
    require(y not in _SMALL_ORDER_Y, "type", "an ed25519 key of small order")


_LOW_ORDER = {0, 1, _P - 1, _P, _P + 1} | {
    int.from_bytes(bytes.fromhex(h), "little")
    for h in (
        "e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800",
        "5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157",
    )
}


def check_x25519(public, reason):
    require((int.from_bytes(public, "little") & ((1 << 255) - 1)) not in _LOW_ORDER, reason, "low order")


class BoxKey:
    """An x25519 key pair."""

    def __init__(self, secret=None):
        self.secret = secret or os.urandom(32)
        self.public = bindings.crypto_scalarmult_base(self.secret)
        self.kid = kid_of(self.public)


def signed(key, label, statement):
    stmt = encode(statement)
    return stmt, key.sign(label, stmt)


def read_prekey(mesh, stmt, sig, now):
    """The member and its x25519 key, from a prekey that verifies and is in its window."""
    p = fields(decode(stmt), {0: 32, 1: 32, 2: 32, 3: int, 4: int, 5: int})
    require(p[0] == mesh, "mesh")
    require(p[3] == 1, "type", "prekey kind")
    require(0 < p[5] - p[4] <= 7 * DAY_MS + SKEW_MS, "ttl")
    verify(p[1], sig, "prekey", stmt)
    check_x25519(p[2], "type")
    require(p[4] <= now + SKEW_MS and now <= p[5] + SKEW_MS, "stale", "prekey")
    return p[1], p[2]


def check_head(head):
    require(isinstance(head, list) and len(head) == 2, "type")
    require(type(head[0]) is int and isinstance(head[1], bytes), "type")
    require(len(head[1]) == 32, "length")
