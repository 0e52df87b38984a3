# SPDX-License-Identifier: Apache-2.0
"""What the library exports: verbs functions, all of them libibverbs' too, and each that a program may call with an
object of this device."""
import ctypes
import subprocess

import pytest

from rig import LIBRARY, find

# Those that take no object of a device, or are for drivers.
ELSEWHERE = {
    "ibv_copy_ah_attr_from_kern", "ibv_copy_path_rec_from_kern", "ibv_copy_path_rec_to_kern",
    "ibv_copy_qp_attr_from_kern", "ibv_dofork_range", "ibv_dontfork_range", "ibv_event_type_str",
    "ibv_get_sysfs_path", "ibv_is_fork_initialized", "ibv_node_type_str", "ibv_port_state_str", "ibv_rate_to_mbps",
    "ibv_rate_to_mult", "ibv_read_ibdev_sysfs_file", "ibv_read_sysfs_file", "ibv_register_driver",
    "ibv_wc_status_str",
}

# Those about objects that this device never makes (counters of completions), or for drivers; of rdma-core 65.
NEVER = {
    "ibv_destroy_comp_cntr", "ibv_dmabuf_heap_alloc", "ibv_dmabuf_heap_cc_shared_init", "ibv_dmabuf_heap_destroy",
    "ibv_dmabuf_heap_free", "ibv_inc_comp_cntr", "ibv_inc_err_comp_cntr", "ibv_read_comp_cntr",
    "ibv_read_err_comp_cntr", "ibv_set_comp_cntr", "ibv_set_err_comp_cntr",
}


def exports(path):
    lines = subprocess.run([find("nm"), "-D", "--defined-only", path], check=True, capture_output=True,
                           text=True).stdout.splitlines()
    symbols = (line.split()[-2:] for line in lines)
    return {name.split("@")[0] for kind, name in symbols if kind not in "Aa"}


@pytest.fixture(scope="module")
def libibverbs():
    ctypes.CDLL("libibverbs.so.1")
    with open("/proc/self/maps", encoding="ascii") as maps:
        return exports(next(line.split()[-1] for line in maps if "libibverbs.so" in line))


def test_nothing_but_verbs_is_exported(libibverbs):
    ours = exports(LIBRARY)
    assert ours and all(name.startswith(("ibv_", "_ibv_")) for name in ours), ours
    assert ours <= libibverbs, f"libibverbs has no {ours - libibverbs}"


def test_every_verb_with_an_object_is_exported(libibverbs):
    verbs = {name for name in libibverbs if name.startswith(("ibv_", "_ibv_")) and not name.startswith("ibv_cmd_")}
    missing = verbs - ELSEWHERE - NEVER - exports(LIBRARY)
    assert not missing, f"would go to libibverbs with objects that it does not know: {missing}"
