#!/usr/bin/env python3
"""A pipeline of three models (encoder, unet, vae), served from the pool.

    pipeline.py [--url nats://127.0.0.1:4222] [--device gpu-0]

Random weights are written to files, as a diffusion pipeline has them. Then the same picture is
made twice: with models that read their files themselves, and with models whose weights the node
holds, shared with whoever else loads them. The two are equal bit by bit.

Needs PyTorch; without it three stacks of layers in numpy show the same.
"""

import argparse
import json
import os
import struct
import sys
import tempfile

import isobar
import numpy

try:
    import torch
except ImportError:
    torch = None

PARTS = ("encoder", "unet", "vae")
STEPS = 4

if torch is not None:
    from torch import nn

    class Encoder(nn.Module):
        """A prompt's tokens become vectors."""

        def __init__(self):
            super().__init__()
            self.tokens = nn.Embedding(256, 64)
            self.layer = nn.TransformerEncoderLayer(64, 4, 128, batch_first=True)

        def forward(self, prompt):
            return self.layer(self.tokens(prompt))

    class UNet(nn.Module):
        """Takes noise away, as the prompt wants it."""

        def __init__(self):
            super().__init__()
            self.down, self.middle = nn.Conv2d(4, 32, 3, padding=1), nn.Conv2d(32, 32, 3, padding=1)
            self.norm, self.prompt, self.up = nn.BatchNorm2d(32), nn.Linear(64, 32), nn.Conv2d(32, 4, 3, padding=1)

        def forward(self, latent, prompt):
            x = nn.functional.silu(self.norm(self.down(latent)))
            return self.up(self.middle(x + self.prompt(prompt.mean(1))[:, :, None, None]))

    class VAE(nn.Module):
        """Makes a picture of the latent."""

        def __init__(self):
            super().__init__()
            self.up, self.out = nn.ConvTranspose2d(4, 16, 4, stride=4), nn.Conv2d(16, 3, 3, padding=1)

        def forward(self, latent):
            return torch.tanh(self.out(nn.functional.silu(self.up(latent))))

    MODULES = {"encoder": Encoder, "unet": UNet, "vae": VAE}


def state(part, seed):
    """Random weights of a part, as numpy arrays."""
    if torch is not None:
        torch.manual_seed(seed)
        return {k: v.numpy() for k, v in MODULES[part]().state_dict().items()}
    random = numpy.random.default_rng(seed)
    return {f"{i}.weight": random.standard_normal((64, 64), "f4") / 8 for i in range(3)}


def save(path, arrays):
    """Writes a safetensors file."""
    header, data = {}, b""
    for name, a in arrays.items():
        raw, dtype = a.tobytes(), {"float32": "F32", "int64": "I64"}[str(a.dtype)]
        header[name] = {"dtype": dtype, "shape": list(a.shape), "data_offsets": [len(data), len(data) + len(raw)]}
        data += raw
    text = json.dumps(header).encode()
    with open(path, "wb") as f:
        f.write(struct.pack("<Q", len(text)) + text + data)


def read(path):
    """The ordinary way: the file is read into memory of this process."""
    with open(path, "rb") as f:
        header = json.loads(f.read(struct.unpack("<Q", f.read(8))[0]))
        data = f.read()
    kinds = {"F32": "f4", "I64": "i8"}
    return {
        k: numpy.frombuffer(bytearray(data[slice(*v["data_offsets"])]), kinds[v["dtype"]]).reshape(v["shape"]) for k, v in header.items()
    }


def picture(parts, device):
    """Runs the pipeline."""
    if torch is None:
        x = numpy.linspace(-1, 1, 64, dtype="f4")[None]
        for part in (parts["encoder"], *[parts["unet"]] * STEPS, parts["vae"]):
            for w in part.values():
                x = numpy.tanh(x @ w)
        return x
    with torch.inference_mode():
        prompt = parts["encoder"](torch.tensor([list(b"isobars on a weather map")], device=device))
        latent = torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(7)).to(device)
        for _ in range(STEPS):
            latent = latent - parts["unet"](latent, prompt) / STEPS
        return parts["vae"](latent)


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--url", default=os.environ.get("ISOBAR_NATS_URL", "nats://127.0.0.1:4222"))
    p.add_argument("--device", help="gpu-0, ram-0, …; without it a GPU where the node has one")
    args = p.parse_args()
    with isobar.connect(args.url) as client, tempfile.TemporaryDirectory() as folder:
        if not args.device:
            devices = [d["device_id"] for d in client.devices()]
            args.device = next((d for d in devices if d.startswith("gpu")), devices[0])
        files = {part: os.path.join(folder, f"{part}.safetensors") for part in PARTS}
        for seed, (part, path) in enumerate(files.items()):
            save(path, state(part, seed))

        models = {}
        for part, path in files.items():
            name = f"pipeline-{os.getpid()}-{part}"
            models[part] = client.load_model(name, path, type=part, offer=True, device=args.device, progress=True)
        if torch is None:
            own, pooled, device = {k: read(f) for k, f in files.items()}, {k: m.tensors() for k, m in models.items()}, None
        else:
            device = next(iter(models["unet"].tensors().values())).device
            own, pooled = {}, {}
            for part, path in files.items():
                own[part] = MODULES[part]().eval()
                own[part].load_state_dict({k: torch.from_numpy(v) for k, v in read(path).items()})
                own[part].to(device)
                with torch.device("meta"):  # no memory for weights that are there already
                    pooled[part] = MODULES[part]().eval()
                models[part].load_into(pooled[part])
        want, got = picture(own, device), picture(pooled, device)
        same = bool((want == got).all())
        shape = "×".join(str(n) for n in got.shape)
        print(f"{shape} of {'torch on ' + str(device) if torch is not None else 'numpy'}; weights on {args.device}: "
              f"{'equal bit by bit' if same else 'DIFFERENT'}")
        del want, got, own, pooled
        for m in models.values():
            if not m.close():
                sys.exit(f"{m!r} is still in use")
            client.unload_model(m.name)
        sys.exit(not same)


if __name__ == "__main__":
    main()
