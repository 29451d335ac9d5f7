"""A model with changes in every pass."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from ..interventions import Intervention
from .model import AsyncModel

if TYPE_CHECKING:
    from types import TracebackType

    from typing_extensions import Self

    from .run import AsyncRun


class AsyncSteeredModel(AsyncModel):
    """A model whose every run has interventions: what `m.steer(…)` and `m.intervene([…])` give.

    It does all that a model does. `interventions=` of a call come after those of this object.
    """

    def __init__(self, model: AsyncModel, interventions: Iterable[Intervention]) -> None:
        super().__init__(model._client, model.data)
        self.interventions = tuple(interventions)

    async def run(self, input: Any, **options: Any) -> AsyncRun:
        """As `Model.run`, with the interventions."""
        return await super().run(input, **self._changed(options))

    async def run_with_cache(self, input: Any, **options: Any) -> Any:
        """As `Model.run_with_cache`, with the interventions."""
        return await super().run_with_cache(input, **self._changed(options))

    async def generate(self, prompt: Any, **options: Any) -> Any:
        """As `Model.generate`, with the interventions. With a list of strengths, every prompt has a list."""
        return await super().generate(prompt, **options)

    async def capture(self, data: Any, **options: Any) -> Any:
        """As `Model.capture`, with the interventions."""
        return await super().capture(data, **self._changed(options))

    def _changed(self, options: Mapping[str, Any]) -> dict[str, Any]:
        return {**options, "interventions": [*self.interventions, *(options.get("interventions") or ())]}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None

    def __repr__(self) -> str:
        listed = ", ".join(_describe(i) for i in self.interventions)
        return f"{type(self).__name__}({self.id!r}, {listed})"


def _describe(entry: Mapping[str, Any]) -> str:
    where = f" of layers {entry['layers']}" if "layers" in entry else ""
    what = f" {entry['strength']} ×" if "strength" in entry else ""
    return f"{entry['op']}{what}{where}"
