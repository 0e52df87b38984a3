# SPDX-License-Identifier: Apache-2.0
"""Threads that are cancelled within a call, and children that are forked while other threads use the device."""
import os

from public import for_everyone
from rig import BUILD, succeed

MOMENTS = os.path.join(for_everyone(BUILD, "tests/programs/moments"), "tests", "programs", "moments")


def test_no_lock_is_lost_by_a_cancelled_thread_or_in_a_forked_child():
    assert succeed([MOMENTS]).strip().endswith("all right")
