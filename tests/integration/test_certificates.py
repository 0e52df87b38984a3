# SPDX-License-Identifier: Apache-2.0
"""Chains of certificates, revocation lists, own keys, and the names that are typed: the commands, at both ends."""
import subprocess
import time

import pytest
from conftest import SECURDMA, STEP, Server, connect, connect_json, is_let_in, run
from pki import Pki


@pytest.fixture
def pki(tmp_path, certs):
    """A root, an intermediate, and a server's and a client's certificate from it."""
    made = Pki(tmp_path, certs.host)
    made.ca("root")
    made.ca("sub", "root")
    made.ca("other", "root")
    made.server("server", "sub")
    made.client("alice", "sub")
    made.client("bob", "other")
    made.bundle("server-chain", "server", "sub")
    made.bundle("alice-chain", "alice", "sub")
    made.bundle("bob-chain", "bob", "other")
    return made


@pytest.fixture
def serve(certs, device, start, pki):
    def starter(*args, client_ca="root", cert="server-chain"):
        return start(Server, certs, device, *args, cert=pki(cert), client_ca=pki(client_ca))
    return starter


def talk(certs, pki, server, *args, ca="root", cert="alice-chain"):
    return connect(certs, server.port, *args, "-e", "send x", ca=pki(ca), cert=pki(cert))


# ---- revocation --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("trusted", ["root", "sub", "both"])
def test_leaf_of_a_revoked_intermediate_is_refused_by_both_ends(certs, pki, serve, trusted):
    pki.bundle("both", "sub", "root")
    revoked = pki.lists("revoked", pki.list("root", "sub"), pki.list("sub"))
    good = pki.lists("good", pki.list("root", "other"), pki.list("sub"))
    server = serve("--client-crl", revoked, client_ca=trusted)
    refused = talk(certs, pki, server)
    assert refused.returncode == 4 and "revoked" in refused.stderr, refused
    server.wait_log("certificate revoked by its CA ('CN=sub', issued by 'CN=root')")
    server.stop()
    server = serve("--client-crl", good, client_ca=trusted)
    assert talk(certs, pki, server).returncode == 0
    refused = talk(certs, pki, server, "--crl", revoked, ca=trusted)
    assert refused.returncode == 4 and "certificate revoked by its CA ('CN=sub', issued by 'CN=root')" in refused.stderr, refused
    assert talk(certs, pki, server, "--crl", good, ca=trusted).returncode == 0
    server.stop()


@pytest.mark.parametrize("in_file", [False, True])
def test_list_of_each_ca_can_be_required(certs, pki, serve, tmp_path, in_file):
    one = pki.lists("one", pki.list("sub"))
    server = serve("--client-crl", one)
    assert talk(certs, pki, server).returncode == 0
    assert talk(certs, pki, server, "--crl", one).returncode == 0
    config = tmp_path / "require.conf"
    config.write_text("[tls]\ncrl-require-all = yes\n", encoding="ascii")
    require = ["--config", config] if in_file else ["--crl-require-all"]
    refused = talk(certs, pki, server, "--crl", one, *require)
    assert refused.returncode == 4 and "no revocation list of an issuer ('CN=sub', issued by 'CN=root')" in refused.stderr, refused
    # The trusted one itself needs none.
    assert talk(certs, pki, server, "--crl", one, *require, ca="sub").returncode == 0
    server.stop()
    server = serve("--client-crl", one, *require)
    assert talk(certs, pki, server).returncode == 4
    server.wait_log("no revocation list of an issuer")
    server.stop()


@pytest.mark.parametrize("args, words", [
    ([], "cert: give a subcommand: ca, server, client, self-signed, show or pin"), (["banana"], "cert: unknown subcommand 'banana'"),
    (["--days", "3"], "cert: the subcommand goes before its options"), (["show"], "cert show: give the FILE of a certificate"),
    (["show", "--days", "3", "x.crt"], "cert show: there is no option --days"), (["ca", "--name", "x"], "cert ca: there is no option --name"),
    (["ca", "--days"], "cert ca: --days needs a value: N"), (["ca", "--days", "0"], "--days: '0' is not valid; give a number from 1 to 36500"),
    (["ca", "--days=1", "--not-after=2030-01-01T00:00:00Z"], "give either --days or --not-after"),
    (["ca", "--not-after=2030-02-30T00:00:00Z"], "--not-after takes YYYY-MM-DDTHH:MM:SSZ, not '2030-02-30T00:00:00Z'"),
    (["ca", "--out=x", "--cert=y", "--key=z"], "give either --out, or --cert and --key"), (["ca", "x"], "unexpected argument 'x'"),
    (["server"], "give --name, the name or address that clients connect to"), (["server", "--json=yes"], "--json takes no value"),
], ids=lambda value: " ".join(value) if isinstance(value, list) else "")
def test_command_line_that_cannot_be_is_refused(tmp_path, args, words):
    answer = run(SECURDMA, "cert", *args, cwd=tmp_path)
    assert answer.returncode == 2 and words in answer.stderr and not list(tmp_path.iterdir()), answer


