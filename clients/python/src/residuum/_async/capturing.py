"""`model.capture`: from a data set to a capture."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from .._core.capture_spec import capture_spec, chat_options, one_of
from .._core.dataset import Label, Metadata, length, rows
from .._core.hooks import Hooks, Layers
from .._core.model_info import ModelInfo
from .._core.options import ChatOptions
from .._core.wire import compact
from .capture import AsyncCapture

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from .client import AsyncClient


class AsyncCapturing(ModelInfo):
    """The part of a model that captures data sets."""

    _client: AsyncClient

    async def capture(
        self,
        data: Any,
        *,
        text: str = "text",
        label: Label = None,
        metadata: Metadata = (),
        hooks: Hooks = None,
        names: Hooks = None,
        names_filter: Hooks = None,
        layers: Layers = None,
        positions: Any = None,
        dtype: str | None = None,
        tags: Sequence[str] = (),
        ttl: float | None = None,
        interventions: Sequence[Any] | None = None,
        prepend_bos: bool | None = None,
        truncate: str | None = None,
        reuse: bool | None = None,
        priority: str | None = "bulk",
        chunk_size: int = 256,
        max_in_flight: int = 4,
        reconnect: float = 600.0,
        progress: bool | None = None,
        **chat: Unpack[ChatOptions],
    ) -> AsyncCapture:
        """Captures a data set, in as many runs as it takes. It posts the first runs and returns; `wait()` does the rest.

        The same call with the same data goes on where it stopped: runs are found again by their content, also after a crash of
        this program or of the server, and nothing that is stored is computed twice. An input that is refused (too long, empty)
        does not stop the others: it is listed in `failed`.

        Args:
            data: Texts, lists of token ids or chats in any iterable; a pandas or polars column or table, a Hugging Face
                dataset (also a streaming one), an Arrow table, a dict of columns, or an iterable of mappings. A data set that
                streams is read as it is needed.
            text: The column of the inputs, for tables.
            label: The column of the labels, a function of the row, or the labels themselves.
            metadata: Columns that are stored as metadata of the caches, or a function of the row that gives a mapping.
            hooks: Which activations, as in `run_with_cache`; the residual stream by default.
            names: The same as `hooks`.
            names_filter: The same as `hooks`.
            layers: Layers of the hooks that do not name one; all by default.
            positions: Which positions, as in `run_with_cache`; the last by default, for encoders the mean.
            dtype: The type in which values are stored: `float32`, `float16` or `bfloat16`.
            tags: Tags of the caches.
            ttl: Seconds after which the caches expire.
            interventions: Changes during the forward pass.
            prepend_bos: Whether a BOS token is added; None leaves it to the tokenizer.
            truncate: What to do with inputs that are too long: `error` (they fail), `left` or `right`.
            reuse: False forces the forward pass of every input whose run is new.
            priority: `bulk` lets others go first.
            chunk_size: Inputs of one run. Another size makes other runs, so it is part of what is found again.
            max_in_flight: Runs that are in flight at a time.
            reconnect: Seconds for which the server may be away.
            progress: Whether `wait()` shows a bar; None: on a terminal and in a notebook.
            chat: For chats: `add_generation_prompt`, `continue_final_message`, `template_kwargs`, `chat_template`.

        Raises:
            ApiError: The server refuses the request as a whole: `UnknownHook`, `LayerOutOfRange`, …
            KeyError: The table has no such column.
        """
        chosen = one_of(hooks=hooks, names=names, names_filter=names_filter)
        body: dict[str, Any] = {
            "model": self.id,
            "capture": capture_spec(self, chosen, layers, positions, dtype),
            **chat_options(chat),
            **compact(
                {
                    "interventions": list(interventions) if interventions else None,
                    "prepend_bos": prepend_bos,
                    "truncate": truncate,
                    "reuse": reuse,
                    "priority": priority,
                    "tags": [tags] if isinstance(tags, str) else list(tags) or None,
                    "ttl_seconds": None if ttl is None else int(ttl),
                }
            ),
        }
        capture = AsyncCapture(
            self._client,
            body,
            rows(data, text, label, metadata),
            total=length(data),
            chunk_size=chunk_size,
            max_in_flight=max_in_flight,
            reconnect=reconnect,
            progress=progress,
        )
        return await capture.start()
