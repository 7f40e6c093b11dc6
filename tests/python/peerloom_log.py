"""The mesh log and invites: §7 and §8 of PROTOCOL.md. What a client needs to know who belongs."""

import os
import secrets

from nacl import exceptions
from nacl.secret import SecretBox

from peerloom_bytes import (DAY_MS, SKEW_MS, BoxKey, Refused, SigningKey, check_ed25519, check_head, check_x25519,
                            decode, digest, encode, fields, now_ms, require, signed, verify)

MEMBER, ADMIN, OWNER = 1, 2, 3
ENTRY_BYTES_MAX = 8 << 10
ENTRIES_MAX, ENTRIES_PER_MEMBER_MAX = 1_000_000, 1_000
NAMED, TAKEN_ALONG = "named", "taken along"


class Standing:
    """One member as the log has it."""

    def __init__(self, role, handle, x25519, at, by, entries):
        self.role, self.handle, self.x25519, self.at, self.by, self.entries = role, handle, x25519, at, by, entries
        self.revoked = None


class MeshLog:
    """A replayed log. `take` adds what a coordinator sent; `append` adds one entry or raises Refused."""

    def __init__(self):
        self.mesh, self.hashes, self.time, self.wires = None, [], 0, []
        self.coordinators, self.owners, self.members, self.handles, self.cap_uses = [], [], {}, {}, {}
        self.recovery, self.key_revocations = None, {}
        self.attestations, self.revoked_elsewhere = {}, set()

    @property
    def head(self):
        return [len(self.hashes), self.hashes[-1]]

    def take(self, start, entries):
        """Adds entries from index `start` on; those already here must be the same."""
        for index, wire in enumerate(entries, start):
            if index < len(self.wires):
                require(self.wires[index] == wire, "log-chain", "another history")
            else:
                self.append(wire)
        return True

    def entry(self, key, kind, body):
        """An entry at the head, on its way to be sequenced."""
        statement = {1: len(self.hashes), 3: max(now_ms(), self.time), 4: key.public, 5: kind, 6: body}
        if self.mesh:
            statement.update({0: self.mesh, 2: self.hashes[-1]})
        stmt, sig = signed(key, "log", statement)
        return encode([stmt, [[key.public, sig]]])

    def append(self, wire, sequenced=True):
        require(len(wire) <= ENTRY_BYTES_MAX, "size")
        frame = decode(wire)
        require(isinstance(frame, list) and len(frame) in (2, 3), "length")
        stmt, signers, *seq = frame
        e, index = decode(stmt), len(self.hashes)
        genesis = isinstance(e, dict) and e.get(5) == 0
        fields(e, {1: int, 3: int, 4: 32, 5: int, 6: dict} | ({} if genesis else {0: 32, 2: 32}))
        body = read_entry_body(e[5], e[6])
        require(genesis or index, "log-kind", "a log begins with its genesis")
        require(genesis or e[0] == self.mesh, "mesh")
        require(not (genesis and index), "log-index")
        require([pk for pk, _ in signers] == [e[4]], "signature", "the author's signature, and no other")
        verify(e[4], signers[0][1], "log", stmt)
        require(e[1] == index < ENTRIES_MAX, "log-index")
        require(genesis or e[2] == self.hashes[-1], "log-chain")
        hash_ = digest("entry", stmt)
        if sequenced and index:
            require(seq, "signature", "not sequenced")
            self._check_seq(index, hash_, seq[0])
        time = max(e[3], self.time)
        self._apply(index, e[4], e[5], body, stmt, time)
        self.hashes.append(hash_)
        self.time = time
        self.wires.append(bytes(wire))

    def _check_seq(self, index, hash_, seq):
        for public, _ in self.coordinators:
            try:
                return verify(public, seq, "sequenced", self.mesh, index.to_bytes(8, "big"), hash_)
            except Refused:
                continue
        raise Refused("signature", "sequenced")

    def role_of(self, public):
        """The role of someone who may act at this index, or 0."""
        if public in self.owners:
            return OWNER
        standing = self.members.get(public)
        return standing.role if standing and not standing.revoked else 0

    def contains(self, head):
        return 0 < head[0] <= len(self.hashes) and self.hashes[head[0] - 1] == head[1]

    def _apply(self, index, author, kind, body, stmt, time):
        if kind == 0:
            require(author in body[0], "log-authority")
            self.owners, self.coordinators, self.recovery = body[0], body[2], body.get(5)
            self.mesh = digest("mesh", stmt)
            return
        if kind == 1 and 4 in body:
            self._self_admission(index, author, body, time)
            return
        actor, standing = self.role_of(author), self.members.get(author)
        require(actor, "log-authority", "author")
        require(actor > MEMBER or standing.entries < ENTRIES_PER_MEMBER_MAX, "log-authority", "too many entries")
        if kind == 1:
            require(body[1] < actor, "log-authority")
            self._admit(index, body, author, None)
        elif kind == 2:
            target = self.members.get(body[0])
            require(target and target.role < actor and body[1] < actor, "log-authority")
            require(not target.revoked, "log-authority")
            target.role = body[1]
        elif kind == 3:
            self._revoke(author, actor, body)
        else:
            require(standing, "log-authority", "an owner has no topics")
        if standing:
            standing.entries += 1

    def _admit(self, index, b, by, cap):
        check_ed25519(b[0])
        known = self.members.get(b[0])
        back = known and known.revoked == TAKEN_ALONG and by in self.owners and not cap
        taken = [*self.owners, *(public for public, _ in self.coordinators), self.recovery]
        require(back or (not known and b[0] not in taken), "log-authority", "a used key")
        require(self.handles.get(b[2], b[0]) == b[0], "handle-taken")
        self.handles[b[2]] = b[0]
        self.members[b[0]] = Standing(b[1], b[2], b.get(3), index, by, known.entries if back else int(bool(cap)))

    def _self_admission(self, index, author, b, time):
        cap, claim = check_invite(self, b[4], b[5], b[6], b[7], b[8])
        same = (b[0] == author == claim[2], b[1] == cap[3] == MEMBER, b[2] == claim[7], b[3] == claim[3])
        require(all(same), "claim-mismatch")
        require(cap[7] == 0, "invite-mode")
        used = digest("invite-cap", b[4])
        check_cap(self, cap, time)
        require(self.cap_uses.get(used, 0) < cap[4], "invite-used")
        self._admit(index, b, cap[2], cap)
        self.cap_uses[used] = self.cap_uses.get(used, 0) + 1

    def _revoke(self, author, actor, b):
        r = fields(decode(b[1][0]), {0: 32, 1: int, 2: 32, 3: int, 4: int, 5: 32, 6: list})
        require(r[1] <= 3, "type")
        check_head(r[6])
        require(r[0] == self.mesh, "mesh")
        verify(r[5], b[1][1], "revoke", b[1][0])
        require(r[5] == author and r[2] == b[0], "log-authority")
        if r[1]:
            self.key_revocations.setdefault(b[0], []).append((author, actor))
            return
        rank = OWNER if b[0] in self.owners else getattr(self.members.get(b[0]), "role", OWNER)
        require(author == b[0] or rank < actor, "log-authority")
        require(self.contains(r[6]), "log-chain", "the revocation's head")
        for public, member in self.members.items():
            if public == b[0]:
                member.revoked = NAMED
            elif member.by == b[0] and member.at >= r[6][0] and not member.revoked:
                member.revoked = TAKEN_ALONG

    def judge(self, header, now):
        """Step 5 of §4: may this sender send this?"""
        sender, session = header[4], None
        if 5 in header:
            session = self.attestations.get(header[5])
            require(session, "unknown-attestation")
            require(session[2] == sender, "attestation-mismatch")
            require(not self._key_revoked(sender, session[1]), "revoked")
        member = self.members.get(session[1] if session else sender)
        require(sender not in self.revoked_elsewhere and not (member and member.revoked), "revoked")
        require(member, "not-a-member")
        if session:
            require(session[5] - SKEW_MS <= now <= session[6], "attestation-window")
            granted = {0: "dm.send", 1: "group.post", 2: "topic.post", 3: "rpc.call", 4: "dm.send", 5: "stream.open"}
            require({"*", granted[header[3]]} & set(session[7]), "capability")

    def _key_revoked(self, key, holder):
        rank = getattr(self.members.get(holder), "role", OWNER)
        return any(by == holder or role > rank for by, role in self.key_revocations.get(key, []))


