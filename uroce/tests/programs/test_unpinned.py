# SPDX-License-Identifier: Apache-2.0
"""Registered memory that its program unmaps, protects or truncates: operations fail, and the program goes on."""
import os

import pytest

from public import for_everyone
from rig import BUILD, PRELOAD_FIRST, Program, succeed

UNPINNED = os.path.join(for_everyone(BUILD, "tests/programs/unpinned"), "tests", "programs", "unpinned")


def test_memory_that_goes_fails_operations_and_not_the_program():
    assert succeed([UNPINNED]).strip().endswith("all right")


def test_the_same_where_packets_pass_through_fault_injection():
    assert succeed([UNPINNED], {"UROCE_FAULT": "duplicate=1%,seed=3"}).strip().endswith("all right")


def test_the_same_while_packets_are_captured(tmp_path):
    assert succeed([UNPINNED], {"UROCE_CAPTURE": str(tmp_path / "run.pcap")}).strip().endswith("all right")


@pytest.mark.skipif(bool(PRELOAD_FIRST), reason="a sanitizer has to be preloaded, and sees the two signals itself")
def test_the_same_where_the_drop_in_alone_leads_to_uroce():
    """Nothing is preloaded: the library does not see what handlers the program installs, and looks more often."""
    program = Program([UNPINNED, "late"], {"LD_LIBRARY_PATH": os.path.join(BUILD, "src", "dropin")}, on_uroce=False)
    try:
        assert program.wait() == 0, program.output
        assert program.output.strip().endswith("all right")
    finally:
        program.close()
