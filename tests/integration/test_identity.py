# SPDX-License-Identifier: Apache-2.0
"""The name in a client's certificate decides whether it is let in, how many such clients, and their region, rights and messages."""
import time

import protocol
import pytest
from conftest import SECURDMA, STEP, Client, Process, client_args, connect, connect_json, is_let_in, is_refused, resources, run, serve_args, wait_until

ONE, TWO = "client one", "client two"


# ---- who is let in -----------------------------------------------------------------------------------------------------


def test_listed_name_is_let_in_and_a_stranger_is_not(certs, serve):
    server = serve(f"[server]\nonly-listed-identities = yes\n[identity {ONE}]\n")
    is_let_in(certs, server)
    refused = is_refused(certs, server, "serves listed names only", cert="client2")
    assert refused["reject"]["retry_after_ms"] == 0
    assert server.wait_status(connected=0)["rejected"] == 1
    event = server.events("client.not_connected")[-1]
    assert event["name"] == TWO and event["reason"] == "refused" and event["limit"] == "unlisted" and event["security"] is True


def test_flag_means_the_same_as_the_key(certs, serve):
    server = serve(f"[identity {TWO}]\n", "--only-listed-identities")
    is_refused(certs, server, "serves listed names only")
    is_let_in(certs, server, cert="client2")


def test_client_without_a_name_is_never_listed(certs, serve):
    server = serve(f"[server]\nonly-listed-identities = yes\n[tls]\ninsecure-anonymous-clients = yes\n[identity {ONE}]\n")
    is_refused(certs, server, "serves listed names only", cert=None)
    is_let_in(certs, server)


def test_empty_list_lets_nobody_in(certs, serve):
    server = serve("[server]\nonly-listed-identities = yes\n")
    server.wait_log("it refuses every client")
    is_refused(certs, server, "serves listed names only")


def test_denied_name_is_refused_and_others_are_not(certs, serve):
    server = serve(f"[identity {ONE}]\ndeny = yes\n", "--metrics", "0")
    is_refused(certs, server, "denies this certificate's name")
    is_let_in(certs, server, cert="client2")
    event = server.events("client.not_connected")[-1]
    assert event["name"] == ONE and event["limit"] == "denied" and event["security"] is True


def test_refused_client_costs_no_place_and_nothing_on_the_device(certs, device, serve):
    server = serve(f"[server]\nmax-clients = 1\nmax-pending = 1\n[identity {ONE}]\ndeny = yes\n")
    idle = resources(device)
    for _ in range(10):
        is_refused(certs, server, "denies")
    assert resources(device) == idle
    is_let_in(certs, server, cert="client2")


def test_refused_client_that_says_nothing_holds_no_place(certs, serve, start):
    server = serve(f"[server]\nmax-pending = 1\n[identity {ONE}]\ndeny = yes\n")
    silent = [start(protocol.open_tls, certs, server.port, STEP) for _ in range(2)]
    server.wait_status(pending=2)
    # The second one makes room: all places are held by such.
    is_let_in(certs, server, cert="client2")
    for channel in silent:
        channel.close()
    server.wait_status(pending=0)


def test_name_among_others_is_not_taken_for_a_listed_one(certs, serve, client_cert):
    server = serve(f"[server]\nonly-listed-identities = yes\n[identity {ONE}]\n[identity plain]\n")
    is_let_in(certs, server, cert=client_cert("odd", subject="/CN=plain"))
    is_refused(certs, server, "serves listed names only", cert=client_cert("odd", subject=f"/CN={ONE}/CN=somebody"))
    is_refused(certs, server, "serves listed names only", cert=client_cert("odd", subject=f"/CN=somebody/CN={ONE}"))
    is_refused(certs, server, "serves listed names only", cert=client_cert("odd", subject="/CN=Client One"))


def test_name_that_shows_alike_is_not_taken_for_a_listed_one(certs, serve, client_cert):
    server = serve("[server]\nonly-listed-identities = yes\n[identity J??rgen]\n")
    is_refused(certs, server, "serves listed names only", cert=client_cert("odd", subject="/CN=Jürgen"))
    is_let_in(certs, server, cert=client_cert("odd", subject="/CN=J??rgen"))


