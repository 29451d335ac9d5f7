#!/usr/bin/env python3
"""Sends a server the bodies that take the most memory for their size, and watches what it takes (standard library only).

    python3 tests/memory.py --binary target/release/residuum --model tiny=tests/goldens/llama/gqa_tied --mb 30 --at-once 64

Each body is sent alone first: the server may take 20 bytes of memory for each byte of the body, or a fixed amount for a small
one. Then `--at-once` bodies of all kinds are sent together: the process must stay below the stated bound, give each one of its
documented answers, and serve a small request afterwards. The last line is `N passed, N failed`.
"""

import argparse
import collections
import http.client
import json
import sys
import tempfile
import threading
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "scripts"), str(ROOT / "tests")]
from crash import Report  # noqa: E402  (the path is set above)
from harness import Client, HarnessError, Server, interrupt_on_signals  # noqa: E402

MIB = 1 << 20
# Bytes of memory that a request may take for each byte of its body, or in total if that is more: docs/SECURITY.md.
PER_BYTE = 20
SMALL = 400 * MIB
# The memory for bodies, for texts that are encoded, and what the program takes without any request.
BOUND = (2048 + 1024 + 512) * MIB
# What these bodies are answered with; they are not all wrong.
EXPECTED = {200, 201, 202, 400, 404, 413, 422, 429, 503}


