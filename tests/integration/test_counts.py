# SPDX-License-Identifier: Apache-2.0
"""Counts agree with their number, in what the commands and the server say."""
import pytest
from conftest import SECURDMA, Client, Server, connect, is_refused, run


@pytest.mark.parametrize("args, said", [
    (["-e", "write 0 a; send b; read 0 1; stat"],
     ["wrote 1 byte at 0", "messages sent 1 (1 byte), received 1 (9 bytes)", "RDMA written 1 byte, read 1 byte", "region 1 byte"]),
    (["-e", "send a; send bc; stat"], ["messages sent 2 (3 bytes), received 2 (19 bytes)", "RDMA written 0 bytes, read 0 bytes"]),
    (["--pattern", "a", "--count", "1", "--size", "1"], ["1 message verified, 1 byte written, 1 byte read back and verified"]),
    (["--pattern", "a", "--count", "2", "--size", "1"], ["2 messages verified, 1 byte written"]),
], ids=range(4))
def test_client_and_log(certs, device, start, args, said):
    server = start(Server, certs, device, "--region-size", "1")
    answer = connect(certs, server.port, *args)
    assert answer.returncode == 0 and all(words in answer.stdout for words in said), answer
    count = 2 if "2 " in said[0] or "sent 2" in said[0] else 1
    server.wait_log(f"client 1: disconnected; {count} message{'s' if count > 1 else ''} in, {count} out")
    beyond = connect(certs, server.port, "-e", "write 1 ab")
    assert "cannot write 2 bytes at offset 1: the peer's region has 1 byte\n" in beyond.stderr, beyond


@pytest.mark.parametrize("most, clients", [(1, "1 client"), (2, "2 clients")])
@pytest.mark.parametrize("limit, which", [("max-clients", ""), ("max-clients-per-identity", " with this certificate's name"),
                                          ("max-clients-per-address", " from this address")])
def test_refusal(certs, serve, start, limit, which, most, clients):
    server = serve(f"[server]\n{limit} = {most}\n")
    others = [start(Client, certs, server.port) for _ in range(most)]
    is_refused(certs, server, f"the server {'is full: it ' if limit == 'max-clients' else ''}has {clients}{which}, which is the maximum", reason=3)
    assert f"reloaded: certificates, CAs, revocation lists and limits; at most {most + 1} clients;" in server.reload(f"[server]\nmax-clients = {most + 1}\n")["message"]
    others.append(start(Client, certs, server.port))
    assert f"at most {clients};" in server.reload(f"[server]\nmax-clients = {most}\n")["message"]
    for client in others:
        client.leave()


@pytest.mark.parametrize("days, left", [(1, "0 days left"), (2, "1 day left"), (3, "2 days left")])
def test_certificate(tmp_path, days, left):
    assert run(SECURDMA, "cert", "ca", "--days", days, cwd=tmp_path).returncode == 0
    assert f"({left})" in run(SECURDMA, "cert", "show", "ca.crt", cwd=tmp_path).stdout
