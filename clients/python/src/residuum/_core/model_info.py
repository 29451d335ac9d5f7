"""What the server says of a model, as properties."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from . import show
from .info import Described, HookInfo, hook_infos

if TYPE_CHECKING:
    from .. import models


class ModelInfo(Described):
    """The description of a model."""

    _hooks: dict[str, HookInfo] | None = None

    @property
    def info(self) -> models.ModelDetails:
        """The description of a loaded model as a typed model."""
        from .. import models

        return models.ModelDetails.model_validate(self._data)

    def _detail(self, name: str) -> Any:
        value = self._data.get(name)
        if value is None:
            raise AttributeError(f"{self.id} is {self.status}: its {name} is not known")
        return value

    @property
    def status(self) -> str:
        """`loading`, `ready`, `unloading` or `failed`."""
        return str(self._data["status"])

    @property
    def architecture(self) -> str:
        """`model_type` of the checkpoint."""
        return str(self._detail("architecture"))

    @property
    def fingerprint(self) -> str:
        """blake3 of weights, configuration and tokenizer."""
        return str(self._detail("fingerprint"))

    @property
    def n_layers(self) -> int:
        """Number of blocks."""
        return int(self._detail("n_layers"))

    @property
    def d_model(self) -> int:
        """Width of the residual stream."""
        return int(self._detail("d_model"))

    @property
    def n_heads(self) -> int:
        """Number of query heads."""
        return int(self._detail("n_heads"))

    @property
    def n_kv_heads(self) -> int:
        """Number of key/value heads."""
        return int(self._detail("n_kv_heads"))

    @property
    def d_head(self) -> int:
        """Width of a head."""
        return int(self._detail("d_head"))

    @property
    def d_mlp(self) -> int:
        """Hidden width of an MLP."""
        return int(self._detail("d_mlp"))

    @property
    def d_vocab(self) -> int:
        """Size of the vocabulary."""
        return int(self._detail("d_vocab"))

    @property
    def n_ctx(self) -> int:
        """Longest input in tokens."""
        return int(self._detail("n_ctx"))

    @property
    def hooks(self) -> dict[str, HookInfo]:
        """Every hook point by full name, in execution order."""
        if self._hooks is None:
            self._hooks = hook_infos(self._detail("hooks"))
        return self._hooks

    @property
    def warnings(self) -> list[dict[str, Any]]:
        """What is unusual about the checkpoint, as `{code, detail}`."""
        return list(self._data.get("warnings") or [])

    def __repr__(self) -> str:
        return show.model_text(self)

    def _repr_html_(self) -> str:
        return show.model_html(self)
