#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Are starting PSNs predictable? Those of securdma, and those that are common practice.

Each sample is judged by tests as in NIST SP 800-22 rev. 1a (frequency, block frequency, runs, longest run, serial, approximate entropy,
cumulative sums), on three streams of bits: the PSNs one after the other; their differences; and the first bits of all, then the second
ones, and so on. Then the pairs of equal PSNs, against the birthday bound. The tests are checked at start against the worked examples of
the publication.

A sample is told apart from uniform ones when a p-value is less than LIMIT = 1e-9. At most 100 of them judge securdma, so uniform PSNs
are told apart with a chance of at most 1e-7 if each p-value is exact. They are asymptotic: the stated false alarm rate, 1e-6 for the whole
program, leaves a factor of ten for that.

What passes may be predictable all the same, so common practice is predicted, too. The attack succeeds if a sample is told apart or predicted.
"""
import collections
import ctypes
import itertools
import json
import math
import random
import secrets
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import lab as rig
from loopback import ADDRESS, Loopback, free_port

LIMIT = 1e-9
SPACE, MASK = 1 << 24, (1 << 24) - 1
PI = "1100100100001111110110101010001000100001011010001100001000110100110001001100011001100010100010111000"


# ---- special functions ----


def igamc(a, x):
    """The upper incomplete gamma function, over gamma(a)."""
    if x <= 0:
        return 1.0
    scale = math.exp(a * math.log(x) - x - math.lgamma(a))
    if x < a + 1:  # series for the lower one
        term = total = 1 / a
        divisor = a
        while term > total * 1e-16:
            divisor += 1
            term *= x / divisor
            total += term
        return max(0.0, 1 - scale * total)
    tiny = 1e-300  # continued fraction, by Lentz
    b = x + 1 - a
    c, d = 1 / tiny, 1 / b
    fraction = d
    for i in range(1, 1_000_000):
        an = -i * (i - a)
        b += 2
        d = an * d + b
        d = 1 / (d if abs(d) > tiny else tiny)
        c = b + an / c
        c = c if abs(c) > tiny else tiny
        fraction *= d * c
        if abs(d * c - 1) < 1e-15:
            break
    return scale * fraction


def normal(x):
    return math.erfc(-x / math.sqrt(2)) / 2


# ---- tests of a string of "0" and "1"; each gives p-values ----


def frequency(bits):
    n = len(bits)
    return [math.erfc(abs(2 * bits.count("1") - n) / math.sqrt(2 * n))]


def block_frequency(bits, size=128):
    count = len(bits) // size
    chi = 4 * size * sum((bits.count("1", i * size, (i + 1) * size) / size - 0.5) ** 2 for i in range(count))
    return [igamc(count / 2, chi / 2)]


def runs(bits):
    n, ones = len(bits), bits.count("1") / len(bits)
    if abs(ones - 0.5) >= 2 / math.sqrt(n):
        return []  # not applicable: for the frequency test to judge
    seen = 1 + bits.count("01") + bits.count("10")
    return [math.erfc(abs(seen - 2 * n * ones * (1 - ones)) / (2 * math.sqrt(2 * n) * ones * (1 - ones)))]


def no_longer_run(size, longest):
    """The chance that `size` random bits have no run of ones longer than `longest`. Exact."""
    ways = [1]  # of i bits that end in a zero, or are none
    for i in range(1, size + 2):
        ways.append(sum(ways[max(0, i - longest - 1):i]))
    return ways[size + 1] / 2 ** size


def longest_run(bits):
    size, low, high = (8, 1, 4) if len(bits) < 6272 else (128, 4, 9)
    found = collections.Counter(min(high, max(low, max(map(len, bits[i:i + size].split("0"))))) for i in range(0, len(bits) - size + 1, size))
    bounds = [0.0, *(no_longer_run(size, run) for run in range(low, high)), 1.0]
    count = sum(found.values())
    chi = sum((found[run] - count * (after - before)) ** 2 / (count * (after - before))
              for run, before, after in zip(range(low, high + 1), bounds, bounds[1:]))
    return [igamc((high - low) / 2, chi / 2)]


def patterns(bits, width):
    """How often each pattern of `width` bits is there, the end followed by the beginning; [0]: none, then one bit shorter each time."""
    whole = bits + bits[:width - 1]
    counts = collections.Counter(map("".join, zip(*(itertools.islice(whole, i, None) for i in range(width)))))
    table = {width: counts}
    for shorter in range(width - 1, 0, -1):
        table[shorter] = collections.Counter()
        for pattern, count in table[shorter + 1].items():
            table[shorter][pattern[:-1]] += count
    return table


def psi(table, width, n):
    return 2 ** width / n * sum(count * count for count in table[width].values()) - n if width > 0 else 0.0


def serial(bits, width=6, table=None):
    n, table = len(bits), table or patterns(bits, width)
    three = [psi(table, width - i, n) for i in range(3)]
    return [igamc(2 ** (width - 2), (three[0] - three[1]) / 2), igamc(2 ** (width - 3), (three[0] - 2 * three[1] + three[2]) / 2)]


def approximate_entropy(bits, width=5, table=None):
    n, table = len(bits), table or patterns(bits, width + 1)
    phi = [sum(count / n * math.log(count / n) for count in table[w].values()) if w else 0.0 for w in (width, width + 1)]
    return [igamc(2 ** (width - 1), n * (math.log(2) - (phi[0] - phi[1])))]


def cumulative_sums(bits):
    result, n = [], len(bits)
    for text in (bits, bits[::-1]):
        sums = list(itertools.accumulate(1 if bit == "1" else -1 for bit in text))
        z, root = max(max(sums), -min(sums)), math.sqrt(n)
        first = sum(normal((4 * k + 1) * z / root) - normal((4 * k - 1) * z / root)
                    for k in range(math.floor((-n / z + 1) / 4), math.floor((n / z - 1) / 4) + 1))
        second = sum(normal((4 * k + 3) * z / root) - normal((4 * k + 1) * z / root)
                     for k in range(math.floor((-n / z - 3) / 4), math.floor((n / z - 1) / 4) + 1))
        result.append(min(1.0, max(0.0, 1 - first + second)))
    return result


def equal_pairs(psns):
    """Poisson, both tails."""
    expected = len(psns) * (len(psns) - 1) / 2 / SPACE
    pairs = sum(count * (count - 1) // 2 for count in collections.Counter(psns).values())
    more = 1 - igamc(pairs, expected) if pairs else 1.0  # P(X >= pairs)
    fewer = igamc(pairs + 1, expected)
    return min(1.0, 2 * min(more, fewer)), pairs, expected


def check_examples():
    """The worked examples of SP 800-22: sections 2.1 to 2.5, 2.11 to 2.13, and 5.5.3's igamc."""
    run_example = "11001100000101010110110001001100111000000000001001001101010100010001001111010110100000001101011111001100111001101101100010110010"
    for what, seen, wanted, tolerance in (
            ("igamc", [igamc(1.5, 0.5)], [0.801252], 1e-6),
            ("igamc", [igamc(1, 30)], [math.exp(-30)], 1e-20),
            ("frequency", frequency("1011010101") + frequency(PI), [0.527089, 0.109599], 1e-6),
            ("block frequency", block_frequency("0110011010", 3) + block_frequency(PI, 10), [0.801252, 0.706438], 1e-6),
            ("runs", runs("1001101011") + runs(PI), [0.147232, 0.500798], 1e-6),
            # The publication rounds the chances of the runs to four digits.
            ("longest run", longest_run(run_example), [0.180598], 1e-4),
            ("serial", serial("0011011101", 3), [0.808792, 0.670320], 1e-6),
            ("approximate entropy", approximate_entropy("0100110101", 3) + approximate_entropy(PI, 2), [0.261961, 0.235301], 1e-6),
            # In its short example the publication leaves out the term of k = -1, 0.000074.
            ("cumulative sums", cumulative_sums("1011010111")[:1], [0.4116588 - 0.0000741], 1e-6),
            ("cumulative sums", cumulative_sums(PI), [0.219194, 0.114866], 1e-6)):
        if len(seen) != len(wanted) or any(abs(one - other) > tolerance for one, other in zip(seen, wanted)):
            raise SystemExit(f"attack: {what}: {seen}, where SP 800-22 has {wanted}")


