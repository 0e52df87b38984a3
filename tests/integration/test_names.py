# SPDX-License-Identifier: Apache-2.0
"""Who a client is: names of every kind and encoding in its certificate, or its key; what counts, is listed, denied and shown."""
import json
import subprocess

import pytest
from conftest import SECURDMA, Client, is_let_in, is_refused, run, serve_args, wait_until
from pki import openssl

SPIFFE = "spiffe://prod.example/ns/db/sa/writer"


def wait_clients(server, count):
    """The status's clients, once so many are there; one in set-up has its place before it is shown."""
    return wait_until(lambda: (lambda found: found if len(found) == count else None)(server.status()["clients"]), f"{count} clients")


def pin(cert):
    return run(SECURDMA, "cert", "pin", cert + ".crt").stdout.strip()


# ---- where the name comes from -----------------------------------------------------------------------------------------


def test_spiffe_identity_can_be_listed(certs, serve, client_cert):
    server = serve(f'[server]\nonly-listed-identities = yes\n[identity "{SPIFFE}"]\nregion-size = 4K\n')
    assert is_let_in(certs, server, client_cert("svid", "URI:" + SPIFFE))["peer_region_size"] == 4096
    is_refused(certs, server, "listed", client_cert("other", "URI:" + SPIFFE + "2"))
    is_refused(certs, server, "listed", client_cert("pretender", subject="/CN=" + SPIFFE.replace("/", "\\/")))
    assert server.events("client.connected")[0]["name"] == SPIFFE


@pytest.mark.parametrize("order, name", [(None, "alice"), ("uri", SPIFFE), ("email,cn", "a@example.com"), ("dns", "host.example.com"), ("pin", None)])
@pytest.mark.parametrize("by_flag", [False, True])
def test_source_of_the_name_is_configured(certs, serve, client_cert, order, name, by_flag):
    cert = client_cert("full", f"URI:{SPIFFE},email:a@example.com,DNS:Host.Example.com", "/CN=alice")
    listed = f'[identity "{name or pin(cert)}"]\n'
    text = "[server]\nonly-listed-identities = yes\n" + listed
    server = serve(text, "--identity-from", order) if by_flag and order else serve((f"[tls]\nidentity-from = {order}\n" if order else "") + text)
    is_let_in(certs, server, cert)
    event = server.events("client.connected")[0]
    assert event["name"] == (name or pin(cert)) and event["pin"] == pin(cert)
    assert event["names"] == f"cn:alice, uri:{SPIFFE}, email:a@example.com, dns:host.example.com"
    # Another order, from now on.
    other = "uri" if order != "uri" else "dns"
    server.reload(f"[tls]\nidentity-from = {other}\n" + text) if not by_flag else None
    if not by_flag:
        is_refused(certs, server, "listed", cert)


def test_order_that_is_none_is_refused_at_the_start(certs, device):
    answer = run(*serve_args(certs, device, "--identity-from", "cn,upn"))
    assert answer.returncode == 2 and "'upn' is not a kind of name; give cn, uri, email, dns or pin" in answer.stderr, answer


# ---- nobody escapes ----------------------------------------------------------------------------------------------------


def test_client_without_any_name_goes_by_its_key_and_is_counted(certs, serve, client_cert, start):
    bare, other = client_cert("bare"), client_cert("other")
    server = serve("[server]\nmax-clients-per-identity = 1\n")
    first = start(Client, certs, server.port, cert=bare)
    is_refused(certs, server, "the server has 1 client with this certificate's name, which is", bare, reason=3)
    is_let_in(certs, server, other)
    clients = wait_clients(server, 1)
    assert clients[0]["name"] == clients[0]["pin"] == pin(bare)
    first.leave()


def test_key_can_be_listed_and_denied(certs, serve, client_cert):
    bare, other = client_cert("bare"), client_cert("other")
    server = serve(f"[server]\nonly-listed-identities = yes\n[identity {pin(bare).upper()}]\n" .replace("SHA256", "sha256"))
    is_let_in(certs, server, bare)
    is_refused(certs, server, "listed", other)
    # Also that of a certificate which goes by a name.
    server.reload(f"[identity {pin(bare)}]\ndeny = yes\n[identity {pin(certs.cert('client')[:-4])}]\ndeny = yes\n")
    is_refused(certs, server, "denies", bare)
    is_refused(certs, server, "denies", "client")
    is_let_in(certs, server, other)


def test_clients_without_a_certificate_are_one_identity(certs, serve, start):
    server = serve("[tls]\ninsecure-anonymous-clients = yes\n[server]\nmax-clients-per-identity = 2\n")
    clients = [start(Client, certs, server.port, cert=None) for _ in range(2)]
    server.wait_status(connected=2)
    is_refused(certs, server, "the server has 2 clients without a certificate, which is", None, reason=3)
    is_let_in(certs, server, "client")
    for each in clients:
        each.leave()


@pytest.mark.parametrize("names, subject", [("DNS:evil.example", "/CN=good"), (f"URI:{SPIFFE},email:evil@example.com", "/CN=good"),
                                            ("", "/CN=good/CN=evil"), ("", "/CN=evil/CN=good")])