# ---- how many ----------------------------------------------------------------------------------------------------------


def test_name_has_its_own_number_of_places(certs, serve, start):
    server = serve(f"[server]\nmax-clients-per-identity = 1\n[identity {TWO}]\nmax-clients = 2\n")
    first = start(Client, certs, server.port)
    is_refused(certs, server, "1 client with this certificate's name", reason=3)
    others = [start(Client, certs, server.port, cert="client2") for _ in range(2)]
    is_refused(certs, server, "2 clients with this certificate's name", reason=3, cert="client2")
    event = server.events("client.not_connected")[-1]
    assert event["limit"] == "identity" and event["security"] is True
    for client in (first, *others):
        client.leave()


@pytest.mark.parametrize("seal", ["off", "required"])
def test_bytes_of_a_name_are_limited(certs, serve, seal):
    """Messages of both names, 200 of 4 KiB; sealed, the region's 64 KiB there and back, too."""
    server = serve(f"[connection]\nseal = {seal}\n[identity {TWO}]\nmax-bytes-per-second = 400K\n")

    def seconds(cert):
        began = time.monotonic()
        client = connect(certs, server.port, "--seal", seal, "--pattern", "abc", "--size", "4000", "--count", "200",
                         cert=cert)
        assert client.returncode == 0, client
        return time.monotonic() - began

    free, limited = seconds("client"), seconds("client2")
    least = 200 * 4000 / (400 << 10) * 0.95
    assert limited > least and limited > free, (free, limited)
    assert limited < 3 * least + 3 * free, (free, limited)


# ---- region, rights, messages ------------------------------------------------------------------------------------------


def test_one_name_has_a_region_of_its_own_and_others_have_the_servers(certs, serve):
    server = serve(f"[connection]\nregion-size = 16K\n[identity {ONE}]\nregion-size = 4K\nregion-access = r\n")
    own = is_let_in(certs, server)
    assert own["peer_region_size"] == 4096
    other = is_let_in(certs, server, cert="client2")
    assert other["peer_region_size"] == 16384
    assert connect(certs, server.port, "-e", "read 4095 1").returncode == 0
    denied = connect(certs, server.port, "-e", "write 0 x")
    assert denied.returncode == 1 and "write" in denied.stderr, denied
    beyond = connect(certs, server.port, "-e", "read 4096 1")
    assert beyond.returncode == 1, beyond
    assert connect(certs, server.port, "-e", "write 16383 x; read 16383 1", cert="client2").returncode == 0


def test_name_can_have_no_region_at_all(certs, serve):
    server = serve(f"[identity {ONE}]\nregion-size = 0\n")
    assert is_let_in(certs, server)["peer_region_size"] == 0
    assert is_let_in(certs, server, cert="client2")["peer_region_size"] == 65536


def test_device_refuses_what_the_name_may_not(probe):
    probe("identity-region")


@pytest.mark.parametrize("size, client, agreed", [("1K", "4K", 1024), ("64K", "64K", 65536), ("64K", "2K", 2048)])
def test_message_size_of_a_name(certs, serve, size, client, agreed):
    server = serve(f"[identity {ONE}]\nmessage-size = {size}\n")
    answer = connect_json(certs, server.port, "--message-size", client, "--pattern", "abc", "--count", "5")
    assert answer["code"] == 0 and answer["message_size"] == agreed, answer
    assert is_let_in(certs, server, cert="client2")["message_size"] == 4096


# ---- reload ------------------------------------------------------------------------------------------------------------

ONLY = "[server]\nonly-listed-identities = yes\n"


def test_name_can_be_added(certs, serve):
    server = serve(f"{ONLY}[identity {ONE}]\n")
    is_refused(certs, server, "listed", cert="client2")
    assert "identities: 2" in server.reload(f"{ONLY}[identity {ONE}]\n[identity {TWO}]\n")["message"]
    is_let_in(certs, server, cert="client2")
    is_let_in(certs, server)


@pytest.mark.parametrize("text, word", [(f"{ONLY}[identity {TWO}]\n", "serves listed names only"),
                                        (f"[identity {ONE}]\ndeny = yes\n", "denies this certificate's name")])
