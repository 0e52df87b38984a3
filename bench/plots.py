#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""The plots of docs/PERFORMANCE.md: measures on uroce and draws SVG files.

usage: plots.py BUILD [--older BUILD] [--rounds N] [--no-vm] [--folder docs/plots] [--draw]
The series of a plot are measured in turn within a round. A point of latency and bandwidth is the best round, since other programs can
only make it worse; the others are medians. --older: another build, drawn beside this one. The figures go to figures.json in the
folder, beside the SVG files; --draw draws what is there and measures nothing. Needs matplotlib, perftest and 2,000 descriptors; without
matplotlib it says so, and measures nothing. A peer that is not there (iperf3, ucx-utils, the older build; --no-vm: rdma_rxe) has no
curve.
"""
import argparse
import datetime
import functools
import json
import math
import os
import pathlib
import statistics
import sys
import tempfile

HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "uroce" / "bench")]
import peers  # noqa: E402
import rows  # noqa: E402

parser = argparse.ArgumentParser(usage=__doc__)
parser.add_argument("build", type=lambda text: pathlib.Path(text).resolve())
parser.add_argument("--older", type=lambda text: pathlib.Path(text).resolve())
parser.add_argument("--rounds", type=int, default=3)
parser.add_argument("--no-vm", action="store_true")
parser.add_argument("--folder", type=pathlib.Path, default=HERE.parent / "docs" / "plots")
parser.add_argument("--draw", action="store_true")
options = parser.parse_args()
try:
    import matplotlib
except ImportError:
    print("plots: matplotlib is not installed (scripts/setup bench): no plots")
    sys.exit(0)
matplotlib.use("svg")
from matplotlib import pyplot  # noqa: E402

LATENCY_SIZES = (64, 256, 1024, 4096, 16384, 65536)
BANDWIDTH_SIZES = (4096, 16384, 65536, 262144, 1 << 20)
CLIENTS = (10, 100, 300, 1000)


# ---- measuring ----------------------------------------------------------------------------------------------------------


def best_rounds(best, sizes, measures):
    """For each series the best round at each size; a series whose peer is not there is left out, and so is a size that it cannot have."""
    seen = rows.in_turn(options.rounds, {(name, size): functools.partial(measure, size) for name, measure in measures.items() for size in sizes})
    curves = {name: [best(seen[name, size]) if isinstance(seen[name, size], list) else None for size in sizes] for name in measures}
    return {"sizes": sizes, "series": {name: values for name, values in curves.items() if any(values)}}


def within_reach(measure, largest):
    """The bare datagrams have a largest size."""
    def limited(size):
        if size > largest:
            raise rows.Missing("too large")
        return measure(size)
    return limited


def latencies(sealed, bench, older):
    """Microseconds: of securdma there and back, of uroce one way."""
    before = rows.commit_of(options.older)
    args = ("--count", 3000, "--size")

    def older_transfer(size):
        older.uroce()  # says when there is none
        return sealed.transfer("latency", *args, size, build=options.older)["turn_p50_us"]

    yield "latency", best_rounds(min, LATENCY_SIZES, {
        "securdma, plain": lambda size: sealed.transfer("latency", *args, size)["turn_p50_us"],
        "securdma, sealed": lambda size: sealed.transfer("latency", "--seal", *args, size)["turn_p50_us"],
        f"securdma {before}, plain": older_transfer,
        "TLS over TCP": lambda size: sealed.tls("latency", *args, size)["p50_us"],
        "TLS over TCP, polling": lambda size: sealed.tls("latency", "--poll", *args, size)["p50_us"]})
    yield "uroce_latency", best_rounds(min, LATENCY_SIZES, {
        "uroce": lambda size: bench.latency(size=size, iterations=20000),
        f"uroce {before}": lambda size: older.latency(size=size, iterations=2000),
        "UCX, posix shared memory": lambda size: bench.ucx("posix", "tag_lat", size, 20000)[0],
        "a bare UDP ping-pong": within_reach(lambda size: bench.udp_latency(size, 5000), 65000)})


def bandwidths(sealed, bench, older):
    """MB/s."""
    before = rows.commit_of(options.older)
    args = ("--seconds", 1, "--size")
    streams = {"TCP (iperf3)": lambda size: peers.iperf(1, size), "TLS over TCP": lambda size: sealed.tls("bandwidth", *args, size)["mb_per_s"]}
    yield "bandwidth", best_rounds(max, BANDWIDTH_SIZES, {
        "securdma, plain": lambda size: sealed.transfer("write", *args, size)["mb_per_s"],
        "securdma, sealed": lambda size: sealed.transfer("write", "--seal", *args, size)["mb_per_s"], **streams})
    yield "uroce_bandwidth", best_rounds(max, BANDWIDTH_SIZES, {
        "uroce": lambda size: bench.bandwidth("ib_write_bw", size, 2 * 10**9 // size),
        f"uroce {before}": lambda size: older.bandwidth("ib_write_bw", size, 4 * 10**8 // size),
        "UCX, posix shared memory": lambda size: bench.ucx("posix", "tag_bw", size, 5 * 10**8 // size)[1],
        "one process_vm_readv a transfer": bench.host_copy, **streams})


def measure():
    sys.argv = [sys.argv[0], str(options.build), "--rounds", str(options.rounds)]
    import scale  # noqa: PLC0415
    import sealed  # noqa: PLC0415
    import uroce  # noqa: PLC0415
    bench, older = peers.Bench(options.build / "uroce"), peers.Bench(options.older and options.older / "uroce")

    figures = {"date": datetime.date.today().isoformat(), "rounds": options.rounds, "processors": len(os.sched_getaffinity(0)),
               "load": os.getloadavg()[0]}
    figures.update(latencies(sealed, bench, older))
    figures.update(bandwidths(sealed, bench, older))
    if not options.no_vm:
        sizes = {"latency": LATENCY_SIZES, "bandwidth": BANDWIDTH_SIZES}
        for kind, curves in uroce.in_vm(options.build / "uroce", 2, "--curves", json.dumps(sizes))[0].items():
            figures[f"uroce_{kind}"]["in the VM"] = curves
    figures["sharing"] = sharing(sealed)
    figures["pauses"] = {name: sorted(sealed.transfer("write", *seal, "--size", 65536, "--seconds", 4 * options.rounds, "--renew-ms", 100)["pauses_us"])
                         for name, seal in (("plain", ()), ("sealed", ("--seal",)))}
    device = scale.find_device()
    with tempfile.TemporaryDirectory(prefix="securdma-bench.") as folder:
        server = scale.Bench(scale.conftest.Certificates(folder, device.ipv4, [device.ipv4]), device)
        runs = {count: [server.run(count, 0, 0, threads=16) for _ in range(options.rounds)] for count in CLIENTS}
        bare = statistics.median(server.bare_tls(1000) for _ in range(options.rounds))
    figures["clients"] = {"counts": CLIENTS, "bare_tls": bare,
                          "set_ups": [statistics.median(count / run["seconds"] for run in runs[count]) for count in CLIENTS],
                          "kib": [statistics.median(run["kib_per_client"] for run in runs[count]) for count in CLIENTS]}
    return figures


def rounded(value):
    """Four digits are more than a measurement is worth."""
    if isinstance(value, dict):
        return {name: rounded(inner) for name, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [rounded(inner) for inner in value]
    return float(f"{value:.4g}") if isinstance(value, float) else value


def sharing(sealed):
    """The verbs objects of N clients on one device context, and on one context each."""
    result = {}
    for count in (10, 100):
        for mode in ("shared", "each"):
            runs = [sealed.run("sharing", mode, count, on_uroce=sealed.ON_UROCE) for _ in range(options.rounds)]
            result[f"{mode} {count}"] = {name: statistics.median(run[name] for run in runs) for name in runs[0]}
    return result


# ---- drawing ------------------------------------------------------------------------------------------------------------


def plot(figures, name, title, xlabel, ylabel, draw, logarithmic=True):
    figure, axes = pyplot.subplots(figsize=(6.4, 4.0))
    if logarithmic:
        axes.set_xscale("log", base=2)
    draw(axes)
    axes.set(title=title, xlabel=xlabel, ylabel=ylabel)
    axes.grid(True, alpha=0.3)
    axes.legend(fontsize=8)
    figure.text(0.99, 0.005, f"{figures['date']}, uroce, {figures['processors']} processors, load {figures['load']:.0f}", ha="right", fontsize=6)
    figure.tight_layout()
    figure.savefig(options.folder / f"{name}.svg", metadata={"Date": None})
    pyplot.close(figure)


def lines(axes, x, series, bottom=0):
    for (name, values), marker in zip(series.items(), "osd^v<>pP"):
        points = [(at, value) for at, value in zip(x, values) if value is not None]
        axes.plot(*zip(*points), marker=marker, markersize=4, label=name)
    if bottom is not None:
        axes.set_ylim(bottom=bottom)


def peer_lines(axes, figures):
    """Both axes are logarithmic, for the emulated machine is much slower than this one: dashed."""
    axes.set_yscale("log")
    lines(axes, figures["sizes"], figures["series"], None)
    for (name, values), marker in zip(figures.get("in the VM", {}).items(), "xX"):
        axes.plot(figures["sizes"], [math.nan if value is None else value for value in values], marker=marker, markersize=4, linestyle="--",
                  label=f"in the emulated machine: {name}")


def size_ticks(axes, sizes):
    axes.set_xticks(sizes, [f"{size >> 20} MiB" if size >> 20 else f"{size >> 10} KiB" if size >> 10 else f"{size} B" for size in sizes])


def draw(figures):
    matplotlib.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "securdma", "font.size": 9})

    def latency(axes):
        axes.set_yscale("log")
        lines(axes, figures["latency"]["sizes"], figures["latency"]["series"], None)

    def bandwidth(axes):
        lines(axes, figures["bandwidth"]["sizes"], figures["bandwidth"]["series"])

    def set_ups(axes):
        lines(axes, figures["clients"]["counts"], {"securdma": figures["clients"]["set_ups"]})
        axes.axhline(figures["clients"]["bare_tls"], color="gray", linestyle="--", label="bare mutual TLS 1.3 handshakes")

    def memory(axes):
        lines(axes, figures["clients"]["counts"], {"server memory": figures["clients"]["kib"]})

    def pauses(axes):
        for name, values in figures["pauses"].items():
            axes.plot([value / 1000 for value in values], [100 * (i + 1) / len(values) for i in range(len(values))], label=name)
        axes.axvline(10, color="gray", linestyle="--", label="aim for 99 %")

    plot(figures, "latency", "A message there and back, both ends on one machine", "message size", "microseconds, p50", lambda axes: (
        latency(axes), size_ticks(axes, figures["latency"]["sizes"])))
    plot(figures, "bandwidth", "Bandwidth, both ends on one machine", "size of a write", "MB/s", lambda axes: (
        bandwidth(axes), size_ticks(axes, figures["bandwidth"]["sizes"])))
    plot(figures, "uroce-latency", "uroce: a message one way (ib_send_lat), within a host", "message size", "microseconds", lambda axes: (
        peer_lines(axes, figures["uroce_latency"]), size_ticks(axes, figures["uroce_latency"]["sizes"])))
    plot(figures, "uroce-bandwidth", "uroce: writes (ib_write_bw), within a host", "size of a write", "MB/s", lambda axes: (
        peer_lines(axes, figures["uroce_bandwidth"]), size_ticks(axes, figures["uroce_bandwidth"]["sizes"])))
    plot(figures, "setups", "Set-ups a second", "clients", "set-ups a second", set_ups, False)
    plot(figures, "memory", "Server memory for each client, small rings", "clients", "KiB a client", memory, False)
    plot(figures, "pauses", "Pause of a busy connection for new PSNs", "milliseconds", "% of pauses that are no longer", pauses, False)


def main():
    options.folder.mkdir(exist_ok=True)
    path = options.folder / "figures.json"
    if not options.draw:
        figures = measure()
        path.write_text(json.dumps(rounded(figures)) + "\n", encoding="ascii")
    draw(json.loads(path.read_text(encoding="ascii")))
    print(f"plots: {options.folder}")


main()
