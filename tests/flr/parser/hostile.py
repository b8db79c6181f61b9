# SPDX-License-Identifier: Apache-2.0
"""A parser that was taken over. Started as the real one is, with what it does as its first argument."""

from __future__ import annotations

import os
import socket
import sys
import time

import msgspec

from flr.parser.protocol import Done, Need, Peer, Ready


def main() -> None:
    what = sys.argv[1]
    connection = socket.socket(fileno=int(sys.argv[2]))
    peer = Peer(connection)
    if what == "dies at once":
        os._exit(3)
    if what == "never greets":
        time.sleep(1000)
    peer.send(msgspec.msgpack.encode(Ready(["none"], ["everything: it is a test"])))
    peer.receive()
    if what == "thinks for ever":
        time.sleep(1000)
    elif what == "drips":
        connection.sendall(b"\xff\xff\x0f\x00")
        while True:
            connection.sendall(b"\x00")
            time.sleep(0.01)
    elif what == "a huge frame":
        connection.sendall(b"\xff\xff\xff\xff")
        time.sleep(1000)
    elif what == "no msgpack":
        peer.send(b"\xc1\xc1\xc1")
    elif what == "another type":
        peer.send(msgspec.msgpack.encode(Done(msgspec.Raw(msgspec.msgpack.encode({"a": 1})))))
    elif what == "greets again":
        peer.send(msgspec.msgpack.encode(Ready([], [])))
    elif what == "wants bytes outside":
        peer.send(msgspec.msgpack.encode(Need([(0, 1 << 40, 10)])))
        peer.receive()
    elif what == "wants another disk":
        peer.send(msgspec.msgpack.encode(Need([(7, 0, 10)])))
        peer.receive()
    elif what == "wants too much":
        peer.send(msgspec.msgpack.encode(Need([(0, 0, 512)] * 100_000)))
        peer.receive()
    elif what == "wants for ever":
        while True:  # each wish is a small one
            peer.send(msgspec.msgpack.encode(Need([(0, 0, 512)])))
            peer.receive()
            time.sleep(0.01)
    elif what == "asks and does not read":
        peer.send(msgspec.msgpack.encode(Need([(0, 0, 4 << 20)])))
    elif what == "tiny wishes in many blocks":
        peer.send(msgspec.msgpack.encode(Need([(0, k << 20, 1) for k in range(300)])))
        peer.receive()
    elif what == "a wish of many megabytes":
        peer.send(b"\x92\xa1n\xdd\x00\x0f\x42\x40" + b"\x93\x00\x00\x01" * 1_000_000)
        peer.receive()
    elif what == "dies in the middle":
        peer.send(msgspec.msgpack.encode(Need([(0, 0, 512)])))
        peer.receive()
        os.abort()
    elif what == "nests":
        peer.send(b"\x91" * 100_000)
    time.sleep(1000)


if __name__ == "__main__":
    main()
