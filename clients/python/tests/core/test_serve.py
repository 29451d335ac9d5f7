"""Local servers: starting, stopping, failing to start, and what is left behind: nothing."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from places import NAME

import residuum as rs
from residuum._core.process import find_binary


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def gone(pid: int, seconds: float = 15) -> bool:
    end = time.monotonic() + seconds
    while is_alive(pid) and time.monotonic() < end:
        time.sleep(0.05)
    return not is_alive(pid)


def test_a_server_stops_with_its_context_and_leaves_nothing() -> None:
    with rs.serve() as c:
        pid, folder = c.pid, c.data_dir.parent
        assert c.models() == []
        assert pid is not None
        assert is_alive(pid)
        assert folder.exists()
        assert "listening" in c.log()
        assert f"process {pid}" in repr(c)
    assert not is_alive(pid)
    assert not folder.exists()
    assert "stopped" in repr(c)
    c.stop()
    c.close()


def test_an_exception_stops_it_too() -> None:
    with pytest.raises(RuntimeError, match="oops"), rs.serve() as c:
        pid = c.pid
        raise RuntimeError("oops")
    assert pid is not None
    assert not is_alive(pid)


def test_data_outlive_a_stop_a_crash_and_a_given_folder_also_a_close(model_file: Path, tmp_path: Path) -> None:
    with rs.serve({NAME: model_file}, data_dir=tmp_path / "data", progress=False) as c:
        cache = c.model().run_with_cache("Keep this", layers=1)[1]
        address = c.url
        c.stop()
        with pytest.raises(rs.ServerUnreachable):
            rs.Client(address).models()
        c.start()
        assert c.url == address
        assert c.cache(cache.id).text == "Keep this"
        c.kill()
        assert c.pid is None
        c.start()
        assert c.cache(cache.id).text == "Keep this"
        with pytest.raises(rs.ServeError, match="running already"):
            c.start()
        assert c.cache(cache.id).text == "Keep this"
    with rs.serve(data_dir=tmp_path / "data") as c:
        assert c.cache(cache.id).text == "Keep this"
        with pytest.raises(rs.ServeError, match="data folder is in use"):
            rs.serve(data_dir=tmp_path / "data")


def test_what_does_not_start_says_why(tmp_path: Path) -> None:
    with pytest.raises(rs.ServeError, match=r"(?s)ended with status 1.*does not exist") as caught:
        rs.serve({"x": tmp_path / "none.gguf"})
    assert "listening" in str(caught.value)  # the log is shown
    with pytest.raises(rs.ServeError, match="unexpected argument"):
        rs.serve(arguments=["--no-such-flag"])
    with rs.serve() as c, pytest.raises(rs.ServeError, match="cannot listen"):
        rs.serve(port=int(c.url.rpartition(":")[2]))
    with pytest.raises(rs.ServeError, match="no program"):
        rs.serve(binary=tmp_path / "none")
    script = tmp_path / "residuum"
    script.write_text("#!/bin/sh\nsleep 60\n")
    script.chmod(0o755)
    with pytest.raises(rs.ServeError, match="does not listen after 0 s"):
        rs.serve(binary=script, timeout=0.3)


def test_where_the_program_is_looked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "residuum"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    monkeypatch.delenv("RESIDUUM_BINARY", raising=False)
    monkeypatch.setattr("sysconfig.get_path", lambda name: str(tmp_path / "scripts"))
    monkeypatch.setattr(sys, "executable", str(tmp_path / "bin" / "python"))
    monkeypatch.setenv("PATH", "")
    with pytest.raises(rs.ServeError, match="pip install residuum-server"):
        find_binary()
    monkeypatch.setenv("PATH", str(tmp_path))
    assert find_binary() == str(program)
    monkeypatch.setenv("RESIDUUM_BINARY", str(tmp_path / "other"))
    with pytest.raises(rs.ServeError, match="RESIDUUM_BINARY names"):
        find_binary()
    assert find_binary(program) == str(program)


def test_settings_of_another_server_are_not_inherited(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("RESIDUUM_MODEL", "x=/nowhere")
    monkeypatch.setenv("RESIDUUM_LISTEN", "127.0.0.1:1")
    monkeypatch.setenv("RESIDUUM_LOG_FORMAT", "json")
    monkeypatch.setenv("RESIDUUM_API_KEY", "a-key-of-another-server")
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    with rs.serve(environment={"RESIDUUM_LOG": "warn,residuum=info"}) as c:
        assert c.models() == []


@pytest.mark.skipif(os.name != "posix", reason="signals")
@pytest.mark.parametrize(
    "end", ["os.kill(os.getpid(), signal.SIGKILL)", "os.kill(os.getpid(), signal.SIGTERM)", "sys.exit(3)", "1 / 0"]
)
def test_the_server_ends_when_the_program_ends(end: str, tmp_path: Path) -> None:
    code = (
        f"import os, signal, sys, residuum as rs\nc = rs.serve()\nprint(c.pid, c.data_dir.parent, flush=True)\n{end}\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    pid, folder = done.stdout.split()
    assert gone(int(pid))
    assert_removed(Path(folder))


def assert_removed(folder: Path) -> None:
    end = time.monotonic() + 15
    while folder.exists() and time.monotonic() < end:
        time.sleep(0.05)
    assert not folder.exists()


def test_a_fork_does_not_stop_the_server_of_its_parent() -> None:
    with rs.serve() as c:
        child = os.fork()
        if child == 0:
            c._process.stop()
            os._exit(0)
        os.waitpid(child, 0)
        assert c.models() == []


def test_keys(model_file: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    made = {}
    for name, scope in (("writer", "write"), ("reader", "read")):
        command = [
            find_binary(),
            "keys",
            "create",
            "--data-dir",
            str(data),
            "--name",
            name,
            "--scope",
            scope,
            "--tenant",
            "ann",
        ]
        made[name] = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    keys = {
        name: next(w for line in text.splitlines() for w in line.split() if w.startswith("rsd_"))
        for name, text in made.items()
    }
    with rs.serve({NAME: model_file}, data_dir=data, api_key=keys["writer"], progress=False) as c:
        cache = c.model().run_with_cache("Behind a key", layers=1)[1]
        capture = c.model().capture(["a", "b"], layers=1).wait()
        assert len(capture.matrix(layer=1)[0]) == 2
        reader = rs.Client(c.url, keys["reader"])
        assert reader.cache(cache.id)[1].shape == (4, 576)
        with pytest.raises(rs.ScopeMissing) as missing:
            reader.model(NAME).run_with_cache("x")
        assert missing.value.status == 403
        with pytest.raises(rs.ApiKeyRequired, match="RESIDUUM_API_KEY"):
            rs.Client(c.url, "").caches().all()
        with pytest.raises(rs.ApiKeyInvalid):
            rs.Client(c.url, "rsd_wrong").caches().all()
        with pytest.raises(rs.AuthenticationError):
            rs.Client(c.url, "wrong").caches().all()


def test_models_come_and_go(model_file: Path) -> None:
    with rs.serve(arguments=["--models-dir", str(model_file.parent)], progress=False) as c:
        with pytest.raises(rs.UnknownSource):
            c.load_model("x", "none.gguf")
        m = c.load_model(NAME, model_file.name)
        assert m.status == "ready"
        assert m.n_layers == 30
        assert m.run_with_cache("Hi", layers=1)[1][1].shape == (1, 576)
        with pytest.raises(rs.Conflict):
            c.load_model(NAME, model_file.name)
        m.unload()
        assert c.models() == []
        later = c.load_model("later", model_file.name, timeout=0)
        assert later.status in ("loading", "ready")
        assert c.model("later", wait=60).status == "ready"
        assert c.health()["status"] == "ok"
    with rs.serve() as c, pytest.raises(rs.LoadingOff):
        c.load_model("x", "y")


def test_encoders(model_file: Path) -> None:
    folder = model_file.parent / "all-MiniLM-L6-v2"
    if not folder.exists():
        pytest.skip("the encoder is not here")
    with rs.serve({"minilm": folder}, progress=False) as c:
        m = c.model()
        X, _ = m.capture(["One text", "Another text"], layers=-1).matrix()
        assert X.shape == (2, m.d_model)
        logits, cache = m.run_with_cache("One text")
        np.testing.assert_allclose(cache[m.n_layers - 1].mean(0), X[0], rtol=1e-4, atol=1e-5)
        with pytest.raises(rs.ApiError):
            logits.numpy()


def test_clients_travel_to_other_processes_and_through_forks(client: rs.LocalServer) -> None:
    copy = pickle.loads(pickle.dumps(client))
    assert type(copy) is rs.Client
    assert [m.id for m in copy.models()] == [NAME]
    again = pickle.loads(pickle.dumps(rs.AsyncClient(client.url, "k", timeout=3)))
    assert (again.config.api_key, again.config.timeout) == ("k", 3)
    before = copy.transport._http
    with multiprocessing.get_context("fork").Pool(2) as pool:
        assert pool.map(partial(names, copy), range(4)) == [[NAME]] * 4
    assert copy.transport._pool() is before


def names(c: rs.Client, _: int) -> list[str]:
    return [m.id for m in c.models()]
