#!/usr/bin/env python3
"""Loads a server with more and more clients: throughput, latency, refusals and memory, one line per number of clients.

    scripts/fetch_demo_model.sh && cargo build --release --locked
    python3 bench/load_test.py                                   # starts a server of its own
    python3 bench/load_test.py --url http://host:8080 --model my-model --key rsd_...    # or loads a running one

Standard library only. Each client sends its next request when it has its answer, and after a 429 or 503 a fifth of a second
later. `--what` chooses the requests:

    capture   a run of one prompt, computed every time, every layer at the last token
    reuse     the same runs, answered by what is stored
    fetch     one layer of a stored cache

The generator is one thread of this machine; if the server runs on the same machine, they share its cores.
"""

import argparse
import asyncio
import random
import re
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from statistics import quantiles
from types import SimpleNamespace
from urllib.parse import urlsplit

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "scripts"))
from harness import ApiError, Client, HarnessError, interrupt_on_signals, temporary_server  # noqa: E402
from load import build, connect, status_of  # noqa: E402

WORDS = "the of tower city stone river light seven moves green under because model layer token slowly between again".split()
CAPTURE = {"hooks": ["resid_post"], "layers": "all", "positions": "last"}
TOO_BUSY = (429, 503)
PAUSE = 0.2


class Tally:
    """Latencies, refusals and failures of one step."""

    def __init__(self):
        self.latencies, self.rejected, self.failed = [], 0, []


def requests(args, server, client):
    """The requests that clients choose from."""
    rng = random.Random(args.seed)
    prompts = [" ".join(rng.choices(WORDS, k=rng.randint(8, 64))) for _ in range(64)]
    body = lambda prompt, reuse: {"model": args.model, "input": prompt, "capture": CAPTURE, "reuse": reuse}
    if args.what == "capture":
        return [build("POST", "/v1/runs?wait=60", server.host, body(p, False), args.key) for p in prompts]
    run = client.run(body(prompts, True))
    if args.what == "reuse":
        return [build("POST", "/v1/runs?wait=60", server.host, body(p, True), args.key) for p in prompts]
    return [build("GET", f"/v1/caches/{c}/layers/0?format=raw", server.host, None, args.key) for c in run["caches"]]


async def one_client(connection, choices, rng, until, tally):
    while time.perf_counter() < until:
        start = time.perf_counter()
        answer = await connection.exchange(rng.choice(choices))
        took, status = time.perf_counter() - start, status_of(answer)
        if status in TOO_BUSY:
            tally.rejected += 1
            await asyncio.sleep(PAUSE)
        # 202: the run is still queued when its time is over; counted as failed
        elif status in (200, 201):
            tally.latencies.append(took)
        else:
            tally.failed.append(answer[:300])


async def step(args, server, choices, n_clients):
    """Runs one number of clients; returns the tally and the seconds."""
    tally, start = Tally(), time.perf_counter()
    connections = await connect(server.hostname, server.port, n_clients)
    clients = [
        one_client(connection, choices, random.Random(f"{args.seed}/{i}"), start + args.seconds, tally)
        for i, connection in enumerate(connections)
    ]
    await asyncio.gather(*clients)
    for connection in connections:
        connection.transport.close()
    return tally, time.perf_counter() - start


def memory_mib(client, headers):
    """Resident memory of the server by its own metrics; `None` if it has none."""
    answer = client.request("GET", "/metrics", headers=headers)
    found = re.search(rb"^process_resident_memory_bytes (\S+)", answer.body, re.MULTILINE)
    return float(found[1]) / 2**20 if found else None


@contextmanager
def server_of(args):
    """The server under test: the one at `--url`, or one that is started for the test."""
    if args.url:
        parts = urlsplit(args.url)
        yield SimpleNamespace(url=args.url, hostname=parts.hostname, port=parts.port or 80, host=parts.netloc)
        return
    options = [] if args.max_queued_items is None else ["--max-queued-items", str(args.max_queued_items)]
    with temporary_server(args.binary, [f"{args.model}={args.gguf}"], options=options) as server:
        host, _, port = server.listen.rpartition(":")
        yield SimpleNamespace(url=server.url, hostname=host, port=int(port), host=server.listen)


def main():
    parser = argparse.ArgumentParser(description="Ask more and more of a server at once.")
    parser.add_argument("--what", choices=("capture", "reuse", "fetch"), default="capture")
    parser.add_argument("--clients", default="1,2,4,8,16,32,64,128", help="numbers of clients, one step each")
    parser.add_argument("--seconds", type=float, default=10.0, help="of one step")
    parser.add_argument("--url", help="a server that runs already")
    parser.add_argument("--key", help="its API key, which needs the scopes write and metrics")
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--binary", type=Path, default=ROOT / "target/release/residuum")
    parser.add_argument("--gguf", type=Path, default=ROOT / "models/SmolLM2-135M-Instruct.Q4_1.gguf")
    parser.add_argument("--max-queued-items", type=int, help="of a server of its own: how many inputs may wait")
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    interrupt_on_signals()
    headers = {"Authorization": f"Bearer {args.key}"} if args.key else {}
    try:
        with server_of(args) as server:
            client = Client(server.url, timeout=600.0, headers=headers)
            choices = requests(args, server, client)
            print("| clients | answers/s | p50 ms | p99 ms | rejected | failed | memory MiB |")
            print("| ---: | ---: | ---: | ---: | ---: | ---: | ---: |", flush=True)
            failed = []
            for n in map(int, args.clients.split(",")):
                tally, took = asyncio.run(step(args, server, choices, n))
                cuts = quantiles(tally.latencies, n=100) if len(tally.latencies) > 1 else tally.latencies * 99
                p50, p99 = (f"{1000 * cuts[i]:.1f}" for i in (49, 98)) if cuts else ("", "")
                memory = memory_mib(client, headers)
                print(
                    f"| {n} | {len(tally.latencies) / took:.1f} | {p50} | {p99} | {tally.rejected} | {len(tally.failed)} | "
                    f"{'' if memory is None else f'{memory:.0f}'} |",
                    flush=True,
                )
                failed += tally.failed
    except (HarnessError, ApiError, ValueError, OSError) as error:
        print(f"load_test: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    if failed:
        print(f"load_test: {len(failed)} requests failed, the first with {failed[0]!r}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
