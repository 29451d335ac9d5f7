#!/usr/bin/env bash
# Everything that must hold of this package: generated types that are not stale, the form of the code, and every test, in Node and in Chromium.
#
# usage: RESIDUUM_BINARY=… RESIDUUM_MODEL=… scripts/check.sh
# needs: Node 20 or newer with npm, curl, tar; on Debian, as root, it installs what is missing.
set -euo pipefail
: "${RESIDUUM_BINARY:?the residuum program}" "${RESIDUUM_MODEL:?a GGUF file of SmolLM2-135M}"
RESIDUUM_BINARY=$(realpath "$RESIDUUM_BINARY")
RESIDUUM_MODEL=$(realpath "$RESIDUUM_MODEL")
export RESIDUUM_BINARY RESIDUUM_MODEL CHROMIUM=${CHROMIUM:-/usr/bin/chromium}
cd "$(dirname "${BASH_SOURCE[0]}")/.."

packages=()
[[ -x $CHROMIUM ]] || packages+=(chromium)
command -v npm >/dev/null || packages+=(nodejs npm)
command -v curl >/dev/null || packages+=(curl)
if ((${#packages[@]})); then
  apt-get update -qq
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${packages[@]}" >/dev/null
fi
node -e 'if (Number(process.versions.node.split(".")[0]) < 20) throw new Error(`Node ${process.versions.node} is too old: 20 is needed`)'

npm ci --no-audit --no-fund
npm run check:generated
npm run check:format
npm test
