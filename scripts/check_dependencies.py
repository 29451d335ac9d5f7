#!/usr/bin/env python3
"""Holds the dependencies against deny.toml: licences, and crates of which several versions are built.

    scripts/check_dependencies.py [deny.toml]

Needs Python 3.11 and cargo, nothing else: cargo-deny, whose file this reads, takes minutes to build. Of the file it reads
`graph.targets`, `licenses.allow`, `licenses.exceptions` and `bans.skip`. Exits with 1 if something is not allowed, and if
an exception or a skipped version matches nothing. `CARGO_NET_OFFLINE=true` keeps cargo off the network.
"""

import json
import re
import subprocess
import sys
import tomllib
from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def packages(targets):
    """Every package that Cargo.lock has for these targets, with name, version and licence."""
    command = ["cargo", "metadata", "--locked", "--format-version", "1"]
    command += [part for target in targets for part in ("--filter-platform", target)]
    return json.loads(subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, check=True).stdout)["packages"]


class Expression:
    """An SPDX expression: OR binds weaker than AND, and `A/B` is what OR was written as before."""

    def __init__(self, text):
        self.words = re.findall(r"[()]|[^\s()]+", text.replace("/", " OR "))

    def allows(self, allowed):
        """Whether one can comply by licences in `allowed` alone. ValueError if the expression is malformed."""
        satisfied = self._any(allowed)
        if self.words:
            raise ValueError(f"unexpected {self.words[0]!r}")
        return satisfied

    def _any(self, allowed):
        satisfied = self._all(allowed)
        while self._take("OR"):
            # The right side is read even if the left one is enough.
            satisfied = self._all(allowed) or satisfied
        return satisfied

    def _all(self, allowed):
        satisfied = self._one(allowed)
        while self._take("AND"):
            satisfied = self._one(allowed) and satisfied
        return satisfied

    def _one(self, allowed):
        if self._take("("):
            satisfied = self._any(allowed)
            if not self._take(")"):
                raise ValueError("a parenthesis is not closed")
            return satisfied
        name = self._name()
        if self._take("WITH"):
            name = f"{name} WITH {self._name()}"
        return name in allowed

    def _name(self):
        if not self.words or self.words[0] in ("(", ")", "AND", "OR", "WITH"):
            raise ValueError("a licence is missing")
        return self.words.pop(0)

    def _take(self, word):
        found = self.words[:1] == [word]
        if found:
            self.words.pop(0)
        return found


def licence_errors(found, rules):
    exceptions = {e["crate"]: set(e["allow"]) for e in rules.get("exceptions", [])}
    for name in sorted(exceptions.keys() - {p["name"] for p in found}):
        yield f"deny.toml has an exception for {name}, which is no dependency"
    for package in found:
        name, licence = f"{package['name']} {package['version']}", package["license"]
        try:
            if not licence:
                yield f"{name} names no licence"
            elif not Expression(licence).allows(set(rules["allow"]) | exceptions.get(package["name"], set())):
                yield f"{name} is under {licence}, which deny.toml does not allow"
        except ValueError as error:
            yield f"{name}: the licence {licence!r} is malformed: {error}"


def duplicate_errors(found, rules):
    versions = defaultdict(set)
    for package in found:
        versions[package["name"]].add(package["version"])
    for skip in rules.get("skip", []):
        name, _, version = skip["crate"].partition("@")
        if len(versions[name]) < 2 or version not in versions[name]:
            yield f"deny.toml skips {skip['crate']}, which is no duplicate; remove the entry"
        versions[name].discard(version)
    for name, left in sorted(versions.items()):
        if len(left) > 1:
            yield f"{name} is there in versions {', '.join(sorted(left))}; update who needs the older one, or list it in deny.toml with the reason"


def main():
    rules = tomllib.loads(Path(sys.argv[1] if len(sys.argv) > 1 else ROOT / "deny.toml").read_text())
    found = packages(rules["graph"]["targets"])
    errors = [*licence_errors(found, rules["licenses"]), *duplicate_errors(found, rules["bans"])]
    for error in errors:
        print(f"check_dependencies: {error}", file=sys.stderr)
    print(f"check_dependencies: {len(found)} packages, {len(errors)} errors")
    return 1 if errors else 0


if __name__ == "__main__":
    sys.exit(main())
