#!/usr/bin/env python3
"""Compares builds of the server with each other, to see what a change is worth.

    bench/.venv/bin/python bench/compare.py before=/tmp/before/residuum after=target/release/residuum --what reuse,latency

Each build has its own server and store. In each round every build is measured once, in alternating order, so that a slow minute
of the machine hits all of them. Prints every figure and the medians. Needs no PyTorch and no other tools to compare with.
"""

import argparse
import contextlib
import random
import sys
from pathlib import Path
from statistics import median

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "scripts"))
from harness import ApiError, HarnessError, interrupt_on_signals, temporary_server  # noqa: E402
import costs  # noqa: E402
from load import closed_loop, wrk  # noqa: E402
from workload import CAPTURE, MODEL, N_CLIENTS, Ours, make_prompts  # noqa: E402


def throughput(ours, prompts):
    return ours.post([ours.run_request(prompt) for prompt in prompts], N_CLIENTS)


def bulk(ours, prompts):
    return ours.post([ours.run_request(prompts)], 1)


def latency(ours, _prompts, n_tokens=16, repeats=15):
    rng = random.Random(7)
    request = ours.run_request([rng.randrange(1000, 40000) for _ in range(n_tokens)])
    return 1000 * median(closed_loop(ours.server, [request] * repeats, 1)[1])


def positions(ours, prompts):
    n_layers = ours.client.get(f"/v1/models/{MODEL}")["n_layers"]
    contenders = costs.positions_contenders(ours, prompts, n_layers)
    one, every = contenders["one layer"](), contenders["every layer"]()
    return every / one


def reuse(ours, prompts):
    return costs.reused_per_second(ours, prompts, CAPTURE, N_CLIENTS)


def fetch(ours, _prompts):
    run = ours.client.run({"model": MODEL, "input": "What does a fetch cost?", "capture": CAPTURE})
    return wrk(ours.server, f"/v1/caches/{run['caches'][0]}/layers/0?format=raw", 64)[2]


MEASURES = {
    "throughput": (throughput, "s for all prompts, 32 clients"),
    "bulk": (bulk, "s for all prompts, one run"),
    "latency": (latency, "ms for 16 tokens alone"),
    "positions": (positions, "every layer's positions by one layer's"),
    "reuse": (reuse, "reused captures/s, 32 clients"),
    "fetch": (fetch, "layers/s, 64 connections"),
}


def named_binary(text):
    name, found, path = text.partition("=")
    if not found or not Path(path).is_file():
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=BINARY")
    return name, Path(path)


def measures(text):
    names = text.split(",")
    if unknown := [name for name in names if name not in MEASURES]:
        raise argparse.ArgumentTypeError(f"unknown: {', '.join(unknown)}; there are {', '.join(MEASURES)}")
    return names


def main():
    parser = argparse.ArgumentParser(description="Compare builds of the server with each other.")
    parser.add_argument("builds", nargs="+", type=named_binary, metavar="NAME=BINARY")
    parser.add_argument("--gguf", type=Path, default=ROOT / "models/SmolLM2-135M-Instruct.Q4_1.gguf")
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--what", type=measures, default=list(MEASURES), help=f"some of {', '.join(MEASURES)}")
    args = parser.parse_args()
    if len(dict(args.builds)) < len(args.builds):
        parser.error("each build needs a name of its own")
    interrupt_on_signals()
    prompts = make_prompts()
    try:
        with contextlib.ExitStack() as stack:
            servers = {
                name: Ours(stack.enter_context(temporary_server(binary, [f"{MODEL}={args.gguf}"])))
                for name, binary in args.builds
            }
            for what in args.what:
                measure, unit = MEASURES[what]
                figures = {name: [] for name in servers}
                for number in range(args.rounds + 1):
                    order = list(servers.items())
                    for name, ours in order if number % 2 else reversed(order):
                        figure = measure(ours, prompts)
                        if number:  # the first round warms up
                            figures[name].append(figure)
                print(f"{what}: {unit}")
                for name, series in figures.items():
                    print(f"  {name:12} median {median(series):10.3f}   " + " ".join(f"{x:.3f}" for x in series), flush=True)
    except (HarnessError, ApiError, ValueError, OSError) as error:
        print(f"compare: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
