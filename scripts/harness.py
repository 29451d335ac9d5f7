#!/usr/bin/env python3
"""Starts a Residuum server and talks to it: what the demo, the tests and the benchmark share (standard library only).

As a program it starts a server, runs a command against it, and exits with the command's status:

    scripts/harness.py --binary target/debug/residuum --model tiny=models/tiny -- curl -s {url}/v1/models

Every `{url}` in the command is replaced by the server's address. Server and data folder are removed afterwards.
"""

import argparse
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlencode, urlsplit

FINAL = ("completed", "failed", "cancelled")


class HarnessError(Exception):
    """Something outside the server went wrong; the message is for people."""


class ApiError(Exception):
    """An answer other than 2xx or 3xx. `status` and `code` are for programs."""

    def __init__(self, method, path, response):
        self.status = response.status
        try:
            problem = response.json()
        except ValueError:
            problem = {}
        self.code = problem.get("code")
        detail = problem.get("detail") or response.body[:200].decode("utf-8", "replace")
        super().__init__(f"{method} {path} answered {response.status} {self.code or ''}: {detail}")


@dataclass
class Response:
    """A whole HTTP answer; header names are lower case."""

    status: int
    headers: dict
    body: bytes

    def json(self):
        return json.loads(self.body)


class Client:
    """Plain HTTP to one server, one connection per request."""

    def __init__(self, url, timeout=120.0, headers=None):
        self.url, self.headers = url.rstrip("/"), headers or {}
        parts = urlsplit(self.url)
        self.host, self.port, self.timeout = parts.hostname, parts.port or 80, timeout

    def request(self, method, path, body=None, headers=None):
        """Sends `body` (bytes, or anything JSON can hold) and returns the answer, whatever its status."""
        headers = self.headers | (headers or {})
        if body is not None and not isinstance(body, bytes):
            body = json.dumps(body).encode()
            headers.setdefault("Content-Type", "application/json")
        connection = http.client.HTTPConnection(self.host, self.port, timeout=self.timeout)
        try:
            connection.request(method, path, body=body, headers=headers)
            answer = connection.getresponse()
            return Response(answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read())
        finally:
            connection.close()

    def call(self, method, path, body=None, headers=None):
        """Like `request`, but an error answer raises `ApiError`."""
        response = self.request(method, path, body, headers)
        if response.status >= 400:
            raise ApiError(method, path, response)
        return response

    def get(self, path, **query):
        """The JSON behind a path."""
        return self.call("GET", f"{path}?{urlencode(query)}" if query else path).json()

    def items(self, path, **query):
        """Every item of a list, page after page."""
        while True:
            page = self.get(path, **query)
            yield from page["items"]
            if page.get("next_cursor") is None:
                return
            query["cursor"] = page["next_cursor"]

    def run(self, body, timeout=300.0):
        """Posts a run and returns it once it has completed; another end raises `HarnessError`."""
        deadline = time.monotonic() + timeout
        run = self.call("POST", "/v1/runs?wait=30", body).json()
        while run["status"] not in FINAL:
            if time.monotonic() > deadline:
                raise HarnessError(f"run {run['id']} is still {run['status']} after {timeout:.0f} s")
            time.sleep(0.05)
            run = self.get(f"/v1/runs/{run['id']}")
        if run["status"] != "completed":
            raise HarnessError(f"run {run['id']} ended as {run['status']}: {json.dumps(run['error'])}")
        return run


