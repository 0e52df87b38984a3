# SPDX-License-Identifier: Apache-2.0
"""The library's behaviour, as the probe program sees it on the device; probe_*.c have the details."""
import pytest

from conftest import PROBE_WRAPPED

# What a mode of the probe checks by itself.
CHECKED_BY_THE_PROBE = {
    "raw connection is the program's own": "raw",
    "raw connection refuses what it does not have": "raw-refusals",
    "handlers are called in order": "event-order",
    "handlers that block lose no event of others": "blocking-handlers",
    "both ends work in one thread without blocking": "nonblocking",
    "link goes on without blocking": "link-nonblocking",
    "peer that vanishes is lost but its messages are not": "lost",
    "messages that came before the loss are received first": "link-kept",
    "link follows its policy and can be woken": "link-policy",
    "client that never reads loses its place": "never-reads",
    "message that the program does not take now comes again": "not-now",
    "posted requests complete in order": "posted",
    "PSNs are counted as the device uses them": "psn-count",
    "accept has a default timeout": "accept-timeouts",
    "connections come up without a call that waits": "starts",
    "ranks of a ring leave at the same time": "ring",
    "each error has its own text": "error-texts",
    "arguments that cannot be are refused with a text": "arguments",
}


@pytest.mark.parametrize("mode", CHECKED_BY_THE_PROBE.values(), ids=CHECKED_BY_THE_PROBE)
def test_probe_finds_that(probe, mode):
    probe(mode)


def test_queue_pairs_start_at_the_psns_that_crossed_tls_and_move_by_packets(probe):
    facts = [probe("psn") for _ in range(2)]
    psns = [fact[name] for fact in facts for name in ("psn", "peer_psn")]
    assert len(set(psns)) == 4, psns


def test_client_that_on_connect_refuses_is_told(probe):
    assert "refused by the server" in probe("refuse")["close_reason"]


def test_reason_of_on_message_reaches_the_client(probe):
    assert probe("handler-error")["close_reason"] == "I do not like 'bad!'"


@pytest.mark.parametrize("size, depth, count", [(4096, 16, 40), (64, 1, 100), (1 << 20, 2, 2)])
def test_messages_of_all_sizes(probe, size, depth, count):
    probe("sizes", size, depth, count)


def test_silent_peer_means_timeouts(probe):
    assert probe("timeouts")["sent"] == 3


RNR_COUNTERS = ("rcvd_rnr_err", "send_rnr_err", "retry_rnr_exceeded_err", "rnr_nak_retry_err")


@pytest.mark.parametrize("depth, count", [(1, 500), (2, 1500), (3, 1500), (16, 3000)])
def test_flood_both_ways_keeps_order_and_meets_no_rnr_nak(probe, device, depth, count):
    before = device.counters()
    probe("flood", depth, count)
    after = device.counters()
    for name in set(RNR_COUNTERS) & set(after):
        assert after[name] == before[name], name


@pytest.mark.parametrize("side", ["client", "server"])
@pytest.mark.parametrize("depth", [1, 16])
def test_disconnect_loses_no_message(probe, side, depth):
    assert probe("disconnect", side, depth)["close_reason"] == "that is all"


@pytest.mark.parametrize("access", ["rw", "r", "w", "none", "absent"])
def test_region_has_bounds_and_rights(probe, access):
    probe("rights", access)


def test_server_writes_to_the_clients_region(probe):
    probe("client-region")


def test_client_cannot_touch_the_region_of_another(probe):
    probe("isolation")


REMOTE_ACCESS_ERROR = 10  # IBV_WC_REM_ACCESS_ERR


@pytest.mark.parametrize("what", ["write", "read"])
def test_rkey_works_from_the_connections_queue_pair_alone(probe, what):
    """Not from another one of the same protection domain: so it is the window that keeps it out."""
    facts = probe("window", what, program=PROBE_WRAPPED)
    if not facts["windows"]:
        pytest.skip("the device has no type 2 memory windows")
    if facts["rxe"]: # whose windows have faults: securdma binds none
        assert facts["rkey_of_peer"] == facts["rkey_of_region"]
        return
    assert facts["rkey_of_peer"] != facts["rkey_of_region"]
    assert facts["status"] == REMOTE_ACCESS_ERROR and facts["unread"] and facts["unchanged"]


# ---- what the header says of return values ------------------------------------------------------------------------------


@pytest.mark.parametrize("seal", ["", "1"])
def test_completions_are_collected_until_none_is_under_way(probe, monkeypatch, seal):
    monkeypatch.setenv("SECURDMA_PROBE_SEAL", seal)
    probe("completions")


@pytest.mark.parametrize("seal", ["", "1"])
def test_disconnect_goes_on_without_blocking(probe, monkeypatch, seal):
    monkeypatch.setenv("SECURDMA_PROBE_SEAL", seal)
    probe("disconnect-nonblocking")


@pytest.mark.parametrize("seal", ["", "1"])
def test_no_call_waits_that_may_not(probe, monkeypatch, seal):
    """And it succeeds once its descriptor is readable; a negative time stands for the default."""
    monkeypatch.setenv("SECURDMA_PROBE_SEAL", seal)
    assert probe("zero")["rows"] > 20


def test_wait_after_a_call_that_did_not_wait_sleeps(probe):
    probe("sleep-after-zero")


@pytest.mark.parametrize("seal", ["", "1"])
@pytest.mark.parametrize("mode", ["not-again", "posts-to-the-sleeping", "waits-for-the-sleeping"])
def test_sleeping_client_holds_up_nobody_and_no_handler_runs_for_nothing(probe, monkeypatch, mode, seal):
    monkeypatch.setenv("SECURDMA_PROBE_SEAL", seal)
    probe(mode)


# ---- a program's own data -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["messages", "raw"])
def test_control_messages_wait_for_the_program_and_none_is_lost(probe, kind):
    probe("control", kind)
