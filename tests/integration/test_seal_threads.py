# SPDX-License-Identifier: Apache-2.0
"""--seal-threads: other threads seal and open chunks and messages ahead; what the ends see is the same as without."""
import json
import re
import urllib.request

import pytest

from conftest import SECURDMA, Client, Process, Server, connect, free_port, run, wait_until

SEALED = ("--seal", "required", "--seal-threads", "2", "--region-size", "4M", "--message-size", "256K", "--epoch-ms", "200")


@pytest.fixture
def metrics_port():
    return free_port("127.0.0.1")


@pytest.fixture
def server(certs, device, start, metrics_port):
    return start(Server, certs, device, *SEALED, "--metrics", str(metrics_port))


def metrics(port):
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=30) as answer:
        return answer.read().decode()


def seal_bytes(port):
    return [int(value) for value in re.findall(r'^securdma_seal_bytes_total\{thread="\d+"\} (\d+)$', metrics(port), re.M)]


def bench_command(certs, port, *args):
    return [SECURDMA, "bench", "--json", "--only", "bandwidth", "--ca", certs.cert("ca"), "--cert", certs.cert("client"),
            "--key", certs.key("client"), *SEALED, *args, f"{certs.host}:{port}"]


def bench(certs, port, *args):
    result = run(*bench_command(certs, port, "--iterations", "100", *args), timeout=120)
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)


def test_writes_reads_and_messages_are_shared_by_all_threads_of_both_ends(certs, server, metrics_port):
    """Whether a thread gets a chunk before the owner does it is a matter of chance; of many chunks each gets some."""
    total = [0, 0, 0]
    for _ in range(20):
        answer = bench(certs, server.port, "--sizes", "64K,1M")
        operations = {row["operation"] for row in answer["bandwidth"]}
        assert operations == {"send", "write", "read"}, answer
        total = [a + b for a, b in zip(total, answer["seal_bytes"])]
        if all(total[1:]) and all(seal_bytes(metrics_port)):
            break
    assert len(answer["seal_bytes"]) == 3 and all(total[1:]), total
    assert len(seal_bytes(metrics_port)) == 3 and all(seal_bytes(metrics_port))


def test_without_seal_threads_nobody_is_told_of_any(certs, device, start, metrics_port):
    start(Server, certs, device, "--seal", "required", "--metrics", str(metrics_port))
    assert not seal_bytes(metrics_port)


@pytest.mark.parametrize("size", ["20000", "200000"])
def test_what_is_written_is_what_is_read(certs, server, size):
    text = "".join(chr(ord("a") + i % 26) for i in range(64))
    result = connect(certs, server.port, *SEALED, "-e", f"write 0 {text}", "-e", f"read 0 {len(text)}", "-e", "quit")
    assert result.returncode == 0 and text in result.stdout, result
    echoed = connect(certs, server.port, *SEALED, "--pattern", "abc", "--size", size, "--count", "50", timeout=120)
    assert echoed.returncode == 0, echoed.stderr


def test_a_client_killed_in_the_middle_disturbs_no_other(certs, server, start, metrics_port):
    """Its chunks are in the threads' hands; the server frees them, and goes on."""
    neighbour = start(Client, certs, server.port, *SEALED)
    for _ in range(3):
        before = sum(seal_bytes(metrics_port))
        victim = start(Process, *bench_command(certs, server.port, "--sizes", "1M", "--iterations", "1000000"))
        wait_until(lambda before=before: sum(seal_bytes(metrics_port)) > before + (8 << 20), server.log)
        victim.process.kill()
        victim.process.wait()
        neighbour.check()
    wait_until(lambda: "securdma_clients 1\n" in metrics(metrics_port), lambda: metrics(metrics_port))
    neighbour.leave()


def test_more_than_64_threads_are_refused(certs, device):
    result = run(SECURDMA, "serve", "--seal-threads", "65")
    assert result.returncode == 2 and "seal-threads" in result.stderr
