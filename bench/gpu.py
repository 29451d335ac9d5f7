#!/usr/bin/env python3
"""Measures a model of Llama 3.1 8B's shape on one NVIDIA GPU: the server and PyTorch, side by side.

    cargo build --release --locked --features cuda --bin residuum --example device
    python3 bench/gpu.py            # needs torch, transformers and numpy; writes bench/gpu.json

The weights are random, because speed does not depend on them. Both sides compute in bfloat16. Prefills are timed
without HTTP (`examples/device.rs` against a forward of transformers with hooks that bring activations to the CPU), then over
HTTP with everything on disk. Before that, both must agree with transformers in float32.
"""

import argparse
import json
import os
import random
import re
import subprocess
import sys
import time
from pathlib import Path
from statistics import median

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "scripts"))
from harness import Client, HarnessError, temporary_server  # noqa: E402
from load import body_of, build, closed_loop  # noqa: E402

# Relative to a row's size. Factors of products are rounded to bfloat16 (8 bits); a wrong computation is off by one or more.
AGREEMENT = 0.1
ROUNDS = 15
SHAPES = {
    "8b": dict(
        hidden_size=4096, intermediate_size=14336, num_hidden_layers=32, num_attention_heads=32, num_key_value_heads=8, vocab_size=128256
    ),
    "1b": dict(
        hidden_size=2048, intermediate_size=8192, num_hidden_layers=16, num_attention_heads=32, num_key_value_heads=8, vocab_size=128256
    ),
    "tiny": dict(hidden_size=256, intermediate_size=512, num_hidden_layers=4, num_attention_heads=8, num_key_value_heads=4, vocab_size=2048),
}


def tokens(n, vocabulary, seed):
    rng = random.Random(seed)
    return [rng.randrange(3, vocabulary) for _ in range(n)]


