"""What the server says of a cache, as properties. Shared by the async and the sync classes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from . import hooks as hook_names
from . import show

if TYPE_CHECKING:
    from .. import models


@dataclass(frozen=True)
class HookInfo:
    """One hook: of a cache with its shape, or of a model, where None is an axis whose length depends on the input."""

    name: str
    shape: tuple[int | None, ...]
    axes: tuple[str, ...]
    dtype: str | None = None
    layer: int | None = None

    @property
    def has_positions(self) -> bool:
        """Whether it has a position axis."""
        return "pos" in self.axes or "q_pos" in self.axes


def hook_infos(listed: Any) -> dict[str, HookInfo]:
    """The hooks of a cache or a model by name."""
    return {
        h["hook"]: HookInfo(
            name=h["hook"],
            shape=tuple(h["shape"]),
            axes=tuple(h["axes"]),
            dtype=h.get("dtype"),
            layer=hook_names.layer_of(h["hook"]),
        )
        for h in listed or ()
    }


def parse_time(text: str | None) -> datetime | None:
    """A time of the API."""
    if text is None:
        return None
    whole, _, rest = text.replace("Z", "+00:00").partition(".")
    if rest:  # Python 3.10 reads three or six digits only
        digits, sign, zone = rest.partition("+") if "+" in rest else rest.partition("-")
        whole = f"{whole}.{digits[:6]:0<6}{sign}{zone}"
    return datetime.fromisoformat(whole)


class Described:
    """Something the server describes with JSON, which is kept in `data`."""

    _data: dict[str, Any]

    @property
    def data(self) -> dict[str, Any]:
        """The JSON as the server sent it."""
        return self._data

    @property
    def id(self) -> str:
        """Its id."""
        return str(self._data["id"])

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Described) and type(self) is type(other) and self.id == other.id

    def __hash__(self) -> int:
        return hash((type(self).__name__, self.id))


class CacheInfo(Described):
    """The description of a cache."""

    _hooks: dict[str, HookInfo] | None = None
    _token_ids: NDArray[np.int64] | None = None

    @property
    def info(self) -> models.Cache:
        """The description as a typed model."""
        from .. import models

        return models.Cache.model_validate(self._data)

    @property
    def run_id(self) -> str:
        """The run that made it."""
        return str(self._data["run"])

    @property
    def item_index(self) -> int:
        """Index of its input in the run."""
        return int(self._data["item_index"])

    @property
    def model_id(self) -> str:
        """Name of the model."""
        return str(self._data["model"])

    @property
    def label(self) -> str | None:
        """Its label."""
        label: str | None = self._data.get("label")
        return label

    @property
    def tags(self) -> list[str]:
        """Its tags."""
        return list(self._data.get("tags") or [])

    @property
    def metadata(self) -> dict[str, Any]:
        """Its metadata."""
        return dict(self._data.get("metadata") or {})

    @property
    def text(self) -> str | None:
        """The text as posted or rendered; None where token ids were posted."""
        text: str | None = self._data.get("text")
        return text

    @property
    def tokens(self) -> list[str]:
        """The text of each token."""
        return list(self._data["tokens"])

    @property
    def token_ids(self) -> NDArray[np.int64]:
        """The token ids, int64 `[n_tokens]`, read-only."""
        if self._token_ids is None:
            self._token_ids = np.asarray(self._data["token_ids"], dtype=np.int64)
            self._token_ids.flags.writeable = False
        return self._token_ids

    @property
    def n_tokens(self) -> int:
        """Number of tokens."""
        return int(self._data["n_tokens"])

    @property
    def n_layers(self) -> int:
        """Number of blocks of the model."""
        return int(self._data["n_layers"])

    @property
    def d_model(self) -> int:
        """Width of the residual stream."""
        return int(self._data["d_model"])

    @property
    def positions(self) -> Any:
        """The positions that were captured."""
        return self._data["positions"]

    @property
    def hooks(self) -> dict[str, HookInfo]:
        """The captured hooks, by full name."""
        if self._hooks is None:
            self._hooks = hook_infos(self._data["hooks"])
        return self._hooks

    @property
    def provenance(self) -> dict[str, Any]:
        """What computed the numbers."""
        return dict(self._data["provenance"])

    @property
    def warnings(self) -> list[dict[str, Any]]:
        """What was unusual, as `{code, detail}`."""
        return list(self._data["provenance"].get("warnings") or [])

    @property
    def reused(self) -> bool:
        """Whether the numbers came from the store instead of a forward pass."""
        return bool(self._data["reused"])

    @property
    def n_bytes(self) -> int:
        """Bytes its tensors take in the store."""
        return int(self._data["n_bytes"])

    @property
    def content_hash(self) -> str:
        """blake3 of the stored tensors."""
        return str(self._data["content_hash"])

    @property
    def created_at(self) -> datetime:
        """When it was stored."""
        time = parse_time(self._data["created_at"])
        assert time is not None
        return time

    @property
    def expires_at(self) -> datetime | None:
        """When it expires; None if never."""
        return parse_time(self._data.get("expires_at"))

    @property
    def pinned(self) -> bool:
        """Whether it is protected from expiry and eviction."""
        return bool(self._data.get("pinned"))

    @property
    def completion(self) -> str | None:
        """The text that was generated, if the run continued the input."""
        completion: Mapping[str, Any] | None = self._data.get("completion")
        return completion.get("text") if completion else None

    def keys(self) -> list[str]:
        """The full names of the captured hooks."""
        return list(self.hooks)

    def __iter__(self) -> Iterator[str]:
        return iter(self.hooks)

    def __len__(self) -> int:
        return len(self.hooks)

    def __bool__(self) -> bool:
        return True  # a cache without hooks is a cache

    def __contains__(self, key: object) -> bool:
        if not isinstance(key, (str, int, tuple)):
            return False
        try:
            return hook_names.resolve(key, self.keys(), self.n_layers) in self.hooks
        except (TypeError, ValueError):
            return False

    def __repr__(self) -> str:
        return show.cache_text(self)

    def _repr_html_(self) -> str:
        return show.cache_html(self)
