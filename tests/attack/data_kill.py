#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""ReDMArk's A2: one packet ends a connection. It needs the PSN and the QPN, but no rkey: a bad one does it."""
import time

import lab as rig
from lab import ACK, SEND_ONLY, SEND_ONLY_IMM, after, seen_packet

ARGUMENTS = rig.options(__doc__)
LAB = rig.Lab(ARGUMENTS)
NAME = "A2 kill the queue pair"
BAD_WRITE = ["--op", "write", "--rkey", "0xbadbad", "--va", "0", "--text", "x"]


def plain_on_path():
    server, client, _, _ = LAB.victims("--random-psn")
    sniffer = LAB.sniff()
    client.say("send 0 genuine")
    seen = seen_packet(sniffer, SEND_ONLY)
    sent = LAB.spoof(*BAD_WRITE, "--qpn", seen["qpn"], "--psn", after(seen["psn"]))
    broken = server.event("broken", 3) is not None
    LAB.report(NAME, "on-path, sees", "PSN, QPN: seen", "plain verbs", "random PSN", "an RDMA WRITE with a bad rkey", "succeeded", broken, **sent)
    LAB.clear()


def plain_off_path():
    for words, defence, expected in (((), "none: PSN 0", "succeeded"), (("--random-psn",), "random PSN", "failed")):
        server, client, at, _ = LAB.victims(*words)
        client.say("send 0 genuine")
        server.must("message")
        sent = LAB.spoof(*BAD_WRITE, "--qpn", at["qpn"], "--psn", "0+64")
        broken = server.event("broken", 2) is not None
        LAB.report(NAME, "off-path, spoofs", "QPN", "plain verbs", defence, "bad RDMA WRITEs with the PSNs 0 to 63", expected, broken, **sent)
        LAB.clear()


def plain_nak():
    """A refusal in the server's name, of the requests that wait for an answer: the server is stopped, so that some do."""
    if LAB.rxe:
        return  # the kernel's device answers though its program is stopped
    server, client, _, at = LAB.victims("--random-psn")
    sniffer = LAB.sniff()
    client.say("send 0 genuine")
    client.must("done")
    seen_packet(sniffer, ACK, to="client")
    stop = LAB.freeze(server)
    client.say("send 0 unanswered")
    seen_packet(sniffer, SEND_ONLY, text="unanswered")
    answer = seen_packet(sniffer, SEND_ONLY, text="unanswered")  # its repetition: nobody answers
    sent = LAB.spoof("--op", "nak", "--qpn", at["qpn"], "--psn", answer["psn"], "--msn", 2, to="client")
    broken = client.event("broken", 1, status="remote access error")
    LAB.report(NAME, "on-path, sees", "PSN, QPN: seen", "plain verbs", "random PSN", "a NAK in the server's name, while it is slow to answer",
               "succeeded", broken is not None, **sent)
    stop()
    LAB.clear()


def securdma(words, defence, expected):
    server = LAB.serve(*words)
    sniffer = LAB.sniff()
    client = LAB.connect(server, *words)
    client.ask("send genuine")
    seen = seen_packet(sniffer, SEND_ONLY_IMM)
    sent = LAB.spoof(*BAD_WRITE, "--qpn", seen["qpn"], "--psn", after(seen["psn"]))
    began = time.monotonic()
    answer = client.ask("send still here", 10)
    took = (time.monotonic() - began) * 1000
    survived = answer is not None and answer.endswith("still here")
    LAB.report(NAME, "on-path, sees", "PSN, QPN: seen", "securdma", defence, "an RDMA WRITE with a bad rkey", expected, not survived, **sent,
               note=f"the next echo came after {took:.0f} ms" if survived else None)
    LAB.clear()


plain_on_path()
plain_off_path()
plain_nak()
if LAB.has("--recoveries"):
    securdma(("--epoch-psns", "0", "--recoveries", "0"), "random PSN; no recoveries", "succeeded")
    securdma((), "queue pair renewed over TLS, with new PSNs", "failed")
else:
    securdma((), "random PSN; no recoveries", "succeeded")
    LAB.report(NAME, "on-path, sees", "PSN, QPN: seen", "securdma", "queue pair renewed over TLS, with new PSNs",
               "an RDMA WRITE with a bad rkey", "failed", None, note="this build has no recoveries")
LAB.end()
