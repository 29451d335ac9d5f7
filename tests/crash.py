#!/usr/bin/env python3
"""Kills a busy server again and again and checks that nothing acknowledged is lost (standard library only).

    python3 tests/crash.py --binary target/debug/residuum --model smollm2-135m=models/SmolLM2-135M-Instruct.Q4_1.gguf
    python3 tests/crash.py --binary ... --model ... --kills 100 --faults 60      (the long form)

First an undisturbed server computes every prompt: the reference. Then clients post single and bulk runs to a second server,
reuse what is stored, delete runs and caches, and read, while the server merges small blobs and collects what was deleted.
The server is killed with SIGKILL at random moments. It also ends itself between any two steps of writing, flushing, renaming,
committing and removing (RESIDUUM_FAULT, in a build with debug assertions). Each time it is started again on the same data
folder. At the end:

* every run whose acceptance a client saw has completed exactly once, with all its caches, unless a client deleted it;
* what was deleted is gone;
* every listed cache has the reference's bytes and hash;
* the store verifies, also with an index rebuilt from its blobs, and has no unknown files.

The last line is `N passed, N failed`.
"""

import argparse
import http.client
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from array import array
from collections import Counter
from itertools import zip_longest
from math import isfinite
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "scripts"))
from harness import FINAL, ApiError, Client, HarnessError, Server, interrupt_on_signals  # noqa: E402  (the path is set above)

WORDS = "the a river stone under of light and seven because 12.5 Café zebra if(x) not green moves slowly".split()
CAPTURE = {"hooks": ["resid_post"], "layers": "all", "positions": "last"}
N_CLIENTS = 4
# A client pauses while this many of its items are unfinished, so that a restart can catch up within seconds.
MAX_OPEN_ITEMS = 24
SETTLE_SECONDS = 300
# How long a server may take to reach the point where it ends itself; merges wait for eight small blobs.
POINT_SECONDS = 8
# Upkeep as often as it may be: small blobs are merged, and deleted ones collected, several times before each kill.
OPTIONS = ["--upkeep-interval", "0.05"]
# Where a server ends itself, and how often it may have passed that point before.
POINTS = {
    **{f"merge.{step}": 1 for step in ("written", "synced", "named", "durable", "moved")},
    **{f"capture.{step}": 3 for step in ("written", "synced", "named", "durable")},
    **{f"index.{step}": 20 for step in ("begun", "applied", "committed")},
    **{f"index.{step}": 1 for step in ("unlinking", "unlinked")},
}


class Accepted:
    """A run whose acceptance a client saw, and what clients did to it since."""

    def __init__(self, run, inputs):
        self.id, self.inputs = run["id"], inputs
        self.delete = None  # "asked", then "done"
        self.dropped = {}  # index of an input: "asked", then "done"


class Load:
    """Clients that post, read and delete until told to stop or the server is gone, and note what was acknowledged."""

    def __init__(self, url, model, prompts, seed):
        self.url, self.model, self.prompts = url, model, prompts
        self.acknowledged = []
        self.unexpected = []
        self.counts = Counter()
        self.stopping = threading.Event()
        self.threads = [
            threading.Thread(target=self._client, args=(random.Random(f"{seed}/{i}"),)) for i in range(N_CLIENTS)
        ]

    def __enter__(self):
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self.stopping.set()
        for thread in self.threads:
            thread.join()

    def _client(self, rng):
        client = Client(self.url, timeout=60.0)
        unfinished, finished = [], []
        try:
            while not self.stopping.is_set():
                still = []
                for accepted in unfinished:
                    run = client.get(f"/v1/runs/{accepted.id}")
                    (finished if run["status"] in FINAL else still).append(accepted)
                unfinished = still
                if finished and rng.random() < 0.5:
                    self._after(client, rng, finished)
                elif sum(len(accepted.inputs) for accepted in unfinished) >= MAX_OPEN_ITEMS:
                    time.sleep(0.02)
                else:
                    accepted = self._post(client, rng)
                    if accepted is not None:
                        unfinished.append(accepted)
        except (OSError, http.client.HTTPException):
            pass  # the server was killed
        except Exception as error:  # reported at the end: nothing catches what a thread raises
            self.unexpected.append(repr(error))

    def _post(self, client, rng):
        """Posts a single run or a small bulk; returns it where it was accepted."""
        count = 1 if rng.random() < 0.6 else rng.randint(3, 8)
        inputs = [rng.choice(self.prompts) for _ in range(count)]
        body = {
            "model": self.model,
            "input": inputs[0] if count == 1 else inputs,
            "capture": CAPTURE,
            "reuse": rng.random() < 0.3,
        }
        response = client.request("POST", "/v1/runs" + ("?wait=5" if rng.random() < 0.4 else ""), body)
        if response.status in (429, 503):
            time.sleep(0.05)
            return None
        if response.status not in (201, 202):
            self.unexpected.append(f"POST /v1/runs answered {response.status}: {response.body[:200]!r}")
            return None
        accepted = Accepted(response.json(), inputs)
        self.acknowledged.append(accepted)
        self.counts["runs"] += 1
        return accepted

    def _after(self, client, rng, finished):
        """Reads a finished run's cache, deletes one of them, or deletes the run."""
        accepted = finished.pop(rng.randrange(len(finished)))
        choice = rng.random()
        if choice < 0.3:
            accepted.delete = "asked"
            self._expect(client, "DELETE", f"/v1/runs/{accepted.id}")
            accepted.delete = "done"
            self.counts["runs deleted"] += 1
            return
        caches = client.get(f"/v1/runs/{accepted.id}")["caches"]
        index = rng.randrange(len(accepted.inputs))
        if choice < 0.6:
            accepted.dropped[index] = "asked"
            self._expect(client, "DELETE", f"/v1/caches/{caches[index]}")
            accepted.dropped[index] = "done"
            self.counts["caches deleted"] += 1
        else:
            self._expect(client, "GET", f"/v1/caches/{caches[index]}/layers?format=raw")
            self.counts["reads"] += 1

    def _expect(self, client, method, path):
        response = client.request(method, path)
        if response.status not in (200, 204):
            self.unexpected.append(f"{method} {path} answered {response.status}: {response.body[:200]!r}")


