#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Replay of a packet when the PSNs have wrapped: 2^24 packets later its PSN is the next one again, in the same connection."""
import lab as rig
from lab import PSNS, SEND_ONLY, SEND_ONLY_IMM, WRITE_ONLY, arrived, missing, noted, seen_packet, to_host

ARGUMENTS = rig.options(__doc__)
LAB = rig.Lab(ARGUMENTS, cut=False)
SPARE = 1000
SEALED_SPARE = 1 << 18  # each read uses a few more, for tags and control records
MESSAGE = "a message, into the same connection 2^24 PSNs later, where its PSN is the next one"


def tell(victim, defence, tried, expected, succeeded, **more):
    LAB.conclude("replay after the PSNs wrapped", "on-path, sees", "the packets", victim, defence, tried, expected, succeeded, **more)


def plain(defence, tried, expected):
    server, client, _, _ = LAB.victims("--random-psn", "--mtu", 256, "--region", 1 << 20)
    sniffer = LAB.sniff()
    client.say("send 0 pay 100")
    server.must("message", text="pay 100")
    packets = [seen_packet(sniffer, SEND_ONLY, text="pay 100")]
    sniffer.stop()
    # All PSNs but one, so that the next that the server expects is that of the message.
    client.do(f"spend 0 {PSNS - 1}", "spent", 300)
    sent = LAB.play(packets)
    tell("plain verbs", defence, tried, expected, server.event("message", 3, text="pay 100") is not None, **sent)


def securdma(server_words, guest_words, defence, tried, expected):
    """The client writes to its region until all but one PSN have been used since its message."""
    server = LAB.serve("--region-size", "1M", "--mtu", "256", *server_words)
    sniffer = LAB.sniff()
    client = LAB.guest(server, "--mtu", 256, *guest_words)
    client.do("send pay 100", "echo")
    packet = seen_packet(sniffer, SEND_ONLY_IMM)
    sniffer.stop()
    epochs = client.do(f"spend {PSNS - SPARE}", "spent", 300)["epoch"]
    # Credits use PSNs, too: see how many are left.
    sniffer = LAB.sniff()
    client.do("spend 1", "spent")
    left = (packet["psn"] - seen_packet(sniffer, WRITE_ONLY)["psn"] - 1) % PSNS
    if left < SPARE:
        client.do(f"spend {left}", "spent")
    # With epochs the PSNs have changed meanwhile, and the distance means nothing.
    sent = LAB.play([packet])
    taken = sniffer.next(lambda line: line.get("opcode") == SEND_ONLY_IMM and to_host(line, "client") and
                         b"pay 100".hex() in line["bytes"], 3) is not None
    tell("securdma", defence, tried, expected, taken, **sent, note=f"{epochs} epochs since" if epochs else None)


def sealed(defence, tried, expected):
    """The end that fetches the data uses the PSNs, so the client reads."""
    server, sniffer, client, packet = LAB.observed_guest("--seal", "--no-epochs", "--mtu", 256)
    sniffer.stop()
    client.do(f"drain {PSNS - SEALED_SPARE}", "drained", 600)
    sniffer = LAB.sniff()
    client.do("send nearly", "echo")
    left = (packet["psn"] - seen_packet(sniffer, SEND_ONLY_IMM)["psn"] - 1) % PSNS
    sniffer.stop()
    if left > SEALED_SPARE:
        raise SystemExit(f"attack: {left} PSNs are left: too many were used")
    # Each message uses one, and the echoes bring the credits.
    counted = client.do(f"count {left}", "counted", 300)
    sent = LAB.play([packet])
    ended = server.event("ended", 5)
    told = server.event("log", 3, which="client.lost")
    texts, _ = arrived(server, 0.1)
    wrong = missing(counted=counted["wrong"] == 0, not_twice=texts.count("pay 100") == 1, nothing_else=len(texts) == left + 2,
                    cause=ended and ended["error"] == rig.ESEAL, security=told and told["security"])
    tell("securdma", defence, tried, expected, bool(wrong), **sent, note=noted(wrong, "detected; the connection ended"))


def attempt(attack, *words, victim="securdma"):
    """`words` end with the defence, what is tried, and the expectation."""
    if LAB.short:
        tell(victim, *words[-3:], None, note="takes 2^24 packets: not in the short form, nor in the emulation")
    else:
        attack(*words)


attempt(plain, "none: no epochs", "a SEND, into the same connection 2^24 PSNs later", "succeeded", victim="plain verbs")
attempt(securdma, ("--epoch-psns", "0", "--recoveries", "0"), ("--no-epochs",), "none: no epochs", MESSAGE, "succeeded")
attempt(securdma, (), (), "epochs: new PSNs before half of them are used", MESSAGE, "failed")
attempt(sealed, "sealed; no epochs", MESSAGE, "failed")
LAB.end()
