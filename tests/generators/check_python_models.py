#!/usr/bin/env python3
"""Checks generated Python code with real bodies: what a page sends goes through the types, and comes out unchanged.

    tests/generators/check_python_models.py openapi.yaml FOLDER

FOLDER holds `residuum_generated` (openapi-python-client) and `residuum_models.py` (datamodel-code-generator, strict). Every JSON
request in README.md and docs/ and every example of the specification is read by both. The last line is
`N passed, N failed`.
"""

import argparse
import importlib
import re
import sys
from datetime import datetime
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests" / "python"))
from documentation_checks import documented  # noqa: E402  (the path is set above)
from openapi_document import JSON, Document, load  # noqa: E402


def named_bodies(doc, faults):
    """JSON values that have a component of their own, as (where, component, value)."""
    for request in documented(faults)[0]:
        if request.media == JSON:
            _, _, _, operation = doc.operation_for(request.method, request.path)
            yield request.where, component(doc, operation["requestBody"]["content"][JSON]["schema"], request.body), request.body
    for name, _, operation in doc.operations():
        for where, media in doc.bodies(operation):
            if "$ref" in media.get("schema", {}):
                for example in doc.examples(media):
                    yield f"{name} ({where})", component(doc, media["schema"], example), example
    for name, schema in doc.spec["components"]["schemas"].items():
        for example in doc.examples({"schema": schema}):
            yield f"schema {name}", component(doc, {"$ref": f"#/components/schemas/{name}"}, example), example


def component(doc, schema, value):
    """The name of the component that describes `value`: of alternatives, the one that its discriminator names."""
    name, target = schema["$ref"].rpartition("/")[2], doc.resolve(schema)
    if "discriminator" in target:
        chosen = target["discriminator"]["mapping"][value[target["discriminator"]["propertyName"]]]
        return component(doc, {"$ref": chosen}, value)
    return name


def kept(sent, made):
    """Whether `made` has all that was sent. Members may be added, 1.0 is 1, and a time may be written in another way."""
    if isinstance(sent, dict):
        return isinstance(made, dict) and all(name in made and kept(value, made[name]) for name, value in sent.items())
    if isinstance(sent, list):
        return isinstance(made, list) and len(sent) == len(made) and all(map(kept, sent, made))
    return sent == made or (isinstance(sent, str) and isinstance(made, str) and None is not moment(sent) == moment(made))


def moment(text):
    """The time that a text is, or None."""
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        return None


def client_faults(models, name, value):
    """Reads and writes `value` with the class of openapi-python-client."""
    made = getattr(models, name, None)
    if made is None or not hasattr(made, "from_dict"):
        return  # an enum, or a union that is used in place
    instance = made.from_dict(value)
    if unknown := strays(instance):
        yield f"no attributes for {sorted(unknown)}"
    if not kept(value, instance.to_dict()):
        yield f"read and written again it is {instance.to_dict()}"


def strays(instance):
    """Members that ended in `additional_properties` of a class with attributes of its own, at any depth."""
    if isinstance(instance, list):
        return set().union(*map(strays, instance))
    if not hasattr(instance, "__attrs_attrs__"):
        return set()
    attributes = {attribute.name for attribute in instance.__attrs_attrs__} - {"additional_properties"}
    extra = set(getattr(instance, "additional_properties", {})) if attributes else set()
    return extra.union(*(strays(getattr(instance, name)) for name in attributes))


def model_faults(models, name, value):
    """Reads and writes `value` with the strict model of datamodel-code-generator."""
    model = getattr(models, re.sub(r"[\W_]", "", name), None)
    if model is None:
        yield f"no model {name}"
    elif hasattr(model, "model_validate"):
        written = model.model_validate(value).model_dump(mode="json", by_alias=True, exclude_unset=True)
        if not kept(value, written):
            yield f"read and written again it is {written}"


def main():
    parser = argparse.ArgumentParser(description="Check generated Python code with real bodies.")
    parser.add_argument("specification", type=Path)
    parser.add_argument("folder", type=Path)
    args = parser.parse_args()
    sys.path.insert(0, str(args.folder))
    doc, faults = Document(load(args.specification.read_text(encoding="utf-8"))), []
    bodies = list(named_bodies(doc, faults))
    readers = [("residuum_generated.models", client_faults), ("residuum_models", model_faults)]
    for module, check in readers:
        models = importlib.import_module(module)
        for where, name, value in bodies:
            try:
                found = list(check(models, name, value))
            except Exception as error:  # generated code raises whatever it happens to run into
                found = [f"{type(error).__name__}: {error}"]
            faults += [f"{where}: {module}.{name}: {fault}"[:400] for fault in found]
    print("\n".join(faults))
    print(f"{len(readers) * len(bodies) - len(faults)} passed, {len(faults)} failed")
    return 1 if faults or not bodies else 0


if __name__ == "__main__":
    sys.exit(main())
