# SPDX-License-Identifier: Apache-2.0
"""Registered memory that its program unmaps, protects or truncates: operations fail, and the program goes on."""
import os

from public import for_everyone
from rig import BUILD, succeed

UNPINNED = os.path.join(for_everyone(BUILD, "tests/programs/unpinned"), "tests", "programs", "unpinned")


def test_memory_that_goes_fails_operations_and_not_the_program():
    assert succeed([UNPINNED]).strip().endswith("all right")


def test_the_same_where_packets_pass_through_fault_injection():
    assert succeed([UNPINNED], {"UROCE_FAULT": "duplicate=1%,seed=3"}).strip().endswith("all right")


def test_the_same_while_packets_are_captured(tmp_path):
    assert succeed([UNPINNED], {"UROCE_CAPTURE": str(tmp_path / "run.pcap")}).strip().endswith("all right")
