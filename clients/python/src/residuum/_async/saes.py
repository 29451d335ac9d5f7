"""Sparse autoencoders that a server has loaded."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from .._core import arguments
from .._core.results.search import FeatureHits
from .._core.wire import compact, path

if TYPE_CHECKING:
    from .client import AsyncClient


class AsyncSae:
    """A sparse autoencoder beside a served model."""

    def __init__(self, client: AsyncClient, data: dict[str, Any]) -> None:
        self._client = client
        self._data = data

    @property
    def id(self) -> str:
        """Its id."""
        return str(self._data["id"])

    @property
    def model_id(self) -> str:
        """The model it belongs to."""
        return str(self._data["model"])

    @property
    def status(self) -> str:
        """`ready`, or what happens to it."""
        return str(self._data["status"])

    @property
    def hook(self) -> str:
        """The hook it reads, with its layer."""
        return str(self._data["hook"])

    @property
    def layer(self) -> int | None:
        """Its layer."""
        layer: int | None = self._data.get("layer")
        return layer

    @property
    def architecture(self) -> str:
        """`standard`, `jumprelu`, `topk` or `gated`."""
        return str(self._data["architecture"])

    @property
    def d_in(self) -> int:
        """Width of what it encodes."""
        return int(self._data["d_in"])

    @property
    def d_sae(self) -> int:
        """Number of features."""
        return int(self._data["d_sae"])

    @property
    def settings(self) -> dict[str, Any]:
        """Its other settings, as SAELens names them."""
        return dict(self._data.get("settings") or {})

    @property
    def warnings(self) -> list[dict[str, str]]:
        """Whatever is unusual about it, as `{code, detail}`."""
        return list(self._data.get("warnings") or [])

    def feature(self, number: int, side: str | None = None) -> dict[str, Any]:
        """A feature as a direction, for steering, projections and searches.

        Args:
            number: The feature.
            side: `decoder` (default): what one unit of it adds; `encoder`: the vector that detects it.
        """
        return compact({"sae": self.id, "feature": int(number), "side": side})

    async def tokens(
        self,
        features: int | Iterable[int],
        *,
        k: int | None = None,
        filter: Mapping[str, Any] | None = None,
        context: int | None = None,
        skip_first: int | None = None,
        special: bool | None = None,
        allow_bos_mismatch: bool | None = None,
        **conditions: Any,
    ) -> Any:
        """Where features are strongest, over every stored position of the hook.

        Args:
            features: One feature or several.
            k: Hits for each.
            filter: Conditions on caches.
            context: Tokens on either side of a hit.
            skip_first: Positions left out at the beginning of each input.
            special: Whether special tokens take part; as the autoencoder was trained by default.
            allow_bos_mismatch: Whether caches take part whose BOS token differs from its training.
            conditions: Further conditions, such as `tags=["x"]`, `run=…`, `label=…`.

        Returns:
            For one feature its hits, a sequence; for several a list of these.
        """
        one = isinstance(features, int)
        body = compact(
            {
                "features": [int(f) for f in ([features] if isinstance(features, int) else features)],
                "k": k,
                "filter": arguments.conditions(filter, **conditions),
                "context": context,
                "skip_first": skip_first,
                "special": special,
                "allow_bos_mismatch": allow_bos_mismatch,
            }
        )
        answer = await self._client.transport.json("POST", path("saes", self.id, "tokens"), json=body, idempotent=True)
        found = [FeatureHits(f, answer["hook"], answer["scanned"]) for f in answer["features"]]
        return found[0] if one else found

    async def refresh(self) -> AsyncSae:
        """Asks for its current description."""
        self._data = await self._client.transport.json("GET", path("saes", self.id))
        return self

    async def unload(self, wait: float | None = None) -> None:
        """Takes it out of the server's memory. Needs the scope `admin`."""
        await self._client.transport.request("DELETE", path("saes", self.id), params={"wait": wait})

    def __repr__(self) -> str:
        if "d_sae" not in self._data:
            return f"Sae({self.id!r}, {self.status})"
        return f"Sae({self.id!r}, {self.architecture}, {self.hook}, {self.d_in} → {self.d_sae} features)"


class AsyncSaes:
    """The autoencoders of a server: `c.saes`."""

    def __init__(self, client: AsyncClient) -> None:
        self._client = client

    async def list(self) -> list[AsyncSae]:
        """All of them."""
        answer = await self._client.transport.json("GET", path("saes"))
        return [AsyncSae(self._client, d) for d in answer["items"]]

    async def get(self, id: str) -> AsyncSae:
        """One of them.

        Raises:
            SaeNotFound: There is none of this id.
        """
        return AsyncSae(self._client, await self._client.transport.json("GET", path("saes", id)))

    async def load(
        self, id: str, model: str, source: str, *, wait: float = 60.0, force: bool | None = None
    ) -> AsyncSae:
        """Loads one while the server runs. Needs the scope `admin`.

        Args:
            id: Its id.
            model: The model it belongs to.
            source: A folder under the server's `--models-dir`.
            wait: Seconds to wait until it is loaded.
            force: Whether it is loaded although memory is scarce.
        """
        body = compact({"id": id, "model": model, "source": source, "force": force})
        timeout = wait + self._client.config.timeout
        data = await self._client.transport.json(
            "POST", path("saes"), json=body, params={"wait": wait}, timeout=timeout
        )
        return AsyncSae(self._client, data)
