#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Anyone who reaches the port makes the server work before it knows the peer. Measured: the processor time that a ClientHello, and a
stranger's certificate, cost the server, compared with an ordinary ClientHello. An attack succeeds if it costs more than 20 times as
much, or if the server does not serve a newcomer afterwards."""
import glob
import os
import pathlib
import socket
import ssl
import subprocess
import time

import lab as rig
from loopback import ADDRESS, Loopback
from protocol import ALPN, FFDHE2048, FFDHE8192, P384, UNKNOWN, X25519, client_hello as hello, some_groups  # noqa: E402

NAME = "handshake"
MOST = 20


def cpu_ms(server):
    """Time of its processors that a process has had."""
    total = 0
    for path in glob.glob(f"/proc/{server.pid}/task/*/schedstat"):
        with open(path, encoding="ascii") as file:
            total += int(file.read().split()[0])
    return total / 1e6


def say(port, data):
    """Sends this, and waits for the first byte of the answer, or the end."""
    with socket.create_connection((ADDRESS, port), 30) as sock:
        try:
            sock.sendall(data)
            return sock.recv(65536)
        except OSError:
            return b""


def client_with(chain):
    """One that shows this, and takes whatever it is shown. Its own OpenSSL decodes the chain, too: once."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.set_ciphers("DEFAULT@SECLEVEL=0")
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.load_cert_chain(chain, f"{LAB.folder}/honest.key")
    context.set_alpn_protocols([ALPN])
    return context


def show(port, context):
    with socket.create_connection((ADDRESS, port), 60) as sock:
        try:
            with context.wrap_socket(sock) as channel:
                channel.recv(1)
        except OSError:
            pass


def cost_of_some(server, action, tries):
    before = cpu_ms(server)
    for _ in range(tries):
        action()
    # What it does after the answer, until it is at rest.
    last = None
    while (now := cpu_ms(server)) - (last or 0) > 0.5:
        last = now
        time.sleep(0.05)
    return (now - before) / tries


def cost(server, action, tries):
    """Milliseconds of the server's processors for each, in the cheapest of three rounds: others on the machine make it dearer."""
    return min(cost_of_some(server, action, tries) for _ in range(3))


def attack(server, ordinary, tried, defence, action, tries, knowledge="nothing"):
    each = cost(server, action, tries)
    served = LAB.newcomer_is_served(server)
    LAB.report(NAME, "the port", knowledge, "securdma", defence, tried, "failed", each > MOST * ordinary or not served,
               note=f"{each:.2f} ms of its processors each; an ordinary ClientHello {ordinary:.2f} ms" + ("" if served else "; a newcomer was not served"))


def pem(der):
    return ssl.DER_cert_to_PEM_cert(der)


def explicit_certificate():
    """Its key spells out its curve."""
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-pkeyopt", "ec_param_enc:explicit",
               "-subj", "/CN=explicit", "-noenc", "-keyout", os.devnull, "-outform", "DER"]
    return subprocess.run(command, capture_output=True, check=True, timeout=60).stdout


def chain_of(name, *certificates):
    """honest.crt with these behind it."""
    path = f"{LAB.folder}/{name}.crt"
    with open(f"{LAB.folder}/honest.crt", encoding="ascii") as file, open(path, "w", encoding="ascii") as out:
        out.write(file.read() + "".join(certificates))
    return path


def main():
    server = LAB.serve("--log-level", "error")
    few, many = (10, 20) if ARGUMENTS.short else (50, 200)
    say(server.port, hello(X25519))
    ordinary = cost(server, lambda: say(server.port, hello(X25519)), many)
    attack(server, ordinary, "a ClientHello with the most expensive group that is taken, P-384", "X25519MLKEM768, X25519, P-256 and P-384 alone",
           lambda: say(server.port, hello(P384)), few)
    for group, name in ((FFDHE2048, "ffdhe2048"), (FFDHE8192, "ffdhe8192")):
        attack(server, ordinary, f"a ClientHello with a share of {name}", "no finite-field groups", lambda group=group: say(server.port, hello(group)), few)
    names = some_groups(16000)
    attack(server, ordinary, "a ClientHello of 64 KB: 6,500 shares of the last of 16,000 groups", "8 KiB",
           lambda: say(server.port, hello(UNKNOWN, names, 6500)), few)
    attack(server, ordinary, "a ClientHello of 7.7 KB: 800 shares of the last of 1,800 groups", "64 groups",
           lambda: say(server.port, hello(UNKNOWN, names[:1800], 800)), few)
    explicit, ca = pem(explicit_certificate()), pathlib.Path(f"{LAB.folder}/ca.crt").read_text(encoding="ascii")
    count = 3 if ARGUMENTS.short else 20
    context = client_with(chain_of("explicit", *[explicit] * count))
    attack(server, ordinary, f"{count} certificates whose keys spell out their curve", "keys are looked at before they are decoded",
           lambda: show(server.port, context), 1)
    long = client_with(chain_of("many", *[ca] * 60))
    attack(server, ordinary, "a chain of 61 certificates", "8 certificates, 32 KiB", lambda: show(server.port, long), few)
    server.stop()


ARGUMENTS = rig.options(__doc__, {})
LAB = Loopback(ARGUMENTS)
LAB.certificates()
main()
LAB.end()
