#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""What epochs do about a sweep of PSNs: the library notices a fast one, and a slow one succeeds in each epoch with the probability
that docs/THREAT_MODEL.md derives, min(1, r * T / (n * 2^24)). On a smaller scale: the attacker gets the present QPN, and all but
some bits of the PSN, anew in each epoch."""
import math
import os
import signal
import time

import lab as rig
from lab import ADDRESS, FORGE, after

ARGUMENTS = rig.options(__doc__, {"--trials": {"type": int, "default": 60, "help": "epochs for each measured chance"}})
LAB = rig.Lab(ARGUMENTS)
NAME = "sweep"
BAD_WRITE = ["--op", "write", "--rkey", "0xbadbad", "--va", "0", "--text", "x"]
# Below the 20,000 a second that the library notices.
SLOW, FAST, FAST_SECONDS = 8000, 50000, 2
SIZE = 1 << 13
EPOCH_MS = 400
FOREVER = "watch 3600000"


def connected(*words):
    """A server, a client that does nothing but take part in epochs, and its first one."""
    server = LAB.serve("--log-format", "json", "--log-level", "info", "--recoveries", "10000", *words)
    guest = LAB.guest(server, "--recoveries", "10000")
    guest.say(FOREVER)
    return server, guest, guest.must("epoch")


# ---- noticed ----------------------------------------------------------------------------------------------------------


def noticed(rounds):
    """Wrong PSNs come much faster than losses would cause them: the library replaces the queue pair early in the sweep."""
    times, packets, seconds, seen = [], 0, 0, 0
    for _ in range(rounds):
        server, guest, old = connected()
        began = time.monotonic()
        # None of these is the right one.
        sent = LAB.spoof(*BAD_WRITE, "--qpn", old["qpn"], "--psn", f"{after(old['expected'], 1000)}+{FAST * FAST_SECONDS}", "--rate", FAST)
        new = guest.event("epoch", 5)
        told = any(server.records(event="device.sweep", security=True))
        packets, seconds = packets + sent["packets"], seconds + sent["seconds"]
        if told and new and new["qpn"] != old["qpn"] and new["recoveries"] == 0:
            seen += 1
            times.append((new["at"] - began) * 1000)
        LAB.clear()
    times.sort()
    LAB.report(NAME, "off-path, spoofs", "QPN", "securdma", "the watch on the device's counters",
               f"WRITEs with wrong PSNs at {FAST}/s for {FAST_SECONDS} s, {rounds} time(s): does nobody notice it, or does the QPN stay the same?", "failed",
               seen < rounds, packets=packets, seconds=seconds,
               note=f"device.sweep logged, another QPN, nothing killed; {times[0]:.0f} to {times[-1]:.0f} ms from the attacker's start to the new "
               "queue pair" if times else None)


# ---- chance -----------------------------------------------------------------------------------------------------------


class Sweep:
    """All PSNs of a window that has the right one, in order, until stopped."""

    def __init__(self, qpn, expected, size):
        first = expected // size * size
        self.program = LAB.run("rogue", FORGE, "send", "--from", ADDRESS["client"], "--to", ADDRESS["server"], *BAD_WRITE, "--qpn", qpn, "--psn",
                               f"{first}+{size}", "--rate", SLOW)

    def stop(self):
        os.kill(self.program.pid, signal.SIGTERM)
        sent = self.program.next(timeout=10)
        self.program.stop()
        LAB.programs.remove(self.program)
        return sent


def chance(size, trials):
    """One try in each epoch: (hits, packets in all, mean packets and seconds of an epoch without a hit)."""
    server, guest, now = connected("--epoch-ms", EPOCH_MS)
    now = guest.must("epoch")  # from its beginning
    whole, hits, packets = [], 0, 0
    for _ in range(trials):
        sweep = Sweep(now["qpn"], now["expected"], size)
        then = guest.must("epoch", 60)
        sent = sweep.stop()
        packets += sent["packets"]
        if then["recoveries"] > now["recoveries"]:
            hits += 1
        else:
            whole.append((sent["packets"], then["at"] - now["at"]))
        now = then
    LAB.clear()
    count = max(1, len(whole))
    return hits, packets, sum(n for n, _ in whole) / count, sum(t for _, t in whole) / count


def by_time(size, trials):
    hits, packets, each, length = chance(size, trials)
    # r * T is what the attacker sent in an epoch without a hit.
    expected = min(1.0, each / size)
    off, bound = abs(hits - trials * expected), 4 * math.sqrt(trials * expected * (1 - expected)) + 2
    LAB.report(NAME, "off-path, spoofs", f"QPN of each epoch, and {24 - size.bit_length() + 1} bits of its PSN", "securdma", f"epoch-ms {EPOCH_MS}",
               f"{size} PSNs in order, at {each / max(length, 0.001):.0f}/s, in each of {trials} epochs of {length:.2f} s: far from the calculated "
               "probability?", "failed", off > bound or not each, packets=packets,
               note=f"{hits} hits in {trials} epochs, {hits / trials:.2f}; min(1, r * T / {size}) = {expected:.2f}")


def without(size, trials):
    server, guest, now = connected()
    hits, packets, began = 0, 0, time.monotonic()
    for _ in range(trials):
        sweep = Sweep(now["qpn"], now["expected"], size)
        then = guest.event("epoch", 3 * size / SLOW + 1)
        packets += sweep.stop()["packets"]
        if then and then["recoveries"] > now["recoveries"]:
            hits += 1
            now = then
    seconds = time.monotonic() - began
    LAB.clear()
    LAB.report(NAME, "off-path, spoofs", f"QPN, and {24 - size.bit_length() + 1} bits of the PSN", "securdma", "no epochs by time",
               f"the same {size} PSNs, to their end, {trials} time(s)", "succeeded", hits >= trials - 1 - trials // 10, packets=packets, seconds=seconds,
               note=f"{hits} hits in {trials}; each made a new queue pair (recoveries)")


def old_number(size, trials):
    """The attacker knows the PSN, but a queue pair that no longer exists."""
    server, guest, first = connected("--epoch-ms", EPOCH_MS)
    packets, last = 0, guest.must("epoch")
    began = time.monotonic()
    for _ in range(trials):
        sweep = Sweep(first["qpn"], last["expected"], size)
        end = time.monotonic() + size / SLOW
        while time.monotonic() < end:
            last = guest.event("epoch", max(0.01, end - time.monotonic())) or last
        packets += sweep.stop()["packets"]
    LAB.report(NAME, "off-path, spoofs", "QPN of the first epoch, and all but some bits of the PSN of each", "securdma", f"epoch-ms {EPOCH_MS}",
               f"the same {size} PSNs, to their end, {trials} time(s), with the old QPN", "failed", last["recoveries"] > 0 or last["epoch"] < 1,
               packets=packets, seconds=time.monotonic() - began, note=f"{last['recoveries']} hits in {last['epoch']} epochs")
    LAB.clear()


noticed(1 if LAB.short else 5)
if LAB.short:
    without(1 << 11, 3)
    old_number(1 << 11, 1)
else:
    without(SIZE, 20)
    for part in (SIZE, 4 * SIZE):
        by_time(part, ARGUMENTS.trials)
    old_number(SIZE, 20)
LAB.end()
