"""Where things are, and the names that the tests use."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).resolve().parents[4]
MODEL = ROOT / "models" / "SmolLM2-135M-Instruct.Q4_1.gguf"
NAME = "smollm2"
EIFFEL = "The Eiffel Tower is in the city of"
