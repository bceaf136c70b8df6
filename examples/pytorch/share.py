#!/usr/bin/env python3
"""Two processes serve the same model from one copy of its weights while a third wants memory.

    share.py [--url nats://127.0.0.1:4222] [--device gpu-0]

Each server reads two models: the generator, which it cannot do without, and the upscaler, which
it can. The third process asks for more than is left. That raises the pressure; the servers hear
of it and close the upscaler; the node drops it and grants the memory. The servers have answered
all the while, and every answer was the same.

With PyTorch the weights are torch tensors (on the GPU where the device is one), else numpy arrays.
"""

import argparse
import json
import os
import random
import struct
import subprocess
import sys
import tempfile
import threading

import isobar

try:
    import torch
except ImportError:
    torch = None

WIDTH = 1024


def write_model(path, layers, seed):
    """Random weights in a safetensors file: layers of WIDTH × WIDTH, 4 MiB each."""
    numbers = random.Random(seed)
    row = [struct.pack("<f", numbers.uniform(-0.03, 0.03)) for _ in range(4093)]  # a prime: no two rows are alike
    header, size = {}, 4 * WIDTH * WIDTH
    for i in range(layers):
        header[f"layers.{i}.weight"] = {"dtype": "F32", "shape": [WIDTH, WIDTH], "data_offsets": [i * size, (i + 1) * size]}
    text = json.dumps(header).encode()
    with open(path, "wb") as f:
        f.write(struct.pack("<Q", len(text)) + text)
        block = b"".join(row) * (layers * WIDTH * WIDTH // len(row) + 1)
        f.write(block[: layers * size])


def answer(weights):
    """A forward pass."""
    first = next(iter(weights.values()))
    if torch is not None:
        x = torch.ones(1, WIDTH, device=first.device)
        for w in weights.values():
            x = torch.tanh(x @ w.T)
        return float(x.double().sum())
    import numpy

    x = numpy.ones((1, WIDTH), "f4")
    for w in weights.values():
        x = numpy.tanh(x @ w.T)
    return float(x.sum(dtype="f8"))


def serve(args):
    """A server: answers until its standard input ends."""
    stop, using = threading.Event(), threading.Lock()
    threading.Thread(target=lambda: (sys.stdin.read(), stop.set()), daemon=True).start()
    with isobar.connect(args.url) as client:
        generator = client.load_model(args.run + "-generator", device=args.device)
        upscaler = client.load_model(args.run + "-upscaler", device=args.device)
        weights, cheap = generator.tensors(), upscaler.tensors()
        want, released = answer(weights), threading.Event()

        def relieve(pressure):
            if pressure.level >= isobar.PressureLevel.HIGH and not upscaler.closed:
                with using:  # nobody computes with it just now
                    upscaler.close()  # which empties the dict, too
                print(f"server {os.getpid()}: pressure is {pressure.level.value}, the upscaler is released", flush=True)
                released.set()

        with client.on_pressure(relieve, device=args.device):
            print("ready", flush=True)
            served = 0
            while not (stop.is_set() and released.is_set()):
                with using:
                    if cheap:
                        answer(cheap)
                if answer(weights) != want:
                    sys.exit("a wrong answer")
                served += 1
                stop.wait(0.01)
        print(f"server {os.getpid()}: answered all the while, always the same: {want:.6f}", flush=True)
        if served == 0:
            sys.exit("no answer")


def demand(args):
    """The third process: wants memory that is not there yet."""
    with isobar.connect(args.url) as client:
        with client.allocate(args.bytes, device=args.device, purpose="training", queue=60, progress=True) as buffer:
            print(f"the third process has its {buffer.size_bytes >> 20} MiB", flush=True)


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--url", default=os.environ.get("ISOBAR_NATS_URL", "nats://127.0.0.1:4222"))
    p.add_argument("--device", help="gpu-0, ram-0, …; without it a GPU where the node has one")
    p.add_argument("--layers", type=int, default=4, help="4 MiB each, of either model")
    p.add_argument("--role", choices=["serve", "demand"], help=argparse.SUPPRESS)
    p.add_argument("--run", default=f"share-{os.getpid()}", help=argparse.SUPPRESS)
    p.add_argument("--bytes", type=int, help=argparse.SUPPRESS)
    args = p.parse_args()
    if args.role:
        return {"serve": serve, "demand": demand}[args.role](args)

    with isobar.connect(args.url) as client, tempfile.TemporaryDirectory() as folder:
        if not args.device:
            devices = [d["device_id"] for d in client.devices()]
            args.device = next((d for d in devices if d.startswith("gpu")), devices[0])
        for seed, name in enumerate((args.run + "-generator", args.run + "-upscaler")):
            path = os.path.join(folder, name + ".safetensors")
            write_model(path, args.layers, seed)
            # The file is passed to the node as a descriptor: it need not lie in a model root.
            client.load_model(name, path, offer=True, device=args.device).close()

        def start(role, *more):
            return subprocess.Popen(
                [sys.executable, __file__, "--url", args.url, "--device", args.device, "--run", args.run, "--role", role, *more],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            )

        servers = [start("serve") for _ in range(2)]
        for s in servers:
            if s.stdout.readline() != "ready\n":
                sys.exit("a server did not start")
        of = {m["name"]: m for m in client.models()}
        size = of[args.run + "-upscaler"]["size_bytes"]
        info = client.status(args.device)["memory_info"]
        print(f"two servers share {2 * size >> 20} MiB of weights on {args.device}, which has {info['model_memory'] >> 20} MiB of models")
        third = start("demand", "--bytes", str(info["available_memory"] + size // 2))
        failed = False
        for s in (third, *servers):
            out, _ = s.communicate()
            print(out, end="")
            failed |= s.returncode != 0
        where = {m["name"].removeprefix(args.run + "-"): [r["device_id"] for r in m["residency"]]
                 for m in client.models() if m["name"].startswith(args.run)}
        for name, on in where.items():
            if on and args.device not in on:
                print(f"{name} was moved to {on[0]}, from where it is back soon")
        print(f"on {args.device} now:", ", ".join(sorted(name for name, on in where.items() if args.device in on)))
        for name in of:
            if name.startswith(args.run):
                client.unload_model(name)
        sys.exit(failed)


if __name__ == "__main__":
    main()
