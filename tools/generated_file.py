"""What the tools that generate a page of the docs have in common: they print it, or write it with `--write`."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path


def main(file: Path, render: Callable[[], str]) -> int:
    """0 done, 2 for another argument than --write."""
    arguments = sys.argv[1:]
    if arguments == ["--write"]:
        file.parent.mkdir(exist_ok=True)
        file.write_text(render(), encoding="utf-8")
        print(f"wrote {file.name}")
    elif not arguments:
        print(render(), end="")
    else:
        print(f"usage: python {sys.argv[0]} [--write]", file=sys.stderr)
        return 2
    return 0
