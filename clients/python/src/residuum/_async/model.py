"""A model of the server: its sizes and hooks, tokenizing, and running it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, overload

from .._core.capture_spec import capture_spec, chat_options, one_of, with_logits
from .._core.hooks import Hooks, Layers
from .._core.inputs import Input, parse_inputs, several
from .._core.options import ChatOptions, RunOptions, TokenizeOptions
from .._core.tokens import Tokenized
from .._core.wire import compact, path
from .capturing import AsyncCapturing
from .model_questions import AsyncModelQuestions
from .run import AsyncRun

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from .access import AsyncLogits
    from .cache import AsyncCache
    from .client import AsyncClient


class AsyncModel(AsyncCapturing, AsyncModelQuestions):
    """A model that the server runs."""

    def __init__(self, client: AsyncClient, data: dict[str, Any]) -> None:
        self._client = client
        self._data = data

    async def refresh(self) -> AsyncModel:
        """Asks the server for the current description."""
        self._data, self._hooks = await self._client.transport.json("GET", path("models", self.id)), None
        return self

    async def unload(self, *, wait: float = 60, cancel_runs: bool = False) -> None:
        """Unloads the model and frees its memory. What is stored stays.

        Args:
            wait: Seconds to wait until it is gone.
            cancel_runs: Whether its runs are cancelled, instead of computed first.
        """
        params = compact({"wait": wait, "cancel_runs": cancel_runs or None})
        timeout = wait + self._client.config.timeout
        await self._client.transport.request("DELETE", path("models", self.id), params=params, timeout=timeout)

    @overload
    async def tokenize(
        self, text: str | Mapping[str, Any] | list[int], **options: Unpack[TokenizeOptions]
    ) -> Tokenized: ...
    @overload
    async def tokenize(self, text: list[str], **options: Unpack[TokenizeOptions]) -> list[Tokenized]: ...
    @overload
    async def tokenize(self, text: Input, **options: Unpack[TokenizeOptions]) -> Any: ...
    async def tokenize(
        self,
        text: Input,
        *,
        prepend_bos: bool | None = None,
        add_generation_prompt: bool | None = None,
        continue_final_message: bool | None = None,
        template_kwargs: Mapping[str, Any] | None = None,
        chat_template: str | None = None,
    ) -> Any:
        """The tokens that a run of this input would have: a `Tokenized`, or a list of them for several inputs.

        Args:
            text: A text, token ids, or a chat (a list of messages); or a list of texts, or of lists of token ids.
            prepend_bos: Whether a BOS token is added; None leaves it to the tokenizer.
            add_generation_prompt: For a chat: whether the assistant's turn is opened.
            continue_final_message: For a chat: whether the last message is left open.
            template_kwargs: Variables of the chat template.
            chat_template: Another chat template, as Jinja source.
        """
        inputs = parse_inputs(text)
        body = compact(
            {
                "model": self.id,
                **(inputs.items[0] if inputs.single else {"input": several(inputs)}),
                "prepend_bos": prepend_bos,
                "add_generation_prompt": add_generation_prompt,
                "continue_final_message": continue_final_message,
                "template_kwargs": template_kwargs,
                "chat_template": chat_template,
            }
        )
        answer = await self._client.transport.json("POST", path("tokenize"), json=body, idempotent=True)
        if inputs.single:
            return Tokenized(answer)
        return [Tokenized(one) for one in answer.get("items", [answer])]

    async def run(
        self,
        input: Input,
        *,
        hooks: Hooks = None,
        names: Hooks = None,
        names_filter: Hooks = None,
        layers: Layers = None,
        positions: Any = None,
        dtype: str | None = None,
        interventions: Sequence[Any] | None = None,
        generate: Mapping[str, Any] | None = None,
        prepend_bos: bool | None = None,
        truncate: str | None = None,
        reuse: bool | None = None,
        priority: str | None = None,
        tags: Sequence[str] | None = None,
        metadata: Mapping[str, Any] | None = None,
        ttl: float | None = None,
        idempotency_key: str | None = None,
        **chat: Unpack[ChatOptions],
    ) -> AsyncRun:
        """Queues a run and returns at once. Arguments are those of `run_with_cache`; `wait()` waits for it."""
        inputs = parse_inputs(input)
        inputs.chat = chat_options(chat)
        spec = capture_spec(self, one_of(hooks=hooks, names=names, names_filter=names_filter), layers, positions, dtype)
        body = {
            "model": self.id,
            **inputs.body(),
            "capture": spec,
            **compact(
                {
                    "interventions": list(interventions) if interventions else None,
                    "generate": generate,
                    "prepend_bos": prepend_bos,
                    "truncate": truncate,
                    "reuse": reuse,
                    "priority": priority,
                    "tags": list(tags) if tags else None,
                    "metadata": metadata,
                    "ttl_seconds": None if ttl is None else int(ttl),
                }
            ),
        }
        return await self._client.post_run(body, idempotency_key=idempotency_key)

    @overload
    async def run_with_cache(
        self, input: str | Mapping[str, Any] | list[int], **options: Unpack[RunOptions]
    ) -> tuple[AsyncLogits, AsyncCache]: ...
    @overload
    async def run_with_cache(
        self, input: list[str], **options: Unpack[RunOptions]
    ) -> tuple[list[AsyncLogits], list[AsyncCache]]: ...
    @overload
    async def run_with_cache(self, input: Input, **options: Unpack[RunOptions]) -> Any: ...
    async def run_with_cache(
        self,
        input: Input,
        *,
        hooks: Hooks = None,
        names: Hooks = None,
        names_filter: Hooks = None,
        layers: Layers = None,
        positions: Any = "all",
        logits: bool = True,
        interventions: Sequence[Any] | None = None,
        dtype: str | None = None,
        prepend_bos: bool | None = None,
        truncate: str | None = None,
        reuse: bool | None = None,
        priority: str | None = "interactive",
        tags: Sequence[str] | None = None,
        metadata: Mapping[str, Any] | None = None,
        ttl: float | None = None,
        timeout: float | None = None,
        progress: bool | None = None,
        **chat: Unpack[ChatOptions],
    ) -> Any:
        """Runs the model and keeps activations. Interrupting it cancels the run on the server.

        Args:
            input: A text, token ids, or a chat (a list of messages); or a list of these.
            hooks: Which activations: a name (`"resid_post"`, `"attn.pattern"`, `"blocks.3.hook_resid_mid"`), a tuple
                (`("k", 3)`), a list of these, a function of the full name, or `"all"`. TransformerLens's names work. By
                default the residual stream after every block.
            names: The same as `hooks`.
            names_filter: The same as `hooks`, as TransformerLens calls it.
            layers: Layers of the hooks that do not name one: all by default.
            positions: `"all"`, `"last"`, `"mean"`, a number, a list, a range, or one of the forms of the API.
            logits: Whether logits can be asked for: the output of the last block is captured, too.
            interventions: Changes during the forward pass, as the API takes them.
            dtype: The type in which values are stored: `float32`, `float16` or `bfloat16`.
            prepend_bos: Whether a BOS token is added; None leaves it to the tokenizer.
            truncate: What to do with inputs that are too long: `error`, `left` or `right`.
            reuse: False forces the forward pass although the activations are stored.
            priority: `interactive`, `normal` or `bulk`.
            tags: Tags of the caches.
            metadata: Metadata of the caches.
            ttl: Seconds after which the caches expire.
            timeout: Seconds to wait at most; then the run is cancelled.
            progress: Whether a bar is shown; None: for several inputs, on a terminal and in a notebook.
            chat: For chats: `add_generation_prompt`, `continue_final_message`, `template_kwargs`, `chat_template`.

        Returns:
            `(logits, cache)`; for a list of inputs, a list of logits and a list of caches. Logits are computed when they are
            touched. There is no batch axis and no padding.

        Raises:
            ApiError: The server refuses the request: `LayerOutOfRange`, `UnknownHook`, `TooManyTokens`, …
            RunFailed: The run failed, or somebody cancelled it.
        """
        inputs = parse_inputs(input)
        inputs.chat = chat_options(chat)
        chosen = one_of(hooks=hooks, names=names, names_filter=names_filter)
        spec = capture_spec(self, chosen, layers, positions, dtype)
        changes = list(interventions or ())
        if logits:
            spec = with_logits(spec, self.n_layers, changes)
        body = {
            "model": self.id,
            **inputs.body(),
            "capture": spec,
            **compact(
                {
                    "interventions": changes or None,
                    "prepend_bos": prepend_bos,
                    "truncate": truncate,
                    "reuse": reuse,
                    "priority": priority,
                    "tags": list(tags) if tags else None,
                    "metadata": metadata,
                    "ttl_seconds": None if ttl is None else int(ttl),
                }
            ),
        }
        caches = await self._client.compute(body, timeout=timeout, progress=progress)
        if inputs.single and len(caches) == 1:  # a list of strengths makes several caches of one input
            return caches[0].logits, caches[0]
        return [cache.logits for cache in caches], caches
