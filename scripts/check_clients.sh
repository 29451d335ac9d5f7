#!/usr/bin/env bash
# Checks the Python and the TypeScript client: generated files, formatting, types, and every test against a real server.
#
# usage: scripts/check_clients.sh [RESIDUUM]
# RESIDUUM is the program that serves; target/debug/residuum if left out.
# needs: python3 (3.10 or newer) with venv and pip; the packages go into target/python-client. PyTorch is not among them: tests
# that need it are skipped, unless it is in that environment already.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

RESIDUUM_BINARY=$(realpath "${1:-target/debug/residuum}")
RESIDUUM_MODEL=$(realpath -m models/SmolLM2-135M-Instruct.Q4_1.gguf)
export RESIDUUM_BINARY RESIDUUM_MODEL
readonly environment=$PWD/target/python-client
readonly python=$environment/bin/python

step() {
  printf '\n== %s\n' "$*"
}

[[ -x $RESIDUUM_BINARY ]] || {
  echo "check_clients: $RESIDUUM_BINARY is missing: build it with \`cargo build\`, or name another" >&2
  exit 1
}
scripts/fetch_demo_model.sh smollm2

step "Python client: packages"
[[ -x $python ]] || python3 -m venv "$environment"
# dependency groups need pip 25.1
$python -m pip install --quiet --disable-pip-version-check --upgrade 'pip>=25.1'
(cd clients/python && $python -m pip install --quiet --disable-pip-version-check -e '.[pandas,arrow,plot]' --group dev 'pyright[nodejs]')

step "Python client: generated files, formatting, types"
PYTHON=$python clients/python/scripts/check.sh

step "Python client: tests"
(cd clients/python && $python -m pytest -q)

step "TypeScript client"
clients/typescript/scripts/check.sh
