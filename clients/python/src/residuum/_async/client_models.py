"""The models of a server: the part of a client that finds, loads and unloads them."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Any, cast

from .._core.config import Config
from .._core.problem import AnswerTimedOut, ApiError, api_error
from .._core.progress import progress_bar
from .._core.wire import compact, path
from . import primitives
from .model import AsyncModel
from .transport import AsyncTransport

if TYPE_CHECKING:
    from .client import AsyncClient


class AsyncClientModels:
    """Models."""

    config: Config
    transport: AsyncTransport

    def _model(self, data: dict[str, Any]) -> AsyncModel:
        return AsyncModel(cast("AsyncClient", self), data)

    async def models(self) -> list[AsyncModel]:
        """The models of the server. Their hooks are fetched by `model(id)` and by `refresh()`."""
        answer = await self.transport.json("GET", path("models"))
        return [self._model(data) for data in answer["items"]]

    async def model(self, id: str | None = None, *, wait: float = 0) -> AsyncModel:
        """One model.

        Args:
            id: Its id; may be left out if the server has one model.
            wait: Seconds to wait for a model that is loading.

        Raises:
            ModelNotFound: There is no such model; the message lists what there is.
            ValueError: The id was left out, and the server has no model or several.
        """
        if id is None:
            listed = await self.models()
            if len(listed) != 1:
                raise ValueError(f"the server has {len(listed)} models, {[m.id for m in listed]}: say which")
            id = listed[0].id
        end = time.monotonic() + wait
        while True:
            model = self._model(await self.transport.json("GET", path("models", id)))
            if model.status != "loading" or time.monotonic() >= end:
                return model
            await primitives.sleep(0.3)

    async def load_model(
        self,
        id: str,
        source: str | os.PathLike[str],
        *,
        force: bool | None = None,
        timeout: float = 3600.0,
        progress: bool | None = None,
    ) -> AsyncModel:
        """Loads a model while the server runs, and waits until it is ready. It is loaded again after a restart.

        Args:
            id: The name to use in requests.
            source: A path in the server's `--models-dir`, or a hub name where the server has `--allow-hub`.
            force: Whether it is loaded although memory is scarce.
            timeout: Seconds to wait; 0 does not wait.
            progress: Whether a bar is shown; None: on a terminal and in a notebook.

        Raises:
            LoadingOff, UnknownSource, LoadFailed, NotEnoughMemory: It cannot be loaded.
            AnswerTimedOut: It is not ready after `timeout`. The load goes on.
        """
        body = compact({"id": id, "source": os.fspath(source), "force": force})
        model = self._model(await self.transport.json("POST", path("models"), json=body))
        end = time.monotonic() + timeout
        shown = self.config.progress if progress is None else progress
        with progress_bar(None, f"load {id}", shown, unit="B") as bar:
            while model.status == "loading" and timeout > 0:
                if time.monotonic() >= end:
                    raise AnswerTimedOut(f"model {id} is not ready after {timeout:.0f} s; it goes on loading")
                await primitives.sleep(0.2)
                show_load(bar, id, model.data.get("progress"))
                model = self._model(await self.transport.json("GET", path("models", id)))
        error = model.data.get("error")
        if error:
            raise load_error(error)
        return model

    async def health(self) -> dict[str, Any]:
        """`{status, version}` of the server."""
        answer: dict[str, Any] = await self.transport.json("GET", "/healthz")
        return answer


def show_load(bar: Any, id: str, progress: dict[str, Any] | None) -> None:
    """Shows how far a load has come: bytes of its present stage."""
    if progress:
        bar.set_description(f"load {id}: {progress['stage']}", refresh=False)
        bar.total = progress["bytes_total"] or None
        bar.n = progress["bytes_done"]
        bar.refresh()


def load_error(error: dict[str, Any]) -> ApiError:
    """The error of a model that could not be loaded."""
    return api_error(error, int(error.get("status") or 422))
