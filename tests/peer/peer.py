#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""A second implementation of docs/PROTOCOL.md, for tests and for trying what a hostile peer might do. It speaks over TLS only, and
has no queue pair.

  peer.py connect --ca ca.crt --cert client.crt --key client.key HOST:PORT epoch=2 disconnect
  peer.py connect ... HOST:PORT hello:psn=0x1000000 wait
  peer.py serve --cert server.crt --key server.key --client-ca ca.crt --port 4433 establish disconnect
  peer.py serve ... reject:3:come-later
  peer.py frame hello psn=7 gid=10.0.0.1 | peer.py decode
"""
import argparse
import socket
import sys
import time

import channel
import frames
import session

STEPS = """steps, in order (default: establish disconnect):
  establish[:FIELD=VALUE,...]   the whole exchange; the fields are those of this end's HELLO or WELCOME
  hello[:FIELD=VALUE,...]       connect: send HELLO alone
  reject:REASON[:TEXT]          serve: wait for HELLO, answer REJECT
  epoch[=REASON]                request a new epoch (reason 1 to 5; default 2) and complete it
  renew                         wait until the other end requests an epoch, and complete it
  send:HEX                      send bytes as they are
  slowly:HEX                    send bytes, each in a TLS record of its own
  hold=SECONDS                  do nothing for this time
  wait                          print the next frame, or how the TLS connection ends
  disconnect[:TEXT]             request the disconnect, and complete it
  answer[:TEXT]                 wait until the other end requests the disconnect, and complete it
"""
KINDS = {cls.type.name.lower(): cls for cls in frames.CLASSES.values()}


def split_fields(cls, text):
    return session.fields_of(cls, text.split(",") if text else [])


def wait(end):
    try:
        print(end.receive_frame())
    except channel.Ended as ended:
        print(ended)


def step(end, word):
    """Does one step of the command line."""
    name, value = (word.replace("=", ":", 1) if word.startswith(("epoch", "hold")) else word).partition(":")[::2]
    if name == "establish":
        end.establish(**split_fields(type(end.own), value))
        print(f"established: {end.own}, {end.other}, agreed: {end.agreed}")
    elif name == "hello" and isinstance(end, session.Client):
        end.hello(**split_fields(frames.Hello, value))
    elif name == "reject" and isinstance(end, session.Server):
        reason, _, text = value.partition(":")
        print(end.hello())
        end.reject(int(reason, 0), text.encode())
    elif name == "epoch":
        end.request_epoch(int(value or "2"))
        print(f"epoch {end.epoch}")
    elif name == "renew":
        print(f"epoch {end.epoch + 1}, reason {end.answer_request()}")
    elif name == "send":
        end.send_bytes(bytes.fromhex(value))
    elif name == "slowly":
        for byte in bytes.fromhex(value):
            end.send_bytes(bytes([byte]))
    elif name == "hold":
        time.sleep(float(value))
    elif name == "wait":
        wait(end)
    elif name == "disconnect":
        print(end.disconnect(value.encode()))
    elif name == "answer":
        print(end.answer_disconnect(value.encode()))
    else:
        raise ValueError(f"no such step: {word}")


def do_steps(end, words):
    with end:
        for word in words or ["establish", "disconnect"]:
            step(end, word)


def do_connect(arguments):
    host, _, port = arguments.server.rpartition(":")
    ctx = channel.context("client", arguments.cert, arguments.key, arguments.ca)
    do_steps(session.Client(host.strip("[]"), int(port), ctx, arguments.name, arguments.timeout), arguments.step)


def do_serve(arguments):
    ctx = channel.context("server", arguments.cert, arguments.key, arguments.client_ca)
    family = socket.AF_INET6 if ":" in arguments.listen else socket.AF_INET
    with socket.create_server((arguments.listen, arguments.port), family=family) as listener:
        print(f"listening on port {listener.getsockname()[1]}", flush=True)
        do_steps(session.Server(listener, ctx, arguments.timeout), arguments.step)


def do_frame(arguments):
    cls = KINDS[arguments.kind]
    print(cls(**session.fields_of(cls, arguments.field)).encode().hex())


def do_decode(arguments):
    data = bytes.fromhex(arguments.hex or sys.stdin.read())
    while data:
        length, version, kind = frames.HEADER.unpack_from(data)
        end = frames.HEADER.size + length
        frames.demand(len(data) >= end, f"{len(data)} bytes of a frame of {end}")
        print(f"version {version}: {frames.decode(kind, data[frames.HEADER.size:end])}")
        data = data[end:]


def parser():
    top = argparse.ArgumentParser(description=__doc__, epilog=STEPS, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = top.add_subparsers(dest="command", required=True)
    for name, function in (("connect", do_connect), ("serve", do_serve)):
        command = commands.add_parser(name, epilog=STEPS, formatter_class=argparse.RawDescriptionHelpFormatter)
        command.set_defaults(function=function)
        command.add_argument("--cert", required=name == "serve", help="certificate of this end")
        command.add_argument("--key", required=name == "serve", help="private key of this end")
        command.add_argument("--timeout", type=float, default=30, help="seconds that each step may take (default 30)")
        if name == "connect":
            command.add_argument("--ca", required=True, help="CA to verify the server with")
            command.add_argument("--name", help="name that the server's certificate must have; default: the host")
            command.add_argument("server", metavar="HOST:PORT")
        else:
            command.add_argument("--client-ca", help="CA to verify the client with; default: the server requests no certificate")
            command.add_argument("--listen", default="127.0.0.1", help="address (default 127.0.0.1)")
            command.add_argument("--port", type=int, default=4433, help="TCP port; 0: any free one (default 4433)")
        command.add_argument("step", nargs="*")
    command = commands.add_parser("frame", help="print a frame in hexadecimal digits")
    command.set_defaults(function=do_frame)
    command.add_argument("kind", choices=KINDS)
    command.add_argument("field", nargs="*", metavar="FIELD=VALUE")
    command = commands.add_parser("decode", help="print the frames that hexadecimal digits hold")
    command.set_defaults(function=do_decode)
    command.add_argument("hex", nargs="?", help="default: standard input")
    return top


def main():
    arguments = parser().parse_args()
    try:
        arguments.function(arguments)
    except (frames.Breach, session.Rejected, channel.Ended, OSError, ValueError) as error:
        sys.exit(f"peer.py: {error}")


if __name__ == "__main__":
    main()
