"""What of `feedamp` works on a machine without Airflow: its help, the sandbox, and copying the DAG files."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
RUN = """
import sys
sys.modules["airflow"] = None
from feedamp_airflow.cli import main
code = main(sys.argv[1:])
assert not [name for name in sys.modules if name.startswith(("airflow.", "pyarrow", "duckdb", "sqlalchemy"))]
sys.exit(code)
"""
NAMES = [
    "feedamp_extract_fulfillments.py",
    "feedamp_place_orders.py",
    "feedamp_process_fulfillments.py",
    "feedamp_reconcile_orders.py",
    "feedamp_refresh_tokens.py",
]


def feedamp(*argv: str | Path) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "PYTHONPATH": f"{ROOT / 'include'}:{ROOT / 'plugins'}"}
    command = [sys.executable, "-c", RUN, *map(str, argv)]
    return subprocess.run(command, env=env, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("argv", "word"),
    [
        pytest.param(["--help"], "sandbox", id="the whole"),
        pytest.param(["sellers", "import", "--help"], "--replace", id="a verb"),
        pytest.param(["sandbox", "--help"], "--sellers-file", id="the sandbox"),
        pytest.param(["--version"], "0.", id="the version"),
    ],
)
def test_help_needs_no_airflow(argv: list[str], word: str) -> None:
    done = feedamp(*argv)
    assert (done.returncode, word in done.stdout) == (0, True), done.stderr


@pytest.mark.parametrize(
    "argv", [[], ["sellers"], ["nonsense"], ["findings", "waive", "x"], ["sandbox", "--nonsense"]]
)
def test_a_command_line_that_cannot_be_read_is_a_usage_error(argv: list[str]) -> None:
    done = feedamp(*argv)
    assert (done.returncode, done.stdout) == (2, "")
    assert "usage: feedamp" in done.stderr


def test_init_copies_five_files_once(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "dags"
    first = feedamp("init", folder)
    assert (first.returncode, first.stdout.count(": written\n")) == (0, 5), first.stderr
    assert sorted(path.name for path in folder.iterdir()) == NAMES
    assert (folder / NAMES[0]).read_bytes() == (ROOT / "dags" / NAMES[0]).read_bytes()
    again = feedamp("init", folder)
    assert (again.returncode, again.stdout.count(": already exists\n")) == (0, 5)


def test_init_leaves_a_changed_file_alone_unless_forced(tmp_path: Path) -> None:
    mine = tmp_path / NAMES[1]
    mine.write_text("# mine\n")
    done = feedamp("init", tmp_path)
    assert (done.returncode, f"{mine}: differs" in done.stdout, mine.read_text()) == (1, True, "# mine\n")
    assert done.stdout.count(": written\n") == 4
    forced = feedamp("init", tmp_path, "--force")
    assert (forced.returncode, f"{mine}: overwritten" in forced.stdout) == (0, True)
    assert mine.read_bytes() == (ROOT / "dags" / NAMES[1]).read_bytes()


def test_init_into_a_file_is_a_usage_error(tmp_path: Path) -> None:
    (tmp_path / "dags").write_text("")
    done = feedamp("init", tmp_path / "dags")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.endswith("is not a folder.\n")