def read_entry_body(kind, body):
    """What can be refused in an entry's body without looking at the log."""
    require(kind in (0, 1, 2, 3, 4), "log-kind", str(kind))
    if kind == 0:
        b = fields(body, {0: list, 1: int, 2: list, 3: dict, 4: 16}, {5: 32, 7: str})
        require(b[1] == 1, "type", "threshold")
        for keys in (b[0], [public for public, _ in b[2]]):
            require(keys and len({bytes(k) for k in keys}) == len(keys), "type", "keys missing or twice")
            for public in keys:
                check_ed25519(public)
        require(b[3].get(0) == 2, "version", "policy")
        fields(b[3], {0: int, 1: int, 2: int, 3: int})
        require(1 <= len(b.get(7, "x").encode()) <= 64, "size", "name")
        return b
    if kind == 1:
        own = {3: 32, 4: bytes, 5: 64, 6: bytes, 7: 64, 8: 64} if 4 in body else {}
        b = fields(body, {0: 32, 1: int, 2: str, **own}, {3: 32})
        require(b[1] in (MEMBER, ADMIN), "type", "role")
        require(is_handle(b[2]), "handle")
        if 3 in b:
            check_x25519(b[3], "type")
        return b
    if kind == 2:
        b = fields(body, {0: 32, 1: int})
        require(b[1] in (MEMBER, ADMIN), "type", "role")
        return b
    return fields(body, {0: 32, 1: list}) if kind == 3 else body


