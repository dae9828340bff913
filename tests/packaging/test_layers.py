"""Imports run down only: which parts of `feedamp` each part may import; and no code stands in two places."""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from sources import ROOT, imports_of, packaged, text_of, tree_of

INCLUDE = ROOT / "include"
LONGEST_RUN = 9
BASE = {"errors", "models", "codec", "money", "column_types", "tables", "storage", "file_modes", "progress"}
MAY_IMPORT: dict[str, set[str]] = {
    "errors": set(),
    "money": set(),
    "progress": set(),
    "file_modes": set(),
    "postgres_files": {"errors", "progress"},
    "models": {"errors"},
    "carriers": {"carriers"},
    "codec": {"errors", "models"},
    "column_types": set(),
    "tables": {"errors", "models", "column_types"},
    "storage": {"errors", "models"},
    "order_body": {"errors", "models", "codec", "money", "order_body"},
    "rules": {"errors", "models", "codec", "money", "tables", "order_body", "carriers", "rules"},
    "settings": {"errors", "models", "codec", "order_body"},
    "run": {"errors", "models", "codec", "order_body"},
    "inbox": {"errors", "models", "codec", "money", "order_body", "storage", "settings", "inbox"},
    "state": {
        "errors",
        "models",
        "codec",
        "money",
        "column_types",
        "tables",
        "settings",
        "rules",
        "postgres_files",
        "state",
    },
    "api": BASE | {"order_body", "rules", "settings", "run", "state", "carriers", "api"},
    "lake": BASE | {"rules", "carriers", "lake"},
    "warehouse": {
        "errors",
        "models",
        "codec",
        "money",
        "column_types",
        "tables",
        "file_modes",
        "progress",
        "postgres_files",
        "lake",
        "warehouse",
    },
}
EVERYTHING = {*MAY_IMPORT, "resources", "steps"}
MAY_IMPORT |= {"resources": EVERYTHING - {"steps"}, "steps": EVERYTHING}
IMPURE = {"sqlalchemy", "aiohttp", "fsspec", "duckdb", "pyarrow", "asyncio", "os", "socket", "subprocess"}


def modules() -> list[Path]:
    return [path for path in packaged() if INCLUDE / "feedamp" in path.parents]


def imports(path: Path) -> Iterator[str]:
    for node in imports_of(path):
        module = f"{node.module}." if hasattr(node, "module") else ""
        yield from (f"{module}{alias.name}" for alias in node.names)


def part(path: Path) -> str:
    """The subpackage or top-level module that a file belongs to."""
    return path.relative_to(INCLUDE / "feedamp").parts[0].removesuffix(".py")


def test_a_module_imports_only_what_lies_below_it():
    wrong = {}
    for path in modules():
        if part(path) != "__init__":
            ours = {name.split(".")[1] for name in imports(path) if name.startswith("feedamp.")}
            wrong[str(path)] = ours - MAY_IMPORT[part(path)] - {"__version__"}
    assert len(wrong) > 100
    assert {path: names for path, names in wrong.items() if names} == {}


def test_rules_do_nothing_but_decide():
    rules = [path for path in modules() if part(path) == "rules"]
    assert len(rules) > 10
    for path in rules:
        assert not {name.split(".")[0] for name in imports(path)} & IMPURE, path


def test_the_sandbox_imports_nothing_of_ours():
    for path in (INCLUDE / "feedamp_sandbox").rglob("*.py"):
        assert not [name for name in imports(path) if name.split(".")[0] == "feedamp"], path


def test_no_module_name_comes_twice():
    names = [path.stem for path in modules() if path.stem != "__init__"]
    assert sorted({name for name in names if names.count(name) > 1}) == []


def code_lines(path: Path) -> list[str]:
    """The lines of a file without blank ones and imports."""
    imported = {
        line for node in imports_of(path) for line in range(node.lineno, (node.end_lineno or node.lineno) + 1)
    }
    lines = enumerate(text_of(path).splitlines(), 1)
    return [line.strip() for number, line in lines if line.strip() and number not in imported]


def test_no_ten_equal_lines_stand_in_two_places():
    places: dict[tuple[str, ...], list[str]] = defaultdict(list)
    for path in packaged():
        lines = code_lines(path)
        for at in range(len(lines) - LONGEST_RUN):
            places[tuple(lines[at : at + LONGEST_RUN + 1])].append(str(path.relative_to(ROOT)))
    assert [(found, run[0]) for run, found in places.items() if len(found) > 1] == []


def test_a_task_imports_slow_libraries_only_when_it_uses_them():
    """Each task and each look at a DAG file is a new process."""
    slow, late = ("aiohttp", "duckdb", "pyarrow"), {"lake/writer.py", "warehouse/postgres.py"}
    late_modules = tuple(f"feedamp.{name.removesuffix('.py').replace('/', '.')}" for name in late)
    found = {
        str(path.relative_to(INCLUDE / "feedamp"))
        for path in modules()
        for line in text_of(path).splitlines()
        if line.startswith(("import ", "from ")) and line.split()[1].startswith((*slow, *late_modules))
    }
    assert found == late | {
        "steps/compact.py",
        "warehouse/newest_rows.py",
    }  # a command and `frames.read` use these


def brought_by(module: str) -> set[str]:
    """The modules of ours that a process has after importing this one, late imports left out."""
    paths = {
        ".".join(path.relative_to(root).with_suffix("").parts).removesuffix(".__init__"): path
        for root in (INCLUDE, ROOT / "plugins")
        for path in packaged()
        if root in path.parents
    }
    brought, waiting = set(), {module}
    while waiting:
        name = waiting.pop()
        brought.add(name)
        for node in tree_of(paths[name]).body:
            if isinstance(node, ast.Import | ast.ImportFrom):
                start = f"{node.module}." if isinstance(node, ast.ImportFrom) else ""
                ours = {part for alias in node.names for part in (start[:-1], f"{start}{alias.name}")}
                waiting |= (ours & set(paths)) - brought
    return brought


def test_a_task_imports_no_step_but_its_own_and_no_carriers():
    brought = brought_by("feedamp_airflow.tasks")
    assert len(brought) > 50
    assert {name for name in brought if name.startswith("feedamp.steps.")} == {
        "feedamp.steps.step_end",
        "feedamp.steps.step_log",
        "feedamp.steps.step_result",
    }
    assert not {name for name in brought if name.startswith("feedamp.carriers")}
    # Nor does `plan`, which runs on each day of a backfill, read what only the comparison needs.
    assert "feedamp.carriers" not in brought_by("feedamp.steps.reconcile_orders.reconcile")
