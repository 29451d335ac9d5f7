"""Whether README.md and docs/ show requests and answers as the specification has them, and whether README's commands run."""

import json
import os
import stat
import subprocess
import sys
import tempfile
from pathlib import Path

from documented_requests import FENCE, Unreadable, read
from openapi_document import JSON, nodes

ROOT = Path(__file__).resolve().parents[2]
# Headers that HTTP itself, or every answer, has.
COMMON_HEADERS = {
    "connection", "content-length", "content-type", "date", "transfer-encoding", "vary", "x-request-id", "access-control-allow-origin",
    "access-control-expose-headers", "cache-control", "x-content-type-options",
}  # fmt: skip
# A block of README with one of these words is about starting servers, keys and installing, not about a server that runs.
NOT_RUN = ("--data-dir", "RESIDUUM_KEY", "pip ", "docker ", "./scripts/")


def pages():
    """Every page that users read."""
    return [ROOT / "README.md", *sorted(ROOT.glob("docs/*.md")), *sorted(ROOT.glob("clients/*/README.md"))]


def documented(faults):
    """Requests and answers of all pages. What cannot be read is added to `faults`."""
    requests, answers = [], []
    for page in pages():
        try:
            found = read(page)
        except Unreadable as error:
            faults.append(str(error))
            continue
        requests += found[0]
        answers += found[1]
    if not requests:
        faults.append("no page shows a request")
    return requests, answers


def documented_requests_fit(doc):
    """Every request on a page has a route, parameters that it knows, and a body that fits."""
    faults = []
    for request in documented(faults)[0]:
        found = doc.operation_for(request.method, request.path)
        if found is None:
            faults.append(f"{request.where}: no operation for {request.method} {request.path}")
            continue
        _, values, item, operation = found
        parameters = doc.parameters(item, operation)
        faults += [f"{request.where}: {fault}" for fault in parameter_faults(doc, parameters, values.items(), "path")]
        faults += [f"{request.where}: {fault}" for fault in parameter_faults(doc, parameters, request.query, "query")]
        faults += [f"{request.where}: {fault}" for fault in body_faults(doc, operation, request)]
    return faults


def parameter_faults(doc, parameters, values, place):
    """What is wrong with the parameters of a request, given as pairs."""
    known = {parameter["name"]: parameter for parameter in parameters if parameter["in"] == place}
    for name, value in values:
        parameter = known.get(name) or deep_object(known, name)
        if parameter is None:
            yield f"no {place} parameter `{name}`"
            continue
        schema = parameter["schema"]
        if name != parameter["name"]:
            schema = doc.resolve(schema).get("additionalProperties", {})
        elif doc.resolve(schema).get("type") in ("array", ["array", "null"]):
            schema = doc.resolve(schema)["items"]
        if all(any(doc.violations(form, schema)) for form in forms(value)):
            yield f"{name}={value}: {next(doc.violations(value, schema))}"


def deep_object(known, name):
    """The parameter that `name[key]` is a member of, or None."""
    parameter = known.get(name.partition("[")[0])
    return parameter if parameter and name.endswith("]") and parameter.get("style") == "deepObject" else None


def forms(value):
    """A parameter as text, and as the number or boolean that it may be."""
    yield value
    try:
        yield json.loads(value)
    except ValueError:
        pass


def body_faults(doc, operation, request):
    """What is wrong with the body of a request."""
    content = doc.resolve(operation.get("requestBody", {})).get("content", {})
    if request.media is None:
        if content and doc.resolve(operation["requestBody"]).get("required"):
            yield "the operation needs a body"
        return
    if request.media not in content:
        yield f"a body of {request.media} is not one of {sorted(content)}"
        return
    schema = content[request.media].get("schema", {})
    if request.media == JSON:
        yield from doc.violations(request.body, schema)
    for part in request.parts:
        if part not in doc.resolve(schema).get("properties", {}):
            yield f"no part `{part}`"


def documented_answers_fit(doc):
    """Every JSON answer on a page, or part of one, has only members that the specification names."""
    faults = []
    for answer in documented(faults)[1]:
        found = doc.operation_for(answer.request.method, answer.request.path)
        bodies = [] if found is None else [body for name, body in doc.bodies(found[3]) if name != "request"]
        # An export's manifest, for example, is in a file.
        if bodies and not any(fits_a_part(doc, answer.value, part) for part in answer_parts(doc, found[3])):
            faults.append(f"{answer.where}: no part of an answer to {answer.request.where} has the members of {str(answer.value)[:120]}…")
    return faults


