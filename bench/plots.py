#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""The plots of docs/PERFORMANCE.md: measures on uroce and draws SVG files.

usage: plots.py BUILD [--rounds N] [--folder docs/plots] [--draw]
The series of a plot are measured in turn within a round. A point of latency and bandwidth is the best round, since other programs can
only make it worse; the others are medians. The figures go to figures.json in the
folder, beside the SVG files; --draw draws what is there and measures nothing. Needs matplotlib, perftest, iperf3 and 2,000
descriptors; without matplotlib it says so, and measures nothing.
"""
import argparse
import datetime
import json
import os
import pathlib
import statistics
import sys
import tempfile

HERE = pathlib.Path(__file__).resolve().parent
parser = argparse.ArgumentParser(usage=__doc__)
parser.add_argument("build", type=lambda text: pathlib.Path(text).resolve())
parser.add_argument("--rounds", type=int, default=3)
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


def best_rounds(best, measure, series, points):
    """For each series the best round at each point; all series of a point are measured one after the other."""
    rounds = {name: [[] for _ in points] for name in series}
    for _ in range(options.rounds):
        for index, point in enumerate(points):
            for name in series:
                rounds[name][index].append(measure(name, point))
    return {name: [best(values) for values in rows] for name, rows in rounds.items()}


def iperf(bench, size):
    port = bench.free_port()
    text = bench.pair(["iperf3", "-s", "-1", "-p", str(port)], ["iperf3", "-c", "127.0.0.1", "-p", str(port), "-t", "1", "-J", "-l", str(size)],
                      port)
    return json.loads(text)["end"]["sum_received"]["bits_per_second"] / 8e6


def measure():
    sys.argv = [sys.argv[0], str(options.build), "--rounds", str(options.rounds)]
    sys.path[:0] = [str(HERE), str(HERE.parent / "uroce" / "bench")]
    import scale  # noqa: PLC0415
    import sealed  # noqa: PLC0415
    import uroce  # noqa: PLC0415
    peer = uroce.Bench(options.build / "uroce", 1)

    def latency(name, size):
        """Microseconds there and back."""
        if name == "ib_send_lat on uroce":
            return 2 * peer.perftest("ib_send_lat", "-s", str(size), "-n", "2000")[4]
        if name.startswith("TLS"):
            return sealed.tls("latency", "--size", size, "--count", 3000, *(["--poll"] if "polling" in name else []))["p50_us"]
        return sealed.transfer("latency", "--size", size, "--count", 3000, *(["--seal"] if "sealed" in name else []))["turn_p50_us"]

    def bandwidth(name, size):
        """MB/s."""
        if name == "ib_write_bw on uroce":
            return peer.write_bandwidth(size, iterations=max(500, 10**9 // size // 2))
        if name == "TCP (iperf3)":
            return iperf(uroce, size)
        if name == "TLS over TCP":
            return sealed.tls("bandwidth", "--size", size, "--seconds", 1)["mb_per_s"]
        return sealed.transfer("write", "--size", size, "--seconds", 1, *(["--seal"] if "sealed" in name else []))["mb_per_s"]

    figures = {"date": datetime.date.today().isoformat(), "rounds": options.rounds, "processors": len(os.sched_getaffinity(0)),
               "load": os.getloadavg()[0]}
    figures["latency"] = {"sizes": LATENCY_SIZES, "series": best_rounds(min, latency, (
        "securdma, plain", "securdma, sealed", "ib_send_lat on uroce", "TLS over TCP", "TLS over TCP, polling"), LATENCY_SIZES)}
    figures["bandwidth"] = {"sizes": BANDWIDTH_SIZES, "series": best_rounds(max, bandwidth, (
        "securdma, plain", "securdma, sealed", "ib_write_bw on uroce", "TCP (iperf3)", "TLS over TCP"), BANDWIDTH_SIZES)}
    figures["sharing"] = sharing(sealed)
    figures["pauses"] = {name: sorted(sealed.transfer("write", *seal, "--size", 65536, "--seconds", 4 * options.rounds, "--renew-ms", 100)["pauses_us"])
                         for name, seal in (("plain", ()), ("sealed", ("--seal",)))}
    device = scale.find_device()
    with tempfile.TemporaryDirectory(prefix="securdma-bench.") as folder:
        bench = scale.Bench(scale.conftest.Certificates(folder, device.ipv4, [device.ipv4]), device)
        rows = {count: [bench.run(count, 0, 0, threads=16) for _ in range(options.rounds)] for count in CLIENTS}
        bare = statistics.median(bench.bare_tls(1000) for _ in range(options.rounds))
    figures["clients"] = {"counts": CLIENTS, "bare_tls": bare,
                          "set_ups": [statistics.median(count / run["seconds"] for run in rows[count]) for count in CLIENTS],
                          "kib": [statistics.median(run["kib_per_client"] for run in rows[count]) for count in CLIENTS]}
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
            runs = [sealed.run("sharing", mode, count, preloaded=sealed.ON_UROCE) for _ in range(options.rounds)]
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
    for (name, values), marker in zip(series.items(), "osd^v"):
        axes.plot(x, values, marker=marker, markersize=4, label=name)
    axes.set_ylim(bottom=bottom)


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
