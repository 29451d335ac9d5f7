"""The process of a local server: finding the program, starting it, waiting for it, and stopping it in every case."""

from __future__ import annotations

import atexit
import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from .problem import ServeError

LOG_LINES = 20
_ADDRESS = re.compile(rb"listening\W.*?address=\"?([^\s\"]+:\d+)")

# Stops the server when this process is gone, even if it was killed: then its end of the pipe closes.
# It also removes the temporary folder.
_WATCHER = """
import os, shutil, signal, sys, time
sys.stdin.buffer.read()
pid = int(sys.argv[1])
try:
    os.kill(pid, signal.SIGTERM)
    for _ in range(600):
        time.sleep(0.1)
        os.kill(pid, 0)
except ProcessLookupError:
    pass
shutil.rmtree(sys.argv[2], ignore_errors=True)
"""


def find_binary(binary: str | os.PathLike[str] | None = None) -> str:
    """The program `residuum`: as given, from `RESIDUUM_BINARY`, beside this Python (the wheel `residuum-server`), or on PATH.

    Raises:
        ServeError: There is none; the message says how to get one.
    """
    named = binary or os.environ.get("RESIDUUM_BINARY")
    if named:
        found = shutil.which(os.path.expanduser(named))
        if found is None:
            source = "binary=" if binary else "RESIDUUM_BINARY"
            raise ServeError(f"{source} names {os.fspath(named)!r}, which is no program")
        return found
    for folder in (sysconfig.get_path("scripts"), os.path.dirname(sys.executable)):
        found = shutil.which("residuum", path=folder)
        if found:
            return found
    found = shutil.which("residuum")
    if found:
        return found
    raise ServeError(
        "the program `residuum` is not installed: `pip install residuum-server`, or build it with `cargo install --path .`, "
        "or set RESIDUUM_BINARY to where it is"
    )


class ServerProcess:
    """One server. `start` and `stop` may be called again."""

    def __init__(
        self,
        binary: str,
        arguments: Sequence[str],
        *,
        data_dir: str | os.PathLike[str] | None,
        host: str,
        port: int,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self._binary, self._arguments, self._host, self._port = binary, list(arguments), host, port
        self._environment = dict(environment or {})
        self._given_data = None if data_dir is None else Path(os.path.expanduser(data_dir))
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._watcher: subprocess.Popen[bytes] | None = None
        self._owner = os.getpid()
        self._log_start = 0

    @property
    def data_dir(self) -> Path:
        """The data folder."""
        return self._given_data if self._given_data is not None else self._temporary() / "data"

    @property
    def log_file(self) -> Path:
        """What the server logs."""
        return self._temporary() / "server.log"

    @property
    def pid(self) -> int | None:
        """The process; None if it is not running."""
        return self._process.pid if self._process is not None and self._process.poll() is None else None

    def _temporary(self) -> Path:
        if self._folder is None:
            self._folder = tempfile.TemporaryDirectory(prefix="residuum-", ignore_cleanup_errors=True)
        return Path(self._folder.name)

    def start(self, timeout: float) -> str:
        """Starts the server and waits until it listens. Returns its address, `http://host:port`.

        Raises:
            ServeError: It cannot be started, or ends at once.
        """
        if self.pid is not None:
            raise ServeError("the server is running already")
        log = self.log_file
        self._log_start = log.stat().st_size if log.exists() else 0
        command = [self._binary, "serve", "--listen", f"{self._host}:{self._port}", "--data-dir", str(self.data_dir)]
        command += ["--log-format", "text", "--log", self._environment.get("RESIDUUM_LOG", "info"), *self._arguments]
        # Settings of another server in the environment would be taken for this one's.
        inherited = {k: v for k, v in os.environ.items() if not k.startswith("RESIDUUM_")}
        with open(log, "ab") as out:
            try:
                self._process = subprocess.Popen(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=out,
                    stderr=subprocess.STDOUT,
                    env={**inherited, **self._environment},
                    start_new_session=os.name == "posix",  # Ctrl-C in a terminal is for this program
                )
            except OSError as e:
                raise ServeError(f"{self._binary} cannot be started: {e}") from e
        atexit.register(self.stop)
        self._watch()
        try:
            return self._address(timeout)
        except BaseException:
            self.stop()
            raise

    def _watch(self) -> None:
        if os.name != "posix" or self._process is None:
            return
        with contextlib.suppress(OSError):
            self._watcher = subprocess.Popen(
                [sys.executable, "-I", "-S", "-c", _WATCHER, str(self._process.pid), str(self._temporary())],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )

    def _address(self, timeout: float) -> str:
        end = time.monotonic() + timeout
        while True:
            found = _ADDRESS.search(self._new_log())
            if found:
                address = found.group(1).decode()
                self._port = int(address.rpartition(":")[2])  # the same one after a restart
                host = "127.0.0.1" if self._host in ("0.0.0.0", "::", "[::]") else self._host
                return f"http://{host}:{self._port}"
            self.check()
            if time.monotonic() > end:
                raise ServeError(f"the server does not listen after {timeout:.0f} s{self._tail()}")
            time.sleep(0.02)

    def check(self) -> None:
        """Raises if the server has ended.

        Raises:
            ServeError: With the last lines of its log.
        """
        status = self._process.poll() if self._process is not None else None
        if self._process is None or status is not None:
            raise ServeError(f"the server has ended with status {status}{self._tail()}")

    def _new_log(self) -> bytes:
        with open(self.log_file, "rb") as file:
            file.seek(self._log_start)
            return file.read()

    def log(self) -> str:
        """What the server has logged since it was started."""
        return self._new_log().decode(errors="replace") if self._folder is not None and self.log_file.exists() else ""

    def _tail(self) -> str:
        lines = self.log().strip().splitlines()[-LOG_LINES:]
        return ". Its log ends with\n  " + "\n  ".join(lines) if lines else ""

    def stop(self, timeout: float = 30.0) -> None:
        """Stops the server: work in progress may end, for `timeout` seconds. Nothing happens if it is stopped already."""
        if os.getpid() != self._owner:  # a fork: the server belongs to its parent
            return
        process, self._process = self._process, None
        watcher, self._watcher = self._watcher, None
        if process is not None and process.poll() is None:
            process.terminate()
            try:
                process.wait(timeout)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            except BaseException:  # a second Ctrl-C does not wait
                process.kill()
                process.wait()
                raise
        if watcher is not None:
            watcher.kill()
            watcher.communicate()
        atexit.unregister(self.stop)

    def kill(self) -> None:
        """Ends the server as a crash would."""
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGKILL if os.name == "posix" else signal.SIGTERM)
            self._process.wait()

    def clean(self) -> None:
        """Removes the temporary folder, with the log and a temporary data folder."""
        folder, self._folder = self._folder, None
        if folder is not None:
            folder.cleanup()
