# Derived from `_async/client_models.py` by `scripts/make_sync.py`: do not edit.
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
from .model import Model
from .transport import Transport

if TYPE_CHECKING:
    from .client import Client


class ClientModels:
    """Models."""

    config: Config
    transport: Transport

    def _model(self, data: dict[str, Any]) -> Model:
        return Model(cast("Client", self), data)

    def models(self) -> list[Model]:
        """The models of the server. Their hooks are fetched by `model(id)` and by `refresh()`."""
        answer = self.transport.json("GET", path("models"))
        return [self._model(data) for data in answer["items"]]

    def model(self, id: str | None = None, *, wait: float = 0) -> Model:
        """One model.

        Args:
            id: Its id; may be left out if the server has one model.
            wait: Seconds to wait for a model that is loading.

        Raises:
            ModelNotFound: There is no such model; the message lists what there is.
            ValueError: The id was left out, and the server has no model or several.
        """
        if id is None:
            listed = self.models()
            if len(listed) != 1:
                raise ValueError(f"the server has {len(listed)} models, {[m.id for m in listed]}: say which")
            id = listed[0].id
        end = time.monotonic() + wait
        while True:
            model = self._model(self.transport.json("GET", path("models", id)))
            if model.status != "loading" or time.monotonic() >= end:
                return model
            primitives.sleep(0.3)

    def load_model(
        self,
        id: str,
        source: str | os.PathLike[str],
        *,
        force: bool | None = None,
        timeout: float = 3600.0,
        progress: bool | None = None,
    ) -> Model:
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
        model = self._model(self.transport.json("POST", path("models"), json=body))
        end = time.monotonic() + timeout
        shown = self.config.progress if progress is None else progress
        with progress_bar(None, f"load {id}", shown, unit="B") as bar:
            while model.status == "loading" and timeout > 0:
                if time.monotonic() >= end:
                    raise AnswerTimedOut(f"model {id} is not ready after {timeout:.0f} s; it goes on loading")
                primitives.sleep(0.2)
                show_load(bar, id, model.data.get("progress"))
                model = self._model(self.transport.json("GET", path("models", id)))
        error = model.data.get("error")
        if error:
            raise load_error(error)
        return model

    def health(self) -> dict[str, Any]:
        """`{status, version}` of the server."""
        answer: dict[str, Any] = self.transport.json("GET", "/healthz")
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
