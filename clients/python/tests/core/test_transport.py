"""Retries, timeouts, keys and errors, against a scripted server."""

from __future__ import annotations

import email.utils
import json
import time

import httpx
import pytest
from scripted import CUT, DROP, Scripted, problem

import residuum as rs

OK = (200, {"items": []}, {})
RUN = {
    "object": "run",
    "id": "r",
    "status": "queued",
    "n_items": 1,
    "n_done": 0,
    "n_failed": 0,
    "n_reused": 0,
    "model": "m",
}


def client(server: Scripted, **options: object) -> rs.Client:
    return rs.Client(server.url, **options)  # type: ignore[arg-type]


def full(status: int, code: str, **headers: str) -> tuple[int, dict[str, object], dict[str, str]]:
    return status, problem(status, code), headers


def test_a_full_queue_is_retried_after_what_the_server_says(scripted: Scripted, delays: list[float]) -> None:
    scripted.script = [
        full(429, "queue_full", **{"Retry-After": "7"}),
        full(503, "unavailable", **{"Retry-After": "2"}),
        OK,
    ]
    assert client(scripted).models() == []
    assert len(scripted.seen) == 3
    assert 7 <= delays[0] < 8
    assert 2 <= delays[1] < 3


def test_retry_after_may_be_a_date(scripted: Scripted, delays: list[float]) -> None:
    date = email.utils.formatdate(time.time() + 30, usegmt=True)
    scripted.script = [full(503, "unavailable", **{"Retry-After": date}), OK]
    client(scripted).models()
    assert 25 <= delays[0] <= 32


def test_without_retry_after_pauses_double_and_vary(scripted: Scripted, delays: list[float]) -> None:
    scripted.script = [full(503, "unavailable")]
    with pytest.raises(rs.Unavailable) as caught:
        client(scripted, max_retries=5).models()
    assert len(scripted.seen) == 6
    for attempt, delay in enumerate(delays):
        assert 0.125 * 2**attempt <= delay <= 0.25 * 2**attempt
    assert caught.value.status == 503


def test_a_long_retry_after_is_an_error_at_once(scripted: Scripted, delays: list[float]) -> None:
    scripted.script = [full(429, "client_queue_full", **{"Retry-After": "3600"})]
    with pytest.raises(rs.ClientQueueFull) as caught:
        client(scripted).models()
    assert caught.value.retry_after == 3600
    assert delays == []


def test_other_errors_are_not_retried(scripted: Scripted, delays: list[float]) -> None:
    scripted.script = [(500, problem(500, "internal_error"), {"x-request-id": "abc"})]
    with pytest.raises(rs.InternalError) as caught:
        client(scripted).models()
    assert len(scripted.seen) == 1
    assert caught.value.request_id == "abc"
    assert caught.value.request == "GET /v1/models"


def test_a_dropped_connection_is_retried_for_a_get(scripted: Scripted, delays: list[float]) -> None:
    scripted.script = [DROP, CUT, OK]
    assert client(scripted).models() == []
    assert len(scripted.seen) == 3


def test_a_run_is_posted_again_with_the_same_key(scripted: Scripted, delays: list[float]) -> None:
    scripted.script = [DROP, CUT, (202, RUN, {})]
    run = client(scripted).post_run({"model": "m", "input": "x"})
    assert run.id == "r"
    keys = {seen.headers["idempotency-key"] for seen in scripted.seen}
    assert len(scripted.seen) == 3
    assert len(keys) == 1
    assert len({seen.body for seen in scripted.seen}) == 1


def test_a_post_that_changes_something_is_not_sent_twice(scripted: Scripted, delays: list[float]) -> None:
    scripted.script = [DROP, (201, {}, {})]
    with pytest.raises(rs.ConnectionFailed):
        client(scripted).transport.json("POST", "/v1/directions", json={})
    assert len(scripted.seen) == 1


def test_what_timed_out_on_the_server_is_not_done_twice(scripted: Scripted, delays: list[float]) -> None:
    scripted.script = [full(503, "timed_out"), (201, {}, {})]
    with pytest.raises(rs.TimedOut):
        client(scripted).transport.json("POST", "/v1/directions", json={})
    assert len(scripted.seen) == 1


def test_a_server_that_was_there_may_be_away_for_a_while(scripted: Scripted, delays: list[float]) -> None:
    scripted.script = [OK]
    c = client(scripted, reconnect=0.0)
    c.models()
    scripted.__exit__()
    with pytest.raises(rs.ServerUnreachable):
        c.models()
    assert delays == []
    patient = client(scripted, reconnect=0.05)
    patient.transport._was_reached = True
    with pytest.raises(rs.ServerUnreachable):
        patient.models()
    assert len(delays) >= 2


def test_a_server_that_was_never_there_is_an_error_at_once(delays: list[float]) -> None:
    with pytest.raises(rs.ServerUnreachable) as caught:
        rs.Client("http://127.0.0.1:9").models()
    assert delays == []
    assert "residuum serve --model" in str(caught.value)
    assert "http://127.0.0.1:9" in str(caught.value)
    assert isinstance(caught.value, ConnectionError)


def test_a_timeout_is_named(scripted: Scripted) -> None:
    def slow(request: httpx.Request) -> httpx.Response:
        raise httpx.ReadTimeout("too slow", request=request)

    with pytest.raises(rs.AnswerTimedOut) as caught:
        rs.Client("http://x", transport=httpx.MockTransport(slow)).models()
    assert isinstance(caught.value, TimeoutError)