class Report:
    """Counts checks and prints each."""

    def __init__(self):
        self.passed = self.failed = 0

    def check(self, what, faults):
        """One check: it passes when `faults` is empty."""
        faults = list(faults)
        print(f"{'FAIL' if faults else 'ok':<5} {what}", flush=True)
        for fault in faults[:10]:
            print(f"        {fault}")
        if len(faults) > 10:
            print(f"        ... and {len(faults) - 10} more")
        self.failed, self.passed = self.failed + bool(faults), self.passed + (not faults)


def make_prompts(rng, count):
    """Different prompts of 2 to 30 words."""
    prompts = set()
    while len(prompts) < count:
        prompts.add(" ".join(rng.choices(WORDS, k=rng.randint(2, 30))))
    return sorted(prompts)


def read_back(client, cache):
    """Shape and bytes of all layers of a cache, and the hash of what is stored."""
    answer = client.call("GET", f"/v1/caches/{cache}/layers?format=raw")
    return answer.headers["residuum-shape"], answer.body, answer.headers["etag"]


def references(args, folder, prompts):
    """What an undisturbed server computes: {prompt: (shape, bytes, tag)}."""
    server = Server(args.binary, folder / "reference", [args.model], log=folder / "reference.log").start()
    try:
        client = Client(server.url)
        run = client.run({"model": args.model_id, "input": prompts, "capture": CAPTURE})
        return {prompt: read_back(client, cache) for prompt, cache in zip(prompts, run["caches"])}
    finally:
        server.stop()


def wait_until_ended(client, runs):
    """Waits for these runs; returns the ids of those that do not end."""
    open_runs, deadline = [run.id for run in runs], time.monotonic() + SETTLE_SECONDS
    while open_runs and time.monotonic() < deadline:
        answers = {run: client.request("GET", f"/v1/runs/{run}") for run in open_runs}
        open_runs = [run for run, a in answers.items() if a.status == 200 and a.json()["status"] not in FINAL]
        if open_runs:
            time.sleep(0.1)
    return open_runs


def wait_until_all_ended(client):
    """Waits for every run there is, also those of clients that saw no answer; returns the ids of those that do not end."""
    deadline = time.monotonic() + SETTLE_SECONDS
    while True:
        open_runs = [run["id"] for run in client.items("/v1/runs", limit=100) if run["status"] not in FINAL]
        if not open_runs or time.monotonic() > deadline:
            return open_runs
        time.sleep(0.1)


