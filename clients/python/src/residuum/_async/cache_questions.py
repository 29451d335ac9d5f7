"""Questions about one cache, answered without running the model again."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from .._core import arguments
from .._core.arguments import Layers, Positions, Token
from .._core.results.attribution import Attribution
from .._core.results.lens import LogitLens
from .._core.results.search import Features
from .._core.tensors import Array, read_npy
from .._core.wire import compact, path

if TYPE_CHECKING:
    from .client import AsyncClient


class AsyncCacheQuestions:
    """What a cache can be asked: the logit lens, attribution of logits, features of autoencoders."""

    _client: AsyncClient

    async def _ask(self: Any, question: str, body: dict[str, Any], **params: Any) -> Any:
        where = path("caches", self.id, question)
        return await self._client.transport.request("POST", where, params=params, json=body, idempotent=True)

    async def logit_lens(
        self,
        layers: Layers = None,
        tokens: Token | Iterable[Token] | None = None,
        *,
        positions: Positions = None,
        top_k: int | None = None,
        hook: str | None = None,
    ) -> LogitLens:
        """What the stored residual stream says about the next token at each layer: final norm and unembedding.

        At the last block's output it is the model's own distribution.

        Args:
            layers: All that are stored by default.
            tokens: Tokens to follow: ids, or texts that are one token, such as `" Paris"`.
            positions: All that are stored by default; `"last"`, a number, a list, a slice.
            top_k: How many of the most probable tokens are named; 10 by default.
            hook: `resid_post` (default), `resid_pre` or `resid_mid`.

        Raises:
            Conflict: The weights that made the cache are not served.
            NotReadable: The model's residual stream cannot be read as logits.
        """
        body = compact(
            {
                "layers": arguments.layers(layers),
                "tokens": arguments.tokens(tokens),
                "positions": arguments.positions(positions),
                "top_k": top_k,
                "hook": hook,
            }
        )
        return LogitLens((await self._ask("lens", body)).json())

    async def lens_distributions(
        self,
        layers: Layers = None,
        *,
        positions: Positions = None,
        values: str = "log_probs",
        hook: str | None = None,
    ) -> Array:
        """The whole distributions of the logit lens: float32 `[layer, pos, d_vocab]`.

        Args:
            layers: All that are stored by default. The answer has 256 MiB at most.
            positions: All that are stored by default.
            values: `log_probs`, natural logarithms, or `logits`.
            hook: `resid_post` (default), `resid_pre` or `resid_mid`.
        """
        body = compact({"layers": arguments.layers(layers), "positions": arguments.positions(positions), "hook": hook})
        return read_npy((await self._ask("lens", body, format="npy", values=values)).content)

    async def logit_attribution(
        self, answer: Token, against: Token | None = None, *, position: Any = None, components: str | None = None
    ) -> Attribution:
        """A logit, or the difference of two, as a sum over the parts of the model (direct logit attribution).

        Args:
            answer: The token: an id, or a text that is one token.
            against: A token whose logit is subtracted.
            position: Where the logits are; the last by default.
            components: `heads` or `sublayers`; the finest that is stored by default. `heads` needs the hooks `embed`,
                `attn.z`, `mlp_out` and `resid_post`; `sublayers` needs `attn_out` instead of `attn.z`.

        Raises:
            HookNotStored: The message says what to capture.
        """
        body = compact(
            {
                "token": arguments.token(answer),
                "against": None if against is None else arguments.token(against),
                "position": arguments.positions(position),
                "components": components,
            }
        )
        return Attribution((await self._ask("attribution", body)).json())

    async def features(
        self,
        sae: Any,
        *,
        positions: Positions = None,
        top_k: int | None = None,
        features: Iterable[int] | None = None,
        allow_bos_mismatch: bool | None = None,
    ) -> Features:
        """The features of a sparse autoencoder at each position, and how well they reconstruct it.

        Args:
            sae: The autoencoder, or its id.
            positions: By default those whose tokens it was trained on.
            top_k: How many of the strongest features are named at each position.
            features: Features whose activations are wanted at every position, as `activations`.
            allow_bos_mismatch: Whether it is only a warning if the BOS token differs from its training.
        """
        body = _features_body(sae, positions, features, allow_bos_mismatch, top_k)
        return Features((await self._ask("features", body)).json())

    async def feature_activations(
        self,
        sae: Any,
        features: Iterable[int] | None = None,
        *,
        positions: Positions = None,
        allow_bos_mismatch: bool | None = None,
    ) -> Array:
        """Activations of features: float32 `[pos, feature]`; of all features by default."""
        body = _features_body(sae, positions, features, allow_bos_mismatch)
        return read_npy((await self._ask("features", body, format="npy")).content)


def _features_body(
    sae: Any, positions: Positions, features: Iterable[int] | None, allow: bool | None, top_k: int | None = None
) -> dict[str, Any]:
    return compact(
        {
            "sae": sae if isinstance(sae, str) else sae.id,
            "positions": arguments.positions(positions),
            "top_k": top_k,
            "features": None if features is None else [int(f) for f in features],
            "allow_bos_mismatch": allow,
        }
    )
