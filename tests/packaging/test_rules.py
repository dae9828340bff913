"""What keeps the repository in order: the lint rule, the closed network, the environment script, the list of targets."""

from __future__ import annotations

import shutil
import socket
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest


def lint(root, path, source):
    command = [sys.executable, "-m", "ruff", "check", "--no-cache", "--stdin-filename", path, "-"]
    return subprocess.run(command, cwd=root, input=source, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    "path",
    [
        "include/feedamp/steps/place_orders/place.py",
        "tests/core/test_place.py",
        "tests/contract/test_place.py",
    ],
)
@pytest.mark.parametrize("source", ["import airflow.sdk\n", "from feedamp_airflow.hook import FeedAmpHook\n"])
def test_the_core_and_its_tests_may_not_import_airflow(root, path, source):
    assert "TID251" in lint(root, path, source).stdout


@pytest.mark.parametrize("path", ["plugins/feedamp_airflow/hook.py", "dags/feedamp_place_orders.py"])
def test_the_rest_of_the_repository_may(root, path):
    assert "TID251" not in lint(root, path, "import airflow.sdk\n").stdout


@pytest.mark.parametrize("address", ["192.0.2.1", "2001:db8::1", "example.com"])
def test_a_test_cannot_leave_this_machine(address):
    with pytest.raises(RuntimeError, match="loopback only"):
        socket.create_connection((address, 80), timeout=1)


def test_a_name_that_never_resolves_fails_as_in_real_life():
    with pytest.raises(socket.gaierror):
        socket.create_connection(("feedamp.invalid", 80), timeout=1)


@pytest.fixture
def tree(root, tmp_path):
    """The script in a separate tree, with a folder for fake Python programs."""
    (tmp_path / "tools").mkdir()
    shutil.copy(root / "tools" / "venv.sh", tmp_path / "tools")
    return tmp_path


def stand_in(tree: Path, version: str, *, has_venv: bool) -> Path:
    """A program that answers the script's two questions as such a Python would."""
    path = tree / f"python{version}"
    ending = 0 if has_venv else 1
    path.write_text(f'#!/bin/sh\ncase "$2" in *ensurepip*) exit {ending} ;; esac\necho {version}\n')
    path.chmod(0o755)
    return path


@pytest.mark.parametrize(
    ("version", "has_venv", "words"),
    [
        pytest.param("3.10", True, ["3.11, 3.12 or 3.13", "which is 3.10"], id="a Python that is too old"),
        pytest.param("3.14", True, ["3.11, 3.12 or 3.13", "which is 3.14"], id="a Python that is too new"),
        pytest.param("3.12", False, ["apt-get install python3.12-venv"], id="a Python without venv"),
    ],
)
def test_the_environment_script_says_what_is_missing(tree, version, has_venv, words):
    python = stand_in(tree, version, has_venv=has_venv)
    done = subprocess.run(
        ["/bin/sh", tree / "tools" / "venv.sh"],
        env={"PATH": "/usr/bin:/bin", "PYTHON": str(python)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert [word for word in words if word not in done.stderr] == []
    assert not (tree / ".venv").exists()


def test_make_alone_lists_the_targets(root):
    listed = subprocess.run(["make", "-C", root], capture_output=True, text=True, check=True).stdout
    for target in ("demo", "up", "test", "check", "lock", "build", "clean"):
        assert f"make {target} " in listed


def test_every_folder_of_tests_is_in_a_group_that_make_test_runs(root):
    settings = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))
    script = (root / "tools" / "test.sh").read_text(encoding="utf-8")
    folders = settings["tool"]["pytest"]["ini_options"]["testpaths"]
    assert sorted({str(path.parent.relative_to(root)) for path in root.glob("tests/*/test_*.py")}) == sorted(
        folders
    )
    assert [folder for folder in folders if f" {folder}" not in script] == []
