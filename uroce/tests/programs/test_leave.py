# SPDX-License-Identifier: Apache-2.0
"""Programs that end right after their last completion or post: their peers see success, however they end."""
import os

import pytest

from public import for_everyone
from rig import BUILD, WIRE, succeed

LEAVE = os.path.join(for_everyone(BUILD, "tests/programs/leave"), "tests", "programs", "leave")


@pytest.mark.parametrize("environment", [{}, WIRE], ids=["host", "wire"])
@pytest.mark.parametrize("how", ["exit", "quick_exit", "_exit", "_Exit"])
def test_the_last_acknowledgement_and_the_last_post_go_out(how, environment):
    assert succeed([LEAVE, how], environment).strip().endswith("all right")
