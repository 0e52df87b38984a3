# SPDX-License-Identifier: Apache-2.0
"""The rest of the library: errors, certificates, links, the log."""
import errno
import logging
import os
import pickle
import tempfile
import threading
import time

import securdma
from python_rig import CLIENT, HOST, SERVER, STEP, connect, file, main, raises, server, until


def errors_are_those_of_python_where_it_has_them():
    listener = securdma.Listener(port=0)
    port = listener.port
    listener.close()
    error = raises(ConnectionRefusedError, securdma.connect, HOST, port, tls=CLIENT)
    assert isinstance(error, securdma.Error) and error.code == -errno.ECONNREFUSED == -error.errno and HOST in error.text
    copy = pickle.loads(pickle.dumps(error))
    assert (type(copy), copy.code, copy.text, copy.errno) == (type(error), error.code, error.text, error.errno)
    raises(FileNotFoundError, securdma.TlsClient, ca_file="/nowhere")
    raises(ValueError, securdma.TlsClient, pin="sha256:1")
    raises(securdma.ConfigError, securdma.TlsClient)
    raises(TypeError, securdma.TlsClient, ca_flie="x")
    assert "ca_file" in str(raises(TypeError, securdma.TlsClient, ca_file=7)) and "NUL" in str(raises(ValueError, securdma.TlsClient, ca_file="a\0b"))
    raises(TypeError, securdma.Server, SERVER, handlers=type("Typo", (), {"on_message": print, "on_mesage": print})())
    raises(TypeError, securdma.Server, SERVER, handlers=object())
    raises(securdma.Error, securdma.Device, name="nonesuch")
    with server() as serving:
        stranger = securdma.TlsClient(ca_file=file("other-ca.crt"))
        raises(securdma.CertificateError, securdma.connect, HOST, serving.port, tls=stranger)
        raises(securdma.InvalidArgument, connect, serving, depth=5000)
        raises(OverflowError, connect, serving, depth=-1)
        raises(KeyError, connect, serving, seal="perhaps")
        with connect(serving, qp={"path_mtu": 256}) as conn:
            assert conn.info.path_mtu == 256
            raises(ValueError, conn.recv, -1)
            raises(TimeoutError, conn.recv, 0.01)
            state, receives, sends = conn.query_qp()
            assert state == securdma.QpState.RTS and receives and sends and conn.peer_region()[2] == 65536 and all(conn.verbs().values())
    assert "WouldBlock -ETIMEDOUT, -EAGAIN: No message came." in securdma.Conn.recv.__doc__
    listed = [port for port in securdma.devices() if port.device == securdma.default_device().name]
    assert listed and listed[0].state == securdma.PortState.ACTIVE


def certificates_are_made_read_and_checked():
    with tempfile.TemporaryDirectory() as folder:
        def path(name):
            return os.path.join(folder, name)

        issuer = {"ca_cert_file": path("ca.crt"), "ca_key_file": path("ca.key"), "days": 1}
        securdma.make_certificate("ca", common_name="from Python", days=1, cert_file=path("ca.crt"), key_file=path("ca.key"))
        for kind, more in (("server", {"names": ["localhost", HOST]}), ("client", {})):
            securdma.make_certificate(kind, common_name="alice", cert_file=path(f"{kind}.crt"), key_file=path(f"{kind}.key"), **issuer, **more)
        raises(FileExistsError, securdma.make_certificate, "ca", common_name="x", days=1, cert_file=path("ca.crt"), key_file=path("ca.key"))
        info = securdma.read_certificate(path("server.crt"))
        assert info.names == f"DNS:localhost, IP:{HOST}" and info.server_auth and not info.is_ca and info.issuer == "CN=from Python"
        fine = securdma.check_certificate("server", path("server.crt"), path("server.key"), path("ca.crt"))
        assert fine and all(one.result != securdma.CheckResult.FAIL for one in fine)
        bad = securdma.check_tls_client(ca_file=path("ca.crt"), cert_file=path("client.crt"), key_file=path("ca.key"))
        assert any(one.result == securdma.CheckResult.FAIL and one.error < 0 and one.text for one in bad)
        tls = securdma.TlsServer(cert_file=path("server.crt"), key_file=path("server.key"), client_ca_file=path("ca.crt"))
        with securdma.Server(tls, port=0) as serving:
            pinned = securdma.TlsClient(pin=info.pin, cert_file=path("client.crt"), key_file=path("client.key"))
            with securdma.connect(HOST, serving.port, tls=pinned) as conn:
                assert conn.peer_cert().info.pin == conn.info.peer_pin == info.pin
        assert securdma.check_server(limits={"max_clients": 3})


def link_tells_of_a_loss_once():
    serving = [server(), server()]
    with securdma.Link([(HOST, one.port) for one in serving], tls=CLIENT, conn={"depth": 4}, pause_min_ms=10) as link:
        assert link.send(b"first") == 1 and link.recv(STEP)[8:] == b"first"
        link.conn.write(b"there")
        buffer = link.conn.buffer(8)
        serving[0].stop()
        error = raises(securdma.Reconnected, link.recv, STEP)
        assert error.loss.sent == 1 and link.info.connections == 2 and link.info.port == str(serving[1].port)
        raises(securdma.InvalidArgument, link.conn.post_write, buffer)
        buffer.close()
        assert link.send(b"second") == 2 and link.recv(STEP)[8:] == b"second" and link.conn.info.depth == 4
        thread = threading.Timer(0.05, link.wake)
        thread.start()
        raises(InterruptedError, link.wait, STEP)
    serving[1].stop()


def log_comes_as_records_of_python():
    records = []
    target = logging.getLogger("a test")
    target.setLevel(logging.DEBUG)
    target.handle = records.append
    securdma.log_to(target, "info")
    raises(RuntimeError, securdma.log_to)
    with server() as serving:
        connect(serving).close()
        until(lambda: serving.status.clients == 0)
    until(lambda: {"client.connected", "client.lost"} <= {record.event for record in records})
    lost = next(record for record in records if record.event == "client.lost")
    assert lost.levelno == logging.WARNING and lost.fields["name"] == "client one" and lost.security is False, vars(lost)


def program_may_end_with_everything_open():
    """Clients, their buffers, and a server in whose handlers threads are."""
    serving = server(on_message=lambda conn, data: (conn.send(data), time.sleep(0.01)))
    conns = [connect(serving) for _ in range(4)]
    for conn in conns:
        conn.send(b"x")
        conn.post_write(conn.buffer(4096), cookie=conn)
    globals()["kept"] = serving, conns
    threading.Thread(target=lambda: conns[0].recv(), daemon=True).start()


if __name__ == "__main__":
    main(globals())
