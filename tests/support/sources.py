"""The Python files of `include` and `plugins`, each read and parsed once in a session."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]


def packaged() -> Iterator[Path]:
    """Every Python file of both folders."""
    for folder in ("include", "plugins"):
        yield from sorted((ROOT / folder).rglob("*.py"))


@cache
def text_of(path: Path) -> str:
    return path.read_text("utf-8")


@cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(text_of(path))


def _statements(of: ast.AST) -> Iterator[ast.AST]:
    """All statements within, without a look at their expressions, which are the most of a tree."""
    for name in ("body", "handlers", "orelse", "finalbody", "cases"):
        for statement in getattr(of, name, ()):
            yield statement
            yield from _statements(statement)


@cache
def imports_of(path: Path) -> list[ast.Import | ast.ImportFrom]:
    """Its import statements, wherever they stand."""
    return [node for node in _statements(tree_of(path)) if isinstance(node, ast.Import | ast.ImportFrom)]
