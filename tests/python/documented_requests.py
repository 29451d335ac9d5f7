"""Finds the requests that Markdown pages show, as `curl` commands or addresses in code blocks, and the answers after them.

Variables and command substitutions of the shell stand for ids of caches: they become `AN_ID`.
"""

import json
import re
from dataclasses import dataclass, field
from urllib.parse import parse_qsl, unquote, urlsplit

AN_ID = "01a20f3c-14f2-7223-86f1-36bcd607e807"
# What a substitution becomes until it is known whether it stands in a string: of a command, of a variable.
COMMAND, VARIABLE = "\ue000", "\ue001"
SERVER = re.compile(r"(?:http://)?(?:127\.0\.0\.1|localhost):8080(?=/)")
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
# Options of curl, by what follows them.
FLAGS = set("sSNfLkivg")
WITH_VALUE = {"-H", "-d", "--data", "--data-raw", "--json", "--data-binary", "-o", "-X", "-F", "--max-time"}


@dataclass
class Request:
    """A request as a page shows it. `body` is parsed JSON if `media` is JSON, else None."""

    where: str
    method: str
    path: str
    query: list
    media: str | None = None
    body: object = None
    parts: list = field(default_factory=list)  # names of the parts of a form


@dataclass
class Answer:
    """JSON that a page shows after a request. An excerpt (`…`) may lack members."""

    where: str
    request: Request
    value: object


class Unreadable(Exception):
    """A code block that this module cannot read; the message says where and why."""


def read(page):
    """All requests and all answers of a Markdown page, in order."""
    text = page.read_text(encoding="utf-8")
    requests, answers, last = [], [], None
    for block in FENCE.finditer(text):
        language, code = block.group(1), block.group(2)
        line = text.count("\n", 0, block.start()) + 2
        if language in ("sh", "bash", ""):
            found = list(commands(code, page.name, line))
        elif language == "python":
            found = list(addresses(code, page.name, line))
        elif language == "json" and last is not None:
            answers += [Answer(f"{page.name}:{line}", last, value) for value in documents(code, f"{page.name}:{line}")]
            continue
        else:
            continue
        requests += found
        if found or language:  # a block without a language may be the output of the one before
            last = found[-1] if found else None
    return requests, answers


def commands(code, page, first_line):
    """Every `curl` command of a shell script that talks to the server."""
    for start in re.finditer(r"(?:^|[\s(])curl\s", code):
        where = f"{page}:{first_line + code.count(chr(10), 0, start.start() + 1)}"
        request = from_curl(words(code[start.end() :], where), where)
        if request is not None:
            yield request


def addresses(code, page, first_line):
    """Every address of the server in a script, as a GET. The part before `/v1/` alone is not one."""
    for found in re.finditer(r"[\"'](http://(?:127\.0\.0\.1|localhost):8080/v1/[^\"'\s]*)[\"']", code):
        yield at_address("GET", found.group(1), f"{page}:{first_line + code.count(chr(10), 0, found.start())}")


def words(text, where):
    """The words of one command of a POSIX shell, up to its end."""
    found, word, i = [], None, 0
    while i < len(text):
        c = text[i]
        if text.startswith("\\\n", i):
            i += 2
        elif c in "'\"":
            part, i = quoted(text, i, where)
            word = (word or "") + part
        elif c == "$":
            part, i = substitution(text, i, where)
            word = (word or "") + part
        elif c in "|;&<>)\n":
            break
        elif c in " \t":
            found += [] if word is None else [word]
            word, i = None, i + 1
        else:
            word, i = (word or "") + c, i + 1
    return found + ([] if word is None else [word])


def quoted(text, start, where):
    """The content of a quoted part, and the index after it."""
    quote, content, i = text[start], "", start + 1
    while i < len(text) and text[i] != quote:
        if quote == '"' and text[i] == "\\" and text[i + 1 : i + 2] in ("\\", '"', "$", "`", "\n"):
            content, i = content + text[i + 1].replace("\n", ""), i + 2
        elif quote == '"' and text[i] == "$":
            part, i = substitution(text, i, where)
            content += part
        else:
            content, i = content + text[i], i + 1
    if i >= len(text):
        raise Unreadable(f"{where}: a quote is not closed")
    return content, i + 1


def substitution(text, start, where):
    """The mark for a variable or command at `$`, and the index after it."""
    if text.startswith("$(", start):
        depth, i = 1, start + 2
        while depth and i < len(text):
            depth += {"(": 1, ")": -1}.get(text[i], 0)
            i += 1
        if depth:
            raise Unreadable(f"{where}: `$(` is not closed")
        return COMMAND, i
    name = re.compile(r"\$(?:\w+|\{\w+\})").match(text, start)
    return (VARIABLE, name.end()) if name else ("$", start + 1)


def from_curl(arguments, where):
    """The request of a `curl` command, or None if it does not go to the server."""
    method, headers, url, body, media, parts = None, {}, None, None, None, []
    waiting = iter(arguments)
    for argument in waiting:
        if argument in WITH_VALUE:
            value = next(waiting, "")
            if argument == "-X":
                method = value
            elif argument == "-H":
                name, _, content = value.partition(":")
                headers[name.strip().lower()] = content.strip()
            elif argument == "-F":
                media, parts = "multipart/form-data", [*parts, value.partition("=")[0]]
            elif argument == "--json":
                media, body = "application/json", value
            elif argument not in ("-o", "--max-time"):
                media, body = media or "application/x-www-form-urlencoded", value
        elif argument.startswith("-") and set(argument[1:]) <= FLAGS:
            pass
        elif SERVER.match(argument):
            url = argument
        elif argument.startswith("-"):
            raise Unreadable(f"{where}: the option {argument} of curl is not known here")
    if url is None:
        return None
    request = at_address(method or ("POST" if media else "GET"), url, where)
    request.media, request.parts = (headers.get("content-type", media) if media else None), parts
    if request.media == "application/json":
        found = list(documents(body, where))
        if len(found) != 1:
            raise Unreadable(f"{where}: the body is not one JSON document")
        request.body = found[0]
    return request


def at_address(method, url, where):
    parts = urlsplit(SERVER.sub("", url.replace(COMMAND, AN_ID).replace(VARIABLE, AN_ID)))
    return Request(where, method, unquote(parts.path), parse_qsl(parts.query, keep_blank_values=True))


def documents(text, where):
    """The JSON documents in `text`. `…` stands for what is left out."""
    strings = []

    def keep(found):
        strings.append(found.group().replace(COMMAND, AN_ID).replace(VARIABLE, AN_ID))
        return f'"{len(strings) - 1}"'

    bare = re.sub(r'"(?:[^"\\]|\\.)*"', keep, text)
    bare = re.sub(r",?\s*…\s*(?=[\]}])|…\s*,?", "", bare)
    whole = re.sub(r'"(\d+)"', lambda found: strings[int(found.group(1))], bare)
    # What is not in a string: a command prints a string, a variable holds a list.
    whole = whole.replace(COMMAND, json.dumps(AN_ID)).replace(VARIABLE, json.dumps([AN_ID]))
    decoder, at = json.JSONDecoder(), 0
    while whole[at:].strip():
        at += len(whole[at:]) - len(whole[at:].lstrip())
        try:
            value, at = decoder.raw_decode(whole, at)
        except ValueError as error:
            raise Unreadable(f"{where}: not JSON: {error}") from error
        yield value
