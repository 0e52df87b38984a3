# SPDX-License-Identifier: Apache-2.0
"""How often connections on which nothing happens wake the processor, and that an event loop renews them in time all the same."""
import pytest

CONNECTIONS = 40


@pytest.mark.parametrize("seal", ["", "1"], ids=["plain", "sealed"])
def test_idle_connections_sleep(probe, monkeypatch, seal):
    """Both ends look at the device's counters four times a second, and all connections of a process do so together."""
    monkeypatch.setenv("SECURDMA_PROBE_SEAL", seal)
    facts = probe("idle", CONNECTIONS)
    # In a second. Each connection by itself would cause 4 wake-ups in the loop, and 10 of its thread in the server.
    assert facts["in_a_loop"] < CONNECTIONS and facts["of_the_server"] < 2 * CONNECTIONS, facts


def test_epoch_ends_in_time_in_an_idle_event_loop(probe, monkeypatch):
    monkeypatch.setenv("SECURDMA_PROBE_EPOCH_MS", "250")
    facts = probe("idle", 2)
    assert facts["epoch"] >= 1, facts
