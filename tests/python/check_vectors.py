"""Recomputes the frozen vectors with the Python client: positive ones byte by byte, negative ones by reason."""

import hashlib
import json

from nacl.secret import SecretBox

from peerloom_bytes import (BoxKey, Refused, SigningKey, decode, digest, encode, transcript, verify)
from peerloom_client import inner_of, read_envelope, read_receipt, receive, seal_box
from peerloom_log import Code, MeshLog, check_cap, check_invite, read_attestation


def unhex(value):
    """Every hex string in a piece of the vectors as bytes."""
    if isinstance(value, dict):
        return {k: unhex(v) for k, v in value.items()}
    if isinstance(value, list):
        return [unhex(v) for v in value]
    if isinstance(value, str):
        try:
            return bytes.fromhex(value)
        except ValueError:
            return value
    return value


def same(what, got, want):
    if got != want:
        raise AssertionError(f"{what}: {got!r} is not {want!r}")


class Vectors:
    def __init__(self, path):
        with open(path, encoding="utf-8") as file:
            self.v = unhex(json.load(file))
        self.keys = {name: SigningKey(key["seed"]) for name, key in self.v["keys"].items()}
        self.boxes = {name: BoxKey(key["sk"]) for name, key in self.v["xkeys"].items()}
        self.now = decode(self.v["dm"]["hdr"])[8]

    def check(self):
        """Raises AssertionError or Refused at the first difference; returns what was checked."""
        parts = [self.key_pairs, self.log, self.attestation, self.dm, self.topic, self.hello, self.bind,
                 self.invite, self.self_admission, self.revocation, self.receipt, self.negative]
        return [f"{part.__name__}: {part()}" for part in parts]

    def fresh_log(self):
        log = MeshLog()
        for e in self.v["log"]["entries"]:
            log.append(self.entry_wire(e))
        return log

    @staticmethod
    def entry_wire(e):
        author = decode(e["stmt"])[4]
        return encode([e["stmt"], [[author, e["sig"]]]] + ([e["seq"]] if "seq" in e else []))

    def signer(self, public):
        return next(key for key in self.keys.values() if key.public == public)

    def key_pairs(self):
        for name, key in self.keys.items():
            same(name, key.public, self.v["keys"][name]["ed25519_pk"])
        for name, box in self.boxes.items():
            same(name, (box.public, box.kid), (self.v["xkeys"][name]["x25519_pk"], self.v["xkeys"][name]["kid"]))
        return f"{len(self.keys)} ed25519, {len(self.boxes)} x25519 with key ids"

    def log(self):
        log, mesh = MeshLog(), self.v["log"]["mesh_id"]
        for index, e in enumerate(self.v["log"]["entries"]):
            statement = decode(e["stmt"])
            same("re-encoding", encode(statement), e["stmt"])
            same("signature", self.signer(statement[4]).sign("log", e["stmt"]), e["sig"])
            same("hash", digest("entry", e["stmt"]), e["hash"])
            if "seq" in e:
                at = index.to_bytes(8, "big")
                same("seq", self.keys["coord"].sign("sequenced", mesh, at, e["hash"]), e["seq"])
            log.append(self.entry_wire(e))
        same("mesh id", log.mesh, mesh)
        same("head", log.head, self.v["log"]["head"])
        return f"{len(log.hashes)} entries signed alike and replayed to {sorted(log.handles)}"

    def attestation(self):
        a = self.v["session_attestation"]
        session, member = decode(a["stmt"])[2], decode(a["stmt"])[1]
        same("member", self.signer(member).sign("session-attest", a["stmt"]), a["sig_member"])
        same("session", self.signer(session).sign("session-accept", a["stmt"]), a["sig_session"])
        wire = [a["stmt"], [a["sig_member"], a["sig_session"]]]
        same("hash", read_attestation(self.fresh_log(), wire, self.now), a["hash"])
        return "signed alike and verified"

    def dm(self):
        d = self.v["dm"]
        header = decode(d["hdr"])
        once, to, key = BoxKey(d["eph_sk"]), self.boxes["bob-x"], self.signer(header[4])
        bare = {k: v for k, v in header.items() if k != 14}
        wire, env_hash = seal_box(bare, d["body"], once, to.public, key, d["rng32"])
        same("sealed bytes", wire, d["wire_cbor"])
        same("env_hash", env_hash, d["env_hash"])
        same("header hash", digest("hdr", d["hdr"]), d["hdr_hash"])
        same("signed bytes", transcript("sig/envelope", d["hdr"], hashlib.sha256(d["ct"]).digest()), d["sig_input"])
        opened = receive(wire, self.knowing(), self.keys["bob"].public, {to.kid: to.secret}, self.now)
        same("opened body", encode(opened.body), d["body"])
        return f"sealed to the same {len(wire)} bytes and opened: {opened.body[1]!r}"

    def knowing(self):
        log, a = self.fresh_log(), self.v["session_attestation"]
        read_attestation(log, [a["stmt"], [a["sig_member"], a["sig_session"]]], self.now)
        return log

    def topic(self):
        t = self.v["topic"]
        header, hdr, ct, sig = read_envelope(encode([2, t["hdr"], t["ct"], t["sig"]]), self.v["log"]["mesh_id"])
        verify(header[4], sig, "envelope", hdr, hashlib.sha256(ct).digest())
        same("signature", self.signer(header[4]).sign("envelope", hdr, hashlib.sha256(ct).digest()), sig)
        bob, held = self.keys["bob"].public, {header[13]: t["key"]}
        opened = receive(encode([2, hdr, ct, sig]), self.fresh_log(), bob, held, self.now)
        again = SecretBox(t["key"]).encrypt(inner_of(hdr, encode(opened.body)), header[14]).ciphertext
        same("sealed bytes", again, ct)
        return f"opened and sealed alike: {opened.body[1]!r}"

    def hello(self):
        h = self.v["hello"]
        challenge, hello, welcome = decode(h["challenge"]), decode(h["hello"]), decode(h["welcome"])
        same("challenge hash", digest("challenge", h["challenge"]), hello[6])
        same("hello", self.signer(hello[3]).sign("hello", h["hello"]), h["sig"])
        same("hello hash", digest("hello", h["hello"], h["sig"]), welcome[1])
        same("welcome", self.signer(challenge[1]).sign("welcome", h["welcome"]), h["welcome_sig"])
        return "challenge, hello and welcome agree and are signed alike"

    def bind(self):
        b = self.v["bind"]
        same("bind", self.signer(decode(b["stmt"])[2]).sign("bind", b["stmt"]), b["sig"])
        return "signed alike"

    def invite(self):
        i = self.v["invite"]
        code = Code.parse(i["code"])
        same("code", str(code), i["code"])
        same("lookup", code.lookup, i["lookup"])
        blob = code.close(i["cap"], i["cap_sig"], i["blob_nonce"])
        same("blob", blob, i["blob_nonce"] + i["blob"])
        same("opened blob", code.open(blob), (i["cap"], i["cap_sig"]))
        same("cap", self.signer(decode(i["cap"])[2]).sign("invite-cap", i["cap"]), i["cap_sig"])
        same("proof", code.key.sign("invite-proof", i["claim"]), i["claim_proof"])
        check_invite(self.fresh_log(), i["cap"], i["cap_sig"], i["claim"], i["claim_sig"], i["claim_proof"])
        return "lookup, blob, cap, claim and proof"

    def self_admission(self):
        return self.appended(self.v["self_admission"])

    def revocation(self):
        return self.appended(self.v["revoke_entry"])

    def appended(self, e):
        log = self.fresh_log()
        log.append(self.entry_wire(e))
        same("hash", log.hashes[-1], e["hash"])
        states = {m.handle: m.revoked or m.role for m in log.members.values()}
        return f"replayed to {states}"

    def receipt(self):
        r = self.v["receipt"]
        statement = decode(r["stmt"])
        same("receipt", self.signer(statement[1]).sign("receipt", r["stmt"]), r["sig"])
        _, rows = read_receipt(self.v["log"]["mesh_id"], statement[2], r["stmt"], r["sig"])
        same("first row", rows[0][:2], [self.v["dm"]["env_hash"], decode(self.v["dm"]["hdr"])[7]])
        return f"{len(rows)} rows, signed alike"

    # Bytes that must be refused

    def negative(self):
        for case in self.v["negative"]:
            judge = getattr(self, "bad_" + case["type"])
            try:
                judge(case)
            except Refused as refused:
                same(case["name"], refused.reason, case["want"])
            else:
                raise AssertionError(f"{case['name']}: taken, but must be {case['want']}")
        return f"{len(self.v['negative'])} refused for the reason named"

    def bad_envelope(self, case):
        ctx, bob = case["ctx"], self.boxes["bob-x"]
        log = self.knowing()
        log.revoked_elsewhere.update(ctx.get("revs", []))
        me = ctx.get("me", [self.keys["bob"].public])[0]
        boxes = {} if ctx.get("no_keys") else {bob.kid: bob.secret}
        receive(encode(case["wire"]), log, me, boxes, ctx.get("now", self.now))

    def bad_decode(self, case):
        decode(case["bytes"])

    def bad_attestation(self, case):
        read_attestation(self.fresh_log(), [case["stmt"], [case["sig_member"], case["sig_session"]]], case["now"])

    def bad_invite(self, case):
        parts = (case[k] for k in ("cap", "cap_sig", "claim", "claim_sig", "claim_proof"))
        log = self.fresh_log()
        cap, _ = check_invite(log, *parts)
        check_cap(log, cap, case["now"])

    def bad_log(self, case):
        log = MeshLog()
        for stmt, sig in case["entries"]:
            log.append(encode([stmt, [[decode(stmt)[4], sig]]]), sequenced=False)
