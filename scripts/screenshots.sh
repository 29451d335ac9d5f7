#!/usr/bin/env bash
# Takes the pictures of the dashboard in docs/images: every page with its main action done, in light and dark, on demonstration
# data made for it. Look at them before you commit them.
#
# usage: scripts/screenshots.sh [NAME ...]        such as: scripts/screenshots.sh map search; all of them if none is named
# RESIDUUM_BINARY is the program that serves; target/debug/residuum if not set. UI_PREVIEW=1 takes the page from ui/dist instead
# of the program, and SCREENSHOT_DIR writes to another folder.
# needs: Node 20 or newer (or python3, to get one from PyPI), Chromium, and pngquant (on Debian, as root, both are installed).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source scripts/node.sh

RESIDUUM_BINARY=$(realpath "${RESIDUUM_BINARY:-target/debug/residuum}")
export RESIDUUM_BINARY
[[ -x $RESIDUUM_BINARY ]] || {
  echo "screenshots: $RESIDUUM_BINARY is missing: build it with \`cargo build\`, or name another with RESIDUUM_BINARY" >&2
  exit 1
}
[[ -z ${SCREENSHOT_DIR:-} ]] || SCREENSHOT_DIR=$(realpath -m "$SCREENSHOT_DIR")
export SCREENSHOT_DIR=${SCREENSHOT_DIR:-$PWD/docs/images}
scripts/fetch_demo_model.sh smollm2
use_node "$PWD/target/node"
use_chromium
command -v pngquant >/dev/null || {
  apt-get update -qq
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends pngquant >/dev/null
}

cd ui
[[ -d node_modules ]] || npm ci --no-audit --no-fund
SCREENSHOTS="$*" npx vitest run --config vitest.screenshots.config.ts
ls -l "$SCREENSHOT_DIR"/*.png
