"""One server for the tests of this folder, and a scripted one for answers that a real server seldom gives."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from places import MODEL, NAME
from scripted import Scripted

import residuum as rs


@pytest.fixture(scope="session")
def model_file() -> Path:
    if not MODEL.exists():
        pytest.skip("scripts/fetch_demo_model.sh fetches the model")
    return MODEL


@pytest.fixture(scope="session")
def client(model_file: Path) -> Iterator[rs.LocalServer]:
    with rs.serve({NAME: model_file}, progress=False) as c:
        yield c


@pytest.fixture(scope="session")
def model(client: rs.LocalServer) -> rs.Model:
    return client.model(NAME)


@pytest.fixture
def scripted() -> Iterator[Scripted]:
    with Scripted() as server:
        yield server


@pytest.fixture
def delays(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The pauses between tries; nothing sleeps."""
    from residuum._sync import primitives

    slept: list[float] = []
    monkeypatch.setattr(primitives, "sleep", slept.append)
    return slept
