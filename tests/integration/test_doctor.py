# SPDX-License-Identifier: Apache-2.0
"""`securdma doctor` judges what `serve` and `connect` judge: what fails here keeps them from starting, and what is a warning here is one
there."""
import json
import os
import resource
import shutil
import socket

import pytest

from conftest import ON_UROCE, SECURDMA, Certificates, Process, connect, run

PAST = ["--not-after", "2020-01-01T00:00:00Z"]


@pytest.fixture(scope="module")
def odd(certs, tmp_path_factory):
    """Certificates with something about them, beside the session's."""
    folder = tmp_path_factory.mktemp("odd")
    os.chmod(folder, 0o755)
    made = object.__new__(Certificates)
    made.folder, made.host = str(folder), certs.host
    for name in ("ca.crt", "ca.key"):
        shutil.copy(os.path.join(certs.folder, name), folder)
    made.make("ca", "old-ca", "--cn", "old CA", *PAST)
    made.make("server", "soon", "--name", certs.host, "--days", "5", issuer="ca")
    made.make("self-signed", "nameless", "--cn", "nobody")
    for name in ("server.crt", "server.key"):
        shutil.copy(os.path.join(certs.folder, name), folder)
    os.chmod(made.key("server"), 0o644)
    with open(os.path.join(folder, "both.crt"), "w") as both:
        both.write(open(certs.cert("ca")).read() + open(made.cert("old-ca")).read())
    return made


def files(cert, key=None, client_ca=None):
    return ["--cert", cert, "--key", key or cert[:-4] + ".key", *(["--client-ca", client_ca] if client_ca else [])]


def diagnose(*args, **more):
    result = run(SECURDMA, "doctor", "--json", "--port", "0", *args, **more)
    found = json.loads(result.stdout)
    whats = [finding["what"] for finding in found]
    assert len(set(whats)) == len(whats), f"several verdicts on one thing: {whats}"
    assert result.returncode == (1 if any(finding["status"] == "fail" for finding in found) else 0), result
    return {finding["what"]: finding for finding in found}


def serve(device, *args, **more):
    """Starts a server that is expected not to come up."""
    return run(SECURDMA, "serve", "--port", "0", "--device", device.name, *args, **more)


def limits(number):
    return lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (number, number))


FAILURES = {
    "client certificate": (lambda c, o: files(c.cert("client"), None, c.cert("ca")), "certificate", "is a client certificate"),
    "CA's certificate": (lambda c, o: files(c.cert("ca"), None, c.cert("ca")), "certificate", "is a CA certificate"),
    "expired certificate": (lambda c, o: files(c.cert("expired-server"), None, c.cert("ca")), "certificate", "expired on 2020-01-01"),
    "another key": (lambda c, o: files(c.cert("server"), c.key("client"), c.cert("ca")), "key", "is not the private key of"),
    "no key": (lambda c, o: files(c.cert("server"), c.cert("server"), c.cert("ca")), "key", "is not the unencrypted PEM private key of"),
    "no file": (lambda c, o: files("/nonexistent.crt", c.key("server"), c.cert("ca")), "certificate", "No such file or directory"),
    "leaf as CA": (lambda c, o: files(c.cert("server"), None, c.cert("server")), "client CA", "is not a CA certificate: no client"),
    "expired CA": (lambda c, o: files(c.cert("server"), None, o.cert("old-ca")), "client CA", "expired on 2020-01-01"),
    "no CA": (lambda c, o: files(c.cert("server"), None, c.key("ca")), "credentials", "holds no usable PEM CA certificate"),
    "27 TB": (lambda c, o: [*files(c.cert("server"), None, c.cert("ca")), "--max-clients", "60000", "--region-size", "448M"], "memory",
              "max-clients 60000 at "),
    "networks": (lambda c, o: [*files(c.cert("server"), None, c.cert("ca")), "--proxy-networks", "10.0.0.0/99"], "settings",
                 "proxy-networks: '10.0.0.0/99'"),
    "epochs": (lambda c, o: [*files(c.cert("server"), None, c.cert("ca")), "--epoch-ms", "50"], "settings", "epoch-ms 50 is out of range"),
}


@pytest.mark.parametrize("name", FAILURES)
def test_what_cannot_work_fails_here_and_does_not_start_there(certs, odd, device, name):
    args, what, text = FAILURES[name]
    found = diagnose("--device", device.name, *args(certs, odd))
    assert found[what]["status"] == "fail" and text in found[what]["text"], found
    result = serve(device, *args(certs, odd))
    assert result.returncode == 2 and result.stdout == "", result
    assert found[what]["text"] in result.stderr, (found[what], result.stderr)
    if found[what]["fix"]:
        assert found[what]["fix"] in result.stderr, (found[what], result.stderr)


