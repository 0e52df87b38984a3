#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Packets that were captured are played again: into the same connection at once, and into the next one between the same queue pairs.
(Into the same one when the PSNs have come round: data_wrap.py.)"""
import lab as rig
from lab import SEND_ONLY, SEND_ONLY_IMM, seen_packet, uroce_counters

ARGUMENTS = rig.options(__doc__)
LAB = rig.Lab(ARGUMENTS)
NAME = "replay"


def capture(sniffer, client, server, texts):
    """What the client's messages look like on the wire."""
    found = []
    for text in texts:
        client.say(f"send 0 {text}")
        server.must("message", text=text)
        found.append(seen_packet(sniffer, SEND_ONLY, text=text))
    return found


def at_once():
    server, client, _, _ = LAB.victims()
    sniffer = LAB.sniff()
    packets = capture(sniffer, client, server, ["pay 100"])
    sent = LAB.play(packets)
    again = server.event("message", 2, text="pay 100") is not None
    if not LAB.rxe and uroce_counters(server)["duplicates"] != 1:
        raise SystemExit("attack: the packet did not arrive")
    LAB.report(NAME, "on-path, sees", "the packets", "plain verbs", "RC itself: a duplicate is acknowledged, not executed",
               "a SEND, into the same connection at once", "failed", again, **sent)
    LAB.clear()


def next_connection():
    """The two programs use their queue pairs again, as pools do."""
    for words, defence, expected in (((), "none: PSN 0", "succeeded"), (("--random-psn",), "random PSN for each connection", "failed")):
        server, client, first, _ = LAB.victims(*words)
        sniffer = LAB.sniff()
        packets = capture(sniffer, client, server, ["pay 100", "pay 200", "pay 300"])
        client.say("again")
        server.must("gone")
        second = server.must("connected")
        if second["qpn"] != first["qpn"]:
            raise SystemExit("attack: the queue pair is another one")
        sent = LAB.play(packets)
        again = all(server.event("message", 2, text=text) is not None for text in ("pay 100", "pay 200", "pay 300"))
        LAB.report(NAME, "on-path of the first connection", "its packets", "plain verbs", defence,
                   "SENDs of one connection, into the next one of the same queue pairs", expected, again, **sent)
        LAB.clear()


def securdma_next():
    """A new connection of the same client: another queue pair, other PSNs, other keys."""
    server = LAB.serve()
    sniffer = LAB.sniff()
    client = LAB.connect(server)
    client.ask("send pay 100")
    packets = [seen_packet(sniffer, SEND_ONLY_IMM)]
    client.ask("quit")
    client.stop()
    again = LAB.connect(server)
    sent = LAB.play(packets)
    # The QPN is forced to that of the new connection, as if the device had given it again.
    good = again.ask("send still here")
    seen = seen_packet(sniffer, SEND_ONLY_IMM, text="still here")
    forced = LAB.spoof("--op", "send-imm", "--qpn", seen["qpn"], "--psn", packets[0]["psn"], "--imm", packets[0]["imm"], "--text", "pay 100")
    better = again.ask("send still there")
    taken = good is None or not good.endswith("still here") or better is None or not better.endswith("still there")
    LAB.report(NAME, "on-path of the first connection", "its packets", "securdma", "a new queue pair and new PSNs for each connection",
               "a message of one connection, into the next; also with the QPN put right", "failed", taken,
               packets=sent["packets"] + forced["packets"], seconds=sent["seconds"] + forced["seconds"])
    LAB.clear()


at_once()
next_connection()
securdma_next()
LAB.end()
