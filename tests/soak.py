#!/usr/bin/env python3
"""Keeps a server busy with everything at once and watches its memory and file descriptors (standard library only).

    cargo build --release --locked
    python3 tests/soak.py --binary target/release/residuum --model smollm2-135m=models/SmolLM2-135M-Instruct.Q4_1.gguf

Clients post single runs, bulk runs, continuations and interventions, read layers, lenses, features of the store, compare,
search, export, import what they exported, delete, cancel, follow events, and disconnect in the middle of all of these, for
`--minutes`. The store has a quota and evicts its oldest caches, so that it soon stays the same size. Every ten seconds the
anonymous resident memory (Linux), the open descriptors and the threads of the server are recorded. When the load has ended,
the store must verify. The test fails on a 5xx answer other than 503 and 507, on an unexpected answer, if the server closes a
connection, or if the medians of the last quarter exceed those of the second by more than noise: 5 % and 24 MiB of memory, eight
descriptors or threads. A slower leak needs more `--minutes`. The last line is `N passed, N failed`.
"""

import argparse
import http.client
import json
import random
import re
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path
from statistics import median

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "scripts"))
sys.path.insert(0, str(ROOT / "tests"))
from crash import WORDS, Report  # noqa: E402  (the path is set above)
from harness import Client, HarnessError, Server, interrupt_on_signals  # noqa: E402

SAMPLE_SECONDS = 10
# How far the last quarter may exceed the second: noise of the allocator, not a lasting leak.
SLACK_BYTES = 24 << 20
SLACK_SHARE = 0.05
SLACK_FDS = 8
# Answers that a busy server may give: what another client deleted, a full queue, a full store, a conflict with a deletion.
BUSY = {404, 409, 410, 422, 429, 503, 507}


