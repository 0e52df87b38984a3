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
import os
import pathlib
import statistics
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "uroce/bench"))
from peers import Bench, answer  # noqa: E402

FLOOR = 0.97
WAYS = {"": {}, "by UDP: ": {"UROCE_WIRE": "1"}}

parser = argparse.ArgumentParser(usage=__doc__)
parser.add_argument("builds", nargs=2, metavar="BUILD", type=lambda text: pathlib.Path(text).resolve())
parser.add_argument("--rounds", type=int, default=7)
parser.add_argument("--wire", action="store_true")
parser.add_argument("--json", action="store_true")
options = parser.parse_args()


# ---- figures: name to a value of which more is better ------------------------------------------------------------------


def securdma(build, *more):
    report = answer(build / "uroce/cli/uroce", build / "cli/securdma", "bench", "--json", *more, limit=300)
    sealed = "sealed " if "required" in more else ""
    figures = {}
    if "setup" in report:
        figures["set-ups (1/p50)"] = 1e6 / report["setup"]["total"]["p50_us"]
    for line in report.get("latency", []):
        figures[f"{sealed}{line['operation']} {line['size']} B: 1/latency p50"] = 1e6 / line["p50_us"]
    for line in report.get("bandwidth", []):
        figures[f"{sealed}{line['operation']} {line['size']} B: rate"] = line["operations_per_s"]
    return figures


def perftest(build, tool, size, *more):
    fields = Bench(build / "uroce").perftest(tool, "-s", str(size), *more)
    return {f"{tool} {size} B: 1/typical": 1e6 / fields[4]} if tool.endswith("_lat") else {f"{tool} {size} B: average": fields[3]}


def measure(build):
    figures = {}
    figures.update(securdma(build, "--only", "setup", "--connections", "150"))
    figures.update(securdma(build, "--only", "latency", "--sizes", "64,65536", "--iterations", "5000"))
    figures.update(securdma(build, "--only", "bandwidth", "--sizes", "64,65536", "--iterations", "20000"))
    figures.update(securdma(build, "--only", "bandwidth", "--sizes", "65536", "--iterations", "5000", "--seal", "required"))
    figures.update(securdma(build, "--only", "latency", "--sizes", "64", "--iterations", "5000", "--seal", "required"))
    figures.update(perftest(build, "ib_send_lat", 64, "-n", "20000"))
    figures.update(perftest(build, "ib_write_bw", 65536, "-n", "10000"))
    figures.update(perftest(build, "ib_write_bw", 1048576, "-n", "1000"))
    figures.update(perftest(build, "ib_read_bw", 65536, "-n", "10000"))
    return figures


def take_round(way, order):
    os.environ.pop("UROCE_WIRE", None)
    os.environ.update(WAYS[way])
    measured = {build: measure(build) for build in order}
    this, other = (measured[build] for build in options.builds)
    for name in this.keys() & other.keys():
        ratios.setdefault(way + name, []).append(this[name] / other[name])


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
