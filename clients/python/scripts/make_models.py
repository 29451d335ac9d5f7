"""Writes `src/residuum/models.py`, the pydantic models of the API, from `openapi.yaml`.

python scripts/make_models.py           # write
python scripts/make_models.py --check   # fail if the committed file is not what would be written
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

from generated import ROOT, finish

SPEC = ROOT.parent.parent / "openapi.yaml"
TARGET = ROOT / "src" / "residuum" / "models.py"

HEADER = '''\
"""Models of the API's bodies and answers. Generated from `openapi.yaml` by `scripts/make_models.py`: do not edit.

Fields that a newer server adds are kept as extra attributes.
"""
'''

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


def generate() -> str:
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "models.py"
        command = [sys.executable, "-m", "datamodel_code_generator", f"--input={SPEC}", f"--output={out}", *OPTIONS]
        subprocess.run(command, check=True)
        text = out.read_text(encoding="utf-8")
    body = text[text.index("from __future__") :]
    return HEADER + "\n" + body


if __name__ == "__main__":
    finish(TARGET, generate())
