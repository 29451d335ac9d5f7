"""A light HTTP/1.1 load generator: keep-alive connections on one event loop, requests built beforehand.

The generator shares the machine with the server, so it does as little as it can: it finds the end of each answer by its
Content-Length and looks at nothing else but the status.
"""

import asyncio
import json
import time


class Connection(asyncio.Protocol):
    """One keep-alive connection with at most one request under way."""

    def __init__(self):
        self.transport = None
        self._buffer = bytearray()
        self._end = None  # of the answer in the buffer, once its head is there
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
        if not head.startswith(b"http/1.1 2"):
            raise ValueError(f"the server answered {bytes(self._buffer[:400])!r}")
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


def build(method, path, host, body=None):
    """The bytes of one request, `body` as JSON."""
    payload = b"" if body is None else json.dumps(body).encode()
    head = f"{method} {path} HTTP/1.1\r\nHost: {host}\r\n"
    if body is not None:
        head += f"Content-Type: application/json\r\nContent-Length: {len(payload)}\r\n"
    return head.encode() + b"\r\n" + payload


def body_of(answer):
    """The JSON body of an answer."""
    return json.loads(answer.split(b"\r\n\r\n", 1)[1])


async def _connect(host, port, n_connections):
    loop = asyncio.get_running_loop()
    made = [loop.create_connection(Connection, host, port) for _ in range(n_connections)]
    return [protocol for _, protocol in await asyncio.gather(*made)]


async def _closed_loop(host, port, requests, n_connections):
    connections = await _connect(host, port, min(n_connections, len(requests)))
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
    """Sends all requests over `n_connections`, each sending its next one when its last was answered.

    Returns the answers and the latencies in seconds, both in the order of `requests`, and the seconds for all of them.
    An answer other than 2xx raises `ValueError`.
    """
    host, _, port = server.listen.rpartition(":")
    return asyncio.run(_closed_loop(host, int(port), requests, n_connections))


async def _paced(host, port, requests, n_connections, rate):
    connections = await _connect(host, port, n_connections)
    latencies = [0.0] * len(requests)
    start = time.perf_counter() + 0.01

    async def client(first):
        for i in range(first, len(requests), n_connections):
            due = start + i / rate
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
            await connections[first].exchange(requests[i])
            latencies[i] = time.perf_counter() - due

    await asyncio.gather(*map(client, range(n_connections)))
    for connection in connections:
        connection.transport.close()
    return latencies


def paced(server, requests, n_connections, rate):
    """Sends `rate` requests a second, each of the connections in turn, as a crowd does that does not wait for answers.

    Returns the latencies in seconds, each from the moment its request was due: what waits behind others counts.
    An answer other than 2xx raises `ValueError`.
    """
    host, _, port = server.listen.rpartition(":")
    return asyncio.run(_paced(host, int(port), requests, n_connections, rate))
