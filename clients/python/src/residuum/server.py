"""`serve`: a local server, started and stopped by this program."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ._core.problem import ApiError, ConnectionFailed, ServeError
from ._core.process import ServerProcess, find_binary
from ._sync.client import Client, restored
from ._sync.transport import Transport

if TYPE_CHECKING:
    from types import TracebackType


class LocalServer(Client):
    """A client of a server that this program has started. Closing it, or leaving its `with`, stops the server.

    The server also stops when this program ends, however it ends.
    """

    def __init__(self, process: ServerProcess, *, timeout: float = 300.0, **client: Any) -> None:
        """Starts the server and waits until its models are loaded. `serve` makes one."""
        self._process, self._start_timeout, self._options = process, timeout, client
        self.transport = None  # type: ignore[assignment]
        self._begin()

    def _begin(self) -> None:
        end = time.monotonic() + self._start_timeout
        url = self._process.start(self._start_timeout)
        try:
            if self.transport is None:
                super().__init__(url, **self._options)
            else:
                self.config = replace(self.config, url=url)
                self.transport = Transport(self.config)
            self._wait_until_ready(end)
        except BaseException:
            self.close()
            raise

    def _wait_until_ready(self, end: float) -> None:
        while True:
            try:
                self._process.check()
                self.transport.request("GET", "/readyz", patient=False)
                return
            except (ConnectionFailed, ApiError) as e:
                if isinstance(e, ApiError) and e.status != 503:
                    raise
                if time.monotonic() > end:
                    raise ServeError(f"the server is not ready after {self._start_timeout:.0f} s: {e}") from e
                time.sleep(0.05)

    @property
    def data_dir(self) -> Path:
        """The data folder of the server. A temporary one is removed by `close`."""
        return self._process.data_dir

    @property
    def pid(self) -> int | None:
        """The process of the server; None if it is stopped."""
        return self._process.pid

    def log(self) -> str:
        """What the server has logged since it was started."""
        return self._process.log()

    def start(self) -> LocalServer:
        """Starts it again after `stop`, at the same address and with the same data."""
        self._begin()
        return self

    def stop(self) -> None:
        """Stops the server. Its data stay until `close`."""
        if self.transport is not None:
            self.transport.close()
        self._process.stop()

    def kill(self) -> None:
        """Ends the server as a crash would, to test how a program copes with it."""
        self._process.kill()

    def close(self) -> None:
        """Stops the server, and removes its data if their folder is temporary."""
        self.stop()
        self._process.clean()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __reduce__(self) -> tuple[Any, ...]:
        return restored, (Client, self.config)  # in another process it is a client of this server

    def __repr__(self) -> str:
        state = f"process {self.pid}" if self.pid else "stopped"
        return f"LocalServer({self.url!r}, {state})"


def serve(
    models: Mapping[str, str | os.PathLike[str]] | None = None,
    *,
    saes: Mapping[str, str] | None = None,
    data_dir: str | os.PathLike[str] | None = None,
    host: str = "127.0.0.1",
    port: int = 0,
    binary: str | os.PathLike[str] | None = None,
    arguments: Sequence[str] = (),
    environment: Mapping[str, str] | None = None,
    timeout: float = 300.0,
    api_key: str = "",
    **client: Any,
) -> LocalServer:
    """Starts a local server and gives a client of it, which is a context manager.

        with rs.serve({"smollm2": "SmolLM2-135M-Instruct.Q4_1.gguf"}) as c:
            m = c.model("smollm2")

    Args:
        models: Id and path of each model: a Hugging Face folder, a `.gguf` file, or a hub name.
        saes: Id of each sparse autoencoder, and `MODEL:PATH`.
        data_dir: Where activations are kept; a temporary folder by default, which is removed at the end.
        host: Address to listen on.
        port: Port to listen on; a free one by default.
        binary: The program `residuum`; by default `RESIDUUM_BINARY`, the wheel `residuum-server`, or the one on PATH.
        arguments: Further arguments of `residuum serve`, such as `["--threads", "4"]`.
        environment: Further environment variables. Those of this program that begin with `RESIDUUM_` are not passed on.
        timeout: Seconds in which the server has to be ready.
        api_key: A key, if the data folder has keys.
        client: Further arguments of `Client`.

    Raises:
        ServeError: There is no such program, or it does not start; the message ends with its log.
    """
    options = [part for id, path in (models or {}).items() for part in ("--model", f"{id}={_expanded(path)}")]
    options += [part for id, place in (saes or {}).items() for part in ("--sae", f"{id}={place}")]
    process = ServerProcess(
        find_binary(binary),
        [*options, *arguments],
        data_dir=data_dir,
        host=host,
        port=port,
        environment=environment,
    )
    return LocalServer(process, timeout=timeout, api_key=api_key, **client)


def _expanded(path: str | os.PathLike[str]) -> str:
    return os.path.expanduser(os.fspath(path))