# ---- own certificates --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("key, words", [
    (("EC", "ec_paramgen_curve:brainpoolP256r1"), "on a curve that TLS 1.3 does not sign with"),
    (("EC", "ec_paramgen_curve:secp256k1"), "on a curve that TLS 1.3 does not sign with"),
    (("RSA", "rsa_keygen_bits:1024"), "2048 to 4096 bits"),
])
def test_key_that_no_peer_could_use_is_refused_at_the_start(certs, device, pki, key, words):
    pki.make("odd", "sub", "extendedKeyUsage=serverAuth,clientAuth\n", key=key)
    own = ["--cert", pki.cert("odd"), "--key", pki("odd.key")]
    for answer in (run(SECURDMA, "serve", "--port", "0", "--device", device.name, *own, "--client-ca", pki.cert("root")),
                   run(SECURDMA, "connect", *own, "--ca", pki.cert("root"), "-e", "quit", certs.host)):
        assert answer.returncode == 2 and pki.cert("odd") in answer.stderr and words in answer.stderr, answer
    shown = run(SECURDMA, "cert", "show", pki.cert("odd"))
    assert "cannot be used for TLS" in shown.stdout and words in shown.stdout, shown


def test_own_certificate_that_is_not_valid_yet_is_told(certs, device, pki, start):
    index, serial = pki.path / "i.txt", pki.path / "s.txt"
    index.write_text("", encoding="ascii")
    serial.write_text("4711\n", encoding="ascii")
    (pki.path / "late.cnf").write_text(
        f"[ca]\ndefault_ca=d\n[d]\ndatabase={index}\nserial={serial}\nnew_certs_dir={pki.path}\ndefault_md=sha256\npolicy=p\n[p]\n"
        f"commonName=supplied\n[x]\nextendedKeyUsage=serverAuth\nsubjectAltName=IP:{certs.host}\n", encoding="ascii")
    openssl = ["openssl", "ca", "-batch", "-config", pki("late.cnf"), "-cert", pki.cert("root"), "-keyfile", pki("root.key"), "-extensions", "x",
               "-startdate", "20400101000000Z", "-enddate", "20410101000000Z", "-in", pki("request.csr"), "-out", pki.cert("late"), "-notext"]
    subprocess.run(["openssl", "req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", pki("late.key"), "-subj",
                    "/CN=late", "-out", pki("request.csr")], check=True, capture_output=True)
    subprocess.run(openssl, check=True, capture_output=True)
    server = start(Server, certs, device, cert=pki("late"), client_ca=pki("root"))
    server.wait_log("is not valid before 2040-01-01")
    refused = talk(certs, pki, server)
    assert refused.returncode == 4 and "is not valid yet" in refused.stderr, refused
    server.stop()


# ---- names that are typed ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("host", ["localhost", "localhost.", "LOCALHOST", "LocalHost."])
def test_name_can_be_typed_in_any_way_that_connects(certs, server, host):
    answer = connect(certs, server.port, "-e", "send x", "--server-name", host)
    assert answer.returncode == 0, answer


@pytest.mark.parametrize("name", [".example.com", "*.example.com", "a..b", "a b", "bücher.example"])
def test_name_that_no_certificate_bears_is_told_at_once(certs, name):
    began = time.monotonic()
    answer = run(SECURDMA, "connect", "--ca", certs.cert("ca"), "--server-name", name, "-e", "quit", "192.0.2.1")
    assert answer.returncode == 2 and "is not a name that a certificate can contain" in answer.stderr, answer
    assert time.monotonic() - began < STEP


def test_zone_of_an_address_is_not_part_of_the_name(certs, pki, serve):
    # The name is looked at before a connection is tried, so that no such interface is needed.
    pki.make("zoned", "root", "extendedKeyUsage=serverAuth\nsubjectAltName=IP:fe80::1,IP:127.0.0.1,IP:" + certs.host + "\n")
    server = serve(cert="zoned")
    for name in ("fe80::1%eth0", "fe80::1%nowhere", "[fe80::1%lo]", "FE80::1"):
        assert talk(certs, pki, server, "--server-name", name).returncode == 0, name
    refused = talk(certs, pki, server, "--server-name", "fe80::2%eth0")
    assert refused.returncode == 4 and "not for this name" in refused.stderr, refused
    server.stop()


# ---- one certificate for both ends ---------------------------------------------------------------------------------------


def test_peer_certificate_serves_and_connects(certs, device, start, tmp_path):
    made = run(SECURDMA, "cert", "peer", "--name", certs.host, "--cn", "rank 0", "--ca", certs.cert("ca"), "--ca-key", certs.key("ca"), cwd=tmp_path)
    assert made.returncode == 0 and "(CN=rank 0; " in made.stdout, made
    own = str(tmp_path / "peer")
    assert "Use:       server and client\n" in run(SECURDMA, "cert", "show", own + ".crt").stdout
    server = start(Server, certs, device, cert=own)
    is_let_in(certs, server, cert=own)
    server.wait_log("as 'rank 0'")
    refused = run(SECURDMA, "cert", "peer", "--ca", certs.cert("ca"), "--ca-key", certs.key("ca"), cwd=tmp_path)
    assert refused.returncode == 2 and "--name" in refused.stderr, refused
