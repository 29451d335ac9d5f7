#!/usr/bin/env python3
"""Writes tests/goldens/chat_templates.json: the cases of `chat_template_cases.py`, rendered by transformers' Jinja."""

import json
from pathlib import Path

from transformers.utils.chat_template_utils import render_jinja_template

import chat_template_cases as cases
import chat_template_models as models

OUT = Path(__file__).resolve().parent.parent / "tests" / "goldens" / "chat_templates.json"


def render(template, messages, context, prompt=True):
    """What the reference renders; None if it raises an error."""
    # as apply_chat_template does before it renders
    messages = [{key: value for key, value in message.items() if value is not None} for message in messages]
    try:
        rendered, _ = render_jinja_template(
            [messages], chat_template=template, add_generation_prompt=prompt, bos_token="<s>", **context
        )
    except Exception:  # all errors of a template are equal here
        return None
    return rendered[0]


def main():
    expressions = cases.ON_STRINGS + cases.STRINGS + cases.FILTERS + cases.TESTS
    templates = ["{{ %s }}" % expression for expression in expressions] + cases.SNIPPETS
    unknown = {*cases.NOT_SUPPORTED, *cases.DIFFERS} - set(templates)
    assert not unknown, f"cases that there are not: {sorted(unknown)}"
    small, differs = [], []
    for template in dict.fromkeys(templates):
        expected = render(template, cases.MESSAGES, cases.CONTEXT)
        if template in cases.DIFFERS:
            differs.append([template, expected])
        else:
            small.append([template, None if template in cases.NOT_SUPPORTED else expected])
    whole = []
    for name, template in models.TEMPLATES.items():
        for chat, (messages, kwargs, prompt) in models.CHATS.items():
            whole.append([name, chat, render(template, messages, kwargs, prompt)])
    chats = {name: {"messages": m, "kwargs": k, "prompt": p} for name, (m, k, p) in models.CHATS.items()}
    golden = {
        "messages": cases.MESSAGES,
        "context": cases.CONTEXT,
        "cases": small,
        "differs": differs,
        "templates": models.TEMPLATES,
        "chats": chats,
        "rendered": whole,
    }
    OUT.write_text(json.dumps(golden, ensure_ascii=True, indent=0, separators=(",", ":")) + "\n")
    failed = sum(expected is None for _, expected in small)
    print(f"{len(small)} cases ({failed} are errors), {len(whole)} chats, {OUT.stat().st_size} bytes")


if __name__ == "__main__":
    main()
