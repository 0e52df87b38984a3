# SPDX-License-Identifier: Apache-2.0
"""Forks, many processes, and peers that are killed or stopped."""
import json
import os
import re
import signal
import time

import pytest

from rig import DEVICE, HERE, PATIENT, PYTHON, WIRE, WRAPPER, Pair, find, free_port, succeed, verify_pair, wait_until


def test_pairs_started_by_one_shell():
    """The wrapper holds for what a program starts: both ends under one shell."""
    command = " ".join([find("ib_send_bw"), "-d", DEVICE, "-F", "-p", str(free_port()), "-n", "200", *PATIENT])
    text = succeed(["sh", "-c", f"{command} >/dev/null & server=$!; i=0; until {command} 127.0.0.1; do "
                    "i=$((i+1)); [ $i -lt 200 ] || exit 9; sleep 0.1; done; wait $server && echo both ended well"])
    assert "both ended well" in text


def test_programs_of_a_launcher_that_closes_descriptors_are_counted():
    """mpiexec does, and Python's subprocess."""
    end = [find("ibv_rc_pingpong"), "-g", "0", "-n", "200", "-p", str(free_port())]
    script = f"""
import subprocess, time
server = subprocess.Popen({end}, stdout=subprocess.DEVNULL)
limit = time.monotonic() + 30
while subprocess.call({end} + ['localhost'], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) != 0:
    assert time.monotonic() < limit and server.poll() is None
    time.sleep(0.2)
server.wait()"""
    text = succeed([WRAPPER, "--stats-json", PYTHON, "-c", script])
    assert json.loads(text.splitlines()[-1])["tx_packets"] >= 400, text


def test_fork_after_use_of_the_device():
    assert succeed([PYTHON, os.path.join(HERE, "fork_child.py")]).strip().endswith("ok")


def test_twelve_pairs_at_once(programs):
    pairs = []
    for i in range(12):
        pairs.append(verify_pair("--iterations", "5", "--sizes", "0,1,1000,4096,70000", "--seed", str(i), deadline=90))
        programs.append(pairs[-1])
    for pair in pairs:
        for text in pair.finish(180):
            assert "verified: " in text


def test_many_programs_of_different_kinds_at_once(programs):
    kinds = (["ib_send_bw", "-n", "300"], ["ib_write_bw", "-n", "300"], ["ib_read_lat", "-n", "300"],
             ["ib_atomic_bw", "-n", "300"], ["ib_send_lat", "-e", "-n", "300"], ["ib_send_lat", "-c", "UD", "-n", "300"])
    for command in kinds:
        programs.append(Pair([*command, "-d", DEVICE, "-F", *PATIENT]))
    for pair in list(programs):
        pair.finish(180)


def test_peer_that_is_killed_ends_its_peer_with_an_error(programs):
    pair = Pair(["ib_send_bw", "-d", DEVICE, "-F", "-D", "60"])
    programs.append(pair)
    wait_until(lambda: pair.client.counters().get("tx_packets", 0) > 1000, lambda: f"traffic\n{pair.client.output}")
    pair.server.signal(signal.SIGKILL)
    status = pair.client.wait(30)
    text = pair.client.output
    assert status != 0
    assert re.search(r"status 12|syndrom.*|Completion with error|transport retry", text), text


@pytest.mark.parametrize("how", ["kill", "stop"])
@pytest.mark.parametrize("events", [[], ["--events"]], ids=["polling", "events"])
@pytest.mark.parametrize("timeout, retry", [(10, 7), (14, 2), (16, 1), (17, 0)])
def test_lost_peer_is_reported_in_time(programs, how, events, timeout, retry):
    pair = verify_pair("--lose", how, "--timeout", str(timeout), "--retry", str(retry), "--iterations", "1", "--sizes", "100",
                       "--qps", "4", *events, environment=WIRE)
    programs.append(pair)
    status = pair.client.wait()
    assert status == 0, pair.client.output
    assert "lost: retry exceeded on 4 queue pairs" in pair.client.output


@pytest.mark.parametrize("events", [[], ["--events"]], ids=["polling", "events"])
def test_killed_process_of_this_host_is_reported_at_once(programs, events):
    """Its retries would take 67 s or more."""
    pair = verify_pair("--lose", "dead", "--timeout", "21", "--retry", "7", "--iterations", "1", "--sizes", "100", "--qps", "4", *events)
    programs.append(pair)
    status = pair.client.wait()
    assert status == 0, pair.client.output
    assert "lost: retry exceeded on 4 queue pairs" in pair.client.output


# One try lasts at least 1.07 s and there are seven more: far above the pause. A process of this host is known to live, and has
# all the time, whatever the queue pair says.
@pytest.mark.parametrize("timeout, retry, environment", [(18, 7, WIRE), (12, 1, {})], ids=["wire", "host"])
@pytest.mark.parametrize("stopped", ["server", "client"])
def test_stopped_process_goes_on_when_continued(programs, stopped, timeout, retry, environment):
    pair = verify_pair("--timeout", str(timeout), "--retry", str(retry), "--iterations", "150", "--sizes", "10,5000,100000",
                       environment=environment)
    programs.append(pair)
    wait_until(lambda: "connected" in pair.client.output, lambda: f"connected\n{pair.client.output}")
    process = getattr(pair, stopped)
    process.signal(signal.SIGSTOP)
    time.sleep(0.4)
    process.signal(signal.SIGCONT)
    for text in pair.finish():
        assert "verified: " in text


def test_killed_peer_does_not_hurt_others(programs):
    """A pair goes on while the processes of another, on the same address, are killed."""
    lasting = verify_pair("--iterations", "150", "--sizes", "10,5000,100000")
    dying = verify_pair("--iterations", "10000", "--sizes", "100000")
    programs.extend((lasting, dying))
    wait_until(lambda: "connected" in dying.client.output, lambda: f"connected\n{dying.client.output}")
    dying.close()
    for text in lasting.finish():
        assert "verified: " in text
