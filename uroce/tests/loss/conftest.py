# SPDX-License-Identifier: Apache-2.0
"""The rig is that of the tests with programs."""
import os
import sys

import pytest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "programs"))
import rig  # noqa: E402


@pytest.fixture(scope="session", autouse=True)
def built():
    for path in (rig.WRAPPER, rig.LIBRARY, rig.VERIFY):
        if not os.path.exists(path):
            pytest.fail(f"{path} is missing: set UROCE_BUILD to a build folder of uroce", pytrace=False)
