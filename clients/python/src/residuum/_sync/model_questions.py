# Derived from `_async/model_questions.py` by `scripts/make_sync.py`: do not edit.
"""What a model is asked to do beyond one forward pass: continue a text, be steered, be patched."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, overload

from .._core import arguments
from .._core.arguments import DirectionLike, Layers, Positions, Token
from .._core.capture_spec import capture_spec, chat_options
from .._core.events import EventParser
from .._core.inputs import Input, parse_inputs
from .._core.options import ChatOptions, GenerateOptions
from .._core.problem import AnswerTimedOut, ConnectionFailed, UnexpectedAnswer, api_error
from .._core.progress import progress_bar
from .._core.results.generation import settings
from .._core.results.patching import Patching, sweep_body
from .._core.retry import backoff
from .._core.wire import compact, path
from ..interventions import Intervention, add
from . import primitives
from .events import read_events
from .generation import Generation, TokenStream, generations

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from .client import Client
    from .steered import SteeredModel

# How often a sweep is begun if its connection breaks.
SWEEP_TRIES = 3


class ModelQuestions:
    """Generation, steering and sweeps of a model."""

    _client: Client
    interventions: tuple[Intervention, ...] = ()
    """What is changed in every run of this object. A model itself changes nothing; `intervene` and `steer` do."""

    @overload
    def generate(
        self, prompt: Input, *, stream: Literal[True], n: int | None = None, **options: Unpack[GenerateOptions]
    ) -> TokenStream: ...
    @overload
    def generate(
        self,
        prompt: str | Mapping[str, Any] | list[int],
        *,
        stream: Literal[False] = False,
        n: None = None,
        **options: Unpack[GenerateOptions],
    ) -> Generation: ...
    @overload
    def generate(
        self, prompt: list[str], *, stream: Literal[False] = False, n: None = None, **options: Unpack[GenerateOptions]
    ) -> list[Generation]: ...
    @overload
    def generate(
        self, prompt: Input, *, stream: bool = False, n: int | None = None, **options: Unpack[GenerateOptions]
    ) -> Any: ...
    def generate(
        self: Any,
        prompt: Input,
        *,
        max_new_tokens: int = 20,
        temperature: float | None = None,
        top_k: int | None = None,
        top_p: float | None = None,
        seed: int | None = None,
        stop: str | Iterable[str] | None = None,
        n: int | None = None,
        stream: bool = False,
        hooks: Any = None,
        layers: Layers = None,
        positions: Any = "all",
        dtype: str | None = None,
        interventions: Sequence[Any] | None = None,
        prepend_bos: bool | None = None,
        truncate: str | None = None,
        priority: str | None = "interactive",
        tags: Sequence[str] | None = None,
        metadata: Mapping[str, Any] | None = None,
        ttl: float | None = None,
        timeout: float | None = None,
        progress: bool | None = None,
        **chat: Unpack[ChatOptions],
    ) -> Any:
        """Continues texts token by token, and keeps the activations of the whole text.

        Args:
            prompt: A text, token ids, or a chat; or a list of these. A chat's template opens the assistant's turn.
            max_new_tokens: Largest number of tokens to add.
            temperature: 0 (default) always takes the most probable token.
            top_k: Samples from so many of the most probable tokens.
            top_p: Samples from the fewest tokens that reach this probability.
            seed: Repeats a sampling; the server chooses and reports one.
            stop: A text or several; the continuation ends before the first of them.
            n: Samples of each prompt.
            stream: Whether to return at once with the tokens as they are chosen.
            hooks: What to keep, as in `run_with_cache`; the residual stream by default, `[]` for nothing.
            layers: Layers of the hooks.
            positions: `"all"`, `"prompt"`, `"generated"`, or as in `run_with_cache`.
            dtype: The type in which values are stored.
            interventions: Changes during the passes, from `residuum.interventions`.
            prepend_bos: Whether a BOS token is added; None leaves it to the tokenizer.
            truncate: What to do with prompts that are too long.
            priority: `interactive`, `normal` or `bulk`.
            tags: Tags of the caches.
            metadata: Metadata of the caches.
            ttl: Seconds after which the caches expire.
            timeout: Seconds to wait at most; then the run is cancelled.
            progress: Whether a bar is shown; None: for several prompts, on a terminal and in a notebook.
            chat: For chats: `add_generation_prompt`, `continue_final_message`, `template_kwargs`, `chat_template`.

        Returns:
            A `Generation` with `.text`, `.tokens` and `.cache`; for a list of prompts a list of them; where a prompt
            has several samples (`n`, or a list of strengths), a list for each prompt. With `stream` a `TokenStream`.

        Raises:
            RunFailed: The run, or the continuation of one of the prompts, failed.
        """
        inputs = parse_inputs(prompt)
        inputs.chat = (
            {"add_generation_prompt": True, **chat_options(chat)} if _is_chat(inputs.items) else chat_options(chat)
        )
        if inputs.chat.get("continue_final_message"):
            inputs.chat.pop("add_generation_prompt", None)
        body = {
            "model": self.id,
            **inputs.body(),
            "capture": capture_spec(self, hooks, layers, positions, dtype),
            "generate": settings(max_new_tokens, temperature, top_k, top_p, seed, stop, n),
            **compact(
                {
                    "interventions": [*self.interventions, *(interventions or ())] or None,
                    "prepend_bos": prepend_bos,
                    "truncate": truncate,
                    "priority": priority,
                    "tags": list(tags) if tags else None,
                    "metadata": metadata,
                    "ttl_seconds": None if ttl is None else int(ttl),
                }
            ),
        }
        run = self._client.post_run(body)
        if stream:
            return TokenStream(self._client, run, len(inputs.items), inputs.single)
        run.wait(timeout, progress=progress, cancel_on_interrupt=True)
        run.check()
        return generations(run, len(inputs.items), inputs.single)

    def intervene(self: Any, interventions: Intervention | Iterable[Intervention]) -> SteeredModel:
        """This model with changes in every pass: `run_with_cache`, `generate`, `capture` and `run` work as before.

            with m.intervene([iv.zero(hook="attn.z", layers=5, heads=[3])]) as s:
                s.generate("…")

        Nothing is sent, and the model itself stays as it is, so the `with` block is only for the eye.

        Args:
            interventions: One or several, from `residuum.interventions`, applied in order after those that this
                object has already.
        """
        from .steered import SteeredModel

        listed: list[Any] = [interventions] if isinstance(interventions, Mapping) else list(interventions)
        return SteeredModel(self, [*self.interventions, *listed])

    def steer(
        self: Any,
        direction: DirectionLike,
        *,
        layers: Layers = None,
        strength: float | Sequence[float] = 1.0,
        hook: str | None = None,
        positions: Positions = None,
    ) -> SteeredModel:
        """This model with a direction added to its residual stream: `x + strength × vector`.

            with m.steer("delight", layers=15, strength=2.0) as s:
                s.generate("When I opened the letter, I felt").text

        Args:
            direction: The name of a stored direction (each layer has its own vector), one of `c.directions`, a vector
                `[d_model]`, a matrix `[layer, d_model]` with a vector for each of `layers`, a feature of an
                autoencoder, or a cache.
            layers: Where it is added. All layers by default; of an object of `c.directions`, the layers that it has.
            strength: A factor; or several, and then every input is run with each.
            hook: `resid_post` by default; of a stored direction, its hook.
            positions: Which tokens: all by default, those that are generated included.
        """
        if layers is None:
            layers = getattr(direction, "layers", None)
        if hook is None and hasattr(direction, "direction_ref"):
            hook = direction.hook.removeprefix("hook_")
        if getattr(direction, "ndim", 1) == 2:
            return self.intervene(list(_per_layer(direction, layers, strength, hook, positions)))  # type: ignore[no-any-return]
        return self.intervene(  # type: ignore[no-any-return]
            [add(direction, strength=strength, layers=layers, hook=hook, positions=positions)]
        )

    def patching(
        self: Any,
        clean: Any,
        corrupt: Any = None,
        *,
        answer: Token,
        against: Token | None = None,
        sweep: Mapping[str, Any] | None = None,
        metric: str | None = None,
        direction: str | None = None,
        position: int | None = None,
        prepend_bos: bool | None = None,
        progress: bool | None = None,
    ) -> Patching:
        """Changes one part of the model at a time, and says how the answer changes: activation patching and ablation.

        Nothing is stored. An interrupt stops it on the server.

        Args:
            clean: A text or token ids.
            corrupt: The other input, with equally many tokens; of patches alone.
            answer: The token that should come next: an id, or a text that is one token.
            against: The token that it is compared with.
            sweep: What is changed: `op` (`patch`, `zero`, `mean_ablate`, `knockout`), `hook`, `layers`, and
                `positions`, `heads`, `from` or `to`, each of which may be `"each"` to be an axis; `caches` of a mean.
                By default `resid_pre` at every layer and position; with `op` alone, at every layer.
            metric: `logit_diff` (default with `against`), `probability` (default without), `log_probability`, `logit`.
            direction: Of a patch, `denoise` (default): clean values into the corrupt run; `noise`: the other way round.
            position: Where the logits are read; the last by default.
            prepend_bos: Whether a BOS token is added; None leaves it to the tokenizer.
            progress: Whether a bar is shown; None: on a terminal and in a notebook.

        Returns:
            Arrays with the axes that were asked for: `.values`, `.effect`, `.normalized`; `.plot()`.
        """
        if self.interventions:
            raise ValueError("a sweep takes the model as it is: call patching of the model, not of what steers it")
        body = compact(
            {
                "model": self.id,
                "clean": _experiment_input(clean),
                "corrupt": None if corrupt is None else _experiment_input(corrupt),
                "answer": arguments.token(answer),
                "against": None if against is None else arguments.token(against),
                "sweep": sweep_body({"positions": "each"} if sweep is None else sweep),
                "metric": metric,
                "direction": direction,
                "position": position,
                "prepend_bos": prepend_bos,
            }
        )
        progress = self._client.config.progress if progress is None else progress
        with progress_bar(None, "patching", progress, unit="cell") as bar:
            for attempt in range(SWEEP_TRIES):
                try:
                    found: Patching = self._sweep(body, bar)
                    return found
                except AnswerTimedOut:
                    raise
                except ConnectionFailed:  # nothing is stored, so it simply begins again
                    if attempt + 1 == SWEEP_TRIES:
                        raise
                    primitives.sleep(backoff(attempt))
        raise AssertionError("unreachable")

    def _sweep(self, body: dict[str, Any], bar: Any) -> Patching:
        """One sweep, whose events move the bar."""
        events = read_events(
            self._client.transport, "POST", path("experiments", "patching"), EventParser(), json=body, idempotent=True
        )
        for event in events:
            if event.name == "progress":
                bar.total = event.data["total"]
                waiting = event.data.get("queue_position")
                bar.set_postfix_str("" if waiting is None else f"{waiting} ahead in the queue", refresh=False)
                bar.update(event.data["done"] - bar.n)
            elif event.name == "problem":
                raise api_error(event.data, int(event.data.get("status", 500)))
            elif event.name == "result":
                bar.update((bar.total or 0) - bar.n)
                return Patching(event.data)
        raise UnexpectedAnswer("the sweep ended without a result")


def _is_chat(items: list[dict[str, Any]]) -> bool:
    return all("messages" in item for item in items)


def _experiment_input(value: Any) -> Any:
    if isinstance(value, str):
        return value
    item = parse_inputs(value).items[0]
    return item["token_ids"] if set(item) == {"token_ids"} else item


def _per_layer(
    matrix: Any, layers: Layers, strength: float | Sequence[float], hook: str | None, positions: Positions
) -> Iterable[Intervention]:
    rows = arguments.matrix(matrix)
    found = arguments.layers(layers)
    numbers = list(range(len(rows))) if found is None else found if isinstance(found, list) else [found]
    if len(numbers) != len(rows):
        raise ValueError(f"a matrix of {len(rows)} vectors needs {len(rows)} layers, not {len(numbers)}")
    for layer, row in zip(numbers, rows, strict=True):
        yield add(row, strength=strength, layers=[layer], hook=hook, positions=positions)  # type: ignore[list-item]
