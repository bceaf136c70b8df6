#!/usr/bin/env python3
"""Maps memory that an Isobar node has granted into this process, without a copy.

    isobar call allocate size_bytes=67108864 persistent=true | examples/map.py --write hello -
    examples/map.py --socket /run/user/1000/isobar/data.sock CLAIM

The claim is given on the command line, or `-` takes it from the node's reply on
standard input. Python 3.9 or later, nothing else: the data socket's messages are
small MessagePack maps behind a 4-byte length, with file descriptors beside them.
"""

import argparse
import json
import mmap
import os
import signal
import socket
import struct
import sys
import zlib


def pack(v):
    """MessagePack of the few kinds of values that requests have."""
    if isinstance(v, dict):
        return bytes([0x80 | len(v)]) + b"".join(pack(k) + pack(x) for k, x in v.items())
    if isinstance(v, int):
        return b"\xce" + struct.pack(">I", v)
    s = v.encode()
    return b"\xda" + struct.pack(">H", len(s)) + s


def unpack(b, i=0):
    """The value at b[i], and where the next one begins."""
    def number(form, i):
        return struct.unpack_from(form, b, i)[0], i + struct.calcsize(form)

    def items(n, i, pairs):
        out = []
        for _ in range(2 * n if pairs else n):
            x, i = unpack(b, i)
            out.append(x)
        return (dict(zip(out[::2], out[1::2])) if pairs else out), i

    t, i = b[i], i + 1
    if t < 0x80 or t >= 0xE0:
        return (t if t < 0x80 else t - 256), i
    if t < 0xA0:
        return items(t & 0x0F, i, t < 0x90)
    if t < 0xC0:
        return b[i:i + (t & 0x1F)].decode(), i + (t & 0x1F)
    if t in (0xC0, 0xC2, 0xC3):
        return {0xC0: None, 0xC2: False, 0xC3: True}[t], i
    if 0xCA <= t <= 0xD3:
        return number((">f", ">d", ">B", ">H", ">I", ">Q", ">b", ">h", ">i", ">q")[t - 0xCA], i)
    n, i = number({0xD9: ">B", 0xDA: ">H", 0xDB: ">I", 0xC4: ">B", 0xC5: ">H", 0xC6: ">I",
                   0xDC: ">H", 0xDD: ">I", 0xDE: ">H", 0xDF: ">I"}[t], i)
    if t >= 0xDC:
        return items(n, i, t >= 0xDE)
    return (b[i:i + n].decode() if t >= 0xD9 else b[i:i + n]), i + n


class Session:
    """A connection to the data socket. While it lives, so do the grants it holds."""

    def __init__(self, path):
        self.sock = socket.socket(socket.AF_UNIX)
        try:
            self.sock.connect(path)
        except OSError as e:
            sys.exit(f"{path}: {e.strerror}: is the node running, and may this user map its memory (isobar run --allow-uid {os.getuid()})?")
        self.last = 0
        self.ask({"type": "hello", "client": "map.py", "version": "1"})

    def ask(self, message):
        """Sends a message; returns its answers and the descriptors of each."""
        self.last += 1
        body = pack({**message, "id": self.last})
        self.sock.sendall(struct.pack(">I", len(body)) + body)
        answers = []
        while True:
            answer, fds = self.receive()
            if answer["type"] == "error":
                sys.exit(f"{answer['error_code']}: {answer['error_message']}")
            if answer["type"] == "revoke" or answer["id"] != self.last:
                continue  # a program that stays would unmap now, and say so
            answers.append((answer, fds))
            if not answer.get("more"):
                return answers

    def receive(self):
        fds = []

        def exactly(n):
            got = b""
            while len(got) < n:
                part, more, _, _ = socket.recv_fds(self.sock, n - len(got), 253)
                if not part:
                    sys.exit("the node has closed the connection")
                got += part
                fds.extend(more)
            return got

        return unpack(exactly(struct.unpack(">I", exactly(4))[0]))[0], fds

    def map(self, claim, mode):
        """Redeems a claim; returns what was mapped, a view of each segment, and the tensors."""
        views, tensors = [], []
        for answer, fds in self.ask({"type": "map", "claim": claim, "mode": mode}):
            if answer["kind"] != "memfd":
                sys.exit(f"{answer['kind']} is memory of a GPU: its driver's API maps it")
            for s in answer["segments"]:
                prot = mmap.PROT_READ | (mmap.PROT_WRITE if mode == "rw" else 0)
                m = mmap.mmap(fds[s["fd"]], s["segment_bytes"], mmap.MAP_SHARED, prot)
                views.append(memoryview(m)[s["offset"]:s["offset"] + s["size_bytes"]])
            for fd in fds:
                os.close(fd)  # the mapping stays
            tensors += answer["tensors"] or []
        return answer, views, tensors


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("claim", help="the claim of a handle, or - for the node's reply on standard input")
    p.add_argument("--socket", default=os.environ.get("XDG_RUNTIME_DIR", "/run") + "/isobar/data.sock")
    p.add_argument("--write", metavar="TEXT", help="map read-write, and write this at the beginning")
    p.add_argument("--hold", action="store_true", help="keep the mapping until a line is read from the terminal")
    args = p.parse_args()
    claim, path = args.claim, args.socket
    if claim == "-":
        text = sys.stdin.read()
        if not text.strip():
            sys.exit("there is no reply on standard input: what was to give it says why")
        reply = json.loads(text)
        data = reply.get("data", reply)
        if not data.get("handle"):
            sys.exit(f"no handle in the reply: {reply}")
        claim, path = data["handle"]["claim"], data["handle"]["data_socket"]

    session = Session(path)
    grant, views, tensors = session.map(claim, "rw" if args.write else "ro")
    if args.write:
        written = args.write.encode()
        views[0][:len(written)] = written  # straight into the granted memory
    crc = 0
    for v in views:
        crc = zlib.crc32(v, crc)
    print(f"{grant['allocation_id']}  {grant['size_bytes']} bytes in {len(views)} segment(s)  crc32 {crc:08x}")
    print("begins with", bytes(views[0][:16]))
    for t in tensors[:5]:
        b = views[t["segment"]][t["offset"]:t["offset"] + t["size_bytes"]]
        print(f"  {t['name']}  {t['dtype']} {t['shape']}  crc32 {zlib.crc32(b):08x}")
    if len(tensors) > 5:
        print(f"  and {len(tensors) - 5} more")
    if args.hold:
        with open("/dev/tty") as tty:
            tty.readline()


if __name__ == "__main__":
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # its reader may have had enough
    main()
