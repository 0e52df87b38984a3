#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""ReDMArk's A3: an admitted client reaches for the memory of another one, whose rkey and address it has learnt."""
import lab as rig
from lab import READ_ONLY, WRITE_ONLY, after, seen_packet, to_host

LAB = rig.Lab(rig.options(__doc__))


def tell(victim, defence, expected, succeeded, **more):
    LAB.conclude("A3 foreign memory", "a client", "the other client's rkey and address", victim, defence,
                 "an RDMA WRITE to the other client's region on the server", expected, succeeded, **more)


def plain(words, defence, expected):
    """A server of two clients; the second writes to the first one's data."""
    server = LAB.victim_server("--clients", 2, *words)
    LAB.victim_client(server)
    honest = server.must("connected")
    rogue = LAB.victim_client(server, host="rogue")
    server.must("connected")
    rogue.must("connected")
    rogue.do("write 0 0 mine", "done")  # its own region: writing works
    rogue.say(f"steal 0 {honest['rkey']} {honest['va']} FORGED!")
    answer = rogue.next(lambda line: line["event"] in ("done", "broken"), 5)
    region = server.do("region 0", "region")["text"]
    tell("plain verbs", defence, expected, region.startswith("FORGED!"), packets=1,
         note=None if answer is None or answer["event"] == "done" else answer["status"])


def securdma():
    """The command cannot use another client's key, so the packet is forged, from the client's own address and queue pair."""
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
    # A READ of its own region gets an answer, so the server accepts forged packets as the client's.
    LAB.forge("rogue", *to, "--op", "read", "--psn", after(own["psn"]), "--rkey", own["rkey"], "--va", own["va"], "--length", 4)
    if near_rogue.next(lambda line: line.get("opcode") == READ_ONLY and to_host(line, "rogue") and line["text"] == "mine", 3) is None:
        raise SystemExit("attack: the server did not accept the forged packet as the client's")
    sent = LAB.forge("rogue", *to, "--op", "write", "--psn", after(own["psn"], 2), "--rkey", target["rkey"], "--va", target["va"], "--text",
                     "FORGED!")
    tell("securdma", "a protection domain for each client", "failed", honest.ask("read 0 7") != "genuine", **sent)


plain((), "none: one protection domain", "succeeded")
plain(("--own-pd",), "a protection domain for each client", "failed")
plain(("--windows",), "type 2 memory windows", "failed")
securdma()
LAB.end()
