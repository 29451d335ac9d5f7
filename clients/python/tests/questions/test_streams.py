"""Streams whose connection breaks, and the async client."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import httpx
import numpy as np
import pytest
from question_texts import CLEAN, CORRUPT, EIFFEL

import residuum as rs
from residuum._core.events import EventParser

TOKENS = ["A", "B", "C", "D", "E"]
CACHE = {
    "id": "cache",
    "run": "run",
    "item_index": 0,
    "model": "m",
    "text": "x",
    "tokens": ["x", *TOKENS],
    "token_ids": [0, 1, 2, 3, 4, 5],
    "n_tokens": 6,
    "hooks": [],
    "n_layers": 1,
    "completion": {
        "text": "ABCDE",
        "token_ids": [1, 2, 3, 4, 5],
        "first_position": 1,
        "finish_reason": "length",
        "logprobs": [-0.1] * 5,
        "sample": 0,
        "n": 1,
        "seed": 1,
        "temperature": 0.0,
    },
}


def run(status: str) -> dict[str, Any]:
    n = int(status == "completed")
    return {
        "id": "run",
        "status": status,
        "model": "m",
        "n_items": 1,
        "n_done": n,
        "n_reused": 0,
        "n_failed": 0,
        "caches": [],
    }


def token(i: int) -> str:
    data = {
        "item": 0,
        "index": 0,
        "sample": 0,
        "position": 1 + i,
        "token_id": 1 + i,
        "token": TOKENS[i],
        "text": TOKENS[i],
    }
    return f"event: token\nid: {i + 1}\ndata: {json.dumps(data)}\n\n"


class Broken(httpx.SyncByteStream):
    """A body that breaks off after its text."""

    def __init__(self, text: str) -> None:
        self.text = text

    def __iter__(self) -> Iterator[bytes]:
        yield self.text.encode()
        raise httpx.ReadError("connection reset")


class Server:
    """Answers with scripted event streams, one for each connection."""

    def __init__(self, streams: list[str | Broken], ends_as: str = "completed") -> None:
        self.streams, self.ends_as = streams, ends_as
        self.last_ids: list[str | None] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        place = request.url.path
        if place.endswith("/events"):
            self.last_ids.append(request.headers.get("last-event-id"))
            stream = self.streams.pop(0)
            headers = {"content-type": "text/event-stream"}
            if isinstance(stream, Broken):
                return httpx.Response(200, stream=stream, headers=headers)
            return httpx.Response(200, text=stream, headers=headers)
        if place.endswith("/caches"):
            return httpx.Response(200, json={"items": [CACHE], "next_cursor": None})
        if request.method == "POST":
            return httpx.Response(202, json=run("running"))
        if "models" in place:
            return httpx.Response(200, json={"id": "m", "status": "ready", "n_layers": 1, "hooks": []})
        return httpx.Response(200, json=run(self.ends_as))


def stream_of(server: Server) -> rs.TokenStream:
    client = rs.Client("http://x", transport=httpx.MockTransport(server), reconnect=5)
    return client.model("m").generate("x", max_new_tokens=5, stream=True, hooks=[])


def final(status: str = "completed") -> str:
    return f"event: run\ndata: {json.dumps(run(status))}\n\n"


def test_a_broken_connection_is_made_again_where_it_stopped() -> None:
    first = Broken(f"event: run\ndata: {json.dumps(run('running'))}\n\n" + token(0) + token(1))
    server = Server([first, Broken(token(2)), token(3) + token(4) + final()])
    stream = stream_of(server)
    assert "".join(t.text for t in stream) == "ABCDE"
    assert server.last_ids == [None, "2", "3"]
    assert stream.result().text == "ABCDE"


def test_an_event_cut_in_the_middle_is_not_taken() -> None:
    server = Server([Broken(token(0) + token(1)[:-10]), token(1) + token(2) + token(3) + token(4) + final()])
    assert [t.token for t in stream_of(server)] == TOKENS
    assert server.last_ids == [None, "1"]


def test_what_was_missed_when_the_run_has_ended_comes_from_its_cache() -> None:
    server = Server([Broken(token(0) + token(1)), final()])
    stream = stream_of(server)
    found = list(stream)
    assert [t.token for t in found] == TOKENS
    assert "".join(t.text for t in found) == "ABCDE"
    assert [t.position for t in found] == [1, 2, 3, 4, 5]
    assert [t.logprob for t in found[2:]] == [-0.1] * 3


def test_a_failed_run_is_an_error_after_its_tokens() -> None:
    stream = stream_of(Server([token(0) + final("failed")], ends_as="failed"))
    assert next(stream).text == "A"
    with pytest.raises(rs.RunFailed):
        list(stream)


def test_a_sweep_whose_connection_breaks_begins_again() -> None:
    result = {
        "model": "m",
        "op": "zero",
        "hook": "mlp_out",
        "metric": "logit",
        "answer": {"id": 1, "token": "A"},
        "position": 0,
        "clean_tokens": ["x"],
        "axes": ["layer"],
        "layers": [0],
        "values": [1.5],
        "effect": [0.5],
        "clean": 1.0,
        "n_cells": 1,
    }
    progress = 'event: progress\ndata: {"queue_position": null, "done": 0, "total": 1}\n\n'
    whole = progress + f"event: result\ndata: {json.dumps(result)}\n\n"
    answers: list[str | Broken] = [Broken(progress), whole]

    def answer(request: httpx.Request) -> httpx.Response:
        if request.method == "GET":
            return httpx.Response(200, json={"id": "m", "status": "ready", "n_layers": 1, "hooks": []})
        stream = answers.pop(0)
        headers = {"content-type": "text/event-stream"}
        if isinstance(stream, Broken):
            return httpx.Response(200, stream=stream, headers=headers)
        return httpx.Response(200, text=stream, headers=headers)

    with rs.Client("http://x", transport=httpx.MockTransport(answer)) as client:
        found = client.model("m").patching("x", answer=1, sweep={"op": "zero", "hook": "mlp_out"})
        assert found.effect.tolist() == [0.5]
        assert not answers
        answers += [Broken(progress)] * 3
        with pytest.raises(rs.ConnectionFailed):
            client.model("m").patching("x", answer=1, sweep={"op": "zero", "hook": "mlp_out"})


def test_event_lines() -> None:
    parser = EventParser()
    lines = [": comment", "event: a", "data: [1,", "data: 2]", "id: 7", "", "data:3", "", "event: x", ""]
    events = [e for e in map(parser.line, lines) if e]
    assert [(e.name, e.data, e.id) for e in events] == [("a", [1, 2], "7"), ("message", 3, None)]
    assert parser.last_id == "7"


def test_the_async_client(client: rs.Client) -> None:
    async def work() -> None:
        async with rs.AsyncClient(client.url, progress=False) as c:
            m = await c.model("smollm2")
            found = await m.generate(EIFFEL, max_new_tokens=3)
            assert isinstance(found, rs.AsyncGeneration)
            texts = [t.text async for t in await m.generate(EIFFEL, max_new_tokens=3, stream=True, hooks=[])]
            assert "".join(texts) == found.text
            async with await m.generate("Once", max_new_tokens=300, stream=True) as stream:
                async for _ in stream:
                    break
            assert (await stream.run.refresh()).status == "cancelled"
            lens = await found.cache.logit_lens(layers=[29], tokens=[" Paris"])
            assert lens.probability.shape == (1, 12, 1)
            direction = await c.directions.upload("async", np.ones(576), layers=3, replace=True)
            assert (await direction.vector(3)).sum() == 576
            with m.steer(direction, strength=1) as steered:
                _, changed = await steered.run_with_cache("Hello", layers=3)
            _, plain = await m.run_with_cache("Hello", layers=3)
            difference = await changed.layer(3) - await plain.layer(3)
            np.testing.assert_allclose(difference, np.ones((1, 576)), atol=1e-3)
            sweep = await m.patching(CLEAN, CORRUPT, answer=" Mary", sweep={"layers": [20]})
            assert sweep.values.shape == (1,)
            hits = await c.search(found.cache, layer=29, k=1, exclude_self=True)
            assert len(hits) == 1
            both = await asyncio.gather(c.compare(found.cache, changed, layers=3), c.statistics(plain, layers=3))
            assert both[0].array.shape == (1, 1)
            assert [d.name async for d in c.directions.list(limit=1)] == ["async"]

    asyncio.run(work())
