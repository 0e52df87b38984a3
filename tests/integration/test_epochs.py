# SPDX-License-Identifier: Apache-2.0
"""New PSNs and queue pairs while messages, writes and reads are under way; what is sealed; the region taken back. probe_epoch.c
has the details."""
import itertools

import pytest

from conftest import ON_UROCE, PROBE_WRAPPED, RUN, Client, Server, left_out_of, resources, wait_until

SEALED = {"SECURDMA_PROBE_SEAL": "required"}
PLAIN = {}
SHARED = {"SECURDMA_PROBE_SEAL": "required", "SECURDMA_PROBE_SEAL_THREADS": "2"}
MESSAGES = 1000 if RUN == "vm" else 3000  # emulation is slow
BOTH = pytest.mark.parametrize("mode", [PLAIN, SEALED], ids=["plain", "sealed"])
ALL = pytest.mark.parametrize("mode", [PLAIN, SEALED, SHARED], ids=["plain", "sealed", "seal-threads"])


@pytest.fixture
def protected(probe, monkeypatch):
    def run(mode, *args, **kwargs):
        for name, value in mode.items():
            monkeypatch.setenv(name, value)
        return probe(*args, **kwargs)
    return run


PSNS = 1 << 24


def one_after_the_other(facts):
    """Pairs of epochs, of both ends: (number, QPN, PSN, PSNs used, QPN of the peer)."""
    pairs = [pair for name in ("epochs", "peer_epochs") for pair in itertools.pairwise(facts[name]) if pair[1][0] == pair[0][0] + 1]
    assert pairs, facts
    return pairs


def expect_other_queue_pairs(facts):
    for (_, qpn, _, _, peer), (_, next_qpn, _, _, next_peer) in one_after_the_other(facts):
        assert qpn != next_qpn and peer != next_peer, facts


def expect_psns_used_once_on_a_queue_pair(facts):
    """Those of the first epoch stay, with other PSNs; for the next one they are others; and so on."""
    for (number, qpn, psn, used, peer), (_, next_qpn, next_psn, next_used, next_peer) in one_after_the_other(facts):
        if number % 2:
            assert qpn != next_qpn and peer != next_peer, facts
            continue
        assert (qpn, peer) == (next_qpn, next_peer), facts
        assert used > 0 and (next_psn - psn) % PSNS >= used and (psn - next_psn) % PSNS >= next_used, facts


@ALL
def test_renewal_on_request_loses_and_doubles_nothing(protected, mode):
    facts = protected(mode, "renew", "asked", MESSAGES)
    assert facts["epoch"] >= 7 and facts["epoch"] == facts["peer_epoch"]
    assert facts["recoveries"] == 0
    expect_other_queue_pairs(facts)


@left_out_of("tsan", "vm")
@BOTH
def test_psns_are_renewed_before_their_number_is_used_up(protected, mode):
    # Each message and its echo: one or two packets; 16384 PSNs to an epoch.
    facts = protected(mode, "renew", "count", 60000, timeout=230)
    assert facts["epoch"] >= 3 and facts["epoch"] == facts["peer_epoch"]


@left_out_of("asan", "tsan", "vm")
def test_no_psn_is_used_twice_on_a_queue_pair(protected):
    # 65536 PSNs alone are drawn from, and an epoch uses a quarter of them: chance would let them meet each second time.
    facts = protected({"PROBE_NARROW_PSNS": "1"}, "renew", "count", 100000, timeout=230, program=PROBE_WRAPPED)
    assert all(epoch[2] < 65536 for epoch in facts["epochs"] + facts["peer_epochs"])
    assert len(one_after_the_other(facts)) >= 6
    expect_psns_used_once_on_a_queue_pair(facts)


@left_out_of("tsan", "vm")
@BOTH
def test_psns_are_renewed_by_time(protected, mode):
    facts = protected(mode, "renew", "time", 60000, timeout=230)
    assert facts["epoch"] >= 2 and facts["epoch"] == facts["peer_epoch"]
    expect_other_queue_pairs(facts)


@ALL
@pytest.mark.parametrize("who", [pytest.param("client", marks=left_out_of("tsan")),
                                 pytest.param("server", marks=left_out_of("vm")), "both"])
def test_killed_queue_pair_is_replaced_and_nothing_lost_or_doubled(protected, mode, who):
    facts = protected(mode, "renew", who, MESSAGES, timeout=230)
    assert facts["recoveries"] >= 4 and facts["recoveries"] == facts["peer_recoveries"]
    expect_other_queue_pairs(facts)


