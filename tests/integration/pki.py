# SPDX-License-Identifier: Apache-2.0
"""Certificates and revocation lists such as other CAs' software makes them: chains, odd keys, any names."""
import os
import subprocess

CA = "basicConstraints=critical,CA:TRUE\nkeyUsage=critical,keyCertSign,cRLSign\nsubjectKeyIdentifier=hash\nauthorityKeyIdentifier=keyid\n"
LEAF = "basicConstraints=critical,CA:FALSE\nkeyUsage=critical,digitalSignature\nsubjectKeyIdentifier=hash\nauthorityKeyIdentifier=keyid\n"


def openssl(*args):
    return subprocess.run(["openssl", *map(str, args)], check=True, capture_output=True, timeout=60).stdout.decode(errors="replace")


class Pki:
    """Files NAME.crt, NAME.key, NAME.crl in a folder; pki(NAME) is what the other fixtures take for a certificate's name."""

    def __init__(self, path, host):
        self.path, self.host = path, host
        os.chmod(path, 0o755)

    def __call__(self, name):
        return str(self.path / name)

    def cert(self, name):
        return self(name + ".crt")

    def make(self, name, issuer, extensions, subject=None, key=("EC", "ec_paramgen_curve:P-256"), days="5", *dates):
        """A certificate; issuer: the name of its CA, None: itself, or another Pki's files in a pair (certificate, key)."""
        openssl("genpkey", "-algorithm", key[0], *(("-pkeyopt", key[1]) if len(key) > 1 else ()), "-out", self(name + ".key"))
        subject = f"/CN={name}" if subject is None else subject
        (self.path / "ext.cnf").write_text(extensions, encoding="utf-8")
        openssl("req", "-new", "-utf8", "-key", self(name + ".key"), "-subj", subject, "-out", self("request.csr"))
        if issuer is None:
            signer = ["-signkey", self(name + ".key")]
        else:
            files = issuer if isinstance(issuer, tuple) else (self(issuer + ".crt"), self(issuer + ".key"))
            signer = ["-CA", files[0], "-CAkey", files[1], "-set_serial", str(int.from_bytes(os.urandom(8), "big"))]
        openssl("x509", "-req", "-in", self("request.csr"), *signer, "-extfile", self("ext.cnf"), "-days", days, "-out", self(name + ".crt"))

    def ca(self, name, issuer=None, **more):
        self.make(name, issuer, CA, **more)

    def server(self, name, issuer, **more):
        kind = "DNS:localhost,IP:" + self.host + ("" if self.host == "127.0.0.1" else ",IP:127.0.0.1")
        self.make(name, issuer, LEAF + f"extendedKeyUsage=serverAuth\nsubjectAltName={kind}\n", **more)

    def client(self, name, issuer, names="", **more):
        self.make(name, issuer, LEAF + "extendedKeyUsage=clientAuth\n" + (f"subjectAltName={names}\n" if names else ""), **more)

    def bundle(self, name, *files):
        """NAME.crt with the certificates of these names, and the key of the first."""
        text = "".join((self.path / f"{file}.crt").read_text(encoding="ascii") for file in files)
        (self.path / f"{name}.crt").write_text(text, encoding="ascii")
        (self.path / f"{name}.key").write_bytes((self.path / f"{files[0]}.key").read_bytes())
        return self(name)

    def list(self, issuer, *revoked, extensions="", days=10):
        """The issuer's revocation list, as text."""
        entries = ""
        for name in revoked:
            serial = openssl("x509", "-in", self(name + ".crt"), "-noout", "-serial").strip().split("=")[1]
            entries += f"R\t351231235959Z\t250101000000Z\t{serial}\tunknown\t/CN={name}\n"
        (self.path / "index.txt").write_text(entries, encoding="ascii")
        (self.path / "crlnumber").write_text("01\n", encoding="ascii")
        (self.path / "ca.cnf").write_text(
            f"[ca]\ndefault_ca=d\n[d]\ndatabase={self('index.txt')}\ncrlnumber={self('crlnumber')}\ndefault_md=sha256\ncrl_extensions=x\n"
            f"[x]\nauthorityKeyIdentifier=keyid\n{extensions}", encoding="ascii")
        last = ["-crl_lastupdate", "20200101000000Z", "-crl_nextupdate", "20200201000000Z"] if days < 0 else ["-crldays", str(days)]
        openssl("ca", "-config", self("ca.cnf"), "-gencrl", "-cert", self(issuer + ".crt"), "-keyfile", self(issuer + ".key"), "-out",
                self("list.crl"), *last)
        return (self.path / "list.crl").read_text(encoding="ascii")

    def lists(self, name, *texts):
        (self.path / f"{name}.crl").write_text("".join(texts), encoding="ascii")
        return self(name + ".crl")
