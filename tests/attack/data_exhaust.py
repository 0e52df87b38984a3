#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""ReDMArk's A4: a client takes all the queue pairs, so that others get none."""
import time

import lab as rig

ARGUMENTS = rig.options(__doc__)
LAB = rig.Lab(ARGUMENTS)
NAME = "A4 exhaustion of queue pairs"
PLACES = 8


def plain():
    """A server with so many queue pairs, first come, first served."""
    port = LAB.next_port()
    server = LAB.on_device("server", rig.VICTIM, "serve", port, "--device", LAB.server_device, "--address", rig.ADDRESS["server"],
                           "--clients", PLACES)
    server.must("listening")
    began = time.monotonic()
    for _ in range(PLACES):
        LAB.on_device("rogue", rig.VICTIM, "connect", rig.ADDRESS["server"], port, "--device", "uroce0", "--address",
                      rig.ADDRESS["rogue"]).must("connected")
    elapsed = time.monotonic() - began
    honest = LAB.on_device("client", rig.VICTIM, "connect", rig.ADDRESS["server"], port, "--device", "uroce0", "--address", rig.ADDRESS["client"])
    LAB.report(NAME, "a client", "nothing", "plain verbs", "none", f"{PLACES} connections from one host, to a server with as many queue pairs",
               "succeeded", honest.event("connected", 2) is None, seconds=elapsed)
    LAB.clear()


def securdma(words, defence, expected):
    server = LAB.serve("--max-clients", PLACES, *words)
    began, greedy = time.monotonic(), 0
    for _ in range(PLACES):
        program = LAB.on_device("rogue", *LAB.connect_words(server, "--busy-retry-ms", "0", name="greedy"), events=False)
        if program.next(lambda line: line.startswith("connected"), 5) is None:
            break
        greedy += 1
    elapsed = time.monotonic() - began
    honest = LAB.on_device("client", *LAB.connect_words(server, "--busy-retry-ms", "0"), events=False)
    kept_out = honest.next(lambda line: line.startswith("connected"), 5) is None
    LAB.report(NAME, "a client", "a valid certificate", "securdma", defence,
               f"as many connections as it gets, of {PLACES} places: it got {greedy}. Is another client kept out?", expected, kept_out,
               seconds=elapsed)
    LAB.clear()


plain()
securdma((), f"max-clients {PLACES} alone", "succeeded")
securdma(("--max-clients-per-identity", 3), "max-clients-per-identity 3", "failed")
securdma(("--max-clients-per-address", 3), "max-clients-per-address 3", "failed")
LAB.end()
