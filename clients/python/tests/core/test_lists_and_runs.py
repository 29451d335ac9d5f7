"""Editing, saving, listing and deleting caches; runs, and how they end; against the real server."""

from __future__ import annotations

import time
from datetime import datetime, timedelta, timezone
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
from places import EIFFEL, NAME

import residuum as rs


def test_editing(client: rs.Client, model: rs.Model) -> None:
    cache = model.run_with_cache("To edit", layers=1, tags=["edit"], metadata={"a": 1, "b": {"c": 2}})[1]
    assert (cache.tags, cache.metadata) == (["edit"], {"a": 1, "b": {"c": 2}})
    cache.update(label="mine", metadata={"a": None, "d": 3}).tag("more", "edit").pin()
    again = client.cache(cache.id)
    assert (again.label, sorted(again.tags), again.pinned) == ("mine", ["edit", "more"], True)
    assert again.metadata == {"b": {"c": 2}, "d": 3}
    again.untag("edit").unpin()
    soon = datetime.now(timezone.utc) + timedelta(hours=1)
    again.update(label=None, expires_at=soon)
    assert cache.refresh().label is None
    assert cache.tags == ["more"]
    assert cache.expires_at is not None
    assert abs(cache.expires_at - soon) < timedelta(seconds=1)
    assert cache.update(expires_at=None).expires_at is None
    assert cache == again
    assert cache.created_at > datetime.now(timezone.utc) - timedelta(minutes=5)
    cache.delete()
    with pytest.raises(rs.CacheNotFound):
        again.refresh()


def test_saving(model: rs.Model, tmp_path: Path) -> None:
    cache = model.run_with_cache(EIFFEL, hooks=["resid_post", "k"], layers=[1, 2])[1]
    file = tmp_path / "x.safetensors"
    file.write_bytes(b"old")
    cache.save(file)
    arrays = safetensors.numpy.load_file(file)
    assert arrays.pop("token_ids").tolist() == cache.token_ids.tolist()
    assert set(arrays) == set(cache)
    for name, array in arrays.items():
        np.testing.assert_array_equal(array, cache[name])
    assert list(tmp_path.iterdir()) == [file]


def test_listing_and_filters(client: rs.Client, model: rs.Model) -> None:
    caches = model.run_with_cache(
        [{"text": f"Listing number {n}", "metadata": {"n": n, "in": {"x": "y"}}, "label": f"l{n}"} for n in range(5)],
        layers=1,
        tags=["listing"],
    )[1]
    found = client.caches(tag="listing")
    assert [c.label for c in found] == ["l4", "l3", "l2", "l1", "l0"]
    assert found.count() == 5
    assert len(client.caches(tag="listing", limit=2).all()) == 2
    assert [c.label for c in client.caches(tag=["listing"], metadata={"n": 3})] == ["l3"]
    assert client.caches(tag="listing", metadata={"in.x": "y"}).count() == 5
    first = client.caches(run=caches[0].run_id, label="l0").first()
    assert first == caches[0]
    assert client.caches(tag="no such tag").first() is None
    assert client.caches(text='"listing number 2"', model=model).first() == caches[2]
    assert client.caches(tag="listing", hook="blocks.1.hook_resid_post", created_from=caches[0].created_at).count() >= 1
    with pytest.raises(TypeError, match="no condition 'colour'"):
        client.caches(colour="red")
    run = caches[0].run()
    assert (run.status, run.n_items, run.n_done, run.tags) == ("completed", 5, 5, ["listing"])
    assert [c.id for c in run.caches()] == [c.id for c in caches]
    assert run.cache(-1) == caches[4]
    with pytest.raises(IndexError):
        run.cache(5)
    assert run in client.runs(tag="listing").all()
    assert client.run(run.id).info.n_items == 5
    frame = client.caches(tag="listing").frame() if pytest.importorskip("pandas") else None
    assert list(frame["label"]) == ["l4", "l3", "l2", "l1", "l0"]


