#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Somebody between the two ends changes data on its way. The ICRC has no key: whoever changes a packet puts it right."""
import lab as rig
from lab import to_host

ARGUMENTS = rig.options(__doc__)
LAB = rig.Lab(ARGUMENTS)
NAME = "change in flight"
POSITION = "on-path, relays"


class Between:
    """All frames of client and server pass a program."""

    def __init__(self, *words):
        LAB.unbridge("client", "server")
        self.program = LAB.run("switch", rig.FORGE, "relay", "p-client", "p-server", *words)
        if self.program.next(lambda line: line.get("relaying")) is None:
            raise SystemExit(f"attack: no relay: {self.program.log()}")

    def over(self):
        counts = self.program.finish()
        LAB.bridge("client", "server")
        return counts


def plain(words, defence, expected, v6=False):
    between = Between("--find", "100", "--put", "999", *words)
    server, client, _, _ = LAB.victims("--random-psn", v6=v6)
    client.say("send 0 pay 100")
    arrived = server.event("message", 2)
    counts = between.over()
    if not counts["changed"]:
        raise SystemExit("attack: nothing was changed")
    LAB.report(NAME, POSITION, "everything", "plain verbs", defence, f"\"pay 100\" to \"pay 999\", over {'IPv6' if v6 else 'IPv4'}", expected,
               arrived is not None and arrived["text"] == "pay 999", packets=counts["changed"])
    LAB.clear()


def securdma_message(words, defence, expected):
    """Changes a message, and its echo back, so that only the server's program is deceived."""
    between = Between("--find", "100", "--put", "999") if expected == "succeeded" else Between("--flip", "7")
    server = LAB.serve(*words)
    sniffer = LAB.sniff("p-server")
    client = LAB.connect(server, *words)
    answer = client.ask("send pay 100")
    counts = between.over()
    # What the server's program took for the message is in its echo.
    echo = sniffer.next(lambda line: to_host(line, "client") and b"pay 999".hex() in line["bytes"], 2) if expected == "succeeded" else None
    deceived = answer is not None and answer.endswith("pay 100") and echo is not None
    if expected == "failed":
        deceived = answer is not None and answer.startswith("client") and counts["changed"] > 0
    what = "a message; the client does not notice" if expected == "succeeded" else "a message: one bit of it"
    LAB.report(NAME, POSITION, "everything", "securdma", defence, what, expected, deceived, packets=counts["changed"])
    LAB.clear()


def securdma_region(words, defence, expected):
    """Changes what is written into the region."""
    between = Between("--find", "100", "--put", "999") if expected == "succeeded" else Between("--flip", "7")
    server = LAB.serve(*words)
    client = LAB.connect(server, *words)
    client.ask("write 0 pay 100")
    counts = between.over()
    if not counts["changed"]:
        raise SystemExit("attack: nothing was changed")
    answer = client.ask("read 0 7")
    what = "an RDMA WRITE" if expected == "succeeded" else "a write: one bit of it"
    LAB.report(NAME, POSITION, "everything", "securdma", defence, what, expected,
               answer is not None and len(answer) == 7 and answer != "pay 100", packets=counts["changed"])
    LAB.clear()


def sealed_bulk():
    """Long writes are pulled through a ring; a bit of them is changed there."""
    between = Between("--flip", "512")
    server = LAB.serve("--seal", "required", "--region-size", "1M")
    guest = LAB.guest(server, "--seal")
    guest.say("spend 64")
    answer = guest.next(lambda line: line["event"] in ("spent", "broken"), 20)
    counts = between.over()
    if not counts["changed"]:
        raise SystemExit("attack: nothing was changed")
    LAB.report(NAME, POSITION, "everything", "securdma", "sealed", "a long write on its way: one bit of each packet", "failed",
               answer is not None and answer["event"] == "spent", packets=counts["changed"], note="detected; the connection ended")
    LAB.clear()


plain((), "ICRC: has no key", "succeeded")
if not LAB.rxe:
    plain((), "ICRC: has no key", "succeeded", v6=True)
plain(("--stale",), "ICRC, not put right", "failed")
SECURDMA = ((securdma_message, "a message: one bit of it"), (securdma_region, "a write: one bit of it"))
for attack, what in SECURDMA:
    attack((), "not sealed", "succeeded")
    if LAB.has("--seal"):
        attack(("--seal", "required"), "sealed", "failed")
    else:
        LAB.report(NAME, POSITION, "everything", "securdma", "sealed", what, "failed", None,
                   note="this build has no sealed channel")
if LAB.has("--seal"):
    sealed_bulk()
LAB.end()
