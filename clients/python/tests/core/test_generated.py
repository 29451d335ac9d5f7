"""Committed files are what their generators write."""

from __future__ import annotations

import subprocess
import sys

import pytest
from places import ROOT

SCRIPTS = ROOT / "clients" / "python" / "scripts"


@pytest.mark.parametrize(
    ("script", "needs"),
    [
        ("make_sync.py", ["unasync", "ruff"]),
        ("make_errors.py", ["ruff"]),
        ("make_models.py", ["datamodel_code_generator", "ruff"]),
    ],
)
def test_generated_files_are_current(script: str, needs: list[str]) -> None:
    for module in needs:
        pytest.importorskip(module)
    done = subprocess.run(
        [sys.executable, str(SCRIPTS / script), "--check"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
