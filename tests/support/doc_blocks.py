"""Code blocks of the docs, as tests read them."""

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
