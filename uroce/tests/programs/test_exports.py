# SPDX-License-Identifier: Apache-2.0
"""What the library exports: verbs functions, all of them libibverbs' too, and each that a program may call with an
object of this device, whatever version of libibverbs is installed: its header says which these are."""
import ctypes
import re
import subprocess

import pytest

from rig import LIBRARY, NEVER_MADE, exports, find

# verbs.h does not declare these: they are for drivers and for libibverbs itself.
INTERNAL = {
    "ibv_copy_ah_attr_from_kern", "ibv_copy_path_rec_from_kern", "ibv_copy_path_rec_to_kern",
    "ibv_copy_qp_attr_from_kern", "ibv_dmabuf_heap_alloc", "ibv_dmabuf_heap_cc_shared_init",
    "ibv_dmabuf_heap_destroy", "ibv_dmabuf_heap_free", "ibv_dofork_range", "ibv_dontfork_range", "ibv_get_sysfs_path",
    "ibv_read_ibdev_sysfs_file", "ibv_read_sysfs_file", "ibv_register_driver",
}

@pytest.fixture(scope="module")
def libibverbs():
    ctypes.CDLL("libibverbs.so.1")
    with open("/proc/self/maps", encoding="ascii") as maps:
        return exports(next(line.split()[-1] for line in maps if "libibverbs.so" in line))


@pytest.fixture(scope="module")
def verbs(libibverbs):
    return {name for name in libibverbs if name.startswith(("ibv_", "_ibv_")) and not name.startswith("ibv_cmd_")}


class Header:
    """verbs.h, preprocessed: which functions it declares, and which of them handle an object of a device."""

    def __init__(self):
        text = subprocess.run([find("cc"), "-E", "-P", "-x", "c", "-"], input="#include <infiniband/verbs.h>\n",
                              check=True, capture_output=True, text=True).stdout
        self.text = re.sub(r"__attribute__\s*\(\([^()]*(\([^()]*\)[^()]*)*\)\)\s*", "", text)
        # A declaration begins its line; calls in inline functions are indented.
        self.prototypes = {match[2]: match[1] + match[3] for match in
                           re.finditer(r"^(\w[\w\s*]*)\b(_?ibv_\w+)\(([^(){};]*)\)[^{};]*;", self.text, re.M)}
        self.objects = self.find_objects()

    def find_objects(self):
        """The structures that are a device or lead to one (all that belongs to a device points to its context), and those
        of which a program may know nothing but the pointer."""
        bodies = {match[1]: match[2] for match in re.finditer(r"^struct (\w+) \{(.*?)^\}[^;]*;", self.text, re.M | re.S)}
        found = {name for name in re.findall(r"\bstruct (ibv_\w+)", self.text) if name not in bodies}
        found |= {"ibv_device", "ibv_context"}
        while True:
            more = {name for name, body in bodies.items() if found & set(re.findall(r"struct (\w+)", body))} - found
            if not more:
                return found
            found |= more

    def handles_object(self, function):
        return bool(self.objects & set(re.findall(r"struct (\w+)", self.prototypes[function])))


@pytest.fixture(scope="module")
def header():
    return Header()


def test_nothing_but_verbs_is_exported(libibverbs):
    ours = exports(LIBRARY)
    assert ours and all(name.startswith(("ibv_", "_ibv_")) for name in ours), ours
    assert ours <= libibverbs, f"libibverbs has no {ours - libibverbs}"


def test_header_tells_functions_with_objects(header):
    """The reader of the header, by functions of each kind."""
    for name in ("ibv_get_device_list", "ibv_open_device", "ibv_reg_mr", "ibv_destroy_cq", "ibv_ack_async_event",
                 "ibv_create_qp", "ibv_import_device", "ibv_query_device", "_ibv_query_gid_ex"):
        assert header.handles_object(name), f"{name}: {header.prototypes[name]}"
    for name in ("ibv_wc_status_str", "ibv_rate_to_mult", "ibv_is_fork_initialized", "ibv_port_state_str"):
        assert not header.handles_object(name), f"{name}: {header.prototypes[name]}"


def test_every_verb_with_an_object_is_exported(header, verbs):
    undeclared = verbs - set(header.prototypes) - INTERNAL - exports(LIBRARY)
    assert not undeclared, f"not in verbs.h; uroce's, or internal? {undeclared}"
    wanted = {name for name in verbs & set(header.prototypes) if header.handles_object(name)}
    missing = wanted - exports(LIBRARY)
    assert missing <= NEVER_MADE, f"would go to libibverbs with objects that it does not know: {missing - NEVER_MADE}"