class Worker(threading.Thread):
    """One client that makes one request after another until told to stop."""

    def __init__(self, soak, number):
        super().__init__(daemon=True)
        self.soak, self.rng = soak, random.Random(f"{soak.args.seed}/{number}")
        self.client, self.worked = Client(soak.server.url, timeout=120.0), False
        self.runs, self.caches = [], []

    def run(self):
        actions = [
            (self.post, 30), (self.bulk, 8), (self.generate, 3), (self.intervene, 3), (self.read, 30), (self.lens, 6),
            (self.compare, 6), (self.search, 6), (self.page, 20), (self.export, 4), (self.bring_in, 4), (self.delete, 10),
            (self.cancel, 3), (self.follow, 3), (self.hang_up, 6), (self.metrics, 2),
        ]  # fmt: skip
        does, weights = zip(*actions)
        while not self.soak.stopping.is_set():
            action = self.rng.choices(does, weights)[0]
            self.worked = False
            try:
                action()
                self.soak.tried[action.__name__] += 1
                self.soak.counts[action.__name__] += self.worked
            except (OSError, http.client.HTTPException) as error:
                self.soak.unexpected.append(f"{action.__name__}: {error!r}")
                time.sleep(0.5)
            except Exception as error:  # reported at the end: nothing catches what a thread raises
                self.soak.unexpected.append(f"{action.__name__}: {error!r}")

    def ask(self, method, path, body=None, headers=None):
        """An answer of 2xx, or `None` for one that a busy server may give."""
        answer = self.client.request(method, path, body, headers)
        self.soak.statuses[answer.status] += 1
        if answer.status < 300:
            self.worked = True
            return answer
        if answer.status not in BUSY:
            self.soak.unexpected.append(f"{method} {path} answered {answer.status}: {answer.body[:300]!r}")
        elif answer.status in (429, 503):
            time.sleep(0.1)
        return None

    def text(self):
        return " ".join(self.rng.choices(WORDS, k=self.rng.randint(2, 40)))

    def submit(self, body, wait=True):
        answer = self.ask("POST", "/v1/runs" + ("?wait=20" if wait else ""), {"model": self.soak.model, **body})
        if answer is None:
            return None
        run = answer.json()
        self.runs = [*self.runs[-40:], run["id"]]
        self.caches = [*self.caches[-80:], *(c for c in run["caches"] if c)]
        return run

    def post(self):
        positions = self.rng.choice(["last", "last", "all", "mean"])
        self.submit({"input": self.text(), "capture": {"positions": positions}, "reuse": self.rng.random() < 0.5, "tags": ["soak"]})

    def bulk(self):
        self.submit({"input": [self.text() for _ in range(self.rng.randint(4, 24))]}, wait=self.rng.random() < 0.5)

    def generate(self):
        self.submit({"input": self.text(), "generate": {"max_new_tokens": self.rng.randint(1, 24), "temperature": 0.8, "seed": 1}})

    def intervene(self):
        change = {"hook": "resid_post", "layers": [self.rng.randrange(30)], "op": "scale", "factor": 0.5}
        self.submit({"input": self.text(), "interventions": [change]})

    def cache(self):
        return self.rng.choice(self.caches) if self.caches else "00000000-0000-7000-8000-000000000000"

    def read(self):
        self.ask("GET", f"/v1/caches/{self.cache()}/layers?format={self.rng.choice(['raw', 'npy', 'json', 'safetensors'])}")

    def lens(self):
        self.ask("POST", f"/v1/caches/{self.cache()}/lens", {"layers": [self.rng.randrange(30)], "top_k": 5})

    def compare(self):
        caches = [self.cache() for _ in range(6)]
        self.ask("POST", "/v1/comparisons", {"mode": "matrix", "caches": sorted(set(caches)), "metrics": ["cosine"]})

    def search(self):
        body = {"hook": "resid_post", "layer": self.rng.randrange(30), "k": 5}
        self.ask("POST", "/v1/search", body | {"query": {"cache": self.cache()}})

    def page(self):
        path = self.rng.choice(["/v1/runs?limit=50", "/v1/caches?limit=50", "/v1/caches?text=river&limit=20&count=true", "/v1/caches?tag=soak&limit=10"])
        self.ask("GET", path)

    def export(self):
        if self.runs:
            form = self.rng.choice(["npz", "safetensors", "arrow"])
            self.ask("GET", f"/v1/runs/{self.rng.choice(self.runs)}/export?layers=3&hook=resid_post&format={form}")

    def bring_in(self):
        file = self.ask("GET", f"/v1/caches/{self.cache()}/safetensors")
        if file is not None:
            headers = {"Content-Type": "application/vnd.safetensors"}
            self.ask("POST", "/v1/caches", file.body, headers)

    def delete(self):
        if self.runs and self.rng.random() < 0.5:
            self.ask("DELETE", f"/v1/runs/{self.runs.pop(self.rng.randrange(len(self.runs)))}")
        else:
            self.ask("DELETE", f"/v1/caches/{self.cache()}")

    def cancel(self):
        run = self.submit({"input": [self.text() for _ in range(16)], "reuse": False}, wait=False)
        if run is not None:
            self.ask("POST", f"/v1/runs/{run['id']}/cancel")

    def follow(self):
        run = self.submit({"input": [self.text() for _ in range(4)]}, wait=False)
        if run is not None:
            self.ask("GET", f"/v1/runs/{run['id']}/events")

    def hang_up(self):
        """A request whose client disconnects: before its body is complete, before its answer, or in the middle of the answer."""
        body = json.dumps({"model": self.soak.model, "input": self.text(), "reuse": False}).encode()
        head = f"POST /v1/runs?wait=20 HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        whole = head.encode() + body
        if self.rng.random() < 0.4:
            whole = f"GET /v1/caches/{self.cache()}/safetensors HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()
        with socket.create_connection((self.client.host, self.client.port), timeout=20) as connection:
            connection.sendall(whole[: self.rng.randint(1, len(whole))])
            if self.rng.random() < 0.5:
                connection.settimeout(0.2)
                try:
                    connection.recv(64)
                except TimeoutError:
                    pass
        self.worked = True

    def metrics(self):
        self.ask("GET", "/metrics")


