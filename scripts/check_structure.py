#!/usr/bin/env python3
"""Holds the Rust sources against the rules that the compiler does not know.

    scripts/check_structure.py

The crates keep the directions between them by what their manifests name. Beyond that:

* `src/api` imports neither the model nor the analysis, nor SQL: a handler asks one question of the engine or the store.
* `src/cli/client` knows the HTTP interface alone.
* The engine's questions know nothing of HTTP, of bodies or of their encodings.
* No files of a crate import each other in a circle; a module and those inside it may know each other.
* A file is found by its name: no two of a crate share one but `mod.rs`. Files of tests are exempt.
* A module with modules inside it is a folder with `mod.rs`, never a file beside a folder.

Needs Python 3.11, nothing else. It reads imports as text: `use` declarations, and paths that begin with `crate`, `super` or a
module inside. Exits with 1 and names what breaks a rule.
"""

import re
import sys
from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CRATES = [ROOT / "src", *sorted((ROOT / "crates").glob("*/src"))]

# (files below, what they must not name, why)
FORBIDDEN = [
    ("src/api", r"\bresiduum_(model|analysis)\b", "ask a question of residuum_engine instead"),
    ("src/api", r"\bsqlx\b", "SQL belongs to the store"),
    ("src/cli/client", r"\bresiduum_(analysis|engine|model|store)\b", "ask the server over HTTP"),
    ("crates/engine/src/questions", r"\b(axum|http|utoipa|serde)::", "bodies belong to src/api"),
    ("crates/store/src", r"\b(axum|candle_core)::", "the store knows neither HTTP nor tensors"),
    ("crates/model/src", r"\b(axum|sqlx)::", "the model knows neither HTTP nor SQL"),
]


def sources(folder):
    """The Rust files below a folder, those of tests left out."""
    for path in sorted(folder.rglob("*.rs")):
        inside = path.relative_to(folder)
        if "tests" not in inside.parts[:-1] and path.name != "tests.rs":
            yield path


def without_tests(text):
    """Source text without comments and without its `mod tests`."""
    text = re.sub(r"//[^\n]*", "", text)
    return text.split("#[cfg(test)]\nmod tests {")[0]


def split(text):
    """The parts of a list in braces, at its own commas."""
    parts, depth, part = [], 0, ""
    for c in text:
        depth += (c == "{") - (c == "}")
        if c == "," and depth == 0:
            parts.append(part)
            part = ""
        else:
            part += c
    return [p.strip() for p in [*parts, part] if p.strip()]


def paths(tree):
    """Every path of a `use` tree."""
    begin = tree.find("{")
    if begin < 0:
        return [tree.split(" as ")[0].strip()]
    return [tree[:begin].strip() + path for part in split(tree[begin + 1 : tree.rfind("}")]) for path in paths(part)]


USE = re.compile(r"(?m)^\s*(?:pub(?:\([^)]*\))?\s+)?use\s+([^;]+);")


class Crate:
    """The modules of one crate and what each imports of the others."""

    def __init__(self, folder):
        self.text = {}
        for path in sources(folder):
            inside = path.relative_to(folder).with_suffix("").parts
            inside = inside[:-1] if inside[-1] in ("mod", "lib") else inside
            if inside != ("main",):
                self.text[inside] = without_tests(path.read_text())
        self.exports = {}
        for module, text in self.text.items():
            for tree in re.findall(r"(?m)^\s*pub(?:\([^)]*\))?\s+use\s+([^;]+);", text):
                for path in paths(re.sub(r"\s+", " ", tree)):
                    found = self.resolve(module, path)
                    if found and found[1] and found[0] != module:
                        self.exports[module, found[1]] = found[0]
        self.imports = {module: self.imports_of(module) for module in self.text}

    def resolve(self, module, path):
        """The module that a path leads to, and the name it ends with there."""
        names = [name.strip() for name in path.split("::")]
        if names[0] == "crate":
            at, names = (), names[1:]
        elif names[0] in ("self", "super"):
            at = module
            while names and names[0] in ("self", "super"):
                at = at[:-1] if names[0] == "super" else at
                names = names[1:]
        elif module + (names[0],) in self.text:
            at = module
        else:
            return None
        while names and at + (names[0],) in self.text:
            at, names = at + (names[0],), names[1:]
        name = names[0] if names else None
        seen = set()
        while name and (at, name) in self.exports and at not in seen:
            seen.add(at)
            at = self.exports[at, name]
        return at, name

    def imports_of(self, module):
        text = self.text[module]
        named = [path for tree in USE.findall(text) for path in paths(re.sub(r"\s+", " ", tree))]
        body = USE.sub("", text)
        named += re.findall(r"\b(?:crate|super)(?:::\w+)+", body)
        named += [m[0] for m in re.finditer(r"(?<![\w:])([a-z_]\w*)::\w+", body) if module + (m[1],) in self.text]
        found = (self.resolve(module, path) for path in named)
        return {f[0] for f in found if f and f[0] in self.text and f[0] != module}

    def circles(self):
        """Groups of modules that import each other (Tarjan's strongly connected components)."""
        related = lambda a, b: a[: len(b)] == b or b[: len(a)] == a
        index, low, stack, on_stack, groups = {}, {}, [], set(), []

        def visit(v):
            index[v] = low[v] = len(index)
            stack.append(v)
            on_stack.add(v)
            for w in sorted(self.imports[v]):
                if related(v, w):
                    continue
                if w not in index:
                    visit(w)
                    low[v] = min(low[v], low[w])
                elif w in on_stack:
                    low[v] = min(low[v], index[w])
            if low[v] == index[v]:
                group = []
                while not group or group[-1] != v:
                    group.append(stack.pop())
                    on_stack.discard(group[-1])
                if len(group) > 1:
                    groups.append(sorted(group))

        for module in sorted(self.text):
            if module not in index:
                visit(module)
        return groups


def problems():
    """What breaks a rule, a line each."""
    for below, pattern, why in FORBIDDEN:
        for path in sources(ROOT / below):
            for found in re.finditer(pattern, without_tests(path.read_text())):
                yield f"{path.relative_to(ROOT)} names {found[0].rstrip(':')}: {why}"
    for folder in CRATES:
        place = folder.relative_to(ROOT)
        for group in Crate(folder).circles():
            yield f"{place}: a circle of imports: " + ", ".join("::".join(module) for module in group)
        names = defaultdict(list)
        for path in sources(folder):
            if path.name != "mod.rs":
                names[path.name].append(str(path.relative_to(ROOT)))
            if path.with_suffix("").is_dir():
                yield f"{path.relative_to(ROOT)} lies beside its folder: make it {path.stem}/mod.rs"
        for files in names.values():
            if len(files) > 1:
                yield "these files share a name: " + ", ".join(files)


def main():
    sys.setrecursionlimit(10_000)
    found = list(dict.fromkeys(problems()))
    print("\n".join(found) if found else "check_structure: nothing breaks a rule")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
