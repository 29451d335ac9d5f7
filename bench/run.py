#!/usr/bin/env python3
"""Measures the server and what it replaces side by side, and writes bench/results.md and bench/results.json.

    scripts/fetch_demo_model.sh && cargo build --release --locked
    python3 -m venv bench/.venv && bench/.venv/bin/pip install -r bench/requirements.txt
    apt-get install nginx-light wrk    # nginx streams the same bytes for comparison; wrk sends the small requests
    bench/.venv/bin/python bench/run.py

Both sides read the same GGUF file, compute in float32 and may use every core. In each round every contender runs once,
so that a slow minute of the machine hits all of them; a figure is the median of its rounds. Before anything is timed,
both sides must give the same numbers. The load generator runs on the same cores as the server.
"""

import argparse
import json
import os
import platform
import random
import subprocess
import sys
import time
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from statistics import median

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "scripts"))
from harness import ApiError, HarnessError, interrupt_on_signals, temporary_server  # noqa: E402
import costs  # noqa: E402
from load import closed_loop, wrk  # noqa: E402
from peers import Nnsight, TransformerLens  # noqa: E402
from reference import Reference, worst_difference  # noqa: E402
from workload import CAPTURE, MODEL, N_CLIENTS, N_PROMPTS, Ours, make_prompts  # noqa: E402

LATENCY_TOKENS, LATENCY_REPEATS = (1, 2, 16, 64), 15
FETCH_CONNECTIONS = (1, 64)
# Requests per second over all connections, if each pauses between its requests.
PACE = 500
# Relative to a layer's RMS. Another order of summation changes values by about 1e-5 of it; a wrong computation by far more.
AGREEMENT = 1e-3


def interleave(rounds, contenders):
    """{name: [figure of each round]}: in every round each contender runs once, after one round that does not count."""
    figures = {name: [] for name in contenders}
    for number in range(rounds + 1):
        for name, contender in contenders.items():
            figure = contender()
            if number:
                figures[name].append(figure)
        print(f"  round {number} of {rounds}" if number else "  warm-up", flush=True)
    return figures


def timed(function, *args):
    start = time.perf_counter()
    function(*args)
    return time.perf_counter() - start


def measure_agreement(ours, reference, peers, prompts):
    """Checks that both sides give the same numbers, before their speed is measured."""
    difference = worst_difference(ours.values(prompts[:8]), reference.one_by_one(prompts[:8]))
    batched = worst_difference(reference.batched(prompts[:8]), reference.one_by_one(prompts[:8]))
    others = [(name, worst_difference(p.one_by_one(prompts[:8]), reference.one_by_one(prompts[:8]))) for name, p in peers.items()]
    for name, value in [("the server", difference), ("transformers in batches", batched), *others]:
        if value > AGREEMENT:
            raise HarnessError(f"{name} differs from transformers by {value:.1e} of a layer's RMS")
    return difference


def measure_throughput(ours, reference, peers, prompts, rounds):
    """Seconds for all prompts."""
    singles, bulk = [ours.run_request(prompt) for prompt in prompts], [ours.run_request(prompts)]
    return interleave(
        rounds,
        {
            f"Residuum, {N_CLIENTS} clients, one prompt a run": lambda: ours.post(singles, N_CLIENTS),
            "Residuum, one bulk run": lambda: ours.post(bulk, 1),
            "transformers, one by one": lambda: timed(reference.one_by_one, prompts),
            "transformers, sorted batches of 16": lambda: timed(reference.batched, prompts),
        }
        | {f"{name}, one by one": lambda p=peer: timed(p.one_by_one, prompts) for name, peer in peers.items()},
    )


def measure_latency(ours, reference, rounds):
    """Milliseconds of one prompt alone."""
    rng = random.Random(7)
    contenders = {}
    for n_tokens in LATENCY_TOKENS:
        ids = [rng.randrange(1000, 40000) for _ in range(n_tokens)]
        requests = [ours.run_request(ids)] * LATENCY_REPEATS
        contenders["Residuum", n_tokens] = lambda r=requests: 1000 * median(closed_loop(ours.server, r, 1)[1])
        contenders["transformers", n_tokens] = lambda i=ids: (
            1000 * median(timed(reference.bare_forward, i) for _ in range(LATENCY_REPEATS))
        )
    return interleave(rounds, contenders)


