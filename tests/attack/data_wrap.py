#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Replay of a packet when the PSNs have come round: 2^24 packets later it is new again, in the same connection."""
import lab as rig
from lab import PSNS, SEND_ONLY, SEND_ONLY_IMM, WRITE_ONLY, arrived, missing, noted, seen_packet, to_host

ARGUMENTS = rig.options(__doc__)
LAB = rig.Lab(ARGUMENTS, cut=False)
NAME = "replay after the PSNs came round"
SPARE = 1000
SEALED_SPARE = 1 << 18  # each read takes some more: tags, and control records
SEALED_TRIED = "a message, into the same connection 2^24 PSNs later, which is where its PSN comes next"
SLOW = "takes 2^24 packets: not in the short form, nor in the emulation"


def plain():
    server, client, _, _ = LAB.victims("--random-psn", "--mtu", 256, "--region", 1 << 20)
    sniffer = LAB.sniff()
    client.say("send 0 pay 100")
    server.must("message", text="pay 100")
    packets = [seen_packet(sniffer, SEND_ONLY, text="pay 100")]
    sniffer.stop()
    # All PSNs but one, so that the next that the server expects is that of the message.
    client.say(f"spend 0 {PSNS - 1}")
    client.must("spent", 300)
    sent = LAB.play(packets)
    again = server.event("message", 3, text="pay 100") is not None
    LAB.report(NAME, "on-path, sees", "the packets", "plain verbs", "none: no epochs", "a SEND, into the same connection 2^24 PSNs later",
               "succeeded", again, **sent)
    LAB.clear()


def securdma(server_words, guest_words, defence, expected):
    """The client writes to its region until all but one PSN have been used since its message."""
    server = LAB.serve("--region-size", "1M", "--mtu", "256", *server_words)
    sniffer = LAB.sniff()
    client = LAB.guest(server, "--mtu", 256, *guest_words)
    client.say("send pay 100")
    client.must("echo")
    packet = seen_packet(sniffer, SEND_ONLY_IMM)
    sniffer.stop()
    client.say(f"spend {PSNS - SPARE}")
    epochs = client.must("spent", 300)["epoch"]
    # How far it is: credits use PSNs, too.
    sniffer = LAB.sniff()
    client.say("spend 1")
    client.must("spent")
    seen = seen_packet(sniffer, WRITE_ONLY)
    left = (packet["psn"] - seen["psn"] - 1) % PSNS
    if left < SPARE:
        client.say(f"spend {left}")
        client.must("spent")
    # With epochs the numbers have moved elsewhere meanwhile, and the distance says nothing.
    sent = LAB.play([packet])
    taken = sniffer.next(lambda line: line.get("opcode") == SEND_ONLY_IMM and to_host(line, "client") and
                         b"pay 100".hex() in line["bytes"], 3) is not None
    LAB.report(NAME, "on-path, sees", "the packets", "securdma", defence, "a message, into the same connection 2^24 PSNs later: does the "
               "server's program take and echo it?", expected, taken, **sent,
               note=f"{epochs} epochs since" if epochs else None)
    LAB.clear()


def sealed():
    """The same, sealed. Whose bytes they are has its PSNs used up by the other end's fetching, so the client reads."""
    server = LAB.listener("--seal", "--no-epochs", "--mtu", 256)
    sniffer = LAB.sniff()
    client = LAB.guest(server, "--mtu", 256, "--seal", "--no-epochs")
    client.say("send pay 100")
    client.must("echo")
    packet = seen_packet(sniffer, SEND_ONLY_IMM)
    sniffer.stop()
    client.say(f"drain {PSNS - SEALED_SPARE}")
    client.must("drained", 600)
    sniffer = LAB.sniff()
    client.say("send nearly")
    client.must("echo")
    left = (packet["psn"] - seen_packet(sniffer, SEND_ONLY_IMM)["psn"] - 1) % PSNS
    sniffer.stop()
    if left > SEALED_SPARE:
        raise SystemExit(f"attack: {left} PSNs are left: too many were used")
    # One each, and their credits come back with the echoes.
    client.say(f"count {left}")
    counted = client.must("counted", 300)
    sent = LAB.play([packet])
    ended = server.event("ended", 5)
    told = server.event("log", 3, which="client.lost")
    texts, _ = arrived(server, 0.1)
    wrong = missing(counted=counted["wrong"] == 0, not_twice=texts.count("pay 100") == 1, nothing_else=len(texts) == left + 2,
                    cause=ended and ended["error"] == rig.ESEAL, security=told and told["security"])
    LAB.report(NAME, "on-path, sees", "the packets", "securdma", "sealed; no epochs", SEALED_TRIED, "failed", bool(wrong), **sent,
               note=noted(wrong, "detected; the connection ended"))
    LAB.clear()


if LAB.short:
    LAB.report(NAME, "on-path, sees", "the packets", "plain verbs", "none: no epochs", "a SEND, into the same connection 2^24 PSNs later",
               "succeeded", None, note=SLOW)
    LAB.report(NAME, "on-path, sees", "the packets", "securdma", "epochs: new PSNs before half of them are used",
               "a message, into the same connection 2^24 PSNs later", "failed", None, note=SLOW)
    LAB.report(NAME, "on-path, sees", "the packets", "securdma", "sealed; no epochs", SEALED_TRIED, "failed", None, note=SLOW)
else:
    plain()
    if LAB.has("--epoch-psns"):
        securdma(("--epoch-psns", "0", "--recoveries", "0"), ("--no-epochs",), "none: no epochs", "succeeded")
        securdma((), (), "epochs: new PSNs before half of them are used", "failed")
    else:
        securdma((), (), "none: no epochs", "succeeded")
        LAB.report(NAME, "on-path, sees", "the packets", "securdma", "epochs: new PSNs before half of them are used",
                   "a message, into the same connection 2^24 PSNs later", "failed", None, note="this build has no epochs")
    if LAB.has("--seal"):
        sealed()
LAB.end()
