"""How things look, and that no text can become markup."""

from __future__ import annotations

import re

import numpy as np
import pytest
from places import EIFFEL

import residuum as rs
from residuum._core import show

EVIL = '<script>alert("x")</script> & <b>bold</b>'


def tags(text: str) -> set[str]:
    return set(re.findall(r"<(\w+)", text))


def test_texts(model: rs.Model) -> None:
    cache = model.run_with_cache(EIFFEL, hooks=["resid_post", "pattern"])[1]
    assert repr(cache).splitlines() == [
        f"Cache {cache.id} of smollm2: '{EIFFEL}', 9 tokens",
        "  attn.pattern layers 0-29: [9, 9, 9] (head, q_pos, k_pos) float32",
        "  resid_post layers 0-29: [9, 576] (pos, d_model) float32",
    ]
    assert repr(model).startswith("Model smollm2 (llama, cpu): 30 layers, d_model 576, 9 heads")
    assert "completed, 1 of 1 inputs done" in repr(cache.run())
    assert repr(model.tokenize("The")) == "Tokenized(['The'])"
    assert "smollm2" in model._repr_html_()
    assert "hook points" in model._repr_html_()
    assert "completed" in cache.run()._repr_html_()


def test_markup_in_texts_labels_tags_and_metadata_is_shown_not_run(model: rs.Model) -> None:
    item = {"text": EVIL, "label": EVIL, "tags": [EVIL]}
    cache = model.run_with_cache([item], layers=1)[1][0]
    page = cache._repr_html_()
    assert "script" not in tags(page)
    assert "&lt;" in page
    assert tags(page) <= {"div", "span", "b", "code", "table", "tr", "th", "td"}
    assert page.count("<b>") == 1
    assert "script" not in tags(model.tokenize(EVIL)._repr_html_())
    capture = model.capture([EVIL, ""], layers=1).wait()
    assert "script" not in tags(capture._repr_html_())


def test_long_inputs_are_cut_in_the_middle() -> None:
    page = show.token_strip([f"t{i}" for i in range(1000)], np.arange(1000))
    assert "… 940 more …" in page
    assert "t29<" in page
    assert "t30<" not in page
    assert "t970<" in page
    assert 'title="position 970, id 970"' in page


def test_invisible_characters_are_shown() -> None:
    assert "⏎⇥" in show.token_strip(["\n\t"])
    assert show.shortened("a\nb" * 100).endswith("…")
    assert show.n_bytes_text(1234567) == "1.2 MB"


@pytest.mark.parametrize(
    "text",
    [
        "2026-11-23T12:00:00.000001Z",
        "2026-11-23T12:00:00.5Z",
        "2026-11-23T12:00:00Z",
        "2026-11-23T13:00:00.123456+01:00",
    ],
)
def test_times(text: str) -> None:
    from residuum._core.info import parse_time

    time = parse_time(text)
    assert time is not None
    assert time.utctimetuple()[:5] == (2026, 11, 23, 12, 0)
