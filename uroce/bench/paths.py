#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""uroce between hosts: beside one TCP stream (CUBIC) over the same narrow links between two network namespaces.

usage: paths.py BUILD [--quick] [--rounds N] [--seconds N] [--only 'ROW[;ROW...]'] [--list] [--json | --markdown]
  --seconds   of each transfer; those beside a TCP stream have 6 at least
  --only      the rows that have one of these names, or contain it; "share" stands for all of fairness
  --list      names the rows, and runs none
  --quick     3 rounds of transfers of 1 second: some 10 seconds a row and round
A row is one link, or one measurement of fairness on it. Each round runs the TCP stream and the three kinds of transfer over a link, one
after the other; shown are the median of the rounds' ratios and min..max. 40 minutes with 5 rounds. Needs root, iperf3 and perftest.
"""
import argparse
import os
import pathlib
import sys

import peers
import rows
from rows import Missing, Row

HERE = pathlib.Path(__file__).resolve().parent
parser = argparse.ArgumentParser(usage=__doc__)
parser.add_argument("build", type=lambda text: pathlib.Path(text).resolve())
parser.add_argument("--quick", action="store_true")
parser.add_argument("--rounds", type=int)
parser.add_argument("--seconds", type=int)
parser.add_argument("--only", default="")
parser.add_argument("--list", action="store_true")
rows.add_options(parser)
options = parser.parse_args()
options.rounds = options.rounds or (3 if options.quick else 5)
options.seconds = options.seconds or (1 if options.quick else 4)
os.environ["UROCE_BUILD"] = str(options.build)
sys.path.insert(0, str(HERE.parent / "tests" / "paths"))
import measure  # noqa: E402

SMALL_QUEUE = "queue 60 KB"


def why_not():
    """Why no link can be made here, or ""."""
    try:
        peers.need("iperf3")
        peers.need("ib_write_bw")
    except Missing as reason:
        return f"skipped: {reason}"
    return "" if os.geteuid() == 0 else "skipped: network namespaces need root"


def alone(link, missing):
    runs = [] if missing else [measure.alone(link, options.seconds) for _ in range(options.rounds)]

    def of(key, factor=1.0):
        return missing or [factor * run[key] for run in runs]

    for kind in measure.PROGRAMS:
        yield Row(f"{link[0]}: {kind}", "Mbit/s", of(kind), "one TCP stream, CUBIC", missing or [max(run["tcp"], 0.1) for run in runs], least=0.9)
        if SMALL_QUEUE in link[0]:
            yield Row(f"{link[0]}: {kind}, packets dropped by the queue", "%", of(f"{kind} lost", 100.0), most=2)


def beside(link, missing):
    for kind in measure.PROGRAMS:
        rates = missing or [measure.beside(kind, link, options.seconds) for _ in range(options.rounds)]
        yield Row(f"{link[0]}: {kind} beside one TCP stream, at the same time", "times the stream's rate", rates, least=0.4, most=2.5)


def eight(link, missing):
    for kind in measure.PROGRAMS:
        parts = missing or [part for _ in range(options.rounds) for part in measure.eight(kind, link, options.seconds)]
        yield Row(f"{link[0]}: {kind}, each of eight pairs", "of their mean", parts, least=0.7, most=1.4, each=True)


def all_rows():
    """Name, function and link of each. "share" is in the names of fairness alone."""
    for link in measure.ROWS:
        yield link[0], alone, link
    for link in measure.ROWS[:4]:
        yield f"share with TCP, {link[0]}", beside, link
    yield f"share of eight, {measure.ROWS[2][0]}", eight, measure.ROWS[2]


def main():
    words = [word.strip() for word in options.only.split(";") if word.strip()]
    names = [name for name, _, _ in all_rows()]
    chosen = [row for row in all_rows() if not words or any(word == row[0] or (word not in names and word in row[0]) for word in words)]
    if options.list:
        print("\n".join(name for name, _, _ in chosen))
        return 0
    report = rows.Report(options)
    missing = why_not()
    for name, measure_row, link in chosen:
        try:
            report.add(*measure_row(link, missing))
        except measure.NoResult as reason:
            report.add(Row(name, "", f"FAILED: {reason}"))
    report.say(f"load average at the end: {os.getloadavg()[0]:.1f} on {os.cpu_count()} processors")
    return report.end()


if __name__ == "__main__":
    sys.exit(main())
