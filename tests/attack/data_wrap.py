#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Replay of a packet when the PSNs have come round: 2^24 packets later it is new again, in the same connection."""
import lab as rig
from lab import PSNS, SEND_ONLY, SEND_ONLY_IMM, seen_packet

ARGUMENTS = rig.options(__doc__)
LAB = rig.Lab(ARGUMENTS, cut=False)
NAME = "replay after the PSNs came round"
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


def securdma(words, defence, expected):
    server = LAB.serve("--region-size", "1M", "--mtu", "256", *words)
    sniffer = LAB.sniff()
    client = LAB.on_device("client", rig.BUILD + "/tests/attack/spender", LAB.certificates(), rig.ADDRESS["server"], server.port,
                           *[word for word in words if not word.startswith("--")])
    client.must("connected")
    client.say("send pay 100")
    client.must("echo")
    packets = [seen_packet(sniffer, SEND_ONLY_IMM)]
    sniffer.stop()
    client.say(f"spend {PSNS - 1}")
    client.must("spent", 300)
    echo = LAB.sniff()
    sent = LAB.play(packets)
    taken = echo.next(lambda line: line.get("opcode") == SEND_ONLY_IMM and b"pay 100".hex() in line["bytes"] and
                      line["to"] == rig.ADDRESS["client"], 3) is not None
    LAB.report(NAME, "on-path, sees", "the packets", "securdma", defence, "a message, into the same connection 2^24 PSNs later: does the "
               "server's program take and echo it?", expected, taken, **sent)
    LAB.clear()


if LAB.short:
    LAB.report(NAME, "on-path, sees", "the packets", "plain verbs", "none: no epochs", "a SEND, into the same connection 2^24 PSNs later",
               "succeeded", None, note=SLOW)
else:
    plain()
LAB.end()
