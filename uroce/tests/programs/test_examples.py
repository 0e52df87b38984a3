# SPDX-License-Identifier: Apache-2.0
"""ibverbs-utils, as Debian ships them: what they show, and that their pingpongs run."""
import re

import pytest

from rig import DEVICE, Pair, beyond_uroce, succeed


def fails_beyond_uroce(program):
    calls = sorted(beyond_uroce(program))
    return pytest.mark.xfail(bool(calls), reason=f"{program} calls {', '.join(calls)}", strict=True)


def test_device_is_listed():
    assert re.search(rf"^\s*{DEVICE}\s+[0-9a-f]{{16}}$", succeed(["ibv_devices"]), re.M)


def test_device_is_listed_with_preload_alone():
    assert DEVICE in succeed(["ibv_devices"], preload=True)


@fails_beyond_uroce("ibv_devinfo")
def test_devinfo_tells_sane_attributes():
    text = succeed(["ibv_devinfo", "-v", "-d", DEVICE])
    value = dict(re.findall(r"^\s*(\w+):\s+(.*)$", text, re.M))
    assert value["hca_id"] == DEVICE
    assert value["state"].startswith("PORT_ACTIVE")
    assert value["link_layer"] == "Ethernet"
    assert value["transport"].startswith("InfiniBand")
    assert value["phys_port_cnt"] == "1"
    assert value["active_mtu"].split()[0] in ("256", "512", "1024", "2048", "4096")
    assert int(value["max_mtu"].split()[0]) >= int(value["active_mtu"].split()[0])
    assert value["atomic_cap"].startswith(("ATOMIC_HCA", "ATOMIC_GLOB"))
    for name in ("max_qp", "max_qp_wr", "max_sge", "max_cq", "max_cqe", "max_mr", "max_pd", "max_qp_rd_atom",
                 "max_qp_init_rd_atom", "max_srq", "max_srq_wr", "max_srq_sge", "max_mw", "max_ah", "max_pkeys"):
        assert int(value[name]) > 0, name
    assert int(value["max_mr_size"], 16) > 1 << 30
    assert int(value["page_size_cap"], 16) & 0x1000
    assert int(value["node_guid"].replace(":", ""), 16) != 0
    gids = re.findall(r"GID\[\s*(\d+)\]:\s*(\S+?),?\s+RoCE v2", text)
    assert gids and gids[0][0] == "0", text
    assert re.search(r"[1-9a-f]", gids[0][1])


RC = {
    "plain": [],
    "events": ["-e"],
    "checked": ["-c"],
    "new_api": ["-N"],
    "new_api_events_checked": ["-N", "-e", "-c"],
    "size_1": ["-s", "1", "-c"],
    "size_64": ["-s", "64", "-c"],
    "size_4097": ["-s", "4097", "-c"],
    "size_65536": ["-s", "65536", "-c", "-n", "200"],
    "size_1m": ["-s", "1048576", "-c", "-n", "20"],
    "mtu_256": ["-m", "256", "-c"],
    "mtu_512": ["-m", "512"],
    "mtu_2048": ["-m", "2048", "-c"],
    "mtu_4096": ["-m", "4096", "-s", "65536", "-n", "200", "-c"],
    "iterations_10": ["-n", "10"],
    "rx_depth_1": ["-r", "1", "-n", "100"],
}


def check_pingpong(program, options, default_size):
    server, client = Pair([program, "-d", DEVICE, "-g", "0", *options]).finish()
    size = int(options[options.index("-s") + 1]) if "-s" in options else default_size
    iterations = int(options[options.index("-n") + 1]) if "-n" in options else 1000
    pairs = 1
    if program == "ibv_srq_pingpong":  # it counts the iterations of all pairs together
        pairs = int(options[options.index("-q") + 1]) if "-q" in options else 16
    for text in (server, client):
        assert f"{2 * size * iterations} bytes in" in text, text
        assert re.search(rf"^{iterations} iters in [\d.]+ seconds = [\d.]+ usec/iter", text, re.M), text
        assert text.count("remote address:") == pairs, text
        assert "invalid data" not in text, text


@fails_beyond_uroce("ibv_rc_pingpong")
@pytest.mark.parametrize("name", RC)
def test_rc_pingpong(name):
    check_pingpong("ibv_rc_pingpong", RC[name], 4096)


@pytest.mark.parametrize("options", [[], ["-e"], ["-c"], ["-q", "1"], ["-q", "64", "-r", "1000", "-n", "200"], ["-s", "65536", "-n", "50"],
                                     ["-m", "256"], ["-m", "4096"]], ids=lambda words: "".join(words) or "plain")
def test_srq_pingpong(options):
    check_pingpong("ibv_srq_pingpong", options, 4096)


@pytest.mark.parametrize("options", [[], ["-e"], ["-c"], ["-s", "1"], ["-s", "1024", "-c"]],
                         ids=lambda words: "".join(words) or "plain")
def test_ud_pingpong(options):
    check_pingpong("ibv_ud_pingpong", options, 1024)


@pytest.mark.parametrize("options", [[], ["-e"], ["-c"], ["-s", "65536", "-n", "100"], ["-m", "256"], ["-m", "4096"]],
                         ids=lambda words: "".join(words) or "plain")
def test_uc_pingpong(options):
    check_pingpong("ibv_uc_pingpong", options, 4096)
