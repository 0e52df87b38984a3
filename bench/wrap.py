#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""What `securdma wrap` costs: bandwidth and latency wrapped beside bare, the time to connect 1,000 queue pairs, and one call of ibv_modify_qp.

usage: wrap.py BUILD [--rounds N] [--json | --markdown]
On uroce, between two addresses of the loopback network, each with its agent, so that what connects is asked over TLS. Each pair is measured in turn
within a round; shown are the median of the rounds' ratios and min..max.
"""
import argparse
import contextlib
import pathlib
import re
import socket
import subprocess
import sys
import tempfile
import time

TOP = pathlib.Path(__file__).resolve().parent.parent
sys.path[:0] = [str(TOP / "uroce/bench")]
import rows  # noqa: E402
from rows import Row, in_turn  # noqa: E402

parser = argparse.ArgumentParser(usage=__doc__)
parser.add_argument("build", type=lambda text: pathlib.Path(text).resolve())
parser.add_argument("--rounds", type=int, default=5)
rows.add_options(parser)
options = parser.parse_args()
UROCE, SECURDMA = options.build / "uroce/cli/uroce", options.build / "cli/securdma"
PAIRS = options.build / "tests/integration/wrap_pairs"
HOSTS, DEADLINE = ("127.0.0.2", "127.0.0.3"), 120


def free_port(address):
    with socket.create_server((address, 0)) as probe:
        return probe.getsockname()[1]


@contextlib.contextmanager
def agents():
    """Of the two hosts; their sockets."""
    with contextlib.ExitStack() as stack:
        folder, port = pathlib.Path(stack.enter_context(tempfile.TemporaryDirectory())), str(free_port(""))
        for words in (["ca"], *(["peer", "--cn", host, "--name", host, "--out", host] for host in HOSTS)):
            subprocess.run([SECURDMA, "cert", *words], cwd=folder, check=True, capture_output=True)
        for host in HOSTS:
            agent = stack.enter_context(subprocess.Popen(
                [SECURDMA, "agent", "--cert", host + ".crt", "--key", host + ".key", "--ca", "ca.crt", "--listen", host, "--port", port, "--socket", folder / f"{host}.sock",
                 "--control", folder / f"{host}.control"], cwd=folder, stdout=subprocess.PIPE, text=True))
            stack.callback(agent.terminate)
            assert "listening" in agent.stdout.readline()
        yield [folder / f"{host}.sock" for host in HOSTS]


def command(sockets, host, *words):
    return [UROCE, "--addr", HOSTS[host], *([SECURDMA, "wrap", "--agent", sockets[host], "--"] if sockets else []), *words]


def listens(port):
    with open("/proc/net/tcp", encoding="ascii") as table, open("/proc/net/tcp6", encoding="ascii") as table6:
        return any(re.search(rf": [0-9A-F]+:{port:04X} [0-9A-F]+:0000 0A ", line) for line in [*table, *table6])


def perftest(sockets, program, *words):
    """The last line of figures, as numbers."""
    port = free_port("")
    words = [program, *words, "-d", "uroce0", "-x", "0", "-F", "-u", "17", "-p", str(port)]
    with subprocess.Popen(command(sockets, 0, *words), stdout=subprocess.DEVNULL) as server:
        while not listens(port):
            assert server.poll() is None
        out = subprocess.run(command(sockets, 1, *words, HOSTS[0]), capture_output=True, text=True, timeout=DEADLINE, check=True).stdout
        server.wait(DEADLINE)
    return [float(word) for word in re.findall(r"^ *\d+ +\d+ +[-\d. \t]+$", out, re.M)[-1].split()]


def whole_run(sockets):
    """Seconds of a benchmark that hardly sends, but connects 1,000 queue pairs over TCP first."""
    start = time.monotonic()
    perftest(sockets, "ib_send_bw", "-q", "1000", "-n", "5", "-t", "5", "-r", "5", "-s", "64")
    return time.monotonic() - start


def many(sockets):
    """Seconds for 1,000 queue pairs from INIT to RTS, both ends in one process, so that one agent answers; and the 99th percentile of one call."""
    out = subprocess.run(command(sockets, 0, PAIRS, "uroce0", "0"), input="many 1000 1\n" * 2, capture_output=True, text=True, timeout=DEADLINE, check=True).stdout
    error, took, slowest, _ = out.splitlines()[-1].split()
    assert error == "0", out
    return float(took), float(slowest)


def figures(sockets):
    for name, unit, words, at in (
            ("ib_write_bw, 64 KiB", "MB/s", ("ib_write_bw", "-s", "65536", "-n", "50000"), 3),
            ("ib_write_bw, UC, 4 KiB", "MB/s", ("ib_write_bw", "-c", "UC", "-s", "4096", "-n", "1000000"), 3),
            ("ib_send_lat, 2 B, median", "us", ("ib_send_lat", "-n", "200000"), 4)):
        seen = in_turn(options.rounds, {"wrapped": lambda words=words: perftest(sockets, *words), "bare": lambda words=words: perftest(None, *words)})
        wrapped, bare = ([run[at] for run in seen[which]] for which in ("wrapped", "bare"))
        yield Row(f"wrapped {name}", unit, wrapped, "bare", bare, **({"least": 0.98} if unit == "MB/s" else {"most": 1.02}))
    seen = in_turn(options.rounds, {"wrapped": lambda: whole_run(sockets), "bare": lambda: whole_run(None)})
    yield Row("wrapped ib_send_bw with 1,000 queue pairs, the whole run", "s", seen["wrapped"], "bare", seen["bare"], most=1.5)
    seen = in_turn(options.rounds, {"wrapped": lambda: many(sockets), "bare": lambda: many(None)})
    yield Row("wrapped: 1,000 queue pairs of one host connected", "ms", [1e3 * run[0] for run in seen["wrapped"]], "bare, without any exchange",
              [1e3 * run[0] for run in seen["bare"]])
    yield Row("wrapped: p99 of one ibv_modify_qp there", "us", [1e6 * run[1] for run in seen["wrapped"]])


with agents() as made:
    report = rows.Report(options)
    for row in figures(made):
        report.add(row)
    sys.exit(report.end())
