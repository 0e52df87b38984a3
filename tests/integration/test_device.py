# SPDX-License-Identifier: Apache-2.0
"""Which device is taken, where the kernel shows those of several network namespaces; and what doctor says of those that cannot reach
anybody. On rdma_rxe alone: it makes namespaces and devices."""
import contextlib
import json
import os
import subprocess

import pytest

from conftest import ON_UROCE, SECURDMA, STEP, Process, client_args, find_device, run

pytestmark = pytest.mark.skipif(ON_UROCE or os.geteuid() != 0 or not (find_device() and find_device().name.startswith("rxe")),
                                reason="needs rdma_rxe, and root")

NAMESPACE, DEVICE, ADDRESS = "securdma-test", "zrxe", "10.99.0.1"
INSIDE = ["ip", "netns", "exec", NAMESPACE]


def do(*command, check=True):
    subprocess.run(command, check=check, capture_output=True, timeout=STEP,
                   env=dict(os.environ, PATH=os.environ.get("PATH", "") + ":/usr/sbin:/sbin"))


@pytest.fixture(scope="module")
def namespace():
    """Another namespace with a device of its own; the first one in the list is still the one outside."""
    do("ip", "netns", "add", NAMESPACE)
    try:
        for command in (["ip", "link", "set", "lo", "up"], ["ip", "link", "add", "d9", "type", "dummy"],
                        ["ip", "address", "add", f"{ADDRESS}/24", "dev", "d9"], ["ip", "link", "set", "d9", "up"],
                        ["rdma", "link", "add", DEVICE, "type", "rxe", "netdev", "d9"]):
            do(*INSIDE, *command)
        yield
    finally:
        do("rdma", "link", "delete", DEVICE, check=False)
        do("ip", "netns", "delete", NAMESPACE, check=False)


def diagnose(*before):
    result = run(*before, SECURDMA, "doctor", "--json", "--port", "0", timeout=60)
    return {finding["what"]: finding for finding in json.loads(result.stdout)}


@pytest.mark.limit(180)
def test_device_of_this_namespace_is_taken(namespace, certs, device):
    inside, outside = diagnose(*INSIDE), diagnose()
    # Both devices are seen in both.
    for found, own, other in ((inside, DEVICE, device.name), (outside, device.name, DEVICE)):
        assert found["device"]["text"].startswith(f"{own}, port 1"), found
        assert found[f"port {own}/1"]["status"] == "ok", found
        assert found[f"port {other}/1"]["status"] == "warn", found
        assert "no GID is an address of this network namespace" in found[f"port {other}/1"]["text"]
    server = Process(*INSIDE, SECURDMA, "serve", "--json", "--port", "0", "--cert", certs.cert("server"), "--key", certs.key("server"),
                     "--client-ca", certs.cert("ca"))
    with contextlib.closing(server):
        listening = json.loads(server.wait_line(lambda line: '"listening"' in line))
        assert listening["device"] == DEVICE
        # Only to there: rdma_rxe of older kernels (6.1) sends no packets from a namespace other than the first.
        result = run(*INSIDE, *client_args(certs, listening["port"], "-e", "stat", "--server-name", certs.host, host=ADDRESS), timeout=60)
        assert result.returncode == 0 and f"{DEVICE}: QPN" in result.stdout, result
        server.terminate()


@pytest.mark.limit(120)
def test_interface_without_hardware_address_is_warned_of():
    do("ip", "tuntap", "add", "dev", "tun9", "mode", "tun")
    try:
        for command in (["ip", "address", "add", "10.98.0.1/24", "dev", "tun9"], ["ip", "link", "set", "tun9", "up"],
                        ["rdma", "link", "add", "rxet", "type", "rxe", "netdev", "tun9"]):
            do(*command)
        found = diagnose()
        assert found["netdev of rxet"]["status"] == "warn" and "tun9 has no hardware address" in found["netdev of rxet"]["text"], found
        assert "netdev of rxe0" not in found
    finally:
        do("rdma", "link", "delete", "rxet", check=False)
        do("ip", "link", "delete", "tun9", check=False)