def test_the_key_is_sent_and_not_shown(scripted: Scripted, monkeypatch: pytest.MonkeyPatch) -> None:
    scripted.script = [OK]
    c = client(scripted, api_key="secret-key")
    c.models()
    assert scripted.seen[0].headers["authorization"] == "Bearer secret-key"
    assert "secret-key" not in repr(c) + repr(c.config)
    monkeypatch.setenv("RESIDUUM_API_KEY", "from-env")
    monkeypatch.setenv("RESIDUUM_URL", scripted.url + "/")
    rs.Client().models()
    assert scripted.seen[1].headers["authorization"] == "Bearer from-env"
    rs.Client(api_key="").models()
    assert "authorization" not in scripted.seen[2].headers


def test_an_answer_of_something_else_is_told(scripted: Scripted) -> None:
    scripted.script = [(502, b"<html>bad gateway</html>", {}), (200, b"<html>hello</html>", {})]
    with pytest.raises(rs.ServerError, match=r"not one of a Residuum server.*bad gateway") as caught:
        client(scripted).models()
    assert caught.value.status == 502
    with pytest.raises(rs.UnexpectedAnswer, match="not JSON"):
        client(scripted).models()


def test_ids_with_slashes_stay_one_segment(scripted: Scripted) -> None:
    scripted.script = [(200, {"id": "a/b c", "status": "ready"}, {})]
    client(scripted).model("a/b c")
    assert scripted.seen[0].path == "/v1/models/a%2Fb%20c"


def test_a_body_with_nan_is_refused_here(scripted: Scripted) -> None:
    with pytest.raises(ValueError, match="NaN"):
        client(scripted).post_run({"model": "m", "metadata": {"x": float("nan")}})
    assert scripted.seen == []


def test_pages_are_fetched_as_needed_and_stop_at_the_limit(scripted: Scripted) -> None:
    pages = [
        {"items": [RUN, RUN], "next_cursor": "a"},
        {"items": [], "next_cursor": "b"},
        {"items": [RUN], "next_cursor": None},
    ]
    scripted.script = [(200, page, {}) for page in pages]
    assert len(client(scripted).runs(tag=["x", "y"]).all()) == 3
    assert scripted.seen[0].path == "/v1/runs?tag=x&tag=y&limit=200"
    assert "cursor=b" in scripted.seen[2].path
    scripted.seen.clear()
    scripted.script = [(200, pages[0], {})]
    assert len(client(scripted).runs(limit=2).all()) == 2
    assert len(scripted.seen) == 1
    assert client(scripted).runs(limit=0).all() == []


def test_an_interrupt_while_waiting_cancels_the_run(scripted: Scripted, monkeypatch: pytest.MonkeyPatch) -> None:
    scripted.script = [(202, RUN, {}), (200, {**RUN, "status": "cancelled"}, {})]
    c = client(scripted)
    monkeypatch.setattr(rs.Run, "refresh", lambda *a, **k: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        c.compute({"model": "m", "input": "x"})
    assert [seen.path for seen in scripted.seen] == ["/v1/runs", "/v1/runs/r/cancel"]


def test_a_failed_run_is_raised_with_its_problem(scripted: Scripted) -> None:
    failed = {**RUN, "status": "failed", "error": problem(500, "worker_failed", "it crashed")}
    scripted.script = [(202, failed, {})]
    with pytest.raises(rs.RunFailed, match=r"run r failed: it crashed \[worker_failed\]") as caught:
        client(scripted).compute({"model": "m", "input": "x"})
    assert isinstance(caught.value.problem, rs.WorkerFailed)


def test_json_bodies_take_arrays_models_and_times() -> None:
    import numpy as np
    from pydantic import BaseModel

    from residuum._core.wire import encode

    class Part(BaseModel):
        a: int
        b: int | None = None

    body = {"x": np.arange(2), "y": np.float32(0.5), "z": Part(a=1), "s": {"b", "a"}, "r": range(2)}
    assert json.loads(encode(body)) == {"x": [0, 1], "y": 0.5, "z": {"a": 1}, "s": ["a", "b"], "r": [0, 1]}
    with pytest.raises(TypeError, match="no JSON form"):
        encode({"x": object()})
    with pytest.raises(ValueError, match="surrogate"):
        encode({"x": "\ud800"})


def test_deletion_by_conditions_and_several_tokenizations(scripted: Scripted) -> None:
    scripted.script = [(200, {"deleted": 3, "kept_pinned": 1}, {})]
    done = client(scripted).delete_caches(tag=["a", "b"], metadata={"split": "train"}, pinned=False)
    assert done == (3, 1)
    assert done.kept_pinned == 1
    assert scripted.seen[0].method == "DELETE"
    assert scripted.seen[0].path == "/v1/caches?tag=a&tag=b&pinned=false&metadata.split=%22train%22"
    with pytest.raises(rs.FilterMissing):
        client(scripted).delete_caches()
    assert len(scripted.seen) == 1
    tokens = {"token_ids": [1], "tokens": ["a"], "special": [False], "bos": {}, "n_tokens": 1}
    scripted.script = [(200, {"id": "m", "status": "ready", "n_layers": 1}, {}), (200, {"items": [tokens, tokens]}, {})]
    assert [len(t) for t in client(scripted).model("m").tokenize(["a", "b"])] == [1, 1]
    assert json.loads(scripted.seen[-1].body) == {"model": "m", "input": ["a", "b"]}
