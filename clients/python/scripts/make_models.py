"""Writes `src/residuum/models.py`, the pydantic models of the API, from `openapi.yaml`.

    python scripts/make_models.py           # write
    python scripts/make_models.py --check   # fail if the committed file is not what would be written

Limits and examples are left out: the server checks its limits, and a number with a limit would become a class of its own.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import yaml

from generated import ROOT, finish

SPEC = ROOT.parent.parent / "openapi.yaml"
TARGET = ROOT / "src" / "residuum" / "models.py"

HEADER = '''\
"""Models of the API's bodies and answers. Generated from `openapi.yaml` by `scripts/make_models.py`: do not edit.

Fields that a newer server adds are kept as extra attributes.
"""
'''

LIMITS = {"minimum", "maximum", "minLength", "maxLength", "minItems", "maxItems", "pattern", "uniqueItems"}

OPTIONS = [
    "--input-file-type=openapi",
    "--output-model-type=pydantic_v2.BaseModel",
    "--target-python-version=3.10",
    "--use-standard-collections",
    "--use-union-operator",
    "--use-annotated",
    "--use-double-quotes",
    "--use-schema-description",
    "--use-field-description",
    "--use-title-as-name",
    "--enum-field-as-literal=all",
    "--extra-fields=allow",
    "--collapse-root-models",
    "--disable-timestamp",
    "--strict-nullable",
    "--openapi-scopes=schemas",
    "--formatters=builtin",
]


def simplified(node: Any) -> Any:
    """A schema without limits and examples."""
    if isinstance(node, list):
        return [simplified(part) for part in node]
    if not isinstance(node, dict):
        return node
    dropped = LIMITS | {"example", "examples"} if {"type", "$ref", "oneOf", "anyOf", "allOf"} & node.keys() else set()
    # Names of properties may be any of these words.
    return {
        key: {name: simplified(part) for name, part in value.items()} if key == "properties" else simplified(value)
        for key, value in node.items()
        if key not in dropped
    }


def generate() -> str:
    spec = yaml.safe_load(SPEC.read_text(encoding="utf-8"))
    spec["components"]["schemas"] = {n: simplified(s) for n, s in spec["components"]["schemas"].items()}
    with tempfile.TemporaryDirectory() as folder:
        source, out = Path(folder) / "openapi.yaml", Path(folder) / "models.py"
        source.write_text(yaml.safe_dump(spec, sort_keys=False, allow_unicode=True), encoding="utf-8")
        command = [sys.executable, "-m", "datamodel_code_generator", f"--input={source}", f"--output={out}", *OPTIONS]
        subprocess.run(command, check=True)
        text = out.read_text(encoding="utf-8")
    body = text[text.index("from __future__") :]
    return HEADER + "\n" + body


if __name__ == "__main__":
    finish(TARGET, generate())