def judge(psns):
    """All p-values, each with its name."""
    words = [f"{psn:024b}" for psn in psns]
    streams = {"PSNs": "".join(words), "differences": "".join(f"{after - before & MASK:024b}" for before, after in zip(psns, psns[1:])),
               "columns": "".join(map("".join, zip(*words)))}
    found = {}
    for stream, bits in streams.items():
        table = patterns(bits, 6)
        for test, values in (("frequency", frequency(bits)), ("block frequency", block_frequency(bits)), ("runs", runs(bits)),
                             ("longest run", longest_run(bits)), ("serial", serial(bits, 6, table)),
                             ("approximate entropy", approximate_entropy(bits, 5, table)), ("cumulative sums", cumulative_sums(bits))):
            for i, value in enumerate(values):
                found[f"{test}{' ' + str(i + 1) if len(values) > 1 else ''} of {stream}"] = value
    found["equal pairs"], pairs, expected = equal_pairs(psns)
    return found, f"{pairs} equal pairs, {expected:.3g} expected"


# ---- samples ----


def connections(count):
    """Both PSNs of real connections."""
    server = LAB.serve()

    def one(_):
        words = LAB.connect_words(server, "--show-psn", "-e", "stat")
        result = subprocess.run(words, env=LAB.environment(), stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=20, check=True)
        line = json.loads(result.stdout.splitlines()[-1])
        return line["psn"], line["peer_psn"]

    with ThreadPoolExecutor(2) as pool:
        psns = [psn for pair in pool.map(one, range(count)) for psn in pair]
    LAB.clear()
    return psns


