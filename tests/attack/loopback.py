# SPDX-License-Identifier: Apache-2.0
"""Where an attack needs no hosts of its own: all programs on uroce's loopback. Reports and programs are those of lab.py."""
import atexit
import os
import random
import socket
import subprocess
import sys
import tempfile
import time

import lab as rig

sys.path[:0] = [os.path.join(rig.ROOT, "tests", folder) for folder in ("peer", "integration")]

ADDRESS = "127.0.0.1"


class Loopback(rig.Lab):
    """A Lab without a network. `folder` has a CA, a certificate of the server and one of a client ("honest")."""

    def __init__(self, arguments):
        self.rxe, self.short, self.hub = False, arguments.short, None
        self.programs, self.failed, self.hosts, self.server_device = [], 0, {"": None}, "uroce0"
        atexit.register(self.close)

    def certificates(self):
        if not hasattr(self, "folder"):
            self.folder = tempfile.mkdtemp(prefix="attack.")
            atexit.register(lambda: subprocess.run(["rm", "-rf", self.folder], check=False))
            self.authority("ca")
            self.certificate("server", "server", "--name", ADDRESS)
            self.certificate("client", "honest", "--cn", "honest")
        return self.folder

    def authority(self, name):
        self._cert("ca", "--out", f"{self.folder}/{name}", "--cn", f"attack {name}")

    def certificate(self, kind, name, *words, ca="ca"):
        self._cert(kind, "--out", f"{self.folder}/{name}", "--ca", f"{self.folder}/{ca}.crt", "--ca-key", f"{self.folder}/{ca}.key", *words)

    def _cert(self, *words):
        subprocess.run([rig.SECURDMA, "cert", *words], check=True, stdout=subprocess.DEVNULL)

    def environment(self):
        return dict(os.environ, LD_PRELOAD=rig.UROCE_LIBRARY)

    def on_device(self, host, *command, environment=None, events=True):
        return self.start(*command, events=events)

    def start(self, *command, events=True):
        program = rig.Program(command, {"LD_PRELOAD": rig.UROCE_LIBRARY}, events)
        self.programs.append(program)
        return program

    def serve(self, *words):
        return super().serve("--listen", ADDRESS, "--max-clients", "64", *words)

    def connect_words(self, server, *words, name="honest", v6=False):
        """`server`: a port, or a server of serve()."""
        folder = self.certificates()
        port = server if isinstance(server, int) else server.port
        return [rig.SECURDMA, "connect", "--json", "--device", "uroce0", "--ca", f"{folder}/ca.crt", "--cert", f"{folder}/{name}.crt",
                "--key", f"{folder}/{name}.key", *words, f"{ADDRESS}:{port}"]

    def newcomer_is_served(self, server):
        """Whether one more client gets an echo."""
        command = self.connect_words(server, "--busy-retry-ms", "3000", "-e", "send hello")
        return subprocess.run(command, env=self.environment(), stdin=subprocess.DEVNULL, capture_output=True, timeout=60, check=False).returncode == 0


def wait_for(condition, seconds=20):
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.01)
    return condition()


def free_port():
    """Below the ports that the kernel gives to connections."""
    while True:
        port = random.randrange(20000, 32768)
        try:
            with socket.create_server((ADDRESS, port)):
                return port
        except OSError:
            pass
