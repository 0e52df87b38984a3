# SPDX-License-Identifier: Apache-2.0
"""Peers with good credentials that answer reads as they like, or not in time: memory that a call has given back to the program stays as the
program has it (probe_hostile.c, probe_region.c). The probe's memory is out of reach once it was given back: whoever touches it ends the probe."""
import subprocess

import pytest
from conftest import ON_UROCE, PROBE_WRAPPED, SCALE, Process, Server, client_args, free_port, run, wait_until

EPROTOCOL = -10004
READS = 12
SEALED = {"SECURDMA_PROBE_SEAL": "required"}


@pytest.mark.parametrize("change", ["plain", "renewed", "broken"])
@pytest.mark.parametrize("victim", ["client", "server"])
def test_read_is_not_complete_by_answers_of_no_bytes(probe, victim, change):
    """Nor after a renewal between the question and the answers."""
    facts = probe("hostile-nothing", victim, change, program=PROBE_WRAPPED)
    assert facts == {"status": EPROTOCOL, "wrong": 0}


def test_answer_that_comes_with_the_loss_of_a_links_connection_is_not_taken(probe):
    facts = probe("hostile-late", 24, program=PROBE_WRAPPED, timeout=60)
    assert facts["answered"] <= facts["tries"] == 24


@pytest.mark.parametrize("mode", [
    pytest.param({}, marks=pytest.mark.skipif(not ON_UROCE, reason="a device in the kernel answers for a process that is stopped"), id="plain"),
    pytest.param(SEALED, id="sealed")])
def test_answer_after_a_time_out_does_not_reach_the_callers_memory(probe, certs, device, start, monkeypatch, mode):
    for name, value in mode.items():
        monkeypatch.setenv(name, value)
    server = start(Server, certs, device, *(["--seal", "required"] if mode else []))
    probe("stopped", server.port, server.process.pid, timeout=60)
    server.wait_status(lost=2)
    assert server.stop()["accepted"] == 2


def test_command_that_connects_again_is_not_hurt_by_an_answer_that_comes_with_the_loss(certs, device, start):
    """Each read is answered and hung up on; the sanitizers see what the memory that the command has freed is put to."""
    port = free_port(certs.host)
    hostile = start(Process, PROBE_WRAPPED, certs.folder, certs.host, "hostile-serve", port, stdin=subprocess.PIPE)
    wait_until(lambda: run(*client_args(certs, port, "--seal", "required", "-e", "quit")).returncode == 0, hostile.log)
    for _ in range(READS):
        answer = run(*client_args(certs, port, "--seal", "required", "--reconnect-ms", str(int(15000 * SCALE)), "-e", "read 0 2000"), timeout=60)
        done, lost = "L" * 2000 in answer.stdout, "failed, because the connection was lost" in answer.stderr
        assert answer.returncode >= 0 and (done or lost), answer
    hostile.process.stdin.close()
    assert hostile.wait() == 0, hostile.log()
