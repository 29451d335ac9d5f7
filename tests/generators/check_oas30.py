#!/usr/bin/env python3
"""Checks the 3.0 form of the specification: valid OpenAPI 3.0, the same operations, and every request and example fits it.

    tests/generators/check_oas30.py openapi.yaml openapi-3.0.yaml

The last line is `N passed, N failed`.
"""

import argparse
import copy
import sys
from pathlib import Path

from openapi_schema_validator import OAS30Validator
from openapi_spec_validator import OpenAPIV30SpecValidator

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests" / "python"))
from documentation_checks import documented_operations  # noqa: E402  (the path is set above)
from openapi_document import JSON, Document, load, nodes  # noqa: E402

# Members of 3.1's schemas that 3.0 does not have.
NEWER = {"const", "contentEncoding", "contentMediaType", "contentSchema", "examples", "prefixItems", "propertyNames", "unevaluatedProperties"}


class Document30(Document):
    """A specification of version 3.0. `nullable` beside `allOf`, `oneOf` or `anyOf` allows null, as generators read it."""

    def __init__(self, spec):
        super().__init__(spec)
        self.components = with_null(spec["components"])

    def violations(self, value, schema):
        for error in OAS30Validator({**with_null(schema), "components": self.components}).iter_errors(value):
            yield f"/{'/'.join(map(str, error.absolute_path))}: {error.message[:300]}"


def with_null(part):
    """A copy in which null is an alternative of its own where `nullable` stands beside other schemas."""
    part = copy.deepcopy(part)
    for node in list(nodes(part)):
        if node.get("nullable") and "type" not in node:
            whole = {name: node.pop(name) for name in list(node)}
            del whole["nullable"]
            node["anyOf"] = [whole, {"type": "string", "nullable": True, "enum": [None]}]
    return part


def is_valid(new, old):
    for error in OpenAPIV30SpecValidator(old.spec).iter_errors():
        yield f"/{'/'.join(map(str, error.absolute_path))}: {error.message[:300]}"


def nothing_newer_is_left(new, old):
    if not old.spec["openapi"].startswith("3.0."):
        yield f"openapi is {old.spec['openapi']}, not 3.0"
    schemas = list(nodes(list(old.spec["components"]["schemas"].values())))
    for node in schemas:
        if isinstance(node.get("type"), list) or node.get("type") == "null" or NEWER & set(node):
            yield f"a schema of version 3.1: {str(node)[:200]}"
        if "$ref" in node and len(node) > 1:
            yield f"a reference with other members: {node}"


def operations_are_the_same(new, old):
    """The same operations and parameters, but for `deepObject`. Media types and answers may be fewer: some generators know one of each."""
    before, after = shapes(new), shapes(old)
    for name in sorted(set(before) ^ set(after)):
        yield f"{name} is in one of the two forms only"
    for name in sorted(set(before) & set(after)):
        for what, (whole, part) in enumerate(zip(before[name], after[name])):
            if (part != whole) if what < 2 else not (part <= whole and bool(part) == bool(whole)):
                yield f"{name}: {part} and not {whole}"


def shapes(doc):
    """Of every operation: its id, parameters, media types of the body, and codes of the answers."""
    return {
        name: (
            operation["operationId"],
            {(one["in"], one["name"]) for one in doc.parameters(item, operation) if one.get("style") != "deepObject"},
            set(doc.resolve(operation.get("requestBody", {})).get("content", {})),
            set(operation["responses"]),
        )
        for name, item, operation in doc.operations()
    }


def documented_requests_fit(new, old):
    faults = []
    for request, *_, operation in documented_operations(old, faults):
        if request.media == JSON:
            for violation in old.violations(request.body, operation["requestBody"]["content"][JSON]["schema"]):
                faults.append(f"{request.where}: {violation}")
    return faults


def examples_fit(new, old):
    for name, _, operation in old.operations():
        for where, media in old.bodies(operation):
            for example in old.examples(media):
                for violation in old.violations(example, media["schema"]):
                    yield f"{name}: example ({where}) at {violation}"
    for name, schema in old.spec["components"]["schemas"].items():
        for example in old.examples({"schema": schema}):
            for violation in old.violations(example, schema):
                yield f"schema {name}: example at {violation}"


CHECKS = [nothing_newer_is_left, operations_are_the_same, documented_requests_fit, examples_fit]


def main():
    parser = argparse.ArgumentParser(description="Check the 3.0 form of the specification.")
    parser.add_argument("specification", type=Path)
    parser.add_argument("older", type=Path, help="the same in version 3.0")
    args = parser.parse_args()
    new = Document(load(args.specification.read_text(encoding="utf-8")))
    old = Document30(load(args.older.read_text(encoding="utf-8")))
    results = [(is_valid.__name__, list(is_valid(new, old)))]
    if not results[0][1]:  # the other checks rely on a valid document
        results += [(check.__name__, list(check(new, old))) for check in CHECKS]
    for name, faults in results:
        print(f"{'FAIL' if faults else 'ok':<5} {name.replace('_', ' ')}")
        for fault in faults:
            print(f"        {fault}")
    failed = sum(1 for _, faults in results if faults)
    print(f"{len(results) - failed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
