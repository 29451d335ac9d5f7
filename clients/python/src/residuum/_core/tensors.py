"""Tensors as they come from the server: npy and safetensors, read without copies where numpy allows it.

numpy has no bfloat16. Such values become float32 in numpy, which represents them exactly, and stay bfloat16 in torch.
"""

from __future__ import annotations

import ast
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .problem import TensorError

if TYPE_CHECKING:
    import torch

Array = NDArray[Any]

# Names of types: in safetensors, and as the API and numpy spell them.
NAMES = {
    "F64": "float64",
    "F32": "float32",
    "F16": "float16",
    "BF16": "bfloat16",
    "I64": "int64",
    "I32": "int32",
    "I16": "int16",
    "I8": "int8",
    "U64": "uint64",
    "U32": "uint32",
    "U16": "uint16",
    "U8": "uint8",
    "BOOL": "bool",
}
CODES = {name: code for code, name in NAMES.items()}
ITEM_BYTES = {"BF16": 2, "BOOL": 1} | {code: int(code[1:]) // 8 for code in NAMES if code[1:].isdigit()}


class Tensor:
    """One tensor: its bytes as stored, and numpy and torch made of them when asked.

    Attributes:
        name: Its name, which is a hook for activations.
        shape: Its shape.
        dtype: Its type as stored: `float32`, `float16`, `bfloat16`, or a type of integer.
        axes: Names of the axes, where known: `("pos", "d_model")`.
    """

    __slots__ = ("_array", "_data", "axes", "dtype", "name", "shape")

    def __init__(
        self, name: str, dtype: str, shape: tuple[int, ...], data: memoryview | bytes, axes: tuple[str, ...] = ()
    ) -> None:
        self.name, self.dtype, self.shape, self.axes = name, dtype, shape, axes
        self._data = data
        self._array: Array | None = None

    def numpy(self) -> Array:
        """As a read-only array. No copy is made, except that bfloat16 is widened to float32."""
        if self._array is None:
            self._array = _as_numpy(self._data, self.dtype, self.shape)
        return self._array

    def torch(self) -> torch.Tensor:
        """As a torch tensor of the stored type, on the CPU. It is a copy, because torch tensors are writable."""
        import torch

        dtype = getattr(torch, self.dtype)
        if len(self._data) == 0:
            return torch.empty(self.shape, dtype=dtype)
        return torch.frombuffer(bytearray(self._data), dtype=dtype).reshape(self.shape)

    def unstack(self) -> list[Tensor]:
        """Its parts along the first axis, which share its bytes."""
        n = self.shape[0]
        size = len(self._data) // n if n else 0
        view = memoryview(self._data)
        parts = (view[i * size : (i + 1) * size] for i in range(n))
        return [Tensor(self.name, self.dtype, self.shape[1:], part, self.axes[1:]) for part in parts]

    def __repr__(self) -> str:
        return f"Tensor({self.name!r}, {self.dtype}, {list(self.shape)})"


def _as_numpy(data: memoryview | bytes, dtype: str, shape: tuple[int, ...]) -> Array:
    if dtype == "bfloat16":
        bits = np.frombuffer(data, dtype="<u2").astype(np.uint32)
        array: Array = np.left_shift(bits, 16, out=bits).view(np.float32).reshape(shape)
    else:
        kind = "bool" if dtype == "bool" else np.dtype(dtype).newbyteorder("<")
        array = np.frombuffer(data, dtype=kind).reshape(shape)
    array.flags.writeable = False
    return array


def read_safetensors(data: bytes | memoryview) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors of a safetensors file in memory, which share its bytes, and its metadata.

    Raises:
        TensorError: It is not such a file, or it is cut short.
    """
    view = memoryview(data)
    try:
        length = int.from_bytes(view[:8], "little")
        if len(view) < 8 or length > len(view) - 8:
            raise TensorError("the safetensors file is shorter than its header says")
        header = json.loads(bytes(view[8 : 8 + length]))
        body = view[8 + length :]
        metadata = header.pop("__metadata__", None) or {}
        return {name: _entry(name, entry, body, metadata) for name, entry in header.items()}, metadata
    except (ValueError, KeyError, TypeError, AttributeError) as e:
        if isinstance(e, TensorError):
            raise
        raise TensorError(f"not a safetensors file: {e}") from None


def _entry(name: str, entry: Mapping[str, Any], body: memoryview, metadata: Mapping[str, str]) -> Tensor:
    code, shape = entry["dtype"], tuple(int(n) for n in entry["shape"])
    start, end = entry["data_offsets"]
    if code not in NAMES:
        raise TensorError(f"{name} has the type {code}, which this client does not read")
    count = 1
    for n in shape:
        count *= n
    if not 0 <= start <= end <= len(body) or end - start != count * ITEM_BYTES[code]:
        raise TensorError(f"{name} does not fit into its file, which may be cut short")
    axes = metadata.get("axes")
    return Tensor(name, NAMES[code], shape, body[start:end], tuple(axes.split(",")) if axes else ())


def read_npy(data: bytes | memoryview) -> Array:
    """The array of an `.npy` file in memory, read-only; it shares the bytes.

    Raises:
        TensorError: It is not such a file, or it is cut short.
    """
    view = memoryview(data)
    if bytes(view[:6]) != b"\x93NUMPY" or len(view) < 12:
        raise TensorError("not an npy file")
    start = 10 if view[6] == 1 else 12
    length = int.from_bytes(view[8:start], "little")
    try:
        header = ast.literal_eval(bytes(view[start : start + length]).decode("latin1"))
        dtype, shape, fortran = np.dtype(header["descr"]), header["shape"], header["fortran_order"]
        if dtype.hasobject:
            raise ValueError("it holds Python objects")
        array: Array = np.frombuffer(
            view, dtype=dtype, offset=start + length, count=int(np.prod(shape, dtype=np.int64))
        )
    except (ValueError, SyntaxError, KeyError, TypeError) as e:
        raise TensorError(f"not an npy file, or cut short: {e}") from None
    array = array.reshape(shape, order="F" if fortran else "C")
    array.flags.writeable = False
    return array


def write_safetensors(arrays: Mapping[str, Any], metadata: Mapping[str, str] | None = None) -> bytes:
    """A safetensors file of numpy arrays, torch tensors (bfloat16 too) or anything numpy can read.

    Raises:
        TensorError: There are no arrays, or one has a type that safetensors lacks.
    """
    if not arrays:
        raise TensorError("there is no array to write")
    header: dict[str, Any] = {"__metadata__": dict(metadata)} if metadata else {}
    parts: list[bytes] = []
    end = 0
    # Wide types first, as the reference implementation does: so every tensor is aligned.
    raw = sorted(
        ((str(name), *_raw(str(name), value)) for name, value in arrays.items()), key=lambda r: -ITEM_BYTES[CODES[r[1]]]
    )
    for name, dtype, shape, data in raw:
        header[name] = {"dtype": CODES[dtype], "shape": list(shape), "data_offsets": [end, end + len(data)]}
        end += len(data)
        parts.append(data)
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return b"".join([len(text).to_bytes(8, "little"), text, *parts])


def _raw(name: str, value: Any) -> tuple[str, tuple[int, ...], bytes]:
    if isinstance(value, Tensor):
        return value.dtype, value.shape, bytes(value._data)
    if type(value).__module__.partition(".")[0] == "torch":
        value = value.detach().cpu().contiguous()
        if str(value.dtype) == "torch.bfloat16":
            import torch

            return "bfloat16", tuple(value.shape), value.view(torch.int16).numpy().tobytes()
        value = value.numpy()
    array = np.asarray(value)
    kind = array.dtype.name
    if kind not in NAMES.values():
        raise TensorError(f"{name} has the type {kind}, which safetensors cannot hold")
    return kind, array.shape, np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<")).tobytes()
