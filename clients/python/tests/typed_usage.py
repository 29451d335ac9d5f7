"""What type checkers have to understand. mypy and pyright read this file; nothing runs it."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from typing_extensions import assert_type

import residuum as rs
from residuum._async.access import AsyncLogits
from residuum._sync.access import Logits

Array = NDArray[Any]


def sync(texts: list[str], ids: NDArray[np.int64]) -> None:
    with rs.serve({"m": "path"}) as server:
        assert_type(server, rs.LocalServer)
    with rs.Client() as c:
        m = c.model("m")
        assert_type(m, rs.Model)
        assert_type(m.n_layers, int)
        assert_type(m.tokenize("x"), rs.Tokenized)
        assert_type(m.tokenize(texts), list[rs.Tokenized])
        logits, cache = m.run_with_cache(
            "x", hooks=["k", ("q", 3)], layers=range(3), positions="all", names_filter=None
        )
        assert_type(cache, rs.Cache)
        assert_type(logits, Logits)
        assert_type(m.run_with_cache(texts, add_generation_prompt=True), tuple[list[Logits], list[rs.Cache]])
        m.run_with_cache(ids)
        m.run_with_cache([{"role": "user", "content": "x"}], continue_final_message=True)
        assert_type(cache["resid_post", 3], Array)
        assert_type(cache.get("k", 3), Array)
        assert_type(cache.layer(3), Array)
        assert_type(cache.stack("k"), Array)
        assert_type(cache.token_ids, NDArray[np.int64])
        assert_type(cache.info.d_model, int)
        for found in c.caches(tag="x"):
            assert_type(found, rs.Cache)
        assert_type(c.caches().first(), rs.Cache | None)
        assert_type(c.runs().all(), list[rs.Run])
        capture = m.capture(texts, label=[1, 2], hooks="resid_post")
        assert_type(capture, rs.Capture)
        assert_type(capture.wait(), rs.Capture)
        X, y = capture.matrix("resid_post", layer=3)
        assert_type(X, Array)
        assert_type(y, Array | None)
        assert_type(m.generate("x", max_new_tokens=3), rs.Generation)
        assert_type(m.generate(texts, temperature=1), list[rs.Generation])
        assert_type(m.generate("x", stream=True), rs.TokenStream)
        assert_type([t.text for t in m.generate(texts, stream=True, n=2)], list[str])
        with m.steer("joy", layers=[3], strength=2) as s:
            assert_type(s, rs.SteeredModel)
            s.run_with_cache("x")
        assert_type(m.patching("a", "b", answer=1, sweep={"positions": "each"}).values, Array)
        assert_type(cache.logit_lens(layers=[1], tokens=" Paris").probability, Array)
        assert_type(cache.logit_attribution(3).parts, list[rs.Part])
        assert_type(c.directions.fit("x", positive=capture, negative=["id"]), rs.Direction)
        assert_type(c.compare(cache, cache)["cosine"], Array)
        try:
            c.cache("x")
        except rs.CacheNotFound as e:
            assert_type(e.errors, list[rs.FieldError])
            assert_type(e.code, str)


async def asynchronous(texts: list[str]) -> None:
    async with rs.AsyncClient() as c:
        m = await c.model("m")
        assert_type(m, rs.AsyncModel)
        logits, cache = await m.run_with_cache("x")
        assert_type(cache, rs.AsyncCache)
        assert_type(logits, AsyncLogits)
        assert_type(await logits, Array)
        assert_type(await cache.get("k", 3), Array)
        assert_type(await m.capture(texts), rs.AsyncCapture)
        assert_type(await m.generate("x"), rs.AsyncGeneration)
        assert_type([t.text async for t in await m.generate("x", stream=True)], list[str])
        assert_type((await cache.logit_lens()).kl, Array)
        assert_type([d.name async for d in c.directions.list()], list[str])
        async for found in c.caches():
            assert_type(found, rs.AsyncCache)
