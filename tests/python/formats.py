"""Reads tensors in every format the server speaks into numpy arrays; bfloat16, which numpy lacks, becomes float32."""

import io
import json
import re
import struct

import numpy as np
import safetensors.numpy

try:
    import safetensors.torch
    import torch
except ImportError:
    torch = None


def to_bfloat16(values):
    """float32 rounded to bfloat16, ties to even, as the upper 16 bits. Only for finite values."""
    bits = np.ascontiguousarray(values, dtype=np.float32).view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)


def from_bfloat16(bits):
    """bfloat16 given as 16 bits, widened to float32 without loss."""
    return (bits.astype(np.uint32) << 16).view(np.float32)


def rounded(values, dtype):
    """What float32 `values` become in `dtype`, as an array numpy can hold (bfloat16 widened to float32)."""
    if dtype == "bfloat16":
        return from_bfloat16(to_bfloat16(values))
    with np.errstate(over="ignore"):
        return values.astype(dtype)


def same(actual, expected, what):
    """Fails unless both have the same type, shape and bits."""
    assert actual.dtype == expected.dtype, f"{what}: dtype {actual.dtype}, expected {expected.dtype}"
    assert actual.shape == expected.shape, f"{what}: shape {actual.shape}, expected {expected.shape}"
    assert actual.tobytes() == expected.tobytes(), f"{what}: the numbers differ"


def from_json(tensor):
    """The tensor of a JSON answer as float32; every stored value is one, so nothing is lost."""
    values = np.array(tensor["values"], dtype=np.float64)
    assert list(values.shape) == tensor["shape"], f"values are {values.shape}, shape says {tensor['shape']}"
    assert np.isfinite(values).all()
    return values.astype(np.float32)


def from_npy(body):
    return np.load(io.BytesIO(body), allow_pickle=False)


def from_raw(response):
    """A `format=raw` answer, read by its headers alone."""
    shape = tuple(int(n) for n in re.findall(r"\d+", response.headers["residuum-shape"]))
    dtype = response.headers["residuum-dtype"]
    if dtype == "bfloat16":
        return dtype, from_bfloat16(np.frombuffer(response.body, "<u2")).reshape(shape)
    return dtype, np.frombuffer(response.body, np.dtype(dtype).newbyteorder("<")).reshape(shape)


def from_safetensors(body):
    """Every tensor of a safetensors file. The safetensors package gives numpy no bfloat16, so that is read here."""
    header, _ = safetensors_header(body)
    if not any(entry["dtype"] == "BF16" for entry in header.values()):
        return safetensors.numpy.load(body)
    start = 8 + struct.unpack("<Q", body[:8])[0]
    tensors = {}
    for name, entry in header.items():
        begin, end = (start + offset for offset in entry["data_offsets"])
        if entry["dtype"] == "BF16":
            flat = from_bfloat16(np.frombuffer(body[begin:end], "<u2"))
        else:
            flat = np.frombuffer(body[begin:end], {"F32": "<f4", "F16": "<f2", "I64": "<i8"}[entry["dtype"]])
        tensors[name] = flat.reshape(entry["shape"])
    return tensors


def safetensors_header(body):
    """The entries of a safetensors header by tensor name, and its metadata."""
    header = json.loads(body[8 : 8 + struct.unpack("<Q", body[:8])[0]])
    metadata = header.pop("__metadata__", {})
    return header, metadata


def from_torch(tensor):
    """A torch tensor as numpy, bfloat16 widened to float32."""
    return (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).numpy()
