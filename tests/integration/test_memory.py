# SPDX-License-Identifier: Apache-2.0
"""A program's own memory, as the probe program sees it: regions with names, requests of several pieces, notices (probe_memory.c)."""
import pytest
from conftest import PROBE_WRAPPED

SEALED = {"SECURDMA_PROBE_SEAL": "1"}


@pytest.fixture(name="protection")
def use_protection(request, monkeypatch):
    for name, value in request.param.items():
        monkeypatch.setenv(name, value)
    return request.param


BOTH = pytest.mark.parametrize("protection", [{}, SEALED], ids=["plain", "sealed"], indirect=True)


@BOTH
def test_bad_input_is_refused_before_anything_is_posted(probe, protection):
    probe("memory-arguments")


@BOTH
def test_regions_are_written_and_read_in_pieces_with_notices(probe, protection):
    probe("memory-use", 0)


@pytest.mark.parametrize("protection", [{"SECURDMA_PROBE_EPOCH_MS": "200"}, SEALED | {"SECURDMA_PROBE_EPOCH_MS": "200"},
                                        SEALED | {"SECURDMA_PROBE_SEAL_THREADS": "2"}],
                         ids=["plain", "sealed", "threads"], indirect=True)
def test_regions_outlive_renewals(probe, protection):
    wanted = 3 if "SECURDMA_PROBE_EPOCH_MS" in protection else 0
    assert probe("memory-use", wanted)["epochs"] >= wanted


@BOTH
def test_memory_that_the_program_releases_is_let_go(probe, protection):
    probe("memory-release")


ENXIO, EPROTOCOL, ELOST, EVERBS = -6, -10004, -10007, -10006


@BOTH
def test_region_that_is_withdrawn_in_use_is_not_written_any_more(probe, protection):
    assert probe("memory-withdraw")["error"] in (ENXIO, ELOST, EVERBS)


@pytest.mark.parametrize("protection", [{"SECURDMA_PROBE_EPOCH_MS": "200"}], indirect=True)
def test_atomic_operations_are_executed_once(probe, protection):
    probe("memory-atomics")


def test_atomic_operation_is_not_repeated_after_a_failure(probe):
    probe("memory-broken")


@BOTH
def test_server_offers_memory_and_takes_notices(probe, protection):
    assert probe("memory-server")["close_reason"] == "an unlucky number"


def test_raw_connection_has_regions(probe):
    probe("memory-raw")


EOPNOTSUPP = -95


def test_dmabuf_is_memory_as_any_other(probe, device):
    """A system has /dev/udmabuf or not: those of Debian 13 and later have (tests/rxe-vm/run --suite trixie)."""
    facts = probe("memory-dmabuf")
    if not facts["dmabuf"]:
        pytest.skip("the system has no /dev/udmabuf")
    # rdma_rxe takes none.
    assert facts["registered"] == (0 if device.name == "uroce0" else EOPNOTSUPP), facts


# ---- memory windows -----------------------------------------------------------------------------------------------------


REMOTE_ACCESS_ERROR, SUCCESS = 10, 0  # IBV_WC_...


@pytest.fixture(name="named", params=[True, False], ids=["windows", "no-windows"])
def use_windows(request, probe, monkeypatch):
    """What the probe sees, with memory windows and as on a device that has none."""
    if not request.param:
        monkeypatch.setenv("PROBE_NO_WINDOWS", "1")

    def run(*args):
        facts = probe(*args, program=PROBE_WRAPPED)
        if request.param and not facts.get("windows", True):
            pytest.skip("the device has no memory windows that securdma uses")
        assert facts.get("windows", request.param) == request.param
        return facts, request.param

    return run


def test_rkey_of_a_named_region_works_from_the_connections_queue_pair_alone(named):
    """All 64 do; from another queue pair of the same protection domain none does that is a window's."""
    facts, windows = named("named-windows", "other")
    assert (facts["status"], facts["unchanged"]) == ((REMOTE_ACCESS_ERROR, 1) if windows else (SUCCESS, 0))


def test_device_refuses_the_rkey_of_a_named_region_that_was_withdrawn(named):
    facts, _ = named("named-windows", "withdrawn")
    assert (facts["status"], facts["unchanged"]) == (REMOTE_ACCESS_ERROR, 1)


def test_renewal_gives_named_regions_new_rkeys_and_ends_the_old_ones(named):
    facts, windows = named("named-windows", "renewed")
    assert facts["changed"] == (128 if windows else 0)
    assert (facts["status"], facts["unchanged"]) == ((REMOTE_ACCESS_ERROR, 1) if windows else (SUCCESS, 0))


def test_writes_find_their_named_regions_while_queue_pairs_are_renewed_and_fail(named):
    facts, _ = named("named-load", 12)
    assert facts["epochs"] >= 12 and facts["recoveries"] >= 3 and facts["churned"] > 0
