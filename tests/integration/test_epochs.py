# SPDX-License-Identifier: Apache-2.0
"""New PSNs and queue pairs while messages, writes and reads are under way; what is sealed; the region taken back. probe_epoch.c
has the details."""
import pytest

from conftest import ON_UROCE

SEALED = {"SECURDMA_PROBE_SEAL": "required"}
PLAIN = {}
BOTH = pytest.mark.parametrize("mode", [PLAIN, SEALED], ids=["plain", "sealed"])


@pytest.fixture
def protected(probe, monkeypatch):
    def run(mode, *args, **kwargs):
        for name, value in mode.items():
            monkeypatch.setenv(name, value)
        return probe(*args, **kwargs)
    return run


@BOTH
def test_renewal_on_request_loses_and_doubles_nothing(protected, mode):
    facts = protected(mode, "renew", "asked", 3000)
    assert facts["epoch"] >= 7 and facts["epoch"] == facts["peer_epoch"]
    assert facts["recoveries"] == 0


@BOTH
def test_psns_are_renewed_before_their_number_is_used_up(protected, mode):
    # Each message and its echo: one or two packets; 16384 PSNs to an epoch.
    facts = protected(mode, "renew", "count", 60000, timeout=120)
    assert facts["epoch"] >= 3 and facts["epoch"] == facts["peer_epoch"]


@BOTH
def test_psns_are_renewed_by_time(protected, mode):
    facts = protected(mode, "renew", "time", 60000, timeout=120)
    assert facts["epoch"] >= 2 and facts["epoch"] == facts["peer_epoch"]


@BOTH
@pytest.mark.parametrize("who", ["client", "server", "both"])
def test_killed_queue_pair_is_replaced_and_nothing_lost_or_doubled(protected, mode, who):
    facts = protected(mode, "renew", who, 3000, timeout=120)
    assert facts["recoveries"] >= 4 and facts["recoveries"] == facts["peer_recoveries"]


def test_psns_are_counted_as_the_device_uses_them(protected):
    protected(PLAIN, "psn-count")


@BOTH
def test_region_is_taken_back_at_once(protected, mode):
    protected(mode, "withdraw")


@pytest.mark.parametrize("who", ["client", "server"])
def test_sealing_is_never_downgraded(protected, who):
    assert "seal" in protected(PLAIN, "seal-differs", who)["text"]


# What the library does in plain connections, once more: sealed, and with new PSNs all the time.
EVERYTHING = [("sizes", 4096, 16, 40), ("sizes", 64, 1, 100), ("sizes", 1 << 20, 2, 2), ("nonblocking",), ("timeouts",), ("flood", 1, 500),
              ("flood", 16, 3000), ("disconnect", "client", 1), ("disconnect", "server", 16), ("rights", "rw"), ("rights", "r"),
              ("rights", "w"), ("rights", "none"), ("rights", "absent"), ("posted",), ("client-region",), ("lost",), ("not-now",),
              ("stuffed",), ("never-reads",), ("blocking-handlers",), ("link-once", 5), ("link-kept",), ("link-policy",)]


@pytest.mark.parametrize("args", EVERYTHING, ids=lambda args: "-".join(map(str, args)))
def test_everything_is_sealed(protected, args):
    protected(SEALED, *args, timeout=60)


@pytest.mark.parametrize("args", EVERYTHING, ids=lambda args: "-".join(map(str, args)))
def test_everything_with_new_psns(protected, args):
    protected({"SECURDMA_PROBE_EPOCH_MS": "100", "SECURDMA_PROBE_EPOCH_PSNS": "16384"}, *args, timeout=60)


@pytest.mark.parametrize("args", EVERYTHING, ids=lambda args: "-".join(map(str, args)))
def test_everything_sealed_with_new_psns(protected, args):
    protected(SEALED | {"SECURDMA_PROBE_EPOCH_MS": "100", "SECURDMA_PROBE_EPOCH_PSNS": "16384"}, *args, timeout=60)


@pytest.mark.skipif(not ON_UROCE, reason="the device of the test must lose packets")
@BOTH
@pytest.mark.parametrize("what", ["asked", "both", "count"])
def test_renewals_on_a_device_that_loses_and_reorders(protected, mode, what, monkeypatch):
    monkeypatch.setenv("UROCE_FAULT", "loss=0.5%,duplicate=0.5%,reorder=1%,seed=7")
    facts = protected(mode, "renew", what, 20000 if what == "count" else 1500, timeout=120)
    assert facts["epoch"] >= 1 and facts["epoch"] == facts["peer_epoch"]