class Server:
    """A `residuum serve` child process, in a session of its own so that Ctrl-C reaches the parent alone."""

    def __init__(self, binary, data_dir, models, listen=None, log=None, options=()):
        self.listen = listen or f"127.0.0.1:{free_port()}"
        self.url = "http://" + connect_address(self.listen)
        self.log = Path(log or os.devnull)
        self.command = [str(binary), "serve", "--listen", self.listen, "--data-dir", str(data_dir)]
        for model in models:
            self.command += ["--model", model]
        self.command += options
        self.process = None

    def start(self, timeout=120.0, settings=None):
        """Starts it, with these additional environment variables, and returns once `/readyz` answers 200."""
        # Settings of a server in the caller's environment must not apply to this one.
        env = {k: v for k, v in os.environ.items() if not k.startswith("RESIDUUM_")} | (settings or {})
        with open(self.log, "ab") as log:
            try:
                self.process = subprocess.Popen(
                    self.command, env=env, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
                )
            except OSError as error:
                raise HarnessError(f"cannot start {self.command[0]}: {error.strerror}") from error
        client = Client(self.url, timeout=5.0)
        deadline = time.monotonic() + timeout
        while not self._ready(client):
            code = self.process.poll()
            if code is not None:
                raise HarnessError(f"the server ended with status {code} before it was ready{self.log_tail()}")
            if time.monotonic() > deadline:
                self.kill()
                raise HarnessError(f"the server was not ready after {timeout:.0f} s{self.log_tail()}")
            time.sleep(0.05)
        return self

    @staticmethod
    def _ready(client):
        try:
            return client.request("GET", "/readyz").status == 200
        except (OSError, http.client.HTTPException):
            return False

    def stop(self, timeout=30.0):
        """Sends SIGTERM, and SIGKILL if that is not enough. Returns its exit status (negative: ended by that signal)."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(timeout)
            except subprocess.TimeoutExpired:
                self.kill()
        return self.process.returncode

    def kill(self):
        """SIGKILL: the server gets no chance to tidy up."""
        self.process.kill()
        self.process.wait()

    def log_tail(self, lines=15):
        """The end of its log, for an error message."""
        if not self.log.is_file():
            return ""
        tail = self.log.read_text(errors="replace").splitlines()[-lines:]
        return "; its log ends:\n" + "\n".join(f"  {line}" for line in tail) if tail else ""


@contextmanager
def temporary_server(binary, models, options=(), timeout=120.0):
    """A server on a free port with its own data folder; both are removed afterwards. It must be ready within `timeout` seconds."""
    with tempfile.TemporaryDirectory(prefix="residuum-") as folder:
        server = Server(binary, Path(folder, "data"), models, log=Path(folder, "server.log"), options=options)
        try:
            yield server.start(timeout)
        finally:
            if server.process is not None:
                server.stop()


def split_listen(listen):
    """`HOST:PORT` or `[HOST]:PORT` as (host, port)."""
    host, colon, port = listen.rpartition(":")
    if not colon or not port.isdigit():
        raise HarnessError(f"{listen!r} is not an address: expected HOST:PORT, as in 127.0.0.1:8080")
    return host.strip("[]"), int(port)


def connect_address(listen):
    """Where a client reaches a server that listens at `listen`."""
    host, port = split_listen(listen)
    host = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def can_bind(host, port):
    """Whether `host:port` is free."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True


def free_port():
    """A port that was free on 127.0.0.1 just now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def interrupt_on_signals():
    """Makes SIGINT, SIGTERM and SIGHUP raise `KeyboardInterrupt`, also when a shell started us in the background."""

    def interrupt(_signal, _frame):
        raise KeyboardInterrupt

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, interrupt)


def main():
    parser = argparse.ArgumentParser(description="Run a command against a temporary server.")
    parser.add_argument("--binary", required=True, help="the residuum program")
    parser.add_argument("--model", action="append", required=True, metavar="ID=PATH")
    parser.add_argument("command", nargs="+", help="after `--`; {url} becomes the server's address")
    args = parser.parse_args()
    interrupt_on_signals()
    try:
        with temporary_server(args.binary, args.model) as server:
            status = subprocess.call([word.replace("{url}", server.url) for word in args.command])
            if status:
                print(f"{args.command[0]} ended with status {status}{server.log_tail()}", file=sys.stderr)
            return status
    except HarnessError as error:
        print(f"harness: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
