#!/usr/bin/env python3
"""Kills a busy server again and again and checks that nothing acknowledged is lost (standard library only).

    python3 tests/crash.py --binary target/debug/residuum --model smollm2-135m=models/SmolLM2-135M-Instruct.Q4_1.gguf

First an undisturbed server computes every prompt: the reference. Then clients post single and bulk runs to a second
one, which is ended with SIGKILL at random moments and started again on the same data folder. At the end every run whose
acceptance a client saw must have completed with all its caches, every listed cache must hold the reference's bytes, the
store must verify, and no temporary file may remain. The last line is `N passed, N failed`.
"""

import argparse
import http.client
import random
import subprocess
import sys
import tempfile
import threading
import time
from array import array
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


class Load:
    """Clients that post runs until told to stop or the server is gone, and note what was acknowledged."""

    def __init__(self, url, model, prompts, seed):
        self.url, self.model, self.prompts = url, model, prompts
        self.acknowledged = []  # (run id, prompts)
        self.unexpected = []
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
        unfinished = []
        try:
            while not self.stopping.is_set():
                unfinished = [r for r in unfinished if client.get(f"/v1/runs/{r['id']}")["status"] not in FINAL]
                if sum(run["n_items"] for run in unfinished) >= MAX_OPEN_ITEMS:
                    time.sleep(0.02)
                    continue
                run = self._post(client, rng)
                if run is not None:
                    unfinished.append(run)
        except (OSError, http.client.HTTPException):
            pass  # the server was killed
        except Exception as error:  # reported at the end: a thread has nobody to raise to
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
        run = response.json()
        self.acknowledged.append((run["id"], inputs))
        return run


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
    """Shape and bytes of all layers of a cache."""
    answer = client.call("GET", f"/v1/caches/{cache}/layers?format=raw")
    return answer.headers["residuum-shape"], answer.body


def references(args, folder, prompts):
    """What an undisturbed server computes: {prompt: (shape, bytes)}."""
    server = Server(args.binary, folder / "reference", [args.model], log=folder / "reference.log").start()
    try:
        client = Client(server.url)
        run = client.run({"model": args.model_id, "input": prompts, "capture": CAPTURE})
        return {prompt: read_back(client, cache) for prompt, cache in zip(prompts, run["caches"])}
    finally:
        server.stop()


def wait_until_ended(client, runs):
    """Waits for these runs; returns the ids of those that do not end."""
    open_runs, deadline = [run for run, _ in runs], time.monotonic() + SETTLE_SECONDS
    while open_runs and time.monotonic() < deadline:
        answers = {run: client.request("GET", f"/v1/runs/{run}") for run in open_runs}
        open_runs = [run for run, a in answers.items() if a.status == 200 and a.json()["status"] not in FINAL]
        if open_runs:
            time.sleep(0.1)
    return open_runs


def disturb(args, rng, server, prompts, report):
    """Starts, loads and kills the server `args.kills` times; returns what was acknowledged."""
    acknowledged, settled, unexpected = [], 0, []
    for number in range(args.kills):
        server.start()
        # A unit in flight at three crashes is failed by design. Waiting for everything accepted two servers ago keeps
        # each unit at two, and still kills servers that are busy recovering.
        before_last, settled = acknowledged[:settled], len(acknowledged)
        stuck = wait_until_ended(Client(server.url), before_last)
        if stuck:
            unexpected.append(f"runs that never ended: {stuck}")
        with Load(server.url, args.model_id, prompts, f"{args.seed}/{number}") as load:
            moment = rng.uniform(0.05, args.longest)
            time.sleep(moment)
            died = server.process.poll()
            server.kill()
        if died is not None:
            unexpected.append(f"the server ended by itself with status {died}{server.log_tail()}")
        acknowledged += load.acknowledged
        unexpected += load.unexpected
        print(
            f"      kill {number + 1} after {moment:.2f} s of load: {len(load.acknowledged)} runs accepted", flush=True
        )
    report.check("the server took the load and ended only when it was killed", unexpected)
    report.check("the load was accepted between the kills", [] if acknowledged else ["not one run was accepted"])
    return acknowledged


def check_runs(client, acknowledged):
    """Every accepted run exists, completed, and has a cache for each of its inputs, in their order."""
    for run_id, inputs in acknowledged:
        answer = client.request("GET", f"/v1/runs/{run_id}")
        if answer.status != 200:
            yield f"run {run_id} is gone: {answer.status}"
            continue
        run = answer.json()
        if (run["status"], run["n_done"], run["n_items"]) != ("completed", len(inputs), len(inputs)):
            yield f"run {run_id} of {len(inputs)} is {run['status']}, {run['n_done']}/{run['n_items']}: {run['error']}"
            continue
        texts = [cache["text"] for cache in client.items(f"/v1/runs/{run_id}/caches")]
        if texts != inputs:
            yield f"run {run_id}: its caches are of {texts}, its inputs were {inputs}"


def check_caches(client, caches, expected):
    """Every listed cache reads back as the reference's bytes."""
    for cache in caches:
        shape, body = read_back(client, cache["id"])
        values = array("f", body)
        if sys.byteorder == "big":
            values.byteswap()
        if not all(map(isfinite, values)):
            yield f"cache {cache['id']} holds numbers that are not finite"
        if (shape, body) != expected[cache["text"]]:
            yield f"cache {cache['id']} (shape {shape}, {len(body)} bytes) differs from the reference"


def temporary_files(data_dir):
    """Files that only an unfinished write leaves behind."""
    for path in data_dir.rglob("*"):
        blob = "blobs" in path.relative_to(data_dir).parts
        if path.is_file() and ("tmp" in path.name or (blob and path.suffix != ".safetensors")):
            yield str(path.relative_to(data_dir))


def check_offline(args, server, report):
    """What can be checked once the server has stopped."""
    report.check("the server stops with status 0", [f"status {code}" for code in [server.stop()] if code != 0])
    data_dir = Path(server.command[server.command.index("--data-dir") + 1])
    verify = subprocess.run(
        [args.binary, "verify", "--data-dir", str(data_dir)], capture_output=True, text=True, timeout=300, check=False
    )
    report.check("residuum verify finds nothing", [] if verify.returncode == 0 else [verify.stdout + verify.stderr])
    report.check("no temporary file remains", temporary_files(data_dir))


def crash_test(args, folder, report):
    rng = random.Random(args.seed)
    prompts = make_prompts(rng, 24)
    expected = references(args, folder, prompts)
    server = Server(args.binary, folder / "data", [args.model], log=folder / "server.log")
    try:
        acknowledged = disturb(args, rng, server, prompts, report)
        server.start()
        client = Client(server.url)
        report.check("every accepted run ends", wait_until_ended(client, acknowledged))
        report.check(f"{len(acknowledged)} accepted runs completed", check_runs(client, acknowledged))
        caches = list(client.items("/v1/caches", limit=100))
        report.check(f"{len(caches)} caches hold the reference's numbers", check_caches(client, caches, expected))
        check_offline(args, server, report)
    finally:
        if server.process is not None:
            server.stop()


def main():
    parser = argparse.ArgumentParser(description="Crash test of a residuum server.")
    parser.add_argument("--binary", required=True, help="the residuum program")
    parser.add_argument("--model", required=True, metavar="ID=PATH")
    parser.add_argument("--kills", type=int, default=5)
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
