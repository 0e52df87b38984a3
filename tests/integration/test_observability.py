# SPDX-License-Identifier: Apache-2.0
"""What an operator sees from outside: the log as JSON, and the metrics."""
import contextlib
import datetime
import http.client
import json
import re
import signal
import socket
import ssl
import time
import urllib.error
import urllib.request

import protocol
import pytest
from conftest import SCALE, SECURDMA, STEP, Client, Process, Server, client_args, connect, connect_json, run, serve_args, wait_until

LEVELS = {"error", "warning", "info", "debug"}


# ---- the log -----------------------------------------------------------------------------------------------------------


def events(server):
    """All of the log so far. Each line must be an object with what every one has; a line that is being written is left out."""
    records = []
    for line in server.log().splitlines(keepends=True):
        if not line.endswith("\n"):
            break
        record = json.loads(line)
        assert list(record)[:3] == ["time", "level", "event"], line
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", record["time"]), line
        age = datetime.datetime.now(datetime.timezone.utc) - datetime.datetime.fromisoformat(record["time"].replace("Z", "+00:00"))
        assert abs(age.total_seconds()) < 600, line
        assert record["level"] in LEVELS and isinstance(record["message"], str), line
        assert record.get("security", True) is True, line
        assert line.isascii() and all(isinstance(value, (str, int)) for value in record.values()), line
        records.append(record)
    return records


def wait_event(server, event, /, **fields):
    """Waits for an event with these fields; returns it."""
    def found():
        return next((record for record in events(server) if record["event"] == event and
                     all(record.get(key) == value for key, value in fields.items())), None)

    return wait_until(found, lambda: f"{event} {fields} in\n{server.log()}")


@pytest.fixture
def logging(certs, device, start):
    """A server that logs JSON; it must end in order, and every line it said must have the form."""
    server = start(Server, certs, device, "--log-format", "json", "--max-clients", "3", "--max-clients-per-identity", "2",
                   "--setup-timeout-ms", str(int(1500 * SCALE)))
    yield server
    server.stop()
    events(server)


def test_log_tells_of_a_client_that_comes_and_goes(logging, certs):
    answer = connect_json(certs, logging.port, "--pattern", "abc", "--count", "7", "--size", "100")
    assert answer["code"] == 0, answer
    came = wait_event(logging, "client.connected")
    gone = wait_event(logging, "client.disconnected")
    assert came["level"] == gone["level"] == "info" and "security" not in came and "security" not in gone
    assert came["client_id"] == gone["client_id"] == answer["client_id"]
    assert came["name"] == gone["name"] == "client one" and came["address"] == gone["address"]
    assert re.fullmatch(re.escape(certs.host) + r":\d+", came["address"])
    assert came["peer_qpn"] == answer["qpn"] and came["tls_version"] == "TLSv1.3"
    assert 0 < came["tls_us"] + came["exchange_us"] + came["qp_us"] <= came["setup_us"]
    assert came["message"].startswith(f"client {answer['client_id']}: connected from {came['address']} as 'client one', QPN 0x")
    assert (gone["cause"], gone["messages_received"], gone["messages_sent"]) == ("in_order", 7, 7)
    assert (gone["bytes_received"], gone["bytes_sent"]) == (700, 756) and gone["duration_ms"] >= 0
    assert "error" not in gone and "psn" not in json.dumps([came, gone]).lower()


def test_log_tells_of_a_killed_client(logging, certs, start):
    client = start(Client, certs, logging.port)
    client.check()
    client.signal(signal.SIGKILL)
    client.wait()
    lost = wait_event(logging, "client.lost", client_id=client.id)
    assert lost["level"] == "warning" and lost["name"] == "client one" and lost["error"] in lost["message"]
    assert lost["cause"] in ("lost", "verbs", "tls") and lost["messages_received"] == 1 and "security" not in lost