def read_attestation(log, wire, now):
    """§10: verified, and known to `log` from then on."""
    stmt, (by_member, by_session) = wire
    s = fields(decode(stmt), {0: 32, 1: 32, 2: 32, 3: 32, 4: 16, 5: int, 6: int, 7: list, 8: list})
    require(s[0] == log.mesh, "mesh")
    verify(s[1], by_member, "session-attest", stmt)
    try:
        verify(s[2], by_session, "session-accept", stmt)
    except Refused:
        raise Refused("possession") from None
    require(0 < s[6] - s[5] <= DAY_MS, "ttl")
    require(s[5] - SKEW_MS <= now <= s[6], "attestation-window")
    name = digest("attest", stmt)
    log.attestations[name] = s
    return name


def is_handle(text):
    allowed = set("abcdefghijklmnopqrstuvwxyz0123456789-")
    return (0 < len(text) <= 32 and text[0] != "-" and set(text) <= allowed
            and not (len(text) >= 8 and set(text) <= set("0123456789abcdef")))


def read_cap(stmt):
    cap = fields(decode(stmt), {0: 32, 1: 16, 2: 32, 3: int, 4: int, 5: int, 6: int, 7: int, 8: list, 9: str, 10: 32},
                 {11: str})
    require(cap[3] in (MEMBER, ADMIN) and 1 <= cap[4] <= 100 and cap[7] <= 2, "type")
    require(is_handle(cap.get(11, "x")), "type", "handle")
    check_head(cap[8])
    return cap


