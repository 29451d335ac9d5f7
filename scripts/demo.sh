#!/usr/bin/env bash
# Fetches a small model, builds the server, starts it and shows what it does. Ctrl-C stops it.
#
# usage: scripts/demo.sh [--once]        --once (or RESIDUUM_DEMO_ONCE=1) stops after the demonstration
# RESIDUUM_LISTEN=HOST:PORT chooses the address (default 127.0.0.1:8080).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

command -v cargo >/dev/null || {
  echo "demo: cargo was not found; install Rust 1.90 or newer first (https://rustup.rs)" >&2
  exit 1
}
scripts/fetch_demo_model.sh
echo "building the server (the first time takes a few minutes) ..."
cargo build --release --locked
exec python3 scripts/demo.py "$@"
