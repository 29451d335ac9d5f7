#!/usr/bin/env python3
"""Checks openapi.yaml: valid OpenAPI 3.1, every operation documented, every error a problem, every example true, and every
request and answer in README.md and docs/ as the specification has it.

    python3 tests/python/check_openapi.py [openapi.yaml] [--base-url http://127.0.0.1:8080 [--binary residuum]]

With `--base-url` the running server must serve the same document, and README's commands are run against it: with `--binary`,
those of the command line too. The last line is `N passed, N failed`, and the exit status is
0 only if nothing failed.
"""

import argparse
import sys
from pathlib import Path

from documentation_checks import documented_answers_fit, documented_requests_fit, readme_runs
from openapi_document import JSON, Document, load
from openapi_spec_validator import OpenAPIV31SpecValidator

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "scripts"))
from harness import Client  # noqa: E402  (the path is set above)

PROBLEM = "application/problem+json"
# Routes that answer errors in OpenAI's shape.
OPENAI = "/openai/"


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


def components_are_used(doc):
    used = doc.references(doc.spec["paths"])
    for section, components in doc.spec.get("components", {}).items():
        for name in components:
            if section != "securitySchemes" and (section, name) not in used:
                yield f"no operation uses {section}/{name}"


CHECKS = [
    operations_are_documented,
    operation_ids_are_unique,
    parameters_are_described,
    errors_are_problems,
    json_bodies_have_examples,
    examples_fit_their_schemas,
    schema_examples_fit_their_schemas,
    components_are_used,
    documented_requests_fit,
    documented_answers_fit,
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
    parser.add_argument("--binary", help="the program for README's commands that begin with `residuum`")
    args = parser.parse_args()
    text = args.file.read_text(encoding="utf-8")
    spec = load(text)
    document = Document(spec)
    results = [(is_valid_openapi.__name__, list(is_valid_openapi(document)))]
    if not results[0][1]:  # the other checks rely on a valid document
        results += [(check.__name__, list(check(document))) for check in CHECKS]
    if args.base_url:
        results.append(("the_server_serves_this_file", list(the_server_serves_this_file(text, spec, args.base_url))))
        results.append((readme_runs.__name__, list(readme_runs(document, args.base_url, args.binary))))
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
