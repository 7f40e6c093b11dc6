"""Log entries that a mesh may or must not begin with: the Python replay and the coordinator's must say the same,
for verifiers that disagree would fork the log."""

import os

from peerloom_bytes import Refused, SigningKey, b64, now_ms, signed
from peerloom_client import HttpError, http
from peerloom_log import MeshLog

SMALL_ORDER = bytes.fromhex("26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05")
NOWHERE = bytes(32)


class Trial:
    """A mesh of an owner and one admin, not sent anywhere yet."""

    def __init__(self, origin, coordinator):
        self.owner, self.admin, self.other, self.coordinator = SigningKey(), SigningKey(), SigningKey(), coordinator
        self.log = MeshLog()
        genesis = {0: [self.owner.public], 1: 1, 2: [[coordinator, origin]], 3: {0: 2, 1: 60, 2: 3600, 3: 86400},
                   4: os.urandom(16)}
        self.log.append(self.log.entry(self.owner, 0, genesis), sequenced=False)
        self.log.append(self.add(self.owner, self.admin.public, "ada", 2), sequenced=False)

    def add(self, by, public, handle, role=1, **more):
        return self.log.entry(by, 1, {0: public, 1: role, 2: handle, **more.get("fields", {})})

    def role(self, by, public, role):
        return self.log.entry(by, 2, {0: public, 1: role})

    def revoke(self, by, public, head=None, kind=0):
        statement = {0: self.log.mesh, 1: kind, 2: public, 3: 0, 4: now_ms(), 5: by.public, 6: head or self.log.head}
        return self.log.entry(by, 3, {0: public, 1: [*signed(by, "revoke", statement)]})

    def at(self, size):
        return [size, self.log.hashes[size - 1]]


CASES = {
    "an owner revokes itself, and takes its admin along": ("log-authority", [
        lambda t: t.revoke(t.owner, t.owner.public, t.at(1)), lambda t: t.add(t.admin, t.other.public, "x")]),
    "somebody who never was a member is revoked": ("log-authority", [lambda t: t.revoke(t.owner, t.other.public)]),
    "a member is revoked twice": ("ok", [lambda t: t.revoke(t.owner, t.admin.public)] * 2),
    "who revoked itself acts again": ("log-authority", [
        lambda t: t.revoke(t.admin, t.admin.public), lambda t: t.log.entry(t.admin, 4, {})]),
    "a revoke names a head of another log": ("log-chain", [lambda t: t.revoke(t.owner, t.admin.public, [1, NOWHERE])]),
    "who was revoked by name comes back": ("log-authority", [
        lambda t: t.revoke(t.owner, t.admin.public), lambda t: t.add(t.owner, t.admin.public, "ada")]),
    "who was taken along comes back by an owner": ("ok", [
        lambda t: t.add(t.admin, t.other.public, "oda"), lambda t: t.revoke(t.owner, t.admin.public, t.at(2)),
        lambda t: t.add(t.owner, t.other.public, "ida", 2)]),
    "who came before the head of its admitter's revoke stays": ("ok", [
        lambda t: t.add(t.admin, t.other.public, "oda"), lambda t: t.revoke(t.owner, t.admin.public),
        lambda t: t.log.entry(t.other, 4, {})]),
    "a handle is given twice": ("handle-taken", [lambda t: t.add(t.owner, t.other.public, "ada")]),
    "a handle looks like a key": ("handle", [lambda t: t.add(t.owner, t.other.public, "deadbeef")]),
    "a member key is no point": ("type", [lambda t: t.add(t.owner, (2).to_bytes(32, "little"), "x")]),
    "a member key is of order 1": ("type", [lambda t: t.add(t.owner, (1).to_bytes(32, "little"), "x")]),
    "a member key is of order 8": ("type", [lambda t: t.add(t.owner, SMALL_ORDER, "x")]),
    "an x25519 key is of low order": ("type", [lambda t: t.add(t.owner, t.other.public, "x", fields={3: NOWHERE})]),
    "a member is made owner": ("type", [lambda t: t.add(t.owner, t.other.public, "x", 3)]),
    "an admin makes an admin": ("log-authority", [lambda t: t.add(t.admin, t.other.public, "x", 2)]),
    "the coordinator becomes a member": ("log-authority", [lambda t: t.add(t.owner, t.coordinator, "x")]),
    "an owner has a topic": ("log-authority", [lambda t: t.log.entry(t.owner, 4, {})]),
    "a member has a topic": ("ok", [lambda t: t.log.entry(t.admin, 4, {0: 1, 1: b"x"})]),
    "an entry of an unknown kind": ("log-kind", [lambda t: t.log.entry(t.owner, 7, {})]),
    "an admin lowers itself": ("log-authority", [lambda t: t.role(t.admin, t.admin.public, 1)]),
    "a lowered admin admits": ("log-authority", [
        lambda t: t.role(t.owner, t.admin.public, 1), lambda t: t.add(t.admin, t.other.public, "x")]),
    "a key of somebody is revoked by another": ("ok", [lambda t: t.revoke(t.admin, t.other.public, [9, NOWHERE], 1)]),
    "a second genesis": ("log-index", [lambda t: t.log.wires[0]]),
    "a field nobody knows": ("unknown-field", [lambda t: t.add(t.owner, t.other.public, "x", fields={9: 1})]),
}


def check(origin):
    """Raises AssertionError at the first difference; gives the number of cases."""
    coordinator = bytes.fromhex(http(origin, "GET", "/v2/info")[1]["coordinator"])
    for name, (wanted, entries) in CASES.items():
        trial = Trial(origin, coordinator)
        said = judged_here(trial, entries)
        if (said, judged_there(origin, trial.sent)) != (wanted, wanted):
            raise AssertionError(f"{name}: {wanted} is right, this replay says {said}, the coordinator's "
                                 f"{judged_there(origin, trial.sent)}")
    return len(CASES)


def judged_here(trial, entries):
    trial.sent = list(trial.log.wires)
    for make in entries:
        trial.sent.append(make(trial))
        try:
            trial.log.append(trial.sent[-1], sequenced=False)
        except Refused as refused:
            return refused.reason
    return "ok"


def judged_there(origin, wires):
    try:
        http(origin, "POST", "/v2/meshes", {"entries": [b64(wire) for wire in wires]})
    except HttpError as error:
        return "ok" if error.answer["error"]["code"] == "exists" else error.answer["error"]["code"]
    return "ok"
