# SPDX-License-Identifier: Apache-2.0
"""More processes than processors, over UDP: each one gets its turn late, and none may take a peer that lives for dead."""
import contextlib
import subprocess

from rig import WIRE, verify_pair

KINDS = ["write", "read", "send"]
PAIRS_OF_EACH = 2
BURNERS = 6
# perftest's local ACK timeout: 67 ms, and 7 retries.
TRANSFERS = ["--timeout", "14", "--retry", "7", "--qps", "1", "--depth", "16", "--sizes", "1024,65536", "--iterations", "20"]


@contextlib.contextmanager
def burners():
    """They want all of the processors."""
    running = [subprocess.Popen(["/bin/sh", "-c", "while :; do :; done"]) for _ in range(BURNERS)]
    try:
        yield
    finally:
        for burner in running:
            burner.kill()
            burner.wait()


def test_peers_that_live_are_not_given_up():
    with burners(), contextlib.ExitStack() as stack:
        pairs = []
        for seed in range(PAIRS_OF_EACH):
            for kind in KINDS:
                pairs.append(verify_pair("--ops", kind, "--seed", str(seed + 1), *TRANSFERS, environment=WIRE, deadline=120))
                stack.callback(pairs[-1].close)
        for pair in pairs:
            for text in pair.finish(150):
                assert "verified: " in text
