#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""What sealing costs: sealed beside plain transfers, beside what the processor allows, and beside TLS over TCP; and how long a
connection pauses for new PSNs.

usage: sealed.py BUILD [--rounds N] [--quick] [--json | --markdown]
On the RDMA device, or on uroce when there is none. Each pair is measured in turn within a round; shown are the median of
the rounds' ratios and min..max. --quick: 64 KiB alone, shorter runs. Both ends and TLS's two share the same processors.
"""
import argparse
import functools
import glob
import os
import pathlib
import re
import statistics
import subprocess
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "uroce/bench"))
import rows  # noqa: E402
from peers import answer  # noqa: E402
from rows import Row, in_turn  # noqa: E402

parser = argparse.ArgumentParser(usage=__doc__)
parser.add_argument("build", type=lambda text: pathlib.Path(text).resolve())
parser.add_argument("--rounds", type=int, default=5)
parser.add_argument("--quick", action="store_true")
rows.add_options(parser)
options = parser.parse_args()
os.environ["SECURDMA_BUILD"] = str(options.build)
if not any("ACTIVE" in pathlib.Path(state).read_text() for state in glob.glob("/sys/class/infiniband/*/ports/*/state")):
    os.environ["SECURDMA_TEST_UROCE"] = "1"
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "tests/integration"))
from conftest import ON_UROCE, find_device  # noqa: E402

CORES = len(os.sched_getaffinity(0))
SECONDS = 1 if options.quick else 2
COUNT = 5000 if options.quick else 20000
SIZES = (65536,) if options.quick else (65536, 1 << 20)


def name_of(size):
    return f"{size >> 20} MiB" if size >> 20 else f"{size >> 10} KiB" if size >> 10 else f"{size} B"


# ---- what is run ------------------------------------------------------------------------------------------------------


def run(program, *args, on_uroce=False, build=options.build):
    library = build / "uroce/src/liburoce.so"
    return answer(*(["env", f"LD_PRELOAD={library}"] if on_uroce else []), build / "bench" / program, *args)


def transfer(mode, *args, build=options.build):
    return run("transfer", mode, "--host", find_device().ipv4, *args, on_uroce=ON_UROCE, build=build)


def tls(mode, *args):
    return run("tls_stream", mode, *args)


def speed(size, decrypt):
    """Seconds per byte of AES-256-GCM on one processor, as OpenSSL itself measures it."""
    out = subprocess.run(["openssl", "speed", "-mr", "-seconds", "1", "-bytes", str(size), *(["-decrypt"] if decrypt else []),
                          "-evp", "aes-256-gcm"], capture_output=True, text=True, timeout=60, check=True).stdout
    return 1 / float(re.search(r"^\+F:\d+:AES-256-GCM:([\d.]+)$", out, re.M)[1])


# ---- comparisons ------------------------------------------------------------------------------------------------------


def allowed(plain, crypto):
    """The rate that these processors could reach: they do what plain transfer takes, seal each byte once and open it once."""
    per_byte = sum(plain["cpu_seconds"]) / plain["bytes"] + crypto
    return min(plain["mb_per_s"], CORES / per_byte / 1e6)


def seen_of(measures):
    """The rounds' answers of each measure, and a function that takes one figure, or any function of an answer, from each."""
    seen = in_turn(options.rounds, measures)
    return seen, lambda name, figure: [figure(run) if callable(figure) else run[figure] for run in seen[name]]


def cpu(run):
    """Nanoseconds of both ends a byte."""
    return 1e9 * sum(run["cpu_seconds"]) / run["bytes"]


def bandwidth(mode, size):
    args = ("--size", size, "--seconds", SECONDS)
    seen, figures = seen_of({"plain": functools.partial(transfer, mode, *args), "sealed": functools.partial(transfer, mode, "--seal", *args),
                             "tls": functools.partial(tls, "bandwidth", *args), "crypto": lambda: speed(size, False) + speed(size, True)})
    what = f"{ {'write': 'RDMA writes', 'read': 'RDMA reads', 'messages': 'messages'}[mode]} of {name_of(size)}"
    sealed, stream = figures("sealed", "mb_per_s"), figures("tls", "mb_per_s")
    ours, theirs = (statistics.median(figures(name, cpu)) for name in ("sealed", "tls"))
    yield Row(f"sealed {what}", "MB/s", sealed, "TLS 1.3 over TCP", stream, least=1.5,
              after=f"CPU of both ends {ours:.2f} to {theirs:.2f} ns a byte")
    yield Row(f"sealed {what}", "MB/s", sealed, "what AES-GCM of both ends allows",
              list(map(allowed, seen["plain"], seen["crypto"])), least=0.9, after=f"plain {statistics.median(figures('plain', 'mb_per_s')):.0f} MB/s")


def latency():
    """Both ends of a connection poll. TLS is measured as it is mostly used, asleep until data comes, and polling as well."""
    args = ("--size", 64, "--count", COUNT)
    _, figures = seen_of({"plain": functools.partial(transfer, "latency", *args), "sealed": functools.partial(transfer, "latency", "--seal", *args),
                          "tls": functools.partial(tls, "latency", *args), "polled": functools.partial(tls, "latency", "--poll", *args)})
    sealed = figures("sealed", "turn_p50_us")
    yield Row("sealed: 64 B there and back", "us", sealed, "plain", figures("plain", "turn_p50_us"), most=1.3)
    for name, beside in (("tls", "TLS 1.3 over TCP"), ("polled", "TLS 1.3 over TCP that polls")):
        yield Row("sealed: 64 B there and back", "us", sealed, beside, figures(name, "p50_us"), most=1)


def at(values, share):
    return sorted(values)[min(len(values) - 1, int(len(values) * share))]


def epochs():
    for mode, size in (("write", 65536), ("messages", 65536)):
        pauses = [pause / 1000 for _ in range(options.rounds) for seal in ((), ("--seal",))
                  for pause in transfer(mode, *seal, "--size", size, "--seconds", 2 * SECONDS, "--renew-ms", 100)["pauses_us"]]
        yield Row(f"new PSNs each 100 ms during {'writes' if mode == 'write' else mode} of {name_of(size)}: pause, p99", "ms", [at(pauses, 0.99)],
                  most=10, after=f"{len(pauses)} changes, plain and sealed; p50 {at(pauses, 0.5):.2f} ms, longest {max(pauses):.2f} ms")


def main():
    report = rows.Report(options)
    if os.getloadavg()[0] > CORES / 4:
        report.say(f"something else runs here (load {os.getloadavg()[0]:.1f} on {CORES} processors): what the processors allow is overrated")
    for size in SIZES:
        for mode in ("write",) if options.quick else ("write", "read", "messages"):
            report.add(*bandwidth(mode, size))
    report.add(*latency(), *epochs())
    return report.end()


if __name__ == "__main__":
    sys.exit(main())
