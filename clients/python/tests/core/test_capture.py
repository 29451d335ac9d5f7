"""Capturing data sets: shapes, order, failures, resuming, and a server that crashes in the middle."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import numpy as np
import pytest
from places import NAME

import residuum as rs


def sentences(n: int, what: str = "cats") -> list[str]:
    return [f"Sentence {i} is about {what} and the number {i * i}." for i in range(n)]


def test_rows_are_in_the_order_of_the_inputs_and_equal_single_runs(model: rs.Model) -> None:
    texts = sentences(25)
    labels = [i % 3 for i in range(25)]
    capture = model.capture(texts, label=labels, layers=[3, 12], chunk_size=7, max_in_flight=2, tags=["order"])
    X, y = capture.matrix("resid_post", layer=12)
    assert X.shape == (25, 576)
    assert not X.flags.writeable
    assert y is not None
    assert y.tolist() == labels
    assert len(capture.runs) == 4
    assert capture.ended
    assert capture.failed == []
    assert capture.index.tolist() == list(range(25))
    for i in (0, 6, 7, 24):
        single = model.run_with_cache(texts[i], layers=12, positions="last")[1]
        np.testing.assert_array_equal(X[i], single["resid_post", 12])
    assert [c.text for c in capture.caches()] == texts
    assert [c.label for c in capture.caches()] == [str(label) for label in labels]
    by_name, _ = capture.matrix("blocks.12.hook_resid_post")
    np.testing.assert_array_equal(by_name, X)
    with pytest.raises(rs.TensorError, match=r"several layers, \[3, 12\]"):
        capture.matrix()
    with pytest.raises(ValueError, match="names layer 12"):
        capture.matrix("blocks.12.hook_resid_post", layer=3)


def test_failed_inputs_are_left_out_of_both(model: rs.Model) -> None:
    texts: list[object] = list(sentences(12, "dogs"))
    texts[3], texts[7], texts[8], texts[11] = "", None, 3.5, "word " * 9000
    capture = model.capture(texts, label=[f"l{i}" for i in range(12)], layers=1, chunk_size=5).wait()
    failed = {f.index: f.code for f in capture.failed}
    assert failed == {3: "empty_input", 7: "invalid_input", 8: "invalid_input", 11: "too_many_tokens"}
    assert "missing" in next(f.detail for f in capture.failed if f.index == 7)
    X, y = capture.matrix(layer=1)
    assert y is not None
    kept = [i for i in range(12) if i not in failed]
    assert capture.index.tolist() == kept
    assert y.tolist() == [f"l{i}" for i in kept]
    assert len(X) == len(kept) == capture.n_done
    assert capture.n_failed == 4
    assert "4 failed" in repr(capture)
    assert "too_many_tokens" in capture._repr_html_()


def test_nothing_but_failures(model: rs.Model) -> None:
    capture = model.capture(["", ""], layers=1).wait()
    assert (capture.n_done, capture.n_failed, capture.index.tolist()) == (0, 2, [])
    with pytest.raises(rs.TensorError, match="no input has a cache"):
        capture.matrix(layer=1)
    empty = model.capture([], layers=1).wait()
    assert (empty.n_inputs, empty.ended, empty.runs) == (0, True, [])


def test_all_positions_give_several_rows(model: rs.Model) -> None:
    texts = ["One two three four", "Five", "Six seven"]
    capture = model.capture(texts, label=["a", "b", "c"], layers=2, positions="all", chunk_size=2)
    rows = capture.rows(layer=2)
    lengths = [len(model.tokenize(t)) for t in texts]
    assert rows.index.tolist() == [i for i, n in enumerate(lengths) for _ in range(n)]
    assert rows.position.tolist() == [p for n in lengths for p in range(n)]
    assert rows.token_id.tolist() == [int(t) for text in texts for t in model.tokenize(text).token_ids]
    assert rows.y is not None
    assert rows.y.tolist() == ["abc"[i] for i in rows.index]
    caches = list(capture.caches())
    np.testing.assert_array_equal(rows.X, np.concatenate([c["resid_post", 2] for c in caches]))
    X, _ = capture.matrix(layer=2, position="last")
    np.testing.assert_array_equal(X, np.stack([c["resid_post", 2][-1] for c in caches]))
    first, _ = capture.matrix(layer=2, position=0)
    np.testing.assert_array_equal(first, np.stack([c["resid_post", 2][0] for c in caches]))


def test_the_same_call_finds_what_is_there(client: rs.LocalServer, model: rs.Model) -> None:
    texts = sentences(20, "birds")
    first = model.capture(texts, layers=4, chunk_size=6).wait()
    second = rs.Client(client.url).model(NAME).capture(iter(texts), layers=4, chunk_size=6).wait()
    assert [r.id for r in second.runs] == [r.id for r in first.runs]
    assert second.n_reused == 20
    more = model.capture([*texts, "And one more."], layers=4, chunk_size=6).wait()
    assert [r.id for r in more.runs[:3]] == [r.id for r in first.runs[:3]]
    assert (more.n_done, more.n_reused) == (21, 20)
    other = model.capture(texts, layers=4, chunk_size=6, tags=["other"]).wait()
    assert other.n_reused == 20  # other runs, the same activations
    assert not {r.id for r in other.runs} & {r.id for r in first.runs}


def test_what_was_deleted_or_cancelled_is_made_again(model: rs.Model) -> None:
    texts = sentences(12, "fish")
    first = model.capture(texts, layers=4, chunk_size=4).wait()
    first.runs[0].delete()
    next(iter(first.runs[1].caches())).delete()
    again = model.capture(texts, layers=4, chunk_size=4).wait()
    assert again.n_done == 12
    assert [r.id in {x.id for x in first.runs} for r in again.runs] == [False, False, True]
    assert len(again.matrix(layer=4)[0]) == 12
    long = [f"{n} " + "very " * 300 + "long" for n in range(40)]
    stopped = model.capture(long, layers=4, chunk_size=20)
    stopped.cancel()
    assert stopped.ended
    assert {r.status for r in stopped.runs} == {"cancelled"}
    assert stopped.n_done + stopped.n_failed == 40
    assert {f.code for f in stopped.failed} == {"cancelled"}
    resumed = model.capture(long, layers=4, chunk_size=20).wait()
    assert (resumed.n_done, resumed.n_failed) == (40, 0)
    resumed.delete()
    with pytest.raises(rs.RunNotFound):
        resumed.runs[0].refresh()


def test_a_run_that_vanishes_is_posted_again(model: rs.Model) -> None:
    capture = model.capture(sentences(8, "owls"), layers=4, chunk_size=4, reuse=False)
    capture._in_flight[0][1].wait()
    capture._in_flight[0][1].delete()
    X, _ = capture.matrix(layer=4)
    assert len(X) == 8
    assert capture.index.tolist() == list(range(8))


def test_cancelling_and_deleting_what_vanished(model: rs.Model) -> None:
    capture = model.capture(sentences(8, "newts"), layers=4, chunk_size=4, reuse=False)
    capture._in_flight[0][1].wait().delete()
    capture.cancel()
    assert capture.ended
    capture.delete()
    capture.delete()
    assert model.capture(sentences(8, "newts"), layers=4, chunk_size=4, reuse=False).wait().n_done == 8


def test_a_run_that_always_fails_is_not_looked_for_endlessly(model: rs.Model, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("residuum._sync.capture.MAX_ATTEMPTS", 2)
    for _ in range(4):
        capture = model.capture(sentences(3, "voles"), layers=4)
        capture.cancel()
        capture.delete()
        model.capture(sentences(3, "voles"), layers=4).cancel()
    assert model.capture(sentences(3, "voles"), layers=4).wait().n_done == 3


def test_a_refused_capture_is_an_error_at_once(model: rs.Model) -> None:
    with pytest.raises(rs.LayerOutOfRange):
        model.capture(["a"], layers=99)
    with pytest.raises(TypeError, match="put the one text into a list"):
        model.capture("a")
    with pytest.raises(ValueError, match="chunk_size"):
        model.capture(["a"], chunk_size=0)


def test_too_large_chunks_are_halved(model_file: Path) -> None:
    with rs.serve({NAME: model_file}, arguments=["--max-run-items", "5"], progress=False) as c:
        capture = c.model().capture(sentences(18, "ants"), layers=1, chunk_size=16).wait()
        assert capture.n_done == 18
        assert all(run.n_items <= 5 for run in capture.runs)
        assert [c.text for c in capture.caches()] == sentences(18, "ants")


def test_a_full_queue_is_waited_for(model_file: Path) -> None:
    arguments = ["--max-queued-items", "8", "--max-client-items", "8"]
    with rs.serve({NAME: model_file}, arguments=arguments, progress=False, max_retries=0) as c:
        capture = c.model().capture(sentences(40, "bees"), layers=1, chunk_size=8, max_in_flight=5).wait()
        assert capture.n_done == 40
        assert capture.index.tolist() == list(range(40))


def test_a_crash_of_the_server_in_the_middle_loses_nothing(model_file: Path) -> None:
    texts = [f"{text} " + "and so on " * 30 for text in sentences(60, "crashes")]
    with rs.serve({NAME: model_file}, progress=False, reconnect=5) as c:
        m = c.model()
        m.capture(texts[:1], layers=5).wait()

        capture = m.capture(texts, layers=5, chunk_size=10, max_in_flight=2, reuse=False)
        seen: list[tuple[int, bool]] = []

        def crash() -> None:
            while capture.n_done < 10:
                time.sleep(0.005)
            c.kill()
            seen.append((capture.n_done, capture.ended))
            time.sleep(1)
            c._process.start(60)  # at the same address, while the capture tries to reach it

        thread = threading.Thread(target=crash)
        thread.start()
        capture.wait(timeout=240)
        thread.join()
        assert seen[0][0] < 60
        assert not seen[0][1]
        assert (capture.n_done, capture.failed) == (60, [])
        X, _ = capture.matrix(layer=5)
        again = m.capture(texts, layers=5, chunk_size=10, reuse=False).wait()
        assert again.n_reused == 60
        fresh = m.run_with_cache(texts[37], layers=5, positions="last", reuse=False)[1]
        np.testing.assert_array_equal(X[37], fresh["resid_post", 5])


def test_an_interrupt_loses_nothing(model: rs.Model, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = sentences(30, "interrupts")
    capture = model.capture(texts, layers=5, chunk_size=5, max_in_flight=2)
    original = rs.Run.refresh
    calls = {"n": 0}

    def interrupted(self: rs.Run, *args: object, **options: object) -> rs.Run:
        calls["n"] += 1
        if calls["n"] == 3:
            raise KeyboardInterrupt
        return original(self, *args, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(rs.Run, "refresh", interrupted)
    with pytest.raises(KeyboardInterrupt):
        capture.wait()
    assert not capture.ended
    assert "wait() goes on" in repr(capture)
    X, _ = capture.matrix(layer=5)
    assert len(X) == 30
    assert [c.text for c in capture.caches()] == texts


def test_an_interrupt_in_the_users_generator_is_not_the_end_of_the_data(model: rs.Model) -> None:
    def data() -> object:
        yield "one"
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        model.capture(data(), layers=5)
    from residuum._core.chunks import Chunker
    from residuum._core.dataset import rows

    chunker = Chunker(rows(data(), "text", None, ()), 2)
    with pytest.raises(KeyboardInterrupt):
        chunker.next()
    with pytest.raises(rs.ResiduumError, match="interrupted"):
        chunker.next()


def test_labels_and_metadata_are_stored(client: rs.Client, model: rs.Model) -> None:
    rows = [{"text": f"Row {i}", "mood": i % 2 == 0, "source": "a", "n": np.int64(i)} for i in range(3)]
    capture = model.capture(rows, label="mood", metadata=("source", "n"), layers=1, tags="stored", dtype="float16")
    caches = list(capture.caches())
    assert [c.label for c in caches] == ["true", "false", "true"]
    assert [c.metadata for c in caches] == [{"source": "a", "n": i} for i in range(3)]
    assert all(c.tags == ["stored"] for c in caches)
    X, y = capture.matrix(layer=1)
    assert X.dtype == np.float16
    assert y is not None
    assert y.tolist() == [True, False, True]
    assert capture.matrix(layer=1, dtype="float32")[0].dtype == np.float32


def test_chats_and_ids(model: rs.Model) -> None:
    chats = [[{"role": "user", "content": f"What is {i}?"}] for i in range(3)]
    capture = model.capture(chats, layers=1, add_generation_prompt=False)
    for cache, chat in zip(capture.caches(), chats, strict=True):
        assert cache.token_ids.tolist() == model.tokenize(chat, add_generation_prompt=False).token_ids.tolist()
    ids = [[504, 414], [504]]
    assert [c.token_ids.tolist() for c in model.capture(ids, layers=1).caches()] == ids
    assert [c.n_tokens for c in model.capture({"text": ids}, layers=1).caches()] == [2, 1]


def test_the_bar_can_be_shown_and_switched_off(model: rs.Model, capsys: pytest.CaptureFixture[str]) -> None:
    model.capture(sentences(6, "bars"), layers=1, chunk_size=3).wait()
    model.run_with_cache(sentences(2, "bars"), layers=1)
    assert capsys.readouterr().err == ""
    model.capture(sentences(6, "bars"), layers=1, chunk_size=3).wait(progress=True)
    assert "6/6" in capsys.readouterr().err
