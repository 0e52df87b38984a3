#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""A peer with a valid certificate, of a sealed connection, reaches for memory that a read has given back to the other end's program. The
programs of both ends are the probe's (tests/integration/probe_hostile.c), where that memory is out of reach for the process itself: whoever
touches it ends the process. An attack succeeds if that happens, or if a read is said to be complete whose bytes are not there.
"""
import json
import os
import subprocess
import time

import lab as rig
from loopback import ADDRESS, Loopback

NAME = "insider"
PROBE = os.path.join(rig.BUILD, "tests", "integration", "probe-wrapped")
EPROTOCOL = -10004


def probe(*words):
    """What a mode found; None: it did not get to its end."""
    result = subprocess.run([PROBE, LAB.certificates(), ADDRESS, *map(str, words)], env=LAB.environment(), stdin=subprocess.DEVNULL,
                            capture_output=True, text=True, timeout=100, check=False)
    if result.returncode == 2:
        raise SystemExit(f"attack: {PROBE} knows no {words}\n{result.stderr}")
    return (json.loads(result.stdout), None) if result.returncode == 0 else (None, f"ended with {result.returncode}")


def report(position, defence, tried, wrong, began):
    LAB.report(NAME, position, "a valid certificate", "securdma, sealed", defence, tried, "failed", bool(wrong),
               note="; ".join(wrong) or None, seconds=time.monotonic() - began)


def answers_of_nothing(victim, position):
    began, wrong = time.monotonic(), []
    for change in ("plain", "renewed", "broken"):
        facts, error = probe("hostile-nothing", victim, change)
        if error or facts["wrong"] or facts["status"] != EPROTOCOL:
            wrong.append(f"{change}: {error or facts}")
    report(position, "each byte of a read is claimed once and settled once; an answer of no bytes is a breach", f"4,095 answers of no bytes to a read of 4,096 "
           f"by a {victim}, then one more and all bytes behind it; also after new PSNs, and after a new queue pair, between the question and the answers",
           wrong, began)


def answer_with_the_loss(tries):
    began = time.monotonic()
    _, error = probe("hostile-late", tries)
    report("a server", "the end of a connection drops its reads; nothing that comes after is executed", "the TLS channel is closed, and a read answered at the "
           f"same moment, to a client with a link, which looks for what came with the loss; {tries} times", [error] if error else [], began)


ARGUMENTS = rig.options(__doc__)
LAB = Loopback(ARGUMENTS)
LAB.certificates()
# The names that the probe looks for.
for kind in ("crt", "key"):
    os.symlink(f"{LAB.folder}/honest.{kind}", f"{LAB.folder}/client.{kind}")
answers_of_nothing("client", "a server")
answers_of_nothing("server", "a client")
answer_with_the_loss(8 if ARGUMENTS.short else 100)
LAB.end()
