"""A light HTTP/1.1 load generator: keep-alive connections on one event loop, requests built beforehand.

The generator shares the machine with the server, so it does as little as it can: it finds the end of each answer by its
Content-Length and reads nothing else.
"""

import asyncio
import gc
import json
import os
import shutil
import subprocess
import tempfile
import time

from harness import HarnessError


class Connection(asyncio.Protocol):
    """One keep-alive connection with at most one request under way."""

    def __init__(self):
        self.transport = None
        self._buffer = bytearray()
        self._end = None  # of the answer in the buffer, once its head has arrived
        self._waiter = None

    def connection_made(self, transport):
        self.transport = transport

    def data_received(self, data):
        self._buffer += data
        try:
            if self._end is None:
                self._read_head()
        except ValueError as error:
            self._fail(error)
            return
        if self._end is not None and len(self._buffer) >= self._end:
            answer, self._buffer, self._end = bytes(self._buffer), bytearray(), None
            if self._waiter is not None and not self._waiter.done():
                self._waiter.set_result(answer)

    def _read_head(self):
        end = self._buffer.find(b"\r\n\r\n")
        if end < 0:
            return
        head = bytes(self._buffer[:end]).lower()
        _, found, rest = head.partition(b"\r\ncontent-length:")
        if not found:
            raise ValueError("an answer without Content-Length")
        self._end = end + 4 + int(rest.split(b"\r\n", 1)[0])

    def connection_lost(self, error):
        self._fail(error or ConnectionError("the server closed the connection"))

    def _fail(self, error):
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_exception(error)

    def exchange(self, request):
        """Sends the bytes of a request; the future gives the bytes of the whole answer."""
        self._waiter = asyncio.get_running_loop().create_future()
        self.transport.write(request)
        return self._waiter


def build(method, path, host, body=None, key=None):
    """The bytes of one request, `body` as JSON, `key` an API key."""
    payload = b"" if body is None else json.dumps(body).encode()
    head = f"{method} {path} HTTP/1.1\r\nHost: {host}\r\n"
    if key is not None:
        head += f"Authorization: Bearer {key}\r\n"
    if body is not None:
        head += f"Content-Type: application/json\r\nContent-Length: {len(payload)}\r\n"
    return head.encode() + b"\r\n" + payload


def status_of(answer):
    """The status of an answer."""
    return int(answer[9:12])


def body_of(answer):
    """The JSON body of an answer."""
    return json.loads(answer.split(b"\r\n\r\n", 1)[1])


async def connect(host, port, n_connections):
    """Opens connections."""
    loop = asyncio.get_running_loop()
    made = [loop.create_connection(Connection, host, port) for _ in range(n_connections)]
    return [protocol for _, protocol in await asyncio.gather(*made)]


async def _closed_loop(host, port, requests, n_connections):
    connections = await connect(host, port, min(n_connections, len(requests)))
    queue = iter(range(len(requests)))
    answers, latencies = [None] * len(requests), [0.0] * len(requests)

    async def client(connection):
        for i in queue:
            start = time.perf_counter()
            answers[i] = await connection.exchange(requests[i])
            latencies[i] = time.perf_counter() - start

    start = time.perf_counter()
    await asyncio.gather(*map(client, connections))
    elapsed = time.perf_counter() - start
    for connection in connections:
        connection.transport.close()
    return answers, latencies, elapsed


def closed_loop(server, requests, n_connections):
    """Sends all requests over `n_connections`; each connection sends its next request when the last one is answered.

    Returns the answers and the latencies in seconds, both in the order of `requests`, and the seconds for all of them.
    An answer other than 2xx raises `ValueError`.
    """
    host, _, port = server.listen.rpartition(":")
    # A garbage collection would visit all objects of PyTorch in this process.
    gc.disable()
    try:
        answers, latencies, elapsed = asyncio.run(_closed_loop(host, int(port), requests, n_connections))
    finally:
        gc.enable()
    bad = next((answer for answer in answers if status_of(answer) // 100 != 2), None)
    if bad is not None:
        raise ValueError(f"the server answered {bad[:400]!r}")
    return answers, latencies, elapsed


# Sends requests of a file, in which each follows its length, at random. Pauses before each for a random time with the given
# mean. Prints the figures as one line of JSON.
WRK_SCRIPT = """
local file = os.getenv("REQUESTS")
if file ~= "" then
  local requests, source = {}, io.open(file, "rb")
  for length in function() return source:read("*n") end do
    source:read(1)
    requests[#requests + 1] = source:read(length)
  end
  function request() return requests[math.random(#requests)] end
end
local pause = tonumber(os.getenv("PAUSE_MS"))
if pause > 0 then
  function delay() return math.random(0, 2 * pause) end
end
function done(summary, latency, requests)
  local bad = summary.errors.status + summary.errors.connect + summary.errors.read + summary.errors.write + summary.errors.timeout
  print(string.format('{"bad": %d, "p50_us": %d, "p99_us": %d, "requests": %d, "us": %d}',
    bad, latency:percentile(50), latency:percentile(99), summary.requests, summary.duration))
end
"""


def wrk(server, what, n_connections, seconds=2, pause_ms=0):
    """Sends requests over and over with wrk, a load generator in C; returns p50 and p99 in milliseconds, and requests a second.

    `what` is a path to get, or requests as `build` makes them, of which it takes one at random. Each connection sends its
    next request when it has its answer, after a pause of a random length if one is given.
    """
    program = shutil.which("wrk")
    if program is None:
        raise HarnessError("wrk is not installed (Debian: apt install wrk)")
    path, requests = (what, []) if isinstance(what, str) else ("/", what)
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as script, tempfile.NamedTemporaryFile("wb") as listed:
        script.write(WRK_SCRIPT)
        script.flush()
        listed.writelines(b"%d\n%s" % (len(request), request) for request in requests)
        listed.flush()
        command = [program, "-t1", f"-c{n_connections}", f"-d{seconds}", "-s", script.name, server.url + path]
        settings = {"PAUSE_MS": str(pause_ms), "REQUESTS": listed.name if requests else ""}
        output = subprocess.run(command, env=os.environ | settings, check=True, capture_output=True, text=True).stdout
    figures = json.loads(output.strip().splitlines()[-1])
    if figures["bad"]:
        raise HarnessError(f"{figures['bad']} requests failed")
    return figures["p50_us"] / 1e3, figures["p99_us"] / 1e3, figures["requests"] / figures["us"] * 1e6