def test_a_run_without_waiting(model: rs.Model) -> None:
    run = model.run("Without waiting", layers=2, tags=["later"], ttl=3600)
    run.wait(timeout=60)
    assert run.ended
    assert run.status == "completed"
    assert run.cache().expires_at is not None
    events = list(run.events())
    assert events[-1].name == "run"
    assert events[-1].data["status"] == "completed"
    run.delete()
    with pytest.raises(rs.RunNotFound):
        run.refresh()


def test_cancelling_stops_the_computation(client: rs.Client, model: rs.Model) -> None:
    run = model.run([f"Number {n} " + "word " * 200 for n in range(300)], layers=1, reuse=False)
    with pytest.raises(rs.AnswerTimedOut):
        run.wait(timeout=0.2)
    run.cancel()
    assert run.status == "cancelled"
    done = run.n_done
    assert done < 300
    time.sleep(0.5)
    assert run.refresh().n_done == done
    with pytest.raises(rs.RunFailed, match="cancelled"):
        run.check()


def test_dry_run(client: rs.Client) -> None:
    plan = client.dry_run({"model": NAME, "input": "Hello", "capture": {"layers": [0]}})
    assert plan["n_items"] == 1
    assert plan["n_bytes"] == 576 * 4


@pytest.fixture(scope="module")
def newer(client: rs.Client) -> None:
    """For what servers before `deleteCaches` lack."""
    if "deleteCaches" not in client.transport.request("GET", "/openapi.json").text:
        pytest.skip("this server is older")


@pytest.mark.usefixtures("newer")
def test_several_inputs_are_tokenized_at_once(model: rs.Model) -> None:
    both = model.tokenize(["The Eiffel", "Tower"])
    assert [t.tokens for t in both] == [["The", " E", "iffel"], ["T", "ower"]]
    assert [t.tokens for t in model.tokenize(["The"])] == [["The"]]
    assert [len(t) for t in model.tokenize([[504, 414], [504]])] == [2, 1]
    with pytest.raises(TypeError, match="texts only"):
        model.tokenize(["a", [504]])


@pytest.mark.usefixtures("newer")
def test_order_and_deletion_by_conditions(client: rs.Client, model: rs.Model) -> None:
    items = [{"text": f"Deletion {n}", "label": str(n), "metadata": {"even": n % 2 == 0}} for n in range(6)]
    caches = model.run_with_cache(items, layers=1, tags=["deletion"])[1]
    assert [c.label for c in client.caches(tag="deletion", order="asc")] == list("012345")
    assert [c.label for c in client.caches(tag="deletion", order="desc", limit=2)] == ["5", "4"]
    in_order = client.matrix(layer=1, position="last", tag="deletion")
    assert in_order[1].tolist() == list("012345")
    assert client.matrix(layer=1, position="last", tag="deletion", order="desc")[1].tolist() == list("543210")
    shuffled = [client.matrix(layer=1, position="last", tag="deletion", shuffle=s)[1].tolist() for s in (1, 1, 2)]
    assert shuffled[0] == shuffled[1]
    assert sorted(shuffled[2]) == list("012345")
    caches[0].pin()
    with pytest.raises(rs.FilterMissing):
        client.delete_caches()
    assert client.delete_caches(tag="deletion", metadata={"even": True}) == (2, 1)
    assert [c.label for c in client.caches(tag="deletion", order="asc")] == list("0135")
    assert client.delete_caches(tag="deletion", pinned=True).deleted == 1
    assert client.delete_caches(tag="deletion").deleted == 3


@pytest.mark.usefixtures("newer")
def test_top_tokens(model: rs.Model) -> None:
    run = model.run(EIFFEL, hooks="logits").wait()
    (top,) = run.top_tokens(3)
    logits = run.cache()["logits"]
    assert [t["id"] for t in top["tokens"]] == np.argsort(-logits)[:3].tolist()
