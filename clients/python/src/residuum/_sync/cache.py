# Derived from `_async/cache.py` by `scripts/make_sync.py`: do not edit.
"""A stored cache: its description, its tensors (fetched when touched, then kept), and its logits."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

import numpy as np

from .._core import hooks as hook_names
from .._core.codes import HookNotInCache
from .._core.hooks import HookKey
from .._core.info import CacheInfo
from .._core.tensors import Array, Tensor, read_npy, read_safetensors
from .._core.wire import compact, path, timestamp
from .access import CacheAccess, Logits
from .cache_questions import CacheQuestions
from .download import download

if TYPE_CHECKING:
    import torch

    from .client import Client
    from .run import Run

UNCHANGED: Any = object()


class Cache(CacheInfo, CacheAccess, CacheQuestions):
    """The activations of one input.

    Keys are full hook names, names with a layer, or TransformerLens's forms: `blocks.3.attn.hook_k`, `("k", 3)`,
    `"k3"`. An integer means `resid_post` of that layer. Iterating gives the full names.
    """

    def __init__(self, client: Client, data: dict[str, Any]) -> None:
        self._client = client
        self._data = data
        self._tensors: dict[str, Tensor] = {}
        self._logits_array: Array | None = None

    def resolve(self, key: HookKey, layer: int | None = None, layer_type: str | None = None) -> str:
        """The full name of the hook that a key means.

        Raises:
            HookNotInCache: The cache does not have it; the message lists what it has. It is a KeyError.
        """
        if isinstance(key, str) and layer is not None:
            key = (key, layer) if layer_type is None else (key, layer, layer_type)
        name = hook_names.resolve(key, self.keys(), self.n_layers)
        if name not in self.hooks:
            detail = f"cache {self.id} does not have {name}; it has {hook_names.describe(self.keys())}"
            raise HookNotInCache(detail)
        return name

    def tensor(self, key: HookKey, layer: int | None = None, layer_type: str | None = None) -> Tensor:
        """One hook with its stored type: `.numpy()`, `.torch()`, `.axes`. It is fetched once and kept."""
        name = self.resolve(key, layer, layer_type)
        if name not in self._tensors:
            body = self._client.transport.request(
                "GET", path("caches", self.id, "tensors", name), params={"format": "safetensors"}
            )
            tensors, _ = read_safetensors(body.content)
            self._tensors.setdefault(name, tensors[name])
        return self._tensors[name]

    def get(self, key: HookKey, layer: int | None = None, layer_type: str | None = None) -> Array:
        """One hook as a read-only numpy array, for example float32 `[pos, d_model]`; bfloat16 becomes float32."""
        return (self.tensor(key, layer, layer_type)).numpy()

    def layer(self, layer: int, hook: str = "resid_post") -> Array:
        """One layer of a hook; the residual stream after the block by default. Negative layers count from the last."""
        return self.get((hook, layer))

    def stack(self, hook: str = "resid_post", layers: Sequence[int] | None = None) -> Array:
        """One hook of several layers as one array `[layer, …]`: all that the cache has, in order, or these.

        What is missing is fetched in one request. `stacked_layers` gives the numbers of the layers.

        Raises:
            HookNotInCache: The cache has none of them.
            ShapeMismatch: The layers differ in shape.
        """
        names = self._stacked(hook, layers)
        missing = [name for name in names if name not in self._tensors]
        if len(missing) > 1:
            self._fetch_layers(hook, missing)
        arrays = [self.get(name) for name in names]
        if len({array.shape for array in arrays}) > 1:
            from .._core.codes import ShapeMismatch

            shapes = ", ".join(f"{n}: {list(a.shape)}" for n, a in zip(names, arrays, strict=True))
            raise ShapeMismatch(f"the layers differ in shape: {shapes}")
        stacked = np.stack(arrays)
        stacked.flags.writeable = False
        return stacked

    def stacked_layers(self, hook: str = "resid_post") -> list[int]:
        """The layers for which the cache has a hook, in order: the first axis of `stack(hook)`."""
        short = hook_names.without_layer(hook_names.act_name(hook)).removeprefix("hook_")
        wanted = {short, hook_names.short_name(short)}
        layers = [hook_names.layer_of(n) for n in self.keys() if hook_names.without_layer(n) in wanted]
        return sorted(layer for layer in layers if layer is not None)

    def _stacked(self, hook: str, layers: Sequence[int] | None) -> list[str]:
        chosen = self.stacked_layers(hook) if layers is None else list(layers)
        if not chosen:
            detail = f"cache {self.id} has no layer of {hook}; it has {hook_names.describe(self.keys())}"
            raise HookNotInCache(detail)
        return [self.resolve((hook, layer)) for layer in chosen]

    def _fetch_layers(self, hook: str, names: list[str]) -> None:
        """Fetches all stored layers of a hook at once; each becomes a view of the one answer."""
        short = hook_names.without_layer(names[0])
        shapes = {self.hooks[name].shape for name in self.hooks if hook_names.without_layer(name) == short}
        if len(shapes) > 1:
            return
        body = self._client.transport.request(
            "GET", path("caches", self.id, "layers"), params={"format": "safetensors", "hook": short}
        )
        tensors, _ = read_safetensors(body.content)
        (whole,) = tensors.values()
        for layer, part in zip(self.stacked_layers(short), whole.unstack(), strict=True):
            part.name = self.resolve((short, layer))
            self._tensors.setdefault(part.name, part)

    def load(self, hooks: Iterable[HookKey] | None = None) -> Cache:
        """Fetches all tensors in one request, or those of `hooks`; afterwards every access is immediate."""
        if hooks is not None:
            for key in hooks:
                self.tensor(key)
            return self
        if all(name in self._tensors for name in self.hooks):
            return self
        body = self._client.transport.request("GET", path("caches", self.id, "safetensors"))
        tensors, _ = read_safetensors(body.content)
        for name, tensor in tensors.items():
            if name in self.hooks:
                tensor.axes = self.hooks[name].axes
                self._tensors.setdefault(name, tensor)
        return self

    def unload(self) -> None:
        """Frees the arrays; they are fetched again when touched."""
        self._tensors.clear()
        self._logits_array = None

    def numpy(self) -> dict[str, Array]:
        """All tensors as read-only arrays, by full name."""
        self.load()
        return {name: self._tensors[name].numpy() for name in self.hooks}

    def torch(self, key: HookKey | None = None, layer: int | None = None) -> Any:
        """One hook as a torch tensor of the stored type (bfloat16 stays), or all of them as a dict by full name."""
        if key is not None:
            return (self.tensor(key, layer)).torch()
        self.load()
        tensors: dict[str, torch.Tensor] = {name: self._tensors[name].torch() for name in self.hooks}
        return tensors

    @property
    def logits(self) -> Logits:
        """The model's logits, `[pos, d_vocab]`, or `[d_vocab]` where one position was captured.

        They are not stored. They are computed when they are touched, from the stored output of the last block, and
        equal the model's own bit for bit if that is stored as float32. `logits[-1]` asks for that position only.
        """
        return Logits(self)

    def _read_logits(self, row: int | None = None) -> Array:
        """All logits, or those of one of the captured rows."""
        if "logits" in self.hooks:
            stored = self.get("logits")
            return stored if row is None else stored[row]
        last = f"blocks.{self.n_layers - 1}.hook_resid_post"
        if last not in self.hooks:
            detail = f"cache {self.id} has neither logits nor {last}, from which they are computed; capture one of them"
            raise HookNotInCache(detail)
        body: dict[str, Any] = {"layers": [self.n_layers - 1]}
        if row is not None:
            body["positions"] = [row]
        answer = self._client.transport.request(
            "POST",
            path("caches", self.id, "lens"),
            params={"format": "npy", "values": "logits"},
            json=body,
            idempotent=True,
        )
        rows: Array = read_npy(answer.content)[0]  # [pos, d_vocab]
        return rows if self.hooks[last].has_positions and row is None else rows[0]

    def _logits_rows(self) -> int | None:
        """Number of rows of the logits; None if they have no position axis."""
        name = "logits" if "logits" in self.hooks else f"blocks.{self.n_layers - 1}.hook_resid_post"
        hook = self.hooks.get(name)
        return hook.shape[0] if hook and hook.has_positions else None

    def refresh(self) -> Cache:
        """Asks the server for the current description."""
        self._take(self._client.transport.json("GET", path("caches", self.id)))
        return self

    def update(
        self,
        *,
        label: str | None = UNCHANGED,
        tags: Sequence[str] = UNCHANGED,
        metadata: dict[str, Any] = UNCHANGED,
        pinned: bool = UNCHANGED,
        expires_at: datetime | str | None = UNCHANGED,
    ) -> Cache:
        """Changes what can be changed; what is left out stays.

        Args:
            label: A new label; None removes it.
            tags: Replaces all tags.
            metadata: Is merged into the metadata; None as a value removes a key.
            pinned: Whether it is protected from expiry and eviction.
            expires_at: When it expires; None: never.
        """
        fields = {
            "label": label,
            "tags": tags if tags is UNCHANGED else list(tags),
            "metadata": metadata,
            "pinned": pinned,
            "expires_at": timestamp(expires_at) if isinstance(expires_at, datetime) else expires_at,
        }
        body = {name: value for name, value in fields.items() if value is not UNCHANGED}
        answer = self._client.transport.json("PATCH", path("caches", self.id), json=body, idempotent=True)
        self._take(answer)
        return self

    def tag(self, *tags: str) -> Cache:
        """Adds tags."""
        self.refresh()
        return self.update(tags=list(dict.fromkeys([*self.tags, *tags])))

    def untag(self, *tags: str) -> Cache:
        """Removes tags."""
        self.refresh()
        return self.update(tags=[t for t in self.tags if t not in tags])

    def pin(self) -> Cache:
        """Protects it from expiry and eviction."""
        return self.update(pinned=True)

    def unpin(self) -> Cache:
        """Takes the protection away."""
        return self.update(pinned=False)

    def delete(self) -> None:
        """Deletes it from the server. Arrays that were fetched stay."""
        self._client.transport.request("DELETE", path("caches", self.id))

    def save(self, file: str | os.PathLike[str], *, annotations: bool = True, progress: bool | None = None) -> None:
        """Downloads all tensors into one safetensors file, which `import_cache` reads.

        Args:
            file: Where to write; it is replaced once the download is complete.
            annotations: Whether label, tags and metadata go into the file.
            progress: Whether a bar is shown; None: on a terminal and in a notebook.
        """
        params = compact({"annotations": annotations or None})
        where = path("caches", self.id, "safetensors")
        download(self._client.transport, "GET", where, file, params=params, progress=progress)

    def run(self) -> Run:
        """The run that made it."""
        return self._client.run(self.run_id)

    def _take(self, data: dict[str, Any]) -> None:
        self._data, self._hooks = data, None
