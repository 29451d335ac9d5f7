"""An array that is fetched when it is touched, and then behaves as numpy's."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.lib.mixins import NDArrayOperatorsMixin

from .tensors import Array

if TYPE_CHECKING:
    import torch


class LazyArray(NDArrayOperatorsMixin):
    """Anything that numpy does with an array fetches it first. Subclasses say how, in `_value`."""

    def _value(self) -> Array:
        raise NotImplementedError

    def numpy(self) -> Array:
        """The array itself, read-only."""
        return self._value()

    def torch(self) -> torch.Tensor:
        """A copy as a torch tensor."""
        import torch

        return torch.from_numpy(self._value().copy())

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Array:
        value = self._value()
        if dtype is not None and value.dtype != dtype:
            return value.astype(dtype)
        return value.copy() if copy else value

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, **kwargs: Any) -> Any:
        values = [x._value() if isinstance(x, LazyArray) else x for x in inputs]
        return getattr(ufunc, method)(*values, **kwargs)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):  # asked by copy, pickle and notebooks, which must not cause a fetch
            raise AttributeError(name)
        return getattr(self._value(), name)

    def __getitem__(self, key: Any) -> Any:
        return self._value()[key]

    def __len__(self) -> int:
        return len(self._value())

    def __iter__(self) -> Iterator[Any]:
        return iter(self._value())
