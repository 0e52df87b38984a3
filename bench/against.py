#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""This build beside an older one, measured in turn: does any figure fall?

usage: against.py BUILD OTHER [--rounds N] [--wire] [--json]
  BUILD OTHER   build folders, as scripts/build makes them
  --wire        measures each figure a second time by UDP, as between hosts (UROCE_WIRE=1). Otherwise both ends are processes of
                one host, and builds that can use shared memory do.
`make bench AGAINST=COMMIT` builds that commit below the cache folder and runs this with --wire. Each figure is taken from both builds
one after the other in each round, on uroce, each build on its own; every second round begins with the other one. Shown is the median
of the rounds' ratios, this build to the other, and min..max; above 1 is better, whatever the unit. Needs perftest and an idle machine.
"""
import argparse
import json
import pathlib
import socket
import statistics
import subprocess
import sys
import time

FLOOR = 0.97
PATH = {"PATH": "/usr/bin:/usr/sbin:/bin:/sbin"}
WAYS = {"": PATH, "by UDP: ": PATH | {"UROCE_WIRE": "1"}}

parser = argparse.ArgumentParser(usage=__doc__)
parser.add_argument("builds", nargs=2, metavar="BUILD", type=lambda text: pathlib.Path(text).resolve())
parser.add_argument("--rounds", type=int, default=7)
parser.add_argument("--wire", action="store_true")
parser.add_argument("--json", action="store_true")
options = parser.parse_args()


def run(way, build, *command):
    result = subprocess.run([build / "uroce/cli/uroce", *map(str, command)], capture_output=True, text=True, timeout=300,
                            env=WAYS[way], check=False)
    if result.returncode != 0:
        sys.exit(f"against: {' '.join(map(str, command))} of {build} failed:\n{result.stderr}")
    return result.stdout


# ---- figures: name to a value of which more is better ------------------------------------------------------------------


def securdma(way, build, *more):
    report = json.loads(run(way, build, build / "cli/securdma", "bench", "--json", *more))
    sealed = "sealed " if "required" in more else ""
    figures = {}
    if "setup" in report:
        figures["set-ups (1/p50)"] = 1e6 / report["setup"]["total"]["p50_us"]
    for line in report.get("latency", []):
        figures[f"{sealed}{line['operation']} {line['size']} B: 1/latency p50"] = 1e6 / line["p50_us"]
    for line in report.get("bandwidth", []):
        figures[f"{sealed}{line['operation']} {line['size']} B: rate"] = line["operations_per_s"]
    return figures


def perftest(way, build, tool, size, *more):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [build / "uroce/cli/uroce", tool, "-F", "-s", str(size), "-p", str(port), *more]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=WAYS[way]) as server:
        time.sleep(0.5)
        out = run(way, build, tool, "-F", "-s", size, "-p", port, *more, "127.0.0.1")
        server.wait(30)
    fields = [line.split() for line in out.splitlines() if line.strip().startswith(f"{size} ")][-1]
    if tool.endswith("_lat"):
        return {f"{tool} {size} B: 1/typical": 1e6 / float(fields[4])}
    return {f"{tool} {size} B: average": float(fields[3])}


def measure(way, build):
    figures = {}
    figures.update(securdma(way, build, "--only", "setup", "--connections", "150"))
    figures.update(securdma(way, build, "--only", "latency", "--sizes", "64,65536", "--iterations", "5000"))
    figures.update(securdma(way, build, "--only", "bandwidth", "--sizes", "64,65536", "--iterations", "20000"))
    figures.update(securdma(way, build, "--only", "bandwidth", "--sizes", "65536", "--iterations", "5000", "--seal", "required"))
    figures.update(securdma(way, build, "--only", "latency", "--sizes", "64", "--iterations", "5000", "--seal", "required"))
    figures.update(perftest(way, build, "ib_send_lat", 64, "-n", "20000"))
    figures.update(perftest(way, build, "ib_write_bw", 65536, "-n", "10000"))
    figures.update(perftest(way, build, "ib_write_bw", 1048576, "-n", "1000"))
    figures.update(perftest(way, build, "ib_read_bw", 65536, "-n", "10000"))
    return {way + name: value for name, value in figures.items()}


def take_round(way, order):
    measured = {build: measure(way, build) for build in order}
    this, other = (measured[build] for build in options.builds)
    for name in this.keys() & other.keys():
        ratios.setdefault(name, []).append(this[name] / other[name])


ratios = {}
for round_number in range(options.rounds):
    for way in WAYS if options.wire else [""]:
        take_round(way, options.builds if round_number % 2 == 0 else options.builds[::-1])

if options.json:
    print(json.dumps({name: {"median": statistics.median(values), "min": min(values), "max": max(values)}
                      for name, values in sorted(ratios.items())}))
else:
    for name, values in sorted(ratios.items()):
        median = statistics.median(values)
        print(f"{name:48} {median:.3f} ({min(values):.2f}..{max(values):.2f}){'' if median >= FLOOR else '  BELOW ' + str(FLOOR)}")