def answer_parts(doc, operation):
    """The schemas of all answers of an operation, and of everything in them."""
    schemas = [
        content["schema"]
        for response in operation["responses"].values()
        for content in doc.resolve(response).get("content", {}).values()
        if "schema" in content
    ]
    schemas += [{"$ref": f"#/components/schemas/{name}"} for section, name in doc.references(schemas) if section == "schemas"]
    for schema in schemas:
        for node in nodes(doc.resolve(schema)):
            if node.get("type") not in (None, "string") or {"$ref", "oneOf", "anyOf", "allOf"} & set(node):
                yield node


def fits_a_part(doc, value, schema):
    """Whether an excerpt fits. A schema that takes any object says nothing about it."""
    free = isinstance(value, dict) and not any(key in schema for key in ("properties", "$ref", "oneOf", "anyOf", "allOf"))
    free = free and schema.get("additionalProperties") in (None, True, {})
    return not free and not any(doc.surprises(value, schema, excerpt=True))


def readme_runs(doc, base_url, binary=None):
    """Runs README's commands in order, in an empty folder, and compares every answer with the specification.

    `binary` is the program for the commands that begin with `residuum`; without it they are left out.
    """
    words = ("curl ", "residuum ") if binary else ("curl ",)
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    blocks = [block.group(2) for block in FENCE.finditer(text) if block.group(1) == "sh"]
    blocks = [block for block in blocks if any(word in block for word in words) and not any(word in block for word in NOT_RUN)]
    blocks = [block for block in blocks if binary or "residuum " not in block]
    with tempfile.TemporaryDirectory(prefix="residuum-readme-") as folder:
        log, tools, work = Path(folder, "log"), Path(folder, "bin"), Path(folder, "work")
        tools.mkdir()
        work.mkdir()
        curl = tools / "curl"
        curl.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{ROOT}/tests/python/recording_curl.py" "$@"\n')
        curl.chmod(curl.stat().st_mode | stat.S_IXUSR)
        if binary:
            (tools / "residuum").symlink_to(Path(binary).resolve())
        env = os.environ | {"PATH": f"{tools}:{os.environ['PATH']}", "RESIDUUM_URL": base_url}
        env |= {"RECORDING_CURL_URL": base_url, "RECORDING_CURL_LOG": str(log)}
        script = "\n".join(["set -e", "trap 'echo \"in $BASH_COMMAND\" >&2' ERR", *blocks])
        done = subprocess.run(["bash", "-c", script], cwd=work, env=env, capture_output=True, text=True, timeout=600, check=False)
        if done.returncode:
            yield f"README's commands end with status {done.returncode}: {done.stderr[-500:]}"
        exchanges = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
    expected = sum(block.count("curl -s") for block in blocks)
    if len(exchanges) != expected or not exchanges:
        yield f"{len(exchanges)} of {expected} requests were sent"
    for exchange in exchanges:
        name = f"{exchange['method']} {exchange['path']}"
        yield from (f"{name}: {fault}" for fault in exchange_faults(doc, exchange))


def exchange_faults(doc, exchange):
    """How an answer differs from what the specification says about the operation."""
    found = doc.operation_for(exchange["method"], exchange["path"].partition("?")[0])
    if found is None:
        yield "no such operation"
        return
    response = found[3]["responses"].get(str(exchange["status"]))
    if response is None:
        yield f"status {exchange['status']} is not listed"
        return
    response = doc.resolve(response)
    described = {name.lower() for name in response.get("headers", {})}
    for header in set(exchange["headers"]) - COMMON_HEADERS - described:
        yield f"{exchange['status']}: the header {header} is not described"
    media = exchange["headers"].get("content-type", "").partition(";")[0]
    content = {name.partition(";")[0]: body for name, body in response.get("content", {}).items()}
    if media not in content:
        yield f"{exchange['status']}: the media type {media} is not one of {sorted(content)}"
    elif exchange["json"] is not None:
        yield from doc.surprises(exchange["json"], content[media].get("schema", {}))
