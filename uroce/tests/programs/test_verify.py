# SPDX-License-Identifier: Apache-2.0
"""Data of every kind of work request, checked to the byte, in the ways that an application may use the device."""
import pytest

from rig import verify_pair


def check(*options, server_options=(), **more):
    for text in verify_pair(*options, server_options=server_options, **more).finish(120):
        assert "verified: " in text


@pytest.mark.parametrize("mtu", ["256", "512", "1024", "2048", "4096"])
def test_mtus(mtu):
    check("--mtu", mtu, "--seed", mtu)


@pytest.mark.parametrize("client, server", [("--events", ()), ("--events", ("--events",)), ("--seed=9", ("--events",))],
                         ids=["client_sleeps", "both_sleep", "server_sleeps"])
def test_sleeping_for_events(client, server):
    check(client, server_options=server)


@pytest.mark.parametrize("mtu", ["256", "4096"])
def test_unreliable_connections(mtu):
    check("--type", "uc", "--mtu", mtu, "--sizes", "0,1,100,4095,4096,4097,20000", "--depth", "4")


def test_many_queue_pairs():
    check("--qps", "200", "--depth", "2", "--sizes", "0,1,1000,5000", "--iterations", "5")


def test_deep_queues():
    check("--qps", "1", "--depth", "64", "--sizes", "0,1,3000,70000", "--mtu", "4096")


def test_inline_sizes():
    """Around the largest that is inline, by structs and by the builder, of one piece and of several."""
    check("--sizes", "0,1,2,63,64,65,255,256,257", "--iterations", "100", "--ops", "send,send-imm,write,write-imm")


def test_large_messages():
    check("--qps", "1", "--depth", "2", "--sizes", "1048576,16777217,33554432", "--iterations", "2", "--mtu", "4096")


@pytest.mark.parametrize("seed", range(4))
def test_mixed_work(seed):
    check("--seed", str(1000 + seed), "--iterations", "150", "--sizes", "0,5,64,1024,1025,9000", "--qps", "3")
