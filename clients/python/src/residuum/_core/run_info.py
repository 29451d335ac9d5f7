"""What the server says of a run, as properties."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any

from . import show
from .info import Described, parse_time

if TYPE_CHECKING:
    from .. import models


class RunInfo(Described):
    """The description of a run."""

    @property
    def info(self) -> models.Run:
        """The description as a typed model."""
        from .. import models

        return models.Run.model_validate(self._data)

    @property
    def status(self) -> str:
        """`queued`, `running`, `completed`, `failed` or `cancelled`."""
        return str(self._data["status"])

    @property
    def ended(self) -> bool:
        """Whether it has completed, failed or been cancelled."""
        return self.status in ("completed", "failed", "cancelled")

    @property
    def model_id(self) -> str:
        """Name of the model."""
        return str(self._data["model"])

    @property
    def n_items(self) -> int:
        """Number of inputs."""
        return int(self._data["n_items"])

    @property
    def n_done(self) -> int:
        """Number of inputs that have a cache."""
        return int(self._data["n_done"])

    @property
    def n_reused(self) -> int:
        """Number of inputs that were answered from the store."""
        return int(self._data["n_reused"])

    @property
    def n_failed(self) -> int:
        """Number of inputs that failed."""
        return int(self._data["n_failed"])

    @property
    def tags(self) -> list[str]:
        """Tags of every cache."""
        return list(self._data.get("tags") or [])

    @property
    def metadata(self) -> dict[str, Any]:
        """Metadata as posted."""
        return dict(self._data.get("metadata") or {})

    @property
    def queue_position(self) -> int | None:
        """Number of runs ahead of it; None if none of its inputs waits."""
        position: int | None = self._data.get("queue_position")
        return position

    @property
    def created_at(self) -> datetime | None:
        """When it was accepted."""
        return parse_time(self._data.get("created_at"))

    @property
    def started_at(self) -> datetime | None:
        """When its first input was started."""
        return parse_time(self._data.get("started_at"))

    @property
    def finished_at(self) -> datetime | None:
        """When it ended."""
        return parse_time(self._data.get("finished_at"))

    def __repr__(self) -> str:
        return show.run_text(self)

    def _repr_html_(self) -> str:
        return show.run_html(self)