def test_descriptors_are_counted(certs, device):
    args = [*files(certs.cert("server"), None, certs.cert("ca")), "--max-clients", "1000"]
    found = diagnose("--device", device.name, *args, preexec_fn=limits(500))
    assert found["file descriptors"]["status"] == "fail" and "the limit is 500" in found["file descriptors"]["text"]
    result = serve(device, *args, preexec_fn=limits(500))
    assert result.returncode == 2 and found["file descriptors"]["text"] in result.stderr
    assert diagnose("--device", device.name, *args, preexec_fn=limits(4000))["file descriptors"]["status"] == "ok"


WARNINGS = {
    "soon": (lambda c, o: files(o.cert("soon"), None, c.cert("ca")), "certificate", "expires in "),
    "nameless": (lambda c, o: files(o.cert("nameless"), None, c.cert("ca")), "certificate", "contains no DNS name or IP address"),
    "open key": (lambda c, o: files(o.cert("server"), None, c.cert("ca")), "key file", "other users can read the private key"),
    "one client": (lambda c, o: files(c.cert("server"), None, c.cert("client")), "client CA", "verifies only the client that has"),
    "one old CA": (lambda c, o: files(c.cert("server"), None, o.cert("both")), "client CA", "expired on 2020-01-01"),
    "old CA for some": (lambda c, o: [*files(c.cert("server"), None, o.cert("old-ca")), "--insecure-anonymous-clients"], "client CA",
                        "expired on 2020-01-01"),
    "nobody listed": (lambda c, o: [*files(c.cert("server"), None, c.cert("ca")), "--only-listed-identities"], "identities",
                      "it refuses every client"),
}


@pytest.mark.parametrize("name", WARNINGS)
def test_what_may_not_work_is_a_warning_at_both(certs, odd, device, start, name):
    args, what, text = WARNINGS[name]
    found = diagnose("--device", device.name, *args(certs, odd))
    assert found[what]["status"] == "warn" and text in found[what]["text"] and found[what]["fix"], found
    server = start(Process, SECURDMA, "serve", "--json", "--port", "0", "--device", device.name, *args(certs, odd))
    server.wait_line(lambda line: '"listening"' in line)
    assert found[what]["text"] in server.log() and found[what]["fix"] in server.log(), server.log()
    server.terminate()


def test_good_settings_are_all_right_and_start_without_a_word(certs, device, start):
    args = files(certs.cert("server"), None, certs.cert("ca"))
    found = diagnose("--device", device.name, "--ca", certs.cert("ca"), *args)
    for what in ("certificate", "certificate chain", "key", "key file", "client CA", "CA", "memory", "locked memory", "file descriptors",
                 "device limits", "device", "TLS port", "random"):
        assert found[what]["status"] == "ok", found[what]
    server = start(Process, SECURDMA, "serve", "--json", "--port", "0", "--device", device.name, *args)
    server.wait_line(lambda line: '"listening"' in line)
    assert "warning" not in server.log()
    server.terminate()


def test_certificate_that_clients_cannot_verify_is_told(certs, device):
    found = diagnose("--device", device.name, *files(certs.cert("other-server"), None, certs.cert("ca")), "--ca", certs.cert("ca"))
    assert found["certificate"]["status"] == "ok" and found["certificate chain"]["status"] == "fail", found
    assert f"cannot be verified with {certs.cert('ca')}" in found["certificate chain"]["text"]


CLIENTS = {
    "server certificate": (lambda c, o: ["--ca", c.cert("ca"), *files(c.cert("server"))], "certificate", "is a server certificate"),
    "expired certificate": (lambda c, o: ["--ca", c.cert("ca"), *files(c.cert("expired-client"))], "certificate", "expired on 2020-01-01"),
    "another key": (lambda c, o: ["--ca", c.cert("ca"), *files(c.cert("client"), c.key("server"))], "key", "is not the private key of"),
    "leaf as CA": (lambda c, o: ["--ca", c.cert("client"), *files(c.cert("client"))], "CA", "is not a CA certificate: no server"),
    "expired CA": (lambda c, o: ["--ca", o.cert("old-ca"), *files(c.cert("client"))], "CA", "expired on 2020-01-01"),
    "no pin": (lambda c, o: ["--pin", "sha256:12"], "credentials", "the pin 'sha256:12'"),
}


@pytest.mark.parametrize("name", CLIENTS)
def test_what_a_client_cannot_use_fails_here_and_is_not_tried_there(certs, odd, device, name):
    args, what, text = CLIENTS[name]
    found = diagnose("--device", device.name, *args(certs, odd))
    assert found[what]["status"] == "fail" and text in found[what]["text"], found
    with socket.create_server((certs.host, 0)) as listener:
        port = listener.getsockname()[1]
        result = run(SECURDMA, "connect", *args(certs, odd), "-e", "stat", f"{certs.host}:{port}")
        listener.setblocking(False)
        with pytest.raises(BlockingIOError):
            listener.accept()
    assert result.returncode == 2 and found[what]["text"] in result.stderr, result


