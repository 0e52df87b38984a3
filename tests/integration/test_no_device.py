# SPDX-License-Identifier: Apache-2.0
"""A machine without an RDMA device: runs only there."""
import glob

import pytest
from conftest import ON_UROCE, SECURDMA, connect, run

pytestmark = pytest.mark.skipif(ON_UROCE or bool(glob.glob("/sys/class/infiniband/*")), reason="this machine has an RDMA device")


def test_serve_says_how_to_get_a_device(certs):
    result = run(SECURDMA, "serve", "--port", "0", "--cert", certs.cert("server"), "--key", certs.key("server"), "--client-ca",
                 certs.cert("ca"))
    assert result.returncode == 6
    assert "device" in result.stderr and "securdma doctor" in result.stderr


def test_connect_says_how_to_get_a_device(certs):
    result = connect(certs, 4433, "-e", "stat")
    assert result.returncode == 6
    assert "device" in result.stderr and "securdma doctor" in result.stderr
