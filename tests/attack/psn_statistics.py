#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Can starting PSNs be told from random numbers, or predicted? Those of securdma, and those of common practice.

The tests are those of NIST SP 800-22 of their names, checked against its worked examples at each start. All tests of one sample together
raise a false alarm once in a million runs: each p-value is compared with 1e-6 divided by their number. What is predictable need not show
in them: there a predictor guesses.
"""
import argparse
import collections
import ctypes
import json
import math
import os
import re
import socket
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
BUILD = os.path.realpath(os.environ.get("SECURDMA_BUILD", os.path.join(HERE, "..", "..", "build")))
SECURDMA = os.path.join(BUILD, "cli", "securdma")
UROCE = dict(os.environ, LD_PRELOAD=os.path.join(BUILD, "uroce", "src", "liburoce.so"))
ALPHA = 1e-6
BITS = 24
failures = 0


# ---- SP 800-22 -----------------------------------------------------------------------------------------------------------


def igamc(a, x):
    """The upper incomplete gamma function Q(a, x): by its series below a + 1, by its continued fraction above."""
    if x <= 0:
        return 1.0
    scale = math.exp(-x + a * math.log(x) - math.lgamma(a))
    if x < a + 1:
        term = total = 1 / a
        n = a
        while abs(term) > abs(total) * 1e-16:
            n += 1
            term *= x / n
            total += term
        return max(0.0, 1 - total * scale)
    b = x + 1 - a
    c, d = 1e300, 1 / b
    h = d
    for i in range(1, 10000):
        an = -i * (i - a)
        b += 2
        d = 1 / (an * d + b or 1e-300)
        c = b + an / c or 1e-300
        h *= d * c
        if abs(d * c - 1) < 1e-15:
            break
    return scale * h


def frequency(bits):
    return math.erfc(abs(2 * sum(bits) - len(bits)) / math.sqrt(2 * len(bits)))


def block_frequency(bits, size):
    count = len(bits) // size
    chi = 4 * size * sum((sum(bits[i * size:(i + 1) * size]) / size - 0.5) ** 2 for i in range(count))
    return igamc(count / 2, chi / 2)


def runs(bits):
    n = len(bits)
    ones = sum(bits) / n
    if abs(ones - 0.5) >= 2 / math.sqrt(n):
        return 0.0
    seen = 1 + sum(a != b for a, b in zip(bits, bits[1:]))
    return math.erfc(abs(seen - 2 * n * ones * (1 - ones)) / (2 * math.sqrt(2 * n) * ones * (1 - ones)))


def longest_run(bits):
    size, low, shares = ((8, 1, (0.2148, 0.3672, 0.2305, 0.1875)) if len(bits) < 6272 else
                         (128, 4, (0.1174, 0.2430, 0.2493, 0.1752, 0.1027, 0.1124)))
    classes, count = [0] * len(shares), len(bits) // size
    for i in range(count):
        longest = max(map(len, "".join(map(str, bits[i * size:(i + 1) * size])).split("0")))
        classes[min(max(longest - low, 0), len(shares) - 1)] += 1
    chi = sum((seen - count * share) ** 2 / (count * share) for seen, share in zip(classes, shares))
    return igamc((len(shares) - 1) / 2, chi / 2)


def patterns(bits, m):
    """How often each pattern of m bits occurs, the sequence taken as a ring."""
    if m == 0:
        return [len(bits)]
    ring, counts, value, mask = bits + bits[:m - 1], collections.Counter(), 0, (1 << m) - 1
    for i, bit in enumerate(ring):
        value = (value << 1 | bit) & mask
        if i >= m - 1:
            counts[value] += 1
    return list(counts.values())


def serial(bits, m):
    psi = [sum(c * c for c in patterns(bits, k)) * 2 ** k / len(bits) - len(bits) if k > 0 else 0 for k in (m, m - 1, m - 2)]
    return (igamc(2 ** (m - 2), (psi[0] - psi[1]) / 2), igamc(2 ** (m - 3), (psi[0] - 2 * psi[1] + psi[2]) / 2))


def approximate_entropy(bits, m):
    n = len(bits)
    phi = [sum(c / n * math.log(c / n) for c in patterns(bits, k)) for k in (m, m + 1)]
    return igamc(2 ** (m - 1), n * (math.log(2) - (phi[0] - phi[1])))


def cumulative_sums(bits, backward=False):
    n, total, z = len(bits), 0, 0
    for bit in reversed(bits) if backward else bits:
        total += 2 * bit - 1
        z = max(z, abs(total))

    def phi(x):
        return math.erfc(-x / math.sqrt(2)) / 2

    root = math.sqrt(n)
    first = sum(phi((4 * k + 1) * z / root) - phi((4 * k - 1) * z / root)
                for k in range(int((-n / z + 1) // 4), int((n / z - 1) // 4) + 1))
    second = sum(phi((4 * k + 3) * z / root) - phi((4 * k + 1) * z / root)
                 for k in range(int((-n / z - 3) // 4), int((n / z - 1) // 4) + 1))
    return 1 - first + second


def collisions(psns):
    """Pairs that are equal: about Poisson, with n (n - 1) / 2 / 2^24 expected."""
    expected = len(psns) * (len(psns) - 1) / 2 / 2 ** BITS
    pairs = sum(c * (c - 1) // 2 for c in collections.Counter(psns).values())
    at_most = igamc(pairs + 1, expected)
    at_least = 1.0 if pairs == 0 else 1 - igamc(pairs, expected)
    return min(1.0, 2 * min(at_most, at_least)), pairs, expected


def check_examples():
    pi = [int(c) for c in "11001001000011111101101010100010001000010110100011000010001101001100010011000110011000101000101110" "00"]
    run = [int(c) for c in "11001100000101010110110001001100111000000000001001001101010100010001001111010110100000001101011111001100111001101101"
                           "100010110010"]
    short = [int(c) for c in "0011011101"]
    for got, wanted in ((frequency(pi), 0.109599), (block_frequency(pi, 10), 0.706438), (runs(pi), 0.500798),
                        (longest_run(run), 0.180609), (serial(short, 3)[0], 0.808792), (serial(short, 3)[1], 0.670320),
                        (approximate_entropy(pi, 2), 0.235301), (cumulative_sums(pi), 0.219194),
                        (cumulative_sums(pi, True), 0.114866)):
        # The constants of the longest run have four digits in the document.
        assert abs(got - wanted) < 2e-4, (got, wanted)


def judge(psns):
    """The p-values of all tests that the sample is long enough for."""
    bits = [psn >> (BITS - 1 - i) & 1 for psn in psns for i in range(BITS)]
    found = {"frequency": frequency(bits), "block frequency": block_frequency(bits, 128), "runs": runs(bits),
             "longest run": longest_run(bits), "approximate entropy": approximate_entropy(bits, 5),
             "cumulative sums": cumulative_sums(bits), "cumulative sums, backward": cumulative_sums(bits, True),
             "collisions": collisions(psns)[0]}
    found["serial 1"], found["serial 2"] = serial(bits, 8)
    # A bit that is always the same, or too often.
    for i in range(BITS):
        found[f"bit {i}"] = frequency([psn >> i & 1 for psn in psns])
    return found


# ---- reports -------------------------------------------------------------------------------------------------------------


def report(victim, defence, tried, expected, succeeded, seconds, note=None):
    global failures
    outcome = "succeeded" if succeeded else "failed"
    line = {"attack": "PSN prediction", "position": "anywhere", "knowledge": "how they are made", "victim": victim, "defence": defence,
            "tried": tried, "packets": None, "seconds": round(seconds, 3), "outcome": outcome, "expected": expected}
    if note:
        line["note"] = note
    failures += outcome != expected
    print(json.dumps(line), flush=True)


def tell_apart(victim, defence, psns, expected):
    began = time.monotonic()
    found = judge(psns)
    worst = min(found, key=found.get)
    report(victim, defence, f"{len(found)} statistical tests of {len(psns)} PSNs", expected, found[worst] < ALPHA / len(found),
           time.monotonic() - began, f"lowest p-value {found[worst]:.3g} ({worst}); told apart below {ALPHA / len(found):.2g}; "
           f"{collisions(psns)[1]} collisions, {collisions(psns)[2]:.1f} expected")


# ---- samples -------------------------------------------------------------------------------------------------------------


def of_connections(count):
    """Both ends' PSNs of so many real connections, one after the other."""
    psns = []
    with tempfile.TemporaryDirectory() as folder:
        def cert(kind, name, *words):
            subprocess.run([SECURDMA, "cert", kind, "--out", os.path.join(folder, name), *words], check=True, stdout=subprocess.DEVNULL)
        def file(name):
            return os.path.join(folder, name)
        signed = ("--ca", file("ca.crt"), "--ca-key", file("ca.key"))
        cert("ca", "ca", "--cn", "attack CA")
        cert("server", "server", "--name", "127.0.0.1", *signed)
        cert("client", "client", "--cn", "honest", *signed)
        server = subprocess.Popen([SECURDMA, "serve", "--json", "--listen", "127.0.0.1", "--port", "0", "--cert", file("server.crt"),
                                   "--key", file("server.key"), "--client-ca", file("ca.crt"), "--log-level", "error"],
                                  stdout=subprocess.PIPE, env=UROCE, text=True)
        try:
            port = json.loads(server.stdout.readline())["port"]
            for _ in range(count):
                result = subprocess.run([SECURDMA, "connect", "--json", "--show-psn", "--ca", file("ca.crt"), "--cert", file("client.crt"),
                                         "--key", file("client.key"), "-e", "stat", f"127.0.0.1:{port}"], env=UROCE, check=True,
                                        capture_output=True, text=True)
                found = json.loads(result.stdout)
                info = found.get("connection", found)
                psns += [info["psn"], info["peer_psn"]]
        finally:
            server.terminate()
            server.wait()
    return psns


