#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""What `securdma wrap` costs: bandwidth and latency wrapped beside bare, the time to connect 1,000 queue pairs, and one call of ibv_modify_qp.

usage: wrap.py BUILD [--agent PATH] [--rounds N] [--json | --markdown]
On uroce. With --agent the programs use the agent at that socket; else a stand-in for it (tests/integration/wrap_agent.py), in
Python, whose answers take longer than the real one's. Each pair is measured in turn within a round; shown are the median of the
rounds' ratios and min..max.
"""
import argparse
import contextlib
import os
import pathlib
import re
import socket
import subprocess
import sys
import tempfile
import time

TOP = pathlib.Path(__file__).resolve().parent.parent
sys.path[:0] = [str(TOP / "uroce/bench"), str(TOP / "tests/integration")]
import rows  # noqa: E402
from rows import Row, in_turn  # noqa: E402

parser = argparse.ArgumentParser(usage=__doc__)
parser.add_argument("build", type=lambda text: pathlib.Path(text).resolve())
parser.add_argument("--agent")
parser.add_argument("--rounds", type=int, default=5)
rows.add_options(parser)
options = parser.parse_args()
UROCE, SECURDMA = options.build / "uroce/cli/uroce", options.build / "cli/securdma"
PAIRS = options.build / "tests/integration/wrap_pairs"
LOOPBACK, DEADLINE = "127.0.0.1", 120


def command(agent, *words):
    return [UROCE, *([SECURDMA, "wrap", "--agent", agent, "--"] if agent else []), *words]


def listens(port):
    with open("/proc/net/tcp", encoding="ascii") as table, open("/proc/net/tcp6", encoding="ascii") as table6:
        return any(re.search(rf": [0-9A-F]+:{port:04X} [0-9A-F]+:0000 0A ", line) for line in [*table, *table6])


def perftest(agent, program, *words):
    """The last line of figures, as numbers."""
    with socket.create_server((LOOPBACK, 0)) as probe:
        port = probe.getsockname()[1]
    words = [program, *words, "-d", "uroce0", "-x", "0", "-F", "-u", "17", "-p", str(port)]
    with subprocess.Popen(command(agent, *words), stdout=subprocess.DEVNULL) as server:
        while not listens(port):
            assert server.poll() is None
        out = subprocess.run(command(agent, *words, LOOPBACK), capture_output=True, text=True, timeout=DEADLINE, check=True).stdout
        server.wait(DEADLINE)
    return [float(word) for word in re.findall(r"^ *\d+ +\d+ +[-\d. \t]+$", out, re.M)[-1].split()]


def whole_run(agent):
    """Seconds of a benchmark that hardly sends, but connects 1,000 queue pairs over TCP first."""
    start = time.monotonic()
    perftest(agent, "ib_send_bw", "-q", "1000", "-n", "5", "-t", "5", "-r", "5", "-s", "64")
    return time.monotonic() - start


def many(agent):
    """Seconds for 1,000 queue pairs from INIT to RTS, both ends in one process; the second time, with a warm session."""
    out = subprocess.run(command(agent, PAIRS, "uroce0", "0"), input="many 1000 1\n" * 2, capture_output=True, text=True, timeout=DEADLINE, check=True).stdout
    error, took, slowest, _ = out.splitlines()[-1].split()
    assert error == "0", out
    return float(took), float(slowest)


def figures(agent):
    for name, unit, words, at in (
            ("ib_write_bw, 64 KiB", "MB/s", ("ib_write_bw", "-s", "65536", "-n", "5000"), 3),
            ("ib_send_bw, UC, 4 KiB", "MB/s", ("ib_send_bw", "-c", "UC", "-s", "4096", "-n", "20000"), 3),
            ("ib_send_lat, 2 B, median", "us", ("ib_send_lat", "-n", "20000"), 4)):
        seen = in_turn(options.rounds, {"wrapped": lambda words=words: perftest(agent, *words), "bare": lambda words=words: perftest(None, *words)})
        wrapped, bare = ([run[at] for run in seen[which]] for which in ("wrapped", "bare"))
        yield Row(f"wrapped {name}", unit, wrapped, "bare", bare, **({"least": 0.98} if unit == "MB/s" else {"most": 1.02}))
    seen = in_turn(options.rounds, {"wrapped": lambda: whole_run(agent), "bare": lambda: whole_run(None)})
    yield Row("wrapped ib_send_bw with 1,000 queue pairs, the whole run", "s", seen["wrapped"], "bare", seen["bare"], most=1.5)
    seen = in_turn(options.rounds, {"wrapped": lambda: many(agent), "bare": lambda: many(None)})
    yield Row("wrapped: 1,000 queue pairs connected", "ms", [1e3 * run[0] for run in seen["wrapped"]], "bare, without any exchange",
              [1e3 * run[0] for run in seen["bare"]])
    yield Row("wrapped: p99 of one ibv_modify_qp", "us", [1e6 * run[1] for run in seen["wrapped"]])


with contextlib.ExitStack() as stack:
    if not options.agent:
        from wrap_agent import StandIn
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        options.agent = stack.enter_context(StandIn(os.path.join(folder, "agent.sock"))).path
    report = rows.Report(options)
    for row in figures(options.agent):
        report.add(row)
    sys.exit(report.end())
