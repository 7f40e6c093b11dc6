"""A client written from PROTOCOL.md against the real programs.

    python test_interop.py --coordinator target/debug/peerloom-coordinator --peerloom target/debug/peerloom

Prints one line a fact; exit 0 when all hold, 1 at the first that does not."""

import argparse
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time
import traceback

import check_replay
from check_vectors import Vectors
from peerloom_bytes import BoxKey, Refused, SigningKey, b64, encode, now_ms, read_prekey, unb64
from peerloom_client import (APPEND, APPENDED, ENTRIES, INVITE, LOG_FROM, MAIL, PING, PONG, PRESENCE, PUT,
                             RECEIPT_IN, RETRY, SIGNAL, STORED, HttpError, Link, Member, http, join, seal_dm)
from peerloom_log import Code, MeshLog, make_cap, make_revoke

HERE = pathlib.Path(__file__).resolve().parent
TEXT = "text/plain"


def fact(text):
    print(f"ok    {text}", flush=True)


def expect(condition, text):
    if not condition:
        raise AssertionError(text)
    fact(text)


def soon(what, ask, timeout=20):
    """Polls until `ask` gives something true."""
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        got = ask()
        if got:
            return got
        time.sleep(0.02)
    raise AssertionError(f"waited {timeout} s for {what}")


def environment(**more):
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PEERLOOM")}
    return {**kept, **more}


class Program:
    """A program that runs until this block ends."""

    def __init__(self, arguments, out, **more):
        self.arguments, self.out, self.more = arguments, out, more

    def __enter__(self):
        with open(self.out, "wb") as out:
            self.process = subprocess.Popen(self.arguments, stdout=out, stderr=subprocess.STDOUT,
                                            stdin=subprocess.DEVNULL, env=environment(**self.more))
        return self

    def __exit__(self, kind, *_):
        self.process.terminate()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        if kind:
            print(f"--- {self.arguments[0]} printed ---\n" + self.out.read_text(errors="replace")[-4000:])


def coordinator(program, directory):
    return Program([program, "serve", "--json", "--data", directory / "coordinator", "--listen", "127.0.0.1:0"],
                   directory / "coordinator.out")


def origin_of(running):
    def ready():
        if running.process.poll() is not None:
            raise AssertionError("the coordinator ended: " + running.out.read_text())
        lines = [line for line in running.out.read_text().splitlines() if line.startswith("{")]
        return lines and json.loads(lines[0])["origin"]
    return soon("the coordinator to be ready", ready)


# A mesh of Python members ---------------------------------------------------------------------------


def make_mesh(origin):
    """A genesis and two member entries, sequenced by the coordinator."""
    info = http(origin, "GET", "/v2/info")[1]
    expect(info["origin"] == origin, "the coordinator names its origin")
    owner, alice, bob, draft = SigningKey(), Member("alice"), Member("bob"), MeshLog()
    genesis = {0: [owner.public], 1: 1, 2: [[bytes.fromhex(info["coordinator"]), origin]],
               3: {0: 2, 1: 60, 2: 3600, 3: 86400}, 4: os.urandom(16), 7: "python"}
    for kind, body in ((0, genesis), (1, {0: alice.public, 1: 2, 2: "alice", 3: alice.long_term.public}),
                       (1, {0: bob.public, 1: 1, 2: "bob", 3: bob.long_term.public})):
        draft.append(draft.entry(owner, kind, body), sequenced=False)
    status, answer = http(origin, "POST", "/v2/meshes", {"entries": [b64(wire) for wire in draft.wires]})
    expect(status == 201, "a mesh of genesis and two members is made over HTTP")
    log = MeshLog()
    log.take(0, [unb64(entry) for entry in answer["entries"]])
    expect(log.head == draft.head, "its sequenced entries replay to the same head")
    return log, alice, bob


def among_python_members(origin):
    log, alice, bob = make_mesh(origin)
    a = Link(origin, log, alice)
    a.start()
    fact("alice: challenge, hello and welcome verified; prekey published; mail claimed")
    b = Link(origin, log, bob)
    b.start()
    expect(see(a, bob.public, True), "bob: the same; alice sees him online")
    replayed = MeshLog()
    b.send(LOG_FROM, 0)
    replayed.take(*b.expect(ENTRIES, where=lambda start, *_: start == 0)[:2])
    expect(replayed.head == log.head, "the log fetched over the link replays from nothing")
    by_relay(a, b)
    b = by_mailbox(a, b)
    a, b = after_cuts(a, b)
    b = signalled(a, b)
    c = by_invite(origin, a, log)
    revoked(a, b, c)
    b.goodbye()
    expect(see(a, bob.public, False), "bob says goodbye, and alice sees him gone at once")
    garbage(a)


