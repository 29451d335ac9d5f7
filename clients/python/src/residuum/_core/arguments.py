"""What users pass, as the API takes it: layers, positions, selections of caches, directions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np

Layers: TypeAlias = "str | int | Sequence[int] | range | None"
Positions: TypeAlias = "str | int | Sequence[int] | slice | range | Mapping[str, Any] | None"
Token: TypeAlias = "str | int"
# Conditions, ids, one cache or many; or what a capture returned.
Caches: TypeAlias = Any
# The name of a stored direction, a direction, a feature, a cache, or a vector.
DirectionLike: TypeAlias = Any


def layers(value: Layers) -> str | int | list[int] | None:
    """`layers` of a request: `"all"`, one layer or several. Not a slice: its end is not known here."""
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, Iterable):
        return [_integer(v, "a layer") for v in value]
    return _integer(value, "a layer")


def positions(value: Positions) -> Any:
    """Positions of a request: a name, one, several, a slice without a step, or the API's own objects."""
    if value is None or isinstance(value, (str, Mapping)):
        return value
    if isinstance(value, slice):
        if value.step not in (None, 1):
            raise ValueError("a slice of positions has no step; pass a list, such as list(range(0, 10, 2))")
        ends = {"start": value.start, "end": value.stop}
        return {name: _integer(v, "a position") for name, v in ends.items() if v is not None}
    if isinstance(value, Iterable):
        return [_integer(v, "a position") for v in value]
    return _integer(value, "a position")


def _integer(value: Any, what: str) -> int:
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, (int, np.integer)):
        raise TypeError(f"{what} is an integer, not {value!r}")
    return int(value)


def token(value: Token) -> str | int:
    """A token: an id, or a text that is one token."""
    return value if isinstance(value, str) else _integer(value, "a token id")


def tokens(values: Token | Iterable[Token] | None) -> list[str | int] | None:
    """Several tokens; one by itself is a list of one."""
    if values is None:
        return None
    if isinstance(values, (str, int, np.integer)):
        return [token(values)]
    return [token(v) for v in values]


def cache_id(value: Any) -> str:
    """The id of a cache, or the id itself."""
    if isinstance(value, str):
        return value
    found = getattr(value, "id", None)
    if not isinstance(found, str):
        raise TypeError(f"expected a cache or its id, not {type(value).__name__}")
    return found


def caches(value: Caches) -> Any:
    """A selection of caches: conditions stay as they are, a run is a condition, anything else becomes a list of ids."""
    if isinstance(value, Mapping):
        return dict(value)
    ids = getattr(value, "cache_ids", None)
    if ids is not None:
        return list(ids)
    if hasattr(value, "n_items"):
        return {"run": value.id}
    if isinstance(value, str) or hasattr(value, "id"):
        return [cache_id(value)]
    try:
        listed = iter(value)
    except TypeError:
        raise TypeError(f"expected caches, their ids or conditions, not {type(value).__name__}") from None
    return [cache_id(v) for v in listed]


def conditions(value: Mapping[str, Any] | None, **given: Any) -> dict[str, Any] | None:
    """Conditions on caches, from a mapping and from keyword arguments; `tag` is short for `tags` with one."""
    merged = {**(value or {}), **{name: v for name, v in given.items() if v is not None}}
    if "tag" in merged:
        tag = merged.pop("tag")
        merged["tags"] = [*merged.get("tags", []), *([tag] if isinstance(tag, str) else tag)]
    if isinstance(merged.get("tags"), str):
        merged["tags"] = [merged["tags"]]
    return merged or None


def direction(value: DirectionLike) -> dict[str, Any]:
    """A direction of a request.

    Takes the name of a stored direction, an object of `c.directions` or `sae.feature(…)`, a cache (its own vector at
    each layer), a vector, or the API's own object.

    Raises:
        ValueError: An array has more than one axis, or holds NaN or infinity.
        TypeError: It is none of these.
    """
    if isinstance(value, str):
        return {"direction": value}
    if isinstance(value, Mapping):
        return {key: _listed(v) for key, v in value.items()}
    reference = getattr(value, "direction_ref", None)
    if reference is not None:
        return dict(reference)
    if hasattr(value, "token_ids") and isinstance(getattr(value, "id", None), str):
        return {"cache": value.id}
    return {"vector": vector(value)}


def _listed(value: Any) -> Any:
    return value.tolist() if hasattr(value, "tolist") else value


def vector(value: Any) -> list[float]:
    """The numbers of a vector: a list, a numpy array, a torch tensor."""
    numbers = matrix(value)
    if numbers.ndim != 1:
        raise ValueError(f"a vector has one axis, not the shape {list(numbers.shape)}")
    return [float(v) for v in numbers]


def matrix(value: Any) -> np.ndarray[Any, np.dtype[np.float64]]:
    """The numbers of an array or a tensor as float64; float32 and bfloat16 are represented exactly."""
    if hasattr(value, "detach"):
        value = value.detach().cpu().double().numpy()
    try:
        numbers = np.asarray(value, dtype=np.float64)
    except (TypeError, ValueError):
        raise TypeError(f"expected a vector of numbers or a stored direction, not {type(value).__name__}") from None
    if not np.isfinite(numbers).all():
        raise ValueError("a vector cannot hold NaN or infinity")
    return numbers