def test_name_that_is_taken_out_or_denied_is_gone_and_does_not_come_again(certs, serve, start, text, word):
    server = serve(f"{ONLY}[identity {ONE}]\n[identity {TWO}]\n")
    gone, stays = start(Client, certs, server.port), start(Client, certs, server.port, cert="client2")
    gone.check()
    server.reload(text)
    server.wait_status(connected=1)
    assert gone.wait() == 7
    wait_until(lambda: word in gone.log(), gone.log)
    event = server.events("client.ended")[-1]
    assert event["name"] == ONE and event["cause"] == "server" and event["security"] is True
    assert event["limit"] == ("denied" if "deny" in text else "unlisted") and word in event["reason"]
    is_refused(certs, server, word)
    stays.check()
    stays.leave()


def test_limits_take_effect(certs, serve, start):
    server = serve("[server]\nmax-clients-per-address = 1\nmax-setups-per-second = 1\n")
    first = start(Client, certs, server.port)
    is_refused(certs, server, "from this address", reason=3)
    server.reload("[server]\nmax-clients-per-identity = 1\nmax-pending = 7\n")
    assert "takes effect at the next start" not in server.log()
    is_refused(certs, server, "with this certificate's name", reason=3)
    second = start(Client, certs, server.port, cert="client2")
    server.reload("[server]\nmax-clients = 1\n")
    # Those beyond a lower limit stay.
    first.check()
    second.check()
    is_refused(certs, server, "the server is full", reason=3)
    first.leave()
    second.leave()
    server.wait_status(connected=0)
    is_let_in(certs, server)


def test_region_of_a_name_changes_for_its_next_clients(certs, serve, start):
    server = serve(f"[identity {ONE}]\nregion-size = 4K\n")
    old = start(Client, certs, server.port)
    server.reload(f"[identity {ONE}]\nregion-size = 8K\n")
    old.check()
    old.ask("read 4095 1", "\\x00")
    assert is_let_in(certs, server)["peer_region_size"] == 8192
    old.leave()


BAD = [
    ("max-clients = many\n", 4, "give a number from 0 to 1000000"),
    ("region-size = -1\n", 4, "give a size in bytes"),
    ("region-access = x\n", 4, "give one of rw, r, w, none"),
    ("message-size = 63\n", 4, "from 64 to 1048576"),
    ("deny = perhaps\n", 4, "give one of yes, no"),
    ("depth = 4\n", 4, f"section [identity {TWO}] has no key 'depth'; its keys are: deny, max-clients, region-size, region-access, message-size"),
    (f"[identity {ONE}]\n", 4, f"section [identity {ONE}] exists already, in line 1"),
    ("[identity]\n", 4, "give the identity a name"),
    ("[identity \t ]\nmax-clients = 1\n", 4, "give the identity a name"),
    ("[identity a\u202eb]\n", 4, "bidirectional"),
    ("[identity sha256:12]\n", 4, "64 hexadecimal digits"),
    ('[identity "x]\n', 4, "a quoted name ends with a quote"),
    ('[identity "x" y]\n', 4, "a quoted name ends with a quote"),
    (f'[identity "{ONE}"]\n', 4, f"section [identity {ONE}] exists already, in line 1"),
    ("[identity x\n", 4, "neither [section], 'key = value' nor a comment"),
    ("[identify x]\nmax-clients = 1\n", 5, "sections are: "),
]


@pytest.mark.parametrize("text, line, words", BAD)
def test_bad_section_is_told_with_its_line_and_changes_nothing(certs, serve, start, text, line, words):
    whole = f"[identity {ONE}]\nregion-size = 4K\n[identity {TWO}]\n"
    server = serve(whole)
    old = start(Client, certs, server.port, cert="client2")
    # The first name would be another's, and the second one would be gone.
    server.reload(whole + text + "[server]\nonly-listed-identities = yes\nmax-clients = 2\n", "server.reload_failed")
    assert f"securdma.conf:{line}: " in server.log() and words in server.log(), server.log()
    old.check()
    assert is_let_in(certs, server)["peer_region_size"] == 4096
    assert server.status()["max_clients"] == 10
    old.leave()