@pytest.mark.skipif(not ON_UROCE, reason="others may use the kernel's device at the same time")
@pytest.mark.parametrize("ends", [("server",), ("server", "client")], ids="-".join)
def test_spare_queue_pairs_do_not_add_up(certs, device, start, ends):
    """One in use at each end, one spare where the time is kept; however many epochs there were."""
    words = {end: ["--epoch-ms", "100"] if end in ends else [] for end in ("server", "client")}
    before = resources(device)
    server = start(Server, certs, device, "--log-level", "info", *words["server"])
    client = start(Client, certs, server.port, *words["client"])

    def epochs():
        return server.log().count("because its time limit has passed")

    for count in (2, 5):
        wait_until(lambda: epochs() >= count, lambda: f"{count} epochs: {server.log()}")
        wait_until(lambda: resources(device)["qp"] - before["qp"] == 2 + len(ends), lambda: f"queue pairs: {resources(device)}")
    client.check()
    client.leave()
    server.stop()


@BOTH
def test_region_is_taken_back_at_once(protected, mode):
    protected(mode, "withdraw", "told")


@pytest.mark.parametrize("what", ["write", "read"])
def test_rkey_that_was_kept_is_worth_nothing_after_the_withdrawal(protected, what):
    protected(PLAIN, "withdraw", what)


@pytest.mark.parametrize("who", ["client", "server"])
def test_sealing_is_never_downgraded(protected, who):
    assert "seal" in protected(PLAIN, "seal-differs", who)["text"]


@left_out_of("tsan", "vm")
@pytest.mark.parametrize("slow", ["client", "server", "both"])
def test_chacha20_poly1305_serves_where_an_end_has_no_fast_aes(protected, slow):
    """Messages, and writes and reads of up to 256 KiB, with queue pairs that are killed."""
    facts = protected(SEALED | {"PROBE_SLOW_AES": slow}, "renew", "client", 600, program=PROBE_WRAPPED)
    assert facts["seal"] == facts["peer_seal"] == "ChaCha20-Poly1305"
    assert facts["recoveries"] >= 3


@left_out_of("vm")
def test_aes_256_gcm_serves_where_both_have_it(protected):
    facts = protected(SEALED, "renew", "asked", 600)
    with open("/proc/cpuinfo", encoding="ascii") as file:
        words = set(file.read().split())
    if words >= {"aes", "pclmulqdq"} or words >= {"aes", "pmull"}:
        assert facts["seal"] == facts["peer_seal"] == "AES-256-GCM"


PER_KEY = 1 << 18


@left_out_of("asan", "tsan", "vm")
def test_key_is_changed_under_load(protected):
    """More messages than one key is for, all in one direction, and epochs among them."""
    facts = protected(SEALED, "stream", PER_KEY + 20000, timeout=230, program=PROBE_WRAPPED)
    assert facts["records"] > PER_KEY
    assert facts["epoch"] >= 3


# What the library does in plain connections, once more: sealed, and with new PSNs all the time.
EVERYTHING = [("sizes", 4096, 16, 40), ("sizes", 64, 1, 100), ("sizes", 1 << 20, 2, 2), ("nonblocking",), ("timeouts",), ("flood", 1, 500),
              ("flood", 16, 3000), ("disconnect", "client", 1), ("disconnect", "server", 16), ("rights", "rw"), ("rights", "r"),
              ("rights", "w"), ("rights", "none"), ("rights", "absent"), ("posted",), ("client-region",), ("lost",), ("not-now",),
              ("stuffed",), ("never-reads",), ("blocking-handlers",), ("link-once", 5), ("link-kept",), ("link-policy",)]


@left_out_of("asan", "tsan", "vm")
@pytest.mark.parametrize("args", EVERYTHING, ids=lambda args: "-".join(map(str, args)))
def test_everything_is_sealed(protected, args):
    protected(SEALED, *args)


@left_out_of("asan", "tsan", "vm")
@pytest.mark.parametrize("args", EVERYTHING, ids=lambda args: "-".join(map(str, args)))
def test_everything_with_new_psns(protected, args):
    protected({"SECURDMA_PROBE_EPOCH_MS": "100", "SECURDMA_PROBE_EPOCH_PSNS": "16384"}, *args)


@left_out_of("tsan", "vm")
@pytest.mark.parametrize("args", EVERYTHING, ids=lambda args: "-".join(map(str, args)))
def test_everything_sealed_with_new_psns(protected, args):
    protected(SEALED | {"SECURDMA_PROBE_EPOCH_MS": "100", "SECURDMA_PROBE_EPOCH_PSNS": "16384"}, *args)


@pytest.mark.skipif(not ON_UROCE, reason="the device of the test must lose packets")
@BOTH
@pytest.mark.parametrize("what", ["asked", "both", "count"])
def test_renewals_on_a_device_that_loses_and_reorders(protected, mode, what, monkeypatch):
    monkeypatch.setenv("UROCE_FAULT", "loss=0.5%,duplicate=0.5%,reorder=1%,seed=7")
    facts = protected(mode, "renew", what, 20000 if what == "count" else 1500, timeout=230)
    assert facts["epoch"] >= 1 and facts["epoch"] == facts["peer_epoch"]
