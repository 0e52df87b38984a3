#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""ReDMArk's A5: greedy clients take the device's time. Measures what they do to the latency of another client, as a ratio within one
run. Plain writes bypass the server's program, which cannot limit them. It fetches sealed writes itself, as fast as its limit allows."""
import statistics

import lab as rig

ARGUMENTS = rig.options(__doc__)
LAB = rig.Lab(ARGUMENTS, cut=False)
ROUNDS = 2 if LAB.short else 7
MILLISECONDS = 700 if LAB.short else 2000


def latency(client):
    return client.do(f"ping {MILLISECONDS}", "pinged", 60)


def measure(server_words, defence, greedy_count, limit=None):
    """Rounds of quiet and loud, in turn: other load of the machine disturbs both. `limit`: MB/s that each may write."""
    server = LAB.serve("--region-size", "1M", *server_words, *(("--max-bytes-per-second", f"{limit}000000") if limit else ()))
    seal = ("--seal",) if "--seal" in server_words else ()
    honest = LAB.guest(server, *seal)
    greedy = [LAB.guest(server, *seal, name="greedy", host="rogue") for _ in range(greedy_count)]
    honest.do("ping 200", "pinged")
    p50, p99, quiet_p50, loud_p50, written = [], [], [], [], 0
    for _ in range(ROUNDS):
        quiet = latency(honest)
        for one in greedy:
            one.say(f"flood {MILLISECONDS + 200}")
        loud = latency(honest)
        written += sum(one.must("flooded", 60)["bytes"] for one in greedy)
        p50.append(loud["p50_us"] / max(quiet["p50_us"], 1))
        p99.append(loud["p99_us"] / max(quiet["p99_us"], 1))
        quiet_p50.append(quiet["p50_us"])
        loud_p50.append(loud["p50_us"])
    ratio = statistics.median(p50)
    speed = written / 1e6 / (ROUNDS * (MILLISECONDS + 200) / 1000)
    # With a limit the attack fails when they get no more than that; the time of the echoes depends on the machine.
    succeeded = speed > greedy_count * limit * 1.5 if limit else max(ratio, statistics.median(p99)) > 1.5
    LAB.conclude("A5 saturation", "a client", "a valid certificate", "securdma", defence,
                 f"{greedy_count} greedy clients write 1 MiB pieces ({speed:.0f} MB/s): an echo of another takes {ratio:.1f} times as long "
                 f"(median of {ROUNDS} rounds, {min(p50):.1f} to {max(p50):.1f}; {statistics.median(quiet_p50):.0f} us quiet, "
                 f"{statistics.median(loud_p50):.0f} us loud), its 99th percentile {statistics.median(p99):.1f} times",
                 "failed" if limit else "succeeded", succeeded)


SEAL = ("--seal", "required")
measure((), "none", 2)
measure(SEAL, "seal = required, max-bytes-per-second = 20M", 2, 20)
if not LAB.short:
    measure(("--workers", "per-client"), "a thread of its own for each client", 2)
    measure(SEAL, "seal = required alone", 2)
LAB.end()
