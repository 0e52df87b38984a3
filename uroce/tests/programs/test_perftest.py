# SPDX-License-Identifier: Apache-2.0
"""perftest, as Debian ships it: every program with the options that change how it uses the device."""
import re

import pytest

from rig import DEVICE, PATIENT, Pair

BANDWIDTH = ("ib_send_bw", "ib_write_bw", "ib_read_bw", "ib_atomic_bw")
LATENCY = ("ib_send_lat", "ib_write_lat", "ib_read_lat", "ib_atomic_lat")
N = ["-n", "500"]

# All of them for every program would show nothing new, and cost: a run of perftest measures the clock for half a
# second, and with -a again for each size. The default MTU is 4096.
BANDWIDTH_ONLY = {
    "mtu_256": ["-m", "256", *N],
    "qps_64": ["-q", "64", "-n", "20", "-s", "4096"],
    "bidirectional": ["-b", *N],
    "bidirectional_qps": ["-b", "-q", "4", "-n", "100"],
    "tx_depth_1": ["-t", "1", "-Q", "1", *N],
    "post_list": ["-l", "16", "-n", "512"],
}
NAMED = [
    ("ib_send_lat", ["-m", "256", *N]), ("ib_read_lat", ["-m", "256", *N]), ("ib_send_bw", ["-x", "0", *N]),
    ("ib_send_bw", ["-Q", "1", *N]), ("ib_send_bw", ["-N", *N]), ("ib_send_bw", ["-D", "1"]),
    ("ib_send_bw", ["--use_old_post_send", *N]), ("ib_atomic_bw", ["--use_old_post_send", *N]),
    ("ib_send_bw", ["--use-srq", *N]), ("ib_send_bw", ["--use-srq", "-q", "4", *N]), ("ib_send_lat", ["--use-srq", *N]),
    ("ib_send_bw", ["--use-srq", "-e", *N]),
    ("ib_send_bw", ["-I", "64", "-s", "64", *N]), ("ib_write_bw", ["-I", "64", "-s", "64", *N]),
    ("ib_send_lat", ["-I", "64", "-s", "64", *N]), ("ib_write_lat", ["-I", "64", "-s", "64", *N]),
    # perftest waits in vain for what a receiver loses of UC and UD: no more in all than a small receive buffer holds.
    ("ib_send_bw", ["-c", "UC", "-s", "1024", "-n", "64"]), ("ib_write_bw", ["-c", "UC", *N]),
    ("ib_send_lat", ["-c", "UC", *N]), ("ib_write_lat", ["-c", "UC", *N]),
    ("ib_send_lat", ["-c", "UC", "-s", "65536", "-n", "100"]),
    ("ib_send_lat", ["-c", "UD", *N]), ("ib_send_bw", ["-c", "UD", "-s", "1024", "-n", "64"]),
    ("ib_send_bw", ["-c", "UD", "-g", "-x", "1", "-s", "1024", "-n", "64"]),
    ("ib_send_lat", ["-c", "UD", "-e", *N]), ("ib_send_lat", ["-c", "UD", "-s", "4096", *N]),
    ("ib_send_bw", ["-r", "1", "-t", "1", "-n", "100"]),
    ("ib_send_bw", ["-s", "1048576", "-n", "50"]), ("ib_write_bw", ["-s", "8388608", "-n", "10"]),
    ("ib_read_bw", ["-o", "1", *N]), ("ib_read_bw", ["-o", "4", "-s", "65536", *N]),
    ("ib_atomic_bw", ["-A", "CMP_AND_SWAP", *N]), ("ib_atomic_bw", ["-A", "FETCH_AND_ADD", "-o", "1", *N]),
    ("ib_atomic_lat", ["-A", "CMP_AND_SWAP", *N]),
    ("ib_write_bw", ["--mr_per_qp", "-q", "4", *N]), ("ib_send_bw", ["--recv_post_list=8", "-r", "64", "-n", "512"]),
]
DEFAULT_SIZE = {"ib_send_bw": 65536, "ib_write_bw": 65536, "ib_read_bw": 65536, "ib_atomic_bw": 8,
                "ib_send_lat": 2, "ib_write_lat": 2, "ib_read_lat": 2, "ib_atomic_lat": 8}


def cases():
    for program in BANDWIDTH + LATENCY:
        variants = {"plain": N if program == "ib_write_lat" else []}
        if not program.startswith("ib_write"):  # perftest: no events for writes
            variants["events"] = ["-e", *N]
        if program in BANDWIDTH:
            variants.update(BANDWIDTH_ONLY)
        if program in ("ib_send_bw", "ib_read_lat"):
            variants["all_sizes"] = ["-a", "-n", "5"]
        if program == "ib_atomic_bw":  # perftest: no sizes
            variants["qps_64"] = ["-q", "64", "-n", "20"]
        for name, options in variants.items():
            yield pytest.param(program, options, id=f"{program}-{name}")
    for program, options in NAMED:
        yield pytest.param(program, options, id=f"{program}{''.join(options)}")


def value_of(options, name, default):
    return int(options[options.index(name) + 1]) if name in options else default


def results(text):
    """Lines of numbers, by message size. One may be missing: perftest squares in an int, and when one time was 47 ms from the
    average, the deviation is "-nan"."""
    rows = {}
    for line in text.splitlines():
        # It says on the same line that the clock of a busy machine is not to be relied on.
        line = re.sub(r"Correlation coefficient.*", "", line)
        if re.match(r"^ ?\d+\s+\d+\s+[\d.]+(\s+([\d.]+|-?nan))*\s*$", line):
            words = line.split()
            rows[int(words[0])] = (int(words[1]), [float(word) for word in words[2:] if "nan" not in word])
    return rows


def test_results_are_read():
    rows = results(" 2       500          4.35           242190.39      5.27     \t       3957.59     \t-nan   \t\t95463.31 \t\t242190.39\n"
                   " 65536      200              431.67             nan \t\t   0.006907Correlation coefficient r^2: 0.899582 < 0.9\n not a row 2 5\n")
    assert rows == {2: (500, [4.35, 242190.39, 5.27, 3957.59, 95463.31, 242190.39]), 65536: (200, [431.67, 0.006907])}


@pytest.mark.parametrize("program, options", list(cases()))
def test_perftest(program, options):
    server, client = Pair([program, "-d", DEVICE, "-F", *PATIENT, *options]).finish(120)
    rows = results(client)
    if "-a" in options:
        sizes = {1 << i for i in range(1, 24)}
    else:
        sizes = {value_of(options, "-s", DEFAULT_SIZE[program])}
    assert set(rows) == sizes, client + server
    for size in sizes:
        iterations, numbers = rows[size]
        if "-D" in options:
            assert iterations > 0, client
        else:
            wanted = value_of(options, "-n", 1000 if program not in ("ib_write_bw",) else 5000)
            wanted *= value_of(options, "-q", 1) if program in BANDWIDTH else 1
            assert iterations == wanted, client
        # Peak bandwidth may be unmeasured, and a minimum rounded to nothing: the average is there in every output, unless perftest
        # finds no frequency of the clock, and counts with 0.
        assert max(numbers) > 0 or "Correlation coefficient" in client, client
    for text in (server, client):
        assert "rror" not in re.sub(r"Conflicting CPU.*", "", text), text
