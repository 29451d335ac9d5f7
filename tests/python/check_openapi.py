#!/usr/bin/env python3
"""Checks openapi.yaml: valid OpenAPI 3.1, every operation documented, every error a problem, every example true.

    python3 tests/python/check_openapi.py [openapi.yaml] [--base-url http://127.0.0.1:8080]

With `--base-url` the running server must serve the same document. The last line is `N passed, N failed`, and the exit
status is 0 only if nothing failed.
"""

import argparse
import re
import sys
from pathlib import Path

import yaml
from openapi_schema_validator import OAS31Validator
from openapi_spec_validator import OpenAPIV31SpecValidator

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "scripts"))
from harness import Client  # noqa: E402  (the path is set above)

METHODS = ("get", "put", "post", "delete", "options", "head", "patch", "trace")
PROBLEM = "application/problem+json"
JSON = "application/json"
# Routes that answer errors in OpenAI's shape.
OPENAI = "/openai/"


class CoreLoader(yaml.SafeLoader):
    """YAML 1.2's core schema. PyYAML's own is 1.1, which turns unquoted times into dates and `on` into true."""

    yaml_implicit_resolvers = {}


for tag, pattern, first in [
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("bool", r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    ("int", r"[-+]?[0-9]+", list("-+0123456789")),
    ("float", r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?", list("-+.0123456789")),
]:
    CoreLoader.add_implicit_resolver(f"tag:yaml.org,2002:{tag}", re.compile(f"^(?:{pattern})$"), first)
# PyYAML's own constructor takes `1e-6` for a string and `010` for eight.
CoreLoader.add_constructor("tag:yaml.org,2002:int", lambda loader, node: int(loader.construct_scalar(node)))
CoreLoader.add_constructor("tag:yaml.org,2002:float", lambda loader, node: float(loader.construct_scalar(node)))


class Document:
    """The specification, with local references resolved on the way."""

    def __init__(self, spec):
        self.spec = spec

    def resolve(self, node):
        while "$ref" in node:
            target = self.spec
            for part in node["$ref"].removeprefix("#/").split("/"):
                target = target[part.replace("~1", "/").replace("~0", "~")]
            node = target
        return node

    def operations(self):
        """Every operation as (name for messages, path item, operation)."""
        for path, item in self.spec["paths"].items():
            for method in METHODS:
                if method in item:
                    yield f"{method.upper()} {path}", item, item[method]

    def bodies(self, operation):
        """Every JSON body that a client sends or gets on success, as (name, media type object)."""
        request = self.resolve(operation.get("requestBody", {}))
        for media, content in request.get("content", {}).items():
            if media == JSON:
                yield "request", content
        for status, response in operation["responses"].items():
            for media, content in self.resolve(response).get("content", {}).items():
                if media == JSON and str(status).startswith("2"):
                    yield str(status), content

    def examples(self, media):
        """The examples of a media type object, or else those of its schema."""
        found = [self.resolve(example)["value"] for example in media.get("examples", {}).values()]
        if "example" in media:
            found.append(media["example"])
        if not found:
            schema = self.resolve(media.get("schema", {}))
            found = list(schema.get("examples", [])) + ([schema["example"]] if "example" in schema else [])
        return found

    def violations(self, value, schema):
        """What is wrong with `value` under `schema`."""
        rooted = {**schema, "components": self.spec.get("components", {})}
        for error in OAS31Validator(rooted).iter_errors(value):
            yield f"/{'/'.join(map(str, error.absolute_path))}: {error.message[:300]}"


def is_valid_openapi(doc):
    for error in OpenAPIV31SpecValidator(doc.spec).iter_errors():
        yield f"/{'/'.join(map(str, error.absolute_path))}: {error.message[:300]}"
    if not str(doc.spec["openapi"]).startswith("3.1."):
        yield f"openapi is {doc.spec['openapi']}, not 3.1"


def operations_are_documented(doc):
    for name, _, operation in doc.operations():
        for field in ("operationId", "summary", "description"):
            if not str(operation.get(field) or "").strip():
                yield f"{name} has no {field}"


def operation_ids_are_unique(doc):
    seen = {}
    for name, _, operation in doc.operations():
        other = seen.setdefault(operation.get("operationId"), name)
        if other != name:
            yield f"{name} and {other} share the operationId {operation.get('operationId')}"


def parameters_are_described(doc):
    for name, item, operation in doc.operations():
        for parameter in map(doc.resolve, item.get("parameters", []) + operation.get("parameters", [])):
            if not parameter.get("description"):
                yield f"{name}: the parameter {parameter['name']} has no description"


def errors_are_problems(doc):
    for name, _, operation in doc.operations():
        errors = {status: r for status, r in operation["responses"].items() if str(status)[0] in "45d"}
        if "/v1/" in name and not errors:
            yield f"{name} lists no error"
        expected = {JSON: "OpenAiError"} if OPENAI in name else {PROBLEM: "Problem"}
        for status, response in errors.items():
            content = doc.resolve(response).get("content", {})
            found = {media: body["schema"].get("$ref", "").rpartition("/")[2] for media, body in content.items()}
            if found != expected:
                yield f"{name}: {status} is answered as {found or 'nothing'}, not {expected}"


def json_bodies_have_examples(doc):
    for name, _, operation in doc.operations():
        for where, media in doc.bodies(operation):
            if not doc.examples(media):
                yield f"{name}: the JSON body ({where}) has no example"


def examples_fit_their_schemas(doc):
    for name, _, operation in doc.operations():
        for where, media in doc.bodies(operation):
            for example in doc.examples(media):
                for violation in doc.violations(example, media.get("schema", {})):
                    yield f"{name}: example ({where}) at {violation}"


def schema_examples_fit_their_schemas(doc):
    for name, schema in doc.spec.get("components", {}).get("schemas", {}).items():
        for example in doc.examples({"schema": schema}):
            for violation in doc.violations(example, schema):
                yield f"schema {name}: example at {violation}"


CHECKS = [
    operations_are_documented,
    operation_ids_are_unique,
    parameters_are_described,
    errors_are_problems,
    json_bodies_have_examples,
    examples_fit_their_schemas,
    schema_examples_fit_their_schemas,
]


def the_server_serves_this_file(text, spec, base_url):
    client = Client(base_url)
    served = {path: client.request("GET", path) for path in ("/openapi.yaml", "/openapi.json")}
    for path, answer in served.items():
        if answer.status != 200:
            yield f"{path} answered {answer.status}"
        elif path.endswith("yaml") and answer.body.decode() != text:
            yield f"{path} differs from the file"
        elif path.endswith("json") and answer.json() != spec:
            yield f"{path} holds another document"


def main():
    parser = argparse.ArgumentParser(description="Check openapi.yaml.")
    parser.add_argument("file", nargs="?", type=Path, default=ROOT / "openapi.yaml")
    parser.add_argument("--base-url", help="also compare with what this server serves")
    args = parser.parse_args()
    text = args.file.read_text(encoding="utf-8")
    spec = yaml.load(text, Loader=CoreLoader)
    document = Document(spec)
    results = [(is_valid_openapi.__name__, list(is_valid_openapi(document)))]
    if not results[0][1]:  # the other checks rely on a valid document
        results += [(check.__name__, list(check(document))) for check in CHECKS]
    if args.base_url:
        results.append(("the_server_serves_this_file", list(the_server_serves_this_file(text, spec, args.base_url))))
    for name, faults in results:
        print(f"{'FAIL' if faults else 'ok':<5} {name.replace('_', ' ')}")
        for fault in faults:
            print(f"        {fault}")
    failed = sum(1 for _, faults in results if faults)
    operations = sum(1 for _ in document.operations())
    print(f"{operations} operations")
    print(f"{len(results) - failed} passed, {failed} failed")
    return 1 if failed or operations == 0 else 0


if __name__ == "__main__":
    sys.exit(main())