def measure_fetches(ours, rounds):
    """(p50 ms, p99 ms, requests/s) of fetching one layer."""
    run = ours.client.run({"model": MODEL, "input": "What does a fetch cost?", "capture": CAPTURE})
    layer = ours.client.get(f"/v1/models/{MODEL}")["n_layers"] // 2
    path = f"/v1/caches/{run['caches'][0]}/layers/{layer}"
    paths = {"raw": f"{path}?format=raw", "npy": f"{path}?format=npy", "GET /healthz, for scale": "/healthz"}

    contenders = {}
    for connections in FETCH_CONNECTIONS:
        for name, target in paths.items():
            contenders[name, connections] = lambda t=target, c=connections: wrk(ours.server, t, c)
    n = FETCH_CONNECTIONS[-1]
    for name, target in paths.items():
        paused = lambda t=target: wrk(ours.server, t, n, seconds=4, pause_ms=1000 * n // PACE)
        contenders[f"{name}, some {PACE}/s in all", n] = paused
    return interleave(rounds, contenders)


def measure_costs(ours, prompts, rounds):
    """What depth, positions, reuse and streaming cost."""
    n_layers = ours.client.get(f"/v1/models/{MODEL}")["n_layers"]
    rates = {n: lambda n=n: costs.reused_per_second(ours, prompts, CAPTURE, n) for n in (1, 32)}
    with costs.temporary_folder() as folder:
        nginx, streams = costs.stream_contenders(ours, folder)
        try:
            stream = interleave(rounds, streams)
        finally:
            nginx.stop()
    return {
        "depth": interleave(rounds, costs.depth_contenders(ours, prompts, n_layers)),
        # the result is a small difference of two large figures
        "positions": interleave(2 * rounds + 1, costs.positions_contenders(ours, prompts, n_layers)),
        "reuse": interleave(rounds, rates),
        "stream": stream,
        "n_layers": n_layers,
    }


def capture_everything(ours, n_tokens=2048):
    """Every hook at every position of one long input, attention maps included: gigabytes, which are deleted afterwards."""
    hooks = [hook["hook"] for hook in ours.client.get(f"/v1/models/{MODEL}")["hooks"]]
    rng = random.Random(11)
    ids = [rng.randrange(1000, 40000) for _ in range(n_tokens)]
    run = ours.client.run({"model": MODEL, "input": ids, "capture": {"hooks": hooks, "positions": "all"}}, timeout=1800.0)
    ours.client.call("DELETE", f"/v1/runs/{run['id']}")


def resident_mib(pid, what="VmRSS"):
    """Resident memory of a process, or with `VmHWM` its peak."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(f"{what}:"):
            return int(line.split()[1]) / 1024
    raise HarnessError("the system does not say how much memory the server holds")


def machine():
    """The machine and the versions on which the figures were measured."""
    processor = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    commit = subprocess.run(
        ["git", "-C", ROOT, "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False
    )
    return {
        "cpu": processor[0].partition(":")[2].strip() if processor else platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "system": f"{platform.system()} {platform.machine()}",
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "commit": commit.stdout.strip() or "unknown",
        **{name: version(name) for name in ("torch", "transformers", "transformer-lens", "nnsight")},
    }


def table(head, rows):
    lines = [head, ["---"] + ["---:"] * (len(head) - 1), *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)


def render(results):
    """The figures as one Markdown page."""
    host, n_tokens = results["machine"], results["n_tokens"]
    throughput = [
        [name, f"{s:.2f}", f"{N_PROMPTS / s:.1f}", f"{n_tokens / s:.0f}"]
        for name, s in ((name, median(seconds)) for name, seconds in results["throughput"].items())
    ]
    latency = [
        [row["tokens"], f"{median(row['residuum_ms']):.1f}", f"{median(row['transformers_ms']):.1f}"]
        for row in results["latency"]
    ]
    fetches = [
        [f"{row['format']}, {row['connections']} connection{'s' * (row['connections'] > 1)}"]
        + [f"{median(row[key]):.{digits}f}" for key, digits in [("p50_ms", 2), ("p99_ms", 2), ("per_second", 0)]]
        for row in results["fetches"]
    ]
    batched = median(results["throughput"]["transformers, sorted batches of 16"])
    throughput = [row + [f"{batched / median(results['throughput'][row[0]]):.2f}"] for row in throughput]
    cost = results["costs"]
    whole = median(cost["depth"][cost["n_layers"] - 1])
    depth = [
        [layer, f"{median(s) / whole:.2f}", f"{(layer + 1) / cost['n_layers']:.2f}"] for layer, s in cost["depth"].items()
    ]
    pairs = zip(cost["positions"]["every layer"], cost["positions"]["one layer"], strict=True)
    every = median(every / one for every, one in pairs)
    stream, nginx = (median(cost["stream"][name]) for name in ("Residuum", "nginx"))
    weights = results["memory"]["weights_mib"]
    names = {
        "weights_mib": "float32 weights",
        "idle_mib": "server idle",
        "after_mib": "server after the load above",
        "peak_mib": "its peak, with every hook of 2,048 tokens captured at last",
    }
    memory = [[names[key], f"{mib:.0f}", f"{mib / weights:.2f}"] for key, mib in results["memory"].items()]
    return "\n".join(
        [
            "# Benchmark",
            "",
            f"{host['cpu']}, {host['cores']} cores, {host['memory_gib']} GiB, {host['system']}, {host['date']}, commit "
            f"{host['commit']}, load average before the start {results['load_before']:.1f}.",
            f"Model: {results['model']}, computed in float32 on both sides; transformers {host['transformers']} on "
            f"torch {host['torch']} with {host['cores']} threads; TransformerLens {host['transformer-lens']}, nnsight {host['nnsight']}.",
            f"Medians of {results['rounds']} interleaved rounds. Written by `bench/run.py`, which says how to run it.",
            f"Before timing, both sides agreed to {results['worst_difference']:.1e} of each layer's RMS.",
            "",
            f"## Capture: {N_PROMPTS} prompts of 8 to 128 words ({n_tokens} tokens), every layer at the last token",
            "",
            "Residuum's figures include HTTP, queue and durable store; transformers' end with the numbers in memory.",
            "",
            table(["", "seconds", "captures/s", "tokens/s", "× batched transformers"], throughput),
            "",
            "## One prompt alone, milliseconds",
            "",
            "Residuum: `POST /v1/runs?wait=30` with `reuse: false`, captured and stored. transformers: the bare",
            "forward pass, nothing kept.",
            "",
            table(["tokens", "Residuum", "transformers"], latency),
            "",
            "## Fetching one layer",
            "",
            "The client is one thread of wrk on the same cores; `/healthz` shows what the client and HTTP cost alone. Each connection sends its",
            f"next request when it has its answer; in the last rows it pauses first, so that all connections together send about {PACE} a second.",
            "",
            table(["", "p50 ms", "p99 ms", "requests/s"], fetches),
            "",
            "## What a capture costs",
            "",
            "The pass stops after the last layer needed. One bulk run of the prompts, the last token of one layer:",
            "",
            table(["layer", "of the time for the last layer", "of the layers"], depth),
            "",
            f"Every position of every layer takes {every:.3f} of the time for every position of one layer, files and index included "
            f"(median of {len(cost['positions']['one layer'])} pairs). Each run is deleted before the next one.",
            "",
            f"What is stored already is answered without a forward pass: {median(cost['reuse'][1]):.0f} captures/s over one connection, "
            f"{median(cost['reuse'][32]):.0f} over 32.",
            "",
            f"One tensor of 66 MB over one connection: {stream:.0f} MB/s; nginx with the same bytes as a file {nginx:.0f} MB/s "
            f"({stream / nginx:.2f}).",
            "",
            "## Resident memory",
            "",
            table(["", "MiB", "of the float32 weights"], memory),
            "",
        ]
    )


def measure(args, server):
    ours, prompts = Ours(server), make_prompts()
    weights = ours.client.get(f"/v1/models/{MODEL}")["n_params"] * 4 / 2**20
    idle = resident_mib(server.process.pid)
    reference = Reference(args.gguf)
    print("comparing the numbers", flush=True)
    peers = {"TransformerLens": TransformerLens(reference.causal, reference.tokenizer), "nnsight": Nnsight(reference.causal, reference.tokenizer)}
    difference = measure_agreement(ours, reference, peers, prompts)
    print("capture", flush=True)
    throughput = measure_throughput(ours, reference, peers, prompts, args.rounds)
    print("latency", flush=True)
    latency = measure_latency(ours, reference, args.rounds)
    print("fetch", flush=True)
    fetches = measure_fetches(ours, args.rounds)
    print("costs", flush=True)
    cost = measure_costs(ours, prompts, args.rounds)
    after = resident_mib(server.process.pid)
    print("memory", flush=True)
    capture_everything(ours)
    return {
        "machine": machine(),
        "model": args.gguf.name,
        "rounds": args.rounds,
        "worst_difference": difference,
        "n_tokens": sum(len(reference.tokens(prompt)) for prompt in prompts),
        "throughput": throughput,
        "latency": [
            {"tokens": n, "residuum_ms": latency["Residuum", n], "transformers_ms": latency["transformers", n]}
            for n in LATENCY_TOKENS
        ],
        "fetches": [
            {"format": name, "connections": connections}
            | {key: [figure[i] for figure in figures] for i, key in enumerate(["p50_ms", "p99_ms", "per_second"])}
            for (name, connections), figures in fetches.items()
        ],
        "costs": cost,
        "memory": {
            "weights_mib": weights,
            "idle_mib": idle,
            "after_mib": after,
            "peak_mib": resident_mib(server.process.pid, "VmHWM"),
        },
    }


def main():
    parser = argparse.ArgumentParser(description="Measure the server against transformers.")
    parser.add_argument("--binary", type=Path, default=ROOT / "target/release/residuum")
    parser.add_argument("--gguf", type=Path, default=ROOT / "models/SmolLM2-135M-Instruct.Q4_1.gguf")
    parser.add_argument("--rounds", type=int, default=3, help="at least 3")
    parser.add_argument(
        "--out", type=Path, default=Path(__file__).parent, help="folder for results.md and results.json"
    )
    args = parser.parse_args()
    if args.rounds < 3:
        parser.error("a median needs at least 3 rounds")
    interrupt_on_signals()
    busy = os.getloadavg()[0]
    if busy > 0.5:
        print(f"bench: other programs are busy (load {busy:.1f}); figures taken now say little", file=sys.stderr)
    try:
        with temporary_server(args.binary, [f"{MODEL}={args.gguf}"]) as server:
            results = measure(args, server) | {"load_before": busy}
    except (HarnessError, ApiError, ValueError, OSError) as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    page = render(results)
    (args.out / "results.json").write_text(json.dumps(results, indent=1) + "\n")
    (args.out / "results.md").write_text(page)
    print("\n" + page)
    return 0


if __name__ == "__main__":
    sys.exit(main())