def check_invite(log, cap_stmt, cap_sig, claim_stmt, claim_sig, proof):
    """Cap and claim, and that they belong together: (cap, claim)."""
    cap = read_cap(cap_stmt)
    require(cap[0] == log.mesh, "mesh")
    verify(cap[2], cap_sig, "invite-cap", cap_stmt)
    claim = fields(decode(claim_stmt), {0: 32, 1: 16, 2: 32, 3: 32, 4: 32, 5: 32, 6: int, 7: str})
    require(is_handle(claim[7]), "type", "handle")
    check_x25519(claim[3], "type")
    check_x25519(claim[4], "type")
    verify(claim[2], claim_sig, "invite-claim", claim_stmt)
    try:
        verify(cap[10], proof, "invite-proof", claim_stmt)
    except Refused:
        raise Refused("code-proof") from None
    require(claim[0] == cap[0] and claim[1] == cap[1], "claim-mismatch")
    require(cap.get(11, claim[7]) == claim[7], "claim-mismatch")
    return cap, claim


def check_cap(log, cap, time):
    """Whether the cap is good in this log at `time`."""
    require(log.role_of(cap[2]) > max(cap[3], MEMBER), "inviter-authority")
    require(log.contains(cap[8]), "cap-head")
    require(cap[5] - SKEW_MS <= time <= cap[6], "expired")


# Invites, §8 -----------------------------------------------------------------------------------------

_CROCKFORD = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"


class Code:
    """An invite code and what is derived from it."""

    def __init__(self, bits):
        self.bits = bits
        self.lookup, self.box = digest("invite-lookup", bits)[:16], digest("invite-key", bits)
        self.key = SigningKey(digest("invite-sign", bits))

    @classmethod
    def fresh(cls):
        return cls(secrets.token_bytes(10))

    @classmethod
    def parse(cls, text):
        text = text.upper().replace("-", "").replace("O", "0").replace("I", "1").replace("L", "1")
        require(len(text) == 16 and all(c in _CROCKFORD for c in text), "code-proof", "not an invite code")
        n = 0
        for c in text:
            n = n << 5 | _CROCKFORD.index(c)
        return cls(n.to_bytes(10, "big"))

    def __str__(self):
        n = int.from_bytes(self.bits, "big")
        text = "".join(_CROCKFORD[n >> shift & 31] for shift in range(75, -1, -5))
        return "-".join(text[i : i + 4] for i in range(0, 16, 4))

    def close(self, cap, cap_sig, nonce):
        return nonce + SecretBox(self.box).encrypt(encode([cap, cap_sig]), nonce).ciphertext

    def open(self, blob):
        try:
            plain = SecretBox(self.box).decrypt(blob[24:], blob[:24])
        except exceptions.CryptoError:
            raise Refused("code-proof", "the blob does not open") from None
        cap, cap_sig = decode(plain)
        read = read_cap(cap)
        verify(read[2], cap_sig, "invite-cap", cap)
        require(read[10] == self.key.public, "code-proof", "another invite's cap")
        return cap, cap_sig


def make_cap(inviter, log, code, origin, uses=1, life_ms=DAY_MS):
    now = now_ms()
    return signed(inviter.key, "invite-cap", {
        0: log.mesh, 1: os.urandom(16), 2: inviter.public, 3: 1, 4: uses, 5: now, 6: now + life_ms, 7: 0,
        8: log.head, 9: origin, 10: code.key.public})


def make_revoke(author, log, target, reason=0):
    """What a revoke entry carries: [stmt, sig] about a member."""
    return [*signed(author.key, "revoke", {
        0: log.mesh, 1: 0, 2: target, 3: reason, 4: now_ms(), 5: author.public, 6: log.head})]


def make_claim(member, code, cap):
    c = decode(cap)
    stmt = encode({0: c[0], 1: c[1], 2: member.public, 3: member.long_term.public, 4: BoxKey().public,
                   5: os.urandom(32), 6: now_ms(), 7: member.handle})
    return stmt, member.key.sign("invite-claim", stmt), code.key.sign("invite-proof", stmt)
