# SPDX-License-Identifier: Apache-2.0
"""The rows of the benchmarks: what they say of an aim, and of a peer that is not installed. They measure nothing here."""
import json
import os
import subprocess
import sys
import types

import pytest
from conftest import ROOT, STEP

BENCH = os.path.join(ROOT, "uroce", "bench")
sys.path.insert(0, BENCH)
import peers  # noqa: E402
import rows  # noqa: E402


@pytest.mark.parametrize("ours, theirs, aim, met", [
    ([2, 4, 6], [2, 2, 2], {"least": 2}, True),
    ([2, 4, 6], [2, 2, 2], {"least": 2.1}, False),
    ([2, 4, 6], [2, 2, 2], {"most": 2}, True),
    ([2, 4, 6], [2, 2, 2], {"most": 1.9}, False),
    ([0.3, 1, 1.2], None, {"least": 0.4, "most": 2.5}, True),
    ([0.3, 1, 1.2], None, {"least": 0.4, "most": 2.5, "each": True}, False),
    ([5, 6, 50], None, {"most": 10}, True),
])
def test_median_of_the_ratios_is_judged(ours, theirs, aim, met):
    row = rows.Row("figure", "us", ours, "peer", theirs, **aim)
    assert row.met is met
    assert ("MISSED" in rows.as_text(row)) is not met
    assert ("**missed**" in rows.as_markdown(row)) is not met
    assert rows.from_dict(json.loads(json.dumps(rows.as_dict(row)))) == row


def test_row_without_its_peer_says_why_and_others_are_measured():
    def missing():
        raise rows.Missing("perftest is not installed")

    seen = rows.in_turn(3, {"ours": lambda: 2.0, "gone": missing, "theirs": lambda: 1.0})
    measured, skipped = (rows.Row("figure", "us", seen["ours"], "peer", seen[name], least=1) for name in ("theirs", "gone"))
    assert measured.met and measured.ratios == [2.0] * 3
    assert rows.as_text(skipped) == "figure: skipped: perftest is not installed"
    assert rows.as_dict(skipped)["skipped"] == "skipped: perftest is not installed" and "met" not in rows.as_dict(skipped)
    assert "skipped" in rows.table([measured, skipped])
    assert rows.summary([measured, skipped]) == "1 of 1 aims met"


def test_failure_ends_no_other_measurement_but_is_told(capsys):
    def fail():
        peers.output("sh", "-c", "echo no device >&2; exit 3")

    seen = rows.in_turn(2, {"ours": lambda: 2.0, "theirs": fail})
    assert seen["ours"] == [2.0, 2.0] and "no device" in capsys.readouterr().err
    report = rows.Report(types.SimpleNamespace(json=False, markdown=False, lines=False))
    report.add(rows.Row("figure", "us", seen["ours"], most=3))
    assert report.end() == 0
    report.add(rows.Row("figure", "us", seen["ours"], "peer", seen["theirs"], most=3))
    assert report.end() == 1 and "figure: FAILED: bench: sh -c" in capsys.readouterr().out


@pytest.mark.parametrize("program, package", [("ib_send_lat", "perftest"), ("iperf3", "iperf3"), ("ucx_perftest", "ucx-utils")])
def test_missing_program_is_told_by_its_package(monkeypatch, tmp_path, program, package):
    monkeypatch.setattr(peers, "TOOLS", str(tmp_path))
    with pytest.raises(rows.Missing, match=f"^{package} is not installed$"):
        peers.need(program)
    (tmp_path / program).write_text("#!/bin/sh\n")
    (tmp_path / program).chmod(0o755)
    assert peers.need(program) == program


def test_older_build_that_was_not_given_is_told():
    with pytest.raises(rows.Missing, match="--older"):
        peers.Bench(None).latency()


def test_report_of_a_benchmark_goes_on_as_lines():
    script = ("import sys; sys.path.insert(0, sys.argv[1]); import rows, types; r = rows.Report(types.SimpleNamespace(json=False, markdown=False,"
              "lines=True)); r.say('a remark'); r.add(rows.Row('figure', 'us', [1.0], most=2)); r.end()")
    result = subprocess.run([sys.executable, "-c", script, BENCH], capture_output=True, text=True, check=True, timeout=STEP)
    remark, row = map(json.loads, result.stdout.splitlines())
    assert remark == {"text": "a remark"} and rows.from_dict(row).met
