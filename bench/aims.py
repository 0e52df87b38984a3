#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Every figure that has an aim, in one table: runs the benchmarks one after the other.

usage: aims.py BUILD [--older BUILD] [--rounds N] [--only NAME...] [--quick] [--docs FILE] [--json | --markdown]
  --older   the older build that some rows are measured beside (scripts/build-commit COMMIT prints its folder)
  --only    these benchmarks alone: uroce, paths, sealed, copies, scale, wrapped, rdma
  --quick   without the ones in the VM, of between hosts and of 10,000 clients
  --docs    puts the rows into this file, between <!-- rows: NAME --> and <!-- end --> of each benchmark that has run
Rows come as they are measured; at the end the table says of each whether its aim is met. A row whose peer is not here says so. Needs an
idle machine and tens of minutes, of which the links between hosts take half. Exit status 1: a measurement failed. An aim that is
missed is no failure.
"""
import argparse
import datetime
import json
import os
import pathlib
import re
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "uroce/bench"))
import rows  # noqa: E402

PYTHON = "/usr/bin/python3"


def benchmarks(options):
    """Name to title and command."""
    build, older = options.build, options.older
    yield "uroce", "uroce", [PYTHON, ROOT / "uroce/bench/uroce.py", build / "uroce", *(["--older", older / "uroce"] if older else []),
                             *(["--no-vm"] if options.quick else [])]
    if not options.quick or options.only:
        yield "paths", "uroce between hosts", [PYTHON, ROOT / "uroce/bench/paths.py", build / "uroce"]
    yield "sealed", "sealed connections", [PYTHON, ROOT / "bench/sealed.py", build]
    yield "copies", "copying files", [PYTHON, ROOT / "bench/copies.py", build, *(["--quick"] if options.quick else [])]
    yield "scale", "many clients", [PYTHON, ROOT / "bench/scale.py", build, *(["--older", older] if older else []),
                                    *(["--quick"] if options.quick else [])]
    yield "wrapped", "wrapped programs", [PYTHON, ROOT / "bench/wrap.py", build]
    if not options.quick or options.only:
        yield "rdma", "on the RDMA device, or rdma_rxe in the VM", [ROOT / "scripts/bench", build]


def run(command, rounds, report):
    """Passes on what the benchmark reports. False: it failed."""
    with subprocess.Popen([*map(str, command), "--rounds", str(rounds), "--lines"], stdout=subprocess.PIPE, text=True) as process:
        for line in process.stdout:
            entry = json.loads(line)
            if "figure" in entry:
                report.add(rows.from_dict(entry))
            else:
                report.say(**entry)
    return process.returncode == 0


def git(*words):
    return subprocess.run(["git", "-C", ROOT, *words], capture_output=True, text=True, check=False).stdout.strip()


def state():
    """When, of which commit and on what machine; also how busy it is before the benchmark adds to that."""
    commit, changed = git("rev-parse", "--short", "HEAD"), git("status", "--porcelain", "src", "include", "cli", "uroce/src", "uroce/cli")
    return (f"{datetime.date.today().isoformat()}{f', commit {commit}' if commit else ''}{' with changes' if changed else ''}, "
            f"{len(os.sched_getaffinity(0))} processors, load {os.getloadavg()[0]:.1f} at the start")


def put(path, name, text):
    """Replaces what the file has of this benchmark."""
    found = re.compile(rf"(<!-- rows: {name} -->\n).*?(<!-- end -->\n)", re.S)
    old = path.read_text(encoding="utf-8")
    if not found.search(old):
        raise SystemExit(f"aims: {path} has no place for the rows of '{name}': it needs the lines <!-- rows: {name} --> and <!-- end -->")
    path.write_text(found.sub(lambda match: match[1] + text + match[2], old), encoding="utf-8")


def markdown(entries, when, rounds):
    table = [rows.MARKDOWN_HEAD, *(rows.as_markdown(entry) for entry in entries if isinstance(entry, rows.Row))]
    return f"Measured on {when}; {rounds} rounds.\n\n" + "\n".join(table) + "\n"


def main():
    parser = argparse.ArgumentParser(usage=__doc__)
    parser.add_argument("build", type=lambda text: pathlib.Path(text).resolve())
    parser.add_argument("--older", type=lambda text: pathlib.Path(text).resolve())
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", nargs="+", default=[])
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--docs", type=pathlib.Path)
    rows.add_options(parser)
    options = parser.parse_args()
    report, failed = rows.Report(options), []
    for name, title, command in benchmarks(options):
        if options.only and name not in options.only:
            continue
        report.title(title)
        when, start = state(), len(report.entries)
        if not run(command, options.rounds, report):
            failed.append(name)
            report.say(f"the benchmark '{name}' failed, or a part of it")
        elif options.docs:
            put(options.docs, name, markdown(report.entries[start:], when, options.rounds))
    report.end()
    if not options.json and not options.markdown:
        print(f"\n{rows.table(report.rows)}\n\n{rows.summary(report.rows)}")
    if failed:
        print(f"aims: failed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
