"""The runbook's program that moves the state to another database."""

from __future__ import annotations

import sqlite3
import sys
from pathlib import Path
from typing import Any

from doc_blocks import blocks
from env import shipment

from feedamp.state import State

RUNBOOK = Path(__file__).parents[2] / "docs" / "runbook.md"


def test_the_program_that_moves_the_state_moves_every_row(tmp_path, monkeypatch, env, capsys):
    env.placed("M-1")
    env.read()
    env.fulfill("M-1", shipment(number=None))
    env.read()
    env.process()
    new = f"sqlite:///{tmp_path / 'new.db'}"
    [program] = [text for text in blocks(RUNBOOK, "python") if "sorted_tables" in text]
    monkeypatch.setattr(sys, "argv", ["move_state.py", str(env.state.url), new])
    exec(program, {})
    capsys.readouterr()
    State(new).close()
    before, after = dump(env.state.url.database), dump(tmp_path / "new.db")
    assert before.keys() == after.keys()
    assert all(before[name] for name in ("outbox", "orders", "snapshots", "findings", "grants", "watermarks"))
    assert {name: rows for name, rows in after.items() if rows != before[name]} == {}


def dump(path: Any) -> dict[str, list[tuple[Any, ...]]]:
    """All rows by table; those of the outbox in their order, without the ids, which are given again."""
    connection = sqlite3.connect(path)
    try:
        names = connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'").fetchall()
        rows = {name: connection.execute(f"SELECT * FROM {name}").fetchall() for (name,) in names}
    finally:
        connection.close()
    outbox = [row[1:] for row in sorted(rows["outbox"])]
    mine = {name: sorted(found, key=repr) for name, found in rows.items() if not name.startswith("sqlite_")}
    return {**mine, "outbox": outbox}
