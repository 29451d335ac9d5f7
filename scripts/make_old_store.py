#!/usr/bin/env python3
"""Makes tests/data/first_release: a data folder of the first release, with what its server answered (standard library only).

    git worktree add OLD "$(git log --diff-filter=A --format=%H -- migrations/0005_keys.sql migrations/sqlite/0005_keys.sql)~1"
    (cd OLD && cargo build --bin residuum)
    python3 scripts/make_old_store.py --binary OLD/target/debug/residuum \
        --model smollm2-135m=models/SmolLM2-135M-Instruct.Q4_1.gguf

The folder is what that program wrote: two prompts with tags and a label, one of them again from the store, a continued
prompt, an edited cache, an uploaded direction. Afterwards the index is vacuumed into pages of 1 KiB, so that it is small; nothing
else is changed. `answers.json` has what `GET /v1/caches/{id}` said and the bytes of `GET /v1/caches/{id}/safetensors` as SHA-256.
"""

import argparse
import hashlib
import json
import shutil
import sqlite3
import sys
from pathlib import Path

from harness import ApiError, Client, HarnessError, Server

ROOT = Path(__file__).resolve().parents[1]
TARGET = ROOT / "tests/data/first_release"
CAPTURE = {"hooks": ["resid_post", "attn.hook_pattern"], "layers": [0, 12], "positions": "last"}


def fill(client, model):
    """Runs of every kind that the first release had."""
    inputs = ["The Eiffel Tower is in the city of", "Ein Wort: Größe"]
    first = {"model": model, "input": inputs, "capture": CAPTURE, "tags": ["tour", "old"], "metadata": {"n": 1}}
    client.run(first)
    client.run({"model": model, "input": inputs[0], "capture": CAPTURE})
    client.run({
        "model": model,
        "input": "One, two,",
        "generate": {"max_new_tokens": 3},
        "capture": {"hooks": ["resid_post"], "layers": [1], "positions": "all"},
    })
    cache = next(iter(client.items("/v1/caches")))
    client.call("PATCH", f"/v1/caches/{cache['id']}", {"label": "edited", "tags": ["late"]})
    vector = [((i * 7) % 11 - 5) / 4 for i in range(576)]
    body = {"method": "upload", "name": "tower", "model": model, "hook": "resid_post", "vectors": [{"layer": 3, "values": vector}]}
    answer = client.request("POST", "/v1/directions", body)
    if answer.status >= 300:
        print(f"the direction was refused: {answer.status} {answer.body[:500]!r}", file=sys.stderr)


def answers(client):
    """All descriptions that the server gives."""
    caches = []
    for listed in client.items("/v1/caches"):
        cache = client.get(f"/v1/caches/{listed['id']}")
        body = client.request("GET", f"/v1/caches/{listed['id']}/safetensors").body
        caches.append({"cache": cache, "safetensors_sha256": hashlib.sha256(body).hexdigest(), "bytes": len(body)})
    runs = list(client.items("/v1/runs"))
    return {"caches": caches, "runs": runs, "directions": list(client.items("/v1/directions"))}


def main():
    parser = argparse.ArgumentParser(description="A data folder of the first release, for a test.")
    parser.add_argument("--binary", required=True, help="the program of that release")
    parser.add_argument("--model", required=True, metavar="ID=PATH")
    args = parser.parse_args()
    model_id, _, path = args.model.partition("=")
    shutil.rmtree(TARGET, ignore_errors=True)
    TARGET.parent.mkdir(parents=True, exist_ok=True)
    server = Server(Path(args.binary).resolve(), TARGET, [f"{model_id}={Path(path).resolve()}"])
    try:
        server.start()
        client = Client(server.url)
        fill(client, model_id)
        said = answers(client)
    finally:
        server.stop()
    index = sqlite3.connect(TARGET / "index.sqlite")
    index.execute("PRAGMA journal_mode = DELETE")
    index.execute("PRAGMA page_size = 1024")
    index.execute("VACUUM")
    index.execute("PRAGMA journal_mode = WAL")
    index.close()
    for name in ("lock", "reserve", "index.sqlite-wal", "index.sqlite-shm"):
        (TARGET / name).unlink(missing_ok=True)
    (TARGET / "answers.json").write_text(json.dumps(said, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    try:
        main()
    except (HarnessError, ApiError, OSError) as error:
        sys.exit(f"{error}")