class Disturbance:
    """Starts, loads and ends one server again and again, and gathers what was acknowledged."""

    def __init__(self, args, rng, server, prompts):
        self.args, self.rng, self.server, self.prompts = args, rng, server, prompts
        self.acknowledged, self.unexpected = [], []
        self.counts, self.reached = Counter(), Counter()

    def run(self):
        """A kill at a random moment or at a point, until there were as many of both as are wanted."""
        rounds = [None] * self.args.kills + self.points()
        self.rng.shuffle(rounds)
        settled, pointed = 0, False
        for number, point in enumerate(rounds):
            # A unit in flight at three crashes is failed by design. Waiting for everything accepted two servers ago keeps
            # each unit at two, and still kills servers that are busy recovering. A server that ends itself may do so
            # before it has recovered: around it, everything is waited for.
            if point is None:
                self.server.start()
                self.settle(self.acknowledged[: None if pointed else settled])
            else:
                self.server.start()
                self.settle(self.acknowledged)
                if self.server.stop() != 0:
                    self.unexpected.append(f"a server that was asked to stop did not end well{self.server.log_tail()}")
            settled, pointed = len(self.acknowledged), point is not None
            if point is None or self.start_to_fail(point):
                self.load(number, point)

    def settle(self, runs):
        stuck = wait_until_ended(Client(self.server.url), [run for run in runs if run.delete is None])
        if stuck:
            self.unexpected.append(f"runs that never ended: {stuck}")

    def points(self):
        """Every point in turn."""
        by_kind = [[p for p in POINTS if p.startswith(kind)] for kind in ("merge", "capture", "index")]
        for names in by_kind:
            self.rng.shuffle(names)
        # enough for every kind
        in_turn = [p for several in zip_longest(*by_kind) for p in several if p is not None]
        return [in_turn[i % len(in_turn)] for i in range(self.args.faults)]

    def start_to_fail(self, point):
        """Starts a server that ends itself at a point; says whether it became ready before it did."""
        passes = self.rng.randint(1, POINTS[point])
        try:
            self.server.start(settings={"RESIDUUM_FAULT": f"{point}:{passes}"})
        except HarnessError as error:
            if self.server.process.poll() != -signal.SIGABRT:
                self.unexpected.append(str(error))
            self.reached[point] += 1
            print(f"      ended at {point} ({passes}) before it was ready", flush=True)
            return False
        return True

    def load(self, number, point):
        """Loads the server until its end."""
        began = time.monotonic()
        with Load(self.server.url, self.args.model_id, self.prompts, f"{self.args.seed}/{number}") as load:
            if point is None:
                time.sleep(self.rng.uniform(0.05, self.args.longest))
            else:
                while self.server.process.poll() is None and time.monotonic() - began < POINT_SECONDS:
                    time.sleep(0.02)
            died = self.server.process.poll()
            self.server.kill()
        took = time.monotonic() - began
        at_point = point is not None and died == -signal.SIGABRT
        if at_point:
            self.reached[point] += 1
        elif died is not None:
            self.unexpected.append(f"the server ended by itself with status {died}{self.server.log_tail()}")
        how = f"ended at {point}" if at_point else "killed" + (f", {point} was not reached" if point else "")
        print(f"      {number + 1}: {how} after {took:.2f} s of load: {dict(load.counts)}", flush=True)
        self.acknowledged += load.acknowledged
        self.unexpected += load.unexpected
        self.counts += load.counts


def check_runs(client, acknowledged):
    """Every accepted run exists, completed, and has exactly one cache for each of its inputs, in their order, except what
    clients deleted; what they deleted is gone."""
    for accepted in acknowledged:
        answer = client.request("GET", f"/v1/runs/{accepted.id}")
        if answer.status == 404 and accepted.delete is not None:
            continue
        if accepted.delete == "done":
            yield f"run {accepted.id} was deleted and is there: {answer.status}"
            continue
        if answer.status != 200:
            yield f"run {accepted.id} is gone: {answer.status}"
            continue
        run, inputs = answer.json(), accepted.inputs
        if (run["status"], run["n_done"], run["n_items"]) != ("completed", len(inputs), len(inputs)):
            yield f"run {accepted.id} of {len(inputs)} is {run['status']}, {run['n_done']}/{run['n_items']}: {run['error']}"
            continue
        texts = [cache["text"] for cache in client.items(f"/v1/runs/{accepted.id}/caches")]
        kept = {i: text for i, text in enumerate(inputs) if accepted.dropped.get(i) != "done"}
        unsure = [i for i, state in accepted.dropped.items() if state == "asked"]
        allowed = [list(kept.values())] + [[text for i, text in kept.items() if i != gone] for gone in unsure]
        if texts not in allowed:
            yield f"run {accepted.id}: its caches are of {texts}, its inputs were {inputs}"


def check_caches(client, caches, expected):
    """Every listed cache has the reference's bytes."""
    for cache in caches:
        shape, body, tag = read_back(client, cache["id"])
        values = array("f", body)
        if sys.byteorder == "big":
            values.byteswap()
        if not all(map(isfinite, values)):
            yield f"cache {cache['id']} holds numbers that are not finite"
        if (shape, body, tag) != expected[cache["text"]]:
            yield f"cache {cache['id']} (shape {shape}, {len(body)} bytes, {tag}) differs from the reference"


def check_ownership(caches, acknowledged):
    """No cache twice, and none of a run that nobody had posted."""
    for cache, n in Counter(cache["id"] for cache in caches).items():
        if n > 1:
            yield f"cache {cache} is listed {n} times"
    for item, n in Counter((cache["run"], cache["item_index"]) for cache in caches if "item_index" in cache).items():
        if n > 1:
            yield f"input {item} has {n} caches"


