#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""An attacker sends captured packets again: into the same connection at once, and into the next one between the same queue pairs.
(data_wrap.py does it when the PSNs have wrapped.) Another one suppresses messages or swaps them."""
import lab as rig
from lab import SEND_ONLY, SEND_ONLY_IMM, after, arrived, missing, noted, seen_packet, uroce_counters

LAB = rig.Lab(rig.options(__doc__))
PAYMENTS = ("pay 100", "pay 200", "pay 300")
DUPLICATE = "RC itself: it acknowledges a duplicate and does not execute it"


def tell(position, knowledge, victim, defence, tried, expected, succeeded, **more):
    LAB.conclude("replay", position, knowledge, victim, defence, tried, expected, succeeded, **more)


def capture(sniffer, client, server, texts):
    """The packets of the client's messages."""
    found = []
    for text in texts:
        client.say(f"send 0 {text}")
        server.must("message", text=text)
        found.append(seen_packet(sniffer, SEND_ONLY, text=text))
    return found


def at_once():
    server, client, _, _ = LAB.victims()
    packets = capture(LAB.sniff(), client, server, PAYMENTS[:1])
    sent = LAB.play(packets)
    again = server.event("message", 2, text=PAYMENTS[0]) is not None
    if not LAB.rxe and uroce_counters(server)["duplicates"] != 1:
        raise SystemExit("attack: the packet did not arrive")
    tell("on-path, sees", "the packets", "plain verbs", DUPLICATE, "a SEND, into the same connection at once", "failed", again, **sent)


def next_connection(words, defence, expected):
    """The two programs use their queue pairs again, as pools do."""
    server, client, first, _ = LAB.victims(*words)
    packets = capture(LAB.sniff(), client, server, PAYMENTS)
    client.say("again")
    server.must("gone")
    if server.must("connected")["qpn"] != first["qpn"]:
        raise SystemExit("attack: the queue pair is another one")
    sent = LAB.play(packets)
    again = all(server.event("message", 2, text=text) is not None for text in PAYMENTS)
    tell("on-path of the first connection", "its packets", "plain verbs", defence, "SENDs of one connection, into the next one of the same queue pairs",
         expected, again, **sent)


def securdma_next():
    """A new connection of the same client has another queue pair, other PSNs, and other keys."""
    server, sniffer, client, packet = LAB.observed(command="send pay 100")
    client.ask("quit")
    client.stop()
    again = LAB.connect(server)
    sent = LAB.play([packet])
    good = again.ask("send still here")
    # With the QPN of the new connection, as if the device had given the same one again.
    seen = seen_packet(sniffer, SEND_ONLY_IMM, text="still here")
    forced = LAB.spoof("--op", "send-imm", "--qpn", seen["qpn"], "--psn", packet["psn"], "--imm", packet["imm"], "--text", "pay 100")
    better = again.ask("send still there")
    taken = good is None or not good.endswith("still here") or better is None or not better.endswith("still there")
    tell("on-path of the first connection", "its packets", "securdma", "a new queue pair and new PSNs for each connection",
         "a message of one connection, into the next; also with the QPN corrected", "failed", taken,
         packets=sent["packets"] + forced["packets"], seconds=sent["seconds"] + forced["seconds"])


def outcome(server, genuine, seal, plainly, note, plain_note=None):
    """What `defence, expected, succeeded, note` are when the server's program took `plainly`. A sealed connection takes nothing but the
    genuine messages; it ends because of the forgery, and the log says so."""
    if not seal:
        texts, ended = arrived(server)
        return "none (not sealed)", "succeeded", texts == plainly and ended is None, plain_note
    ended = server.event("ended", 3)
    told = server.event("log", 3, which="client.lost")
    texts, _ = arrived(server, 0.1)
    wrong = missing(nothing_else=texts == genuine, cause=ended and ended["error"] == rig.ESEAL, security=told and told["security"])
    return "sealed, with seal threads" if "--seal-threads" in seal else "sealed", "failed", bool(wrong), noted(wrong, note)


def sealed_at_once():
    """The same bytes: the PSN was used before."""
    server, _, client, packet = LAB.observed_guest("--seal")
    sent = LAB.play([packet])
    client.say("send still here")
    echo = client.event("echo", 5)
    texts, ended = arrived(server)
    wrong = missing(once=texts == ["pay 100", "still here"], goes_on=echo is not None and ended is None,
                    arrived=LAB.rxe or uroce_counters(server)["duplicates"] == 1)
    tell("on-path, sees", "the packets", "securdma", f"sealed; {DUPLICATE}", "a message, into the same connection at once", "failed", bool(wrong),
         **sent, note=noted(wrong, "the connection goes on"))


def corrected(*seal):
    """With the PSN that comes next, RC takes it for the next packet."""
    server, _, _, packet = LAB.observed_guest(*seal)
    sent = LAB.play([packet], "--psn", after(packet["psn"]))
    defence, expected, succeeded, note = outcome(server, ["pay 100"], seal, ["pay 100", "pay 100"], "detected; the connection ended")
    tell("on-path, sees", "the packets", "securdma", defence, "a message, into the same connection at once, with the PSN corrected", expected,
         succeeded, **sent, note=note)


def next_corrected(*seal):
    """A packet of one connection, into the next, with all numbers of that one."""
    server, sniffer, client, packet = LAB.observed_guest(*seal)
    client.finish()
    server.must("ended")
    server.seen.clear()
    client = LAB.guest(server, *seal)
    client.do("send hello", "echo")
    seen = next(one for one in iter(lambda: seen_packet(sniffer, SEND_ONLY_IMM), None) if one["qpn"] != packet["qpn"])
    sent = LAB.play([packet], "--qpn", seen["qpn"], "--psn", after(seen["psn"]))
    defence, expected, succeeded, note = outcome(server, ["hello"], seal, ["hello", "pay 100"], "detected; the connection ended")
    tell("on-path of both connections", "the packets of both", "securdma", defence,
         "a message of one connection, into the next, with QPN and PSN corrected", expected, succeeded, **sent, note=note)


def relayed(name, words, tried, plainly, *seal):
    """Three messages, of which the relay changes the second and the third. `plainly`: what a server that does not seal takes."""
    between = LAB.between(*words)
    server = LAB.listener(*seal)
    client = LAB.guest(server, *seal)
    client.do("send one", "echo")
    client.do("tell two\ntell three", "told")
    client.event("told", 5)
    defence, expected, succeeded, note = outcome(
        server, ["one"], seal, plainly, "detected with the next record; the connection ended",
        f"the server's program has received {', '.join(plainly)}; neither end has noticed")
    counts = between.over()
    if counts["changed"] == 0:
        raise SystemExit("attack: nothing was changed")
    LAB.conclude(name, "on-path, relays", "everything", "securdma", defence, tried, expected, succeeded, packets=counts["changed"], note=note)


at_once()
next_connection((), "none: PSN 0", "succeeded")
next_connection(("--random-psn",), "random PSN for each connection", "failed")
securdma_next()
sealed_at_once()
for words in ((), ("--seal",), ("--seal", "--seal-threads", "2")):
    corrected(*words)
    if "--seal-threads" not in words:
        next_corrected(*words)
    relayed("suppression", ("--suppress", 2), "the relay drops a message, acknowledges it in the server's name, and renumbers what follows",
            ["one", "three"], *words)
    relayed("reordering", ("--swap", 2), "the relay swaps two messages that follow each other", ["one", "three", "two"], *words)
LAB.end()