def bodies(size, cache):
    """Bodies of about `size` bytes: name, path and bytes."""

    def filled(before, part, after):
        return (before + part * ((size - len(before) - len(after)) // len(part)) + after).encode()

    run = '{"model": "tiny", "input": "a", '
    text = f'{{"cache": "{cache}", "layer": 1, '
    yield "inputs", "/v1/runs", filled('{"model": "tiny", "input": [', '"",', '""]}')
    yield "token ids", "/v1/runs", filled('{"model": "tiny", "input": [', "0,", "0]}")
    yield "lists of ids", "/v1/runs", filled('{"model": "tiny", "input": [', "[],", "[]]}")
    yield "items", "/v1/runs", filled('{"model": "tiny", "items": [', "{},", "{}]}")
    yield "positions", "/v1/runs", filled(run + '"capture": {"positions": [', "0,", "0]}}")
    yield "means", "/v1/runs", filled(run + '"capture": {"positions": {"mean": [', "0,", "0]}}}")
    yield "layers", "/v1/runs", filled(run + '"capture": {"layers": [', "0,", "0]}}")
    yield "hooks", "/v1/runs", filled(run + '"capture": {"hooks": [', '"",', '""]}}')
    yield "metadata", "/v1/runs", filled(run + '"metadata": {"a": [', "[0],", "0]}}")
    yield "objects", "/v1/runs", filled(run + '"metadata": {"a": [', '{"":0},', "0]}}")
    yield "tags", "/v1/runs", filled(run + '"tags": [', '"",', '""]}')
    yield "interventions", "/v1/runs", filled(run + '"interventions": [', '{"op":"zero"},', '{"op":"zero"}]}')
    yield "vectors", "/v1/runs", filled(run + '"interventions": [{"op": "add", "vector": [', "0,", "0]}]}")
    yield "messages", "/v1/tokenize", filled('{"model": "tiny", "messages": [', "{},", "{}]}")
    yield "kwargs", "/v1/tokenize", filled('{"model": "tiny", "messages": [], "template_kwargs": {"a": [', "[0],", "0]}}")
    yield "text", "/v1/tokenize", filled('{"model": "tiny", "text": "', "a ", '"}')
    yield "longest text", "/v1/tokenize", json_of({"model": "tiny", "text": "a " * (min(size, 1_000_000) // 2)})
    hoard = "{% set n = namespace(l=[]) %}{% for i in range(1000) %}{% set n.l = n.l + ['a' * (4000000 + i)] %}{% endfor %}"
    chat = [{"role": "user", "content": "a"}]
    yield "template", "/v1/tokenize", json_of({"model": "tiny", "messages": chat, "chat_template": hoard})
    yield "deep", "/v1/tokenize", filled('{"model": "tiny", "messages": [{"a": ', "[", "")
    yield "caches", "/v1/comparisons", filled('{"caches": [', '"",', '""]}')
    yield "queries", "/v1/search", filled('{"query": {"vectors": [', "[],", "[]]}}")
    yield "query", "/v1/search", filled('{"query": {"vector": [', "0,", "0]}}")
    yield "directions", "/v1/projections", filled(text + '"directions": [', '{"vector":[0]},', '{"vector":[0]}]}')
    yield "upload", "/v1/directions", filled(
        '{"method": "upload", "name": "x", "vectors": [', '{"values":[0]},', '{"values":[0]}]}'
    )
    yield "values", "/v1/directions", filled('{"method": "upload", "name": "x", "vectors": [{"values": [', "0,", "0]}]}")
    yield "unknown", "/v1/statistics", filled('{"nothing": [', "[0],", "0]}")


def json_of(body):
    return json.dumps(body).encode()


class Memory:
    """Resident memory of a process, as the system counts it."""

    def __init__(self, pid):
        self.folder = Path("/proc", str(pid))

    def read(self, name):
        for line in self.folder.joinpath("status").read_text().splitlines():
            if line.startswith(name + ":"):
                return int(line.split()[1]) * 1024
        raise HarnessError(f"the system does not say {name}")

    def now(self):
        return self.read("VmRSS")

    def peak(self):
        return self.read("VmHWM")

    def begin(self):
        """Resets the peak."""
        self.folder.joinpath("clear_refs").write_text("5")
        return self.now()


def post(url, path, body):
    """The status of the answer; None if the connection was closed before there was one."""
    try:
        return Client(url, timeout=600).request("POST", path, body, {"Content-Type": "application/json"}).status
    except (OSError, http.client.HTTPException):
        return None


def alone(start, report, size):
    """Each kind of body by itself, to a fresh server, so that memory that was freed is not counted again."""
    for kind in range(len(list(bodies(1000, "")))):
        server, memory, cache = start(f"alone-{kind}")
        name, path, body = list(bodies(size, cache))[kind]
        before = memory.begin()
        status = post(server.url, path, body)
        taken = max(memory.peak() - before, 0)
        times = taken / len(body)
        print(f"  {name:14} {len(body) / MIB:6.1f} MiB  {status}  {taken / MIB:7.0f} MiB  {times:5.1f} x", flush=True)
        allowed = max(PER_BYTE * len(body), SMALL)
        report.check(f"{name}: an answer that may be", [] if status in EXPECTED else [f"the answer was {status}"])
        report.check(f"{name}: memory", [] if taken <= allowed else [f"{taken / MIB:.0f} MiB, {times:.0f} times the body"])
        server.stop()


def together(start, report, size, at_once):
    """Many at once, of all kinds."""
    server, memory, cache = start("together")
    kinds = list(bodies(size, cache))
    memory.begin()
    statuses, lock = collections.Counter(), threading.Lock()

    def send(i):
        _, path, body = kinds[i % len(kinds)]
        status = post(server.url, path, body)
        with lock:
            statuses[status] += 1

    threads = [threading.Thread(target=send, args=(i,)) for i in range(at_once)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    peak = memory.peak()
    print(f"  {at_once} at once: peak {peak / MIB:.0f} MiB, answers {dict(statuses)}", flush=True)
    report.check("together: memory", [] if peak <= BOUND else [f"{peak / MIB:.0f} MiB, more than {BOUND / MIB:.0f}"])
    # a refusal may come while the body is still being sent, and be lost with the connection
    unexpected = {status for status in statuses if status not in EXPECTED and status is not None}
    report.check("together: answers", [] if not unexpected else [f"answers {unexpected}"])
    report.check("together: the server goes on", [] if server.process.poll() is None else ["the server has ended"])
    run = Client(server.url).run({"model": "tiny", "input": "a small request"})
    report.check("together: a small request", [] if run["status"] == "completed" else [run["status"]])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--binary", type=Path, required=True)
    parser.add_argument("--model", default=f"tiny={ROOT / 'tests/goldens/llama/gqa_tied'}")
    parser.add_argument("--mb", type=int, default=16, help="size of the bodies in MB (16)")
    parser.add_argument("--at-once", type=int, default=24, help="bodies sent together (24)")
    args = parser.parse_args()
    interrupt_on_signals()
    report = Report()
    if not Path("/proc/self/clear_refs").exists():
        print("memory: this system does not say how much memory a process had at most; nothing was checked")
        print("0 passed, 0 failed")
        return 0
    with tempfile.TemporaryDirectory(prefix="residuum-memory-") as folder:
        running = []

        def start(name):
            """A server with one cache, its memory, and the cache."""
            server = Server(args.binary, Path(folder, name), [args.model], log=Path(folder, name + ".log")).start()
            running.append(server)
            cache = Client(server.url).run({"model": "tiny", "input": "the cat"})["caches"][0]
            return server, Memory(server.process.pid), cache

        try:
            alone(start, report, args.mb * 1_000_000)
            together(start, report, args.mb * 1_000_000, args.at_once)
        except HarnessError as error:
            print(f"memory: {error}", file=sys.stderr)
            return 1
        finally:
            for server in running:
                server.stop()
    print(f"{report.passed} passed, {report.failed} failed")
    return 1 if report.failed else 0


if __name__ == "__main__":
    sys.exit(main())