def see(link, public, online):
    while [public, online] not in link.expect(PRESENCE)[1]:
        continue
    return True


def again(link, counter):
    """Another socket of the same process."""
    link.close()
    another = Link(link.origin, link.log, link.member, link.instance, counter)
    another.start()
    return another


def prekey(link, member):
    found = link.key_of(member.public)
    return found if found == member.prekey.public else None


def by_relay(a, b):
    alice, bob, log = a.member, b.member, a.log
    to_bob = soon("bob's prekey", lambda: prekey(a, bob))
    fact("alice gets bob's signed prekey from the directory")
    sealed = seal_dm(alice, log, bob.public, to_bob, TEXT, b"over the relay")
    a.put(sealed)
    fact("the coordinator accepts alice's message (66)")
    got = b.mail()
    expect(got.body[1] == b"over the relay" and got.env_hash == sealed.env_hash, "bob opens it from the relay")
    expect(a.receipt_for(sealed) == (STORED, None), "alice gets bob's signed receipt: stored")
    owner, x25519 = read_prekey(log.mesh, *got.body[3], now_ms())
    reply = seal_dm(bob, log, owner, x25519, TEXT, b"heard you")
    b.put(reply)
    expect(a.mail().body[1] == b"heard you", "bob's reply, sealed to the prekey in alice's message, arrives")
    expect(b.receipt_for(reply) == (STORED, None), "bob gets alice's signed receipt: stored")
    a.put(sealed)
    fact("the same envelope put again is accepted again")
    a.send(PING, 12345678)
    expect(a.expect(PONG) == [12345678], "a ping is answered with its number")
    lost = seal_dm(alice, log, bob.public, BoxKey().public, TEXT, b"to a lost key")
    a.put(lost)
    with_nobody_reading(b)
    expect(a.receipt_for(lost) == (RETRY, "unknown-kid"), "a message to a key bob has not: retry, unknown-kid")
    sealed = seal_dm(alice, log, bob.public, to_bob, TEXT, b"to a lost key", again=lost)
    a.put(sealed)
    got = b.mail()
    expect(got.id == lost.id and got.env_hash != lost.env_hash, "sealed again under the same id, it arrives")
    expect(a.receipt_for(sealed) == (STORED, None), "and is receipted")


def with_nobody_reading(link):
    """Lets the link deal with mail that no person gets to see."""
    try:
        raise AssertionError(f"nothing was to be read, but there was {link.mail(timeout=0.5).body}")
    except TimeoutError:
        return


def by_mailbox(a, b):
    b.close()
    sealed = seal_dm(a.member, a.log, b.member.public, b.member.prekey.public, TEXT, b"while you were away")
    a.put(sealed)
    fact("with bob gone, the coordinator accepts a message for his mailbox")
    b = again(b, 2)
    got = b.mail()
    expect(got.body[1] == b"while you were away" and got.queued, "bob, back, finds it in his mailbox")
    expect(a.receipt_for(sealed) == (STORED, None), "alice gets the receipt for it")
    return b


def after_cuts(a, b):
    """What was handed out and not receipted stays; a receipt for an absent sender waits for him."""
    sealed = seal_dm(a.member, a.log, b.member.public, b.member.prekey.public, TEXT, b"not yet receipted")
    a.put(sealed)
    b.expect(MAIL)
    a.close()
    b = again(b, 3)
    expect(b.mail().env_hash == sealed.env_hash, "mail that was handed out but not receipted is offered again")
    a = again(a, 2)
    expect(a.receipt_for(sealed) == (STORED, None), "a receipt for an absent sender waits for it")
    a = again(a, 3)
    a.send(PING, 1)
    a.expect(PONG)
    expect(not a.waiting_of(RECEIPT_IN), "once settled, the receipt does not come again")
    return a, b


