#!/usr/bin/env python3
"""One sweep of activation patching, over HTTP and in TransformerLens, side by side.

    bench/.venv/bin/python bench/patching.py [--binary target/release/residuum] [--rounds 3]

The sweep puts the residual stream before each block, at each position, of one prompt into another, and measures the difference of
two logits: layers x positions passes. TransformerLens does it as its patching utilities do, with one hooked forward pass per cell. Both sides
read the same GGUF file in float32 with every core; the tables must agree before anything is timed. Prints a table.
"""

import argparse
import sys
import time
from pathlib import Path
from statistics import median

import numpy as np
import torch

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "scripts"))
from harness import Client, temporary_server  # noqa: E402
from peers import TransformerLens  # noqa: E402
from reference import Reference  # noqa: E402

CLEAN = "When John and Mary went to the store, John gave a drink to"
CORRUPT = "When John and Mary went to the store, Mary gave a drink to"
ANSWER, AGAINST = " Mary", " John"
# In units of the logit difference between the two prompts.
AGREEMENT = 1e-3


def in_transformer_lens(peer, clean, corrupt, answer, against):
    """`[layers, positions]`."""
    bridge, n_layers = peer.bridge, peer.bridge.cfg.n_layers
    names = [f"blocks.{layer}.hook_resid_pre" for layer in range(n_layers)]
    with torch.inference_mode():
        _, cache = bridge.run_with_cache(clean, names_filter=names)
        table = np.zeros((n_layers, corrupt.shape[1]))
        for layer, name in enumerate(names):
            for position in range(corrupt.shape[1]):

                def patch(value, hook, name=name, position=position):
                    value = value.clone()
                    value[:, position] = cache[name][:, position]
                    return value

                logits = bridge.run_with_hooks(corrupt, fwd_hooks=[(name, patch)])[0, -1]
                table[layer, position] = logits[answer] - logits[against]
    return table


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--binary", default=ROOT / "target" / "release" / "residuum")
    parser.add_argument("--gguf", default=ROOT / "models" / "SmolLM2-135M-Instruct.Q4_1.gguf")
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    reference = Reference(args.gguf)
    peer = TransformerLens(reference.causal, reference.tokenizer)
    clean, corrupt = (torch.tensor([reference.tokens(text)]) for text in (CLEAN, CORRUPT))
    answer, against = (reference.tokens(text)[-1] for text in (ANSWER, AGAINST))
    body = {
        "model": "bench",
        "clean": clean[0].tolist(),
        "corrupt": corrupt[0].tolist(),
        "answer": answer,
        "against": against,
        "sweep": {"hook": "resid_pre", "positions": "each"},
    }
    ours, theirs = [], []
    with temporary_server(str(args.binary), [f"bench={args.gguf}"]) as server:
        client = Client(server.url)
        for _ in range(args.rounds):
            started = time.perf_counter()
            found = client.call("POST", "/v1/experiments/patching", body).json()
            ours.append(time.perf_counter() - started)
            started = time.perf_counter()
            table = in_transformer_lens(peer, clean, corrupt, answer, against)
            theirs.append(time.perf_counter() - started)
            worst = np.abs(np.array(found["values"]) - table).max() / abs(found["clean"] - found["corrupt"])
            assert worst < AGREEMENT, f"the tables differ by {worst:.1e}"
    n_cells = found["n_cells"]
    print(f"\n{n_cells} cells: {len(found['layers'])} layers x {len(found['positions'])} positions; tables agree to {worst:.1e}")
    print("\n| | seconds | cells/s | ratio |\n| --- | ---: | ---: | ---: |")
    for name, seconds in (("Residuum, over HTTP", ours), ("TransformerLens, a hooked pass a cell", theirs)):
        middle = median(seconds)
        print(f"| {name} | {middle:.2f} | {n_cells / middle:.0f} | {median(theirs) / middle:.1f} |")


if __name__ == "__main__":
    main()
