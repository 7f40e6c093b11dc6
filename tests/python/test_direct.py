"""Foreign stacks against a real node, from PROTOCOL.md alone: aiortc makes data channels with it, both ways;
aioquic is let in under the certificate it announced and under no other.

    python test_direct.py --coordinator target/debug/peerloom-coordinator --peerloom target/debug/peerloom

Prints one line a fact; exit 0 when all hold, 1 at the first that does not."""

import argparse
import asyncio
import pathlib
import sys
import tempfile
import traceback

from peerloom_bytes import Refused
from peerloom_client import HttpError, join
from peerloom_direct import BIND, Channel, DirectLink, quic_attempt, quic_certificate
from peerloom_log import Code
from test_interop import Node, coordinator, expect, fact, origin_of, soon


async def beside(node, *arguments):
    """Runs a verb of the node's while this side goes on."""
    return (await asyncio.to_thread(node.run, *arguments))[0]


def path_of(node):
    peer = next(peer for peer in node.run("peers")[0]["peers"] if peer["handle"] == "python")
    return peer["path"], peer.get("transport")


async def until(what, ask):
    return await asyncio.to_thread(soon, what, ask)


async def python_dials(node, link, daemon):
    channel = await Channel().dial(link, daemon)
    fact("aiortc dials the node: ICE, DTLS, SCTP, and both binds hold")
    expect(await until("a direct path", lambda: path_of(node)[0] == "direct" and path_of(node)) ==
           ("direct", "webrtc"), "the node says: direct, over webrtc")
    await channel.put(b"over a data channel")
    expect(node.texts() == ["over a data channel"], "its sealed message is receipted on the channel, and shown")
    saying = asyncio.create_task(beside(node, "send", "python", "and back"))
    got = await channel.mail()
    said = await saying
    expect(got.body[1] == b"and back", "the node's sealed message comes on the channel and opens")
    expect((said["state"], said["path"], said["transport"]) == ("stored", "direct", "webrtc"),
           "the node says: stored, directly, over webrtc")
    large = b"x" * 300_000
    await channel.put(large)
    expect(node.texts()[-1] == large.decode(), "a message of 300 kB, cut into many of the channel's, arrives whole")
    await channel.close()
    await until("the node to see the close", lambda: path_of(node)[0] != "direct")
    fact("the channel's last word ends the link at the node")


async def node_dials(node, link):
    """The link was in use: the node makes another by itself."""
    channel = await Channel().accept(link)
    fact("the node dials aiortc: ICE, DTLS, SCTP, and both binds hold")
    expect(await until("a direct path", lambda: path_of(node)[0] == "direct" and path_of(node)) ==
           ("direct", "webrtc"), "the node says: direct, over webrtc")
    asking = asyncio.create_task(beside(node, "ping", "python"))
    while not asking.done():
        await channel.idle(0.1)
    pinged = asking.result()
    expect("webrtc" in {sample.get("transport") for sample in pinged["samples"] if sample["path"] == "direct"},
           "its ping is answered on the channel")
    await channel.put(b"heard you")
    expect(node.texts()[-1] == "heard you", "a sealed message over it is receipted, and shown")
    return channel


async def quic(link, daemon):
    announced, other = quic_certificate(), quic_certificate()
    expect(await quic_attempt(link, daemon, announced, announced) == BIND,
           "aioquic under the certificate it announced is let in, and the node binds")
    ended = await quic_attempt(link, daemon, announced, other)
    expect(not isinstance(ended, int), f"aioquic under another one is refused: {ended}")


async def all_of_it(node, origin):
    invite = node.run("invite")[0]
    python, log = join(origin, Code.parse(invite["code"]), "python")
    link = DirectLink(origin, log, python)
    link.start()
    daemon = log.handles["laptop"]
    await until("the node to see python", lambda: any(
        peer["handle"] == "python" and peer["online"] for peer in node.run("peers")[0]["peers"]))
    await python_dials(node, link, daemon)
    channel = await node_dials(node, link)
    await channel.close()
    await quic(link, daemon)
    link.goodbye()


def main():
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--coordinator", required=True, type=pathlib.Path)
    arguments.add_argument("--peerloom", required=True, type=pathlib.Path)
    given = arguments.parse_args()
    try:
        with tempfile.TemporaryDirectory(prefix="peerloom-direct-") as name:
            directory = pathlib.Path(name)
            with coordinator(given.coordinator.resolve(), directory) as running:
                origin = origin_of(running)
                node = Node(given.peerloom.resolve(), directory, "laptop")
                node.run("init", "acme", "--coordinator", origin, "--name", "laptop")
                with node.up():
                    soon("the daemon to connect", node.connected)
                    asyncio.run(all_of_it(node, origin))
    except (AssertionError, Refused, HttpError, OSError, TimeoutError, asyncio.TimeoutError):
        traceback.print_exc(file=sys.stdout)
        print("FAIL", flush=True)
        return 1
    print("all of it holds", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
