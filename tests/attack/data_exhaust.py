#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""ReDMArk's A4: a client takes all queue pairs, so that others get none."""
import time

import lab as rig

LAB = rig.Lab(rig.options(__doc__))
PLACES = 8


def attack(victim, knowledge, defence, tried, expected, take_one, is_kept_out):
    """Takes places until there are no more; take_one() tells whether it got one."""
    began = time.monotonic()
    taken = next((count for count in range(PLACES) if not take_one()), PLACES)
    elapsed = time.monotonic() - began
    LAB.conclude("A4 exhaustion of queue pairs", "a client", knowledge, victim, defence, tried.format(taken), expected, is_kept_out(),
                 seconds=elapsed)


def plain():
    server = LAB.victim_server("--clients", PLACES)
    attack("plain verbs", "nothing", "none", f"{PLACES} connections from one host, to a server with as many queue pairs", "succeeded",
           lambda: LAB.victim_client(server, host="rogue").must("connected"),
           lambda: LAB.victim_client(server).event("connected", 2) is None)


def securdma(words, defence, expected):
    server = LAB.serve("--max-clients", PLACES, *words)

    def is_connected(host, name):
        program = LAB.on_device(host, *LAB.connect_words(server, "--busy-retry-ms", "0", name=name), events=False)
        return program.next(lambda line: line.startswith("connected"), 5) is not None

    attack("securdma", "a valid certificate", defence,
           f"as many of {PLACES} places as the server gives one client: {{}}. Does another client get none?", expected,
           lambda: is_connected("rogue", "greedy"), lambda: not is_connected("client", "honest"))


plain()
securdma((), f"max-clients {PLACES} alone", "succeeded")
securdma(("--max-clients-per-identity", 3), "max-clients-per-identity 3", "failed")
securdma(("--max-clients-per-address", 3), "max-clients-per-address 3", "failed")
LAB.end()
