"""npy and safetensors, read without copies."""

from __future__ import annotations

import io
import json

import numpy as np
import pytest
import safetensors.numpy

from residuum import TensorError
from residuum._core.tensors import read_npy, read_safetensors, write_safetensors

RNG = np.random.default_rng(0)


@pytest.mark.parametrize("dtype", ["float32", "float16", "float64", "int64", "int32", "uint8", "bool"])
@pytest.mark.parametrize("shape", [(3, 4), (5,), (), (0, 4), (2, 1, 3)])
def test_npy_is_what_numpy_reads(dtype: str, shape: tuple[int, ...]) -> None:
    array = np.asarray(RNG.normal(size=shape) * 3).astype(dtype)
    for value in (array, np.asfortranarray(array)):
        buffer = io.BytesIO()
        np.save(buffer, value)
        read = read_npy(buffer.getvalue())
        np.testing.assert_array_equal(read, array)
        assert read.dtype == array.dtype
        assert not read.flags.writeable


def test_no_copy_is_made() -> None:
    buffer = io.BytesIO()
    np.save(buffer, np.arange(1000.0))
    data = buffer.getvalue()
    assert np.shares_memory(read_npy(data), np.frombuffer(data, dtype=np.uint8))
    data = write_safetensors({"a": np.arange(1000.0, dtype=np.float32)})
    tensor = read_safetensors(data)[0]["a"]
    assert np.shares_memory(tensor.numpy(), np.frombuffer(data, dtype=np.uint8))
    assert tensor.numpy() is tensor.numpy()
    assert not tensor.numpy().flags.writeable


def test_safetensors_both_ways() -> None:
    arrays = {
        "a": RNG.normal(size=(3, 4)).astype(np.float32),
        "b": RNG.normal(size=(2,)).astype(np.float16),
        "ids": np.arange(5),
        "none": np.zeros((0, 3), np.float32),
    }
    data = write_safetensors(arrays, {"model": "m"})
    for name, array in safetensors.numpy.load(data).items():
        np.testing.assert_array_equal(array, arrays[name])
    tensors, metadata = read_safetensors(data)
    assert metadata == {"model": "m"}
    for name, array in arrays.items():
        np.testing.assert_array_equal(tensors[name].numpy(), array)
        assert tensors[name].shape == array.shape


def bfloat16_file() -> tuple[bytes, np.ndarray]:
    values = np.array([1.0, -2.5, 3.140625, np.inf, 1e30, 0.0], np.float32)
    bits = (values.view(np.uint32) >> 16).astype("<u2")
    header = json.dumps({"x": {"dtype": "BF16", "shape": [2, 3], "data_offsets": [0, 12]}}).encode()
    exact = (bits.astype(np.uint32) << 16).view(np.float32).reshape(2, 3)
    return len(header).to_bytes(8, "little") + header + bits.tobytes(), exact


def test_bfloat16_is_float32_in_numpy() -> None:
    data, exact = bfloat16_file()
    tensor = read_safetensors(data)[0]["x"]
    assert tensor.dtype == "bfloat16"
    assert tensor.numpy().dtype == np.float32
    np.testing.assert_array_equal(tensor.numpy(), exact)
    assert not tensor.numpy().flags.writeable


def test_bfloat16_stays_in_torch() -> None:
    torch = pytest.importorskip("torch")
    data, exact = bfloat16_file()
    tensor = read_safetensors(data)[0]["x"].torch()
    assert tensor.dtype == torch.bfloat16
    np.testing.assert_array_equal(tensor.float().numpy(), exact)
    tensor[0, 0] = 7  # a copy: the array that is kept does not change
    np.testing.assert_array_equal(read_safetensors(data)[0]["x"].numpy(), exact)
    again = read_safetensors(write_safetensors({"x": tensor, "f": torch.ones(2, 2).T}))[0]
    assert again["x"].dtype == "bfloat16"
    assert again["x"].numpy()[0, 0] == 7
    assert again["f"].torch().dtype == torch.float32


def test_parts_share_the_bytes() -> None:
    array = RNG.normal(size=(3, 2, 4)).astype(np.float32)
    tensor = read_safetensors(write_safetensors({"x": array}))[0]["x"]
    parts = tensor.unstack()
    np.testing.assert_array_equal(np.stack([p.numpy() for p in parts]), array)
    assert np.shares_memory(parts[1].numpy(), tensor.numpy())


@pytest.mark.parametrize("cut", [0, 4, 20, 150, -1])
def test_a_cut_file_is_an_error(cut: int) -> None:
    data = write_safetensors({"x": np.ones((10, 10), np.float32)})[:cut]
    with pytest.raises(TensorError):
        read_safetensors(data)
    buffer = io.BytesIO()
    np.save(buffer, np.ones((10, 10)))
    with pytest.raises(TensorError):
        read_npy(buffer.getvalue()[:cut])


def test_hostile_headers_are_errors() -> None:
    def file(header: object) -> bytes:
        text = json.dumps(header).encode()
        return len(text).to_bytes(8, "little") + text + bytes(16)

    for entry in [
        {"dtype": "F32", "shape": [4], "data_offsets": [0, 12]},
        {"dtype": "F32", "shape": [4], "data_offsets": [-16, 0]},
        {"dtype": "F32", "shape": [8], "data_offsets": [0, 32]},
        {"dtype": "F8_E4M3", "shape": [16], "data_offsets": [0, 16]},
        {"shape": [4]},
        3,
    ]:
        with pytest.raises(TensorError):
            read_safetensors(file({"x": entry}))
    with pytest.raises(TensorError):
        read_safetensors(file([1]))
    objects = io.BytesIO()
    np.save(objects, np.array([{}], dtype=object), allow_pickle=True)
    with pytest.raises(TensorError):
        read_npy(objects.getvalue())


def test_what_safetensors_cannot_hold_is_told() -> None:
    with pytest.raises(TensorError, match="complex128"):
        write_safetensors({"x": np.ones(2, complex)})
    with pytest.raises(TensorError, match="no array"):
        write_safetensors({})
