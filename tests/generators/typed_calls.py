#!/usr/bin/env python3
"""Writes a TypeScript program with a typed call for every request that README.md and docs/ show.

    tests/generators/typed_calls.py openapi.yaml > calls.ts

The program is not run: `tsc --strict` shows whether the types that openapi-typescript makes accept every request.
"""

import argparse
import json
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests" / "python"))
from documentation_checks import documented  # noqa: E402  (the path is set above)
from openapi_document import JSON, Document, load  # noqa: E402

HEAD = """// Written by tests/generators/typed_calls.py.
import createClient from "openapi-fetch";
import type { paths } from "./schema.js";

// Members that a type does not know are refused where it is named; where it is inferred, TypeScript lets them pass.
type Body<Path extends keyof paths, Method extends keyof paths[Path]> = paths[Path][Method] extends {
  requestBody?: { content: { "application/json": infer Json } };
}
  ? Json
  : never;

const client = createClient<paths>({ baseUrl: "http://127.0.0.1:8080" });
"""


def call(doc, request):
    """The statement for one request."""
    template, values, item, operation = doc.operation_for(request.method, request.path)
    parameters = {(parameter["in"], parameter["name"]): parameter for parameter in doc.parameters(item, operation)}
    places = {"path": {}, "query": {}}
    for place, pairs in (("path", values.items()), ("query", request.query)):
        for name, value in pairs:
            enter(doc, places[place], parameters.get((place, name)), name, value)
    members = []
    if given := {place: values for place, values in places.items() if values}:
        members.append(f"params: {json.dumps(given)}")
    if (body := body_of(doc, operation, request)) is not None:
        known = f" satisfies Body<{json.dumps(template)}, {json.dumps(request.method.lower())}>" if request.media == JSON else ""
        members.append(f"body: {json.dumps(body, ensure_ascii=False)}{known}")
    if form := read_as(doc, operation, request):
        members.append(f"parseAs: {json.dumps(form)}")
    return f"// {request.where}\nawait client.{request.method}({json.dumps(template)}, {{ {', '.join(members)} }});"


def enter(doc, given, parameter, name, value):
    """Adds a parameter in the type that its schema has."""
    if parameter is None:  # `name[key]` of an object
        name, _, key = name.rstrip("]").partition("[")
        given.setdefault(name, {})[key] = value
        return
    types = kinds(doc, parameter["schema"])
    if "array" in types:
        given.setdefault(name, []).append(value)
    else:
        given[name] = json.loads(value) if types & {"integer", "number", "boolean"} else value


def kinds(doc, schema):
    """The JSON types that a schema names."""
    schema = doc.resolve(schema)
    own = schema.get("type", [])
    return set([own] if isinstance(own, str) else own)


def body_of(doc, operation, request):
    """The body as TypeScript has it: bytes are strings in the types of openapi-typescript."""
    if request.media is None or request.media == JSON:
        return request.body
    if request.parts:
        schema = doc.resolve(operation["requestBody"]["content"][request.media]["schema"])
        return {part: "" for part in [*request.parts, *schema.get("required", [])]}
    return ""


def read_as(doc, operation, request):
    """How to read the answer, if it is not JSON."""
    content = {media for code, answer in operation["responses"].items() if code[0] == "2" for media in doc.resolve(answer).get("content", {})}
    form = dict(request.query).get("format", "json")
    if content and (JSON not in content or form != "json"):
        return "text" if content == {"text/event-stream"} else "arrayBuffer"
    return None


def main():
    parser = argparse.ArgumentParser(description="Write typed calls for the requests in README.md and docs/.")
    parser.add_argument("specification", type=Path)
    args = parser.parse_args()
    doc, faults = Document(load(args.specification.read_text(encoding="utf-8"))), []
    calls = [call(doc, request) for request in documented(faults)[0]]
    print("\n".join([HEAD, *calls]))
    for fault in faults:
        print(fault, file=sys.stderr)
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