def make_model(folder, shape, device):
    """A checkpoint with random weights, and a tokenizer with a small vocabulary."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        **SHAPES[shape], max_position_embeddings=8192, rope_theta=500000.0, rms_norm_eps=1e-5, bos_token_id=1, eos_token_id=2, dtype="bfloat16"
    )
    torch.manual_seed(0)
    torch.set_default_dtype(torch.bfloat16)
    with torch.device(device):
        model = LlamaForCausalLM(config)
    torch.set_default_dtype(torch.float32)
    model.save_pretrained(folder)
    golden = ROOT / "tests/goldens/llama/gqa_tied"
    for name in ("tokenizer.json", "tokenizer_config.json"):
        Path(folder, name).write_bytes((golden / name).read_bytes())
    return model.eval()


class Torch:
    """A forward of transformers, with hooks."""

    def __init__(self, model, device):
        import torch

        self.torch, self.model, self.device = torch, model, device
        self.layers = model.model.layers
        self.pinned = {}

    def forward(self, ids, hook=None, layers=()):
        handles = [self.layers[i].register_forward_hook(lambda _m, _a, out, i=i: hook(i, out)) for i in layers]
        try:
            with self.torch.no_grad():
                self.model.model(self.torch.tensor([ids], device=self.device), use_cache=False)
            if self.device != "cpu":
                self.torch.cuda.synchronize()
        finally:
            for handle in handles:
                handle.remove()

    def hidden(self, out):
        return out[0] if isinstance(out, tuple) else out

    def plain(self, ids):
        self.forward(ids)

    def last(self, ids):
        kept = {}
        self.forward(ids, lambda i, out: kept.__setitem__(i, self.hidden(out)[0, -1]), range(len(self.layers)))
        return self.torch.stack([kept[i] for i in range(len(self.layers))]).float().cpu()

    def every(self, ids):
        """As in notebooks: copied to the CPU at every layer."""
        kept = {}
        self.forward(ids, lambda i, out: kept.__setitem__(i, self.hidden(out)[0].cpu()), range(len(self.layers)))
        return kept

    def every_pinned(self, ids):
        """Copied to pinned memory, without waiting between layers."""

        def keep(i, out):
            out = self.hidden(out)[0]
            to = self.pinned.get(i)
            if to is None or to.shape != out.shape:
                to = self.pinned[i] = self.torch.empty_like(out, device="cpu", pin_memory=self.device != "cpu")
            to.copy_(out, non_blocking=True)

        self.forward(ids, keep, range(len(self.layers)))
        return self.pinned

    def batch(self, inputs):
        """Last token of every layer of inputs of one length."""
        kept = {}
        ids = self.torch.tensor(inputs, device=self.device)
        handles = [
            layer.register_forward_hook(lambda _m, _a, out, i=i: kept.__setitem__(i, self.hidden(out)[:, -1])) for i, layer in enumerate(self.layers)
        ]
        try:
            with self.torch.no_grad():
                self.model.model(ids, use_cache=False)
        finally:
            for handle in handles:
                handle.remove()
        return self.torch.stack([kept[i] for i in range(len(self.layers))]).float().cpu()


def rounded(report):
    """The report with four digits of each figure."""
    if isinstance(report, dict):
        return {name: rounded(value) for name, value in report.items()}
    return float(f"{report:.4g}") if isinstance(report, float) else report


def milliseconds(function, rounds=ROUNDS):
    times = []
    for _ in range(rounds + 2):
        start = time.perf_counter()
        function()
        times.append(1000 * (time.perf_counter() - start))
    return median(times[2:])


def measure_torch(reference, vocabulary, lengths, report):
    contenders = {
        "plain": reference.plain,
        "last token of every layer": reference.last,
        "every token of every layer": reference.every,
        "every token of every layer, pinned": reference.every_pinned,
    }
    for n in lengths:
        times = {name: [] for name in contenders}
        for round_ in range(ROUNDS + 2):
            for name, function in contenders.items():
                ids = tokens(n, vocabulary, n + round_)
                start = time.perf_counter()
                function(ids)
                times[name].append(1000 * (time.perf_counter() - start))
        report[f"torch, {n} tokens, ms"] = {name: median(of[2:]) for name, of in times.items()}
    inputs = [tokens(128, vocabulary, i) for i in range(32)]
    report["torch, batch of 32 x 128 tokens, last token of every layer, tokens/s"] = 32 * 128 / (milliseconds(lambda: reference.batch(inputs), 8) / 1000)


def measure_copies(device, report):
    """How fast the machine copies from the GPU to pinned memory, and from there on, in GB/s."""
    import torch

    if device == "cpu":
        return
    on_gpu = torch.ones(64 << 20, device=device)
    pinned, there = torch.empty(64 << 20, pin_memory=True), torch.empty(64 << 20)

    def from_gpu():
        pinned.copy_(on_gpu, non_blocking=True)
        torch.cuda.synchronize()

    report["copies, GB/s"] = {
        "GPU to pinned memory": 0.268 / (milliseconds(from_gpu) / 1000),
        "pinned memory to memory, all cores": 0.268 / (milliseconds(lambda: there.copy_(pinned)) / 1000),
    }


def largest_deviation(expected, got):
    """Largest difference of rows `[d_model]`, relative to their size."""
    import numpy as np

    return float(np.max(np.linalg.norm(expected - got, axis=-1) / np.linalg.norm(expected, axis=-1)))


def answer_deviation(log):
    """The deviation that the server measured when it started."""
    found = re.search(r"deviation\W*=\W*([0-9.e-]+)", re.sub(r"\x1b\[[0-9;]*m", "", log))
    return float(found.group(1)) if found else None


def measure_ours(binary, folder, device, options, vocabulary, lengths, references, report):
    import numpy as np

    start = time.perf_counter()
    with temporary_server(binary, [f"bench={folder}"], options=["--device", device, *options], timeout=300.0) as server:
        report["server, seconds to start"] = time.perf_counter() - start
        client = Client(server.url, timeout=600.0)
        n_layers = client.get("/v1/models/bench")["n_layers"]

        def body(inputs, layers="all", positions="last", **more):
            capture = {"hooks": ["resid_post"], "layers": layers, "positions": positions, **more}
            return {"model": "bench", "input": inputs, "capture": capture, "reuse": False}

        for ids, expected, theirs in references:
            run = client.run(body(ids, positions="all"))
            path = f"/v1/caches/{run['caches'][0]}/layers?format=raw"
            got = np.frombuffer(client.call("GET", path).body, "<f4").reshape(expected.shape)
            report[f"deviation from float32, {len(ids)} tokens"] = {
                "server": largest_deviation(expected, got),
                "transformers": largest_deviation(expected, theirs),
            }
            if not largest_deviation(expected, got) < AGREEMENT:
                raise HarnessError(f"the numbers differ: {report}")

        def latency(request, rounds=ROUNDS):
            answers, times, _ = closed_loop(server, [request] * (rounds + 2), 1)
            if any(body_of(answer)["status"] != "completed" for answer in answers):
                raise HarnessError("a run is not complete")
            return 1000 * median(times[2:])

        def post(inputs, **capture):
            return build("POST", "/v1/runs?wait=30", server.listen, body(inputs, **capture))

        for n in lengths:
            ids = tokens(n, vocabulary, n)
            report[f"server over HTTP, {n} tokens, ms"] = {
                "plain": latency(post(ids, layers=[n_layers - 1])),
                "last token of every layer": latency(post(ids)),
                "every token of every layer": latency(post(ids, positions="all"), 8),
                "every token of every layer, stored as bfloat16": latency(post(ids, positions="all", dtype="bfloat16"), 8),
            }
        inputs = [tokens(128, vocabulary, i) for i in range(256)]
        for name, requests, connections in [
            ("32 clients, one input of 128 tokens a run", [post(ids) for ids in inputs], 32),
            ("one run of 256 inputs of 128 tokens", [post(inputs)], 1),
        ]:
            seconds = []
            for _ in range(4):
                start = time.perf_counter()
                answers, _, _ = closed_loop(server, requests, connections)
                seconds.append(time.perf_counter() - start)
                if any(body_of(a)["status"] != "completed" for a in answers):
                    raise HarnessError(f"{name}: a run is not complete")
            report[f"server, {name}, last token of every layer, tokens/s"] = 256 * 128 / median(seconds[1:])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=SHAPES, default="8b")
    parser.add_argument("--folder", type=Path, default=Path("/dev/shm/residuum-bench-model"), help="where the checkpoint is made, 16 GB for 8b")
    parser.add_argument("--device", default="cuda", help="of the server; PyTorch uses the CPU unless this is cuda")
    parser.add_argument("--binary", type=Path, default=ROOT / "target/release/residuum")
    parser.add_argument("--example", type=Path, default=ROOT / "target/release/examples/device")
    parser.add_argument("--tokens", type=int, nargs="+", default=[512, 2048])
    parser.add_argument("--skip", nargs="*", default=[], choices=["passes", "server", "torch"])
    parser.add_argument("--server-option", action="append", default=[])
    parser.add_argument("--out", type=Path, default=ROOT / "bench/gpu.json")
    options = parser.parse_args()
    report = {"shape": options.shape}
    started = time.perf_counter()

    def save(what):
        print(f"{time.perf_counter() - started:6.1f} s  {what}", flush=True)
        options.out.write_text(json.dumps(rounded(report), indent=2) + "\n")

    device = "cuda" if options.device.startswith("cuda") else "cpu"
    import torch

    if device == "cuda":
        report["gpu"], report["torch"] = torch.cuda.get_device_name(), torch.__version__
    vocabulary = SHAPES[options.shape]["vocab_size"]
    model = make_model(options.folder, options.shape, device)
    save("the checkpoint is made")
    reference = Torch(model, device)
    measure_copies(device, report)
    if "torch" not in options.skip:
        measure_torch(reference, vocabulary, options.tokens, report)
        save("PyTorch is measured")
    references = []
    if "server" not in options.skip:
        prompts = [tokens(n, vocabulary, 1000 + n) for n in (1, 37, 200)]
        theirs = [torch.stack([v for _, v in sorted(reference.every(ids).items())]).float().numpy() for ids in prompts]
        model.float()
        expected = [torch.stack([v for _, v in sorted(reference.every(ids).items())]).numpy() for ids in prompts]
        references = list(zip(prompts, expected, theirs, strict=True))
        save("transformers in float32")
    del reference, model
    if device == "cuda":
        torch.cuda.empty_cache()
    if "passes" not in options.skip:
        arguments = [str(options.folder), options.device, "bfloat16" if device == "cuda" else "float32", *map(str, options.tokens)]
        answer = subprocess.run([options.example, *arguments], capture_output=True, text=True, check=False)
        if answer.returncode:
            raise HarnessError(f"{options.example}: {answer.stderr[-3000:]}")
        report["server's passes"] = json.loads(answer.stdout)
        report["the device's check, largest deviation"] = answer_deviation(answer.stderr)
        save("the server's passes are measured")
    if "server" not in options.skip:
        measure_ours(options.binary, options.folder, options.device, options.server_option, vocabulary, options.tokens[:1], references, report)
        save("the server is measured")
    print(json.dumps(rounded(report), indent=2))


if __name__ == "__main__":
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    main()