def superfluous_files(data_dir):
    """Files that only an unfinished write, or damage, leaves behind."""
    for path in data_dir.rglob("*"):
        parts = path.relative_to(data_dir).parts
        if path.is_file() and ("tmp" in path.name or ("blobs" in parts and path.suffix != ".safetensors")):
            yield str(path.relative_to(data_dir))
        # a kill leaves only files that may be removed
        if parts[0] in ("damaged", "unknown"):
            yield str(path.relative_to(data_dir))


def verify(args, data_dir, *options):
    """What `residuum verify` finds."""
    done = subprocess.run(
        [args.binary, "verify", "--data-dir", str(data_dir), *options],
        capture_output=True, text=True, timeout=600, check=False,
    )  # fmt: skip
    print("      " + done.stdout.strip().splitlines()[-1] if done.stdout.strip() else "")
    return [] if done.returncode == 0 else [done.stdout + done.stderr]


def check_offline(args, server, report):
    """What can be checked once the server has stopped."""
    report.check("the server stops with status 0", [f"status {code}" for code in [server.stop()] if code != 0])
    report.check("residuum verify finds nothing", verify(args, args.data_dir))
    report.check("no superfluous file remains", superfluous_files(args.data_dir))


def check_rebuilt(args, server, report, caches, expected):
    """A rebuilt index has the same caches, except those that only reused the rows of others."""
    report.check("an index made from the blobs verifies", verify(args, args.data_dir, "--rebuild-index"))
    server.start()
    client = Client(server.url)
    again = list(client.items("/v1/caches", limit=100))
    lost = {cache["id"] for cache in caches if not cache["reused"]} - {cache["id"] for cache in again}
    report.check("and knows every cache that was computed", sorted(lost))
    report.check(f"{len(again)} caches hold the reference's numbers", check_caches(client, again, expected))
    report.check("the server stops with status 0", [f"status {code}" for code in [server.stop()] if code != 0])
    report.check("residuum verify finds nothing", verify(args, args.data_dir))


def crash_test(args, folder, report):
    rng = random.Random(args.seed)
    prompts = make_prompts(rng, 24)
    expected = references(args, folder, prompts)
    args.data_dir = folder / "data"
    server = Server(args.binary, args.data_dir, [args.model], log=folder / "server.log", options=OPTIONS)
    try:
        disturbance = Disturbance(args, rng, server, prompts)
        disturbance.run()
        acknowledged, counts = disturbance.acknowledged, disturbance.counts
        print(f"      {args.kills} kills at random moments, at points: {dict(disturbance.reached)}")
        print(f"      load: {dict(counts)}; merges logged: {server.log.read_text(errors='replace').count('rewrote')}")
        report.check("the server took the load and ended only when it was made to", disturbance.unexpected)
        report.check("the load was accepted between the kills", [] if acknowledged else ["not one run was accepted"])
        server.start()
        client = Client(server.url)
        kept = [run for run in acknowledged if run.delete is None]
        report.check("every accepted run ends", wait_until_ended(client, kept))
        report.check("and so does every other", wait_until_all_ended(client))
        report.check(f"{len(acknowledged)} accepted runs completed or are deleted", check_runs(client, acknowledged))
        caches = list(client.items("/v1/caches", limit=100))
        report.check(f"{len(caches)} caches hold the reference's numbers", check_caches(client, caches, expected))
        report.check("each is there once", check_ownership(caches, acknowledged))
        check_offline(args, server, report)
        check_rebuilt(args, server, report, caches, expected)
    finally:
        if server.process is not None:
            server.stop()


def main():
    parser = argparse.ArgumentParser(description="Crash test of a residuum server.")
    parser.add_argument("--binary", required=True, help="the residuum program, built with debug assertions")
    parser.add_argument("--model", required=True, metavar="ID=PATH")
    parser.add_argument("--kills", type=int, default=5, help="ends at random moments")
    parser.add_argument("--faults", type=int, default=3, help="ends between two steps of the store")
    parser.add_argument("--longest", type=float, default=2.0, help="most seconds of load before a kill")
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    args.model_id = args.model.partition("=")[0]
    report = Report()
    interrupt_on_signals()
    with tempfile.TemporaryDirectory(prefix="residuum-crash-") as folder:
        try:
            crash_test(args, Path(folder), report)
        except (HarnessError, ApiError, OSError, http.client.HTTPException) as error:
            report.check("the test ran to its end", [str(error)])
    print(f"{report.passed} passed, {report.failed} failed")
    return 1 if report.failed else 0


if __name__ == "__main__":
    sys.exit(main())
