# SPDX-License-Identifier: Apache-2.0
"""Certificates that are revoked, and a server that reads its files again while it serves."""
import os
import pathlib
import shutil
import signal
import time

import pytest
from conftest import (SECURDMA, Client, Listening, Process, Server, client_args, connect, resources, run, wait_for_resources, wait_until)
from pki import Pki


@pytest.fixture
def own(certs, tmp_path):
    """A folder with copies of the server's files, which a test may replace, and a configuration that names them."""
    os.chmod(tmp_path, 0o755)
    folder = Folder(certs, tmp_path)
    folder.put("server")
    return folder


class Folder:
    def __init__(self, certs, path):
        self.certs, self.path = certs, path
        self.config = path / "securdma.conf"

    def put(self, name, ca="ca"):
        """The certificate and key of this name become the server's."""
        shutil.copy(self.certs.cert(name), self.path / "server.crt")
        shutil.copy(self.certs.key(name), self.path / "server.key")
        shutil.copy(self.certs.cert(ca), self.path / "clients.crt")

    def configure(self, **more):
        """Sections as keyword arguments, keys with underscores."""
        tls = {"cert": self.path / "server.crt", "key": self.path / "server.key", "client_ca": self.path / "clients.crt"}
        lines = []
        for section, keys in {"tls": {**tls, **more.pop("tls", {})}, **more}.items():
            lines.append(f"[{section}]")
            lines += [f"{key.replace('_', '-')} = {value}" for key, value in keys.items()]
        self.config.write_text("\n".join(lines) + "\n", encoding="ascii")

    def revoke(self, *names, days=30, ca="ca"):
        """A revocation list of the CA's with the certificates of these names."""
        lists = Pki(self.path, self.certs.host)
        text = lists.list(self.certs.cert(ca)[:-4], *(self.certs.cert(name)[:-4] for name in names), days=days)
        return pathlib.Path(lists.lists("clients", text))


class Configured(Listening):
    """A server whose credentials are in a configuration file."""

    def __init__(self, own, device, *args):
        super().__init__(own.certs, device, "--config", own.config, *args)

    def reload(self, expect):
        start = len(self.log())
        self.signal(signal.SIGHUP)
        return self.wait_log(expect, start)


# ---- revocation --------------------------------------------------------------------------------------------------------


def test_revoked_client_is_refused_and_others_are_not(certs, device, start, own):
    own.configure(tls={"client_crl": own.revoke("client")})
    server = start(Configured, own, device)
    refused = connect(certs, server.port, "-e", "send x")
    assert refused.returncode == 4 and "revoked" in refused.stderr, refused
    server.wait_log("certificate revoked")
    assert connect(certs, server.port, "-e", "send x", cert="client2").returncode == 0
    server.stop()


def test_revoked_server_is_refused(certs, device, start, own):
    server = start(Server, certs, device)
    crl = own.revoke("server")
    refused = connect(certs, server.port, "--crl", crl, "-e", "send x")
    assert refused.returncode == 4 and "revoked" in refused.stderr, refused
    crl = own.revoke()
    assert connect(certs, server.port, "--crl", crl, "-e", "send x").returncode == 0
    server.stop()


@pytest.mark.parametrize("content", ["", "nonsense\n", None, "half"])
def test_list_that_is_none_is_refused_at_the_start(certs, device, own, content):
    whole, path = own.revoke("client").read_text(encoding="ascii"), own.path / "bad.crl"
    if content is not None:
        path.write_text(whole + whole[:len(whole) // 2] if content == "half" else content, encoding="ascii")
    own.configure(tls={"client_crl": path})
    answer = run(SECURDMA, "serve", "--port", "0", "--device", device.name, "--config", own.config)
    assert answer.returncode == 2 and str(path) in answer.stderr, answer
    assert content is None or "not a PEM file with certificate revocation lists" in answer.stderr, answer


# ---- reload ------------------------------------------------------------------------------------------------------------


def test_new_certificates_are_for_new_clients_and_old_ones_notice_nothing(certs, device, start, own):
    before = resources(device)
    own.configure()
    server = start(Configured, own, device)
    old = start(Client, certs, server.port)
    old.check()
    own.put("other-server")
    server.reload("reloaded: ")
    old.check("still here")
    stranger = connect(certs, server.port, "-e", "send x")
    assert stranger.returncode == 4, stranger
    assert connect(certs, server.port, "-e", "send x", ca="other-ca").returncode == 0
    old.check()
    old.leave()
    server.stop()
    wait_for_resources(device, before)


def test_client_revoked_while_serving_does_not_come_again(certs, device, start, own):
    own.configure(tls={"client_crl": own.revoke()})
    server = start(Configured, own, device)
    assert connect(certs, server.port, "-e", "send x").returncode == 0
    own.revoke("client")
    server.reload("reloaded: ")
    assert connect(certs, server.port, "-e", "send x").returncode == 4
    assert connect(certs, server.port, "-e", "send x", cert="client2").returncode == 0
    server.stop()


def replace_certificate_by_nonsense(own):
    (own.path / "server.crt").write_text("nonsense\n", encoding="ascii")
    return "holds no usable PEM certificate"


def replace_key_by_another(own):
    shutil.copy(own.certs.key("client"), own.path / "server.key")
    return "is not the private key of"


def remove_ca(own):
    (own.path / "clients.crt").unlink()
    return "cannot read the CA file"


def break_configuration(own):
    own.config.write_text("[server]\nmax-clients = many\n", encoding="ascii")
    return "securdma.conf:2: [server] max-clients: 'many' is not valid"


def ask_for_too_many(own):
    own.configure(server={"max_clients": 1000000})
    return "max-clients 1000000"


def name_no_credentials(own):
    own.config.write_text("[server]\nmax-clients = 5\n", encoding="ascii")
    return "give --cert and --key"


@pytest.mark.parametrize("damage", [replace_certificate_by_nonsense, replace_key_by_another, remove_ca, break_configuration, ask_for_too_many,
                                    name_no_credentials])
def test_bad_files_are_named_and_change_nothing(certs, device, start, own, damage):
    own.configure()
    server = start(Configured, own, device)
    old = start(Client, certs, server.port)
    why = damage(own)
    said = server.reload("not reloaded: ")
    assert why in server.log(), said
    assert "the server keeps all old values" in said
    old.check()
    assert connect(certs, server.port, "-e", "send x").returncode == 0
    assert server.status()["max_clients"] == 10
    old.leave()
    server.stop()


def test_reloads_under_load_lose_nothing(certs, device, start, own):
    own.configure()
    server = start(Configured, own, device)
    client = start(Process, *client_args(certs, server.port, "--pattern", "abc", "--count", "100000000"))
    wait_until(lambda: server.status()["clients"] and server.status()["clients"][0]["messages_received"] > 100, "traffic")
    fds = server.fds()
    for _ in range(20):
        server.reload("reloaded: ")
        assert connect(certs, server.port, "-e", "send x", cert="client2").returncode == 0
    before = server.status()["clients"][0]["messages_received"]
    time.sleep(0.2)
    assert server.status()["clients"][0]["messages_received"] > before
    wait_until(lambda: server.fds() == fds, lambda: f"{fds} descriptors; there are {server.fds()}")
    assert client.process.poll() is None
    server.stop()
    assert client.wait() == 7 and "shutting down" in client.log()
