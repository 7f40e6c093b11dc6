#!/usr/bin/env python3
"""Decides the invariants of Peerloom over the history of a run: of the simulator (`netsim run --history FILE`) or of
real daemons (tests/it/kill_loop.rs). It shares no code with either: what both say of themselves is judged here again,
from the definition in each checker's text.

    check.py FILE...          one verdict a file; - reads the standard input
    check.py --json FILE...   the same, one JSON object a file

Exit code 0: everything holds. 1: an invariant is violated. 2: a file is no history, or was cut off.

A history is JSON lines: `header`, then `message` lines, facts in the order of happening with `at_us`, and `end`;
netsim/src/history.rs says which fields. A kind of fact that is not known here is counted as not judged, and said."""

import argparse
import collections
import json
import sys

SCHEMA_VERSION = 1

# Fields of each kind, with their types. What is missing or of another type makes the file no history.
FIELDS = {
    "header": {"schema_version": int, "source": str, "members": list},
    "message": {"message": int, "id": str, "from": int, "to": int},
    "submitted": {"message": int},
    "acknowledged": {"message": int},
    "refused": {"message": int},
    "told": {"message": int, "state": str},
    "kept": {"node": int, "message": int},
    "shown": {"node": int, "message": int},
    "strange": {"node": int, "what": str},
    "head": {"node": int, "size": int, "hash": str},
    "learned": {"node": int, "revoked": str},
    "forked": {"size": int},
    "alarmed": {"node": int, "what": str},
    "depth": {"what": str, "place": str, "count": int, "limit": int},
    "holds": {"node": int, "what": str, "count": int, "most": int},
    "broke": {"place": str, "what": str},
    "end": {"revoked": list, "left": list},
}

STATES = {"queued", "in-flight", "accepted", "stored", "surfaced", "rejected", "expired", "dead", "aborted"}
FAILURES = {"rejected", "expired", "dead", "aborted"}

# Violations that a readable verdict spells out; one cause often has hundreds.
SHOWN = 8


class NoHistory(Exception):
    """The file cannot be judged."""


class History:
    """Everything that one file says."""

    def __init__(self, lines):
        self.header, self.end, self.messages, self.facts = None, None, [], []
        self.unjudged = collections.Counter()
        for number, text in enumerate(lines, 1):
            try:
                self.take(json.loads(text))
            except (ValueError, NoHistory) as error:
                raise NoHistory(f"line {number}: {error}") from error
        if self.header is None:
            raise NoHistory("it is empty")
        if self.end is None:
            raise NoHistory("it has no end: it was cut off")

    def take(self, line):
        if not isinstance(line, dict) or not isinstance(line.get("kind"), str):
            raise NoHistory("an object with a kind is expected")
        kind = line["kind"]
        for name, of in FIELDS.get(kind, {}).items():
            if not isinstance(line.get(name), of) or isinstance(line[name], bool):
                raise NoHistory(f"{kind} has no {of.__name__} called {name}")
        if self.end is not None:
            raise NoHistory("something follows the end")
        if (self.header is None) != (kind == "header"):
            raise NoHistory("a history begins with its one header")
        self.refer(line)
        if kind == "header":
            if line["schema_version"] != SCHEMA_VERSION:
                raise NoHistory(f"schema_version {line['schema_version']} is not {SCHEMA_VERSION}")
            self.header = line
        elif kind == "message":
            if line["message"] != len(self.messages):
                raise NoHistory(f"message {line['message']} stands where {len(self.messages)} belongs")
            self.messages.append(line)
        elif kind == "end":
            self.end = line
        else:
            self.fact(line)

    def refer(self, line):
        """Numbers must name something."""
        for name in ("node", "from", "to"):
            if name in line and not 0 <= line[name] < len(self.header["members"]):
                raise NoHistory(f"there is no node {line[name]}")
        if line["kind"] != "message" and "message" in line and not 0 <= line["message"] < len(self.messages):
            raise NoHistory(f"there is no message {line['message']}")

    def fact(self, line):
        if not isinstance(line.get("at_us"), int):
            raise NoHistory(f"{line['kind']} has no instant")
        if self.facts and line["at_us"] < self.facts[-1]["at_us"]:
            raise NoHistory("facts do not stand in the order of happening")
        if line["kind"] == "told" and line["state"] not in STATES:
            raise NoHistory(f"there is no state {line['state']}")
        if line["kind"] not in FIELDS:
            self.unjudged[line["kind"]] += 1
        self.facts.append(line)

    def of(self, *kinds):
        return (fact for fact in self.facts if fact["kind"] in kinds)

    def name(self, number):
        message = self.messages[number]
        return f"message {number} ({message['id']} from node {message['from']} to node {message['to']})"


