#!/usr/bin/env python3
"""Measures POST /v1/search and faiss-cpu's exact flat index on the same vectors, side by side in one run.

    cargo build --release --locked --bin residuum --example pack_vectors
    python3 -m venv bench/.venv && bench/.venv/bin/pip install numpy faiss-cpu
    bench/.venv/bin/python bench/search.py --rows 1000000 --model smollm2-135m=models/SmolLM2-135M-Instruct.Q4_1.gguf

Seeded float32 vectors are written to a data folder by the store's own writer (examples/pack_vectors.rs), one cache per vector.
Residuum is timed over HTTP, JSON included; faiss in this process, with as many threads as there are cores. The rounds alternate; a
figure is the median. Both must find the same rows before anything is timed. The blobs are in the page cache.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

import faiss
import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "scripts"))
from harness import Client, HarnessError, Server, interrupt_on_signals  # noqa: E402

HOOK = "blocks.0.hook_resid_post"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--width", type=int, default=576)
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 32])
    parser.add_argument("--k", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--model", required=True, help="ID=PATH of any model: a server serves one")
    parser.add_argument("--target", type=Path, default=ROOT / "target/release")
    args = parser.parse_args()
    interrupt_on_signals()
    with tempfile.TemporaryDirectory(prefix="residuum-search-", dir=os.environ.get("TMPDIR")) as folder:
        measure(args, Path(folder))


def measure(args, folder):
    rng = np.random.default_rng(20260101)
    vectors = rng.standard_normal((args.rows, args.width), dtype=np.float32)
    vectors.tofile(folder / "vectors.f32")
    start = time.perf_counter()
    pack = [args.target / "examples/pack_vectors", folder / "data", folder / "vectors.f32", str(args.width)]
    subprocess.run(pack, check=True)
    print(f"{args.rows} caches stored in {time.perf_counter() - start:.1f} s", flush=True)
    (folder / "vectors.f32").unlink()
    index = faiss.IndexFlatIP(args.width)
    index.add(vectors)
    server = Server(args.target / "residuum", folder / "data", [args.model], log=folder / "server.log")
    try:
        server.start()
        compare(args, index, vectors, Client(server.url, timeout=600.0))
    finally:
        if server.process is not None:
            server.stop()


def compare(args, index, vectors, client):
    print(f"{args.rows} x {args.width} float32, dot, k {args.k}, {os.cpu_count()} cores, median of {args.rounds} rounds")
    print(f"{'batch':>6} {'ours, first':>12} {'ours':>10} {'faiss':>10} {'ours/faiss':>11}")
    for batch in args.batches:
        queries = vectors[:: max(1, args.rows // batch)][:batch] + np.float32(0.25)
        body = {"query": {"vectors": queries.tolist()}, "hook": HOOK, "metric": "dot", "k": args.k, "context": 0}
        start = time.perf_counter()
        ours = client.call("POST", "/v1/search", body).json()
        first = time.perf_counter() - start
        agree(ours, *index.search(queries, args.k))
        figures = {"ours": [], "faiss": []}
        for _ in range(args.rounds):
            figures["ours"].append(timed(lambda: client.call("POST", "/v1/search", body)))
            figures["faiss"].append(timed(lambda: index.search(queries, args.k)))
        mine, theirs = median(figures["ours"]), median(figures["faiss"])
        print(f"{batch:>6} {first:>10.3f} s {mine:>8.3f} s {theirs:>8.3f} s {mine / theirs:>11.2f}", flush=True)


def timed(function):
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def agree(ours, scores, rows):
    """Checks that both found the same rows; rows whose scores are equal up to rounding may change places."""
    for result, scores, rows in zip(ours["results"], scores, rows, strict=True):
        found = [hit["score"] for hit in result["hits"]]
        if not np.allclose(found, scores, rtol=1e-5, atol=1e-3):
            raise HarnessError("the scores differ from faiss's")
        if len({hit["metadata"]["row"] for hit in result["hits"]} & set(rows.tolist())) < len(rows) - 1:
            raise HarnessError("the rows differ from faiss's")


if __name__ == "__main__":
    main()
