"""What the generators share: formatting, and writing a file or comparing it with the committed one."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def formatted(text: str, name: str) -> str:
    """`text` as `ruff` formats it, with sorted imports."""
    ruff = [sys.executable, "-m", "ruff"]
    config = f"--config={ROOT / 'pyproject.toml'}"
    check = [*ruff, "check", config, "--quiet", "--fix-only", "--select=I,F401", f"--stdin-filename={name}", "-"]
    text = subprocess.run(check, input=text, capture_output=True, text=True, check=True).stdout
    form = [*ruff, "format", config, "--quiet", f"--stdin-filename={name}", "-"]
    return subprocess.run(form, input=text, capture_output=True, text=True, check=True).stdout


def settle(files: dict[Path, str]) -> int:
    """Writes the files, or with `--check` compares them with what is there. Returns the exit status."""
    stale = []
    for path, raw in files.items():
        text = formatted(raw, str(path))
        if path.exists() and path.read_text(encoding="utf-8") == text:
            continue
        stale.append(path)
        if "--check" not in sys.argv:
            path.write_text(text, encoding="utf-8")
    for path in stale:
        print(f"{path.relative_to(ROOT)} {'is stale' if '--check' in sys.argv else 'written'}")
    if stale and "--check" in sys.argv:
        print(f"run `python {Path(sys.argv[0]).name}` in clients/python/scripts")
        return 1
    return 0


def finish(path: Path, text: str) -> None:
    """Settles one file and exits."""
    raise SystemExit(settle({path: text}))