def signalled(a, b):
    """A signal gets no receipt: settling ends it."""
    echo = encode({0: 3, 1: os.urandom(16)})
    signal = seal_dm(a.member, a.log, b.member.public, b.member.prekey.public, SIGNAL, echo, placed=False,
                     life_ms=60_000)
    before = a.taken
    a.put(signal)
    with_nobody_reading(b)
    with_nobody_reading(a)
    expect(a.taken == before + 1, "an echo is replied to")
    b = again(b, 4)
    b.send(PING, 1)
    b.expect(PONG)
    with_nobody_reading(b)
    expect(not b.taken, "settled, it is not offered again")
    return b


def by_invite(origin, a, log):
    code = Code.fresh()
    cap, sig = make_cap(a.member, log, code, origin)
    a.request(INVITE, code.lookup, code.close(cap, sig, os.urandom(24)), now_ms() + 3_600_000, 1)
    fact("alice, an admin, deposits an invite")
    carol, carols = join(origin, Code.parse(str(code).lower()), "carol")
    expect(carols.head[0] == 4, "carol joins by its code: looked up, opened, replayed, appended")
    try:
        http(origin, "POST", "/v2/invites/lookup", {"lookup": code.lookup.hex()})
    except HttpError as error:
        expect(error.status == 404, "the used invite is gone")
    else:
        raise AssertionError("a used invite is still handed out")
    c = Link(origin, carols, carol)
    c.start()
    sealed = seal_dm(carol, carols, a.member.public, c.key_of(a.member.public), TEXT, b"hello, I am carol")
    c.put(sealed)
    expect(a.mail().body[1] == b"hello, I am carol", "alice, told of the new entry, takes carol's first message")
    expect(c.receipt_for(sealed) == (STORED, None), "carol gets the receipt")
    return c


def revoked(a, b, c):
    carol, log = c.member.public, a.log
    index, revocation = log.head[0], make_revoke(a.member, log, carol)
    entry = a.request(APPEND, log.entry(a.member.key, 3, {0: carol, 1: revocation}), answer=APPENDED)
    told = b.expect(ENTRIES, where=lambda start, *_: start == index)
    expect(told == [index, [entry[1]], index + 1], "alice revokes carol: an entry appended over the link, told to all")
    log.take(index, [entry[1]])
    expect(log.members[carol].revoked, "it replays: carol is out")
    try:
        c.expect(PONG)
    except Refused as refused:
        expect(refused.reason == "revoked", "carol's connection ends with `revoked`")
    try:
        a.put(seal_dm(a.member, log, carol, c.member.prekey.public, TEXT, b"too late"))
    except Refused as refused:
        expect(refused.reason == "revoked", "mail for her is refused")
    else:
        raise AssertionError("mail for a revoked member was accepted")


def garbage(a):
    a.socket.send(b"\x9f\x02\xff")
    try:
        a.expect(PONG)
    except Refused as refused:
        expect(refused.reason == "malformed", "a frame that is not canonical ends the connection with `malformed`")


# A mesh of a real daemon ------------------------------------------------------------------------------


class Node:
    def __init__(self, program, directory, handle):
        self.program, self.home, self.out = program, directory / handle, directory / f"{handle}.out"

    def run(self, *arguments):
        done = subprocess.run([self.program, *arguments, "--json"], capture_output=True, timeout=60, text=True,
                              stdin=subprocess.DEVNULL, env=environment(PEERLOOM_HOME=str(self.home)), check=False)
        if done.returncode:
            raise AssertionError(f"peerloom {' '.join(arguments)}: exit {done.returncode}\n{done.stdout}{done.stderr}")
        return [json.loads(line) for line in done.stdout.splitlines()]

    def up(self):
        return Program([self.program, "up"], self.out, PEERLOOM_HOME=str(self.home))

    def texts(self):
        return [m["text"] for m in self.run("inbox") if m["from"]["handle"] == "python"]

    def connected(self):
        try:
            return self.run("status")[0]["coordinator"]["state"] == "connected"
        except (AssertionError, TypeError, KeyError):
            return False


def with_daemon(origin, program, directory):
    node = Node(program, directory, "laptop")
    node.run("init", "acme", "--coordinator", origin, "--name", "laptop")
    with node.up():
        soon("the daemon to connect", node.connected)
        invite = node.run("invite")[0]
        python, log = join(origin, Code.parse(invite["code"]), "python")
        fact("a Python member joins a mesh made by `peerloom`, by its invite")
        p = Link(origin, log, python)
        p.start()
        daemon = log.handles["laptop"]
        first = seal_dm(python, log, daemon, log.members[daemon].x25519, TEXT, b"to the key in the log")
        p.put(first)
        expect(p.receipt_for(first) == (STORED, None), "the daemon receipts a message from Python: stored")
        expect(node.texts() == ["to the key in the log"], "and shows it in its inbox, from `python`")
        daemon_writes(node, p)
        daemon_pings(node, p)
        sealed_again(node, p, daemon)
        in_order(node, p, daemon)


