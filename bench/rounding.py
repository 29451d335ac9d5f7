#!/usr/bin/env python3
"""Measures rounding errors of float32, in Residuum and in transformers, against transformers in float64.

    cargo build --release --locked --bin residuum
    python3 -m venv bench/.venv && bench/.venv/bin/pip install -r bench/requirements.txt
    bench/.venv/bin/python bench/rounding.py --gguf models/SmolLM2-135M-Instruct.Q4_1.gguf

Seeded random tokens; `resid_post` of every layer. The error of a row is its largest difference from float64, divided by
its root mean square; the worst layer counts. First positions are prompts of one token each, which SmolLM2 uses as an attention
sink. The other positions are those of longer prompts.
"""

import argparse
import os
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
import transformers

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "scripts"))
from harness import Client, Server, interrupt_on_signals  # noqa: E402

N_PROMPTS = 8
PROMPT_TOKENS = 48


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gguf", type=Path, required=True)
    parser.add_argument("--first", type=int, default=60, help="prompts of one token")
    parser.add_argument("--binary", type=Path, default=ROOT / "target/release/residuum")
    args = parser.parse_args()
    interrupt_on_signals()
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    exact, single = (Transformers(args.gguf, dtype) for dtype in (torch.float64, torch.float32))
    rng = np.random.default_rng(0)
    draw = lambda n: [int(i) for i in rng.integers(20, exact.d_vocab, n)]  # noqa: E731
    prompts = {
        "first": [draw(1) for _ in range(args.first)],
        "others": [draw(PROMPT_TOKENS) for _ in range(N_PROMPTS)],
    }
    with tempfile.TemporaryDirectory(prefix="residuum-rounding-", dir=os.environ.get("TMPDIR")) as folder:
        server = Server(args.binary, Path(folder) / "data", [f"m={args.gguf}"], log=Path(folder) / "server.log")
        try:
            server.start()
            ours = Ours(Client(server.url), exact.n_layers)
            report(prompts, exact, {"Residuum": ours, "transformers float32": single})
        finally:
            if server.process is not None:
                server.stop()


class Transformers:
    """The checkpoint in one floating point type."""

    def __init__(self, gguf, dtype):
        model = transformers.AutoModelForCausalLM.from_pretrained(
            gguf.parent, gguf_file=gguf.name, dtype=torch.float32, attn_implementation="eager"
        )
        self.model = model.eval().to(dtype)
        self.n_layers, self.d_vocab = model.config.num_hidden_layers, model.config.vocab_size

    @torch.inference_mode()
    def rows(self, ids):
        """`resid_post` of every layer and position, `[n_layers, pos, d_model]`."""
        kept = []
        hooks = [
            layer.register_forward_hook(lambda _, __, out: kept.append(out[0] if isinstance(out, tuple) else out))
            for layer in self.model.model.layers
        ]
        self.model(torch.tensor([ids]))
        for hook in hooks:
            hook.remove()
        return np.stack([out.reshape(len(ids), -1).double().numpy() for out in kept])


class Ours:
    """A running server."""

    def __init__(self, client, n_layers):
        self.client, self.n_layers = client, n_layers

    def rows(self, ids):
        hooks = [f"blocks.{layer}.hook_resid_post" for layer in range(self.n_layers)]
        body = {"model": "m", "input": ids, "capture": {"hooks": hooks, "positions": "all"}}
        run = self.client.call("POST", "/v1/runs?wait=60", body).json()
        path = f"/v1/caches/{run['caches'][0]}/layers/{{}}?format=raw"
        layers = [self.client.call("GET", path.format(layer)).body for layer in range(self.n_layers)]
        return np.stack([np.frombuffer(layer, "<f4").reshape(len(ids), -1) for layer in layers]).astype(np.float64)


def report(prompts, exact, contenders):
    print(f"{'position':<10} {'':<22} {'rows':>5} {'median':>9} {'90 %':>9} {'worst':>9}")
    for where, inputs in prompts.items():
        errors = {name: [] for name in contenders}
        for ids in inputs:
            reference = exact.rows(ids)
            scale = np.sqrt((reference**2).mean(-1))
            for name, contender in contenders.items():
                error = (np.abs(contender.rows(ids) - reference).max(-1) / scale).max(0)
                errors[name].extend(error if where == "first" else error[1:])
        for name, found in errors.items():
            figures = np.median(found), np.quantile(found, 0.9), np.max(found)
            print(f"{where:<10} {name:<22} {len(found):>5} " + " ".join(f"{figure:9.1e}" for figure in figures))


if __name__ == "__main__":
    main()
