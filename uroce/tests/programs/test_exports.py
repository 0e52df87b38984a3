# SPDX-License-Identifier: Apache-2.0
"""What the library exports, beside the libibverbs that is installed, of whatever version: each function that takes an object
of a device is served, under the version that it has there."""
import ctypes
import os
import re
import subprocess

import pytest

from rig import HERE, LIBRARY, PYTHON, find, succeed

# Of libibverbs' public functions, those that know no object: why they may be left to it.
WITHOUT_OBJECT = {
    **dict.fromkeys(["ibv_event_type_str", "ibv_node_type_str", "ibv_port_state_str", "ibv_wc_status_str"],
                    "the name of a number"),
    **dict.fromkeys(["ibv_rate_to_mbps", "ibv_rate_to_mult", "mbps_to_ibv_rate", "mult_to_ibv_rate"], "one number to another"),
    **dict.fromkeys(["ibv_copy_ah_attr_from_kern", "ibv_copy_path_rec_from_kern", "ibv_copy_path_rec_to_kern",
                     "ibv_copy_qp_attr_from_kern"], "one of the kernel's structures to the program's, or back"),
    **dict.fromkeys(["ibv_dofork_range", "ibv_dontfork_range", "ibv_is_fork_initialized"],
                    "pages of memory, about which uroce has no wish"),
    **dict.fromkeys(["ibv_get_sysfs_path", "ibv_read_sysfs_file"], "a path"),
    "ibv_register_driver": "a driver of 2007 calls it, and nothing is done",
}


def symbols(path):
    """Exported: name to the set of its versions; "" where it has none. "@@" before the version that is not hidden."""
    lines = subprocess.run([find("nm"), "-D", "--defined-only", path], check=True, capture_output=True,
                           text=True).stdout.splitlines()
    found = {}
    for kind, name in (line.split()[-2:] for line in lines):
        name, at, version = name.partition("@")
        if kind not in "Aa":
            found.setdefault(name, set()).add(at + version)
    return found


@pytest.fixture(scope="module")
def libibverbs():
    """The public functions: name to versions. Those of the other names are for drivers, which have no business with uroce0."""
    ctypes.CDLL("libibverbs.so.1")
    with open("/proc/self/maps", encoding="ascii") as maps:
        path = next(line.split()[-1] for line in maps if "libibverbs.so" in line)
    found = {name: {version for version in versions if re.fullmatch(r"@@?IBVERBS_1\.\d+", version)}
             for name, versions in symbols(path).items()}
    found = {name: versions for name, versions in found.items() if versions}
    assert {"ibv_get_device_list", "ibv_reg_mr", "_ibv_query_gid_ex"} <= set(found), found
    return found


@pytest.fixture(scope="module")
def ours():
    return symbols(LIBRARY)


def is_verb(name):
    return name.startswith(("ibv_", "_ibv_"))


def test_nothing_but_verbs_and_functions_with_a_path_or_channel_is_exported(ours):
    libc = ctypes.CDLL("libc.so.6")
    others = [name for name in ours if not is_verb(name)]
    ends = {"_exit", "_Exit"}
    # librdmacm uses a channel of rdma_cm by these; all that is not one goes on to the C library.
    channels = {"write", "close", "fstat", "fstat64", "__fxstat", "__fxstat64"}
    signals = {"sigaction", "__sigaction", "signal", "ssignal", "bsd_signal", "sysv_signal", "__sysv_signal", "sigset", "sigignore",
               "siginterrupt", "pthread_sigmask", "sigprocmask", "sighold", "sigblock", "sigsetmask"}
    assert ends | channels <= set(others)
    assert "open" in others and len(set(others) - ends - channels - signals) < 45
    assert all(hasattr(libc, name) for name in others), others


def test_every_function_with_an_object_is_served(libibverbs, ours):
    missing = set(libibverbs) - set(ours) - set(WITHOUT_OBJECT)
    assert not missing, f"would reach libibverbs with objects that it does not know: {missing}"


def test_function_has_the_version_that_it_has_in_libibverbs(libibverbs, ours):
    for name in set(ours) & set(libibverbs):
        default = {version for version in libibverbs[name] if version.startswith("@@")}
        assert ours[name] == default, f"{name}: {ours[name]}, in libibverbs {libibverbs[name]}"


def test_function_that_libibverbs_lacks_has_a_version_that_it_lacks(libibverbs, ours):
    """Or a program that was linked with it would find the one and not the other."""
    known = {version.lstrip("@") for versions in libibverbs.values() for version in versions}
    for name in set(filter(is_verb, ours)) - set(libibverbs) - {"ibv_query_gid_type"}:  # a driver's, of whose version there is no telling
        assert not known & {version.lstrip("@") for version in ours[name]}, f"{name}: {ours[name]}"


def test_newer_functions_answer_for_the_device():
    assert "all as they should be" in succeed([PYTHON, os.path.join(HERE, "newer_functions.py")])


def test_calls_that_fail_say_why_and_lists_may_be_freed():
    assert "all as they should be" in succeed([PYTHON, os.path.join(HERE, "answers.py")])
