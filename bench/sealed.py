#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""What sealing costs: sealed beside plain transfers, beside what the processor allows, and beside TLS over TCP; and how long a
connection pauses for new PSNs.

usage: sealed.py BUILD [--rounds N] [--quick] [--json]
On the RDMA device, or on uroce when there is none. Each pair is measured in turn within a round; shown are the median of
the rounds' ratios and min..max. --quick: 64 KiB alone, shorter runs. Both ends and TLS's two share the same processors.
"""
import argparse
import glob
import json
import os
import pathlib
import re
import statistics
import subprocess
import sys

parser = argparse.ArgumentParser(usage=__doc__)
parser.add_argument("build", type=lambda text: pathlib.Path(text).resolve())
parser.add_argument("--rounds", type=int, default=5)
parser.add_argument("--quick", action="store_true")
parser.add_argument("--json", action="store_true")
options = parser.parse_args()
os.environ["SECURDMA_BUILD"] = str(options.build)
if not any("ACTIVE" in pathlib.Path(state).read_text() for state in glob.glob("/sys/class/infiniband/*/ports/*/state")):
    os.environ["SECURDMA_TEST_UROCE"] = "1"
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "tests/integration"))
from conftest import ON_UROCE, UROCE_LIBRARY, find_device  # noqa: E402

CORES = len(os.sched_getaffinity(0))
SECONDS = 1 if options.quick else 2
COUNT = 5000 if options.quick else 20000
SIZES = (65536,) if options.quick else (65536, 1 << 20)

report = []


def say(text, **facts):
    report.append({"text": text, **facts})
    if not options.json:
        print(text, flush=True)


def spread(values):
    return f"{statistics.median(values):.2f} ({min(values):.2f}..{max(values):.2f})"


def verdict(met):
    return "met" if met else "MISSED"


def name_of(size):
    return f"{size >> 20} MiB" if size >> 20 else f"{size >> 10} KiB" if size >> 10 else f"{size} B"


# ---- what is run ------------------------------------------------------------------------------------------------------


def run(program, *args, env=None):
    result = subprocess.run([options.build / "bench" / program, *map(str, args)], capture_output=True, text=True, timeout=120,
                            env=env, check=False)
    if result.returncode != 0:
        raise SystemExit(f"sealed: {program} {' '.join(map(str, args))} failed:\n{result.stderr}")
    return json.loads(result.stdout)


def transfer(mode, *args):
    device = find_device()
    env = dict(os.environ, LD_PRELOAD=UROCE_LIBRARY) if ON_UROCE else None
    return run("transfer", mode, "--host", device.ipv4, *args, env=env)


def tls(mode, *args):
    return run("tls_stream", mode, *args)


def speed(size, decrypt):
    """Seconds per byte of AES-256-GCM on one processor, as OpenSSL itself measures it."""
    out = subprocess.run(["openssl", "speed", "-mr", "-seconds", "1", "-bytes", str(size), *(["-decrypt"] if decrypt else []),
                          "-evp", "aes-256-gcm"], capture_output=True, text=True, timeout=60, check=True).stdout
    return 1 / float(re.search(r"^\+F:\d+:AES-256-GCM:([\d.]+)$", out, re.M)[1])


# ---- comparisons ------------------------------------------------------------------------------------------------------


def allowed(plain, size):
    """The rate that these processors could reach: they do what plain transfer takes, seal each byte once and open it once."""
    per_byte = sum(plain["cpu_seconds"]) / plain["bytes"] + speed(size, False) + speed(size, True)
    return min(plain["mb_per_s"], CORES / per_byte / 1e6)


def bandwidth(mode, size):
    against_bound, against_tls, rates = [], [], []
    for _ in range(options.rounds):
        args = ("--size", size, "--seconds", SECONDS)
        plain, sealed, stream = transfer(mode, *args), transfer(mode, "--seal", *args), tls("bandwidth", *args)
        ours = sealed or plain
        if sealed:
            against_bound.append(sealed["mb_per_s"] / allowed(plain, size))
        against_tls.append(ours["mb_per_s"] / stream["mb_per_s"])
        rates.append((plain["mb_per_s"], sealed["mb_per_s"] if sealed else 0, stream["mb_per_s"],
                      *(1e9 * sum(r["cpu_seconds"]) / r["bytes"] for r in (plain, ours, stream))))
    plain, sealed, stream, *cpu = (statistics.median(column) for column in zip(*rates))
    what = {"write": "RDMA writes", "read": "RDMA reads", "messages": "messages"}[mode]
    if against_bound:
        say(f"sealed {what} of {name_of(size)}: {spread(against_bound)} of what the processors allow ({sealed:.0f} MB/s; plain {plain:.0f}); "
            f"aim at least 0.9: {verdict(statistics.median(against_bound) >= 0.9)}", ratios=against_bound)
    aim = f"; aim at least 1.5: {verdict(statistics.median(against_tls) >= 1.5)}" if against_bound else ""
    say(f"{'sealed' if against_bound else 'plain'} {what} of {name_of(size)}: {spread(against_tls)} times TLS 1.3 over TCP "
        f"({sealed or plain:.0f} to {stream:.0f} MB/s; CPU of both ends {cpu[1]:.2f} to {cpu[2]:.2f} ns a byte){aim}", ratios=against_tls)


def latency():
    """Both ends of a connection poll. TLS is measured as it is mostly used, asleep until data comes, and polling as well."""
    against_plain, against_tls, against_polled, values = [], [], [], []
    for _ in range(options.rounds):
        args = ("--size", 64, "--count", COUNT)
        plain, sealed = transfer("latency", *args), transfer("latency", "--seal", *args)
        stream, polled = tls("latency", *args), tls("latency", "--poll", *args)
        ours = sealed or plain
        if sealed:
            against_plain.append(sealed["turn_p50_us"] / plain["turn_p50_us"])
        against_tls.append(ours["turn_p50_us"] / stream["p50_us"])
        against_polled.append(ours["turn_p50_us"] / polled["p50_us"])
        values.append((plain["turn_p50_us"], plain["turn_p99_us"], ours["turn_p50_us"], ours["turn_p99_us"], stream["p50_us"],
                       stream["p99_us"], polled["p50_us"], polled["p99_us"]))
    plain, plain99, ours, ours99, stream, stream99, polled, polled99 = (statistics.median(column) for column in zip(*values))
    if against_plain:
        say(f"64 B there and back, sealed: {spread(against_plain)} times plain (p50 {ours:.1f} to {plain:.1f} us; p99 {ours99:.1f} to {plain99:.1f} us); "
            f"aim at most 1.3: {verdict(statistics.median(against_plain) <= 1.3)}", ratios=against_plain)
    for ratios, how, p50, p99 in ((against_tls, "", stream, stream99), (against_polled, " that polls", polled, polled99)):
        aim = f"; aim below 1: {verdict(statistics.median(ratios) < 1)}" if against_plain else ""
        say(f"64 B there and back, {'sealed' if against_plain else 'plain'}: {spread(ratios)} times TLS 1.3 over TCP{how} (p50 {ours:.1f} to "
            f"{p50:.1f} us; p99 {ours99:.1f} to {p99:.1f} us){aim}", ratios=ratios)


def at(values, share):
    return sorted(values)[min(len(values) - 1, int(len(values) * share))]


def epochs():
    for mode, size in (("write", 65536), ("messages", 65536)):
        pauses = [pause / 1000 for _ in range(options.rounds) for seal in ((), ("--seal",))
                  for pause in (transfer(mode, *seal, "--size", size, "--seconds", 2 * SECONDS, "--renew-ms", 100) or {}).get("pauses_us", [])]
        if not pauses:
            say(f"new PSNs during {mode}: this build does not change them")
            continue
        say(f"new PSNs each 100 ms during {'writes' if mode == 'write' else mode} of {name_of(size)}, plain and sealed, {len(pauses)} changes: pause "
            f"{at(pauses, 0.5):.2f} ms (p50), {at(pauses, 0.99):.2f} ms (p99), {max(pauses):.2f} ms (longest); aim p99 under 10 ms: "
            f"{verdict(at(pauses, 0.99) < 10)}", pauses_ms=pauses)


def main():
    if os.getloadavg()[0] > CORES / 4:
        say(f"something else runs here (load {os.getloadavg()[0]:.1f} on {CORES} processors): what the processors allow is overrated")
    if not transfer("latency", "--seal", "--count", 10):
        say("this build has no sealed transfers: plain ones are compared alone")
    for size in SIZES:
        for mode in ("write",) if options.quick else ("write", "read", "messages"):
            bandwidth(mode, size)
    latency()
    epochs()
    if options.json:
        print(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