def beside(node, link, *arguments):
    """Runs a verb while the link is served: what it printed, and the messages that came."""
    command, came = [node.program, *arguments, "--json"], []
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                          env=environment(PEERLOOM_HOME=str(node.home))) as running:
        deadline = time.monotonic() + 30
        while running.poll() is None and time.monotonic() < deadline:
            try:
                came.append(link.mail(timeout=0.05))
            except TimeoutError:
                continue
        running.kill()
        out = running.stdout.read()
    expect(running.returncode == 0, f"`peerloom {arguments[0]}` exits 0")
    return json.loads(out.splitlines()[-1]), came


def daemon_writes(node, p):
    soon("the daemon to see `python` online", lambda: [
        peer for peer in node.run("peers")[0]["peers"] if peer["handle"] == "python" and peer["online"]])
    said, came = beside(node, p, "send", "python", "hello from the daemon")
    expect([m.body[1] for m in came] == [b"hello from the daemon"], "Python opens the daemon's message")
    expect((said["state"], said["path"]) == ("stored", "relay"), "the daemon says `stored`, by relay")


def daemon_pings(node, p):
    said, _ = beside(node, p, "ping", "python", "--timeout", "1s")
    paths = {sample["path"] for sample in said["samples"] if sample["rtt_ms"] is not None}
    expect(paths == {"relay"} and not said["direct"], "echoes are replied to over the relay, offers declined")


def sealed_again(node, p, daemon):
    lost = seal_dm(p.member, p.log, daemon, BoxKey().public, TEXT, b"sealed twice")
    p.put(lost)
    expect(p.receipt_for(lost) == (RETRY, "unknown-kid"), "the daemon names a key it has not: retry, unknown-kid")
    key = p.key_of(daemon)
    expect(key != p.log.members[daemon].x25519, "the daemon's weekly prekey is in the directory")
    for _ in range(2):
        sealed = seal_dm(p.member, p.log, daemon, key, TEXT, b"sealed twice", again=lost)
        p.put(sealed)
        expect(p.receipt_for(sealed) == (STORED, None), "sealed again under the same id, it is receipted")
    expect(node.texts()[1:] == ["sealed twice"], "and shown once")


def in_order(node, p, daemon):
    """Three sealed in order and put in reverse are shown in order; each is receipted."""
    sealed = [seal_dm(p.member, p.log, daemon, p.key_of(daemon), TEXT, text) for text in (b"one", b"two", b"three")]
    for late in reversed(sealed):
        p.send(PUT, late.wire)
    for late in reversed(sealed):
        expect(p.receipt_for(late) == (STORED, None), "a message that came out of order is receipted")
    texts = soon("all of them", lambda: len(node.texts()) == 5 and node.texts())
    expect(texts[2:] == ["one", "two", "three"], "and they are shown in the order of sending")


def main():
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--coordinator", default=os.environ.get("PEERLOOM_COORDINATOR_BIN"), type=pathlib.Path)
    arguments.add_argument("--peerloom", default=os.environ.get("PEERLOOM_BIN"), type=pathlib.Path)
    arguments.add_argument("--vectors", default=HERE.parent / "vectors" / "peerloom2.json")
    given = arguments.parse_args()
    if not given.coordinator or not given.peerloom:
        arguments.error("--coordinator and --peerloom name the programs to try")
    try:
        for line in Vectors(given.vectors).check():
            fact("vectors: " + line)
        with tempfile.TemporaryDirectory(prefix="peerloom-python-") as name:
            directory = pathlib.Path(name)
            with coordinator(given.coordinator.resolve(), directory) as running:
                origin = origin_of(running)
                fact(f"replay: {check_replay.check(origin)} logs judged as the coordinator judges them")
                among_python_members(origin)
                with_daemon(origin, given.peerloom.resolve(), directory)
    except (AssertionError, Refused, HttpError, OSError, TimeoutError):
        traceback.print_exc(file=sys.stdout)
        print("FAIL", flush=True)
        return 1
    print("all of it holds", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