def generated(count):
    library = ctypes.CDLL(f"{rig.BUILD}/src/libsecurdma.so")
    psn, psns = ctypes.c_uint32(), []
    for _ in range(count):
        if library.srdma_psn_generate(ctypes.byref(psn)) != 0:
            raise SystemExit("attack: no PSN")
        psns.append(psn.value)
    return psns


def glibc_rand(count):
    LIBC.srand(1)  # the default seed
    return [LIBC.rand() & MASK for _ in range(count)]


def drawn(seed):
    LIBC.srand48(ctypes.c_long(seed))
    return LIBC.lrand48() & MASK


def seeded(pid, second):
    """What ibv_rc_pingpong, and perftest for its first queue pair, draw."""
    return drawn(pid * second)


def many_starts(count):
    """(pid, second) of programs that a host starts one after the other, a few a second."""
    pid, second, starts = 1000, int(time.time()), []
    for i in range(count):
        pid = (pid + random.randint(1, 4)) % 32768 or 1
        second += i % 8 == 0
        starts.append((pid, second))
    return starts


# ---- predictors: what they say before they see ----


def predict_rand(count):
    """glibc's additive feedback generator, from the seed 1."""
    r = [1]
    for _ in range(30):
        r.append(16807 * r[-1] % 2147483647)
    r += r[:3]
    for i in range(34, 344 + count):
        r.append((r[i - 31] + r[i - 3]) & 0xffffffff)
    return [value >> 1 & MASK for value in r[344:]]


def pid_range():
    with open("/proc/sys/kernel/pid_max", encoding="ascii") as file:
        highest = int(file.read())
    first = 1 if highest <= 32768 else max(1, subprocess.Popen(["true"]).pid - 16384)
    return range(first, first + 32767)


