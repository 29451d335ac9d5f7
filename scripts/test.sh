#!/usr/bin/env bash
# The tests of the server: the Rust tests, then checks of a running server with numpy, scipy and safetensors, OpenAI's client, lm-eval,
# openapi.yaml, a crash test, the memory of hostile bodies, and a full disk.
#
# usage: scripts/test.sh
# needs: cargo, python3 (3.11 or newer) with venv and pip. The Python packages go into .venv here.
# RESIDUUM_TEST_TORCH=1 also installs PyTorch (5 GB on Linux) and checks safetensors.torch; without it, those checks run
# only if PyTorch is already in .venv, and otherwise say that they were skipped.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

readonly binary=target/debug/residuum
readonly model=smollm2-135m=models/SmolLM2-135M-Instruct.Q4_1.gguf
python=.venv/bin/python
requirements=tests/python/requirements-openai.txt
[[ ${RESIDUUM_TEST_TORCH:-0} == 0 ]] || requirements=tests/python/requirements-torch.txt

step() {
  printf '\n== %s\n' "$*"
}

# Runs a Python check against a fresh server, which is stopped afterwards whatever happens.
with_server() {
  $python scripts/harness.py --binary "$binary" --model "$model" -- $python "$@" --base-url '{url}'
}

step "demo models"
scripts/fetch_demo_model.sh smollm2 minilm

step "cargo test"
cargo test --locked
# This built the program too. `cargo build` would choose other features and compile everything again.

step "Python packages ($requirements)"
[[ -x $python ]] || python3 -m venv .venv || {
  echo "test: python3 cannot make a virtual environment (Debian, Ubuntu: apt install python3-venv)" >&2
  exit 1
}
$python -m pip install --quiet --disable-pip-version-check -r "$requirements"

step "numpy, scipy, safetensors and PyTorch against a running server"
with_server tests/python/check_interop.py

step "OpenAI's client"
with_server tests/python/check_openai.py

step "lm-eval"
with_server tests/python/check_lm_eval.py

step "openapi.yaml"
with_server tests/python/check_openapi.py --binary "$binary"

step "crash test"
$python tests/crash.py --binary "$binary" --model "$model"

step "memory of hostile bodies"
$python tests/memory.py --binary "$binary" --mb 8 --at-once 24

step "full disk"
$python tests/full_disk.py --binary "$binary" --model "$model"
