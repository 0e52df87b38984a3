#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""ReDMArk's A3: a client that is let in reaches for the memory of another one, whose rkey and address it has learnt."""
import lab as rig
from lab import READ_ONLY, WRITE_ONLY, after, seen_packet, to_host

ARGUMENTS = rig.options(__doc__)
LAB = rig.Lab(ARGUMENTS)
NAME = "A3 foreign memory"
POSITION = "a client"
KNOWS = "the other client's rkey and address"


def plain(words, defence, expected):
    """A server of two clients; the second writes where the first one's data lies."""
    port = LAB.next_port()
    server = LAB.on_device("server", rig.VICTIM, "serve", port, "--device", LAB.server_device, "--address", rig.ADDRESS["server"], "--clients",
                           2, *words)
    server.must("listening")
    LAB.on_device("client", rig.VICTIM, "connect", rig.ADDRESS["server"], port, "--device", "uroce0", "--address", rig.ADDRESS["client"])
    honest = server.must("connected")
    rogue = LAB.on_device("rogue", rig.VICTIM, "connect", rig.ADDRESS["server"], port, "--device", "uroce0", "--address", rig.ADDRESS["rogue"])
    server.must("connected")
    rogue.must("connected")
    # Its own region first: that it works at all.
    rogue.say("write 0 0 mine")
    rogue.must("done")
    rogue.say(f"steal 0 {honest['rkey']} {honest['va']} FORGED!")
    answer = rogue.next(lambda line: line["event"] in ("done", "broken"), 5)
    server.say("region 0")
    region = server.must("region")["text"]
    LAB.report(NAME, POSITION, KNOWS, "plain verbs", defence, "an RDMA WRITE to the other client's region on the server", expected,
               region.startswith("FORGED!"), packets=1, note=None if answer is None or answer["event"] == "done" else answer["status"])
    LAB.clear()


def securdma():
    """The command has no way to name another's key: so the packet is forged, from the client's own address and queue pair."""
    server = LAB.serve()
    near_honest, near_rogue = LAB.sniff("p-client"), LAB.sniff("p-rogue")
    honest = LAB.connect(server)
    rogue = LAB.connect(server, name="greedy", host="rogue")
    honest.ask("write 0 genuine")
    target = seen_packet(near_honest, WRITE_ONLY)
    rogue.ask("write 0 mine")
    own = seen_packet(near_rogue, WRITE_ONLY, **{"from": rig.ADDRESS["rogue"]})
    if own["qpn"] == target["qpn"]:
        raise SystemExit("attack: the same queue pair")
    to = ["send", "--from", rig.ADDRESS["rogue"], "--to", rig.ADDRESS["server"], "--qpn", own["qpn"]]
    # A READ of its own region answers: so the forged packets are taken for the client's.
    LAB.forge("rogue", *to, "--op", "read", "--psn", after(own["psn"]), "--rkey", own["rkey"], "--va", own["va"], "--length", 4)
    if near_rogue.next(lambda line: line.get("opcode") == READ_ONLY and to_host(line, "rogue") and line["text"] == "mine", 3) is None:
        raise SystemExit("attack: the forged packet was not taken for the client's")
    sent = LAB.forge("rogue", *to, "--op", "write", "--psn", after(own["psn"], 2), "--rkey", target["rkey"], "--va", target["va"], "--text",
                     "FORGED!")
    region = honest.ask("read 0 7")
    LAB.report(NAME, POSITION, KNOWS, "securdma", "a protection domain for each client", "an RDMA WRITE to the other client's region on the server",
               "failed", region != "genuine", **sent)
    LAB.clear()


plain((), "none: one protection domain", "succeeded")
plain(("--own-pd",), "a protection domain for each client", "failed")
plain(("--windows",), "type 2 memory windows", "failed")
securdma()
LAB.end()