def test_client_hears_of_a_certificate_that_ends_soon(certs, odd, device, start):
    args = files(certs.cert("server"), None, certs.cert("ca"))
    odd.make("client", "soon-client", "--cn", "soon", "--days", "5", issuer="ca")
    server = start(Process, SECURDMA, "serve", "--json", "--port", "0", "--device", device.name, *args)
    port = json.loads(server.wait_line(lambda line: '"listening"' in line))["port"]
    result = run(SECURDMA, "connect", "--ca", certs.cert("ca"), *files(odd.cert("soon-client")), "-e", "send x", f"{certs.host}:{port}")
    assert result.returncode == 0 and "expires in " in result.stderr
    assert connect(certs, port, "-e", "send x").stderr == ""
    server.terminate()


def test_reload_keeps_what_works(certs, odd, device, start, tmp_path):
    cert, key = tmp_path / "server.crt", tmp_path / "server.key"
    shutil.copy(certs.cert("server"), cert)
    shutil.copy(certs.key("server"), key)
    server = start(Process, SECURDMA, "serve", "--json", "--port", "0", "--device", device.name,
                   *files(str(cert), str(key), certs.cert("ca")))
    port = json.loads(server.wait_line(lambda line: '"listening"' in line))["port"]
    shutil.copy(certs.cert("expired-server"), cert)
    shutil.copy(certs.key("expired-server"), key)
    server.signal(1)
    assert "expired on 2020-01-01" in server.wait_log("not reloaded")
    assert connect(certs, port, "-e", "send x").returncode == 0
    server.terminate()


# ---- the host ----------------------------------------------------------------------------------------------------------


def test_port_advice_is_about_the_port(certs, device):
    def port(*args):
        found = json.loads(run(SECURDMA, "doctor", "--json", "--device", device.name, *args).stdout)
        return next(finding for finding in found if finding["what"] == "TLS port")

    with socket.create_server(("127.0.0.1", 0)) as taken:
        number = taken.getsockname()[1]
        finding = port("--listen", "127.0.0.1", "--port", str(number))
        assert finding["status"] == "warn" and f"ss -ltnp 'sport = :{number}'" in finding["fix"]
    finding = port("--listen", "192.0.2.1", "--port", "0")
    assert finding["status"] == "fail" and "no network interface of this machine has that address" in finding["text"]
    assert "ss -ltnp" not in finding["fix"] and "ip address" in finding["fix"]
    finding = port("--port", "banana")
    assert finding["status"] == "fail" and "'banana' is not a port" in finding["text"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root becomes another user")
def test_files_are_checked_as_root_and_the_rest_as_the_servers_user(certs, device, tmp_path):
    for name in ("server.crt", "server.key"):
        shutil.copy(os.path.join(certs.folder, name), tmp_path)
    args = ["--device", device.name, *files(str(tmp_path / "server.crt"), None, certs.cert("ca"))]
    assert diagnose(*args, "--user", "nobody")["user"]["text"].endswith("as nobody")
    assert diagnose(*args, "--user", "nobody")["key"]["status"] == "ok"
    found = diagnose(*args, "--user", "no-such-user")
    assert found["user"]["status"] == "fail"


@pytest.mark.skipif(not ON_UROCE, reason="there is always a device")
def test_uroce_is_not_advised_where_it_is(certs):
    none = dict(os.environ, UROCE_ADDR="192.0.2.1")
    result = run(SECURDMA, "doctor", "--json", env=none)
    found = {finding["what"]: finding for finding in json.loads(result.stdout)}
    assert result.returncode == 6 and found["device"]["status"] == "fail"
    assert "put `uroce` before" not in found["device"]["fix"] and "uroce --addr" in found["device"]["fix"]
    result = run(SECURDMA, "connect", "--ca", certs.cert("ca"), "-e", "stat", "localhost", env=none)
    assert result.returncode == 6 and "put `uroce` before" not in result.stderr and "uroce --addr" in result.stderr


def test_doctor_needs_no_settings(device):
    found = json.loads(run(SECURDMA, "doctor", "--json").stdout)
    assert not any(finding["status"] == "fail" for finding in found if finding["what"] != "TLS port"), found
    kernel = next(finding["text"] for finding in found if finding["what"] == "kernel")
    assert ("is loaded" in kernel) == os.path.exists("/sys/module/ib_core")
    text = run(SECURDMA, "doctor", "--port", "0", "--listen", "192.0.2.1").stdout
    assert "\n                          fix: " in text and "to mend" not in text and text.splitlines()[-1].endswith(" failed")
