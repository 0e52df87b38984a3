# SPDX-License-Identifier: Apache-2.0
"""Clients that connect again after a loss: the command, and the library as the probe program sees it (probe_link.c)."""
import json
import signal
import time

import pytest
from conftest import EXAMPLE_LINK, SCALE, Process, Server, client_args, left_out_of, run

COUNT = "100000000"


@pytest.fixture
def two(certs, device, start):
    return [start(Server, certs, device) for _ in range(2)]


def reconnecting(certs, servers, *args, ms=60000):
    """The command of a client that knows all of these servers."""
    ports = [getattr(server, "port", server) for server in servers]
    command = client_args(certs, ports[0], "--reconnect-ms", str(int(ms * SCALE)), *args)
    return command[:-1] + [",".join(client_args(certs, port)[-1] for port in ports)]


def worked(client):
    assert client.wait(60) == 0, client.log()
    return json.loads(client.lines[-1] or client.lines[-2])


def test_every_message_is_delivered_at_most_once_and_the_program_learns_which(probe):
    facts = probe("link-once", 12)
    assert facts["losses"] == 12
    assert facts["of_these_delivered"] <= facts["in_doubt"] < facts["sent"]


@left_out_of("tsan")
def test_client_of_a_killed_server_goes_on_at_the_other(certs, two, start):
    client = start(Process, *reconnecting(certs, two, "--json", "--pattern", "abc", "--count", "3000", "--hold-ms", "1000", "--log-level", "info"))
    two[0].wait_status(accepted=1)
    two[0].kill()
    answer = worked(client)
    assert answer["reconnects"] == 1 and answer["messages_verified"] == 3000 and answer["bytes_read_back"] == 65536
    assert "reconnected to" in client.log(), client.log()
    assert two[1].stop()["accepted"] == 1


@left_out_of("tsan")
def test_client_of_a_server_that_stops_in_order_goes_on_at_the_other(certs, two, start):
    client = start(Process, *reconnecting(certs, two, "--pattern", "abc", "--count", COUNT))
    two[0].wait_status(accepted=1)
    assert two[0].stop()["unfinished"] == 0
    line = client.wait_line(lambda line: "reconnected after" in line)
    assert "the server is shutting down" in line, line
    # At the default level the log has the loss, and not the good news.
    assert "lost the connection to" in client.log() and "reconnected to" not in client.log(), client.log()
    two[1].wait_status(accepted=1)
    client.signal(signal.SIGINT)
    assert client.wait() == 1 and "interrupted" in client.log(), client.log()


@left_out_of("tsan")
def test_newcomer_finds_the_server_that_is_up(certs, two):
    two[0].stop()
    command = reconnecting(certs, two, "-e", "send x")
    answer = run(*command)
    assert answer.returncode == 0, answer
    assert two[1].stop()["accepted"] == 1


@left_out_of("tsan")
def test_client_waits_for_a_server_that_starts_again(certs, device, start):
    first = start(Server, certs, device)
    client = start(Process, *reconnecting(certs, [first], "--json", "--pattern", "abc", "--count", "2000", "--hold-ms", "4000"))
    first.wait_status(accepted=1)
    first.kill()
    time.sleep(0.5 * SCALE)
    second = start(Server, certs, device, "--port", str(first.port))
    answer = worked(client)
    assert answer["reconnects"] == 1 and answer["messages_verified"] == 2000
    assert second.stop()["accepted"] == 1


def test_without_a_policy_a_loss_is_final(certs, device, start):
    server = start(Server, certs, device)
    client = start(Process, *client_args(certs, server.port, "--pattern", "abc", "--count", COUNT))
    server.wait_status(accepted=1)
    server.kill()
    assert client.wait() == 7, client.log()


def test_policy_ends_when_nobody_answers(certs, device, start):
    server = start(Server, certs, device)
    client = start(Process, *reconnecting(certs, [server], "--pattern", "abc", "--count", COUNT, ms=1000))
    server.wait_status(accepted=1)
    server.kill()
    began = time.monotonic()
    assert client.wait() == 3, client.log()
    assert 0.3 < time.monotonic() - began < 15 * SCALE
    assert "refused" in client.log().lower(), client.log()


@left_out_of("tsan")
def test_what_cannot_be_mended_is_not_tried_again(certs, device, start):
    """The server that comes back is somebody else's."""
    server = start(Server, certs, device)
    client = start(Process, *reconnecting(certs, [server], "--pattern", "abc", "--count", COUNT))
    server.wait_status(accepted=1)
    server.kill()
    stranger = start(Server, certs, device, "--port", str(server.port), cert="other-server")
    began = time.monotonic()
    assert client.wait() == 4, client.log()
    assert time.monotonic() - began < 20 * SCALE
    stranger.stop()


@left_out_of("tsan")
def test_example_loses_nothing_but_time(certs, two, start):
    example = start(Process, EXAMPLE_LINK, *[f"{certs.host}:{server.port}" for server in two], cwd=certs.folder)
    two[0].wait_status(accepted=1)
    time.sleep(0.5 * SCALE)
    two[0].kill()
    assert example.wait(60) == 0, example.log()
    lines = example.log() + "\n".join(line for line in example.lines if line)
    assert "reconnected after" in lines and "1000 numbers echoed" in lines, lines
    assert two[1].stop()["accepted"] == 1


@pytest.mark.parametrize("targets", ["", "a:1,", ",a", "[::1", ",".join(["a"] * 17)])
def test_bad_list_of_servers_is_named(certs, targets):
    answer = run(*client_args(certs, 1)[:-1], targets)
    assert answer.returncode == 2, answer
    assert "give at most 16 servers" in answer.stderr or "is not HOST" in answer.stderr, answer
