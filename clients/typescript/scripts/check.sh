#!/usr/bin/env bash
# Everything that must hold of this package: generated types that are not stale, the form of the code, and every test, in Node and in Chromium.
#
# usage: RESIDUUM_BINARY=… RESIDUUM_MODEL=… scripts/check.sh
# needs: curl, tar, and Node 20 or newer; without it, python3 with venv, to get one from PyPI. On Debian, as root, it installs
# Chromium if that is missing; elsewhere, set CHROMIUM to its path.
set -euo pipefail
: "${RESIDUUM_BINARY:?the residuum program}" "${RESIDUUM_MODEL:?a GGUF file of SmolLM2-135M}"
RESIDUUM_BINARY=$(realpath "$RESIDUUM_BINARY")
RESIDUUM_MODEL=$(realpath "$RESIDUUM_MODEL")
export RESIDUUM_BINARY RESIDUUM_MODEL
cd "$(dirname "${BASH_SOURCE[0]}")/.."

source ../../scripts/node.sh
use_node "$PWD/.venv"
use_chromium

npm ci --no-audit --no-fund
npm run check:generated
npm run check:format
npm test
