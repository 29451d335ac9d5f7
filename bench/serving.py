#!/usr/bin/env python3
"""What loading and unloading a model costs a bulk run that goes on meanwhile.

    python3 bench/serving.py [--binary target/release/residuum] [--seconds 10] [--rounds 3]

A server computes a bulk run on SmolLM2 without a pause. Its speed is the growth of `residuum_tokens_total`. Each round measures it alone, while a
second copy of the model is loaded and unloaded again and again, and alone again; the ratio is the second over the mean of the other two. It also
prints how long a load and an unload take, and how much memory they take and give back. Prints a table.
"""

import argparse
import itertools
import random
import sys
import threading
import time
from pathlib import Path
from statistics import median

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "scripts"))
from harness import FINAL, Client, HarnessError, temporary_server  # noqa: E402

WORDS = "time year people way day man thing woman life child world school state family student group country".split()
CAPTURE = {"hooks": ["resid_post"], "layers": [0, 29], "positions": "last"}
INPUTS = 400


def metric(client, name):
    """The value of a metric without labels."""
    text = client.call("GET", "/metrics").body.decode()
    line = next(line for line in text.splitlines() if line.startswith(f"{name} "))
    return float(line.split()[1])


class BulkWork(threading.Thread):
    """Keeps two bulk runs in the queue until it is told to stop."""

    def __init__(self, url):
        super().__init__(daemon=True)
        self.client, self.ending, self.failure = Client(url, timeout=600.0), threading.Event(), None

    def run(self):
        rng = random.Random(20260101)
        waiting = []
        try:
            while not self.ending.is_set():
                texts = [" ".join(rng.choices(WORDS, k=rng.randint(20, 60))) for _ in range(INPUTS)]
                body = {"model": "bench", "input": texts, "capture": CAPTURE, "reuse": False, "priority": "bulk"}
                waiting.append(self.client.call("POST", "/v1/runs", body).json()["id"])
                while len(waiting) >= 2 and not self.ending.is_set():
                    run = self.client.get(f"/v1/runs/{waiting[0]}")
                    if run["status"] in FINAL:
                        if run["status"] != "completed":
                            raise HarnessError(f"a bulk run ended as {run['status']}")
                        self.client.call("DELETE", f"/v1/runs/{waiting.pop(0)}")
                    time.sleep(0.1)
        except Exception as error:  # shown by the main thread
            self.failure = error
        for run in waiting:
            self.client.call("POST", f"/v1/runs/{run}/cancel")


def speed(client, work, seconds, meanwhile):
    """Tokens per second of the bulk run while `meanwhile` is called again and again, for at least so many seconds."""
    start, before = time.monotonic(), metric(client, "residuum_tokens_total")
    while time.monotonic() - start < seconds:
        meanwhile()
        if work.failure is not None:
            raise work.failure
    return (metric(client, "residuum_tokens_total") - before) / (time.monotonic() - start)


class Loads:
    """Loads and unloads a model, and remembers what that took."""

    def __init__(self, client, source):
        self.client, self.source, self.numbers = client, source, itertools.count()
        self.load_seconds, self.unload_seconds, self.grown, self.estimate = [], [], [], None

    def once(self):
        name = f"copy-{next(self.numbers)}"
        memory = metric(self.client, "process_resident_memory_bytes")
        start = time.monotonic()
        body = {"id": name, "source": self.source}
        model = self.client.call("POST", "/v1/models?wait=600", body).json()
        if model["status"] != "ready":
            raise HarnessError(f"the model is {model['status']}: {model['error']}")
        loaded = time.monotonic()
        self.grown.append(metric(self.client, "process_resident_memory_bytes") - memory)
        self.estimate = model["memory_bytes"]
        self.client.call("DELETE", f"/v1/models/{name}?wait=600")
        self.load_seconds.append(loaded - start)
        self.unload_seconds.append(time.monotonic() - loaded)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--binary", default=ROOT / "target" / "release" / "residuum")
    parser.add_argument("--model", type=Path, default=ROOT / "models" / "SmolLM2-135M-Instruct.Q4_1.gguf")
    parser.add_argument("--seconds", type=float, default=10.0, help="of each measurement")
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    model = args.model.resolve()
    options = ["--models-dir", str(model.parent)]
    with temporary_server(args.binary, [f"bench={model}"], options=options, timeout=600.0) as server:
        client = Client(server.url, timeout=900.0)
        alone = metric(client, "process_resident_memory_bytes")
        loads, work = Loads(client, model.name), BulkWork(server.url)
        loads.once()  # pages of the file, and of the allocator
        work.start()
        speed(client, work, args.seconds, lambda: time.sleep(0.2))  # warms up
        ratios = []
        print("| round | before, tokens/s | while loading | after | ratio |\n|---|---|---|---|---|")
        for i in range(args.rounds):
            before = speed(client, work, args.seconds, lambda: time.sleep(0.2))
            during = speed(client, work, args.seconds, loads.once)
            after = speed(client, work, args.seconds, lambda: time.sleep(0.2))
            ratios.append(2 * during / (before + after))
            print(f"| {i + 1} | {before:.0f} | {during:.0f} | {after:.0f} | {ratios[-1]:.2f} |", flush=True)
        work.ending.set()
        work.join(600)
        time.sleep(15)  # the allocator gives pages back after some time
        end = metric(client, "process_resident_memory_bytes")
    mib = 1 << 20
    print(f"\nmedian ratio {median(ratios):.2f}; {len(loads.load_seconds)} loads of {median(loads.load_seconds):.2f} s and unloads of "
          f"{median(loads.unload_seconds):.2f} s")
    print(f"memory: estimated {loads.estimate / mib:.0f} MiB, the first load took {loads.grown[0] / mib:.0f} MiB; "
          f"{alone / mib:.0f} MiB before all loads, {end / mib:.0f} MiB after them")


if __name__ == "__main__":
    main()
