"""`feedamp lake compact`, and the DAG of the runbook that does the same."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from airflow.dag_processing.dagbag import DagBag
from doc_blocks import blocks

ROOT = Path(__file__).parents[2]


def parquet_files(house) -> list[Path]:
    return sorted((house.folder / "lake").rglob("*.parquet"))


@pytest.fixture
def lived_in(console):
    """A lake of three loads, and a file that a writer who was killed long ago left."""
    console.import_rows()
    for name in ("M-1", "M-2", "M-3"):
        console.deliver(f"{name}.jsonl", name)
        console.place()
        console.read()
    [*_, some] = parquet_files(console.house)
    left = some.with_name("extract-killed-0-0.parquet")
    left.write_bytes(b"half")
    os.utime(left, (0, 0))
    return console


def test_the_command_puts_files_together_and_says_what_it_did(lived_in):
    before = len(parquet_files(lived_in.house))
    done = lived_in.run("lake", "compact", "--before", "2999-01-01")
    assert done.code == 0
    assert "manifests put together in 1;" in done.out
    assert "and 1 files that a killed writer left" in done.out
    assert len(parquet_files(lived_in.house)) > before - 1  # the old ones wait for a day
    again = lived_in.run("lake", "compact", "--before", "2999-01-01")
    assert again.out.startswith("0 manifests put together in 0; 0 that were replaced before")
    assert lived_in.run("warehouse", "rebuild").out.strip() == "rebuilt from 1 manifests"


def test_a_date_that_is_none_is_refused(lived_in):
    done = lived_in.run("lake", "compact", "--before", "yesterday")
    assert (done.code, "--before must be a date" in done.err) == (2, True)


def test_the_dag_of_the_runbook_is_parsed_and_its_task_does_the_work(lived_in, tmp_path):
    [program] = [text for text in blocks(ROOT / "docs" / "runbook.md", "python") if "@dag" in text]
    file = tmp_path / "lake_maintenance.py"
    file.write_text(program)
    bag = DagBag(str(file))
    assert bag.import_errors == {}
    [task] = bag.dags["lake_maintenance"].tasks
    assert task.python_callable()["leftovers"] == 1
    assert not [path for path in parquet_files(lived_in.house) if "killed" in path.name]