def pingpong(port, *words):
    # Lines at once, though nobody's terminal: the runs below are short.
    return subprocess.Popen(["ibv_rc_pingpong", "-d", "uroce0", "-g", "0", "-p", str(port), "-n", "4", *words], env=LAB.environment(),
                            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def local_psn(program):
    text = program.communicate(timeout=10)[0]
    return next((int(line.split("PSN ")[1].split(",")[0], 16) for line in text.splitlines() if "local address" in line), None)


def real_pingpongs(count):
    """(second, PSN) of each server and the client that is started after it."""
    found = []
    while len(found) < count:
        while time.time() % 1 > 0.5:  # all in one second
            time.sleep(0.05)
        port = free_port()
        second = int(time.time())
        server = pingpong(port)
        # Nobody says when it listens.
        for _ in range(100):
            time.sleep(0.02)
            with open("/proc/net/tcp6", encoding="ascii") as file, open("/proc/net/tcp", encoding="ascii") as other:
                if f":{port:04X} " in file.read() + other.read():
                    break
        later = int(time.time())
        client = pingpong(port, ADDRESS)
        psns = local_psn(client), local_psn(server)
        if None in psns:
            raise SystemExit("attack: ibv_rc_pingpong does not run here")
        found.append(((second, psns[1]), (later, psns[0])))
    return found


def guesses(pids, seconds, psn):
    """How many until the PSN is found, and the seed."""
    number, tried = 0, set()
    for second in seconds:
        for pid in pids:
            guess = seeded(pid, second)
            number += guess not in tried
            tried.add(guess)
            if guess == psn:
                return number, (pid, second)
    return None, None


# ---- cases ----


def tell(victim, psns, defence, expected, knowledge="many PSNs", predicted=None, note=""):
    began = time.monotonic()
    found, pairs = judge(psns)
    worst = min(found, key=found.get)
    apart = found[worst] < LIMIT
    text = (f"{len(psns)} PSNs, {len(found)} p-values, the least {found[worst]:.2g} ({worst}), limit {LIMIT:g}; {pairs}"
            f"{'; told apart' if apart else ''}{'; ' + note if note else ''}")
    LAB.report("PSN prediction", "off-path", knowledge, victim, defence, "tests as in SP 800-22" + (", and to predict" if predicted is not None else ""),
               expected, apart or bool(predicted), seconds=time.monotonic() - began, note=text)
    return len(found)


def predict_pingpongs(count):
    if subprocess.run(["which", "ibv_rc_pingpong"], stdout=subprocess.DEVNULL, check=False).returncode != 0:
        LAB.report("PSN prediction", "off-path", "the second", "ibv_rc_pingpong", "none", "to guess its PSN", "succeeded", None)
        return
    began = time.monotonic()
    first, following, pids = [], [], pid_range()
    for (second, psn), (later, next_psn) in real_pingpongs(count):
        number, seed = guesses(pids, range(second, second + 4), psn)
        first.append(number)
        if seed:
            # The next program's pid is a little higher; so the nearest are tried first.
            following.append(guesses(range(seed[0] + 1, seed[0] + 200), range(later, later + 4), next_psn)[0])
    # One pid in 500 has the PSN of an earlier one, and leads nowhere; so do pids that begin anew.
    well = len(following) - following.count(None) > count // 2
    LAB.report("PSN prediction", "off-path", f"the second of the start, {len(pids)} pids that it may have", "ibv_rc_pingpong", "lrand48 seeded by pid * time",
               "guesses until its PSN is found", "succeeded", None not in first, seconds=time.monotonic() - began,
               note=f"{len(first)} runs: {', '.join(map(str, first))} guesses; half of 2^24 = {SPACE // 2} for a random PSN")
    LAB.report("PSN prediction", "off-path", "one PSN of the host, the second", "ibv_rc_pingpong", "lrand48 seeded by pid * time",
               "the pid from that PSN; guesses until the PSN of the program started next is found", "succeeded", well,
               note=f"{len(following)} runs: {', '.join(map(str, following))} guesses")


def seeded_by_one(count):
    """By the time alone: who knows the second knows the PSN. By the pid alone: who has seen one PSN knows the next program's, but for
    the few pids that may lie between."""
    starts = many_starts(count)
    psns = [drawn(second) for _, second in starts]
    said = [drawn(second) for _, second in starts]
    tell("programs that seed by the time, one after the other", psns, "lrand48 seeded by the time alone", "succeeded", "the second", psns == said,
         f"{sum(one == other for one, other in zip(psns, said))} of {count} with one guess each")
    psns = [drawn(pid) for pid, _ in starts]
    pid_of = {drawn(pid): pid for pid in range(1, 32768)}
    numbers = [next((n for n in range(1, 5) if drawn(pid_of[before] + n) == after), None) for before, after in zip(psns, psns[1:])]
    right = len(numbers) - numbers.count(None)
    tell("programs that seed by the pid, one after the other", psns, "lrand48 seeded by the pid alone", "succeeded", "the PSN before",
         right > 0.99 * len(numbers), f"{right} of {len(numbers)} with at most 4 guesses each; {len(pid_of)} PSNs in all")


def predict_more(count):
    """perftest draws one PSN for each of its queue pairs: the first gives the rest away."""
    second, pid = int(time.time()), pid_range()[random.randrange(32767)]
    LIBC.srand48(ctypes.c_long(pid * second))
    psns = [LIBC.lrand48() & MASK for _ in range(count)]
    number, seed = guesses(pid_range(), [second], psns[0])
    right = seed is not None and seeded(*seed) == psns[0] and [LIBC.lrand48() & MASK for _ in psns[1:]] == psns[1:]
    LAB.report("PSN prediction", "off-path", "one PSN, the second", "a program that seeds as perftest does", "lrand48 seeded by pid * time",
               f"the PSNs of its other {count - 1} queue pairs", "succeeded", right, note=f"seed found after {number} guesses; all others right at the first")


check_examples()
ARGUMENTS = rig.options(__doc__)
LAB = Loopback(ARGUMENTS)
LIBC = ctypes.CDLL(None)
LIBC.lrand48.restype = ctypes.c_long
SHORT = ARGUMENTS.short

VALUES = tell("securdma: both ends of real connections", connections(150 if SHORT else 1500), "random PSN (RAND_bytes)", "failed")
VALUES += tell("securdma: srdma_psn_generate", generated(1 << (15 if SHORT else 17)), "random PSN (RAND_bytes)", "failed")
if VALUES > 100:
    raise SystemExit(f"attack: {VALUES} p-values are more than the false alarm rate was worked out for")
SIZE = 1 << 12 if SHORT else 1 << 15
tell("a program with PSN 0, as NCCL and UCX", [0] * SIZE, "none: PSN 0", "succeeded", predicted=True, note="predicted: 1 guess")
tell("a program with a constant PSN", [secrets.randbits(24)] * SIZE, "none: a constant", "succeeded", "one PSN", True, "predicted: 1 guess")
DRAWN, SAID = glibc_rand(SIZE), predict_rand(SIZE)
tell("a program that draws as gloo", DRAWN, "rand() & 0xffffff, never seeded", "succeeded", "nothing", DRAWN == SAID,
     f"{sum(one == other for one, other in zip(DRAWN, SAID))} of {SIZE} predicted without having seen any")
tell("programs that seed as perftest, one after the other", [seeded(*start) for start in many_starts(SIZE)], "lrand48 seeded by pid * time", "succeeded")
seeded_by_one(SIZE)
predict_pingpongs(4 if SHORT else 16)
predict_more(8)
tell("a program with RAND | 1", [secrets.randbits(24) | 1 for _ in range(SIZE)], "23 random bits", "succeeded", note="half as many to guess")
LAB.end()
