# SPDX-License-Identifier: Apache-2.0
"""What the tests with other people's programs share; see rig.py for the environment."""
import os
import sys

import pytest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import rig  # noqa: E402


@pytest.fixture(scope="session", autouse=True)
def built():
    for path in (rig.WRAPPER, rig.LIBRARY):
        if not os.path.exists(path):
            pytest.fail(f"{path} is missing: set UROCE_BUILD to a build folder of uroce", pytrace=False)


@pytest.fixture
def programs():
    """A list: what is put there is killed when the test ends."""
    started = []
    yield started
    for program in started:
        program.close()
