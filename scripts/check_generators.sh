#!/usr/bin/env bash
# Runs generators of clients over openapi.yaml, and checks what they make: Redocly's linter; openapi-python-client without a
# warning, with mypy; datamodel-code-generator in strict mode; openapi-typescript with `tsc --strict` over every request in
# README.md and docs/; and the 3.0 form of the specification. Then the clients call a server. Everything goes into target/generators.
#
# usage: scripts/check_generators.sh [RESIDUUM]
# RESIDUUM is the program that writes the 3.0 form and serves; target/debug/residuum if left out.
# needs: python3 (3.11 or newer) with venv and pip. Without Node 20 or newer, it gets one from PyPI.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source scripts/node.sh

readonly residuum=${1:-target/debug/residuum}
readonly model=smollm2-135m=models/SmolLM2-135M-Instruct.Q4_1.gguf
readonly spec=$PWD/openapi.yaml tests=$PWD/tests/generators work=$PWD/target/generators
readonly python=$work/venv/bin
export REDOCLY_TELEMETRY=off REDOCLY_SUPPRESS_UPDATE_NOTICE=true

step() {
  printf '\n== %s\n' "$*"
}

fail() {
  echo "check_generators: $*" >&2
  exit 1
}

# A tool's output is shown only if it fails.
quietly() {
  "$@" >"$work/log" 2>&1 || {
    cat "$work/log" >&2
    return 1
  }
}

[[ -x $residuum ]] || fail "$residuum is missing: build it with \`cargo build\`, or name another"
mkdir -p "$work"

step "packages and demo model"
scripts/fetch_demo_model.sh smollm2
[[ -x $python/python ]] || python3 -m venv "$work/venv" || fail "python3 cannot make a virtual environment"
"$python/python" -m pip install --quiet --disable-pip-version-check -r "$tests/requirements.txt"
use_node "$work/venv"
if ! cmp --silent "$tests/package-lock.json" "$work/package-lock.json" || [[ ! -d $work/node_modules ]]; then
  cp "$tests"/{package.json,package-lock.json,.npmrc} "$work"
  (cd "$work" && quietly npm ci)
fi
readonly node=$work/node_modules/.bin

# The steps are independent: all are run, and any that failed is named at the end. `&&`, because `set -e` does not act in them.
lint() {
  (cd "$work" && quietly "$node/redocly" lint "$1" --config "$tests/$2" --format stylish)
}

python_code() {
  rm -rf "$work/python" && mkdir "$work/python" &&
    quietly "$python/openapi-python-client" generate --path "$spec" --meta none --fail-on-warning \
      --config "$tests/openapi-python-client.yaml" --output-path "$work/python/residuum_generated" &&
    quietly "$python/datamodel-codegen" --input "$spec" --input-file-type openapi --output "$work/python/residuum_models.py" \
      --output-model-type pydantic_v2.BaseModel --strict-types str bytes int float bool --use-annotated \
      --target-python-version 3.11 --formatters builtin --disable-timestamp &&
    # openapi-python-client writes casts that are not needed, for any array of any values.
    cp "$tests/live_python.py" "$work/python" &&
    (cd "$work/python" && "$python/mypy" --strict --disable-error-code redundant-cast .) &&
    "$python/python" "$tests/check_python_models.py" "$spec" "$work/python"
}

typescript() {
  cp "$tests"/{tsconfig.json,answers.ts,live.ts} "$work" &&
    quietly "$node/openapi-typescript" "$spec" --output "$work/schema.ts" &&
    "$python/python" "$tests/typed_calls.py" "$spec" >"$work/calls.ts" &&
    (cd "$work" && "$node/tsc") &&
    echo "$(grep -c '^await client' "$work/calls.ts") typed calls"
}

version_3_0() {
  "$residuum" openapi --oas 3.0 >"$work/openapi-3.0.yaml" &&
    lint openapi-3.0.yaml redocly-3.0.yaml &&
    "$python/python" "$tests/check_oas30.py" "$spec" "$work/openapi-3.0.yaml"
}

# The clients that were made, against a server.
live() {
  with_server env PYTHONPATH="$work/python" "$python/python" "$work/python/live_python.py" '{url}' &&
    with_server "$(command -v node)" "$work/js/live.js" '{url}'
}

with_server() {
  "$python/python" scripts/harness.py --binary "$residuum" --model "$model" -- "$@"
}

failed=()
check() {
  step "$1"
  "${@:2}" || failed+=("$1")
}

check "redocly" lint "$spec" redocly.yaml
check "openapi-python-client, datamodel-code-generator, mypy" python_code
check "openapi-typescript, tsc --strict" typescript
check "OpenAPI 3.0" version_3_0
check "calls of a server" live

((${#failed[@]} == 0)) || fail "failed: $(printf '%s; ' "${failed[@]}")"
printf '\nall passed\n'