def test_any_name_of_a_certificate_can_be_denied(certs, serve, client_cert, names, subject):
    server = serve("".join(f"[identity {name}]\ndeny = yes\n" for name in ("evil.example", "evil@example.com", "evil")))
    is_refused(certs, server, "denies this certificate's name", client_cert("evil", names, subject))
    is_let_in(certs, server, client_cert("good", "DNS:fine.example", "/CN=good"))


@pytest.mark.parametrize("names, subject", [("", "/CN=alice/CN=bob"), (f"URI:{SPIFFE},URI:{SPIFFE}2", "/"), ("DNS:a.example,DNS:b.example", "/"),
                                            ("", "/CN=ali\u202ece"), ("DNS:*.example", "/")])
def test_names_that_decide_nothing_leave_the_key(certs, serve, client_cert, names, subject):
    cert = client_cert("odd", names, subject)
    server = serve(f"[server]\nonly-listed-identities = yes\n[identity {pin(cert)}]\n[identity alice]\n[identity {SPIFFE}]\n")
    is_let_in(certs, server, cert)
    assert server.events("client.connected")[0]["name"] == pin(cert)


# ---- what is shown -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["Jürgen Groß", "中文客户", "алиса", "a;b#c \"d\" \\ e]f"])
def test_names_in_utf8_are_shown_whole_and_can_be_listed(certs, serve, client_cert, start, name, tmp_path):
    # \ is the subject's own sign for what follows.
    cert = client_cert("utf8", subject="/CN=" + name.replace("\\", "\\\\"))
    quoted = name.replace("\\", "\\\\").replace('"', '\\"')
    socket = tmp_path / "control"
    server = serve(f'[server]\nonly-listed-identities = yes\n[identity "{quoted}"]\n', "--control", socket)
    one = start(Client, certs, server.port, cert=cert)
    assert wait_clients(server, 1)[0]["name"] == name
    table = run(SECURDMA, "status", "--control", socket)
    assert f" {name} " in table.stdout, table
    assert json.loads(run(SECURDMA, "status", "--json", "--control", socket).stdout)["clients"][0]["name"] == name
    assert server.events("client.connected")[0]["name"] == name
    one.leave()


def test_encodings_of_one_name_are_one_name(certs, serve, pki, tmp_path):
    """BMPString, T61String and UTF8String; openssl req chooses by string_mask."""
    server = serve('[server]\nonly-listed-identities = yes\n[identity Jürgen]\n')
    for mask in ("MASK:0x800", "MASK:0x4", "utf8only"):
        config = tmp_path / "req.cnf"
        config.write_text(f"[req]\ndistinguished_name=d\nstring_mask={mask}\nutf8=yes\nprompt=no\n[d]\nCN=Jürgen\n", encoding="utf-8")
        pki.client("own", (certs.cert("ca"), certs.key("ca")))
        openssl("req", "-new", "-utf8", "-config", config, "-key", pki("own.key"), "-out", pki("request.csr"))
        openssl("x509", "-req", "-in", pki("request.csr"), "-CA", certs.cert("ca"), "-CAkey", certs.key("ca"), "-set_serial", "5", "-days", "2",
                "-extfile", pki("ext.cnf"), "-out", pki("own.crt"))
        kind = {"MASK:0x800": "BMPSTRING", "MASK:0x4": "T61STRING", "utf8only": "UTF8STRING"}[mask]
        assert kind in openssl("asn1parse", "-in", pki("own.crt")), mask
        is_let_in(certs, server, pki("own"))


def test_table_has_room_for_the_longest_name(certs, serve, client_cert, start, tmp_path):
    long, socket = "spiffe://" + "x" * 200, tmp_path / "control"
    server = serve("", "--control", socket)
    clients = [start(Client, certs, server.port, cert=client_cert("long", "URI:" + long)), start(Client, certs, server.port)]
    wait_clients(server, 2)
    rows = run(SECURDMA, "status", "--control", socket).stdout.splitlines()[1:]
    assert [long in row for row in rows] == [False, True, False]
    # What follows the names stands in one column.
    assert len({row.index(word) for row, word in zip(rows, ("address", certs.host, certs.host))}) == 1, rows
    for each in clients:
        each.leave()


# ---- for programs ------------------------------------------------------------------------------------------------------


def test_program_reads_the_peers_certificate(certs, client_cert, probe):
    cert = client_cert("full", f"URI:{SPIFFE},email:a@example.com,DNS:Host.Example.com,IP:192.0.2.1", "/CN=Jürgen/CN=x\ny")
    facts = probe("peer-cert", cert, "")
    der = subprocess.run(["openssl", "x509", "-in", cert + ".crt", "-outform", "DER"], check=True, capture_output=True).stdout
    assert bytes.fromhex(facts["der"]) == der
    assert facts["pin"] == facts["peer_pin"] == pin(cert)
    assert facts["identity"] == facts["peer_name"] == SPIFFE
    assert facts["names"] == [["cn", "Jürgen", True], ["cn", "x?y", False], ["uri", SPIFFE, True], ["email", "a@example.com", True],
                              ["dns", "host.example.com", True], ["ip", "192.0.2.1", True]]
    assert probe("peer-cert", cert, "dns")["identity"] == "host.example.com"
    assert facts["tls_group"] in ("x25519", "X25519MLKEM768")


def test_program_is_told_that_there_is_no_certificate(probe):
    facts = probe("peer-cert", "", "")
    assert facts["peer_name"] == "" and facts["peer_pin"] == "" and "der" not in facts
