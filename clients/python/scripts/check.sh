#!/bin/sh
# What has to hold before a change of the Python client is merged, apart from its tests: generated files are current,
# formatting, lint and types. PYTHON chooses the interpreter.
set -eu
cd "$(dirname "$0")/.."
python=${PYTHON:-python3}
for generator in make_models make_errors make_sync; do
  "$python" "scripts/$generator.py" --check
done
"$python" -m ruff format --check --quiet src tests scripts
"$python" -m ruff check --quiet src tests scripts
"$python" -m mypy
"$python" -m pyright --pythonpath "$(command -v "$python")"
