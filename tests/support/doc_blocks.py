"""Code blocks and tables of the docs, as tests read them."""

from __future__ import annotations

import re
import textwrap
from pathlib import Path

FENCE = re.compile(
    r"^(?P<indent> *)```(?P<kind>[^\n]*)\n(?P<text>.*?)^(?P=indent)```$", re.MULTILINE | re.DOTALL
)


def blocks(page: Path, kind: str) -> list[str]:
    """Code blocks of a page with this info string, in order."""
    found = FENCE.finditer(page.read_text("utf-8"))
    return [textwrap.dedent(match["text"]) for match in found if match["kind"] == kind]


def cells(page: Path, heading: str = "") -> list[list[str]]:
    """Rows of all tables of a page as their cells; with a heading, of the section below it alone."""
    text = FENCE.sub("", page.read_text("utf-8"))
    if heading:
        _, found, after = text.partition(f"{heading}\n")
        assert found, heading
        text = re.split(rf"(?m)^#{{1,{heading.index(' ')}}} ", after)[0]
    rows = (line for line in text.splitlines() if line.startswith("|"))
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in rows]
