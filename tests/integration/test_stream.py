# SPDX-License-Identifier: Apache-2.0
"""Streams of bytes over a connection: what is written is read, in every way to write and to read; how a stream ends; peers that lie."""
import pytest

PLAIN = {}
SEALED = {"SECURDMA_PROBE_SEAL": "1"}


@pytest.fixture(params=[PLAIN, SEALED], ids=["plain", "sealed"])
def sealing(request, monkeypatch):
    for name, value in request.param.items():
        monkeypatch.setenv(name, value)
    return bool(request.param)


@pytest.mark.parametrize("region,total", [(4096, 300_000), (65536, 3_000_000), (1 << 20, 8_000_000)])
def test_bytes_go_both_ways_without_a_wait_and_through_a_renewal(probe, sealing, region, total):
    assert probe("bytes-both", region, total)["epoch"] > 0


@pytest.mark.parametrize("region,total", [(4096, 500_000), (1 << 20, 12_000_000)])
def test_calls_that_wait_carry_every_byte(probe, sealing, region, total):
    probe("bytes-waiting", region, total)


def test_stream_outlives_many_renewals(probe, sealing, monkeypatch):
    monkeypatch.setenv("SECURDMA_PROBE_EPOCH_MS", "200")
    probe("bytes-both", 65536, 1_000_000)
    probe("bytes-waiting", 65536, 6_000_000)


def test_server_echoes_streams_without_holding_up_its_worker(probe, sealing):
    probe("bytes-server", 65536, 400_000)


def test_abort_reaches_the_peer_with_its_reason(probe, sealing):
    assert probe("bytes-abort")["reason"] == "the peer aborted the stream: no more of?this"


@pytest.mark.parametrize("how", ["order", "loss"])
def test_stream_that_was_cut_short_does_not_look_whole(probe, sealing, how):
    probe("bytes-cut", how)


def test_bad_arguments_and_full_streams_are_told(probe, sealing):
    probe("bytes-arguments")


def test_peer_that_breaks_a_rule_loses_the_connection(probe, sealing):
    assert probe("bytes-hostile")["breaches"] == (10 if sealing else 12)


def test_peer_without_a_stream_is_told_apart(probe):
    told = probe("bytes-foreign")
    assert "not one of a stream" in told["text"]
    assert "made no stream" in told["echo"]


def test_peer_that_floods_holds_no_call_up(probe):
    probe("bytes-flood", timeout=30)


def test_sealed_peer_that_overruns_the_ring_is_stopped(probe, monkeypatch):
    monkeypatch.setenv("SECURDMA_PROBE_SEAL", "1")
    assert "ring of 65536 bytes" in probe("bytes-overrun")["text"]