def of_generator(count):
    library = ctypes.CDLL(os.path.join(BUILD, "src", "libsecurdma.so"))
    psn, psns = ctypes.c_uint32(), []
    for _ in range(count):
        assert library.srdma_psn_generate(ctypes.byref(psn)) == 0
        psns.append(psn.value)
    return psns


# ---- common practice -----------------------------------------------------------------------------------------------------


def lrand48_first(seed):
    """What lrand48 returns first after srand48(seed)."""
    state = ((seed & 0xFFFFFFFF) << 16 | 0x330E) * 0x5DEECE66D + 0xB & (1 << 48) - 1
    return state >> 17


def pingpong_psn():
    """The PSN of a real ibv_rc_pingpong, its process id, and the time before and after its start."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    before = int(time.time())
    process = subprocess.Popen(["stdbuf", "-oL", "ibv_rc_pingpong", "-g", "0", "-p", str(port)], stdout=subprocess.PIPE, env=UROCE, text=True,
                               stderr=subprocess.DEVNULL)
    try:
        line = process.stdout.readline()
    finally:
        process.kill()
        process.wait()
    found = re.search(r"PSN (0x[0-9a-f]+)", line)
    assert found, f"ibv_rc_pingpong said {line!r}"
    return int(found.group(1), 16), process.pid, before, int(time.time())


def predict_pingpong(rounds):
    """perftest and the pingpongs: srand48(getpid() * time(NULL)). The second of the start is known, and any process id is tried."""
    began, guesses, hits = time.monotonic(), [], 0
    with open("/proc/sys/kernel/pid_max", encoding="ascii") as file:
        most = min(int(file.read()), 1 << 22)
    for _ in range(rounds):
        psn, pid, before, after = pingpong_psn()
        count, hit = 0, False
        # Somewhere in there: where it is the attacker does not know.
        first = max(1, min(pid - pid % 40000, most - 40000))
        for guess in range(first, first + 40000):
            for second in range(before, after + 1):
                count += 1
                hit = lrand48_first(guess * second) & 0xFFFFFF == psn
                if hit:
                    break
            if hit:
                break
        hits += hit
        guesses.append(count)
    guesses.sort()
    report("ibv_rc_pingpong", "lrand48() seeded by process id and second (perftest, too)",
           f"all seeds from the second of the start and 40,000 process ids, {rounds} times", "succeeded", hits == rounds,
           time.monotonic() - began, f"{hits} of {rounds}; median of {guesses[len(guesses) // 2]:,} guesses for its PSN instead of 8 million")


def predict_rand():
    """gloo: rand() & 0xffffff, and nobody calls srand."""
    began, libc = time.monotonic(), ctypes.CDLL("libc.so.6")
    program = "import ctypes; c = ctypes.CDLL('libc.so.6'); print(*[c.rand() & 0xffffff for _ in range(8)])"
    seen = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.split()
    libc.srand(1)
    guessed = [str(libc.rand() & 0xFFFFFF) for _ in range(8)]
    report("a program that takes its PSNs from rand(), as gloo does", "rand() & 0xffffff", "the same generator, started the same way",
           "succeeded", seen == guessed, time.monotonic() - began, "all 8 with the first guess")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--short", action="store_true", help="smaller samples")
    arguments = parser.parse_args()
    check_examples()
    size = 10000 if arguments.short else 100000
    tell_apart("securdma: both ends of real connections", "RAND_bytes", of_connections(40 if arguments.short else 400), "failed")
    tell_apart("securdma: srdma_psn_generate", "RAND_bytes", of_generator(size), "failed")
    tell_apart("constant PSNs, as NCCL, UCX and brpc have them", "0", [0] * size, "succeeded")
    tell_apart("PSNs with the lowest bit set", "RAND_bytes, then | 1: 23 bits", [psn | 1 for psn in of_generator(size)], "succeeded")
    # One generator for all connections: it looks random to these tests, which is why the next attacks guess instead.
    predict_rand()
    predict_pingpong(3 if arguments.short else 20)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