# The invariants. Each yields (at_us or None, what was seen).


def no_loss(history):
    """What its sender was told is safe is shown at its recipient, or its sender is told why not. A node that was
    removed reads nothing and is told nothing."""
    promised = dict.fromkeys(fact["message"] for fact in history.of("acknowledged"))
    for fact in history.of("shown", "told"):
        if fact["kind"] == "shown" or fact["state"] in FAILURES:
            promised.pop(fact["message"], None)
    removed = set(history.end["revoked"])
    for number in promised:
        message = history.messages[number]
        if removed.isdisjoint((message["from"], message["to"])):
            yield None, f"{history.name(number)} was acknowledged, and neither shown nor reported"


def at_most_once(history):
    """A message is kept once and shown once, at the node it is for and as it was sent; a store is asked for nothing
    that it would refuse."""
    seen = set()
    for fact in history.of("kept", "shown", "strange", "broke"):
        kind, at = fact["kind"], fact["at_us"]
        if kind == "strange":
            yield at, f"node {fact['node']} kept {fact['what']}"
        elif kind == "broke":
            yield at, f"{fact['place']}'s store was asked for nonsense: {fact['what']}"
        else:
            number = fact["message"]
            if fact["node"] != history.messages[number]["to"]:
                yield at, f"{history.name(number)} was {kind} at node {fact['node']}"
            elif (kind, number) in seen:
                yield at, f"{history.name(number)} was {kind} twice"
            seen.add((kind, number))


def in_order(history):
    """In one conversation, what was handed over after another was acknowledged is shown after it."""
    handed, promised, shown = {}, {}, collections.defaultdict(dict)
    for place, fact in enumerate(history.facts):
        number = fact.get("message")
        if fact["kind"] == "submitted":
            handed.setdefault(number, place)
        elif fact["kind"] == "acknowledged":
            promised.setdefault(number, place)
        elif fact["kind"] == "shown":
            message = history.messages[number]
            shown[message["from"], message["to"]].setdefault(number, fact["at_us"])
    for conversation in shown.values():
        earliest = None  # of those shown later: when it was acknowledged, and which
        for number, at in reversed(conversation.items()):
            if earliest and number in handed and earliest[0] < handed[number]:
                yield at, f"{history.name(number)} was shown before {history.name(earliest[1])}"
            if number in promised and (earliest is None or promised[number] < earliest[0]):
                earliest = promised[number], number


def word_follows_fact(history):
    """`stored` is said after the recipient has it on its disk, `surfaced` after its reader saw it."""
    true = {"stored": set(), "surfaced": set()}
    for fact in history.of("kept", "shown", "told"):
        if fact["kind"] == "kept":
            true["stored"].add(fact["message"])
        elif fact["kind"] == "shown":
            true["surfaced"].add(fact["message"])
        elif fact["state"] in true and fact["message"] not in true[fact["state"]]:
            yield fact["at_us"], f"{history.name(fact['message'])} was called {fact['state']} before it was"


def revoked_stays_out(history):
    """A node that has committed a revocation keeps nothing of that member."""
    refused = collections.defaultdict(set)
    for fact in history.of("learned", "kept"):
        if fact["kind"] == "learned":
            refused[fact["node"]].add(fact["revoked"])
        else:
            sender = history.messages[fact["message"]]["from"]
            if history.header["members"][sender] in refused[fact["node"]]:
                yield fact["at_us"], f"{history.name(fact['message'])} was kept after its sender's revocation"


def head_grows(history):
    """A node's log only grows, and logs of one size are one log unless the coordinator gave a place twice."""
    sizes, hashes, forked_at = {}, {}, float("inf")
    for fact in history.of("head", "forked"):
        if fact["kind"] == "forked":
            forked_at = fact["size"]
            continue
        node, size, at = fact["node"], fact["size"], fact["at_us"]
        if size < sizes.get(node, 0):
            yield at, f"node {node}'s log shrank from {sizes[node]} to {size} entries"
        if hashes.setdefault(size, fact["hash"]) != fact["hash"] and size < forked_at:
            yield at, f"node {node} has another log of {size} entries"
        sizes[node] = size


