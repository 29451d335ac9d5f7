"""The specification as the checks read it: YAML 1.2, local references, operations by method and path, schemas."""

import copy
import re

import yaml
from openapi_schema_validator import OAS31Validator

METHODS = ("get", "put", "post", "delete", "options", "head", "patch", "trace")
JSON = "application/json"
# Members of schemas and components whose own members have names of the author's choice.
NAMED = ("properties", "schemas", "responses", "headers", "parameters", "mapping")


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


def load(text):
    """A specification in YAML as plain dictionaries and lists."""
    return yaml.load(text, Loader=CoreLoader)


def nodes(part):
    """`part` and every dictionary in it that is not a map from names, except in examples."""
    if isinstance(part, dict):
        yield part
        for key, value in part.items():
            if key in NAMED and isinstance(value, dict):
                yield from nodes(list(value.values()))
            elif key not in ("example", "examples"):
                yield from nodes(value)
    elif isinstance(part, list):
        for value in part:
            yield from nodes(value)


class Document:
    """The specification, with local references resolved on the way."""

    def __init__(self, spec):
        self.spec = spec
        self._closed = {}

    def resolve(self, node):
        """The target of a chain of references, or `node` itself."""
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

    def operation_for(self, method, path):
        """The operation that serves a request: (path template, path parameters, path item, operation), or None."""
        for template in sorted(self.spec["paths"], key=lambda template: template.count("{")):
            names = re.findall(r"\{(\w+)\}", template)
            found = re.fullmatch(re.sub(r"\\\{\w+\\\}", "([^/]+)", re.escape(template)), path)
            item = self.spec["paths"][template]
            if found and method.lower() in item:
                return template, dict(zip(names, found.groups())), item, item[method.lower()]
        return None

    def parameters(self, item, operation):
        """All parameters of an operation, those of its path included."""
        return [self.resolve(parameter) for parameter in item.get("parameters", []) + operation.get("parameters", [])]

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

    def references(self, part):
        """Every component that `part` refers to, directly or not, as `(section, name)`."""
        found, waiting = set(), [part]
        while waiting:
            for node in nodes(waiting.pop()):
                target = node.get("$ref")
                if isinstance(target, str) and target.startswith("#/components/"):
                    component = tuple(target.split("/")[2:4])
                    if component not in found:
                        found.add(component)
                        waiting.append(self.resolve(node))
                for name in (node.get("discriminator") or {}).get("mapping", {}).values():
                    waiting.append({"$ref": name})
        return found

    def violations(self, value, schema):
        """What is wrong with `value` under `schema`."""
        yield from _violations(value, schema, self.spec.get("components", {}))

    def closed(self, excerpt=False):
        """The components, with no property allowed that the schemas do not name. For excerpts nothing is required."""
        if excerpt not in self._closed:
            components = copy.deepcopy(self.spec.get("components", {}))
            parts = {part["$ref"] for node in nodes(components) for part in node.get("allOf", []) if "$ref" in part}
            for name, schema in components.get("schemas", {}).items():
                close(schema, excerpt, f"#/components/schemas/{name}" in parts)
            self._closed[excerpt] = components
        return self._closed[excerpt]

    def surprises(self, value, schema, excerpt=False):
        """Like `violations`, and a property that the schemas do not name is wrong too."""
        schema = copy.deepcopy(schema)
        close(schema, excerpt)
        yield from _violations(value, schema, self.closed(excerpt))


def _violations(value, schema, components):
    for error in OAS31Validator({**schema, "components": components}).iter_errors(value):
        yield f"/{'/'.join(map(str, error.absolute_path))}: {error.message[:300]}"


def close(schema, excerpt, open_root=False):
    """Refuses unnamed properties in every object schema that names some. A part of an `allOf` stays open."""
    inside = [part for node in nodes(schema) for part in node.get("allOf", [])] + [schema] * open_root
    for node in nodes(schema):
        if not any(node is part for part in inside):
            if "allOf" in node:
                node.setdefault("unevaluatedProperties", False)
            elif isinstance(node.get("properties"), dict):
                node.setdefault("additionalProperties", False)
        if excerpt and isinstance(node.get("required"), list):
            del node["required"]
