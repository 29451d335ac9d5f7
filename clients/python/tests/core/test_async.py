"""The async client does the same as the sync one."""

from __future__ import annotations

import asyncio
import inspect

import numpy as np
import pytest
from places import EIFFEL, NAME

import residuum as rs


def test_everything_once(client: rs.LocalServer, model: rs.Model) -> None:
    reference = model.run_with_cache(EIFFEL, hooks=["resid_post", "z"])[1]

    async def main() -> None:
        async with rs.AsyncClient(client.url, progress=False) as c:
            m = await c.model(NAME)
            assert [x.id for x in await c.models()] == [NAME]
            assert (await m.tokenize("The")).tokens == ["The"]
            logits, cache = await m.run_with_cache(EIFFEL, hooks=["resid_post", "z"])
            with pytest.raises(rs.NotLoaded, match=r"await cache\.get"):
                cache["resid_post", 3]
            with pytest.raises(rs.NotLoaded):
                np.asarray(logits)
            np.testing.assert_array_equal(await cache.get("resid_post", 3), reference["resid_post", 3])
            np.testing.assert_array_equal(cache["resid_post", 3], reference["resid_post", 3])
            a, b = await asyncio.gather(cache.get("z", 1), cache.get(("z", 2)))
            np.testing.assert_array_equal(np.stack([a, b]), reference.stack("z", layers=[1, 2]))
            await cache.load()
            np.testing.assert_array_equal(cache["z", 29], reference["z", 29])
            np.testing.assert_array_equal(await logits.at(-1), reference.logits[-1])
            np.testing.assert_array_equal(await logits, reference.logits.numpy())
            np.testing.assert_array_equal(np.asarray(logits), reference.logits.numpy())
            capture = await m.capture([f"Async {i}" for i in range(9)], layers=2, chunk_size=4, label=range(9))
            X, y = await capture.matrix(layer=2)
            assert X.shape == (9, 576)
            assert y is not None
            assert y.tolist() == list(range(9))
            assert [x.text async for x in capture.caches()] == [f"Async {i}" for i in range(9)]
            found = await c.caches(limit=3).all()
            assert len(found) == 3
            many = await asyncio.gather(*(m.run_with_cache(f"At once {i}", layers=1) for i in range(8)))
            assert [cache.text for _, cache in many] == [f"At once {i}" for i in range(8)]

    asyncio.run(main())


def test_cancelling_a_task_cancels_its_run(client: rs.LocalServer) -> None:
    async def main() -> None:
        async with rs.AsyncClient(client.url, progress=False) as c:
            m = await c.model(NAME)
            texts = [f"Long {n} " + "word " * 200 for n in range(200)]
            task = asyncio.create_task(m.run_with_cache(texts, layers=1, reuse=False, tags=["to-cancel"]))
            # as early as can be: the run is in the store before the task has the answer with its id
            while await c.runs(tag="to-cancel").first() is None:
                await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            run = await c.runs(tag="to-cancel").first()
            assert run is not None
            assert (await run.wait(timeout=30)).status == "cancelled"

    asyncio.run(main())


@pytest.mark.parametrize(
    ("asynchronous", "synchronous"),
    [
        (rs.AsyncClient, rs.Client),
        (rs.AsyncModel, rs.Model),
        (rs.AsyncCache, rs.Cache),
        (rs.AsyncRun, rs.Run),
        (rs.AsyncCapture, rs.Capture),
    ],
)
def test_both_have_the_same_methods(asynchronous: type, synchronous: type) -> None:
    def public(kind: type) -> dict[str, list[str]]:
        renamed = {"aclose": "close"}
        return {
            renamed.get(name, name): list(inspect.signature(value).parameters)
            for name, value in inspect.getmembers(kind, callable)
            if not name.startswith("_")
        }

    extra = {"items", "values"}  # of the sync cache, which fetches when touched
    assert public(asynchronous) == {n: p for n, p in public(synchronous).items() if n not in extra}
