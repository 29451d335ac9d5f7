"""What depth, positions, reuse and streaming cost. Each figure is a ratio, or a rate, of one run."""

import http.client
import os
import random
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

from harness import HarnessError
from load import body_of, closed_loop, wrk

STREAM_TOKENS = 350  # of logits: 65.6 MiB


def capture_cost(ours, prompts, capture):
    """Seconds for all prompts as one bulk run with this capture.

    The run is deleted afterwards, so that every round has the same amount of free page cache: on a virtual machine, pages that
    were never used before may take several times as long.
    """
    body = {"model": "bench", "input": prompts, "capture": capture, "reuse": False}
    return ours.post([ours.request("POST", "/v1/runs?wait=30", body)], 1, keep=False)


def depth_contenders(ours, prompts, n_layers):
    """One layer's last token, at several depths: the pass stops after that layer."""
    layers = sorted({0, n_layers // 4, n_layers // 2, 3 * n_layers // 4, n_layers - 1})
    capture = lambda layer: {"hooks": ["resid_post"], "layers": [layer], "positions": "last"}
    return {layer: lambda c=capture(layer): capture_cost(ours, prompts, c) for layer in layers}


def positions_contenders(ours, prompts, n_layers):
    """Every position of the last layer alone, and of all of them."""
    capture = lambda layers: {"hooks": ["resid_post"], "layers": layers, "positions": "all"}
    return {
        "one layer": lambda: capture_cost(ours, prompts, capture([n_layers - 1])),
        "every layer": lambda: capture_cost(ours, prompts, capture("all")),
    }


def reused_per_second(ours, prompts, capture, connections):
    """Captures per second of prompts that are stored already, each posted and waited for over HTTP."""
    ours.client.run({"model": "bench", "input": prompts, "capture": capture})
    bodies = [{"model": "bench", "input": prompt, "capture": capture} for prompt in prompts]
    requests = [ours.request("POST", "/v1/runs?wait=30", body) for body in bodies]
    answers, _, _ = closed_loop(ours.server, requests, connections)
    if not all((run := body_of(answer))["status"] == "completed" and run["n_reused"] == 1 for answer in answers):
        raise HarnessError("what is stored was computed again")
    return wrk(ours.server, requests, connections)[2]


class Nginx:
    """nginx serving one folder on its own port; all other settings are those of Debian."""

    def __init__(self, folder, port=18999):
        self.folder, self.port = Path(folder), port
        program = shutil.which("nginx")
        if program is None:
            raise HarnessError("nginx is not installed (Debian: apt install nginx-light)")
        config = self.folder / "nginx.conf"
        config.write_text(
            f"daemon off; user root; worker_processes auto; pid {self.folder}/nginx.pid; error_log stderr error;\n"
            "events {}\n"
            f"http {{ access_log off; sendfile on; tcp_nopush on;\n"
            f"server {{ listen 127.0.0.1:{port}; root {self.folder}; }} }}\n"
        )
        self.process = subprocess.Popen([program, "-c", config, "-p", self.folder], stderr=subprocess.DEVNULL)
        for _ in range(100):
            try:
                download(f"127.0.0.1:{port}", "/nginx.conf")
                return
            except OSError:
                time.sleep(0.05)
        raise HarnessError("nginx did not start")

    def stop(self):
        self.process.terminate()
        self.process.wait()


def download(host, path):
    """Reads one answer to its end; returns bytes and seconds."""
    connection = http.client.HTTPConnection(host, timeout=60)
    start = time.perf_counter()
    connection.request("GET", path)
    answer = connection.getresponse()
    buffer, total = bytearray(1 << 20), 0
    while n := answer.readinto(buffer):
        total += n
    connection.close()
    if answer.status != 200:
        raise HarnessError(f"{path} was answered {answer.status}")
    return total, time.perf_counter() - start


def stream_contenders(ours, folder, repeats=5):
    """MB/s of one large tensor, from the server and from nginx; the best of a few reads in a row."""
    rng = random.Random(3)
    ids = [rng.randrange(1000, 40000) for _ in range(STREAM_TOKENS)]
    run = ours.client.run({"model": "bench", "input": ids, "capture": {"hooks": ["logits"], "positions": "all"}})
    path = f"/v1/caches/{run['caches'][0]}/tensors/logits?format=raw"
    (Path(folder) / "tensor.raw").write_bytes(ours.client.call("GET", path).body)
    os.sync()

    def rate(host, path):
        return max(total / seconds / 1e6 for total, seconds in (download(host, path) for _ in range(repeats)))

    nginx = Nginx(folder)
    return nginx, {
        "Residuum": lambda: rate(ours.server.listen, path),
        "nginx": lambda: rate(f"127.0.0.1:{nginx.port}", "/tensor.raw"),
    }


def temporary_folder():
    return tempfile.TemporaryDirectory(prefix="residuum-bench-")
