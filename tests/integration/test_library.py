# SPDX-License-Identifier: Apache-2.0
"""The library's behaviour, as the probe program sees it on the device; probe_*.c have the details."""
import pytest

from conftest import PROBE_WRAPPED


def test_queue_pairs_start_at_the_psns_that_crossed_tls_and_move_by_packets(probe):
    facts = [probe("psn") for _ in range(2)]
    psns = [fact[name] for fact in facts for name in ("psn", "peer_psn")]
    assert len(set(psns)) == 4, psns


def test_raw_connection_is_the_programs_own(probe):
    probe("raw")


def test_max_clients_is_changed_while_serving(probe):
    assert probe("max-clients")["rejected"] == 3


def test_client_that_on_connect_refuses_is_told(probe):
    assert "refused by the server" in probe("refuse")["close_reason"]


def test_reason_of_on_message_reaches_the_client(probe):
    assert probe("handler-error")["close_reason"] == "I do not like 'bad!'"


def test_handlers_are_called_in_order(probe):
    probe("event-order")


@pytest.mark.parametrize("size, depth, count", [(4096, 16, 40), (64, 1, 100), (1 << 20, 2, 2)])
def test_messages_of_all_sizes(probe, size, depth, count):
    probe("sizes", size, depth, count)


def test_both_ends_in_one_thread_without_blocking(probe):
    probe("nonblocking")


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


def test_peer_that_vanishes_is_lost_but_what_it_sent_is_not(probe):
    probe("lost")


@pytest.mark.parametrize("access", ["rw", "r", "w", "none", "absent"])
def test_region_has_bounds_and_rights(probe, access):
    probe("rights", access)


def test_posted_requests_complete_in_order(probe):
    probe("posted")


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


def test_each_error_has_its_own_text(probe):
    probe("error-texts")


@pytest.mark.parametrize("seal", ["", "1"])
def test_completions_are_collected_until_none_is_under_way(probe, monkeypatch, seal):
    monkeypatch.setenv("SECURDMA_PROBE_SEAL", seal)
    probe("completions")


def test_raw_connection_refuses_what_it_has_none_of(probe):
    probe("raw-refusals")


@pytest.mark.parametrize("seal", ["", "1"])
def test_disconnect_goes_on_without_blocking(probe, monkeypatch, seal):
    monkeypatch.setenv("SECURDMA_PROBE_SEAL", seal)
    probe("disconnect-nonblocking")


def test_accept_has_a_default_timeout(probe):
    probe("accept-timeouts")


def test_link_goes_on_without_blocking(probe):
    probe("link-nonblocking")


def test_arguments_that_cannot_be_are_refused_with_a_text(probe):
    probe("arguments")


# ---- a program's own data -------------------------------------------------------------------------------------------------


def test_private_data_is_there_before_the_client_is_accepted(probe):
    probe("private-data")


@pytest.mark.parametrize("kind", ["messages", "raw"])
def test_control_messages_wait_for_the_program_and_none_is_lost(probe, kind):
    probe("control", kind)


@pytest.mark.parametrize("end", ["client", "server"])
def test_control_messages_need_both_ends(probe, end):
    probe("control-alone", end)


@pytest.mark.parametrize("protection", [{}, {"SECURDMA_PROBE_SEAL": "1", "SECURDMA_PROBE_EPOCH_MS": "100"}], ids=["plain", "sealed"])
def test_server_answers_control_messages(probe, monkeypatch, protection):
    for name, value in protection.items():
        monkeypatch.setenv(name, value)
    assert probe("control-server")["close_reason"] == "a bad control message"


def test_ranks_of_a_ring_leave_at_the_same_time(probe):
    probe("ring")


def test_connections_come_up_without_a_call_that_waits(probe):
    probe("starts")
