#!/usr/bin/env python3
"""How fast texts are generated for one client and for many: time to the first token, and tokens per second.

    python3 bench/streams.py [--binary target/release/residuum] [--before OTHER] [--streams 1 8 32] [--tokens 64] [--rounds 3]

Each stream is a run of its own, posted at once, whose events are followed. The time to the first token is that from posting a run to its first `token`
event; a server without such events shows nothing before the run has ended, so there it is the time to the end. Tokens per second are those of all
streams together. With `--before` a second binary is measured in turn, round by round, and the last columns are ratios. Prints medians over the rounds.
"""

import argparse
import http.client
import json
import sys
import threading
import time
from pathlib import Path
from statistics import median
from urllib.parse import urlsplit

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "scripts"))
from harness import FINAL, Client, HarnessError, temporary_server  # noqa: E402

PROMPTS = ["The Eiffel Tower is in", "My favourite recipe begins with", "In the year 2050 people", "The history of mathematics"]


class Stream(threading.Thread):
    """Posts one run and follows it to its end."""

    def __init__(self, url, number, tokens, hooks, ready):
        super().__init__(daemon=True)
        self.url, self.ready, self.first, self.end, self.n_tokens = url, ready, None, None, 0
        self.body = {
            "model": "bench", "input": f"{PROMPTS[number % len(PROMPTS)]} ({number})", "reuse": False,
            "generate": {"max_new_tokens": tokens, "temperature": 1.0, "seed": number}, "capture": {"hooks": hooks},
        }
        self.failure = None

    def run(self):
        try:
            self.ready.wait()
            self.began = time.monotonic()
            run = Client(self.url).call("POST", "/v1/runs", self.body).json()
            self.follow(run["id"])
        except Exception as error:  # shown by the main thread
            self.failure = error

    def follow(self, run):
        parts = urlsplit(self.url)
        connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=600)
        connection.request("GET", f"/v1/runs/{run}/events")
        name, last = None, None
        for line in connection.getresponse():
            if line.startswith(b"event:"):
                name = line[6:].strip().decode()
            elif line.startswith(b"data:") and name == "token":
                self.first = self.first or time.monotonic() - self.began
            elif line.startswith(b"data:") and name == "run":
                last = json.loads(line[5:])
                if last["status"] in FINAL:
                    break
        connection.close()
        if last["status"] != "completed":
            raise HarnessError(f"a run ended as {last['status']}")
        self.end = time.monotonic() - self.began
        self.first = self.first or self.end
        cache = Client(self.url).get(f"/v1/caches/{last['caches'][0]}")
        self.n_tokens = len(cache["completion"]["token_ids"])


def measure(url, n_streams, tokens, hooks):
    """Median seconds to the first token, and tokens per second of all streams."""
    ready = threading.Event()
    streams = [Stream(url, number, tokens, hooks, ready) for number in range(n_streams)]
    for stream in streams:
        stream.start()
    ready.set()
    for stream in streams:
        stream.join()
    for stream in streams:
        if stream.failure:
            raise stream.failure
    return median(s.first for s in streams), sum(s.n_tokens for s in streams) / max(s.end for s in streams)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--binary", default=str(ROOT / "target/release/residuum"))
    parser.add_argument("--before", help="another binary, measured in turn")
    parser.add_argument("--model", default=str(ROOT / "models/SmolLM2-135M-Instruct.Q4_1.gguf"))
    parser.add_argument("--streams", type=int, nargs="+", default=[1, 8, 32])
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--hooks", nargs="*", default=["resid_post"], help="hooks to capture at the last position")
    arguments = parser.parse_args()
    binaries = {"now": arguments.binary} | ({"before": arguments.before} if arguments.before else {})
    results = {}
    try:
        servers = {}
        with temporary_server(binaries["now"], [f"bench={arguments.model}"]) as now:
            servers["now"] = now.url
            if arguments.before:
                with temporary_server(binaries["before"], [f"bench={arguments.model}"]) as before:
                    servers["before"] = before.url
                    rounds(arguments, servers, results)
            else:
                rounds(arguments, servers, results)
    except HarnessError as error:
        sys.exit(f"streams: {error}")
    for n_streams in arguments.streams:
        row = {name: [median(column) for column in zip(*results[name, n_streams])] for name in servers}
        for name, (first, speed) in row.items():
            print(f"{n_streams:3} streams  {name:6}  first token {first * 1000:8.0f} ms  {speed:7.1f} tokens/s")
        if "before" in row:
            first, speed = (row["now"][i] / row["before"][i] for i in range(2))
            print(f"{n_streams:3} streams  ratio   first token {first:8.3f}     {speed:7.2f}")


def rounds(arguments, servers, results):
    for _ in range(arguments.rounds):
        for n_streams in arguments.streams:
            for name, url in servers.items():
                measured = measure(url, n_streams, arguments.tokens, arguments.hooks)
                results.setdefault((name, n_streams), []).append(measured)


if __name__ == "__main__":
    main()