def test_log_tells_who_was_rejected_and_why(logging, certs, start):
    clients = [start(Client, certs, logging.port, cert=cert) for cert in ("client", "client", "client2")]
    assert connect_json(certs, logging.port, "-e", "stat", cert="client2")["reject"]["reason"] == 3
    full = wait_event(logging, "client.not_connected", name="client two")
    assert (full["phase"], full["result"], full["reason"]) == ("hello", "rejected", "full")
    assert full["level"] == "warning" and "security" not in full and "limit" not in full
    assert full["message"] == f"client at {full['address']}: not connected: {full['error']}"
    clients.pop().leave()
    # A name with more clients than it may have deserves a look.
    assert connect_json(certs, logging.port, "-e", "stat")["reject"]["reason"] == 3
    limited = wait_event(logging, "client.not_connected", name="client one")
    assert (limited["reason"], limited["limit"], limited["security"]) == ("full", "identity", True)
    for client in clients:
        client.leave()


@pytest.mark.parametrize("cert, said", [("other-client", ""), ("expired-client", "expired"), (None, "showed no certificate")])
def test_bad_certificate_is_a_security_event(logging, certs, cert, said):
    # By TLS alone: `connect` would not begin with a certificate that has expired.
    with contextlib.suppress(ssl.SSLError, EOFError, ConnectionError):
        with protocol.open_tls(certs, logging.port, STEP, protocol.client_context(certs, cert)) as channel:
            protocol.read_exactly(channel, 1)
    event = wait_event(logging, "client.not_connected")
    assert (event["phase"], event["result"], event["reason"]) == ("tls", "failed", "certificate")
    assert event["security"] is True and event["name"] == "" and said in event["error"]


@pytest.mark.parametrize("reason, said", [
    ("address", protocol.hello(gid=protocol.gid("198.51.100.1"))),
    ("malformed", protocol.hello(gid=protocol.gid("198.51.100.1"), depth=0)),
    ("malformed", b"GET / HTTP/1.1\r\n\r\n"),
])
def test_bad_hello_is_a_security_event(logging, certs, reason, said):
    with protocol.open_tls(certs, logging.port, STEP) as channel:
        channel.sendall(said)
        assert protocol.read_frame(channel)[0] == protocol.REJECT
    event = wait_event(logging, "client.not_connected")
    assert (event["phase"], event["result"], event["reason"]) == ("hello", "rejected", reason)
    assert event["security"] is True and event["name"] == "client one"


def test_connected_client_that_breaks_the_rules_is_a_security_event(logging, certs):
    with protocol.connected(certs, logging, STEP) as channel:
        wait_event(logging, "client.connected", client_id=1)
        channel.sendall(protocol.frame(protocol.READY))
        lost = wait_event(logging, "client.lost", client_id=1)
    assert (lost["cause"], lost["security"], lost["level"]) == ("protocol", True, "warning")
    assert lost["error"] in lost["message"] and "unexpected frame" in lost["error"]


def test_silence_and_noise_are_failures_with_their_phase(logging, certs):
    with socket.create_connection((certs.host, logging.port), STEP) as noisy:
        noisy.sendall(b"GET / HTTP/1.1\r\n\r\n")
        event = wait_event(logging, "client.not_connected", reason="tls")
        assert event["phase"] == "tls" and "security" not in event
    with socket.create_connection((certs.host, logging.port), STEP), protocol.open_tls(certs, logging.port, STEP):
        assert "security" not in wait_event(logging, "client.not_connected", phase="tls", reason="timeout")
        assert wait_event(logging, "client.not_connected", phase="hello", reason="timeout")["name"] == "client one"


def test_name_of_a_client_cannot_forge_a_line(certs, device, start, client_cert):
    forger = client_cert("forger", subject='/CN=x\n{"event":"client.connected"}\x1b[2J')
    server = start(Server, certs, device, "--log-format", "json")
    assert connect(certs, server.port, "-e", "send x", cert=forger).returncode == 0
    assert wait_event(server, "client.disconnected")["name"].startswith("sha256:")
    assert wait_event(server, "client.connected")["names"] == 'cn:x?{"event":"client.connected"}?[2J'
    server.stop()
    assert [record["event"] for record in events(server)] == ["client.connected", "client.disconnected"]


def test_failure_to_start_is_an_event_too(certs, device):
    result = run(SECURDMA, "serve", "--log-format", "json", "--cert", "/nonexistent", "--key", "/nonexistent", "--client-ca",
                 "/nonexistent")
    assert result.returncode == 2
    record = json.loads(result.stderr.splitlines()[-1])
    assert record["event"] == "command.failed" and record["level"] == "error" and "/nonexistent" in record["message"]