def test_bad_certificate_keeps_the_old_identities(certs, serve, start, tmp_path):
    server = serve(f"[identity {TWO}]\ndeny = yes\n")
    old = start(Client, certs, server.port)
    (tmp_path / "none.crl").write_text("nonsense\n", encoding="ascii")
    server.reload(f"[tls]\nclient-crl = {tmp_path / 'none.crl'}\n[identity {ONE}]\ndeny = yes\n", "server.reload_failed")
    old.check()
    is_refused(certs, server, "denies", cert="client2")
    old.leave()


def test_name_that_is_denied_between_welcome_and_ready_is_told_and_goes(certs, serve):
    server = serve("")
    with protocol.welcomed(certs, server, STEP) as channel:
        server.reload(f"[identity {ONE}]\ndeny = yes\n")
        assert server.wait_status(pending=1)["connected"] == 1
        channel.sendall(protocol.frame(protocol.READY))
        kind, _, body = protocol.read_frame(channel)
        assert kind == protocol.DISCONNECT and "denies this certificate's name" in body["text"], body
        channel.sendall(protocol.disconnect(protocol.DISCONNECT_ACK))
        server.wait_status(connected=0, pending=0)


def test_reloads_under_set_up_let_no_denied_client_stay(certs, serve, start):
    """However a set-up and a reload coincide, a client that is denied in the end is not connected."""
    server = serve("")
    for round in range(5):
        clients = [start(Process, *client_args(certs, server.port, "--hold-ms", "60000")) for _ in range(3)]
        server.wait_status(pending=0) if round % 2 else None
        server.reload(f"[identity {ONE}]\ndeny = yes\n")
        codes = [client.wait() for client in clients]
        assert set(codes) <= {5, 7}, codes
        server.wait_status(connected=0, pending=0)
        server.reload("")
    is_let_in(certs, server)


# ---- the file ----------------------------------------------------------------------------------------------------------


def check(tmp_path, text):
    path = tmp_path / "any.conf"
    path.write_text(text, encoding="utf-8")
    return run(SECURDMA, "version", "--config", path)


def test_other_commands_accept_the_sections(certs, serve, tmp_path):
    server = serve(f"[identity {ONE}]\nmax-clients = 3\n")
    assert connect(certs, server.port, "--config", tmp_path / "securdma.conf", "-e", "send x").returncode == 0
    bench = run(SECURDMA, "bench", "--only", "setup", "--connections", "3", *client_args(certs, server.port, "--config", tmp_path / "securdma.conf")[2:])
    assert bench.returncode == 0, bench


def test_long_and_odd_names_are_taken_whole(certs, tmp_path):
    name = "x" * 180
    assert check(tmp_path, f"[identity {name}a]\n[identity {name}b]\nmax-clients = 1\n").returncode == 0
    assert "exists already" in check(tmp_path, f"[identity {name}]\n[identity {name}]\n").stderr
    assert check(tmp_path, "\ufeff[identity a;b#c=d:e]\n  [ identity x]\nfoo = 1\n").stderr.count("no section") == 1
    assert check(tmp_path, "[identity x]\nmax-clients = 1\0 + 1\n").stderr.count(":2: the line has a NUL byte") == 1
    assert check(tmp_path, "[identity  two  words  ]\n[identity two  words]\n").stderr.count("exists already") == 1


def test_thousands_of_names(certs, serve, tmp_path):
    server = serve(ONLY + "".join(f"[identity host-{i}]\nmax-clients = {i % 5}\n" for i in range(5000)) + f"[identity {ONE}]\n")
    is_let_in(certs, server)
    is_refused(certs, server, "listed", cert="client2")
    assert "identities: 1" in server.reload(f"{ONLY}[identity {TWO}]\n")["message"]
    is_refused(certs, server, "listed")


# ---- memory ------------------------------------------------------------------------------------------------------------


def test_memory_of_one_name_counts_as_often_as_it_may_come(certs, serve):
    server = serve(f"[identity {ONE}]\nregion-size = 4K\n")
    big = f"[identity {ONE}]\nregion-size = 1024G\nmax-clients = 1\n"
    said = server.reload(big, "server.reload_failed")["message"]
    assert "at up to" in said and "KiB each need" in said and "the server keeps all old values" in said
    assert is_let_in(certs, server)["peer_region_size"] == 4096
    server.reload(big + "deny = yes\n")
    is_refused(certs, server, "denies")
