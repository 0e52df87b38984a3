# SPDX-License-Identifier: Apache-2.0
"""Verified data while packets are lost, doubled, reordered, late and corrupted; and a peer that is never heard."""
import pytest

from rig import DEVICE, PATIENT, Pair, verify_pair

FAULTS = {
    "loss_0.1": "loss=0.1%",
    "loss_1": "loss=1%",
    "loss_5": "loss=5%",
    "duplicate_1": "duplicate=1%",
    "duplicate_20": "duplicate=20%",
    "reorder_1": "reorder=1%",
    "reorder_10": "reorder=10%",
    "corrupt_0.1": "corrupt=0.1%",
    "corrupt_1": "corrupt=1%",
    "corrupt_5": "corrupt=5%",
    "delay": "delay=200us,jitter=300us",
    "everything": "loss=1%,duplicate=1%,reorder=2%,corrupt=1%,delay=50us,jitter=100us",
}
SIZES = "0,1,64,1023,1024,1025,4097,20000,100000"
EVENTS = "--events"


def check(fault, seed, *options, sizes=SIZES, server_options=(EVENTS,)):
    pair = verify_pair("--seed", str(seed), "--sizes", sizes, "--iterations", "30", "--timeout", "16", "--retry", "7", *options,
                       server_options=server_options, environment={"UROCE_FAULT": f"{fault},seed={seed}"}, deadline=180)
    for text in pair.finish(240):
        assert "verified: " in text


# Both ends sleep for events: ends that poll show the same of the protocol, and while they wait for what was lost they take each
# other's processor.
@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize("fault", FAULTS)
def test_data_arrives_whole(fault, seed):
    check(FAULTS[fault], seed, EVENTS)


@pytest.mark.parametrize("fault", ["loss_1", "duplicate_20", "reorder_10", "corrupt_1"])
def test_data_arrives_whole_when_both_poll(fault):
    check(FAULTS[fault], 4, sizes="0,64,1025,20000", server_options=())


@pytest.mark.parametrize("mtu", ["256", "4096"])
def test_data_arrives_whole_at_other_mtus(mtu):
    check("loss=1%,reorder=1%,duplicate=1%", 5, EVENTS, "--mtu", mtu)


def test_many_queue_pairs_under_loss():
    check("loss=1%", 6, EVENTS, "--qps", "50", "--depth", "2")


@pytest.mark.parametrize("program", [["ib_send_bw"], ["ib_write_bw"], ["ib_read_bw"], ["ib_atomic_bw"], ["ib_send_lat"],
                                     ["ib_send_bw", "-e"], ["ib_send_bw", "--use-srq", "-q", "4"]], ids="".join)
def test_perftest_under_loss(program):
    Pair([*program, "-d", DEVICE, "-F", *PATIENT, "-n", "300"], environment={"UROCE_FAULT": "loss=1%,seed=7"}).finish(120)


@pytest.mark.parametrize("timeout, retry", [(10, 7), (14, 3), (15, 0)])
@pytest.mark.parametrize("events", [[], ["--events"]], ids=["polling", "events"])
def test_peer_that_is_never_heard_exhausts_the_retries_in_time(timeout, retry, events):
    pair = verify_pair("--lose", "mute", "--timeout", str(timeout), "--retry", str(retry), *events,
                       environment={"UROCE_FAULT": "loss=100%"})
    _, client = pair.finish()
    assert "lost: retry exceeded on 2 queue pairs" in client
