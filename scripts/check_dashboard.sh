#!/usr/bin/env bash
# Checks the dashboard: formatting, types, unit tests, that ui/dist is what the sources make, and every page in Chromium against
# a server with real models.
#
# usage: scripts/check_dashboard.sh [RESIDUUM]
# RESIDUUM is the program that serves, with ui/dist embedded; target/debug/residuum if left out.
# needs: Node 20 or newer (or python3, to get one from PyPI), and Chromium (on Debian, as root, it is installed).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source scripts/node.sh

RESIDUUM_BINARY=$(realpath "${1:-target/debug/residuum}")
export RESIDUUM_BINARY
[[ -x $RESIDUUM_BINARY ]] || {
  echo "check_dashboard: $RESIDUUM_BINARY is missing: build it with \`cargo build\`, or name another" >&2
  exit 1
}
scripts/fetch_demo_model.sh smollm2
use_node "$PWD/target/node"
use_chromium

cd ui
npm ci --no-audit --no-fund
npm run check:format
npm run check:types
npm test

# Built elsewhere, so that a difference shows and nothing changes.
npm run build -- --outDir ../target/dashboard --emptyOutDir --logLevel warn
for file in index.html app.js app.css; do
  cmp "dist/$file" "../target/dashboard/$file" || {
    echo "check_dashboard: ui/dist/$file is not what the sources make: run \`npm run build\` in ui/, and build the server again" >&2
    exit 1
  }
done

npm run test:browser
