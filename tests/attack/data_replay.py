#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Packets that were captured are played again: into the same connection at once, and into the next one between the same queue pairs.
(Into the same one when the PSNs have come round: data_wrap.py.) Messages that are suppressed, or change places."""
import lab as rig
from lab import SEND_ONLY, SEND_ONLY_IMM, after, arrived, missing, noted, seen_packet, uroce_counters

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


def shown(seal):
    """A server that shows what it takes, and a client of it."""
    words = ("--seal",) if seal else ()
    server = LAB.listener(*words)
    return server, LAB.guest(server, *words)


def detected(server, genuine):
    """What does not hold of: nothing but the genuine messages was taken, and the connection ended for the forgery, which was told."""
    ended = server.event("ended", 3)
    told = server.event("log", 3, which="client.lost")
    texts, _ = arrived(server, 0.1)
    return missing(nothing_else=texts == genuine, cause=ended and ended["error"] == rig.ESEAL, security=told and told["security"])


def sealed_at_once():
    """Byte by byte as it was: its PSN is one that was used."""
    server, client = shown(True)
    sniffer = LAB.sniff()
    client.say("send pay 100")
    client.must("echo")
    packet = seen_packet(sniffer, SEND_ONLY_IMM)
    sent = LAB.play([packet])
    client.say("send still here")
    echo = client.event("echo", 5)
    texts, ended = arrived(server)
    wrong = missing(once=texts == ["pay 100", "still here"], goes_on=echo is not None and ended is None,
                    arrived=LAB.rxe or uroce_counters(server)["duplicates"] == 1)
    LAB.report(NAME, "on-path, sees", "the packets", "securdma", "sealed; RC itself: a duplicate is acknowledged, not executed",
               "a message, into the same connection at once", "failed", bool(wrong), **sent, note=noted(wrong, "the connection goes on"))
    LAB.clear()


def put_right(seal):
    """With the number that comes next: then RC takes it for the next one."""
    server, client = shown(seal)
    sniffer = LAB.sniff()
    client.say("send pay 100")
    client.must("echo")
    packet = seen_packet(sniffer, SEND_ONLY_IMM)
    sent = LAB.play([packet], "--psn", after(packet["psn"]))
    if seal:
        wrong = detected(server, ["pay 100"])
        succeeded, note = bool(wrong), noted(wrong, "detected; the connection ended")
    else:
        succeeded, note = arrived(server)[0] == ["pay 100", "pay 100"], None
    LAB.report(NAME, "on-path, sees", "the packets", "securdma", "sealed" if seal else "none (not sealed)",
               "a message, into the same connection at once, with the PSN put right", "failed" if seal else "succeeded", succeeded, **sent, note=note)
    LAB.clear()


def next_put_right(seal):
    """What one connection sent, into the next one, with all numbers as that one has them."""
    server, client = shown(seal)
    sniffer = LAB.sniff()
    client.say("send pay 100")
    client.must("echo")
    packet = seen_packet(sniffer, SEND_ONLY_IMM)
    client.finish()
    server.must("ended")
    server.seen.clear()
    client = LAB.guest(server, *(("--seal",) if seal else ()))
    client.say("send hello")
    client.must("echo")
    seen = next(one for one in iter(lambda: seen_packet(sniffer, SEND_ONLY_IMM), None) if one["qpn"] != packet["qpn"])
    sent = LAB.play([packet], "--qpn", seen["qpn"], "--psn", after(seen["psn"]))
    if seal:
        wrong = detected(server, ["hello"])
        succeeded, note = bool(wrong), noted(wrong, "detected; the connection ended")
    else:
        succeeded, note = arrived(server)[0] == ["hello", "pay 100"], None
    LAB.report(NAME, "on-path of both connections", "the packets of both", "securdma", "sealed" if seal else "none (not sealed)",
               "a message of one connection, into the next, with QPN and PSN put right", "failed" if seal else "succeeded", succeeded, **sent,
               note=note)
    LAB.clear()


def relayed(name, seal, words, what, plainly):
    """Three messages, of which somebody in between has the second and the third. `plainly`: what a plain server takes."""
    between = LAB.between(*words)
    server, client = shown(seal)
    client.say("send one")
    client.must("echo")
    client.say("tell two\ntell three")
    client.must("told")
    client.event("told", 5)
    if seal:
        wrong = detected(server, ["one"])
        succeeded, note = bool(wrong), noted(wrong, "detected with the next record; the connection ended")
    else:
        texts, ended = arrived(server)
        succeeded, note = texts == plainly and ended is None, f"the server's program has {', '.join(texts)}; none of the ends knows yet"
    counts = between.over()
    if counts["changed"] == 0:
        raise SystemExit("attack: nothing was changed")
    LAB.report(name, "on-path, relays", "everything", "securdma", "sealed" if seal else "none (not sealed)", what,
               "failed" if seal else "succeeded", succeeded, packets=counts["changed"], note=note)
    LAB.clear()


SUPPRESS = "a message is dropped and acknowledged in the server's name, and what follows renumbered"
SWAP = "two messages that follow each other change places"
at_once()
next_connection()
securdma_next()
put_right(False)
next_put_right(False)
relayed("suppression", False, ("--suppress", 2), SUPPRESS, ["one", "three"])
relayed("reordering", False, ("--swap", 2), SWAP, ["one", "three", "two"])
if LAB.has("--seal"):
    sealed_at_once()
    put_right(True)
    next_put_right(True)
    relayed("suppression", True, ("--suppress", 2), SUPPRESS, [])
    relayed("reordering", True, ("--swap", 2), SWAP, [])
else:
    LAB.report(NAME, "on-path, sees", "the packets", "securdma", "sealed", "messages", "failed", None, note="this build has no sealed channel")
LAB.end()