def test_log_is_text_unless_told_otherwise(server, certs):
    assert connect(certs, server.port, "-e", "send x").returncode == 0
    line = server.wait_log("client 1: connected from")
    assert re.match(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z securdma: info: client 1: connected from ", line), line


# ---- metrics -----------------------------------------------------------------------------------------------------------

SAMPLE = re.compile(r"([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{(.*)\})? (\S+)")
LABEL = re.compile(r'([a-zA-Z_][a-zA-Z0-9_]*)="([^"\\\n]*)"')


def parse(text):
    """{(name, labels): value} of the text format 0.0.4; what that does not allow, or promtool would object to, fails."""
    values, types, helps, current = {}, {}, {}, None
    assert text.endswith("\n") and "\n\n" not in text and "\r" not in text
    for line in text.splitlines():
        if line.startswith("# HELP "):
            _, _, current, words = line.split(" ", 3)
            assert current not in helps and words, line
            helps[current] = words
            continue
        if line.startswith("# TYPE "):
            _, _, name, kind = line.split(" ")
            assert name == current and name not in types and kind in ("counter", "gauge", "histogram"), line
            types[name] = kind
            continue
        match = SAMPLE.fullmatch(line)
        assert match, line
        name, inside, value = match.groups()
        family = re.sub(r"_(bucket|sum|count)$", "", name) if types[current] == "histogram" else name
        assert family == current and family.startswith("securdma_"), line
        assert (types[family] == "counter") == family.endswith("_total"), line
        labels = tuple(LABEL.findall(inside or ""))
        assert ",".join(f'{key}="{word}"' for key, word in labels) == (inside or ""), line
        assert len(dict(labels)) == len(labels), line
        key = name, tuple(sorted(labels))
        assert key not in values, line
        values[key] = float(value)
        assert values[key] >= 0, line
    assert set(types) == set(helps)
    check_histograms(values, [name for name, kind in types.items() if kind == "histogram"])
    return Metrics(values)


def check_histograms(values, names):
    for name in names:
        series = {}
        for (sample, labels), value in values.items():
            if sample == f"{name}_bucket":
                others = tuple(label for label in labels if label[0] != "le")
                series.setdefault(others, []).append((float(dict(labels)["le"]), value))
        assert series
        for labels, buckets in series.items():
            bounds, counts = zip(*buckets)
            assert list(bounds) == sorted(set(bounds)) and bounds[-1] == float("inf"), (name, bounds)
            assert list(counts) == sorted(counts) and counts[-1] == values[f"{name}_count", labels], (name, counts)
            # No more than if each were at its bucket's bound, and no less than if each were just above the one before.
            each = [count - before for count, before in zip(counts, (0, *counts))]
            assert values[f"{name}_sum", labels] >= sum(count * low for count, low in zip(each, (0, *bounds)))


class Metrics:
    def __init__(self, values):
        self.values = values

    def __call__(self, name, **labels):
        return self.values["securdma_" + name, tuple(sorted(labels.items()))]

    def sum(self, name):
        return sum(value for (sample, _), value in self.values.items() if sample == "securdma_" + name)


class MeteredServer(Server):
    def __init__(self, certs, device, *args, where="0"):
        super().__init__(certs, device, "--metrics", where, *args)
        self.metrics_port = json.loads(self.lines[0])["metrics_port"]

    def scrape(self, host="127.0.0.1"):
        with urllib.request.urlopen(f"http://{host}:{self.metrics_port}/metrics", timeout=STEP) as answer:
            assert answer.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
            return parse(answer.read().decode("ascii"))

    def wait_metrics(self, condition):
        last = None

        def reached():
            nonlocal last
            last = self.scrape()
            return last if condition(last) else None

        return wait_until(reached, lambda: f"the metrics are\n{last and last.values}\n{self.log()}")

    def ask(self, method, path, body=None):
        connection = http.client.HTTPConnection("127.0.0.1", self.metrics_port, timeout=STEP)
        with contextlib.closing(connection):
            connection.request(method, path, body)
            answer = connection.getresponse()
            return answer.status, answer.headers, answer.read()


@pytest.fixture
def metered(certs, device, start):
    server = start(MeteredServer, certs, device, "--max-clients", "3")
    yield server
    server.stop()


def test_counters_begin_at_zero(metered, certs):
    m = metered.scrape()
    assert m("max_clients") == 3 and m("workers") >= 1 and m("device_failed") == 0
    for name in ("clients", "setups_pending", "worker_clients", "setups_accepted_total", "setups_rejected_total",
                 "setups_failed_total", "setup_duration_seconds_count", "messages_total", "message_bytes_total",
                 "rdma_bytes_total", "clients_ended_total", "completion_errors_total"):
        assert m.sum(name) == 0, name
    version = run(SECURDMA, "version").stdout.split()[1].rstrip(",")
    assert m("build_info", version=version) == 1
    shown = json.loads(run(SECURDMA, "cert", "show", "--json", certs.cert("server")).stdout)
    assert abs(m("certificate_expiry_timestamp_seconds") - (time.time() + shown["days_left"] * 86400)) < 2 * 86400


def test_counters_move_as_clients_come_talk_and_go(metered, certs, start):
    client = start(Client, certs, metered.port)
    m = metered.wait_metrics(lambda m: m("clients") == 1 and m("setups_pending") == 0)
    assert m.sum("worker_clients") == 1 and m("setups_accepted_total") == 1 and m.sum("clients_ended_total") == 0
    client.ask("send hello", f"client {client.id}: hello")
    # Live clients count, before they go and after.
    m = metered.wait_metrics(lambda m: m("messages_total", direction="received") == 1)
    assert m("messages_total", direction="sent") == 1
    assert (m("message_bytes_total", direction="received"), m("message_bytes_total", direction="sent")) == (5, 13)
    assert connect(certs, metered.port, "--pattern", "abc", "--count", "20", "--size", "50", cert="client2").returncode == 0
    m = metered.wait_metrics(lambda m: m("clients_ended_total", cause="in_order") == 1)
    assert m("messages_total", direction="received") == m("messages_total", direction="sent") == 21
    assert m("message_bytes_total", direction="received") == 5 + 20 * 50
    client.leave()
    m = metered.wait_metrics(lambda m: m("clients_ended_total", cause="in_order") == 2)
    assert m("messages_total", direction="sent") == 21 and m("message_bytes_total", direction="sent") == 13 + 20 * 58
    m = metered.wait_metrics(lambda m: m("clients") == 0)
    assert m.sum("worker_clients") == 0 and m("setups_accepted_total") == 2 and m.sum("clients_ended_total") == 2


def test_killed_client_is_counted_with_what_it_sent(metered, certs, start):
    client = start(Client, certs, metered.port)
    for _ in range(3):
        client.ask("send 12345", f"client {client.id}: 12345")
    client.signal(signal.SIGKILL)
    client.wait()
    m = metered.wait_metrics(lambda m: m.sum("clients_ended_total") == 1 and m("clients") == 0)
    assert m("clients_ended_total", cause="in_order") == 0
    assert m("messages_total", direction="received") == 3 and m("message_bytes_total", direction="received") == 15


def test_end_of_a_client_is_counted_by_its_cause(metered, certs):
    with protocol.connected(certs, metered, STEP) as channel:
        metered.wait_metrics(lambda m: m("setups_accepted_total") == 1)
        channel.sendall(protocol.frame(protocol.READY))
        m = metered.wait_metrics(lambda m: m("clients_ended_total", cause="protocol") == 1)
    with protocol.connected(certs, metered, STEP):
        metered.wait_metrics(lambda m: m("setups_accepted_total") == 2)
    m = metered.wait_metrics(lambda m: m("clients_ended_total", cause="lost") == 1)
    assert m.sum("clients_ended_total") == 2 and m.sum("completion_errors_total") == 0


def test_counters_never_fall_while_clients_come_and_go(metered, certs, start):
    talkers = [start(Process, *client_args(certs, metered.port, "--pattern", "xyz", "--count", "100000000")) for _ in range(2)]
    last, seen = {}, 0
    for turn in range(150):
        values = metered.scrape().values
        for key, value in values.items():
            if key[0].endswith(("_total", "_count", "_sum", "_bucket")):
                assert value >= last.get(key, 0), key
        last, seen = values, values["securdma_messages_total", (("direction", "received"),)]
        if turn == 50:
            talkers[0].signal(signal.SIGKILL)
        if turn % 50 == 25:
            assert connect(certs, metered.port, "--pattern", "x", "--count", "2").returncode == 0
    assert seen > 100
    for talker in talkers:
        talker.signal(signal.SIGINT)
        talker.wait()


def test_setups_are_counted_by_how_they_end(metered, certs, start):
    clients = [start(Client, certs, metered.port) for _ in range(3)]
    assert connect(certs, metered.port, "-e", "stat").returncode == 5
    assert connect(certs, metered.port, "-e", "stat", cert="other-client").returncode == 4
    with protocol.open_tls(certs, metered.port, STEP) as channel:
        channel.sendall(protocol.hello(depth=0))
        assert protocol.read_frame(channel)[2]["reason"] == protocol.REASONS["malformed"]
    with protocol.open_tls(certs, metered.port, STEP):
        pass
    m = metered.wait_metrics(lambda m: m.sum("setups_rejected_total") + m.sum("setups_failed_total") == 4)
    assert m("setups_rejected_total", reason="full") == m("setups_rejected_total", reason="malformed") == 1
    assert m("setups_failed_total", reason="certificate") == m("setups_failed_total", reason="lost") == 1
    assert m("setups_accepted_total") == 3
    for phase in ("tls", "exchange", "qp", "total"):
        assert m("setup_duration_seconds_count", phase=phase) == 3
        assert 0 < m("setup_duration_seconds_sum", phase=phase) <= m("setup_duration_seconds_sum", phase="total")
    status = metered.status()
    assert (status["accepted"], status["rejected"], status["failed"]) == (3, 2, 2)
    for client in clients:
        client.leave()


def test_set_up_that_makes_room_is_an_eviction(certs, device, start):
    server = start(MeteredServer, certs, device, "--max-pending", "2", "--log-format", "json")
    silent = [socket.create_connection((certs.host, server.port), STEP) for _ in range(8)]
    server.wait_metrics(lambda m: m("setups_failed_total", reason="evicted") >= 2)
    event = wait_event(server, "client.not_connected", reason="evicted")
    assert (event["phase"], event["result"], event["security"]) == ("tls", "failed", True)
    for sock in silent:
        sock.close()
    server.wait_metrics(lambda m: m("setups_pending") == 0)
    server.stop()


# ---- HTTP --------------------------------------------------------------------------------------------------------------


def test_only_get_and_head_and_only_metrics(metered):
    for path in ("/", "/metrics/", "/metricsx", "/..", "/%6Detrics/x"):
        assert metered.ask("GET", path)[0] == 404, path
    for method in ("POST", "PUT", "DELETE", "OPTIONS", "PATCH", "BREW"):
        for path in ("/metrics", "/ready"):
            status, headers, _ = metered.ask(method, path, b"x" * 100 if method in ("POST", "PUT") else None)
            assert status == 405 and headers["Allow"] == "GET, HEAD", (method, path)
    assert metered.ask("POST", "/else")[0] == 404
    assert metered.ask("GET", "/metrics?a=b")[0] == 200
    metered.scrape()


@pytest.mark.parametrize("path, status", [("/metrics", 200), ("/ready", 200), ("/", 404), ("/else", 404)])
def test_head_is_get_without_the_body(metered, path, status):
    """HAProxy's `httpchk HEAD /ready` asks so."""
    _, expected, body = metered.ask("GET", path)
    got, headers, nothing = metered.ask("HEAD", path)
    assert got == status and nothing == b"" and body != b""
    assert headers["Content-Type"] == expected["Content-Type"]
    assert path == "/metrics" or headers["Content-Length"] == expected["Content-Length"] == str(len(body))
    with socket.create_connection(("127.0.0.1", metered.metrics_port), STEP) as sock:
        sock.sendall(f"HEAD {path} HTTP/1.0\r\n\r\n".encode())
        sock.settimeout(STEP)
        raw = b"".join(iter(lambda: sock.recv(1 << 16), b""))
    assert raw.endswith(b"\r\n\r\n") and f" {status} ".encode() in raw.splitlines()[0]


@pytest.mark.parametrize("said", [b"\r\n\r\n", b"GET\r\n\r\n", b"\x16\x03\x01\x02\x00\x01\x00", b"GET /metrics HTTP/9.9\r\n\r\n",
                                  b"GET /" + b"a" * 100000 + b" HTTP/1.1\r\n\r\n",
                                  b"GET /metrics HTTP/1.1\r\nx: " + b"y" * 100000 + b"\r\n\r\n",
                                  b"GET /metrics HTTP/1.1\r\nContent-Length: -1\r\n\r\n"], ids=range(7))
def test_bad_request_harms_nobody(metered, said):
    with socket.create_connection(("127.0.0.1", metered.metrics_port), STEP) as sock:
        with contextlib.suppress(OSError):
            sock.sendall(said)
            sock.shutdown(socket.SHUT_WR)
        with contextlib.suppress(OSError):
            assert b"securdma_clients" not in sock.recv(1 << 16)
    metered.scrape()


def test_idle_connections_hold_up_neither_scrapers_nor_clients_and_end(metered, certs):
    fds = metered.fds()
    idle = [socket.create_connection(("127.0.0.1", metered.metrics_port), STEP) for _ in range(100)]
    begin = time.monotonic()
    for sock in idle[:50]:
        sock.sendall(b"GET /metr")
    assert connect(certs, metered.port, "--pattern", "abc", "--count", "5").returncode == 0
    metered.scrape()
    assert time.monotonic() - begin < 5 * SCALE
    for sock in idle:
        sock.settimeout(STEP)
        with contextlib.suppress(ConnectionResetError):
            sock.recv(1000)
        sock.close()
    assert time.monotonic() - begin < 12 * SCALE
    wait_until(lambda: metered.fds() == fds, lambda: f"{fds} descriptors; there are {metered.fds()}")


def test_flood_of_connections_is_bounded_and_passes(metered, certs):
    fds = metered.fds()
    with contextlib.ExitStack() as idle:
        for _ in range(250):
            idle.enter_context(socket.create_connection(("127.0.0.1", metered.metrics_port), STEP))
        wait_until(lambda: metered.fds() > fds + 100, "the connections were taken")
        assert metered.fds() <= fds + 140
        assert connect(certs, metered.port, "-e", "send x").returncode == 0
    metered.wait_metrics(lambda m: m("setups_accepted_total") == 1)
    wait_until(lambda: metered.fds() == fds, lambda: f"{fds} descriptors; there are {metered.fds()}")


def test_no_port_is_open_unless_asked_for(server):
    assert "metrics_port" not in json.loads(server.lines[0])


def test_metrics_listen_on_loopback_unless_an_address_is_given(certs, device, start):
    other = "127.0.0.2"
    server = start(MeteredServer, certs, device, where=":0")
    server.scrape()
    with pytest.raises(urllib.error.URLError):
        server.scrape(other)
    server.stop()
    for where, host in ((f"{other}:0", other), ("[::1]:0", "[::1]")):
        server = start(MeteredServer, certs, device, where=where)
        server.scrape(host)
        server.stop()


def test_metrics_port_that_is_taken_is_said(certs, device):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        result = run(*serve_args(certs, device, "--metrics", port))
    assert result.returncode == 1 and result.stdout == ""
    assert f"metrics: cannot listen on 127.0.0.1 port {port}: Address already in use" in result.stderr


@pytest.mark.parametrize("where, code", [("x", 2), ("127.0.0.1", 2), ("127.0.0.1:", 2), ("127.0.0.1:65536", 2), ("::1:9100", 2),
                                         ("[::1:9100", 2), (":-1", 2), ("127.0.0.1:http", 2), ("192.0.2.1:0", 1)])
def test_metrics_address_that_is_none_is_said(certs, device, where, code):
    result = run(*serve_args(certs, device, "--metrics", where))
    assert result.returncode == code and "metrics" in result.stderr, result.stderr
