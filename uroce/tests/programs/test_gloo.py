# SPDX-License-Identifier: Apache-2.0
"""gloo's ibverbs transport, as Debian ships it: a mesh of processes, collective operations, data checked."""
import os
import subprocess
import tempfile

import pytest

from rig import DEVICE, FOLDER, Program, find


@pytest.fixture(scope="module")
def folder():
    """One that every user may enter."""
    with tempfile.TemporaryDirectory(prefix="uroce-gloo.") as path:
        os.chmod(path, 0o755)
        yield path


@pytest.fixture(scope="module")
def program(folder):
    path = os.path.join(folder, "gloo")
    subprocess.run([find("c++"), "-std=c++17", "-O1", "-o", path, os.path.join(FOLDER, "gloo.cc"), "-lgloo"], check=True)
    return path


@pytest.mark.parametrize("ranks, gid", [(2, 0), (4, 0), (4, 1), (16, 0)])
def test_collective_operations(folder, program, programs, ranks, gid):
    store = os.path.join(folder, f"store-{ranks}-{gid}")
    os.mkdir(store)
    os.chmod(store, 0o777)
    for rank in range(ranks):
        programs.append(Program([program, str(rank), str(ranks), store, DEVICE, str(gid)]))
    for started in programs:
        assert started.wait() == 0, started.output
        assert "verified" in started.output
