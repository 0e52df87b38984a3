# SPDX-License-Identifier: Apache-2.0
"""TCP programs over librdmacm's library of rsockets, preloaded behind uroce."""
import glob
import re

import pytest

from rig import PRELOAD_FIRST, Program, free_port, is_bound, wait_until
from test_strangers import needs

LIBRARIES = glob.glob("/usr/lib/*/rsocket/librspreload.so")
pytestmark = [pytest.mark.skipif(not LIBRARIES, reason="not installed: librdmacm1's librspreload.so"),
              pytest.mark.skipif(bool(PRELOAD_FIRST), reason="the list of preloaded libraries is a sanitizer's")]


@needs("iperf")
def test_iperf_sends_over_rsockets():
    port, environment = free_port(), {"LD_PRELOAD": LIBRARIES[0]}
    server = Program(["iperf", "-s", "-p", str(port), "-P", "1"], environment)
    try:
        wait_until(lambda: is_bound(port) or not server.running(), lambda: f"iperf listens by rdma_cm\n{server.output}")
        client = Program(["iperf", "-c", "127.0.0.1", "-p", str(port), "-n", "4M"], environment)
        try:
            assert client.wait() == 0, client.output
            assert server.wait() == 0, server.output
            assert re.search(r" 4\.00 MBytes ", server.output), server.output
        finally:
            client.close()
    finally:
        server.close()