def forks_raise_evidence(history):
    """Whoever keeps mail that was signed under another log than its own says so to its people."""
    logs = {(fact["node"], fact["size"]): fact["hash"] for fact in history.of("head")}
    alarmed = {fact["node"] for fact in history.of("alarmed")}
    for fact in history.of("kept"):
        node = fact["node"]
        own = logs.get((node, fact.get("head_size")))
        if own is not None and own != fact.get("head_hash") and node not in alarmed:
            alarmed.add(node)
            yield fact["at_us"], f"{history.name(fact['message'])} was signed under another log, and node {node} said nothing"


def authentic(history):
    """What is kept was signed by its sender, a member by the recipient's log and at the head it records."""
    for fact in history.of("kept"):
        name = history.name(fact["message"])
        if fact.get("signed") is False:
            yield fact["at_us"], f"{name} was kept in bytes its sender did not sign"
        for field in ("standing", "standing_at_head"):
            if fact.get(field) not in (None, "member"):
                yield fact["at_us"], f"{name} was kept, its sender's {field.replace('_', ' ')} being {fact[field]}"


def bounded_queues(history):
    """Every queue stays within its bound."""
    for fact in history.of("depth"):
        if fact["count"] > fact["limit"]:
            yield fact["at_us"], f"{fact['count']} {fact['what']} at {fact['place']}, {fact['limit']} are allowed"


def bounded_memory(history):
    """What a node's machine holds stays within its bounds."""
    for fact in history.of("holds"):
        if fact["count"] > fact["most"]:
            yield fact["at_us"], f"node {fact['node']} held {fact['count']} {fact['what']}, {fact['most']} are allowed"


def drains(history):
    """After the last fault everything drains."""
    for left in history.end["left"]:
        yield None, str(left)


INVARIANTS = (
    no_loss,
    at_most_once,
    in_order,
    word_follows_fact,
    revoked_stays_out,
    authentic,
    head_grows,
    forks_raise_evidence,
    bounded_queues,
    bounded_memory,
    drains,
)


def judge(history):
    """Every violation of every invariant."""
    return [
        {"invariant": invariant.__name__, "at_us": at, "what": what}
        for invariant in INVARIANTS
        for at, what in invariant(history)
    ]


def figures(history):
    """What the run came to, for a reader to compare."""
    counts = collections.Counter(fact["kind"] for fact in history.facts)
    paths = collections.Counter(fact.get("path") or "unknown" for fact in history.of("kept"))
    figures = {kind: counts[kind] for kind in ("acknowledged", "kept", "shown", "refused")}
    return {"messages": len(history.messages), "facts": len(history.facts), **figures, "paths": dict(sorted(paths.items()))}


def report(path, verdict):
    """One verdict for people."""
    counts = verdict["figures"]
    paths = ", ".join(f"{count} {path}" for path, count in counts["paths"].items()) or "none"
    yield (
        f"{path}: {counts['messages']} messages, {counts['acknowledged']} acknowledged, {counts['kept']} kept ({paths}),"
        f" {counts['shown']} shown, {counts['facts']} facts"
    )
    for kind, count in verdict["unjudged"].items():
        yield f"{count} facts of the kind {kind} are not judged here"
    for violation in verdict["violations"][:SHOWN]:
        at = "at the end" if violation["at_us"] is None else f"at {violation['at_us'] / 1e6:.3f} s"
        yield f"FAIL {violation['invariant']} {at}: {violation['what']}"
    if len(verdict["violations"]) > SHOWN:
        yield f"FAIL and {len(verdict['violations']) - SHOWN} more"
    yield f"ok: {len(INVARIANTS)} invariants hold" if verdict["ok"] else "not ok"


def read(path):
    if path == "-":
        return History(sys.stdin)
    with open(path, encoding="utf-8") as lines:
        return History(lines)


def main():
    arguments = argparse.ArgumentParser(
        description="Decides the invariants over the history of a run.",
        epilog="Exit code 0: all hold. 1: one is violated. 2: a file is no history.",
    )
    arguments.add_argument("--json", action="store_true", help="one JSON object a file")
    arguments.add_argument("file", nargs="+", help="a history; - for the standard input")
    chosen = arguments.parse_args()
    code = 0
    for path in chosen.file:
        try:
            history = read(path)
        except (OSError, UnicodeDecodeError, NoHistory) as error:
            print(f"{path} is no history: {error}", file=sys.stderr)
            return 2
        violations = judge(history)
        verdict = {
            "schema_version": SCHEMA_VERSION,
            "file": path,
            "ok": not violations,
            "figures": figures(history),
            "unjudged": dict(history.unjudged),
            "violations": violations,
        }
        print(json.dumps(verdict) if chosen.json else "\n".join(report(path, verdict)))
        code = max(code, 1 if violations else 0)
    return code


if __name__ == "__main__":
    sys.exit(main())
