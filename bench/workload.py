"""The benchmark's prompts, and the server that captures them."""

import random
import time

import numpy as np

from harness import FINAL, Client, HarnessError
from load import body_of, build, closed_loop

MODEL = "bench"
WORDS = (
    "time year people way day man thing woman life child world school state family student group country problem hand "
    "part place case week company system program question work government number night point home water room mother "
    "area money story fact month lot right study book eye job word business issue side kind head house service friend "
    "father power hour game line end member law car city community name president team minute idea body information "
    "the of and a to in is was that for on with as by at from are this which or but not have had they you were their "
    "one all we can her has there been if more when will would who so no"
).split()
N_PROMPTS, N_CLIENTS = 64, 32
CAPTURE = {"hooks": ["resid_post"], "layers": "all", "positions": "last"}


def make_prompts():
    """64 seeded prompts of 8 to 128 words."""
    rng = random.Random(20260101)
    return [" ".join(rng.choices(WORDS, k=rng.randint(8, 128))) for _ in range(N_PROMPTS)]


class Ours:
    """The server under test."""

    def __init__(self, server):
        self.server, self.client = server, Client(server.url, timeout=600.0)

    def request(self, method, path, body=None):
        return build(method, path, self.server.listen, body)

    def run_request(self, inputs):
        body = {"model": MODEL, "input": inputs, "capture": CAPTURE, "reuse": False}
        return self.request("POST", "/v1/runs?wait=30", body)

    def post(self, requests, n_connections, keep=True):
        """Sends runs and waits for each to end; returns the seconds until the last ended. Runs that are not needed are then deleted."""
        start = time.perf_counter()
        answers, _, _ = closed_loop(self.server, requests, n_connections)
        runs = [body_of(answer) for answer in answers]
        for run in runs:
            while run["status"] not in FINAL:
                time.sleep(0.01)
                run = self.client.get(f"/v1/runs/{run['id']}")
            if run["status"] != "completed" or run["n_reused"]:
                raise HarnessError(f"a run ended as {run['status']} with {run['n_reused']} reused: {run['error']}")
        seconds = time.perf_counter() - start
        if not keep:
            for run in runs:
                self.client.call("DELETE", f"/v1/runs/{run['id']}")
        return seconds

    def values(self, prompts):
        """The captured `[n_layers, d_model]` of each prompt, in one run."""
        run = self.client.run({"model": MODEL, "input": prompts, "capture": CAPTURE, "reuse": False})
        return [self.layers(cache) for cache in run["caches"]]

    def layers(self, cache):
        body = self.client.call("GET", f"/v1/caches/{cache}/layers?format=raw").body
        return np.frombuffer(body, "<f4").reshape(self.client.get(f"/v1/models/{MODEL}")["n_layers"], -1)