class Soak:
    """A server under load, and its samples."""

    def __init__(self, args, server):
        self.args, self.server = args, server
        self.model = args.model.partition("=")[0]
        self.stopping = threading.Event()
        self.tried, self.counts, self.statuses, self.unexpected = Counter(), Counter(), Counter(), []
        self.samples = []

    def sample(self):
        process = Path("/proc") / str(self.server.process.pid)
        status = (process / "status").read_text()
        kib = {key: int(re.search(rf"^{key}:\s+(\d+)", status, re.M)[1]) for key in ("RssAnon", "VmRSS", "Threads")}
        fds = len(list((process / "fd").iterdir()))
        return {"anon": kib["RssAnon"] << 10, "rss": kib["VmRSS"] << 10, "threads": kib["Threads"], "fds": fds}

    def run(self):
        workers = [Worker(self, i) for i in range(self.args.clients)]
        for worker in workers:
            worker.start()
        began = time.monotonic()
        try:
            while time.monotonic() - began < self.args.minutes * 60:
                time.sleep(SAMPLE_SECONDS)
                if self.server.process.poll() is not None:
                    raise HarnessError(f"the server ended by itself{self.server.log_tail()}")
                self.samples.append(self.sample())
                if len(self.samples) % 6 == 0:
                    self.say(time.monotonic() - began)
        finally:
            self.stopping.set()
            for worker in workers:
                worker.join(130)

    def say(self, seconds):
        s = self.samples[-1]
        done, wrong = sum(self.counts.values()), len(self.unexpected)
        print(
            f"{seconds / 60:5.1f} min  {s['anon'] / 1e6:7.1f} MB anonymous, {s['rss'] / 1e6:7.1f} MB resident, "
            f"{s['fds']:4d} descriptors, {s['threads']:3d} threads  {done} things done, {wrong} unexpected",
            flush=True,
        )

    def quarters(self, what):
        """Medians of the second and of the last quarter of the samples."""
        n = max(len(self.samples) // 4, 1)
        values = [sample[what] for sample in self.samples]
        return median(values[n : 2 * n] or values), median(values[-n:])


def grown(soak, what, slack):
    before, after = soak.quarters(what)
    if after > before + slack(before):
        yield f"{before} before, {after} at the end"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--binary", type=Path, required=True)
    parser.add_argument("--model", required=True, help="ID=PATH")
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--clients", type=int, default=12)
    parser.add_argument("--max-store-bytes", type=int, default=300_000_000)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    interrupt_on_signals()
    with tempfile.TemporaryDirectory(prefix="residuum-soak-") as folder:
        data = Path(folder, "data")
        options = ["--max-store-bytes", str(args.max_store_bytes), "--evict-oldest", "--upkeep-interval", "1"]
        server = Server(args.binary, data, [args.model], log=Path(folder, "server.log"), options=options).start()
        try:
            return watch(args, server, data)
        finally:
            server.stop()


def watch(args, server, data):
    soak, report = Soak(args, server), Report()
    soak.run()
    done = {name: f"{soak.counts[name]}/{n}" for name, n in sorted(soak.tried.items())}
    print(f"done, of tried: {done}\nanswers: {dict(soak.statuses)}")
    for what, unit in (("anon", 1e6), ("rss", 1e6), ("fds", 1), ("threads", 1)):
        before, after = soak.quarters(what)
        print(f"{what}: median of the second quarter {before / unit:.1f}, of the last {after / unit:.1f}")
    report.check("every answer was one that a client may expect", soak.unexpected)
    report.check("memory stays", grown(soak, "anon", lambda n: SLACK_BYTES + SLACK_SHARE * n))
    report.check("descriptors stay", grown(soak, "fds", lambda _: SLACK_FDS))
    report.check("threads stay", grown(soak, "threads", lambda _: SLACK_FDS))
    report.check("every kind of work was done", [name for name in soak.tried if not soak.counts[name]])
    report.check("it stops when asked", [code] if (code := server.stop(60)) else [])
    verify = subprocess.run([args.binary, "verify", "--data-dir", data], capture_output=True, text=True, check=False)
    report.check("the store verifies", [verify.stdout[-2000:] + verify.stderr[-500:]] if verify.returncode else [])
    print(f"{report.passed} passed, {report.failed} failed")
    return 1 if report.failed else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (HarnessError, OSError) as error:
        sys.exit(f"soak: {error}")
