"""What of `feedamp` works on a machine without Airflow: its help, the sandbox, and copying the DAG files."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[2]
RUN = """
import contextlib, io, json, sys
sys.modules["airflow"] = None
from feedamp_airflow.cli import main
for argv in json.loads(sys.argv[1]):
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            code = main(argv)
        except SystemExit as error:
            code = error.code
    print(json.dumps([code, out.getvalue(), err.getvalue()]))
assert not [name for name in sys.modules if name.startswith(("airflow.", "pyarrow", "duckdb", "sqlalchemy"))]
"""
NAMES = [
    "feedamp_admin.py",
    "feedamp_extract_fulfillments.py",
    "feedamp_place_orders.py",
    "feedamp_process_fulfillments.py",
    "feedamp_reconcile_orders.py",
    "feedamp_refresh_tokens.py",
]


HELP = [
    pytest.param(["--help"], "sandbox", id="the whole"),
    pytest.param(["sellers", "import", "--help"], "--replace", id="a verb"),
    pytest.param(["sandbox", "--help"], "--sellers-file", id="the sandbox"),
    pytest.param(["--version"], "0.", id="the version"),
]
UNREADABLE = [[], ["sellers"], ["nonsense"], ["findings", "waive", "x"], ["sandbox", "--nonsense"]]


class Done(NamedTuple):
    """The result of a command."""

    code: int
    out: str
    err: str


def feedamp(*argvs: Sequence[str | Path]) -> list[Done]:
    """Runs command lines one after the other, in one process without Airflow."""
    env = {**os.environ, "PYTHONPATH": f"{ROOT / 'include'}:{ROOT / 'plugins'}"}
    command = [sys.executable, "-c", RUN, json.dumps([list(map(str, argv)) for argv in argvs])]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return [Done(*json.loads(line)) for line in done.stdout.splitlines()]


Said = dict[tuple[str, ...], Done]


@pytest.fixture(scope="module")
def said() -> Said:
    """What each command line that changes nothing gives."""
    argvs = [*(param.values[0] for param in HELP), *UNREADABLE]
    return {tuple(argv): done for argv, done in zip(argvs, feedamp(*argvs), strict=True)}


@pytest.mark.parametrize(("argv", "word"), HELP)
def test_help_needs_no_airflow(said: Said, argv: list[str], word: str) -> None:
    done = said[tuple(argv)]
    assert (done.code, word in done.out) == (0, True), done.err


@pytest.mark.parametrize("argv", UNREADABLE)
def test_a_command_line_that_cannot_be_read_is_a_usage_error(said: Said, argv: list[str]) -> None:
    done = said[tuple(argv)]
    assert (done.code, done.out) == (2, "")
    assert "usage: feedamp" in done.err


def test_the_shell_completes_commands_and_options(tmp_path: Path) -> None:
    said = tmp_path / "said"
    for typed, expected in (
        ("feedamp re", {"rejected", "reconciliation", "read-only"}),
        ("feedamp adopt --d", {"--dry-run"}),
    ):
        asks = {
            "_ARGCOMPLETE": "1",
            "_ARGCOMPLETE_STDOUT_FILENAME": str(said),
            "COMP_LINE": typed,
            "COMP_POINT": str(len(typed)),
            "COMP_TYPE": "9",
        }
        command = [sys.executable, "-c", "from feedamp_airflow.cli import main; main()"]
        subprocess.run(command, env=os.environ | asks, check=True)
        assert set(said.read_text().replace("\x0b", " ").split()) == expected


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Has `changed` and `forced` with one file of one's own each, and `file`."""
    folder = tmp_path_factory.mktemp("init")
    for name in ("changed", "forced"):
        (folder / name).mkdir()
        (folder / name / NAMES[1]).write_text("# mine\n")
    (folder / "file").write_text("")
    return folder


@pytest.fixture(scope="module")
def inits(folder: Path) -> list[Done]:
    """What `feedamp init` says to a new folder, to the same again, and to those of `folder`."""
    new = folder / "new" / "dags"
    return feedamp(
        *(["init", at] for at in (new, new, folder / "changed", folder / "file")),
        ["init", folder / "forced", "--force"],
    )


def test_init_copies_the_files_once(folder: Path, inits: list[Done]) -> None:
    first, again, *_ = inits
    new = folder / "new" / "dags"
    assert (first.code, first.out.count(": written\n")) == (0, 6), first.err
    assert sorted(path.name for path in new.iterdir()) == NAMES
    assert (new / NAMES[0]).read_bytes() == (ROOT / "dags" / NAMES[0]).read_bytes()
    assert (again.code, again.out.count(": already exists\n")) == (0, 6)


def test_init_leaves_a_changed_file_alone_unless_forced(folder: Path, inits: list[Done]) -> None:
    _, _, done, _, forced = inits
    mine = folder / "changed" / NAMES[1]
    assert (done.code, f"{mine}: differs" in done.out, mine.read_text()) == (1, True, "# mine\n")
    assert done.out.count(": written\n") == 5
    mine = folder / "forced" / NAMES[1]
    assert (forced.code, f"{mine}: overwritten" in forced.out) == (0, True)
    assert mine.read_bytes() == (ROOT / "dags" / NAMES[1]).read_bytes()


def test_init_into_a_file_is_a_usage_error(inits: list[Done]) -> None:
    done = inits[3]
    assert (done.code, done.out) == (2, "")
    assert done.err.endswith("is not a folder.\n")
